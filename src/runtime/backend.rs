//! What a device must be able to do for a session.

use super::contents::{Contents, RecordedNode};
use crate::cpu::{self, Cpu, CpuError};
use crate::gpu::{self, Gpu, GpuError};
use crate::hip::NodeKind;
use crate::loader::Loading;
use crate::program::{Program, Step};
use crate::sampler::{Rule, SamplerError};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;
use thiserror::Error;

/// Why a device failed.
#[derive(Debug, Error)]
pub enum BackendError {
    #[error(transparent)]
    Cpu(#[from] CpuError),
    #[error(transparent)]
    Gpu(#[from] GpuError),
}

/// A device that holds one model.
pub trait Backend: Send {
    /// What runs: `cpu, 2 threads, avx512`.
    fn describe(&self) -> String;

    /// Threads the host spends on a step.
    fn threads(&self) -> usize;

    /// Bytes of weights that steps read.
    fn weight_bytes(&self) -> u64;

    /// What the weights were made of, and how long that took.
    fn loading(&self) -> Loading;

    /// Records one of the programs the backend was made for.
    fn record(&self, program: Program) -> Result<Box<dyn Recording>, BackendError>;

    /// Bytes a second that this device reads from its memory, measured now.
    fn stream_bytes_per_second(&self) -> Result<f64, BackendError>;

    /// Bytes a second that are copied from pinned memory of the host to the device's, measured now; `None`
    /// where the device's memory is the host's.
    fn copy_bytes_per_second(&self) -> Result<Option<f64>, BackendError> {
        Ok(None)
    }

    /// The tuning table of this device as a file, made by timing variants of the decode step and of the
    /// chunks of prompts that the backend was made for; `None` where nothing is tuned.
    fn tune(
        &self,
        _decode: &Program,
        _prompts: &[&Program],
    ) -> Result<Option<String>, BackendError> {
        Ok(None)
    }

    /// How the steps from now on choose the token after them.
    fn set_rule(&self, rule: &Rule) -> Result<(), BackendError>;

    /// Steps that will be queued next are to choose for these positions. Those that chose for positions
    /// [`RING`](gpu::RING) before them are done, and their tokens read.
    fn expect(&self, _positions: Range<u32>) -> Result<(), BackendError> {
        Ok(())
    }

    /// Whether the step that chooses for `position` has done so, since it was expected. Costs no call of a
    /// driver.
    fn told(&self, _position: u32) -> Result<bool, BackendError> {
        Ok(true)
    }

    /// The token for `position`, which a step that is done chose.
    fn chosen(&self, position: u32) -> Result<Result<u32, SamplerError>, BackendError>;
}

/// A program recorded on a device.
pub trait Recording: Send {
    fn program(&self) -> &Program;

    /// Runs the recorded step: writes the step's words, launches once, waits.
    fn replay(&mut self, step: Step<'_>) -> Result<(), BackendError>;

    /// Has the next step be slept through for `nap` before it is waited for, on a device that is waited for by
    /// looking all the time.
    fn sleep_through(&mut self, _nap: Duration) {}

    /// Runs the same program launch by launch, without the recording.
    fn run_eagerly(&mut self, step: Step<'_>) -> Result<(), BackendError>;

    /// Runs, or queues where the device has a queue, `steps` steps of one row: each with the token that
    /// the one before it chose, at the position after it.
    fn advance(&mut self, steps: u32, eager: bool) -> Result<(), BackendError>;

    /// Whether all that was queued is done. What went wrong on the device meanwhile is this call's error.
    fn is_idle(&self) -> Result<bool, BackendError>;

    /// Whether [`Recording::advance`] returns before its steps are done.
    fn queues(&self) -> bool;

    /// Brings the result of the last step that advanced to where [`Recording::result`] finds it.
    fn fetch(&mut self) -> Result<(), BackendError>;

    /// Row `row` of the result of the last step: `[V]` logits.
    fn result(&self, row: usize) -> &[f32];

    /// Steps replayed so far, as the recording itself counted them.
    fn replays(&self) -> u64;

    /// Steps run eagerly so far.
    fn eager_steps(&self) -> u64;

    /// Nodes that a replay runs, as the recording itself counts them.
    fn nodes(&self) -> usize;

    /// Everything the recording holds, asked of whoever recorded it.
    fn contents(&mut self) -> Result<Contents, BackendError>;

    /// The time of each of [`Recording::contents`]' nodes over one step that runs them in order.
    fn time_nodes(&mut self, step: Step<'_>) -> Result<Vec<Duration>, BackendError>;

    /// Has the device's driver draw what it recorded, as DOT, into a file; `false` where no driver
    /// records.
    fn write_driver_dot(&mut self, _path: &Path) -> Result<bool, BackendError> {
        Ok(false)
    }

    /// Why replaying runs eagerly, where the device's driver could not record.
    fn fallback(&self) -> Option<&str> {
        None
    }

    /// What the device's driver could not do and why, where steps take longer for it; the bits are the same.
    fn shortfalls(&self) -> &[String] {
        &[]
    }

    /// Time the host has spent in launch calls so far, on devices that have such calls.
    fn launch_time(&self) -> Option<Duration> {
        None
    }
}

impl Backend for Cpu {
    fn describe(&self) -> String {
        let (threads, isa) = (self.threads(), self.isa().name());
        let plural = if threads == 1 { "" } else { "s" };
        format!("cpu, {threads} thread{plural}, {isa}")
    }

    fn threads(&self) -> usize {
        self.threads()
    }

    fn weight_bytes(&self) -> u64 {
        self.weight_bytes()
    }

    fn loading(&self) -> Loading {
        self.loading()
    }

    fn record(&self, program: Program) -> Result<Box<dyn Recording>, BackendError> {
        // SAFETY: this module is the runtime's own. A `Session` owns all recordings of a model, runs one at a time with
        // `&mut self`, and lends what one has computed only with itself.
        Ok(Box::new(unsafe { self.record(program) }?))
    }

    fn stream_bytes_per_second(&self) -> Result<f64, BackendError> {
        Ok(self.stream_bytes_per_second()?)
    }

    fn set_rule(&self, rule: &Rule) -> Result<(), BackendError> {
        self.chain().set_rule(rule);
        Ok(())
    }

    fn chosen(&self, position: u32) -> Result<Result<u32, SamplerError>, BackendError> {
        let (of, token) = self.chain().chosen();
        assert_eq!(of, position, "the token that was chosen last");
        Ok(token)
    }
}

impl Recording for cpu::Recording {
    fn program(&self) -> &Program {
        self.program()
    }

    fn replay(&mut self, step: Step<'_>) -> Result<(), BackendError> {
        self.replay(step);
        Ok(())
    }

    fn run_eagerly(&mut self, step: Step<'_>) -> Result<(), BackendError> {
        Ok(self.run_eagerly(step)?)
    }

    fn advance(&mut self, steps: u32, eager: bool) -> Result<(), BackendError> {
        Ok((0..steps).try_for_each(|_| self.advance(eager))?)
    }

    fn is_idle(&self) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn queues(&self) -> bool {
        false
    }

    fn fetch(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    fn result(&self, row: usize) -> &[f32] {
        self.result(row)
    }

    fn replays(&self) -> u64 {
        self.replays()
    }

    fn eager_steps(&self) -> u64 {
        self.eager_steps()
    }

    fn nodes(&self) -> usize {
        self.nodes()
    }

    fn contents(&mut self) -> Result<Contents, BackendError> {
        let node = |(launch, name): (usize, &str)| RecordedNode {
            kind: "task".into(),
            kernel: name.into(),
            launch: Some(launch),
        };
        let nodes: Vec<RecordedNode> = self.task_names().enumerate().map(node).collect();
        // A barrier between every two.
        let edges = (1..nodes.len()).map(|to| (to - 1, to)).collect();
        Ok(Contents { nodes, edges })
    }

    fn time_nodes(&mut self, step: Step<'_>) -> Result<Vec<Duration>, BackendError> {
        Ok(self.time_launches(step))
    }
}

impl Backend for Gpu {
    fn describe(&self) -> String {
        self.describe().to_string()
    }

    fn threads(&self) -> usize {
        1
    }

    fn weight_bytes(&self) -> u64 {
        self.weight_bytes()
    }

    fn loading(&self) -> Loading {
        self.loading()
    }

    fn record(&self, program: Program) -> Result<Box<dyn Recording>, BackendError> {
        Ok(Box::new(self.record(program)?))
    }

    fn tune(&self, decode: &Program, prompts: &[&Program]) -> Result<Option<String>, BackendError> {
        let note = format!(
            "How products are laid out: src/gpu/tuning.rs says what the fields mean. Measured by `bench --tune` on\n{}.",
            self.describe()
        );
        Ok(Some(self.tune(decode, prompts)?.text(&note)))
    }

    fn stream_bytes_per_second(&self) -> Result<f64, BackendError> {
        Ok(self.stream_bytes_per_second()?)
    }

    fn copy_bytes_per_second(&self) -> Result<Option<f64>, BackendError> {
        Ok(Some(self.copy_bytes_per_second()?))
    }

    fn set_rule(&self, rule: &Rule) -> Result<(), BackendError> {
        Ok(self.set_rule(rule)?)
    }

    fn expect(&self, positions: Range<u32>) -> Result<(), BackendError> {
        Ok(self.expect(positions)?)
    }

    fn told(&self, position: u32) -> Result<bool, BackendError> {
        Ok(self.told(position)?)
    }

    fn chosen(&self, position: u32) -> Result<Result<u32, SamplerError>, BackendError> {
        Ok(self.chosen(position)?)
    }
}

impl Recording for gpu::Recording {
    fn program(&self) -> &Program {
        self.program()
    }

    fn sleep_through(&mut self, nap: Duration) {
        self.sleep_through(nap);
    }

    fn replay(&mut self, step: Step<'_>) -> Result<(), BackendError> {
        Ok(self.replay(step)?)
    }

    fn run_eagerly(&mut self, step: Step<'_>) -> Result<(), BackendError> {
        Ok(self.run_eagerly(step)?)
    }

    fn advance(&mut self, steps: u32, eager: bool) -> Result<(), BackendError> {
        Ok(self.advance(steps, eager)?)
    }

    fn is_idle(&self) -> Result<bool, BackendError> {
        Ok(self.is_idle()?)
    }

    fn queues(&self) -> bool {
        true
    }

    fn fetch(&mut self) -> Result<(), BackendError> {
        Ok(self.fetch()?)
    }

    fn result(&self, row: usize) -> &[f32] {
        self.result(row)
    }

    fn replays(&self) -> u64 {
        self.replays()
    }

    fn eager_steps(&self) -> u64 {
        self.eager_steps()
    }

    fn fallback(&self) -> Option<&str> {
        self.fallback()
    }

    fn shortfalls(&self) -> &[String] {
        self.shortfalls()
    }

    fn launch_time(&self) -> Option<Duration> {
        Some(self.launch_time())
    }

    fn nodes(&self) -> usize {
        self.nodes()
    }

    fn contents(&mut self) -> Result<Contents, BackendError> {
        let captured = self.capture()?;
        let node = |(index, kind): (usize, &NodeKind)| RecordedNode {
            kind: format!("{kind:?}").to_lowercase(),
            kernel: captured.kernels.get(index).cloned().unwrap_or_default(),
            launch: captured.launches.get(index).copied().flatten(),
        };
        Ok(Contents {
            nodes: captured.kinds.iter().enumerate().map(node).collect(),
            edges: captured.edges,
        })
    }

    fn time_nodes(&mut self, step: Step<'_>) -> Result<Vec<Duration>, BackendError> {
        Ok(self.time_launches(step)?)
    }

    fn write_driver_dot(&mut self, path: &Path) -> Result<bool, BackendError> {
        self.capture()?.write_dot(path)?;
        Ok(true)
    }
}
