//! Writing GGUF version 3.
//!
//! Tensors are fetched one by one as they are written, so that a model larger than memory can be converted.

use super::DEFAULT_ALIGNMENT;
use crate::loader::{LoadError, Metadata, TensorInfo, Value};
use std::io::{self, Write};

const VERSION: u32 = 3;

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A tensor could not be made.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The destination refused.
    #[error("cannot write: {0}")]
    Io(#[from] io::Error),
    /// `progress` asked for an end.
    #[error("interrupted")]
    Interrupted,
}

/// Writes `metadata` and `tensors` as a GGUF file with the default alignment. `progress(bytes)` is called with the bytes
/// written of tensor data so far, and ends the writing when it is false. Returns the bytes of the file.
///
/// Keys that describe the file they were read from are left out: `general.alignment` and those of a split model.
///
/// # Errors
/// [`WriteError`]; what has been written then is no file.
pub fn write_gguf(
    out: &mut impl Write,
    metadata: &Metadata,
    tensors: &[TensorInfo],
    progress: &dyn Fn(u64) -> bool,
) -> Result<u64, WriteError> {
    let mut head = Vec::new();
    let entries: Vec<_> = metadata
        .iter()
        .filter(|(key, _)| !is_of_the_file(key))
        .collect();
    head.extend_from_slice(b"GGUF");
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
    head.extend_from_slice(&(entries.len() as u64).to_le_bytes());
    for (key, value) in entries {
        put_text(&mut head, key.as_bytes());
        head.extend_from_slice(&value.value_type().gguf_id().to_le_bytes());
        put_value(&mut head, value);
    }
    let mut offset = 0u64;
    for tensor in tensors {
        put_text(&mut head, tensor.name.as_bytes());
        head.extend_from_slice(&(tensor.shape.len() as u32).to_le_bytes());
        for &size in tensor.shape.iter().rev() {
            head.extend_from_slice(&(size as u64).to_le_bytes());
        }
        head.extend_from_slice(&tensor.dtype.ggml_id().to_le_bytes());
        head.extend_from_slice(&offset.to_le_bytes());
        offset += tensor.bytes().next_multiple_of(DEFAULT_ALIGNMENT);
    }
    head.resize(head.len().next_multiple_of(DEFAULT_ALIGNMENT as usize), 0);
    out.write_all(&head)?;
    let mut done = 0;
    for tensor in tensors {
        if !progress(done) {
            return Err(WriteError::Interrupted);
        }
        let data = tensor.fetch()?.data;
        for part in data.chunks(PART_BYTES) {
            if !progress(done) {
                return Err(WriteError::Interrupted);
            }
            out.write_all(part)?;
            done += part.len() as u64;
        }
        let padding = tensor.bytes().next_multiple_of(DEFAULT_ALIGNMENT) - tensor.bytes();
        out.write_all(&[0; DEFAULT_ALIGNMENT as usize][..padding as usize])?;
        data.release_pages();
    }
    out.flush()?;
    progress(done);
    Ok(head.len() as u64 + offset)
}

/// Bytes that are written between two looks at whether to go on.
const PART_BYTES: usize = 8 << 20;

fn is_of_the_file(key: &str) -> bool {
    key == "general.alignment" || key.starts_with("split.")
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text);
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(value) => out.extend_from_slice(&value.to_le_bytes()),
        Value::I8(value) => out.extend_from_slice(&value.to_le_bytes()),
        Value::U16(value) => out.extend_from_slice(&value.to_le_bytes()),
        Value::I16(value) => out.extend_from_slice(&value.to_le_bytes()),
        Value::U32(value) => out.extend_from_slice(&value.to_le_bytes()),
        Value::I32(value) => out.extend_from_slice(&value.to_le_bytes()),
        Value::F32(value) => out.extend_from_slice(&value.to_le_bytes()),
        Value::U64(value) => out.extend_from_slice(&value.to_le_bytes()),
        Value::I64(value) => out.extend_from_slice(&value.to_le_bytes()),
        Value::F64(value) => out.extend_from_slice(&value.to_le_bytes()),
        Value::Bool(value) => out.push(u8::from(*value)),
        Value::String(text) => put_text(out, text.as_bytes()),
        // Arrays are kept as a file has them.
        Value::Array(array) => {
            out.extend_from_slice(&array.item.gguf_id().to_le_bytes());
            out.extend_from_slice(&(array.len as u64).to_le_bytes());
            out.extend_from_slice(&array.bytes);
        }
    }
}
