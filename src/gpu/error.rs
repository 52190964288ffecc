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
    #[error("no GPU to run on: {}", joined(reasons))]
    NoDriver { reasons: Vec<HipError> },
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

fn joined(reasons: &[HipError]) -> String {
    let reasons: Vec<String> = reasons.iter().map(HipError::to_string).collect();
    reasons.join("; ")
}

impl GpuError {
    /// Whether the machine cannot do what was asked for, as against a call that failed midway.
    pub fn is_refusal(&self) -> bool {
        match self {
            GpuError::Lower(_)
            | GpuError::Tuning(_)
            | GpuError::NoDriver { .. }
            | GpuError::NoSuchDevice { .. }
            | GpuError::NoKernels { .. }
            | GpuError::Memory(_)
            // What the model lacks, the processor finds as well.
            | GpuError::MissingWeight { .. } => true,
            GpuError::Hip(error) => match error {
                HipError::NoLibrary { .. }
                | HipError::MissingSymbol { .. }
                | HipError::NoDevice { .. }
                | HipError::NoSuchDevice { .. } => true,
                HipError::Call { .. }
                | HipError::Unexpected { .. }
                | HipError::OutOfRange { .. }
                | HipError::ZeroByte { .. }
                | HipError::Capture { .. } => false,
            },
            GpuError::NotTold { .. } | GpuError::Read { .. } => false,
        }
    }

    /// Whether there simply is no GPU, as on most machines: no driver, or one that finds no device. Who
    /// asked for the best device there is need not be told.
    pub fn is_absence(&self) -> bool {
        let absent = |reason: &HipError| {
            matches!(
                reason,
                HipError::NoLibrary { unusable: None, .. } | HipError::NoDevice { .. }
            )
        };
        match self {
            GpuError::NoDriver { reasons } => reasons.iter().all(absent),
            _ => false,
        }
    }
}
