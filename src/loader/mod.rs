//! Bytes on disk → named, checked tensor views.
//!
//! [`Checkpoint::open`] maps a GGUF file, or all of a split one, believes none of its numbers before checking them against
//! the file's own size, and hands out [`Tensor`]s and metadata arrays that point into the map: only names and single values
//! are copied, so opening takes about a millisecond whatever the model's size. [`Folder::open`] does the same for the
//! SafeTensors and JSON files of a Hugging Face folder, which the room `import` presents as a [`Checkpoint`]. The loader
//! knows no model; which tensors must exist, with which shapes and types, is for `model` to say.
//!
//! * [`Checkpoint`], [`TensorInfo`], [`Tensor`]: what a model's files hold, whatever their format.
//! * [`Folder`], [`JsonFile`]: a Hugging Face folder as it lies on the disk.
//! * [`write_gguf`]: a checkpoint → a GGUF file.
//! * [`Metadata`], [`Value`], [`Array`], [`StringArray`]: a file's key–value pairs.
//! * [`Blob`]: shared bytes. `mmap` has the only `unsafe` code.
//! * [`Loading`]: how long a device took to have the weights.
//! * [`LoadError`]: everything that can be wrong, each kind its own variant.

mod array;
mod blob;
mod checkpoint;
mod error;
mod format;
mod gguf;
mod json;
mod loading;
mod metadata;
mod mmap;
mod safetensors;
mod value;

pub use array::{Array, StringArray};
pub use blob::Blob;
pub use checkpoint::{Checkpoint, Contents, Make, Tensor, TensorInfo};
pub use error::LoadError;
pub use gguf::{WriteError, write_gguf};
pub use json::JsonFile;
pub use loading::Loading;
pub use metadata::Metadata;
pub use safetensors::{Folder, INDEX, Stored, WHOLE, safetensors_files};
pub use value::{Text, Value, ValueType};
