//! One SafeTensors file: its header, and where its tensors lie.

use super::{Stored, wrong};
use crate::dtype::DType;
use crate::loader::{Blob, LoadError};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use std::path::Path;
use std::sync::Arc;

/// Bytes of the length before the header.
const LENGTH_BYTES: usize = 8;
/// The format allows 100 MB, which as hostile JSON takes gigabytes to parse. 16 MiB describe 100,000 tensors.
const HEADER_BYTES_MAX: u64 = 16 << 20;

/// Reads the header of the file `path`, which is mapped as `bytes` and is `file` in its folder.
pub(super) fn read(path: &Path, file: &Arc<str>, bytes: &Blob) -> Result<Vec<Stored>, LoadError> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        let problem = format!(
            "has {} bytes; a SafeTensors file begins with the 8 bytes of a length",
            bytes.len()
        );
        return Err(wrong(path, problem));
    };
    let length = u64::from_le_bytes(*length);
    if length > HEADER_BYTES_MAX {
        let problem =
            format!("announces a header of {length} bytes; at most {HEADER_BYTES_MAX} are read");
        return Err(wrong(path, problem));
    }
    let length = length as usize;
    let Some(header) = rest.get(..length) else {
        let problem = format!(
            "announces a header of {length} bytes, but has {} left: it is cut short or damaged; fetch it again",
            rest.len()
        );
        return Err(wrong(path, problem));
    };
    // A copy, so that what is checked cannot change.
    let header = String::from_utf8(header.to_vec()).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        wrong(
            path,
            format!("the header is not UTF-8 from byte {valid} on"),
        )
    })?;
    let data = bytes.slice(LENGTH_BYTES + length..bytes.len());
    let metadata: Metadata = serde_json::from_str(&header).map_err(|error| {
        let found =
            diagnose(&header).unwrap_or_else(|| format!("the header cannot be used: {error}"));
        wrong(path, found)
    })?;
    if metadata.data_len() != data.len() {
        let problem = format!(
            "the header describes {} bytes of data, but the file has {}: it is cut short or damaged; fetch it again",
            metadata.data_len(),
            data.len()
        );
        return Err(wrong(path, problem));
    }
    // `offset_keys` is in the order of the data, `tensors` is not.
    let infos = metadata.tensors();
    let names = metadata.offset_keys();
    let place = |name: &String| {
        let info = infos[name];
        let (begin, end) = info.data_offsets;
        let dtype = dtype(path, name, info.dtype)?;
        check(path, name, &info.shape)?;
        Ok(Stored {
            name: name.clone(),
            dtype,
            shape: info.shape.clone(),
            data: data.slice(begin..end),
            aligned: (LENGTH_BYTES + length + begin).is_multiple_of(dtype.block_bytes()),
            file: Arc::clone(file),
        })
    };
    names.iter().map(place).collect()
}

fn dtype(path: &Path, name: &str, found: Dtype) -> Result<DType, LoadError> {
    match found {
        Dtype::F32 => Ok(DType::F32),
        Dtype::F16 => Ok(DType::F16),
        Dtype::BF16 => Ok(DType::BF16),
        other => {
            let problem = format!(
                "{name}: type {other} is not read from SafeTensors files; supported: F32, F16, BF16"
            );
            Err(wrong(path, problem))
        }
    }
}

fn check(path: &Path, name: &str, shape: &[usize]) -> Result<(), LoadError> {
    if name.is_empty() || name.contains(char::is_control) {
        let problem = format!("a tensor is called {name:?}; names are non-empty, printable text");
        return Err(wrong(path, problem));
    }
    if (1..=4).contains(&shape.len()) && !shape.contains(&0) {
        return Ok(());
    }
    let problem = format!("{name}: shape {shape:?}; supported are 1 to 4 dimensions of at least 1");
    Err(wrong(path, problem))
}

/// What is wrong with a header that the crate refused, in a sentence with both sides. It names at most a tensor itself.
fn diagnose(header: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Entry {
        dtype: String,
        shape: Vec<u64>,
        data_offsets: (u64, u64),
    }
    let all: serde_json::Map<String, serde_json::Value> = serde_json::from_str(header).ok()?;
    let mut entries = Vec::new();
    for (name, value) in all {
        if name == "__metadata__" {
            continue;
        }
        match serde_json::from_value::<Entry>(value) {
            Ok(entry) => entries.push((name, entry)),
            Err(error) => return Some(format!("{name}: {error}")),
        }
    }
    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut expected = 0;
    let mut before = String::new();
    for (name, entry) in entries {
        let dtype = serde_json::from_value::<Dtype>(entry.dtype.clone().into());
        let Ok(dtype) = dtype else {
            return Some(format!(
                "{name}: type {:?} is unknown; supported: F32, F16, BF16",
                entry.dtype
            ));
        };
        let (begin, end) = entry.data_offsets;
        if begin != expected || end < begin {
            let after = match before.as_str() {
                "" => "the data section begins".to_owned(),
                before => format!("{before} ends"),
            };
            return Some(format!(
                "{name}: data at bytes {begin} to {end}, but {after} at byte {expected}; tensors must follow one another without gap or overlap"
            ));
        }
        let elements = entry
            .shape
            .iter()
            .try_fold(1u64, |product, &size| product.checked_mul(size));
        let needed = elements.and_then(|elements| elements.checked_mul(dtype.bitsize() as u64));
        match needed {
            None => {
                return Some(format!(
                    "{name}: shape {:?} has more elements than can be addressed",
                    entry.shape
                ));
            }
            Some(bits) if bits != (end - begin).saturating_mul(8) => {
                let shape = &entry.shape;
                return Some(format!(
                    "{name}: {dtype} {shape:?} takes {} bytes, but the header gives it {}",
                    bits.div_ceil(8),
                    end - begin
                ));
            }
            Some(_) => {}
        }
        (expected, before) = (end, name);
    }
    None
}
