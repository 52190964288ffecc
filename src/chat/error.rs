//! What can be wrong with a template, and with a conversation.

use thiserror::Error;

use crate::loader::LoadError;
use crate::tokenizer::TokenizerError;

/// Why a conversation has no tokens. Every message is one line.
#[derive(Debug, Error)]
pub enum ChatError {
    /// A metadata value has the wrong type.
    #[error(transparent)]
    Metadata(#[from] LoadError),
    /// The model brings no template, and none was named.
    #[error(
        "{model}: the file has no chat template (tokenizer.chat_template): give --template FILE or one of the built-in {built_in}"
    )]
    NoTemplate {
        /// The model file.
        model: String,
        /// The built-in names.
        built_in: String,
    },
    /// A template is no Jinja program.
    #[error("{name}:{line}: the chat template cannot be read: {message}")]
    Syntax {
        /// Where the template comes from.
        name: String,
        /// Line in it, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A template gave up on a conversation by `raise_exception`.
    #[error("{name}:{line}: the chat template refuses the conversation: {message}")]
    Raised {
        /// Where the template comes from.
        name: String,
        /// Line in it, from 1.
        line: usize,
        /// The template's own words.
        message: String,
    },
    /// A template failed on a conversation.
    #[error("{name}:{line}: the chat template fails: {message}")]
    Render {
        /// Where the template comes from.
        name: String,
        /// Line in it, from 1; 0 if it has none.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A rendering has no tokens.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A saved conversation is not one.
    #[error("not a saved conversation: {0}")]
    Saved(String),
}
