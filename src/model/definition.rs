//! A Definition: a model family's decode step as data. `graphs/llama.toml` explains the format to
//! its readers; this is the same thing as types.

use crate::graph::{Activation, RopeStyle};
use indexmap::IndexMap;
use serde::Deserialize;
use std::ops::Range;
use thiserror::Error;
use toml::Spanned;

/// The Definitions compiled into the binary, `(file name, text)`.
const BUILT_IN: &[(&str, &str)] = &[("llama.toml", include_str!("../../graphs/llama.toml"))];

/// A family's nodes and weight names.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// The family's name, for people.
    pub family: String,
    /// The values of `general.architecture` it serves.
    pub architectures: Vec<String>,
    pub weights: IndexMap<String, WeightEntry>,
    /// Tensors that files of the family carry and that nothing needs, as GGUF names them.
    #[serde(default)]
    pub ignored: Vec<String>,
    pub prologue: Vec<NodeEntry>,
    pub layer: Vec<NodeEntry>,
    pub epilogue: Vec<NodeEntry>,
}

/// How checkpoints name one tensor, and its shape in letters.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightEntry {
    pub gguf: String,
    pub safetensors: Option<String>,
    pub shape: Vec<String>,
    /// The entry whose tensor serves when this one is absent.
    pub tied: Option<String>,
    /// Whether nodes run without it when it is absent.
    #[serde(default)]
    pub optional: bool,
}

/// One node: an op and the names it joins. Which fields an op takes is checked when it is built.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeEntry {
    pub op: Spanned<String>,
    #[serde(default, rename = "in")]
    pub inputs: Vec<String>,
    pub weight: Option<String>,
    pub out: Option<String>,
    /// `"H"` or `"G"`: per-head norms and RoPE.
    pub heads: Option<String>,
    pub style: Option<RopeStyle>,
    pub activation: Option<Activation>,
    /// `"W"`: attention sees the model's sliding window, where it has one.
    pub window: Option<String>,
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
        toml::from_str(text).map_err(|error| {
            let message = error.message().to_string();
            syntax_error(file, text, error.span().unwrap_or(0..0), message)
        })
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
    let before = &text[..span.start.min(text.len())];
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
    DefinitionError::Syntax {
        file: file.into(),
        line,
        column,
        message,
    }
}
