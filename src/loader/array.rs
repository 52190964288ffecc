//! Metadata arrays, which may have 150,000 strings and are therefore kept as they are stored.

use super::{Blob, Text, Value, ValueType};
use std::fmt;
use std::sync::Arc;

/// A metadata array: its items' type, and its bytes as stored in the file.
///
/// Strings stay where they are, each behind its eight-byte length; one `u32` an item says where.
#[derive(Clone, Debug)]
pub struct Array {
    pub(super) item: ValueType,
    pub(super) len: usize,
    /// The items, as stored.
    pub(super) bytes: Blob,
    /// Of strings: where each one's text begins in `bytes`. Of other types: empty.
    pub(super) starts: Arc<Vec<u32>>,
}

/// Bytes of the length before each stored string.
pub(super) const LENGTH_BYTES: usize = 8;

impl Array {
    /// The items' type; never [`ValueType::Array`].
    pub fn item_type(&self) -> ValueType {
        self.item
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Item `index`; `None` past the end.
    pub fn get(&self, index: usize) -> Option<Value> {
        if index >= self.len {
            return None;
        }
        match (self.item, self.item.bytes()) {
            // Checked to be 0 or 1 when the array was read.
            (ValueType::Bool, _) => Some(Value::Bool(self.bytes[index] != 0)),
            (item, Some(size)) => Value::from_le_bytes(item, &self.bytes[index * size..][..size]),
            (_, None) => Some(Value::String(Text::new(
                &self.bytes[self.text_range(index)],
            ))),
        }
    }

    /// All items in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Value> + '_ {
        (0..self.len).map(|index| {
            self.get(index)
                .expect("the index is inside, and only bools have bytes that are no value")
        })
    }

    /// The bytes of string `index` as stored, UTF-8 or not; `None` past the end or when the items are no strings.
    pub fn string_bytes(&self, index: usize) -> Option<&[u8]> {
        if self.item != ValueType::String || index >= self.len {
            return None;
        }
        Some(&self.bytes[self.text_range(index)])
    }

    /// Where the text of string `index` lies in `bytes`: up to the length of the next, or the end.
    fn text_range(&self, index: usize) -> std::ops::Range<usize> {
        let start = self.starts[index] as usize;
        let end = match self.starts.get(index + 1) {
            Some(&next) => next as usize - LENGTH_BYTES,
            None => self.bytes.len(),
        };
        start..end
    }

    /// An array of strings, for metadata made in memory.
    ///
    /// # Panics
    /// When the strings take more than 4 GiB together.
    pub fn strings<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> Array {
        let mut bytes = Vec::new();
        let mut starts = Vec::new();
        for item in items {
            let text = item.as_ref().as_bytes();
            bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            starts.push(u32::try_from(bytes.len()).expect("less than 4 GiB of strings"));
            bytes.extend_from_slice(text);
        }
        Array {
            item: ValueType::String,
            len: starts.len(),
            bytes: bytes.into(),
            starts: Arc::new(starts),
        }
    }

    /// An array of `len` fixed-size items, for metadata made in memory.
    fn numbers(item: ValueType, len: usize, bytes: Vec<u8>) -> Array {
        Array {
            item,
            len,
            bytes: bytes.into(),
            starts: Arc::default(),
        }
    }
}

/// `From` for slices of the plain types, for metadata made in memory.
macro_rules! from_slice {
    ($($plain:ty => $variant:ident),*) => {
        $(impl From<&[$plain]> for Array {
            fn from(items: &[$plain]) -> Array {
                let bytes = items.iter().flat_map(|item| item.to_le_bytes()).collect();
                Array::numbers(ValueType::$variant, items.len(), bytes)
            }
        })*
    };
}

from_slice! {
    u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, u64 => U64, i64 => I64, f32 => F32, f64 => F64
}

impl From<&[bool]> for Array {
    fn from(items: &[bool]) -> Array {
        let bytes = items.iter().map(|&item| u8::from(item)).collect();
        Array::numbers(ValueType::Bool, items.len(), bytes)
    }
}

impl PartialEq for Array {
    fn eq(&self, other: &Array) -> bool {
        // The bytes of strings include their lengths, so they determine where each begins.
        self.item == other.item && self.len == other.len && self.bytes == other.bytes
    }
}

impl fmt::Display for Array {
    /// The first items, and how many there are in all.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        f.write_str("[")?;
        for (index, value) in self.iter().take(SHOWN).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{value}")?;
        }
        if self.len > SHOWN {
            write!(f, ", … {} in all", self.len)?;
        }
        f.write_str("]")
    }
}

/// The strings of an array, all known to be UTF-8: one buffer with all the text and one offset a string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StringArray {
    text: Arc<String>,
    /// Where each string ends in `text`; it begins where the one before ends.
    ends: Arc<Vec<u32>>,
}

impl StringArray {
    /// Gathers the strings of `array`, which must be of strings.
    ///
    /// The bytes are copied first and checked afterwards, all at once: the copy is ours, so what was checked cannot
    /// change, and one long check is several times faster than 150,000 short ones. The whole being UTF-8 and every
    /// string ending between two characters is the same as every string being UTF-8.
    ///
    /// # Errors
    /// The index of the first string that is not UTF-8, and how many of its bytes are.
    pub(super) fn new(array: &Array) -> Result<StringArray, (usize, usize)> {
        let stored: &[u8] = &array.bytes;
        let text_bytes = stored.len().saturating_sub(array.len * LENGTH_BYTES);
        let mut bytes = Vec::with_capacity(text_bytes);
        let mut ends = Vec::with_capacity(array.len);
        for index in 0..array.len {
            bytes.extend_from_slice(&stored[array.text_range(index)]);
            // The text is shorter than the bytes it is stored in, and those are below 4 GiB.
            ends.push(bytes.len() as u32);
        }
        match String::from_utf8(bytes) {
            Ok(text) => match ends.iter().all(|&end| text.is_char_boundary(end as usize)) {
                true => Ok(StringArray {
                    text: Arc::new(text),
                    ends: Arc::new(ends),
                }),
                false => Err(first_invalid(text.as_bytes(), &ends)),
            },
            Err(error) => Err(first_invalid(error.as_bytes(), &ends)),
        }
    }

    /// How many strings there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// String `index`; `None` past the end.
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)? as usize;
        let start = match index {
            0 => 0,
            _ => self.ends[index - 1] as usize,
        };
        Some(&self.text[start..end])
    }

    /// All strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> + '_ {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let piece = &self.text[start..end as usize];
            start = end as usize;
            piece
        })
    }
}

/// Of the pieces of `bytes` that end at `ends`, the first that is not UTF-8, and how many of its bytes are.
fn first_invalid(bytes: &[u8], ends: &[u32]) -> (usize, usize) {
    let mut start = 0;
    for (index, &end) in ends.iter().enumerate() {
        if let Err(error) = std::str::from_utf8(&bytes[start..end as usize]) {
            return (index, error.valid_up_to());
        }
        start = end as usize;
    }
    unreachable!("pieces that are all UTF-8 are UTF-8 together and end between characters")
}
