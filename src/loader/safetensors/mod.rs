//! Reading a Hugging Face folder: SafeTensors files, alone or listed by an index, and the JSON files beside them.
//!
//! ```text
//! header bytes: u64   header: JSON { name: { dtype, shape, data_offsets: [begin, end) }, … }   data section
//! ```
//!
//! The headers are read by the `safetensors` crate, from a copy, and not trusted further than it checks them: it makes
//! sure that offsets follow one another without gap or overlap, agree with shape and type, and end with the file. What
//! several files say about each other is checked here: every tensor is in exactly one of them, and where there is an
//! index, in the one that it names. Reads no tensor data.

mod header;
mod index;

pub use index::NAME as INDEX;

use super::checkpoint::map;
use super::{Blob, Contents, JsonFile, LoadError, format};
use crate::dtype::DType;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The ending of the files' names.
const ENDING: &str = "safetensors";
/// The one file of a folder that needs no index.
pub const WHOLE: &str = "model.safetensors";

/// Bytes that are read of `config.json` and its like.
const JSON_BYTES_MAX: u64 = 16 << 20;
/// Bytes that are read of `tokenizer.json`: Gemma's has 33 MB.
const TOKENIZER_BYTES_MAX: u64 = 256 << 20;

/// A tensor as a SafeTensors file holds it, by its name there.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The name in the file.
    pub name: String,
    /// F32, F16 or BF16.
    pub dtype: DType,
    /// Outermost first, one to four, none zero.
    pub shape: Vec<usize>,
    /// The elements.
    pub data: Blob,
    /// Whether the data begin at a multiple of an element's size.
    aligned: bool,
    /// The file's name in the folder.
    pub file: Arc<str>,
}

impl Stored {
    /// The bytes for use: where they lie, or copied to an aligned place when fetched.
    pub fn contents(&self) -> Contents {
        if self.aligned {
            return Contents::Stored(self.data.clone());
        }
        let data = self.data.clone();
        Contents::Made(Arc::new(move || Ok(data.to_vec())))
    }
}

/// A model folder: its tensors, all of them checked, and its JSON files.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    file_bytes: u64,
    file_count: usize,
    tensors: Vec<Stored>,
}

impl Folder {
    /// Whether `path` is to be read as a folder: it is one that has SafeTensors files or a `config.json`, or a SafeTensors
    /// file.
    pub fn is_at(path: &Path) -> bool {
        if path.is_dir() {
            // A folder of GGUF files is refused by name; see `format`.
            return path.join("config.json").exists() || !names(path).is_empty();
        }
        path.extension().is_some_and(|found| found == ENDING) && path.is_file()
    }

    /// Maps the SafeTensors files of the folder `path`, or of the folder that the SafeTensors file `path` is in.
    ///
    /// # Errors
    /// [`LoadError`] for files that are damaged, disagree with their index or with each other, or hold a type other than
    /// F32, F16 and BF16.
    pub fn open(path: &Path) -> Result<Folder, LoadError> {
        let (folder, named) = if path.is_dir() {
            (path.to_owned(), None)
        } else {
            let parent = path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty());
            let named = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            (parent.unwrap_or(Path::new(".")).to_owned(), named)
        };
        let (files, index) = files_of(&folder)?;
        if let Some(named) = named
            && !files.contains(&named)
        {
            let problem = format!(
                "is not among the files of its folder's model: {}",
                files.join(", ")
            );
            return Err(wrong(path, problem));
        }
        let mut tensors: Vec<Stored> = Vec::new();
        let mut seen: HashMap<String, Arc<str>> = HashMap::new();
        let mut file_bytes = 0;
        for name in &files {
            let path = folder.join(name);
            let bytes = map(&path)?;
            file_bytes += bytes.len() as u64;
            let name: Arc<str> = name.as_str().into();
            for tensor in header::read(&path, &name, &bytes)? {
                if let Some(other) = seen.insert(tensor.name.clone(), Arc::clone(&name)) {
                    let problem = format!("tensor {:?} is in {other} and in {name}", tensor.name);
                    return Err(wrong(&folder, problem));
                }
                tensors.push(tensor);
            }
        }
        if let Some(index) = index {
            index.check(&seen)?;
        }
        Ok(Folder {
            path: folder,
            file_bytes,
            file_count: files.len(),
            tensors,
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that the model is, or may be, read from: tensors, their index, configuration, tokenizer and templates.
    ///
    /// # Errors
    /// [`LoadError::Io`] if the folder cannot be read.
    pub fn files(&self) -> Result<Vec<PathBuf>, LoadError> {
        let io = |source| LoadError::Io {
            file: self.path.clone(),
            action: "read",
            source,
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(io)? {
            let path = entry.map_err(io)?.path();
            let ending = path.extension().and_then(|ending| ending.to_str());
            if ending.is_some_and(|ending| [ENDING, "json", "jinja"].contains(&ending)) {
                files.push(path);
            }
        }
        Ok(files)
    }

    /// The size of the SafeTensors files together.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// How many SafeTensors files there are.
    pub fn file_count(&self) -> usize {
        self.file_count
    }

    /// All tensors, in the files' order.
    pub fn tensors(&self) -> &[Stored] {
        &self.tensors
    }

    /// A JSON file of the folder; `None` if it has none of that name.
    ///
    /// # Errors
    /// As [`JsonFile::read`].
    pub fn json(&self, name: &str) -> Result<Option<JsonFile>, LoadError> {
        let most = match name {
            "tokenizer.json" => TOKENIZER_BYTES_MAX,
            _ => JSON_BYTES_MAX,
        };
        JsonFile::read(&self.path.join(name), most)
    }
}

/// The SafeTensors files that make up the folder's model, and the index that says so if it takes one.
fn files_of(folder: &Path) -> Result<(Vec<String>, Option<index::Index>), LoadError> {
    // As Hugging Face's own loader does: a whole file goes before an index.
    if folder.join(WHOLE).exists() {
        return Ok((vec![WHOLE.to_owned()], None));
    }
    if let Some(index) = index::read(folder)? {
        return Ok((index.files(), Some(index)));
    }
    let names = names(folder);
    match names.len() {
        0 => Err(format::not_a_file(folder, true)),
        1 => Ok((names, None)),
        _ => {
            let problem = format!(
                "has {} SafeTensors files ({}), but neither {WHOLE} nor {}, which says which of them belong together",
                names.len(),
                names.join(", "),
                INDEX
            );
            Err(wrong(folder, problem))
        }
    }
}

/// The SafeTensors files that the index at `path` names, each once, by name, whether they are there or not.
///
/// # Errors
/// [`LoadError`] if the index cannot be read or names what is no file of its folder.
pub fn safetensors_files(path: &Path) -> Result<Vec<String>, LoadError> {
    Ok(index::parse(path)?
        .map(|index| index.files())
        .unwrap_or_default())
}

/// The SafeTensors files in a folder, by name.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new(); // Unreadable: opening says why.
    };
    let mut names: Vec<String> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|found| found == ENDING))
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    names
}

fn wrong(file: &Path, problem: String) -> LoadError {
    LoadError::SafeTensors {
        file: file.to_owned(),
        problem,
    }
}
