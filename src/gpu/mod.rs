//! The GPU backend.

pub mod geometry;
pub mod pack;
