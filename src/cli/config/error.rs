//! What can be wrong with a configuration, and where.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// What is wrong with a configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot read the configuration: {error}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Something at a place in the file, counted from 1.
    #[error("{}:{line}:{column}: {message}", file.display())]
    At {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// A flag asks for what this version cannot do.
    #[error("{0}")]
    Flag(String),
}

/// A file and its text: turns byte ranges into lines and columns.
pub(super) struct Located<'a> {
    pub file: &'a Path,
    pub text: &'a str,
}

impl Located<'_> {
    /// An error about the bytes `span`.
    pub fn error(&self, span: Range<usize>, message: String) -> ConfigError {
        let (line, column) = line_and_column(self.text, span.start);
        let file = self.file.to_path_buf();
        ConfigError::At {
            file,
            line,
            column,
            message,
        }
    }

    /// The parser's error with our own place in front.
    pub fn parse_error(&self, error: &toml::de::Error) -> ConfigError {
        let span = error.span().unwrap_or(0..0);
        self.error(span, super::super::error::one_line(error.message()))
    }
}

/// Line and column, both from 1 and the column in characters, of the byte at `offset`.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let line_start = before.iter().rposition(|&byte| byte == b'\n');
    let start = line_start.map_or(0, |newline| newline + 1);
    let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
    (line, column)
}
