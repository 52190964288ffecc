//! Reading GGUF: header, metadata, tensor descriptions, data section.
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
//! * Memory allocated is bounded by a small multiple of the bytes already read, never by an announced count.
//! * Nothing recurses: arrays of arrays, which no known model has, are refused.
//! * Tensors handed out lie inside the file, do not overlap, and are as long as type and shape demand.
//!
//! Versions 2 and 3 have the same layout (3 only allowed big-endian files). Version 1 had 32-bit counts.

use super::array::LENGTH_BYTES;
use super::{Array, Blob, Checkpoint, LoadError, Metadata, Tensor, Text, Value, ValueType};
use crate::dtype::DType;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// The alignment of tensor data when `general.alignment` does not say.
const DEFAULT_ALIGNMENT: u64 = 32;
/// GGUF asks for multiples of 8, on which kernels that read whole elements rely; far above a page is a damaged file.
const ALIGNMENTS: std::ops::RangeInclusive<u64> = 8..=1 << 20;
/// GGUF's own limit for keys. It gives tensor names 64, which some writers exceed.
const NAME_BYTES_MAX: u64 = 65_535;
/// The fewest bytes a metadata entry can take: an empty key, a type, a one-byte value.
const ENTRY_BYTES_MIN: u64 = 8 + 4 + 1;
/// The fewest bytes a tensor description can take: an empty name and one dimension.
const TENSOR_BYTES_MIN: u64 = 8 + 4 + 8 + 4 + 8;
/// How many items' memory is reserved before any has been read.
const RESERVE_MAX: u64 = 1 << 16;

/// Reads a whole GGUF file, which begins with (at least a part of) the magic.
pub(super) fn read(path: &Path, file: Blob) -> Result<Checkpoint, LoadError> {
    let mut cursor = Cursor {
        file: &file,
        bytes: &file,
        at: 0,
        path,
    };
    let version = read_version(&mut cursor)?;
    let tensor_count = cursor.u64(format_args!("tensor count"))?;
    let entry_count = cursor.u64(format_args!("metadata count"))?;

    let metadata = read_metadata(&mut cursor, entry_count)?;
    refuse_split(path, &metadata)?;
    let alignment = read_alignment(path, &metadata)?;
    let (infos, by_name) = read_infos(&mut cursor, tensor_count)?;

    let data_begin = cursor.at.next_multiple_of(alignment as usize);
    let data = file.slice(data_begin.min(file.len())..file.len());
    check_extents(path, &infos, alignment, data.len() as u64)?;

    let place = |info: Info| {
        let begin = info.offset as usize;
        Tensor {
            name: info.name,
            dtype: info.dtype,
            shape: info.shape,
            data: data.slice(begin..begin + info.bytes),
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
    })
}

/// A position in the file. Every read names its subject, which is formatted only when the read fails.
struct Cursor<'a> {
    file: &'a Blob,
    bytes: &'a [u8],
    at: usize,
    path: &'a Path,
}

