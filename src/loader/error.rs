//! What can be wrong with a model file, in sentences a user can act on.

use super::TensorInfo;
use crate::dtype::DType;
use std::io;
use std::path::{Path, PathBuf};

/// Why a file could not be loaded, or a metadata entry not read as asked.
///
/// Every variant names the file, the subject inside it, what was found, and what would have been right or is supported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The operating system refused an operation.
    #[error("{}: cannot {action}: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What was attempted: `open`, `map`.
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The path leads to something that is no model.
    #[error("{}: found {found}; {advice}", file.display())]
    Format {
        /// The path.
        file: PathBuf,
        /// What is there: `a directory`, `a ZIP archive`.
        found: String,
        /// What is supported and the way there.
        advice: String,
    },
    /// A GGUF file of a version, or in a byte order, that is not read.
    #[error("{}: {found}; supported are GGUF versions 2 and 3, little-endian", file.display())]
    Version {
        /// The file.
        file: PathBuf,
        /// The version and byte order found.
        found: String,
    },
    /// The file ends before what it announces.
    #[error("{}: {subject} at byte {at} takes {needed} bytes, but the file has {available} left: it is cut short or damaged; fetch it again", file.display())]
    Truncated {
        /// The file.
        file: PathBuf,
        /// What was being read.
        subject: String,
        /// Where it begins, in bytes from the start of the file.
        at: u64,
        /// Bytes it needs.
        needed: u64,
        /// Bytes there are from `at` to the end.
        available: u64,
    },
    /// A count that the rest of the file cannot hold, or that is above a limit of this reader.
    #[error("{}: {subject}: {count} announced, at most {limit} possible ({reason})", file.display())]
    Count {
        /// The file.
        file: PathBuf,
        /// What is counted.
        subject: String,
        /// The count in the file.
        count: u64,
        /// The largest that could be right.
        limit: u64,
        /// Where the limit comes from.
        reason: &'static str,
    },
    /// A key or tensor name that is empty, not UTF-8 or not printable.
    #[error("{}: {subject} is {problem}; names are non-empty, printable UTF-8 text", file.display())]
    Name {
        /// The file.
        file: PathBuf,
        /// Which name: `metadata key 3`, `name of tensor 7`.
        subject: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Two metadata entries, or two tensors, with one name.
    #[error("{}: {what} {name:?} appears twice; every {what} may appear once", file.display())]
    Duplicate {
        /// The file.
        file: PathBuf,
        /// `metadata key` or `tensor`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A metadata value's type number is none that GGUF defines.
    #[error("{}: {key}: unknown value type {found}; GGUF defines 0 (u8) to 12 (f64)", file.display())]
    ValueTypeId {
        /// The file.
        file: PathBuf,
        /// The metadata key.
        key: String,
        /// The number found.
        found: u32,
    },
    /// An array of arrays.
    #[error("{}: {key}: an array of arrays; supported are arrays of numbers, bools and strings", file.display())]
    NestedArray {
        /// The file.
        file: PathBuf,
        /// The metadata key.
        key: String,
    },
    /// A bool that is neither 0 nor 1.
    #[error("{}: {subject}: a bool with the byte {found}; 0 and 1 are bools", file.display())]
    Bool {
        /// The file.
        file: PathBuf,
        /// The metadata key, and the item where it is an array.
        subject: String,
        /// The byte.
        found: u8,
    },
    /// A metadata entry of another type than asked for.
    #[error("{}: {key} is {found}, expected {wanted}", file.display())]
    WrongType {
        /// The file.
        file: PathBuf,
        /// The metadata key.
        key: String,
        /// The type found.
        found: String,
        /// The type asked for.
        wanted: &'static str,
    },
    /// A metadata number that does not fit the type asked for.
    #[error("{}: {subject} is {found}, which does not fit {wanted}", file.display())]
    Range {
        /// The file.
        file: PathBuf,
        /// The metadata key, and the item where it is an array.
        subject: String,
        /// The number.
        found: i128,
        /// The type asked for.
        wanted: &'static str,
    },
    /// Text that is not UTF-8.
    #[error("{}: {subject} is not UTF-8: at byte {valid} it goes on with `{bytes}`", file.display())]
    Utf8 {
        /// The file.
        file: PathBuf,
        /// The metadata key, and the item where it is an array.
        subject: String,
        /// How many bytes are valid.
        valid: usize,
        /// The bytes after those, escaped.
        bytes: String,
    },
    /// `general.alignment` is nothing tensor data can be aligned to.
    #[error("{}: general.alignment is {found}; supported are powers of two from {least} to {most} bytes", file.display())]
    Alignment {
        /// The file.
        file: PathBuf,
        /// The value found.
        found: u64,
        /// The smallest supported.
        least: u64,
        /// The largest supported.
        most: u64,
    },
    /// Files that should make up a model together, and do not.
    #[error("{}: {problem}; the parts of a split model are NAME-00001-of-0000N.gguf and so on, all in one folder", file.display())]
    Split {
        /// The file.
        file: PathBuf,
        /// What is missing, or what disagrees with what.
        problem: String,
    },
    /// A SafeTensors file, or a folder of them, that does not fit together.
    #[error("{}: {problem}", file.display())]
    SafeTensors {
        /// The file.
        file: PathBuf,
        /// The tensor or the entry, what was expected, and what was found.
        problem: String,
    },
    /// A JSON file of a folder that cannot be used.
    #[error("{}: {problem}", file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// The key, what was expected, and what was found.
        problem: String,
    },
    /// A tensor with no dimensions, or more than four.
    #[error("{}: {tensor}: {found} dimensions; supported are 1 to 4", file.display())]
    Dimensions {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// How many it announces.
        found: u32,
    },
    /// A tensor with a dimension of zero, or with more elements than a machine can address.
    #[error("{}: {tensor}: shape {shape:?} {problem}", file.display())]
    Shape {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shape, outermost dimension first.
        shape: Vec<u64>,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A tensor type that ggml does not have, or no longer.
    #[error("{}: {tensor}: unknown tensor type {id}{}; the types that run: {}", file.display(), removed_note(*id), DType::runnable_names())]
    UnknownType {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The type's number in the file.
        id: u32,
    },
    /// A tensor type that is known but cannot be computed with. The loader itself accepts such tensors; a model that
    /// needs one reports this.
    #[error("{}: {tensor}: type {dtype} does not run; those that do: {}. Requantise the model, for example with llama.cpp's `llama-quantize --allow-requantize`", file.display(), DType::runnable_names())]
    UnsupportedType {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its type.
        dtype: DType,
    },
    /// Rows that are no whole number of their type's blocks.
    #[error("{}: {tensor}: rows of {columns} elements, but {dtype} stores blocks of {}", file.display(), dtype.block_len())]
    PartialBlock {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its type.
        dtype: DType,
        /// Elements in a row.
        columns: u64,
    },
    /// Tensor data that does not begin at a multiple of the file's alignment.
    #[error("{}: {tensor}: data begins at offset {offset}, which is no multiple of the file's alignment {alignment}", file.display())]
    Misaligned {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its offset in the data section, in bytes.
        offset: u64,
        /// The file's alignment, in bytes.
        alignment: u64,
    },
    /// Tensor data outside the file.
    #[error("{}: {tensor}: data takes {bytes} bytes from offset {offset}, but the file's data section has {available}: it is cut short or damaged; fetch it again", file.display())]
    OutOfRange {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its offset in the data section, in bytes.
        offset: u64,
        /// Its size in bytes.
        bytes: u64,
        /// The size of the data section in bytes.
        available: u64,
    },
    /// A number that cannot be rounded to another type.
    #[error("{}: {tensor}: element {element} is {value}, which {dtype} cannot hold", file.display())]
    NotFinite {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its index in the tensor, rows first.
        element: usize,
        /// The value.
        value: f32,
        /// The type asked for.
        dtype: DType,
    },
    /// The file was written to between two looks at a tensor.
    #[error("{}: {tensor}: changed while it was read; try again when no other program writes to the file", file.display())]
    Changed {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor that is computed does not fit the memory.
    #[error("{}: {tensor}: the system has no room for {bytes} bytes", file.display())]
    NoRoom {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What it takes.
        bytes: usize,
    },
    /// Two tensors that share bytes.
    #[error("{}: {first} takes bytes {first_begin} to {first_end} of the data section, and {second} begins inside them at {second_begin}; tensors must not overlap", file.display())]
    Overlap {
        /// The file.
        file: PathBuf,
        /// The tensor that begins first.
        first: String,
        /// Its first byte, from the start of the data section.
        first_begin: u64,
        /// The byte after its last.
        first_end: u64,
        /// The tensor that begins inside it.
        second: String,
        /// Its first byte, from the start of the data section.
        second_begin: u64,
    },
}

impl LoadError {
    /// The error for a tensor whose type cannot be computed with; see [`DType::is_runnable`].
    pub fn unsupported_type(file: &Path, tensor: &TensorInfo) -> LoadError {
        LoadError::UnsupportedType {
            file: file.to_owned(),
            tensor: tensor.name.clone(),
            dtype: tensor.dtype,
        }
    }
}

/// The first few of a list of names, and how many more there are.
pub(super) fn few(names: &[impl AsRef<str>]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let shown = shown.join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn removed_note(id: u32) -> String {
    match DType::removed_name(id) {
        Some(name) => format!(" ({name}, which ggml has removed)"),
        None => String::new(),
    }
}
