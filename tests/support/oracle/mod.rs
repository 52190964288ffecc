//! An f64 oracle of everything the runtime computes, written from the formulas and the ggml block layouts.
//!
//! It shares nothing with the code it judges: no decoder, no kernel, no type. `tests/oracle.rs` checks it in turn
//! against PyPI `gguf`'s decoders and a NumPy forward pass.

pub mod blocks;
pub mod llama;
pub mod math;

pub use blocks::{FORMATS, Format};
pub use llama::{ACTIVATION_LEVELS, Hyper, Kv, Llama, RawTensor, Rounding};
pub use math::{Attention, Rope, RopeTable, gemm, gemm_rounding_bound, rms_norm, softmax, swiglu};
