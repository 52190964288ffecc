//! Toy models without files.

use crate::support::toy::{Recipe, Toy};
use greta_infer::loader::Checkpoint;
use greta_infer::model::Model;
use std::path::Path;

/// A toy and the model that is read from its bytes.
pub fn open(recipe: Recipe) -> (Toy, Model) {
    let toy = recipe.build();
    let bytes = toy.gguf().to_bytes();
    let checkpoint = Checkpoint::from_bytes(Path::new("toy.gguf"), bytes);
    let checkpoint = checkpoint.unwrap_or_else(|e| panic!("{e}"));
    let model = Model::from_checkpoint(checkpoint, None).unwrap_or_else(|e| panic!("{e}"));
    (toy, model)
}
