//! Text that a command works on: from an argument, a file or standard input.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use super::error::CliError;

/// The prompt: the argument itself, standard input if it is `-`, or a file.
pub fn prompt(argument: Option<&str>, file: Option<&Path>) -> Result<String, CliError> {
    match (argument, file) {
        (_, Some(file)) => read(file),
        (Some("-"), None) => read(Path::new("-")),
        (Some(text), None) => Ok(text.to_string()),
        (None, None) => Err(CliError::Usage("a prompt is needed (try --help)".into())),
    }
}

/// The text of a file, or of standard input if it is `-`.
pub fn read(file: &Path) -> Result<String, CliError> {
    let (name, bytes) = if file == Path::new("-") {
        let mut bytes = Vec::new();
        let result = io::stdin().lock().read_to_end(&mut bytes);
        ("standard input".to_string(), result.map(|_| bytes))
    } else {
        (file.display().to_string(), fs::read(file))
    };
    let bytes = bytes.map_err(|error| CliError::Input(format!("{name}: cannot read: {error}")))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        CliError::Input(format!("{name}: not UTF-8 text: bad byte at offset {at}"))
    })
}
