//! What a recording puts on the stream for a step: a graph of the driver's, or without one the kernels.

use super::GpuError;
use super::capture::instantiate;
use super::resolve::Resolved;
use crate::hip::{GraphExec, Stream};
use std::time::{Duration, Instant};

/// Steps of one row that are also recorded as one graph: launching it takes an H100's host 2 to 3 µs a
/// step of 154 kernels, where a graph of one takes 5.
pub const GROUP_STEPS: u32 = 16;

/// Fields are dropped in order: the graphs before the code that their kernels name.
pub(super) struct Recorded {
    exec: Option<GraphExec>,
    /// [`GROUP_STEPS`] of it.
    group: Option<GraphExec>,
    /// Why there is no `exec`.
    fallback: Option<String>,
    /// What the driver could not do, so that steps take longer; the bits are the same.
    shortfalls: Vec<String>,
    pub resolved: Vec<Resolved>,
    pub replays: u64,
    pub eager_steps: u64,
    /// What the host spent in launch calls.
    pub launch_time: Duration,
}

impl Recorded {
    /// Captures the kernels of a step, and with `groups` those of [`GROUP_STEPS`] steps.
    pub fn new(stream: &Stream, mut resolved: Vec<Resolved>, groups: bool) -> Self {
        let mut shortfalls = Vec::new();
        let mut recorded = instantiate(stream, &mut resolved, 1);
        // Drivers have learnt to record launches that overlap later than to launch them.
        if let Err(why) = &recorded
            && resolved.iter().any(Resolved::overlaps)
        {
            shortfalls.push(format!(
                "each launch of a step waits for the one before it to finish: {why}"
            ));
            resolved.iter_mut().for_each(Resolved::wait_in_turn);
            recorded = instantiate(stream, &mut resolved, 1);
        }
        let mut group = None;
        if recorded.is_ok() && groups {
            match instantiate(stream, &mut resolved, GROUP_STEPS) {
                Ok(exec) => group = Some(exec),
                Err(why) => shortfalls.push(format!(
                    "steps are launched one by one, not {GROUP_STEPS} at a time: {why}"
                )),
            }
        }
        let (exec, fallback) = match recorded {
            Ok(exec) => (Some(exec), None),
            Err(why) => (None, Some(why)),
        };
        Recorded {
            exec,
            group,
            fallback,
            shortfalls,
            resolved,
            replays: 0,
            eager_steps: 0,
            launch_time: Duration::ZERO,
        }
    }

    /// Nodes of the graph, as the driver counted them; the kernels where there is no graph.
    pub fn nodes(&self) -> usize {
        let exec = self.exec.as_ref();
        exec.map_or(self.resolved.len(), GraphExec::node_count)
    }

    /// Why there is no graph.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    pub fn shortfalls(&self) -> &[String] {
        &self.shortfalls
    }

    /// Whether launches begin before their predecessors have finished.
    pub fn overlaps(&self) -> bool {
        self.resolved.iter().any(Resolved::overlaps)
    }

    /// Queues the graph of a step, or without one or with `eager` its kernels.
    ///
    /// # Safety
    /// What the kernels were resolved against lives until they have run, nobody else puts anything on the stream
    /// meanwhile, and the step that they find is within the context.
    pub unsafe fn step(&mut self, stream: &Stream, eager: bool) -> Result<(), GpuError> {
        let start = Instant::now();
        match &self.exec {
            Some(exec) if !eager => {
                exec.launch(stream)?;
                self.replays += 1;
            }
            _ => {
                for resolved in &mut self.resolved {
                    // SAFETY: the caller's promise.
                    unsafe { resolved.launch(stream)? };
                }
                self.eager_steps += 1;
            }
        }
        self.launch_time += start.elapsed();
        Ok(())
    }

    /// Queues as many of `steps` steps as whole groups have; how many are left.
    ///
    /// # Safety
    /// As [`Recorded::step`].
    pub unsafe fn groups(&mut self, stream: &Stream, steps: u32) -> Result<u32, GpuError> {
        let Some(group) = &self.group else {
            return Ok(steps);
        };
        let start = Instant::now();
        for _ in 0..steps / GROUP_STEPS {
            group.launch(stream)?;
            self.replays += u64::from(GROUP_STEPS);
        }
        self.launch_time += start.elapsed();
        Ok(steps % GROUP_STEPS)
    }
}
