//! Which tokens begin and end a text, the chat templates, and how the model is to be sampled.

use super::super::ImportError;
use super::super::config::{Config, tokens};
use super::super::error::value;
use super::END_IDS;
use super::parse::Parsed;
use crate::loader::{Array, Folder, JsonFile, Metadata};
use serde_json::{Map, Value};

/// A JSON object of the folder, and the file it was read from.
struct Companion {
    file: Option<JsonFile>,
    map: Map<String, Value>,
}

impl Companion {
    fn read(folder: &Folder, name: &str) -> Result<Companion, ImportError> {
        let file = folder.json(name)?;
        let map = match &file {
            Some(file) => file.parse()?,
            None => Map::new(),
        };
        Ok(Companion { file, map })
    }

    /// The text of the token `key`: a string, or an object with one.
    fn token_text(&self, key: &str) -> Option<&str> {
        let found = self.map.get(key)?;
        found.as_str().or_else(|| found["content"].as_str())
    }
}

/// The files besides `tokenizer.json` that say something of special tokens.
struct Companions<'a> {
    config: &'a Config,
    parsed: &'a Parsed<'a>,
    tokenizer_config: Companion,
    special_tokens: Companion,
    generation: Companion,
}

/// Writes the special tokens, whether a text gets them, and the chat templates. The model has `vocabulary` rows.
pub(super) fn translate(
    folder: &Folder,
    config: &Config,
    parsed: &Parsed,
    vocabulary: u32,
    notes: &mut Vec<String>,
    to: &mut Metadata,
) -> Result<(), ImportError> {
    let companions = Companions {
        config,
        parsed,
        tokenizer_config: Companion::read(folder, "tokenizer_config.json")?,
        special_tokens: Companion::read(folder, "special_tokens_map.json")?,
        generation: Companion::read(folder, "generation_config.json")?,
    };
    let template = template(parsed)?;
    let bos = match template.first {
        None => companions.find("bos")?,
        first => first,
    };
    let eos = match template.last {
        None => companions.find("eos")?,
        last => last,
    };
    let unknown = parsed.json.model.unk_token.as_deref();
    let roles = [
        ("bos", bos),
        ("eos", eos),
        ("unknown", unknown.and_then(|text| companions.id_of(text))),
        ("padding", companions.padding(vocabulary, notes)),
    ];
    for (role, id) in roles {
        if let Some(id) = id {
            to.insert(format!("tokenizer.ggml.{role}_token_id"), id);
        }
    }
    let ends = companions.ends()?;
    if ends.iter().any(|&id| Some(id) != eos) {
        to.insert(END_IDS, Array::from(&ends[..]));
    }
    for (role, in_template, id) in [
        ("bos", template.first.is_some(), bos),
        ("eos", template.last.is_some(), eos),
    ] {
        let does = (template.is_there, in_template);
        let add = companions.adds(folder, role, does, id, notes);
        to.insert(format!("tokenizer.ggml.add_{role}_token"), add);
    }
    sampling(&companions.generation, to)?;
    chat_templates(folder, &companions.tokenizer_config, to)
}

impl Companions<'_> {
    /// The token with a text.
    fn id_of(&self, text: &str) -> Option<u32> {
        let json = &self.parsed.json;
        let added = json.added_tokens.iter().find(|token| token.content == text);
        added
            .map(|token| token.id)
            .or_else(|| json.model.vocab.get(text).copied())
    }

    /// The token that the tokenizer's files name for a role, by its text.
    fn named(&self, role: &str) -> Option<u32> {
        let key = format!("{role}_token");
        let written = self
            .tokenizer_config
            .token_text(&key)
            .or_else(|| self.special_tokens.token_text(&key));
        written.and_then(|text| self.id_of(text))
    }

    /// The token of a role: by its text, or else by the id in `config.json`.
    fn find(&self, role: &str) -> Result<Option<u32>, ImportError> {
        let by_id = || self.config.tokens(&format!("{role}_token_id"));
        match self.named(role) {
            None => Ok(by_id()?.first().copied()),
            named => Ok(named),
        }
    }

    /// The padding token. Nothing is computed with it, and some files say -1 where there is none, so an id that is no
    /// token counts as absent.
    fn padding(&self, vocabulary: u32, notes: &mut Vec<String>) -> Option<u32> {
        const KEY: &str = "pad_token_id";
        if let Some(id) = self.named("pad") {
            return Some(id);
        }
        let why = match self.config.tokens(KEY).as_deref() {
            Ok([]) => return None,
            Ok([id, ..]) if *id < vocabulary => return Some(*id),
            Ok([id, ..]) => {
                let file = self.config.file().display();
                format!("{file}: {KEY}: token {id} does not exist; the model has {vocabulary}")
            }
            Err(why) => why.to_string(),
        };
        notes.push(format!("{why}; it counts as absent"));
        None
    }

    /// The tokens at which Hugging Face ends a text, any of them.
    fn ends(&self) -> Result<Vec<u32>, ImportError> {
        const KEY: &str = "eos_token_id";
        let mut ends = self.config.tokens(KEY)?;
        let generation = &self.generation;
        if let (Some(file), Some(found)) = (&generation.file, generation.map.get(KEY)) {
            ends.extend(tokens(file.path(), KEY, found)?);
        }
        ends.sort_unstable();
        ends.dedup();
        Ok(ends)
    }

    /// Whether a text gets the token `id` of a role, where `tokenizer.json` has a template and whether that one adds it:
    /// what the tokenizer itself does goes before what its Python class is told, where it does anything.
    fn adds(
        &self,
        folder: &Folder,
        role: &str,
        (template, in_template): (bool, bool),
        id: Option<u32>,
        notes: &mut Vec<String>,
    ) -> bool {
        let key = format!("add_{role}_token");
        let flag = self.tokenizer_config.map.get(&key).and_then(Value::as_bool);
        let add = match flag {
            Some(flag) if !template => flag && id.is_some(),
            _ => in_template,
        };
        if flag.is_some_and(|flag| flag != add) {
            let does = if add { "adds" } else { "does not add" };
            let file = folder.path().join("tokenizer_config.json");
            notes.push(format!(
                "{}: {key} differs from tokenizer.json, which {does} one and is followed",
                file.display()
            ));
        }
        add
    }
}

