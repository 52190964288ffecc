//! A Definition: a model family's decode step as data. `graphs/llama.toml` explains the format to
//! its readers; this is the same thing as types.

use crate::graph::{Activation, RopeStyle};
use indexmap::IndexMap;
use serde::Deserialize;
use std::ops::Range;
use std::sync::Arc;
use thiserror::Error;
use toml::Spanned;

/// The Definitions compiled into the binary, `(file name, text)`.
#[rustfmt::skip]
const BUILT_IN: &[(&str, &str)] = &[
    ("llama.toml", include_str!("../../graphs/llama.toml")),
    ("qwen2.toml", include_str!("../../graphs/qwen2.toml")),
    ("qwen3.toml", include_str!("../../graphs/qwen3.toml")),
    ("gemma3.toml", include_str!("../../graphs/gemma3.toml")),
    ("smollm3.toml", include_str!("../../graphs/smollm3.toml")),
];

/// A family's nodes and weight names.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// The family's name, for people.
    pub family: String,
    /// The values of `general.architecture` it serves.
    pub architectures: Vec<String>,
    /// What the family's files leave unsaid, by metadata key without the architecture in front.
    #[serde(default)]
    pub defaults: IndexMap<String, DefaultValue>,
    /// The same for some of the family's models only; the first that fits goes before `defaults`.
    #[serde(default)]
    pub variants: Vec<Variant>,
    pub weights: IndexMap<String, WeightEntry>,
    /// Tensors that files of the family carry and that nothing needs, as GGUF names them.
    #[serde(default)]
    pub ignored: Vec<String>,
    pub prologue: Vec<NodeEntry>,
    pub layer: Vec<NodeEntry>,
    pub epilogue: Vec<NodeEntry>,
    /// Where the text came from, for errors that are found when a graph is built.
    #[serde(skip)]
    source: Source,
}

/// A Definition's file name and text.
#[derive(Clone, Debug, Default)]
struct Source {
    file: String,
    text: Arc<str>,
}

/// A metadata value that a Definition supplies.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum DefaultValue {
    Integer(u32),
    Number(f32),
    Named(NamedNumber),
}

/// A number that the model's dimensions decide, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum NamedNumber {
    /// √E
    #[serde(rename = "sqrt_E")]
    SqrtE,
    /// 1 / √(E / H)
    #[serde(rename = "rsqrt_E_per_H")]
    RsqrtEPerH,
}

/// Models of a family that differ in what their files leave unsaid.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// How many layers tell them apart.
    pub layers: u32,
    pub defaults: IndexMap<String, DefaultValue>,
}

/// How checkpoints name one tensor, and its shape in letters.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightEntry {
    pub gguf: String,
    pub safetensors: Option<String>,
    #[serde(deserialize_with = "dimensions")]
    pub shape: Vec<String>,
    /// The entry whose tensor serves when this one is absent.
    pub tied: Option<String>,
    /// Whether nodes run without it when it is absent.
    #[serde(default)]
    pub optional: bool,
}

/// A tensor's dimensions, of which there is at least one.
fn dimensions<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let shape = Vec::<String>::deserialize(from)?;
    if shape.is_empty() {
        let message = "a shape needs at least one dimension, such as [\"E\"]";
        return Err(serde::de::Error::custom(message));
    }
    Ok(shape)
}

/// One node: an op and the names it joins. Which fields an op takes is checked when it is built.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeEntry {
    pub op: Spanned<String>,
    #[serde(default, rename = "in")]
    pub inputs: Vec<String>,
    pub weight: Option<String>,
    /// `gemm`: what is added to the product, where the checkpoint has it.
    pub bias: Option<String>,
    pub out: Option<String>,
    /// `"H"` or `"G"`: per-head norms and RoPE.
    pub heads: Option<String>,
    pub style: Option<RopeStyle>,
    pub activation: Option<Activation>,
    /// `"W"`: attention sees the model's sliding window, where it has one.
    pub window: Option<String>,
    /// `rope_table`: which of the model's two sets of frequencies.
    pub rope: Option<RopeSet>,
    /// The layers that have this node; all of them if it does not say.
    pub layers: Option<LayerKind>,
}

/// A model's rotary embeddings: most have the global one only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RopeSet {
    /// `rope.freq_base` with the file's scaling.
    #[default]
    Global,
    /// `rope.freq_base_swa`, not scaled: that of layers with a sliding window.
    Local,
}

/// Layers that a pattern of the model picks out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerKind {
    /// With a sliding window.
    Windowed,
    /// Without one.
    Full,
    /// Whose queries and keys are turned.
    Rotated,
}

/// A Definition that does not parse or does not fit together.
#[derive(Debug, Error)]
pub enum DefinitionError {
    #[error("{file}:{line}:{column}: {message}")]
    Syntax {
        file: String,
        line: usize,
        column: usize,
        message: String,
    },
    #[error(
        "{file}: architecture `{architecture}` is not supported; supported: {supported} \
         (another family can be run with a definition of your own, --graph FILE)"
    )]
    UnknownArchitecture {
        file: String,
        architecture: String,
        supported: String,
    },
}

impl Definition {
    /// Parses a Definition; `file` is its name in errors.
    pub fn parse(file: &str, text: &str) -> Result<Self, DefinitionError> {
        let mut definition: Definition = toml::from_str(text).map_err(|error| {
            let message = error.message().to_string();
            syntax_error(file, text, error.span().unwrap_or(0..0), message)
        })?;
        definition.source = Source {
            file: file.into(),
            text: text.into(),
        };
        Ok(definition)
    }

    /// Whether any node asks for the layers of this kind.
    pub(super) fn tells_apart(&self, kind: LayerKind) -> bool {
        self.layer.iter().any(|node| node.layers == Some(kind))
    }

    /// Whether any attention has the model's window.
    pub(super) fn has_windows(&self) -> bool {
        self.layer.iter().any(|node| node.window.is_some())
    }

    /// An error about a node, at its op.
    pub(super) fn error_at(&self, node: &NodeEntry, message: &str) -> DefinitionError {
        let Source { file, text } = &self.source;
        let message = format!("op `{}`: {message}", node.op.get_ref());
        syntax_error(file, text, node.op.span(), message)
    }

    /// An error about the whole.
    pub(super) fn error(&self, message: &str) -> DefinitionError {
        let Source { file, text } = &self.source;
        let end = text.len();
        syntax_error(file, text, end..end, message.into())
    }

    /// The built-in Definition for an architecture. `file` names the checkpoint in the error.
    pub fn built_in(architecture: &str, file: &str) -> Result<Self, DefinitionError> {
        let mut supported = Vec::new();
        for (name, text) in BUILT_IN {
            let definition = Self::parse(name, text)?;
            if definition.architectures.iter().any(|a| a == architecture) {
                return Ok(definition);
            }
            supported.extend(definition.architectures);
        }
        Err(DefinitionError::UnknownArchitecture {
            file: file.into(),
            architecture: architecture.into(),
            supported: supported.join(", "),
        })
    }
}

/// An error at a byte range of a Definition's text.
pub(super) fn syntax_error(
    file: &str,
    text: &str,
    span: Range<usize>,
    message: String,
) -> DefinitionError {
    let (line, column) = line_and_column(text, span.start);
    DefinitionError::Syntax {
        file: file.into(),
        line,
        column,
        message,
    }
}

/// Line and column, both from 1 and the column in characters, of the byte at `offset`.
pub fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let line_start = before.iter().rposition(|&byte| byte == b'\n');
    let start = line_start.map_or(0, |newline| newline + 1);
    let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
    (line, column)
}
