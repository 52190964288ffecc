//! Bytes on disk → named, checked tensor views.
//!
//! [`Checkpoint::open`] maps a file, believes none of its numbers before checking them against the file's own size, and
//! hands out [`Tensor`]s and metadata arrays that point into the map: only names and single values are copied, so opening
//! takes about a millisecond whatever the model's size. The loader knows no model; which tensors must exist, with which shapes and types, is for
//! `model` to say.
//!
//! * [`Checkpoint`], [`Tensor`]: what a file holds, whatever its format. Today that is GGUF.
//! * [`Metadata`], [`Value`], [`Array`], [`StringArray`]: a file's key–value pairs.
//! * [`Blob`]: shared bytes. `mmap` has the only `unsafe` code.
//! * [`LoadError`]: everything that can be wrong, each kind its own variant.

mod array;
mod blob;
mod checkpoint;
mod error;
mod format;
mod gguf;
mod metadata;
mod mmap;
mod value;

pub use array::{Array, StringArray};
pub use blob::Blob;
pub use checkpoint::{Checkpoint, Tensor};
pub use error::LoadError;
pub use metadata::Metadata;
pub use value::{Text, Value, ValueType};
