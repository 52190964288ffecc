//! A small GGUF writer for toy models and for deliberately broken files.
//!
//! It shares no code with the loader. Everything it is told it writes, right or wrong; what it is not told is right:
//! counts, offsets and padding.

#![allow(dead_code)] // Every test binary that includes this file uses another part of it.

use greta_infer::dtype::DType;
use std::path::Path;

/// A GGUF file in the making; see [`GgufWriter::to_bytes`].
#[derive(Clone)]
pub struct GgufWriter {
    version: u32,
    alignment: usize,
    entries: Vec<u8>,
    entry_count: u64,
    tensors: Vec<RawTensor>,
    announced_entries: Option<u64>,
    announced_tensors: Option<u64>,
}

/// A tensor as its description in the file says it, which need not be possible.
#[derive(Clone)]
pub struct RawTensor {
    pub name: Vec<u8>,
    /// Innermost first, as in the file.
    pub dimensions: Vec<u64>,
    pub type_id: u32,
    /// `None`: where its data really is.
    pub offset: Option<u64>,
    pub bytes: Vec<u8>,
}

impl GgufWriter {
    /// A file of version 3 without metadata and tensors, aligned to 32 bytes.
    pub fn new() -> GgufWriter {
        GgufWriter {
            version: 3,
            alignment: 32,
            entries: Vec::new(),
            entry_count: 0,
            tensors: Vec::new(),
            announced_entries: None,
            announced_tensors: None,
        }
    }

    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// Aligns tensor data to `alignment` bytes and says so in `general.alignment`.
    pub fn alignment(mut self, alignment: u32) -> Self {
        self.alignment = alignment as usize;
        self.meta_u32("general.alignment", alignment)
    }

    /// Announces another number of metadata entries than there is.
    pub fn announce_entries(mut self, count: u64) -> Self {
        self.announced_entries = Some(count);
        self
    }

    /// Announces another number of tensors than there is.
    pub fn announce_tensors(mut self, count: u64) -> Self {
        self.announced_tensors = Some(count);
        self
    }

    /// A value of any type number and bytes.
    pub fn meta_raw(mut self, key: impl AsRef<[u8]>, type_id: u32, value: &[u8]) -> Self {
        push_string(&mut self.entries, key.as_ref());
        self.entries.extend_from_slice(&type_id.to_le_bytes());
        self.entries.extend_from_slice(value);
        self.entry_count += 1;
        self
    }

    pub fn meta_u32(self, key: &str, value: u32) -> Self {
        self.meta_raw(key, 4, &value.to_le_bytes())
    }

    pub fn meta_i32(self, key: &str, value: i32) -> Self {
        self.meta_raw(key, 5, &value.to_le_bytes())
    }

    pub fn meta_u64(self, key: &str, value: u64) -> Self {
        self.meta_raw(key, 10, &value.to_le_bytes())
    }

    pub fn meta_f32(self, key: &str, value: f32) -> Self {
        self.meta_raw(key, 6, &value.to_le_bytes())
    }

    pub fn meta_bool(self, key: &str, value: bool) -> Self {
        self.meta_raw(key, 7, &[value.into()])
    }

    pub fn meta_str(self, key: &str, value: &str) -> Self {
        self.meta_bytes(key, value.as_bytes())
    }

    /// A string of any bytes.
    pub fn meta_bytes(self, key: &str, value: &[u8]) -> Self {
        let mut bytes = Vec::new();
        push_string(&mut bytes, value);
        self.meta_raw(key, 8, &bytes)
    }

    /// An array that announces `count` items of type `item_id`, and has `items`.
    pub fn meta_array_raw(self, key: &str, item_id: u32, count: u64, items: &[u8]) -> Self {
        let mut bytes = item_id.to_le_bytes().to_vec();
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(items);
        self.meta_raw(key, 9, &bytes)
    }

    pub fn meta_strings<S: AsRef<[u8]>>(self, key: &str, items: &[S]) -> Self {
        let mut bytes = Vec::new();
        for item in items {
            push_string(&mut bytes, item.as_ref());
        }
        self.meta_array_raw(key, 8, items.len() as u64, &bytes)
    }

