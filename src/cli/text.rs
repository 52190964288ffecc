//! Text that a command works on: from an argument, a file or standard input.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::error::CliError;
use super::output;
use crate::tokenizer::Tokenizer;

/// The prompt: the argument itself, standard input if it is `-`, or a file.
pub fn prompt(argument: Option<&str>, file: Option<&Path>) -> Result<String, CliError> {
    match (argument, file) {
        (_, Some(file)) => read(file),
        (Some("-"), None) => read(Path::new("-")),
        (Some(text), None) => Ok(text.to_string()),
        (None, None) => Err(CliError::Usage("a prompt is needed (try --help)".into())),
    }
}

/// Far above every prompt and every corpus; a device that never ends must not fill the memory.
const BYTES_MAX: u64 = 1 << 30;

/// What a file holds.
pub fn bytes(file: &Path) -> io::Result<Vec<u8>> {
    bounded(File::open(file)?, BYTES_MAX)
}

fn bounded(from: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(most + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(io::Error::other(format!("more than {most} bytes"))),
        false => Ok(bytes),
    }
}

/// The text of a file, or of standard input if it is `-`.
pub fn read(file: &Path) -> Result<String, CliError> {
    let (name, bytes) = if file == Path::new("-") {
        let read = bounded(io::stdin().lock(), BYTES_MAX);
        ("standard input".to_string(), read)
    } else {
        (file.display().to_string(), self::bytes(file))
    };
    let bytes = bytes.map_err(|error| CliError::Input(format!("{name}: cannot read: {error}")))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        CliError::Input(format!("{name}: not UTF-8 text: bad byte at offset {at}"))
    })
}

/// A note about what the vocabulary lacks for a text, which is called `what`.
pub fn note_lost(tokenizer: &Tokenizer, what: &str, text: &str, quiet: bool) {
    if let Some(lost) = tokenizer.unspellable(text) {
        let line = format!(
            "note: the vocabulary cannot spell {lost:?}, which is in {what}; what it has no tokens for is left out"
        );
        output::note(quiet, &line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_is_refused() {
        assert_eq!(bounded(&b"abc"[..], 3).expect("three bytes"), b"abc");
        let error = bounded(io::repeat(0), 3).expect_err("it never ends");
        assert_eq!(error.to_string(), "more than 3 bytes");
    }
}
