//! The CPU backend's rooms: the instruction sets, the team of threads, and the kernels, whose file names match the
//! GPU's.
//!
//! Kernels are functions of raw pointers and dimensions, because a recorded program resolves every argument once and
//! replays the calls; each states the memory it touches. None looks at the machine: the [`isa::Isa`] they receive is
//! the promise. None knows of threads either: those worth sharing take `(part, parts)` or a unit's number, and their
//! results do not depend on how the units were shared.

pub mod attention;
pub mod elementwise;
pub mod embed;
pub mod gemm_f;
pub mod isa;
pub mod kv;
pub mod norm;
pub mod panel;
pub mod rope;
pub mod silu;
pub(crate) mod simd;
pub mod softmax;
pub mod team;
#[cfg(test)]
mod test_data;
pub(crate) mod tile;
