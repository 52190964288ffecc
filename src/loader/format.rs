//! Recognising what a path leads to, so that a refusal can say what it found.

use super::LoadError;
use std::path::Path;

/// What a file's first bytes say it is.
pub(super) enum Found {
    /// GGUF of some version.
    Gguf,
    /// Something else, in words.
    Other(String),
}

const ADVICE: &str = "supported are GGUF files (version 2 or 3, whole or split) and folders with config.json and SafeTensors files";

/// First bytes and what begins with them.
const MAGICS: &[(&[u8], &str)] = &[
    (b"lmgg", "a GGML file, the predecessor of GGUF"),
    (b"tjgg", "a GGJT file, the predecessor of GGUF"),
    (b"fmgg", "a GGMF file, the predecessor of GGUF"),
    (b"algg", "a GGLA adapter file"),
    (b"FUGG", "a GGUF file in big-endian order"),
    (
        b"PK\x03\x04",
        "a ZIP archive (as PyTorch checkpoints and Python wheels are)",
    ),
    (b"\x80\x02", "a Python pickle (an old PyTorch checkpoint)"),
    (b"\x80\x03", "a Python pickle (an old PyTorch checkpoint)"),
    (b"\x80\x04", "a Python pickle (an old PyTorch checkpoint)"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"\x7fELF", "a program (ELF)"),
    (
        b"version https://git-lfs",
        "a Git LFS pointer (run `git lfs pull` to fetch the file itself)",
    ),
    (
        b"<!",
        "a web page (HTML), perhaps an error page saved in place of the file",
    ),
    (
        b"<html",
        "a web page (HTML), perhaps an error page saved in place of the file",
    ),
    (b"{", "a JSON file"),
];

/// Says what a file beginning with `bytes` is.
pub(super) fn sniff(bytes: &[u8]) -> Found {
    if bytes.starts_with(b"GGUF") || (!bytes.is_empty() && b"GGUF".starts_with(bytes)) {
        return Found::Gguf;
    }
    if bytes.is_empty() {
        return Found::Other("an empty file".to_owned());
    }
    if is_safetensors(bytes) {
        return Found::Other("a SafeTensors file".to_owned());
    }
    for (magic, what) in MAGICS {
        if bytes.starts_with(magic) {
            return Found::Other((*what).to_owned());
        }
    }
    let first = &bytes[..bytes.len().min(8)];
    Found::Other(format!(
        "a file of unknown format, beginning with the bytes `{}`",
        first.escape_ascii()
    ))
}

/// SafeTensors has no magic: it begins with the length of a JSON object, and the object.
fn is_safetensors(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return false;
    };
    let length = u64::from_le_bytes(*length);
    rest.first() == Some(&b'{') && (2..=1 << 30).contains(&length)
}

/// The refusal of a file of another format.
pub(super) fn refused(path: &Path, found: String) -> LoadError {
    LoadError::Format {
        file: path.to_owned(),
        found,
        advice: ADVICE.to_owned(),
    }
}

/// The refusal of a path that leads to no regular file, naming the GGUF files a directory has.
pub(super) fn not_a_file(path: &Path, is_dir: bool) -> LoadError {
    if !is_dir {
        return refused(path, "a pipe, socket or device".to_owned());
    }
    let names = |extension: &str| -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(path) else {
            return Vec::new(); // Unreadable: the refusal just names less.
        };
        let mut names: Vec<String> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|found| found == extension))
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect();
        names.sort();
        names
    };
    let gguf = names("gguf");
    if let Some(first) = gguf.first() {
        return LoadError::Format {
            file: path.to_owned(),
            found: format!("a directory with {} GGUF file(s)", gguf.len()),
            advice: format!("name one of them, for example {:?}", path.join(first)),
        };
    }
    match names("safetensors").len() {
        0 => refused(path, "a directory".to_owned()),
        count => refused(
            path,
            format!("a directory with {count} SafeTensors file(s)"),
        ),
    }
}
