//! The CPU backend's rooms: the instruction sets, the team of threads, and the kernels, whose file names match the
//! GPU's.

pub mod isa;
pub mod team;
