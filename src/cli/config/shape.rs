//! `[model.shape]`: the hyperparameters of a model whose weights are made up.

use serde::{Deserialize, Serialize};

/// The shape of a Llama model; one letter a dimension as everywhere in this crate.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Model family; names the graph definition.
    #[serde(default = "llama")]
    pub architecture: String,
    /// Layers.
    pub layers: usize,
    /// `E`: width of the residual stream.
    pub hidden: usize,
    /// `H`: query heads.
    pub heads: usize,
    /// `G`: key and value heads.
    pub kv_heads: usize,
    /// `D`: head size.
    pub head_size: usize,
    /// `F`: width of the feed-forward layer.
    pub feed_forward: usize,
    /// `V`: vocabulary.
    pub vocabulary: usize,
    /// Context that the model was trained for, in tokens.
    pub context: usize,
    /// The epsilon inside RMSNorm.
    pub norm_epsilon: f32,
    /// The base of the rotary embedding.
    pub rope_theta: f32,
    /// Whether the output projection is the embedding.
    pub tied_embeddings: bool,
}

fn llama() -> String {
    "llama".to_string()
}