/// `general.sampling.*`: what `generation_config.json` recommends, under llama.cpp's names.
fn sampling(generation: &Companion, to: &mut Metadata) -> Result<(), ImportError> {
    let Some(file) = &generation.file else {
        return Ok(());
    };
    let numbers = [
        ("temperature", "temp"),
        ("top_p", "top_p"),
        ("min_p", "min_p"),
        ("repetition_penalty", "penalty_repeat"),
    ];
    let wrong = |key: &str, wanted: &str, found: &Value| value(file.path(), key, wanted, found);
    let given = |key: &str| generation.map.get(key).filter(|found| !found.is_null());
    for (key, name) in numbers {
        if let Some(found) = given(key) {
            let number = found
                .as_f64()
                .ok_or_else(|| wrong(key, "a number", found))?;
            to.insert(format!("general.sampling.{name}"), number as f32);
        }
    }
    if let Some(found) = given("top_k") {
        let number = found.as_i64().and_then(|number| i32::try_from(number).ok());
        let number = number.filter(|&number| number >= 0);
        let number = number.ok_or_else(|| wrong("top_k", "a count", found))?;
        to.insert("general.sampling.top_k", number);
    }
    Ok(())
}

/// The tokens that the post-processor puts around a text.
#[derive(Default)]
struct Template {
    is_there: bool,
    first: Option<u32>,
    last: Option<u32>,
}

fn template(parsed: &Parsed) -> Result<Template, ImportError> {
    let steps = parsed.post_processors();
    let refuse = || {
        parsed.refuse("post_processor", &steps, "ByteLevel, and a TemplateProcessing with at most one token before and one after the text")
    };
    let mut template = Template::default();
    for step in &steps {
        match step["type"].as_str() {
            Some("ByteLevel") => {}
            Some("TemplateProcessing") if !template.is_there => {
                template.is_there = true;
                let mut before = true;
                for piece in step["single"].as_array().ok_or_else(refuse)? {
                    if !piece["Sequence"].is_null() {
                        before = false;
                        continue;
                    }
                    let name = piece["SpecialToken"]["id"].as_str().ok_or_else(refuse)?;
                    let ids = step["special_tokens"][name]["ids"]
                        .as_array()
                        .ok_or_else(refuse)?;
                    let [id] = &ids[..] else {
                        return Err(refuse());
                    };
                    let id = id
                        .as_u64()
                        .and_then(|id| u32::try_from(id).ok())
                        .ok_or_else(refuse)?;
                    let place = if before {
                        &mut template.first
                    } else {
                        &mut template.last
                    };
                    if place.replace(id).is_some() {
                        return Err(refuse());
                    }
                }
            }
            _ => return Err(refuse()),
        }
    }
    Ok(template)
}

/// `tokenizer.chat_template` and its relatives: from the template's own file, or from `tokenizer_config.json`.
fn chat_templates(
    folder: &Folder,
    tokenizer_config: &Companion,
    to: &mut Metadata,
) -> Result<(), ImportError> {
    if let Some(file) = folder.json("chat_template.jinja")? {
        to.insert("tokenizer.chat_template", file.text());
        return Ok(());
    }
    let own = Companion::read(folder, "chat_template.json")?;
    let found = own.map.get("chat_template").zip(own.file.as_ref());
    let found = found.or_else(|| {
        tokenizer_config
            .map
            .get("chat_template")
            .zip(tokenizer_config.file.as_ref())
    });
    let Some((template, file)) = found else {
        return Ok(());
    };
    let wrong = || {
        value(
            file.path(),
            "chat_template",
            "a text, or a list of named texts",
            template,
        )
    };
    match template {
        Value::Null => {}
        Value::String(text) => {
            to.insert("tokenizer.chat_template", text.as_str());
        }
        Value::Array(list) => {
            let mut names = Vec::new();
            for entry in list {
                let name = entry["name"].as_str().ok_or_else(wrong)?;
                let text = entry["template"].as_str().ok_or_else(wrong)?;
                if name == "default" {
                    to.insert("tokenizer.chat_template", text);
                } else {
                    to.insert(format!("tokenizer.chat_template.{name}"), text);
                    names.push(name);
                }
            }
            if !names.is_empty() {
                to.insert("tokenizer.chat_templates", Array::strings(names));
            }
        }
        _ => return Err(wrong()),
    }
    Ok(())
}
