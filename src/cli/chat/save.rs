//! Conversations as files.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::super::error::CliError;
use super::super::text;
use crate::chat::Conversation;

/// Writes a conversation: all of it, or nothing and the file stays as it was.
pub fn save(conversation: &Conversation, path: &Path) -> Result<(), CliError> {
    let written = write(path, conversation.to_json().as_bytes());
    written.map_err(|error| CliError::Runtime(format!("{}: cannot save: {error}", path.display())))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a file name",
        ));
    };
    // In the same folder, so that renaming it is one step.
    let mut part = OsString::from(".");
    part.push(name);
    part.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(part);
    let written = File::create(&part)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&part, path));
    if written.is_err() {
        // What went wrong is reported; that the remains stay is not worth a second report.
        let _remains = fs::remove_file(&part);
    }
    written
}

/// Reads a conversation.
pub fn load(path: &Path) -> Result<Conversation, CliError> {
    let json = text::read(path)?;
    Conversation::from_json(&json)
        .map_err(|error| CliError::Input(format!("{}: {error}", path.display())))
}
