//! JSON files of a model folder: read with a limit, parsed with the place of an error.

use super::LoadError;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A JSON file's text, not yet parsed.
#[derive(Debug)]
pub struct JsonFile {
    path: PathBuf,
    text: String,
}

impl JsonFile {
    /// Reads `path`, which may have at most `most` bytes: parsing takes several times the text's memory, so that a file
    /// with nothing but brackets must not be large. `None` if there is no such file.
    ///
    /// # Errors
    /// [`LoadError`] if it cannot be read, is larger, or is not UTF-8.
    pub fn read(path: &Path, most: u64) -> Result<Option<JsonFile>, LoadError> {
        let io = |action| {
            move |source| LoadError::Io {
                file: path.to_owned(),
                action,
                source,
            }
        };
        let kind = match std::fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(io("open"))?,
        };
        let wrong = |problem: String| LoadError::Json {
            file: path.to_owned(),
            problem,
        };
        if !kind.is_file() {
            return Err(wrong("expected a file, found something else".into()));
        }
        let file = File::open(path).map_err(io("open"))?;
        let mut bytes = Vec::new();
        // One byte more than allowed tells a file that grew from one that fits.
        file.take(most + 1)
            .read_to_end(&mut bytes)
            .map_err(io("read"))?;
        if bytes.len() as u64 > most {
            return Err(wrong(format!(
                "has more than {most} bytes, which is the most that is read of such a file"
            )));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            wrong(format!("is not UTF-8 from byte {valid} on"))
        })?;
        Ok(Some(JsonFile {
            path: path.to_owned(),
            text,
        }))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The text as it stands.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the text says.
    ///
    /// # Errors
    /// [`LoadError::Json`] with line and column if it is no JSON, nests too deeply or is not a `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, LoadError> {
        serde_json::from_str(&self.text).map_err(|error| self.wrong(error.to_string()))
    }

    /// An error about this file.
    pub fn wrong(&self, problem: String) -> LoadError {
        LoadError::Json {
            file: self.path.clone(),
            problem,
        }
    }
}
