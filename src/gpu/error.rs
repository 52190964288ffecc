//! Why a GPU cannot run a program.

use super::lower::LowerError;
use super::memory::Shortage;
use crate::hip::HipError;
use thiserror::Error;

/// Why a GPU cannot run a program.
#[derive(Debug, Error)]
pub enum GpuError {
    #[error(transparent)]
    Hip(#[from] HipError),
    #[error(transparent)]
    Lower(#[from] LowerError),
    #[error(transparent)]
    Tuning(#[from] super::tuning::TuningError),
    #[error("no GPU to run on: {}", reasons.join("; "))]
    NoDriver { reasons: Vec<String> },
    #[error("device hip:{index} does not exist: there are {count}, counted from 0")]
    NoSuchDevice { index: usize, count: usize },
    #[error(
        "{device}: no kernels for {arch}; {}",
        if embedded.is_empty() {
            "this program was built without a clang, and so without any GPU kernels".to_string()
        } else {
            format!("this program has kernels for {}", embedded.join(", "))
        }
    )]
    NoKernels {
        device: String,
        arch: String,
        embedded: Vec<&'static str>,
    },
    #[error(transparent)]
    Memory(#[from] Shortage),
    #[error(
        "the token for position {position} was waited for, but the device told of {} instead",
        found.map_or("none".to_string(), |of| format!("that for {of}"))
    )]
    NotTold { position: u32, found: Option<u32> },
    #[error("weight {name} is in the program but not in the model")]
    MissingWeight { name: String },
    #[error("weight {name} could not be read: {source}")]
    Read {
        name: String,
        source: std::io::Error,
    },
}

impl GpuError {
    /// Whether the machine cannot do what was asked for, as against a call that failed midway.
    pub fn is_refusal(&self) -> bool {
        !matches!(
            self,
            GpuError::Hip(HipError::Call { .. } | HipError::Unexpected { .. })
                | GpuError::NotTold { .. }
                | GpuError::Read { .. }
        )
    }
}
