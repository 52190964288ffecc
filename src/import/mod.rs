//! A Hugging Face folder presented as a [`Checkpoint`], so that the model, the tokenizer, the chat and `convert` see one
//! thing whatever a model came as.
//!
//! What a GGUF file of the model would hold is what the folder is made to hold: `config` and `family` translate
//! `config.json` into GGUF's keys, `tokenizer` translates `tokenizer.json` and its companions into `tokenizer.ggml.*`, and
//! `tensors` finds each tensor by the [`Definition`]'s SafeTensors name and lists it under its GGUF name. Names and values
//! are llama.cpp's converter's.
//!
//! A tensor that GGUF stores otherwise (the rows of Llama's query and key matrices, whose halves rotate where GGUF's
//! neighbours do; Gemma's norms, which add one) is changed when it is fetched, exactly, in its own type. Everything else
//! stays where it is mapped. So a folder costs the memory of one changed tensor at a time; on the CPU float matrices are
//! computed with where they lie, and there the changed ones (of a Llama, a tenth or so of the model) stay in memory.
//!
//! A value that would change the computation and is not supported is refused by its key. A key that nothing here knows is
//! named in [`Checkpoint::notes`].

mod class;
mod config;
mod error;
mod family;
mod requantize;
mod rope;
mod tensors;
mod tokenizer;
mod window;

pub use error::ImportError;
pub use requantize::{requantize, type_for, vectors_to};

use crate::loader::{Checkpoint, Folder, Metadata};
use crate::model::{Definition, unknown_keys};
use config::Config;
use family::Family;
use std::path::Path;

/// Opens a model, whatever it is: a GGUF file, one part of a split one, a folder of SafeTensors files, or one of those
/// files. Reads no tensor data. `definition` is the family's if it is not the built-in one.
///
/// # Errors
/// [`ImportError`] for what the loader refuses, and for a folder that asks for something that is not supported.
pub fn open(path: &Path, definition: Option<&Definition>) -> Result<Checkpoint, ImportError> {
    if Folder::is_at(path) {
        checkpoint(&Folder::open(path)?, definition)
    } else {
        let mut checkpoint = Checkpoint::open(path)?;
        if let Some(note) = unknown_keys(checkpoint.metadata())? {
            checkpoint.note(note);
        }
        Ok(checkpoint)
    }
}

/// The folder as a checkpoint.
///
/// # Errors
/// As [`open`].
pub fn checkpoint(
    folder: &Folder,
    definition: Option<&Definition>,
) -> Result<Checkpoint, ImportError> {
    let config = Config::read(folder)?;
    let family = Family::of(&config)?;
    let built_in;
    let definition = match definition {
        Some(definition) => definition,
        None => {
            let name = config.file().display().to_string();
            built_in = Definition::built_in(family.architecture, &name)?;
            &built_in
        }
    };
    let mut metadata = Metadata::new(folder.path());
    let shape = family.translate(&config, name_of(folder, &config)?, &mut metadata)?;
    let mut notes = tokenizer::translate(folder, &config, shape.vocabulary, &mut metadata)?;
    let mut tensors = tensors::translate(folder, &config, &family, &shape, definition)?;
    tensors.extend(rope::factors_tensor(&config, &family, &shape)?);
    notes.extend(family.notes());
    notes.extend(config.unknown());
    let format = match folder.file_count() {
        1 => "SafeTensors".to_owned(),
        count => format!("SafeTensors, {count} files"),
    };
    let bytes = folder.file_bytes();
    let mut checkpoint = Checkpoint::assemble(folder.path(), bytes, format, metadata, tensors)?;
    checkpoint.set_files(folder.files()?);
    notes.into_iter().for_each(|note| checkpoint.note(note));
    Ok(checkpoint)
}

/// A name for people: the repository's, or the folder's.
fn name_of(folder: &Folder, config: &Config) -> Result<String, ImportError> {
    let written = config.text("_name_or_path")?.unwrap_or_default();
    if let Some(name) = written
        .rsplit('/')
        .find(|part| !part.is_empty() && *part != ".")
    {
        return Ok(name.to_owned());
    }
    let path = std::path::absolute(folder.path()).unwrap_or_else(|_| folder.path().to_owned());
    Ok(path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned())
}
