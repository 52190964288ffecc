//! What a model file holds, whatever its format.

use super::format::{self, Found};
use super::mmap::Map;
use super::{Blob, LoadError, Metadata, gguf};
use crate::dtype::DType;
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// One named tensor and its data, whose length has been checked against type and shape.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// The name in the file.
    pub name: String,
    /// The elements' type; any that ggml has, runnable or not.
    pub dtype: DType,
    /// Dimensions, outermost first: a weight is `[N, K]`, `N` rows of `K` contiguous elements. One to four, none zero.
    pub shape: Vec<usize>,
    /// The elements as stored.
    pub data: Blob,
}

impl Tensor {
    /// How many elements there are.
    pub fn element_count(&self) -> usize {
        self.shape.iter().product()
    }
}

/// An opened model file: metadata and tensors that point into the mapped file.
#[derive(Debug)]
pub struct Checkpoint {
    pub(super) path: PathBuf,
    pub(super) file_bytes: u64,
    pub(super) format: String,
    pub(super) metadata: Metadata,
    pub(super) tensors: Vec<Tensor>,
    pub(super) by_name: HashMap<String, usize>,
}

impl Checkpoint {
    /// Maps the file at `path` and checks everything it says about itself. Reads no tensor data.
    ///
    /// # Errors
    /// Anything that is no GGUF file of version 2 or 3 in little-endian order, and every inconsistency within one:
    /// see [`LoadError`].
    pub fn open(path: &Path) -> Result<Checkpoint, LoadError> {
        let io = |action| {
            move |source| LoadError::Io {
                file: path.to_owned(),
                action,
                source,
            }
        };
        // Asked of the path and not of an opened file, because opening a pipe would wait for a writer.
        let kind = std::fs::metadata(path).map_err(io("open"))?;
        if !kind.is_file() {
            return Err(format::not_a_file(path, kind.is_dir()));
        }
        let file = File::open(path).map_err(io("open"))?;
        let map = Map::new(&file).map_err(io("map"))?;
        Checkpoint::read(path, Blob::from_map(map))
    }

    /// Reads a model file that is in memory already; errors call it `name`.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn from_bytes(name: &Path, bytes: Vec<u8>) -> Result<Checkpoint, LoadError> {
        Checkpoint::read(name, Blob::from(bytes))
    }

    fn read(path: &Path, bytes: Blob) -> Result<Checkpoint, LoadError> {
        match format::sniff(&bytes) {
            Found::Gguf => gguf::read(path, bytes),
            Found::Other(found) => Err(format::refused(path, found)),
        }
    }

    /// The path the file was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The size of the file in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The file's format and version: `GGUF v3`.
    pub fn format(&self) -> &str {
        &self.format
    }

    /// The file's key–value pairs.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors, in the file's order.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &Tensor> + '_ {
        self.tensors.iter()
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        let index = *self.by_name.get(name)?;
        self.tensors.get(index)
    }

    /// Checks that a tensor of this file can be computed with.
    ///
    /// # Errors
    /// [`LoadError::UnsupportedType`] when its type is not [runnable](DType::is_runnable).
    pub fn require_runnable(&self, tensor: &Tensor) -> Result<(), LoadError> {
        if tensor.dtype.is_runnable() {
            return Ok(());
        }
        Err(LoadError::unsupported_type(&self.path, tensor))
    }
}
