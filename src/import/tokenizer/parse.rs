//! `tokenizer.json` as it is written, so far as it is read.

use super::super::ImportError;
use super::super::error::{short, unsupported};
use crate::loader::JsonFile;
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;

/// The file, and its path for messages.
pub(super) struct Parsed<'f> {
    pub(super) file: &'f Path,
    pub(super) json: TokenizerJson,
}

#[derive(Deserialize)]
pub(super) struct TokenizerJson {
    #[serde(default)]
    pub(super) added_tokens: Vec<AddedToken>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    pub(super) model: Model,
}

#[derive(Deserialize)]
pub(super) struct AddedToken {
    pub(super) id: u32,
    pub(super) content: String,
    #[serde(default)]
    pub(super) single_word: bool,
    #[serde(default)]
    pub(super) lstrip: bool,
    #[serde(default)]
    pub(super) rstrip: bool,
    #[serde(default)]
    pub(super) normalized: bool,
    #[serde(default)]
    pub(super) special: bool,
}

#[derive(Deserialize)]
pub(super) struct Model {
    pub(super) vocab: IndexMap<String, u32>,
    pub(super) merges: Vec<Merge>,
    #[serde(default)]
    pub(super) byte_fallback: bool,
    #[serde(default)]
    pub(super) ignore_merges: bool,
    #[serde(default)]
    pub(super) unk_token: Option<String>,
    #[serde(default)]
    dropout: Option<f64>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
}

/// A merge, as version 0.19 and before of `tokenizers` wrote it, and as later ones do.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Merge {
    Line(String),
    Pair(String, String),
}

impl Merge {
    /// Both sides.
    pub(super) fn sides(&self) -> Option<(&str, &str)> {
        match self {
            Merge::Pair(left, right) => Some((left, right)),
            Merge::Line(line) => line.split_once(' '),
        }
    }
}

impl TokenizerJson {
    /// Parses the file, and refuses every model but a plain byte-pair encoding.
    pub(super) fn read(file: &JsonFile) -> Result<Parsed<'_>, ImportError> {
        #[derive(Deserialize)]
        struct Head {
            model: Kind,
        }
        #[derive(Deserialize)]
        struct Kind {
            #[serde(rename = "type")]
            name: Option<String>,
        }
        let head: Head = file.parse()?;
        // Files from before version 0.9 of `tokenizers` do not name the type.
        let name = head.model.name.as_deref().unwrap_or("BPE");
        let path = file.path();
        if name != "BPE" {
            return Err(unsupported(path, "model.type", name, "BPE"));
        }
        let parsed = Parsed {
            file: path,
            json: file.parse()?,
        };
        let model = &parsed.json.model;
        if let Some(dropout) = model.dropout.filter(|&dropout| dropout != 0.0) {
            return Err(unsupported(
                path,
                "model.dropout",
                dropout.to_string(),
                "null",
            ));
        }
        let affixes = [
            (
                "model.continuing_subword_prefix",
                &model.continuing_subword_prefix,
            ),
            ("model.end_of_word_suffix", &model.end_of_word_suffix),
        ];
        for (key, affix) in affixes {
            if let Some(affix) = affix.as_ref().filter(|affix| !affix.is_empty()) {
                return Err(unsupported(path, key, format!("{affix:?}"), "none"));
            }
        }
        Ok(parsed)
    }
}

impl Parsed<'_> {
    /// Drops added tokens that the model has no row for, as Gemma 3's text models have one of their multimodal siblings, and
    /// returns a sentence about them. Text that spells one is cut as any other.
    pub(super) fn leave_out(&mut self, vocabulary: u32) -> Option<String> {
        let added = &mut self.json.added_tokens;
        let left_out: Vec<String> = added
            .extract_if(.., |token| token.id >= vocabulary)
            .map(|token| format!("{} {:?}", token.id, token.content))
            .collect();
        let count = left_out.len();
        let shown = left_out.into_iter().take(3).collect::<Vec<_>>().join(", ");
        (count > 0).then(|| {
            let more = if count > 3 { ", …" } else { "" };
            let file = self.file.display();
            format!(
                "{file}: {count} added token(s) without a row in the model's {vocabulary} are left out: {shown}{more}"
            )
        })
    }

    /// The normaliser's steps.
    pub(super) fn normalizers(&self) -> Vec<&Value> {
        steps(self.json.normalizer.as_ref(), "normalizers")
    }

    /// The pre-tokenizer's steps.
    pub(super) fn pre_tokenizers(&self) -> Vec<&Value> {
        steps(self.json.pre_tokenizer.as_ref(), "pretokenizers")
    }

    /// The post-processor's steps.
    pub(super) fn post_processors(&self) -> Vec<&Value> {
        steps(self.json.post_processor.as_ref(), "processors")
    }

    /// The error for something that cannot be.
    pub(super) fn wrong(
        &self,
        key: &str,
        expected: impl Into<String>,
        found: String,
    ) -> ImportError {
        ImportError::Value {
            file: self.file.to_owned(),
            key: key.to_owned(),
            expected: expected.into(),
            found,
        }
    }

    /// The error for a part that is not translated.
    pub(super) fn refuse(&self, key: &str, found: &[&Value], supported: &str) -> ImportError {
        let found: Vec<String> = found.iter().map(|part| short(part)).collect();
        unsupported(self.file, key, format!("[{}]", found.join(", ")), supported)
    }

    /// Refuses an added token that is not recognised simply where it stands.
    pub(super) fn check_added(&self, token: &AddedToken) -> Result<(), ImportError> {
        if token.content.is_empty() {
            return Err(self.wrong(
                "added_tokens",
                "a text",
                format!("none for token {}", token.id),
            ));
        }
        for (name, set) in [
            ("single_word", token.single_word),
            ("lstrip", token.lstrip),
            ("rstrip", token.rstrip),
        ] {
            if set {
                let found = format!("{name} of {:?}", token.content);
                return Err(unsupported(
                    self.file,
                    "added_tokens",
                    found,
                    "added tokens without it",
                ));
            }
        }
        Ok(())
    }
}

/// A part and, if it is a sequence, its parts, to any depth.
fn steps<'v>(part: Option<&'v Value>, list: &str) -> Vec<&'v Value> {
    match part {
        None | Some(Value::Null) => Vec::new(),
        Some(part) if part["type"] == "Sequence" => {
            let parts = part[list].as_array().map(Vec::as_slice).unwrap_or_default();
            parts
                .iter()
                .flat_map(|part| steps(Some(part), list))
                .collect()
        }
        Some(part) => vec![part],
    }
}
