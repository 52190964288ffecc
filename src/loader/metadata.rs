//! A file's key–value pairs, read by type.

use super::{Array, LoadError, StringArray, Value, ValueType};
use indexmap::IndexMap;
use std::path::{Path, PathBuf};

/// The metadata of a model file: keys and values in the file's order, and the file's name for error messages.
///
/// The typed readers return `Ok(None)` for a key that is absent and an error naming file, key and both types for one
/// of another type. Integers of any width are read as any other as long as the value fits: files disagree about whether
/// a layer count is `u32` or `u64`.
#[derive(Clone, Debug)]
pub struct Metadata {
    file: PathBuf,
    entries: IndexMap<String, Value>,
}

impl Metadata {
    /// No entries yet. `file` is the name errors will give: a path, or a description such as `random weights`.
    pub fn new(file: impl Into<PathBuf>) -> Metadata {
        Metadata {
            file: file.into(),
            entries: IndexMap::new(),
        }
    }

    /// The file these entries come from.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Adds an entry or replaces its value in place, and returns the value it had.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        self.entries.insert(key.into(), value.into())
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entries, in the file's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> + '_ {
        self.entries
            .iter()
            .map(|(key, value)| (key.as_str(), value))
    }

    /// The value of `key`, whatever its type.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key)
    }

    /// The unsigned 32-bit integer `key`.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, LoadError> {
        self.integer(key, "u32")
    }

    /// The signed 32-bit integer `key`.
    pub fn i32(&self, key: &str) -> Result<Option<i32>, LoadError> {
        self.integer(key, "i32")
    }

    /// The unsigned 64-bit integer `key`.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, LoadError> {
        self.integer(key, "u64")
    }

    /// The count or size `key`.
    pub fn usize(&self, key: &str) -> Result<Option<usize>, LoadError> {
        self.integer(key, "usize")
    }

    /// The floating-point number `key`; an `f64` is rounded to `f32`.
    pub fn f32(&self, key: &str) -> Result<Option<f32>, LoadError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::F32(value)) => Ok(Some(*value)),
            Some(Value::F64(value)) => Ok(Some(*value as f32)),
            Some(other) => Err(self.wrong_type(key, other, "f32")),
        }
    }

    /// The bool `key`.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, LoadError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(self.wrong_type(key, other, "bool")),
        }
    }

    /// The text `key`, which must be UTF-8.
    pub fn str(&self, key: &str) -> Result<Option<&str>, LoadError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => match text.to_str() {
                Ok(text) => Ok(Some(text)),
                Err(error) => {
                    Err(self.not_utf8(key.to_owned(), text.as_bytes(), error.valid_up_to()))
                }
            },
            Some(other) => Err(self.wrong_type(key, other, "string")),
        }
    }

    /// The array `key`, whatever its items.
    pub fn array(&self, key: &str) -> Result<Option<&Array>, LoadError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) => Ok(Some(array)),
            Some(other) => Err(self.wrong_type(key, other, "array")),
        }
    }

    /// The array of strings `key`, each checked to be UTF-8 here, once.
    ///
    /// For strings that may be otherwise (some vocabularies have broken pieces) see [`Array::string_bytes`].
    pub fn strings(&self, key: &str) -> Result<Option<StringArray>, LoadError> {
        let Some(array) = self.items(key, "array of strings", |item| item == ValueType::String)?
        else {
            return Ok(None);
        };
        match StringArray::new(array) {
            Ok(strings) => Ok(Some(strings)),
            Err((index, valid)) => {
                let bytes = array.string_bytes(index).unwrap_or_default();
                Err(self.not_utf8(format!("{key}[{index}]"), bytes, valid))
            }
        }
    }

    /// The array of f32 `key`.
    pub fn f32s(&self, key: &str) -> Result<Option<Vec<f32>>, LoadError> {
        let array = self.items(key, "array of f32", |item| item == ValueType::F32)?;
        Ok(array.map(|array| {
            let (items, _) = array.bytes.as_chunks::<4>();
            items.iter().map(|item| f32::from_le_bytes(*item)).collect()
        }))
    }

    /// The array of integers `key`, each of which must fit an `i32`.
    pub fn i32s(&self, key: &str) -> Result<Option<Vec<i32>>, LoadError> {
        self.integers(key, "array of i32", "i32")
    }

    /// The array of integers `key`, each of which must fit a `u32`.
    pub fn u32s(&self, key: &str) -> Result<Option<Vec<u32>>, LoadError> {
        self.integers(key, "array of u32", "u32")
    }

    /// The array of bools `key`.
    pub fn bools(&self, key: &str) -> Result<Option<Vec<bool>>, LoadError> {
        let array = self.items(key, "array of bools", |item| item == ValueType::Bool)?;
        Ok(array.map(|array| array.bytes.iter().map(|&byte| byte != 0).collect()))
    }

    fn integer<T: TryFrom<i128>>(
        &self,
        key: &str,
        wanted: &'static str,
    ) -> Result<Option<T>, LoadError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let Some(found) = value.as_integer() else {
            return Err(self.wrong_type(key, value, wanted));
        };
        match T::try_from(found) {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(self.range(key.to_owned(), found, wanted)),
        }
    }

    fn integers<T: TryFrom<i128>>(
        &self,
        key: &str,
        wanted: &'static str,
        wanted_item: &'static str,
    ) -> Result<Option<Vec<T>>, LoadError> {
        let Some(array) = self.items(key, wanted, ValueType::is_integer)? else {
            return Ok(None);
        };
        let mut items = Vec::with_capacity(array.len());
        for (index, value) in array.iter().enumerate() {
            let found = value
                .as_integer()
                .expect("the items' type is an integer type");
            let item = T::try_from(found)
                .map_err(|_| self.range(format!("{key}[{index}]"), found, wanted_item))?;
            items.push(item);
        }
        Ok(Some(items))
    }

    /// The array `key` if its items' type is `accepted`.
    fn items(
        &self,
        key: &str,
        wanted: &'static str,
        accepted: impl Fn(ValueType) -> bool,
    ) -> Result<Option<&Array>, LoadError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) if accepted(array.item_type()) => Ok(Some(array)),
            Some(other) => Err(self.wrong_type(key, other, wanted)),
        }
    }

    fn wrong_type(&self, key: &str, found: &Value, wanted: &'static str) -> LoadError {
        LoadError::WrongType {
            file: self.file.clone(),
            key: key.to_owned(),
            found: match found {
                Value::Array(array) => format!("array of {}", array.item_type()),
                other => other.value_type().to_string(),
            },
            wanted,
        }
    }

    fn range(&self, subject: String, found: i128, wanted: &'static str) -> LoadError {
        LoadError::Range {
            file: self.file.clone(),
            subject,
            found,
            wanted,
        }
    }

    fn not_utf8(&self, subject: String, bytes: &[u8], valid: usize) -> LoadError {
        const SHOWN: usize = 24;
        let shown = &bytes[valid..bytes.len().min(valid + SHOWN)];
        LoadError::Utf8 {
            file: self.file.clone(),
            subject,
            valid,
            bytes: shown.escape_ascii().to_string(),
        }
    }
}
