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

/// Writes the special tokens, whether a text gets them, and the chat templates.
pub(super) fn translate(
    folder: &Folder,
    config: &Config,
    parsed: &Parsed,
    notes: &mut Vec<String>,
    to: &mut Metadata,
) -> Result<(), ImportError> {
    let tokenizer_config = Companion::read(folder, "tokenizer_config.json")?;
    let special_tokens = Companion::read(folder, "special_tokens_map.json")?;
    let generation = Companion::read(folder, "generation_config.json")?;
    let template = template(parsed)?;

    let id_of = |text: &str| {
        let added = parsed
            .json
            .added_tokens
            .iter()
            .find(|token| token.content == text);
        added
            .map(|token| token.id)
            .or_else(|| parsed.json.model.vocab.get(text).copied())
    };
    let find = |role: &str| -> Result<Option<u32>, ImportError> {
        let key = format!("{role}_token");
        let written = tokenizer_config
            .token_text(&key)
            .or_else(|| special_tokens.token_text(&key));
        if let Some(id) = written.and_then(id_of) {
            return Ok(Some(id));
        }
        Ok(config.tokens(&format!("{role}_token_id"))?.first().copied())
    };
    let bos = template
        .first
        .map_or_else(|| find("bos"), |id| Ok(Some(id)))?;
    let eos = template
        .last
        .map_or_else(|| find("eos"), |id| Ok(Some(id)))?;
    let unknown = match &parsed.json.model.unk_token {
        Some(text) => id_of(text),
        None => None,
    };
    let roles = [
        ("tokenizer.ggml.bos_token_id", bos),
        ("tokenizer.ggml.eos_token_id", eos),
        ("tokenizer.ggml.unknown_token_id", unknown),
        ("tokenizer.ggml.padding_token_id", find("pad")?),
    ];
    for (key, id) in roles {
        if let Some(id) = id {
            to.insert(key, id);
        }
    }

    // Hugging Face ends a text at any of these.
    let mut ends = config.tokens("eos_token_id")?;
    if let (Some(file), Some(found)) = (&generation.file, generation.map.get("eos_token_id")) {
        ends.extend(tokens(file.path(), "eos_token_id", found)?);
    }
    ends.sort_unstable();
    ends.dedup();
    if ends.iter().any(|&id| Some(id) != eos) {
        to.insert(END_IDS, Array::from(&ends[..]));
    }

    for (role, key, in_template, id) in [
        (
            "bos",
            "tokenizer.ggml.add_bos_token",
            template.first.is_some(),
            bos,
        ),
        (
            "eos",
            "tokenizer.ggml.add_eos_token",
            template.last.is_some(),
            eos,
        ),
    ] {
        let flag = tokenizer_config
            .map
            .get(&format!("add_{role}_token"))
            .and_then(Value::as_bool);
        // What the tokenizer itself does goes before what its Python class is told, where it does anything.
        let add = match flag {
            Some(flag) if !template.is_there => flag && id.is_some(),
            _ => in_template,
        };
        if flag.is_some_and(|flag| flag != add) {
            let does = if add { "adds" } else { "does not add" };
            notes.push(format!("{}: add_{role}_token differs from tokenizer.json, which {does} one and is followed", folder.path().join("tokenizer_config.json").display()));
        }
        to.insert(key, add);
    }
    sampling(&generation, to)?;
    chat_templates(folder, &tokenizer_config, to)
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
