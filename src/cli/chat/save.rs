//! Conversations as files.

use std::path::Path;

use super::super::error::CliError;
use super::super::{text, whole_file};
use crate::chat::Conversation;

/// Writes a conversation: all of it, or nothing and the file stays as it was.
pub fn save(conversation: &Conversation, path: &Path) -> Result<(), CliError> {
    let written = whole_file::write(path, conversation.to_json().as_bytes());
    written.map_err(|error| CliError::Runtime(format!("{}: cannot save: {error}", path.display())))
}

/// Reads a conversation.
pub fn load(path: &Path) -> Result<Conversation, CliError> {
    let json = text::read(path)?;
    Conversation::from_json(&json)
        .map_err(|error| CliError::Input(format!("{}: {error}", path.display())))
}
