//! Reading and writing GGUF: header, metadata, tensor descriptions, data section.
//!
//! ```text
//! "GGUF"  version: u32  tensors: u64  entries: u64
//! entries × (key: string, type: u32, value)            string = length: u64, bytes; array = type: u32, count: u64, items
//! tensors × (name: string, dimensions: u32, dimension: u64 × dimensions (innermost first), type: u32, offset: u64)
//! padding to `general.alignment` (32 unless given)
//! data section, in which each tensor's offset counts
//! ```
//!
//! The file is not trusted. Invariants:
//!
//! * No number from the file is added or multiplied before it is known not to overflow, nor used as a size before it is
//!   known to be covered by bytes that exist.
//! * Memory allocated is bounded by a fixed reserve and a small multiple of the bytes that exist, never by an announced
//!   count.
//! * Nothing recurses: arrays of arrays, which no known model has, are refused.
//! * Tensors handed out lie inside the file, do not overlap, and are as long as type and shape demand.
//!
//! Versions 2 and 3 have the same layout (3 only allowed big-endian files). Version 1 had 32-bit counts.

mod cursor;
mod entries;
mod split;
mod tensors;
mod write;

pub(super) use split::{join, require_whole};
pub use write::{WriteError, write_gguf};

use super::checkpoint::Contents;
use super::{Blob, Checkpoint, LoadError, Metadata, TensorInfo};
use cursor::Cursor;
use std::path::Path;
use std::sync::OnceLock;

/// How many items' memory is reserved before any has been read.
const RESERVE_MAX: u64 = 1 << 16;
/// The alignment of tensor data when `general.alignment` does not say.
const DEFAULT_ALIGNMENT: u64 = 32;
/// GGUF asks for multiples of 8, on which kernels that read whole elements rely; far above a page is a damaged file.
const ALIGNMENTS: std::ops::RangeInclusive<u64> = 8..=1 << 20;

/// Reads one GGUF file, which begins with (at least a part of) the magic. It may be a part of a split model; see `join`.
pub(super) fn read(path: &Path, file: Blob) -> Result<Checkpoint, LoadError> {
    let mut cursor = Cursor::new(path, &file);
    let version = read_version(&mut cursor)?;
    let tensor_count = cursor.u64(format_args!("tensor count"))?;
    let entry_count = cursor.u64(format_args!("metadata count"))?;

    let metadata = entries::read(&mut cursor, entry_count)?;
    let alignment = read_alignment(path, &metadata)?;
    let (infos, by_name) = tensors::read(&mut cursor, tensor_count)?;

    let data_begin = cursor.at.next_multiple_of(alignment as usize);
    let data = file.slice(data_begin.min(file.len())..file.len());
    tensors::check_extents(path, &infos, alignment, data.len() as u64)?;

    let place = |info: tensors::Info| {
        let begin = info.offset as usize;
        TensorInfo {
            name: info.name,
            dtype: info.dtype,
            shape: info.shape,
            contents: Contents::Stored(data.slice(begin..begin + info.bytes)),
        }
    };
    let tensors = infos.into_iter().map(place).collect();
    Ok(Checkpoint {
        path: path.to_owned(),
        file_bytes: file.len() as u64,
        format: format!("GGUF v{version}"),
        metadata,
        tensors,
        by_name,
        notes: Vec::new(),
        files: vec![path.to_owned()],
        failure: OnceLock::new(),
    })
}

/// Reads magic and version; returns 2 or 3.
fn read_version(cursor: &mut Cursor<'_>) -> Result<u32, LoadError> {
    cursor.take(4, format_args!("magic"))?;
    let version = cursor.u32(format_args!("version"))?;
    let found = match (version, version.swap_bytes()) {
        (2 | 3, _) => return Ok(version),
        (1, _) => "GGUF version 1, whose counts have 32 bits".to_owned(),
        (_, swapped @ 1..=9) => format!("GGUF version {swapped} in big-endian order"),
        _ => format!("GGUF version {version}"),
    };
    Err(LoadError::Version {
        file: cursor.path.to_owned(),
        found,
    })
}

fn read_alignment(path: &Path, metadata: &Metadata) -> Result<u64, LoadError> {
    let Some(found) = metadata.u64("general.alignment")? else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    if found.is_power_of_two() && ALIGNMENTS.contains(&found) {
        return Ok(found);
    }
    Err(LoadError::Alignment {
        file: path.to_owned(),
        found,
        least: *ALIGNMENTS.start(),
        most: *ALIGNMENTS.end(),
    })
}