impl<'a> Cursor<'a> {
    fn remaining(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// The next `length` bytes, of which there may be too few.
    fn take(&mut self, length: u64, subject: fmt::Arguments<'_>) -> Result<&'a [u8], LoadError> {
        if length > self.remaining() {
            return Err(LoadError::Truncated {
                file: self.path.to_owned(),
                subject: subject.to_string(),
                at: self.at as u64,
                needed: length,
                available: self.remaining(),
            });
        }
        let bytes = &self.bytes[self.at..][..length as usize];
        self.at += length as usize;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, subject: fmt::Arguments<'_>) -> Result<[u8; N], LoadError> {
        let bytes = self.take(N as u64, subject)?;
        Ok(bytes.try_into().expect("take returns what was asked for"))
    }

    fn u32(&mut self, subject: fmt::Arguments<'_>) -> Result<u32, LoadError> {
        Ok(u32::from_le_bytes(self.array(subject)?))
    }

    fn u64(&mut self, subject: fmt::Arguments<'_>) -> Result<u64, LoadError> {
        Ok(u64::from_le_bytes(self.array(subject)?))
    }

    /// A key or tensor name: text that must be UTF-8 and not empty.
    fn name(&mut self, subject: fmt::Arguments<'_>) -> Result<&'a str, LoadError> {
        let length = self.u64(subject)?;
        if length > NAME_BYTES_MAX {
            let reason = "the longest name GGUF allows, in bytes";
            return Err(self.count(subject, length, NAME_BYTES_MAX, reason));
        }
        let bytes = self.take(length, subject)?;
        let problem = match std::str::from_utf8(bytes) {
            Ok("") => "empty".to_owned(),
            Ok(name) => return Ok(name),
            Err(error) => format!("`{}`, not UTF-8 ({error})", bytes.escape_ascii()),
        };
        Err(LoadError::Name {
            file: self.path.to_owned(),
            subject: subject.to_string(),
            problem,
        })
    }

    /// Checks that `count` things of at least `bytes_min` bytes can follow.
    fn fits(
        &self,
        subject: fmt::Arguments<'_>,
        count: u64,
        bytes_min: u64,
    ) -> Result<(), LoadError> {
        let limit = self.remaining() / bytes_min;
        if count <= limit {
            return Ok(());
        }
        Err(self.count(
            subject,
            count,
            limit,
            "what the rest of the file has room for",
        ))
    }

    fn count(
        &self,
        subject: fmt::Arguments<'_>,
        count: u64,
        limit: u64,
        reason: &'static str,
    ) -> LoadError {
        LoadError::Count {
            file: self.path.to_owned(),
            subject: subject.to_string(),
            count,
            limit,
            reason,
        }
    }
}

/// Reads magic and version; returns 2 or 3.
fn read_version(cursor: &mut Cursor<'_>) -> Result<u32, LoadError> {
    cursor.take(4, format_args!("magic"))?;
    let version = cursor.u32(format_args!("version"))?;
    let found = match (version, version.swap_bytes()) {
        (2 | 3, _) => return Ok(version),
        (1, _) => "GGUF version 1, whose counts have 32 bits".to_owned(),
        (_, swapped @ 1..=0xffff) => format!("GGUF version {swapped} in big-endian order"),
        _ => format!("GGUF version {version}"),
    };
    Err(LoadError::Version {
        file: cursor.path.to_owned(),
        found,
    })
}

fn read_metadata(cursor: &mut Cursor<'_>, count: u64) -> Result<Metadata, LoadError> {
    cursor.fits(format_args!("metadata entries"), count, ENTRY_BYTES_MIN)?;
    let mut metadata = Metadata::new(cursor.path);
    for index in 0..count {
        let key = cursor.name(format_args!("metadata key {index}"))?;
        let type_id = cursor.u32(format_args!("type of {key}"))?;
        let value = read_value(cursor, key, type_id)?;
        if metadata.insert(key, value).is_some() {
            return Err(LoadError::Duplicate {
                file: cursor.path.to_owned(),
                what: "metadata key",
                name: key.to_owned(),
            });
        }
    }
    Ok(metadata)
}

fn value_type(cursor: &Cursor<'_>, key: &str, id: u32) -> Result<ValueType, LoadError> {
    ValueType::from_gguf(id).ok_or_else(|| LoadError::ValueTypeId {
        file: cursor.path.to_owned(),
        key: key.to_owned(),
        found: id,
    })
}

fn read_value(cursor: &mut Cursor<'_>, key: &str, type_id: u32) -> Result<Value, LoadError> {
    let found = value_type(cursor, key, type_id)?;
    match found {
        ValueType::Array => read_array(cursor, key).map(Value::Array),
        ValueType::String => {
            let length = cursor.u64(format_args!("length of {key}"))?;
            let text = cursor.take(length, format_args!("text of {key}"))?;
            let begin = cursor.at - text.len();
            Ok(Value::String(Text(cursor.file.slice(begin..cursor.at))))
        }
        number => {
            let size = number
                .bytes()
                .expect("only strings and arrays vary in size");
            let bytes = cursor.take(size as u64, format_args!("value of {key}"))?;
            Value::from_le_bytes(number, bytes).ok_or_else(|| LoadError::Bool {
                file: cursor.path.to_owned(),
                subject: key.to_owned(),
                found: bytes[0],
            })
        }
    }
}

fn read_array(cursor: &mut Cursor<'_>, key: &str) -> Result<Array, LoadError> {
    let type_id = cursor.u32(format_args!("item type of {key}"))?;
    let item = value_type(cursor, key, type_id)?;
    let count = cursor.u64(format_args!("item count of {key}"))?;
    if item == ValueType::Array {
        return Err(LoadError::NestedArray {
            file: cursor.path.to_owned(),
            key: key.to_owned(),
        });
    }
    let item_bytes_min = item.bytes().unwrap_or(LENGTH_BYTES) as u64;
    cursor.fits(format_args!("items of {key}"), count, item_bytes_min)?;

    let begin = cursor.at;
    let starts = if item == ValueType::String {
        skip_strings(cursor, key, count)?
    } else {
        let bytes = cursor.take(count * item_bytes_min, format_args!("items of {key}"))?;
        check_bools(cursor, key, item, bytes)?;
        Vec::new()
    };
    Ok(Array {
        item,
        len: count as usize,
        bytes: cursor.file.slice(begin..cursor.at),
        starts: Arc::new(starts),
    })
}

/// Steps over `count` strings, noting where the text of each begins, in bytes from the first length.
fn skip_strings(cursor: &mut Cursor<'_>, key: &str, count: u64) -> Result<Vec<u32>, LoadError> {
    let begin = cursor.at;
    let mut starts = Vec::with_capacity(count.min(RESERVE_MAX) as usize);
    for index in 0..count {
        let length = cursor.u64(format_args!("length of {key}[{index}]"))?;
        let start = cursor.at - begin;
        cursor.take(length, format_args!("text of {key}[{index}]"))?;
        if cursor.at - begin > u32::MAX as usize {
            let bytes = (cursor.at - begin) as u64;
            let reason = "the most bytes of strings this reader keeps in one array";
            return Err(cursor.count(
                format_args!("bytes of {key}"),
                bytes,
                u32::MAX.into(),
                reason,
            ));
        }
        starts.push(start as u32);
    }
    Ok(starts)
}

fn check_bools(
    cursor: &Cursor<'_>,
    key: &str,
    item: ValueType,
    bytes: &[u8],
) -> Result<(), LoadError> {
    if item != ValueType::Bool {
        return Ok(());
    }
    match bytes.iter().position(|&byte| byte > 1) {
        None => Ok(()),
        Some(index) => Err(LoadError::Bool {
            file: cursor.path.to_owned(),
            subject: format!("{key}[{index}]"),
            found: bytes[index],
        }),
    }
}

fn refuse_split(path: &Path, metadata: &Metadata) -> Result<(), LoadError> {
    let count = metadata.u64("split.count")?;
    let index = metadata.u64("split.no")?;
    match count {
        Some(count) if count > 1 => Err(LoadError::Split {
            file: path.to_owned(),
            part: index.unwrap_or(0).saturating_add(1),
            count,
        }),
        _ => Ok(()),
    }
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

/// A tensor as described, before its place in the file is checked.
struct Info {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    bytes: usize,
    offset: u64,
}

/// The tensors in the file's order, and where in it each name is.
type Infos = (Vec<Info>, HashMap<String, usize>);

fn read_infos(cursor: &mut Cursor<'_>, count: u64) -> Result<Infos, LoadError> {
    cursor.fits(format_args!("tensors"), count, TENSOR_BYTES_MIN)?;
    let reserved = count.min(RESERVE_MAX) as usize;
    let mut infos = Vec::with_capacity(reserved);
    let mut by_name = HashMap::with_capacity(reserved);
    for index in 0..count {
        let info = read_info(cursor, index)?;
        if by_name.insert(info.name.clone(), infos.len()).is_some() {
            return Err(LoadError::Duplicate {
                file: cursor.path.to_owned(),
                what: "tensor",
                name: info.name,
            });
        }
        infos.push(info);
    }
    Ok((infos, by_name))
}

fn read_info(cursor: &mut Cursor<'_>, index: u64) -> Result<Info, LoadError> {
    let file = cursor.path;
    let name = cursor.name(format_args!("name of tensor {index}"))?;
    let dimensions = cursor.u32(format_args!("dimension count of {name}"))?;
    if !(1..=4).contains(&dimensions) {
        return Err(LoadError::Dimensions {
            file: file.to_owned(),
            tensor: name.to_owned(),
            found: dimensions,
        });
    }
    let mut shape = Vec::with_capacity(dimensions as usize);
    for _ in 0..dimensions {
        shape.push(cursor.u64(format_args!("dimensions of {name}"))?);
    }
    shape.reverse(); // The file has the innermost dimension first.
    let id = cursor.u32(format_args!("type of {name}"))?;
    let dtype = DType::from_ggml(id).ok_or_else(|| LoadError::UnknownType {
        file: file.to_owned(),
        tensor: name.to_owned(),
        id,
    })?;
    let offset = cursor.u64(format_args!("data offset of {name}"))?;
    let (shape, bytes) = check_shape(file, name, dtype, shape)?;
    Ok(Info {
        name: name.to_owned(),
        dtype,
        shape,
        bytes,
        offset,
    })
}

/// The shape as `usize`, and the bytes a tensor of it takes.
fn check_shape(
    file: &Path,
    name: &str,
    dtype: DType,
    shape: Vec<u64>,
) -> Result<(Vec<usize>, usize), LoadError> {
    let wrong = |shape, problem| LoadError::Shape {
        file: file.to_owned(),
        tensor: name.to_owned(),
        shape,
        problem,
    };
    const TOO_LARGE: &str = "has more elements than can be addressed";
    if shape.contains(&0) {
        return Err(wrong(
            shape,
            "has a dimension of zero; all must be at least 1",
        ));
    }
    let Ok(sizes) = shape
        .iter()
        .map(|&size| usize::try_from(size))
        .collect::<Result<Vec<_>, _>>()
    else {
        return Err(wrong(shape, TOO_LARGE));
    };
    let (rows, columns) = sizes.split_at(sizes.len() - 1);
    let columns = columns[0];
    if !columns.is_multiple_of(dtype.block_len()) {
        return Err(LoadError::PartialBlock {
            file: file.to_owned(),
            tensor: name.to_owned(),
            dtype,
            columns: columns as u64,
        });
    }
    // Elements and bytes both, so that `element_count` cannot overflow even where a block is smaller than its elements.
    let rows = rows
        .iter()
        .try_fold(1usize, |product, &size| product.checked_mul(size));
    let bytes = rows.and_then(|rows| {
        rows.checked_mul(columns)?;
        rows.checked_mul(dtype.row_bytes(columns)?)
    });
    match bytes {
        Some(bytes) => Ok((sizes, bytes)),
        None => Err(wrong(shape, TOO_LARGE)),
    }
}

/// Checks that every tensor is aligned, inside the data section of `available` bytes, and shares no byte with another.
fn check_extents(
    path: &Path,
    infos: &[Info],
    alignment: u64,
    available: u64,
) -> Result<(), LoadError> {
    for info in infos {
        if !info.offset.is_multiple_of(alignment) {
            return Err(LoadError::Misaligned {
                file: path.to_owned(),
                tensor: info.name.clone(),
                offset: info.offset,
                alignment,
            });
        }
        let end = info.offset.checked_add(info.bytes as u64);
        if end.is_none_or(|end| end > available) {
            return Err(LoadError::OutOfRange {
                file: path.to_owned(),
                tensor: info.name.clone(),
                offset: info.offset,
                bytes: info.bytes as u64,
                available,
            });
        }
    }
    // No tensor is empty, so if any two overlap then two neighbours in order of their beginnings do.
    let mut order: Vec<&Info> = infos.iter().collect();
    order.sort_by_key(|info| info.offset);
    for pair in order.windows(2) {
        let (first, second) = (pair[0], pair[1]);
        let first_end = first.offset + first.bytes as u64;
        if second.offset < first_end {
            return Err(LoadError::Overlap {
                file: path.to_owned(),
                first: first.name.clone(),
                first_begin: first.offset,
                first_end,
                second: second.name.clone(),
                second_begin: second.offset,
            });
        }
    }
    Ok(())
}
