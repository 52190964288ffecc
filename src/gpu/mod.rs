//! The GPU backend.

pub mod geometry;
pub mod launch;
pub mod lower;
pub mod pack;
pub mod weights;

pub use launch::{Arg, Form, KernelLaunch, text};
pub use lower::{LowerError, lower};
