//! A program recorded for the CPU: every launch resolved to a kernel and addresses, in order.
//!
//! Replaying wakes the team once; its threads walk the same task list with a barrier after each
//! task. Running eagerly resolves every launch anew and wakes the team for each, which is what
//! recording saves, and computes the same bits.

use super::gemm::{Scratch, tile_bytes};
use super::memory::Pages;
use super::resolve::Resolver;
use super::task::{StepMemory, Task};
use super::team::Worker;
use super::{CpuError, Shared};
use crate::program::{Launch, Program, Step};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A task and the most rows its operands have: past `last_row` there is only one.
struct Recorded {
    task: Box<dyn Task>,
    rows: usize,
}

// SAFETY: a task holds the machine's instruction set, kernels, constants, and addresses in memory that the recording
// which owns it keeps alive and that no thread owns; who may touch that when is `run`'s contract.
unsafe impl Send for Recorded {}
// SAFETY: as above.
unsafe impl Sync for Recorded {}

impl Recorded {
    fn new(
        program: &Program,
        launch: &Launch,
        shared: &Shared,
        step: &Arc<StepMemory>,
    ) -> Result<Self, CpuError> {
        let operand = launch.inputs.first().or(launch.outputs.first());
        Ok(Recorded {
            task: Resolver::new(program, launch, shared, step).task()?,
            rows: operand.map_or(1, |slot| slot.rows as usize),
        })
    }

    /// # Safety
    /// As [`Task::run`].
    unsafe fn run(&self, worker: &Worker<'_>, live_rows: usize, scratch: Scratch) {
        // SAFETY: the caller's promise.
        unsafe { self.task.run(worker, live_rows.min(self.rows), scratch) }
    }
}

/// A recorded program and everything it points at.
pub struct Recording {
    program: Program,
    tasks: Vec<Recorded>,
    step: Arc<StepMemory>,
    scratch: Pages,
    scratch_stride: usize,
    tile_bytes: usize,
    poison: bool,
    replays: u64,
    eager_steps: u64,
    // Last: the tasks above point into it.
    shared: Arc<Shared>,
}

impl Recording {
    /// Resolves `program` against the shared weights, arena and caches. With `poison` the arena is
    /// filled with NaN before every step, so that reading what no launch wrote shows.
    pub(super) fn new(
        shared: Arc<Shared>,
        program: Program,
        poison: bool,
    ) -> Result<Self, CpuError> {
        let step = Arc::new(StepMemory::new(program.rows as usize));
        let record = |launch| Recorded::new(&program, launch, &shared, &step);
        let tasks: Vec<Recorded> = program
            .launches
            .iter()
            .map(record)
            .collect::<Result<_, _>>()?;
        let tile_bytes = tile_bytes(program.rows as usize).next_multiple_of(64);
        let kernel_bytes = tasks
            .iter()
            .map(|t| t.task.scratch_bytes())
            .max()
            .unwrap_or(0);
        // A page apart, so that two threads' scratch never shares a line.
        let scratch_stride = (tile_bytes + kernel_bytes).next_multiple_of(4096);
        let bytes = scratch_stride * shared.team.count();
        let scratch = Pages::zeroed(bytes).map_err(|source| CpuError::Memory {
            what: "scratch",
            bytes: bytes as u64,
            source,
        })?;
        Ok(Recording {
            program,
            tasks,
            step,
            scratch,
            scratch_stride,
            tile_bytes,
            poison,
            replays: 0,
            eager_steps: 0,
            shared,
        })
    }

    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Steps replayed so far.
    pub fn replays(&self) -> u64 {
        self.replays
    }

    /// Steps run eagerly so far.
    pub fn eager_steps(&self) -> u64 {
        self.eager_steps
    }

    /// Writes the step and runs the recorded tasks.
    ///
    /// # Panics
    /// When the step has no tokens or more than the program has rows, or runs past the context.
    pub fn replay(&mut self, step: Step<'_>) {
        self.begin(step, self.poison);
        let (tasks, rows) = (&self.tasks, step.tokens.len());
        self.shared.team.run(&|worker| {
            let scratch = self.scratch_of(&worker);
            for recorded in tasks {
                // SAFETY: the tasks were resolved against memory that `self` owns or keeps alive,
                // `begin` checked the live rows, and the barrier ends each task on every thread
                // before the next begins.
                unsafe { recorded.run(&worker, rows, scratch) };
                worker.barrier();
            }
        });
        self.replays += 1;
    }

    /// Writes the step and launches the program's kernels one by one, resolving each again.
    ///
    /// # Panics
    /// As [`Recording::replay`].
    pub fn run_eagerly(&mut self, step: Step<'_>) -> Result<(), CpuError> {
        self.run_eagerly_over(step, 0..self.program.launches.len(), self.poison)?;
        self.eager_steps += 1;
        Ok(())
    }

