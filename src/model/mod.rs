//! A model: hyperparameters, a Definition, and tensors by name.
//!
//! This is where a checkpoint's promises are checked against a family's needs. It knows nothing of
//! kernels or devices; what it makes is a [`Graph`].

mod build;
mod definition;
mod hyperparameters;
mod keys;
mod known;
mod random;
#[cfg(test)]
mod tests;

pub use build::{Extent, Logits, build};
pub use definition::{Definition, DefinitionError, line_and_column};
pub use hyperparameters::{Hyperparameters, LayerPattern};
pub use known::unknown_keys;
pub use random::RandomWeights;

use crate::dtype::DType;
use crate::graph::{Graph, KvType, Section};
use crate::loader::{Checkpoint, LoadError, Tensor};
use bumpalo::Bump;
use std::collections::HashSet;
use thiserror::Error;

/// Why a checkpoint is not a model that can run.
#[derive(Debug, Error)]
pub enum ModelError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Family(#[from] DefinitionError),
    #[error("{file}: metadata has no `{key}`, which a model needs")]
    MissingKey { file: String, key: String },
    #[error("{file}: `{key}` is {found}; supported: {supported}")]
    UnsupportedKey {
        file: String,
        key: String,
        found: String,
        supported: String,
    },
    #[error("{source_name}: {what} is {found}, expected {wanted}")]
    BadHyperparameter {
        source_name: String,
        what: String,
        found: String,
        wanted: String,
    },
    #[error("{source_name}: {tensor}: expected shape {shape:?}, found no such tensor")]
    MissingTensor {
        source_name: String,
        tensor: String,
        shape: Vec<usize>,
    },
    #[error("{source_name}: {tensor}: expected shape {expected:?}, found {found:?}")]
    Shape {
        source_name: String,
        tensor: String,
        expected: Vec<usize>,
        found: Vec<usize>,
    },
    #[error(
        "{source_name}: {tensor}: type {found} cannot be computed with; supported: {}",
        type_names(DType::RUNNABLE)
    )]
    Type {
        source_name: String,
        tensor: String,
        found: DType,
    },
    #[error("{source_name}: {tensor}: a vector of type {found}; supported: F32, F16, BF16")]
    VectorType {
        source_name: String,
        tensor: String,
        found: DType,
    },
    #[error(
        "{source_name}: heads have {head_size} elements; a {kv_type} KV cache takes multiples of {}, so use --kv-type f16",
        kv_type.block_len()
    )]
    KvBlocks {
        source_name: String,
        head_size: u32,
        kv_type: KvType,
    },
    #[error(
        "{source_name}: tensor {tensor} has no place in definition `{family}`; the file is of \
         another family or variant, and running it without that tensor would be wrong"
    )]
    UnusedTensor {
        source_name: String,
        tensor: String,
        family: String,
    },
}

fn type_names(types: &[DType]) -> String {
    types
        .iter()
        .map(|t| t.name())
        .collect::<Vec<_>>()
        .join(", ")
}

enum Weights {
    Checkpoint(Box<Checkpoint>),
    Random(RandomWeights),
}

/// A model whose every tensor has been found and has the right shape and a type that runs.
pub struct Model {
    hyper: Hyperparameters,
    definition: Definition,
    weights: Weights,
    source: String,
}

impl Model {
    /// The model in a checkpoint, by the built-in Definition of its architecture or by
    /// `definition`. Fails if a tensor is missing, misshapen, of a type that does not run, or
    /// present without a place in the Definition.
    pub fn from_checkpoint(
        checkpoint: Checkpoint,
        definition: Option<Definition>,
    ) -> Result<Self, ModelError> {
        let source = checkpoint.path().display().to_string();
        let metadata = checkpoint.metadata();
        // The architecture is judged first: other families lack keys that would mislead.
        let architecture = metadata
            .str("general.architecture")?
            .unwrap_or("")
            .to_string();
        let definition = match definition {
            Some(definition) => definition,
            None => Definition::built_in(&architecture, &source)?,
        };
        let hyper = Hyperparameters::from_metadata(metadata, &definition)?;
        let weights = Weights::Checkpoint(Box::new(checkpoint));
        let model = Model {
            hyper,
            definition,
            weights,
            source,
        };
        model.check_tensors()?;
        Ok(model)
    }

    /// A model of `hyper`'s shape whose matrices are random numbers of type `dtype`, for
    /// measurements without a file. The same seed gives the same weights.
    pub fn random(
        hyper: Hyperparameters,
        definition: Option<Definition>,
        dtype: DType,
        seed: u64,
    ) -> Result<Self, ModelError> {
        let source = format!("random {dtype} weights");
        hyper.check(&source)?;
        let definition = match definition {
            Some(definition) => definition,
            None => Definition::built_in(&hyper.architecture, &source)?,
        };
        let weights = RandomWeights::new(&hyper, &definition, dtype, seed)?;
        let model = Model {
            hyper,
            definition,
            weights: Weights::Random(weights),
            source,
        };
        model.check_tensors()?;
        Ok(model)
    }

    pub fn hyperparameters(&self) -> &Hyperparameters {
        &self.hyper
    }

    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// The file, or what stands for one, as errors name it.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The checkpoint the model came from, unless its weights are random.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        match &self.weights {
            Weights::Checkpoint(checkpoint) => Some(checkpoint),
            Weights::Random(_) => None,
        }
    }

    /// A tensor's bytes; `None` if the model has none of that name. Random ones are made anew at
    /// each call, so that only one at a time need be in memory.
    pub fn tensor(&self, name: &str) -> Option<Tensor> {
        match &self.weights {
            Weights::Checkpoint(checkpoint) => checkpoint.tensor(name),
            Weights::Random(random) => random.tensor(name),
        }
    }

    fn lookup(&self, name: &str) -> Option<(DType, Vec<usize>)> {
        match &self.weights {
            Weights::Checkpoint(checkpoint) => {
                checkpoint.info(name).map(|t| (t.dtype, t.shape.clone()))
            }
            Weights::Random(random) => random.lookup(name),
        }
    }

    /// The graph of one step of `extent`, in `arena`.
    pub fn graph<'a>(&self, arena: &'a Bump, extent: Extent) -> Result<Graph<'a>, ModelError> {
        let lookup = |name: &str| self.lookup(name);
        build(
            arena,
            &self.definition,
            &self.hyper,
            extent,
            &self.source,
            &lookup,
        )
    }

    fn check_tensors(&self) -> Result<(), ModelError> {
        let arena = Bump::new();
        let extent = Extent {
            rows: 1,
            context: 1,
            kv_type: KvType::F16,
            logits: Logits::Last,
        };
        let graph = self.graph(&arena, extent)?;
        let Weights::Checkpoint(checkpoint) = &self.weights else {
            return Ok(());
        };
        let mut known: HashSet<String> = graph.weights().iter().map(|w| w.name.into()).collect();
        for name in &self.definition.ignored {
            let layers = (0..self.hyper.layers).map(Section::Layer);
            known.extend(layers.map(|section| build::placed(name, section)));
        }
        match checkpoint.tensors().find(|t| !known.contains(&t.name)) {
            None => Ok(()),
            Some(tensor) => Err(ModelError::UnusedTensor {
                source_name: self.source.clone(),
                tensor: tensor.name.clone(),
                family: self.definition.family.clone(),
            }),
        }
    }
}