    pub fn meta_f32s(self, key: &str, items: &[f32]) -> Self {
        let bytes: Vec<u8> = items.iter().flat_map(|item| item.to_le_bytes()).collect();
        self.meta_array_raw(key, 6, items.len() as u64, &bytes)
    }

    pub fn meta_i32s(self, key: &str, items: &[i32]) -> Self {
        let bytes: Vec<u8> = items.iter().flat_map(|item| item.to_le_bytes()).collect();
        self.meta_array_raw(key, 5, items.len() as u64, &bytes)
    }

    pub fn meta_u32s(self, key: &str, items: &[u32]) -> Self {
        let bytes: Vec<u8> = items.iter().flat_map(|item| item.to_le_bytes()).collect();
        self.meta_array_raw(key, 4, items.len() as u64, &bytes)
    }

    pub fn meta_bools(self, key: &str, items: &[bool]) -> Self {
        let bytes: Vec<u8> = items.iter().map(|&item| item.into()).collect();
        self.meta_array_raw(key, 7, items.len() as u64, &bytes)
    }

    /// A tensor of `shape`, outermost dimension first (`[N, K]`), and its bytes as stored.
    ///
    /// # Panics
    /// When type and shape demand another number of bytes: that is a mistake in the test. Mistakes on purpose are
    /// [`tensor_raw`](GgufWriter::tensor_raw)'s.
    pub fn tensor(
        self,
        name: &str,
        dtype: DType,
        shape: &[usize],
        bytes: impl Into<Vec<u8>>,
    ) -> Self {
        let bytes = bytes.into();
        let (columns, rows) = shape.split_last().expect("a tensor has dimensions");
        let row_bytes = dtype.row_bytes(*columns).expect("rows are whole blocks");
        let expected = rows.iter().product::<usize>() * row_bytes;
        assert_eq!(bytes.len(), expected, "bytes of {name} {dtype} {shape:?}");
        self.tensor_raw(RawTensor {
            name: name.as_bytes().to_vec(),
            dimensions: shape.iter().rev().map(|&size| size as u64).collect(),
            type_id: dtype.ggml_id(),
            offset: None,
            bytes,
        })
    }

    /// A tensor whose description may be anything.
    pub fn tensor_raw(mut self, tensor: RawTensor) -> Self {
        self.tensors.push(tensor);
        self
    }

    /// The file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        let tensor_count = self.announced_tensors.unwrap_or(self.tensors.len() as u64);
        let entry_count = self.announced_entries.unwrap_or(self.entry_count);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&tensor_count.to_le_bytes());
        out.extend_from_slice(&entry_count.to_le_bytes());
        out.extend_from_slice(&self.entries);
        let mut data = Vec::new();
        for tensor in &self.tensors {
            push_string(&mut out, &tensor.name);
            out.extend_from_slice(&(tensor.dimensions.len() as u32).to_le_bytes());
            for size in &tensor.dimensions {
                out.extend_from_slice(&size.to_le_bytes());
            }
            out.extend_from_slice(&tensor.type_id.to_le_bytes());
            let offset = tensor.offset.unwrap_or(data.len() as u64);
            out.extend_from_slice(&offset.to_le_bytes());
            data.extend_from_slice(&tensor.bytes);
            pad(&mut data, self.alignment);
        }
        pad(&mut out, self.alignment);
        out.extend_from_slice(&data);
        out
    }

    /// Writes the file to `path`.
    pub fn write(&self, path: impl AsRef<Path>) {
        std::fs::write(path, self.to_bytes()).expect("a test can write its own files");
    }
}

fn push_string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text);
}

/// Zeros up to a multiple of `alignment`; an alignment of 0, which a test may announce, pads nothing.
fn pad(out: &mut Vec<u8>, alignment: usize) {
    if alignment > 0 {
        out.resize(out.len().next_multiple_of(alignment), 0);
    }
}
