//! The metadata entries.

use super::RESERVE_MAX;
use super::cursor::Cursor;
use crate::loader::array::LENGTH_BYTES;
use crate::loader::{Array, LoadError, Metadata, Text, Value, ValueType};
use std::sync::Arc;

/// The fewest bytes a metadata entry can take: an empty key, a type, a one-byte value.
const ENTRY_BYTES_MIN: u64 = 8 + 4 + 1;

/// Reads `count` metadata entries.
pub(super) fn read(cursor: &mut Cursor<'_>, count: u64) -> Result<Metadata, LoadError> {
    cursor.fits(format_args!("metadata entries"), count, ENTRY_BYTES_MIN)?;
    let mut metadata = Metadata::new(cursor.path);
    for index in 0..count {
        let key = cursor.name(format_args!("metadata key {index}"))?;
        let type_id = cursor.u32(format_args!("type of {key}"))?;
        let value = read_value(cursor, &key, type_id)?;
        if metadata.insert(key.as_str(), value).is_some() {
            return Err(LoadError::Duplicate {
                file: cursor.path.to_owned(),
                what: "metadata key",
                name: key,
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
            Ok(Value::String(Text::new(text)))
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
