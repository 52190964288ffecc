//! The GPU backend.

pub mod geometry;
pub mod lower;
pub mod pack;
pub mod weights;

pub use lower::{Arg, Form, KernelLaunch, lower, text};