    /// Runs one step of one row with the token that the last one chose, at the position after it.
    ///
    /// # Panics
    /// When that is past the context, or the program has several rows.
    pub fn advance(&mut self, eager: bool) -> Result<(), CpuError> {
        assert_eq!(self.program.rows, 1, "only single rows follow each other");
        let (position, token) = self.shared.chain.chosen();
        // Whoever goes on after an error gets numbers, if meaningless ones.
        let tokens = &[token.unwrap_or(0)];
        let step = Step { position, tokens };
        if eager {
            return self.run_eagerly(step);
        }
        self.replay(step);
        Ok(())
    }

    /// Tasks that a replay walks.
    pub fn nodes(&self) -> usize {
        self.tasks.len()
    }

    /// What each recorded task is, in order; the launch it came from has the same number.
    pub fn task_names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.tasks.iter().map(|recorded| recorded.task.name())
    }

    /// Replays the step with a clock read after each task's barrier, which is when the last thread
    /// has ended it. Such a step counts neither as a replay nor as an eager one.
    ///
    /// # Panics
    /// As [`Recording::replay`].
    pub fn time_launches(&mut self, step: Step<'_>) -> Vec<Duration> {
        self.begin(step, self.poison);
        let (tasks, rows) = (&self.tasks, step.tokens.len());
        let nanoseconds: Vec<AtomicU64> = tasks.iter().map(|_| AtomicU64::new(0)).collect();
        self.shared.team.run(&|worker| {
            let scratch = self.scratch_of(&worker);
            // The threads are woken one after the other; the first task does not pay for that.
            worker.barrier();
            let mut last = Instant::now();
            for (recorded, time) in tasks.iter().zip(&nanoseconds) {
                // SAFETY: as in `replay`.
                unsafe { recorded.run(&worker, rows, scratch) };
                worker.barrier();
                if worker.index == 0 {
                    let now = Instant::now();
                    time.store((now - last).as_nanos() as u64, Ordering::Relaxed);
                    last = now;
                }
            }
        });
        let times = nanoseconds.into_iter().map(AtomicU64::into_inner);
        times.map(Duration::from_nanos).collect()
    }

    /// Runs some of the launches.
    pub(super) fn run_eagerly_over(
        &mut self,
        step: Step<'_>,
        launches: Range<usize>,
        poison: bool,
    ) -> Result<(), CpuError> {
        self.begin(step, poison);
        let rows = step.tokens.len();
        for launch in &self.program.launches[launches] {
            let recorded = Recorded::new(&self.program, launch, &self.shared, &self.step)?;
            self.shared.team.run(&|worker| {
                // SAFETY: as in `replay`; `run` ends on every thread before the next launch.
                unsafe { recorded.run(&worker, rows, self.scratch_of(&worker)) };
            });
        }
        Ok(())
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The result's rows, f32: `[rows, V]` logits for as many rows as the program's result has.
    pub fn result(&self, row: usize) -> &[f32] {
        let slot = &self.program.result;
        assert!(
            row < slot.rows as usize,
            "row {row} of a result of {} rows",
            slot.rows
        );
        // SAFETY: the result lies in the arena for good. This recording writes it only with `&mut self`, and that no
        // other runs meanwhile is the promise of `Cpu::record`.
        unsafe {
            let start = self
                .shared
                .arena
                .base()
                .add(slot.offset + row * slot.row_bytes());
            std::slice::from_raw_parts(start.cast::<f32>(), slot.cols as usize)
        }
    }

    fn begin(&mut self, step: Step<'_>, poison: bool) {
        let (rows, capacity) = (step.tokens.len(), self.program.rows as usize);
        assert!(
            rows > 0 && rows <= capacity,
            "{rows} tokens for a step of {capacity} rows"
        );
        let end = step.position as usize + rows;
        let context = self.program.context as usize;
        assert!(end <= context, "position {end} of a cache of {context}");
        // SAFETY: `&mut self`: no step of this recording is running, and the step is its own.
        unsafe { self.step.set(step) };
        self.shared.chain.note(step.position, step.tokens);
        if poison {
            // SAFETY: the arena holds only temporaries, and no task is running, of this recording or another.
            unsafe {
                self.shared
                    .arena
                    .base()
                    .write_bytes(0xff, self.program.arena_bytes)
            };
        }
    }

    fn scratch_of(&self, worker: &Worker<'_>) -> Scratch {
        // SAFETY: one stride a thread of the team was allocated.
        unsafe {
            let base = self.scratch.base().add(worker.index * self.scratch_stride);
            Scratch {
                tiles: base.cast(),
                kernel: base.add(self.tile_bytes),
            }
        }
    }
}
