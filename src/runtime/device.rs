//! Which device a session runs on, and the programs compiled for it.

use super::backend::{Backend, BackendError};
use super::chunks;
use super::compile::compile_with;
use super::session::{SessionError, SessionOptions};
use crate::cpu::{self, Cpu, isa::Isa};
use crate::gpu::{self, Found, Gpu};
use crate::model::{Extent, Logits, Model};
use crate::program::{Program, Target};
use bumpalo::Bump;
use std::str::FromStr;
use thiserror::Error;

/// Where to compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The processor.
    #[default]
    Cpu,
    /// The GPU with this number, or the best one; an error if it cannot be used.
    Hip(Option<usize>),
    /// The best GPU if it can run the model, else the processor.
    Auto,
}

/// A name that is no device.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("unknown device \"{name}\"; supported: auto, cpu, hip, hip:N")]
pub struct UnknownDevice {
    /// The name as it was written.
    pub name: String,
}

impl FromStr for DeviceChoice {
    type Err = UnknownDevice;

    fn from_str(name: &str) -> Result<Self, UnknownDevice> {
        let unknown = || UnknownDevice { name: name.into() };
        match name.split_once(':') {
            None if name == "auto" => Ok(DeviceChoice::Auto),
            None if name == "cpu" => Ok(DeviceChoice::Cpu),
            None if name == "hip" => Ok(DeviceChoice::Hip(None)),
            Some(("hip", index)) if index.bytes().all(|b| b.is_ascii_digit()) => {
                let index = index.parse().map_err(|_| unknown())?;
                Ok(DeviceChoice::Hip(Some(index)))
            }
            _ => Err(unknown()),
        }
    }
}

/// A device that holds a model, and the programs that were compiled for it.
pub(super) struct Prepared {
    pub backend: Box<dyn Backend>,
    /// Why it is not the GPU that [`DeviceChoice::Auto`] would have taken.
    pub fallback: Option<String>,
    pub decode: Program,
    /// Chunks of a prompt, the largest first.
    pub prompts: Vec<Program>,
}

/// Chooses a device, compiles for it, and gives it the weights.
pub(super) fn prepare(
    model: &Model,
    options: &SessionOptions,
    progress: &dyn Fn(u64, u64),
) -> Result<Prepared, SessionError> {
    let found = match options.device {
        DeviceChoice::Cpu => return on_cpu(model, options, progress),
        DeviceChoice::Hip(index) => gpu::select(&options.drivers, index),
        // Before anything is compiled for it: without kernels, the best device is none.
        DeviceChoice::Auto => gpu::select(&options.drivers, None)
            .and_then(|found| found.code_object().map(|_| ()).and(Ok(found))),
    };
    let prepared = found
        .map_err(|error| SessionError::from(BackendError::from(error)))
        .and_then(|found| on_gpu(model, options, &found, progress));
    match prepared {
        Err(SessionError::Backend(BackendError::Gpu(why)))
            if options.device == DeviceChoice::Auto && why.is_refusal() =>
        {
            let fallback = (!why.is_absence()).then(|| why.to_string());
            let prepared = on_cpu(model, options, progress)?;
            Ok(Prepared {
                fallback,
                ..prepared
            })
        }
        prepared => prepared,
    }
}

fn on_gpu(
    model: &Model,
    options: &SessionOptions,
    found: &Found,
    progress: &dyn Fn(u64, u64),
) -> Result<Prepared, SessionError> {
    let wave = found.info.wave;
    let (decode, prompts) = programs(model, options, Target::Gpu { wave })?;
    let all: Vec<&Program> = std::iter::once(&decode).chain(&prompts).collect();
    let setup = gpu::Setup {
        threads: options.threads,
        poison: options.poison,
        overlap: options.overlap,
    };
    let fetch = |name: &str| model.tensor(name);
    let gpu = Gpu::new(found, setup, &all, &fetch, progress);
    Ok(Prepared {
        backend: Box::new(gpu.map_err(BackendError::from)?),
        fallback: None,
        decode,
        prompts,
    })
}

fn on_cpu(
    model: &Model,
    options: &SessionOptions,
    progress: &dyn Fn(u64, u64),
) -> Result<Prepared, SessionError> {
    let (decode, prompts) = programs(model, options, Target::Cpu)?;
    let all: Vec<&Program> = std::iter::once(&decode).chain(&prompts).collect();
    let setup = cpu::Setup {
        threads: options.threads,
        isa: options.isa.unwrap_or_else(Isa::detect),
        poison: options.poison,
    };
    let fetch = |name: &str| model.tensor(name);
    let cpu = Cpu::new(setup, &all, &fetch, progress);
    Ok(Prepared {
        backend: Box::new(cpu.map_err(BackendError::from)?),
        fallback: None,
        decode,
        prompts,
    })
}

/// Rows of the largest prompt chunk where nobody says: what fills a device, or the CPU's caches.
const CHUNK_ROWS_GPU: u32 = 512;
const CHUNK_ROWS_CPU: u32 = 256;

/// The decode step and the prompt chunks.
fn programs(
    model: &Model,
    options: &SessionOptions,
    target: Target,
) -> Result<(Program, Vec<Program>), SessionError> {
    let context = options.context;
    let program = |rows: u32, logits: Logits| -> Result<Program, SessionError> {
        let arena = Bump::new();
        let extent = Extent {
            rows,
            context,
            kv_type: options.kv_type,
            logits,
        };
        Ok(compile_with(model, &arena, extent, target, options.prompt_precision)?.program)
    };
    let on_gpu = matches!(target, Target::Gpu { .. });
    let largest = match options.chunk_rows {
        0 if on_gpu => CHUNK_ROWS_GPU,
        0 => CHUNK_ROWS_CPU,
        rows => rows,
    };
    let prompts = chunks::sizes(largest.min(context.max(1)), on_gpu);
    let prompts = prompts
        .into_iter()
        .map(|rows| program(rows, options.logits));
    Ok((
        program(1, Logits::Last)?,
        prompts.collect::<Result<_, _>>()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named() {
        let check = |name: &str, device: Option<DeviceChoice>| {
            assert_eq!(name.parse().ok(), device, "{name}");
        };
        check("auto", Some(DeviceChoice::Auto));
        check("cpu", Some(DeviceChoice::Cpu));
        check("hip", Some(DeviceChoice::Hip(None)));
        check("hip:0", Some(DeviceChoice::Hip(Some(0))));
        check("hip:12", Some(DeviceChoice::Hip(Some(12))));
        for wrong in [
            "", "hip:", "hip:-1", "hip:+1", "hip:x", "cpu:0", "HIP", "tpu",
        ] {
            check(wrong, None);
        }
        let error = "tpu"
            .parse::<DeviceChoice>()
            .expect_err("no device")
            .to_string();
        assert!(
            error.contains("\"tpu\"") && error.contains("hip:N"),
            "{error}"
        );
    }
}
