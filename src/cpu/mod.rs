//! The CPU backend's kernels.

pub mod activation;
pub mod gemm_q;
pub mod isa;
pub mod pack;
pub mod panel;
