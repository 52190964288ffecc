//! `greta_infer`: one decode step as a graph, planned once, recorded once, replayed for every token.

pub mod cli;
pub mod cpu;
pub mod dtype;
pub mod generate;
pub mod graph;
pub mod loader;
pub mod model;
pub mod pass;
pub mod plan;
pub mod program;
pub mod runtime;
pub mod sampler;
pub mod tokenizer;
