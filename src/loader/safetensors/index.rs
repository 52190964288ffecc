//! `model.safetensors.index.json`: which file of a folder has which tensor.

use super::wrong;
use crate::loader::error::few;
use crate::loader::{JsonFile, LoadError};
use indexmap::IndexMap;
use serde::Deserialize;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// The index's name in its folder.
pub const NAME: &str = "model.safetensors.index.json";
/// Some 400,000 tensors.
const BYTES_MAX: u64 = 64 << 20;

/// Only what is used; files also have `metadata` with a total size that not all tools get right.
#[derive(Deserialize)]
struct Written {
    weight_map: IndexMap<String, String>,
}

/// An index, and the file it was read from.
pub(super) struct Index {
    file: JsonFile,
    weight_map: IndexMap<String, String>,
}

/// The index of a folder, if it has one: read, and the files it names known to be there.
pub(super) fn read(folder: &Path) -> Result<Option<Index>, LoadError> {
    let Some(index) = parse(&folder.join(NAME))? else {
        return Ok(None);
    };
    let files = index.files();
    let missing: Vec<&str> = files
        .iter()
        .filter(|name| !folder.join(name).exists())
        .map(String::as_str)
        .collect();
    if !missing.is_empty() {
        let problem = format!(
            "names {} files, of which {} not in the folder: {}",
            files.len(),
            if missing.len() == 1 {
                "one is"
            } else {
                "some are"
            },
            few(&missing)
        );
        return Err(wrong(index.file.path(), problem));
    }
    Ok(Some(index))
}

/// The index at `path`, if it is there.
pub(super) fn parse(path: &Path) -> Result<Option<Index>, LoadError> {
    let Some(file) = JsonFile::read(path, BYTES_MAX)? else {
        return Ok(None);
    };
    let Written { weight_map } = file.parse()?;
    if weight_map.is_empty() {
        return Err(wrong(file.path(), "the weight_map is empty".into()));
    }
    for (tensor, name) in &weight_map {
        // Names only: an index must not lead out of its folder.
        let plain = Path::new(name)
            .file_name()
            .is_some_and(|plain| plain == name.as_str());
        if !plain || !name.ends_with(".safetensors") {
            let problem = format!(
                "{tensor}: expected the name of a SafeTensors file of this folder, found {name:?}"
            );
            return Err(wrong(file.path(), problem));
        }
    }
    Ok(Some(Index { file, weight_map }))
}

impl Index {
    /// The files it names, each once, in order of their names.
    pub(super) fn files(&self) -> Vec<String> {
        let mut files: Vec<String> = self.weight_map.values().cloned().collect();
        files.sort();
        files.dedup();
        files
    }

    /// Checks that the tensors `found`, each with its file, are those of the index.
    pub(super) fn check(&self, found: &HashMap<String, Arc<str>>) -> Result<(), LoadError> {
        for (tensor, expected) in &self.weight_map {
            let problem = match found.get(tensor) {
                Some(file) if **file == **expected => continue,
                Some(file) => format!("{tensor}: expected in {expected}, found in {file}"),
                None => format!("{tensor}: expected in {expected}, found in none of the files"),
            };
            return Err(wrong(self.file.path(), problem));
        }
        let mut unlisted: Vec<_> = found
            .iter()
            .filter(|(tensor, _)| !self.weight_map.contains_key(*tensor))
            .collect();
        unlisted.sort();
        match unlisted.first() {
            None => Ok(()),
            Some((tensor, file)) => {
                let problem = format!("{tensor}: found in {file}, but not listed");
                Err(wrong(self.file.path(), problem))
            }
        }
    }
}
