//! What can be wrong with a vocabulary, and with a text.

use crate::loader::LoadError;
use std::path::PathBuf;
use thiserror::Error;

/// Why a tokenizer could not be built, or a text not encoded. Every message names the file and the metadata key.
#[derive(Debug, Error)]
pub enum TokenizerError {
    /// A metadata value has the wrong type or does not fit.
    #[error(transparent)]
    Metadata(#[from] LoadError),
    /// A key the tokenizer needs is absent.
    #[error("{}: {key}: missing; {why}", file.display())]
    Missing {
        /// The model file.
        file: PathBuf,
        /// The absent key.
        key: &'static str,
        /// Why it is needed.
        why: &'static str,
    },
    /// A tokenizer model or pre-tokenizer this program does not have.
    #[error("{}: {key}: \"{found}\" is not supported; supported: {supported}", file.display())]
    Unsupported {
        /// The model file.
        file: PathBuf,
        /// The key that names it.
        key: &'static str,
        /// What the file asks for.
        found: String,
        /// Everything that would have been accepted.
        supported: String,
    },
    /// Two arrays that describe the same tokens differ in length.
    #[error("{}: {key}: expected {expected} entries, one for each of tokenizer.ggml.tokens, found {found}", file.display())]
    Length {
        /// The model file.
        file: PathBuf,
        /// The array of the wrong length.
        key: &'static str,
        /// The number of tokens.
        expected: usize,
        /// The array's length.
        found: usize,
    },
    /// A special token's id lies outside the vocabulary.
    #[error("{}: {key}: token {id} does not exist; the vocabulary has {count} tokens", file.display())]
    Id {
        /// The model file.
        file: PathBuf,
        /// The key that holds the id.
        key: &'static str,
        /// The id.
        id: u32,
        /// The vocabulary's size.
        count: usize,
    },
    /// One entry of an array cannot be used.
    #[error("{}: {key}[{index}]: {problem}", file.display())]
    Entry {
        /// The model file.
        file: PathBuf,
        /// The array.
        key: &'static str,
        /// The entry's index.
        index: usize,
        /// What was expected and what was found.
        problem: String,
    },
    /// A part of the text has no token: no piece, no byte token and no unknown token stands for it.
    #[error("{}: the vocabulary has no token for {text:?}: no piece, no byte token and no unknown token", file.display())]
    Unencodable {
        /// The model file.
        file: PathBuf,
        /// The part of the text.
        text: String,
    },
}
