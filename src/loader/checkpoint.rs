//! What a model's files hold, whatever their format.

use super::format::{self, Found};
use super::mmap::Map;
use super::{Blob, LoadError, Metadata, gguf};
use crate::dtype::DType;
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// One named tensor and its data, whose length has been checked against type and shape.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// The name in the checkpoint.
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

/// Makes a tensor's bytes from others, each time it is asked.
pub type Make = Arc<dyn Fn() -> Result<Vec<u8>, LoadError> + Send + Sync>;

/// Where a tensor's bytes come from.
#[derive(Clone)]
pub enum Contents {
    /// They lie in a file, or in memory, as they are used.
    Stored(Blob),
    /// They are computed when the tensor is fetched: permuted, shifted or requantised. Nothing keeps them but who fetched
    /// them, so that of a model made this way one tensor at a time need be in memory.
    Made(Make),
}

/// A tensor as a checkpoint lists it: everything but the bytes.
#[derive(Clone)]
pub struct TensorInfo {
    /// The name in the checkpoint.
    pub name: String,
    /// The elements' type.
    pub dtype: DType,
    /// Dimensions, outermost first; see [`Tensor::shape`].
    pub shape: Vec<usize>,
    /// Where the bytes come from.
    pub contents: Contents,
}

impl TensorInfo {
    /// How many elements there are.
    pub fn element_count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Elements of a row: the innermost dimension.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Bytes of the data.
    pub fn bytes(&self) -> u64 {
        let rows = self.element_count() / self.cols().max(1);
        let row_bytes = self.dtype.row_bytes(self.cols());
        rows as u64
            * row_bytes.expect("rows are whole blocks, as whoever listed the tensor checked") as u64
    }

    /// The tensor with its bytes: a reference into the file, or made now.
    ///
    /// # Errors
    /// Whatever made the bytes impossible to make.
    ///
    /// # Panics
    /// When what is made is not as long as type and shape demand.
    pub fn fetch(&self) -> Result<Tensor, LoadError> {
        let data = match &self.contents {
            Contents::Stored(data) => data.clone(),
            Contents::Made(make) => Blob::from(make()?),
        };
        assert_eq!(data.len() as u64, self.bytes(), "bytes of {}", self.name);
        Ok(Tensor {
            name: self.name.clone(),
            dtype: self.dtype,
            shape: self.shape.clone(),
            data,
        })
    }
}

impl fmt::Debug for TensorInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.contents {
            Contents::Stored(_) => "stored",
            Contents::Made(_) => "made",
        };
        write!(f, "{} {} {:?} {kind}", self.name, self.dtype, self.shape)
    }
}

/// An opened model: metadata and tensors that point into mapped files.
#[derive(Debug)]
pub struct Checkpoint {
    pub(super) path: PathBuf,
    pub(super) file_bytes: u64,
    pub(super) format: String,
    pub(super) metadata: Metadata,
    pub(super) tensors: Vec<TensorInfo>,
    pub(super) by_name: HashMap<String, usize>,
    pub(super) notes: Vec<String>,
    pub(super) files: Vec<PathBuf>,
    /// Why a tensor could not be fetched, the first time that happened.
    pub(super) failure: OnceLock<Box<LoadError>>,
}

impl Checkpoint {
    /// Maps the GGUF file at `path`, and the others of its model if that is split, and checks everything they say about
    /// themselves. Reads no tensor data.
    ///
    /// # Errors
    /// Anything that is no GGUF file of version 2 or 3 in little-endian order, and every inconsistency within one:
    /// see [`LoadError`].
    pub fn open(path: &Path) -> Result<Checkpoint, LoadError> {
        let first = Checkpoint::read(path, map(path)?)?;
        gguf::join(first)
    }

    /// Reads a model file that is in memory already; errors call it `name`.
    ///
    /// # Errors
    /// As [`Checkpoint::open`]. A part of a split model is refused, since its other parts cannot be found.
    pub fn from_bytes(name: &Path, bytes: Vec<u8>) -> Result<Checkpoint, LoadError> {
        let checkpoint = Checkpoint::read(name, Blob::from(bytes))?;
        gguf::require_whole(&checkpoint)?;
        Ok(checkpoint)
    }

    pub(super) fn read(path: &Path, bytes: Blob) -> Result<Checkpoint, LoadError> {
        match format::sniff(&bytes) {
            Found::Gguf => gguf::read(path, bytes),
            Found::Other(found) => Err(format::refused(path, found)),
        }
    }

    /// A checkpoint of parts that have been read elsewhere. `format` is its name for people.
    ///
    /// # Errors
    /// [`LoadError::Duplicate`] if two tensors share a name.
    pub fn assemble(
        path: &Path,
        file_bytes: u64,
        format: String,
        metadata: Metadata,
        tensors: Vec<TensorInfo>,
    ) -> Result<Checkpoint, LoadError> {
        let mut by_name = HashMap::with_capacity(tensors.len());
        for (index, tensor) in tensors.iter().enumerate() {
            if by_name.insert(tensor.name.clone(), index).is_some() {
                return Err(LoadError::Duplicate {
                    file: path.to_owned(),
                    what: "tensor",
                    name: tensor.name.clone(),
                });
            }
        }
        Ok(Checkpoint {
            path: path.to_owned(),
            file_bytes,
            format,
            metadata,
            tensors,
            by_name,
            notes: Vec::new(),
            files: vec![path.to_owned()],
            failure: OnceLock::new(),
        })
    }

    /// The path the model was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The size of the model's files in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The model's files, which must not be written to while it is used.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Says which files the model is read from, where that is more than its path.
    pub fn set_files(&mut self, files: Vec<PathBuf>) {
        self.files = files;
    }

    /// The files' format and version: `GGUF v3`.
    pub fn format(&self) -> &str {
        &self.format
    }

    /// The key–value pairs, by GGUF's names.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// What a person should know about how the files were read; usually nothing.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Adds to [`Checkpoint::notes`].
    pub fn note(&mut self, line: String) {
        self.notes.push(line);
    }

    /// All tensors, in the files' order.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &TensorInfo> + '_ {
        self.tensors.iter()
    }

    /// What is listed of the tensor called `name`.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        let index = *self.by_name.get(name)?;
        self.tensors.get(index)
    }

    /// The tensor called `name`, with its bytes. `None` if there is none of that name, or if it could not be made:
    /// [`Checkpoint::failure`] then says why.
    pub fn tensor(&self, name: &str) -> Option<Tensor> {
        match self.info(name)?.fetch() {
            Ok(tensor) => Some(tensor),
            Err(error) => {
                let _the_first_counts = self.failure.set(Box::new(error));
                None
            }
        }
    }

    /// Why a tensor that is listed could not be fetched.
    pub fn failure(&self) -> Option<&LoadError> {
        self.failure.get().map(|error| &**error)
    }

    /// The same model with every tensor replaced by what `change` makes of it, name and order kept.
    ///
    /// # Errors
    /// The first that `change` gives.
    pub fn map_tensors(
        mut self,
        change: impl Fn(&TensorInfo) -> Result<TensorInfo, LoadError>,
    ) -> Result<Checkpoint, LoadError> {
        for tensor in &mut self.tensors {
            let changed = change(tensor)?;
            assert_eq!(changed.name, tensor.name, "names are kept");
            *tensor = changed;
        }
        Ok(self)
    }
}

/// Maps a file whole.
pub(super) fn map(path: &Path) -> Result<Blob, LoadError> {
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
    let map = Map::new(file).map_err(io("map"))?;
    Ok(Blob::from_map(map))
}
