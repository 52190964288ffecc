//! Why a folder is not a model that can run.

use crate::loader::LoadError;
use crate::model::DefinitionError;
use std::path::{Path, PathBuf};

/// Why a folder could not be presented as a checkpoint. Every message names the file and the key.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The files themselves.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// No Definition for the architecture.
    #[error(transparent)]
    Family(#[from] DefinitionError),
    /// A file that a model folder needs is not there.
    #[error("{}: has no {file}, {why}", folder.display())]
    MissingFile {
        /// The folder.
        folder: PathBuf,
        /// The absent file.
        file: &'static str,
        /// Why it is needed.
        why: &'static str,
    },
    /// A key is absent.
    #[error("{}: {key}: missing; {why}", file.display())]
    MissingKey {
        /// The JSON file.
        file: PathBuf,
        /// The absent key.
        key: String,
        /// Why it is needed.
        why: &'static str,
    },
    /// A value of another JSON type, or out of range.
    #[error("{}: {key}: expected {expected}, found {found}", file.display())]
    Value {
        /// The JSON file.
        file: PathBuf,
        /// The key.
        key: String,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A value that means something this program does not do.
    #[error("{}: {key}: {found} is not supported; supported: {supported}", file.display())]
    Unsupported {
        /// The JSON file.
        file: PathBuf,
        /// The key.
        key: String,
        /// What it asks for.
        found: String,
        /// What would have been accepted.
        supported: String,
    },
    /// A tensor that the family needs is in none of the files.
    #[error("{}: {tensor}: {problem}", folder.display())]
    Tensor {
        /// The folder.
        folder: PathBuf,
        /// The tensor, by its SafeTensors name.
        tensor: String,
        /// What was expected and what was found.
        problem: String,
    },
}

/// The error for a value of another type. Long values are cut.
pub(super) fn value(
    file: &Path,
    key: impl Into<String>,
    expected: impl Into<String>,
    found: &serde_json::Value,
) -> ImportError {
    ImportError::Value {
        file: file.to_owned(),
        key: key.into(),
        expected: expected.into(),
        found: short(found),
    }
}

/// The error for something that is not supported.
pub(super) fn unsupported(
    file: &Path,
    key: impl Into<String>,
    found: impl Into<String>,
    supported: impl Into<String>,
) -> ImportError {
    ImportError::Unsupported {
        file: file.to_owned(),
        key: key.into(),
        found: found.into(),
        supported: supported.into(),
    }
}

/// A JSON value for a message: at most some 120 characters of it.
pub(super) fn short(value: &serde_json::Value) -> String {
    const SHOWN: usize = 120;
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        None => text,
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}
