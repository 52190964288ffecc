//! What can be wrong with a configuration, and where.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::model::line_and_column;

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
