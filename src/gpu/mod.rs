//! The GPU backend.

pub mod pack;
