//! `greta_infer`: one decode step as a graph, planned once, recorded once, replayed for every token.

pub mod dtype;
pub mod loader;
pub mod sampler;
pub mod tokenizer;
