//! Models whose tensors are spread over several files, `NAME-00001-of-0000N.gguf`.
//!
//! Each part is a GGUF file of its own. The first has the metadata of the whole; every part says which it is (`split.no`,
//! from 0), how many there are (`split.count`) and how many tensors all have together (`split.tensors.count`).

use crate::loader::checkpoint::map;
use crate::loader::error::few;
use crate::loader::{Checkpoint, LoadError};
use std::path::{Path, PathBuf};

/// What a part says about itself.
struct Part {
    /// From 0.
    number: u64,
    count: u64,
}

/// `split.no` and `split.count`, of a file that is a part of several.
fn part_of(checkpoint: &Checkpoint) -> Result<Option<Part>, LoadError> {
    let metadata = checkpoint.metadata();
    match metadata.u64("split.count")? {
        Some(count) if count > 1 => {
            let number = metadata.u64("split.no")?.ok_or_else(|| {
                let problem = format!("split.count is {count}, but split.no is missing");
                split(checkpoint.path(), problem)
            })?;
            Ok(Some(Part { number, count }))
        }
        _ => Ok(None),
    }
}

/// Refuses a part of a split model where the others cannot be looked for.
pub(in crate::loader) fn require_whole(checkpoint: &Checkpoint) -> Result<(), LoadError> {
    match part_of(checkpoint)? {
        None => Ok(()),
        Some(Part { number, count }) => {
            let number = number.saturating_add(1);
            let problem = format!("is part {number} of {count}, and the others are not at hand");
            Err(split(checkpoint.path(), problem))
        }
    }
}

/// The whole model that `opened` is a part of, whichever part that is; `opened` itself when it is whole.
pub(in crate::loader) fn join(opened: Checkpoint) -> Result<Checkpoint, LoadError> {
    let Some(part) = part_of(&opened)? else {
        return Ok(opened);
    };
    let path = opened.path().to_owned();
    let paths = part_paths(&path, &part)?;
    let missing: Vec<String> = paths
        .iter()
        .filter(|path| !path.exists())
        .map(|path| name(path))
        .collect();
    if !missing.is_empty() {
        let problem = format!(
            "is part {} of {}, and {} missing beside it: {}",
            part.number + 1,
            part.count,
            if missing.len() == 1 {
                "one is"
            } else {
                "others are"
            },
            few(&missing)
        );
        return Err(split(&path, problem));
    }
    let mut parts = Vec::with_capacity(paths.len());
    for (number, path) in paths.iter().enumerate() {
        parts.push(open_part(path, number as u64, part.count)?);
    }
    merge(path, parts)
}

/// The files of all parts, by the name of one.
fn part_paths(path: &Path, part: &Part) -> Result<Vec<PathBuf>, LoadError> {
    // Five digits, as every tool writes them; more parts than that is a damaged number.
    const COUNT_MAX: u64 = 99_999;
    let Part { number, count } = *part;
    if count > COUNT_MAX || number >= count {
        let problem = format!("split.no is {number} and split.count is {count}");
        return Err(split(path, problem));
    }
    let ending = |number: u64| format!("-{:05}-of-{count:05}.gguf", number + 1);
    let file = name(path);
    let Some(stem) = file.strip_suffix(&ending(number)) else {
        let problem = format!(
            "is part {} of {count} by its metadata, and should be called NAME{}",
            number + 1,
            ending(number)
        );
        return Err(split(path, problem));
    };
    let place = |number| path.with_file_name(format!("{stem}{}", ending(number)));
    Ok((0..count).map(place).collect())
}

fn open_part(path: &Path, number: u64, count: u64) -> Result<Checkpoint, LoadError> {
    let checkpoint = Checkpoint::read(path, map(path)?)?;
    let found = part_of(&checkpoint)?;
    let agrees = found
        .as_ref()
        .is_some_and(|found| found.number == number && found.count == count);
    if agrees {
        return Ok(checkpoint);
    }
    let found = match found {
        None => "is a whole model".to_owned(),
        Some(found) => format!("split.no {} and split.count {}", found.number, found.count),
    };
    let problem = format!("expected split.no {number} and split.count {count}, found {found}");
    Err(split(path, problem))
}

/// One checkpoint of all parts: the first's metadata, everyone's tensors.
fn merge(path: PathBuf, parts: Vec<Checkpoint>) -> Result<Checkpoint, LoadError> {
    let announced = parts[0].metadata().u64("split.tensors.count")?;
    let total: usize = parts.iter().map(|part| part.tensors.len()).sum();
    if let Some(announced) = announced
        && announced != total as u64
    {
        let problem =
            format!("split.tensors.count is {announced}, but the parts have {total} tensors");
        return Err(split(&path, problem));
    }
    for (index, part) in parts.iter().enumerate() {
        for earlier in &parts[..index] {
            if let Some(twice) = part
                .tensors()
                .find(|tensor| earlier.info(&tensor.name).is_some())
            {
                let (here, there) = (name(&part.path), name(&earlier.path));
                let problem = format!("tensor {:?} is in {there} and in {here}", twice.name);
                return Err(split(&path, problem));
            }
        }
    }
    let file_bytes = parts.iter().map(Checkpoint::file_bytes).sum();
    let format = format!("{}, {} parts", parts[0].format(), parts.len());
    let metadata = parts[0].metadata().clone();
    let files = parts.iter().map(|part| part.path.clone()).collect();
    let tensors = parts.into_iter().flat_map(|part| part.tensors).collect();
    let mut whole = Checkpoint::assemble(&path, file_bytes, format, metadata, tensors)?;
    whole.set_files(files);
    Ok(whole)
}

fn split(file: &Path, problem: String) -> LoadError {
    LoadError::Split {
        file: file.to_owned(),
        problem,
    }
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}
