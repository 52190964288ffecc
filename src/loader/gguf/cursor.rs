//! Reading from a file that may end, or lie, at any point.

use crate::loader::{Blob, LoadError};
use std::fmt;
use std::path::Path;

/// GGUF's own limit for keys. It gives tensor names 64, which some writers exceed.
const NAME_BYTES_MAX: u64 = 65_535;

/// A position in the file. Every read names its subject, which is formatted only when the read fails.
pub(super) struct Cursor<'a> {
    pub(super) path: &'a Path,
    pub(super) file: &'a Blob,
    /// Bytes read so far; never more than the file has.
    pub(super) at: usize,
    /// The bytes of `file`.
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// At the beginning of `file`.
    pub(super) fn new(path: &'a Path, file: &'a Blob) -> Cursor<'a> {
        Cursor {
            path,
            file,
            at: 0,
            bytes: file,
        }
    }

    fn remaining(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// The next `length` bytes, of which there may be too few.
    pub(super) fn take(
        &mut self,
        length: u64,
        subject: fmt::Arguments<'_>,
    ) -> Result<&'a [u8], LoadError> {
        if length > self.remaining() {
            return Err(LoadError::Truncated {
                file: self.path.to_owned(),
                subject: subject.to_string(),
                at: self.at as u64,
                needed: length,
                available: self.remaining(),
            });
        }
        let bytes = &self.bytes[self.at..][..length as usize];
        self.at += length as usize;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, subject: fmt::Arguments<'_>) -> Result<[u8; N], LoadError> {
        let bytes = self.take(N as u64, subject)?;
        Ok(bytes.try_into().expect("take returns what was asked for"))
    }

    pub(super) fn u32(&mut self, subject: fmt::Arguments<'_>) -> Result<u32, LoadError> {
        Ok(u32::from_le_bytes(self.array(subject)?))
    }

    pub(super) fn u64(&mut self, subject: fmt::Arguments<'_>) -> Result<u64, LoadError> {
        Ok(u64::from_le_bytes(self.array(subject)?))
    }

    /// A key or tensor name: printable UTF-8 text that is not empty.
    pub(super) fn name(&mut self, subject: fmt::Arguments<'_>) -> Result<String, LoadError> {
        let length = self.u64(subject)?;
        if length > NAME_BYTES_MAX {
            let reason = "the longest name GGUF allows, in bytes";
            return Err(self.count(subject, length, NAME_BYTES_MAX, reason));
        }
        let problem = match String::from_utf8(self.take(length, subject)?.to_vec()) {
            Ok(name) if name.is_empty() => "empty".to_owned(),
            // It would garble error messages, and no tool writes one.
            Ok(name) if name.contains(char::is_control) => {
                format!("{name:?}, with a control character")
            }
            Ok(name) => return Ok(name),
            Err(error) => format!("`{}`, not UTF-8", error.as_bytes().escape_ascii()),
        };
        Err(LoadError::Name {
            file: self.path.to_owned(),
            subject: subject.to_string(),
            problem,
        })
    }

    /// Checks that `count` things of at least `bytes_min` bytes can follow.
    pub(super) fn fits(
        &self,
        subject: fmt::Arguments<'_>,
        count: u64,
        bytes_min: u64,
    ) -> Result<(), LoadError> {
        let limit = self.remaining() / bytes_min;
        if count <= limit {
            return Ok(());
        }
        Err(self.count(
            subject,
            count,
            limit,
            "what the rest of the file has room for",
        ))
    }

    pub(super) fn count(
        &self,
        subject: fmt::Arguments<'_>,
        count: u64,
        limit: u64,
        reason: &'static str,
    ) -> LoadError {
        LoadError::Count {
            file: self.path.to_owned(),
            subject: subject.to_string(),
            count,
            limit,
            reason,
        }
    }
}
