//! A program recorded as a graph of the driver's.
//!
//! A step of several rows writes a few words of pinned memory, launches the graph, copies the live
//! logits back and waits: no allocation, no update of the graph, no other synchronisation. The graph's
//! first kernel copies the step to the device, so that the recording is kernels only.
//!
//! A step of one row leaves its token and position to the next, so that [`Recording::advance`] queues
//! as many as are wanted without a word from the host; a kernel in front sets them where the host
//! decides ([`Recording::replay`]). Some steps are one graph more, which the host launches in less time.
//! What a step chose, and so that it is done, the host reads in its own memory (`chain`).
//!
//! Where a driver cannot capture, replaying launches the same kernels one by one, and
//! [`Recording::fallback`] says why.

use super::capture::{Captured, instantiate};
use super::launch::{self, KernelLaunch};
use super::memory::{STEP_HEAD_WORDS, step_bytes};
use super::resolve::{Buffers, Resolved};
use super::{GpuError, Room, Shared};
use crate::hip::{DeviceBuffer, GraphExec, PinnedBuffer};
use crate::program::{Program, Slot, Step};
use std::mem;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Every byte of poison: NaN as f32 and as f16.
pub(super) const POISON: u8 = 0xff;

/// Steps of one row that are also recorded as one graph: launching it takes an H100's host 2 to 3 µs a
/// step of 154 kernels, where a graph of one takes 5.
pub const GROUP_STEPS: u32 = 16;

/// Bytes that a step moves at most where it is: longer steps are never launched so many at a time
/// ([`Decode`](crate::runtime::Decode)), and recording them would take loading a model 50 ms for nothing.
const GROUP_BYTES: u64 = 1 << 30;

/// A recorded program and everything it points at. Fields are dropped in order: the graph before
/// the memory and the code that its kernels name.
pub struct Recording {
    exec: Option<GraphExec>,
    /// [`GROUP_STEPS`] of it, where the program has one row and is quick.
    group: Option<GraphExec>,
    /// Why there is no `exec`.
    fallback: Option<String>,
    resolved: Vec<Resolved>,
    launches: Vec<KernelLaunch>,
    /// What several rows are told, and where; one row shares the chain's.
    host_step: PinnedBuffer,
    _step: DeviceBuffer,
    /// Where what all share is too small: a variant that tuning tries.
    _room: Option<Room>,
    /// The result's rows as the arena has them.
    logits: PinnedBuffer,
    program: Program,
    poison: bool,
    replays: u64,
    eager_steps: u64,
    launch_time: Duration,
    /// What the next step is slept through for.
    nap: Duration,
    pub(super) shared: Arc<Shared>,
}

// SAFETY: the raw pointers in `resolved` lead into boxes that it owns and that never move or change;
// everything else is `Send` by itself.
unsafe impl Send for Recording {}

impl Recording {
    /// Resolves `launches`, which are `program` lowered, against the shared memory, and records them.
    /// With `poison` the arena is filled with NaN before every step.
    pub(super) fn new(
        shared: Arc<Shared>,
        program: Program,
        launches: Vec<KernelLaunch>,
        poison: bool,
    ) -> Result<Self, GpuError> {
        let device = &shared.device;
        let bytes = step_bytes(program.rows);
        let host_step = PinnedBuffer::new(device, bytes)?;
        let step = DeviceBuffer::new(device, bytes)?;
        let logits = PinnedBuffer::new(device, program.result.bytes())?;
        let needed = launch::Shared::of(&launches);
        let own = match shared.room.holds(needed) {
            true => None,
            false => Some(Room::new(device, &shared.stream, needed)?),
        };
        let room = own.as_ref().unwrap_or(&shared.room);
        let buffers = Buffers {
            shared: &shared,
            host_step: host_step.address(),
            step: match program.rows {
                1 => shared.chain.step.address(),
                _ => step.address(),
            },
            tickets: room.tickets.address(),
            sums: room.sums.address(),
            expanded: room.expanded.address(),
        };
        let mut resolved = launches
            .iter()
            .map(|launch| Resolved::new(&program, launch, &buffers))
            .collect::<Result<Vec<_>, _>>()?;
        let mut recorded = instantiate(&shared.stream, &mut resolved, 1);
        // Drivers have learnt to record launches that overlap later than to launch them.
        let overlapped = |resolved: &mut [Resolved]| {
            let changed = resolved
                .iter_mut()
                .filter_map(|r| r.wait_in_turn().then_some(()));
            changed.count() > 0
        };
        if recorded.is_err() && overlapped(&mut resolved) {
            recorded = instantiate(&shared.stream, &mut resolved, 1);
        }
        let (exec, fallback) = match recorded {
            Ok(exec) => (Some(exec), None),
            Err(why) => (None, Some(why)),
        };
        // Without it, as many steps are launched one by one. Poison goes between steps.
        let groups = program.rows == 1 && program.bytes_at(0) <= GROUP_BYTES && !poison;
        let group = match exec.is_some() && groups {
            true => instantiate(&shared.stream, &mut resolved, GROUP_STEPS).ok(),
            false => None,
        };
        Ok(Recording {
            exec,
            group,
            fallback,
            resolved,
            launches,
            host_step,
            _step: step,
            _room: own,
            logits,
            program,
            poison,
            replays: 0,
            eager_steps: 0,
            launch_time: Duration::ZERO,
            nap: Duration::ZERO,
            shared,
        })
    }

    pub fn program(&self) -> &Program {
        &self.program
    }

    /// What is recorded, as data.
    pub fn launches(&self) -> &[KernelLaunch] {
        &self.launches
    }

    /// Nodes of the graph, as the driver counted them; the kernels where there is no graph.
    pub fn nodes(&self) -> usize {
        let exec = self.exec.as_ref();
        exec.map_or(self.launches.len(), GraphExec::node_count)
    }

    /// Steps replayed so far.
    pub fn replays(&self) -> u64 {
        self.replays
    }

    /// Steps run launch by launch so far.
    pub fn eager_steps(&self) -> u64 {
        self.eager_steps
    }

    /// Why there is no graph and replaying runs eagerly; `None` when there is one.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// Time the host spent in launch calls, for all steps so far: one call a replay, one a kernel in
    /// an eager step.
    pub fn launch_time(&self) -> Duration {
        self.launch_time
    }

    /// Has the next step that is waited for be slept through for `nap` before the driver waits for it, which
    /// it does by looking all the time.
    pub fn sleep_through(&mut self, nap: Duration) {
        self.nap = nap;
    }

    /// Writes the step and launches the graph.
    ///
    /// # Panics
    /// When the step has no tokens or more than the program has rows, or runs past the context.
    pub fn replay(&mut self, step: Step<'_>) -> Result<(), GpuError> {
        if self.exec.is_none() {
            return self.run_eagerly(step);
        }
        let start = Instant::now();
        begin(
            &self.shared,
            &self.program,
            &self.host_step,
            self.poison,
            step,
        )?;
        self.launch_time += start.elapsed();
        self.queue(false)?;
        self.finish(step.tokens.len(), start)
    }

    /// Queues the graph, or without one or with `eager` its kernels.
    fn queue(&mut self, eager: bool) -> Result<(), GpuError> {
        let start = Instant::now();
        let stream = &self.shared.stream;
        match &self.exec {
            Some(exec) if !eager => {
                exec.launch(stream)?;
                self.replays += 1;
            }
            _ => {
                for resolved in &mut self.resolved {
                    // SAFETY: the buffers are this recording's or kept alive by it, nobody else uses the
                    // stream, and `begin` checked the step, or the chain keeps it within the context.
                    unsafe { resolved.launch(stream)? };
                }
                self.eager_steps += 1;
            }
        }
        self.launch_time += start.elapsed();
        Ok(())
    }

    /// Queues `steps` steps, each with the token and at the position that the one before it left. Neither
    /// the host's memory nor the graph is touched.
    ///
    /// # Panics
    /// When the program has several rows.
    pub fn advance(&mut self, steps: u32, eager: bool) -> Result<(), GpuError> {
        assert_eq!(self.program.rows, 1, "only single rows follow each other");
        let mut left = steps;
        if let (Some(group), false) = (&self.group, eager) {
            let start = Instant::now();
            while left >= GROUP_STEPS {
                group.launch(&self.shared.stream)?;
                self.replays += u64::from(GROUP_STEPS);
                left -= GROUP_STEPS;
            }
            self.launch_time += start.elapsed();
        }
        for _ in 0..left {
            if self.poison {
                self.shared.stream.fill(&self.shared.arena, POISON)?;
            }
            self.queue(eager)?;
        }
        Ok(())
    }

    /// Whether all that was queued is done. What went wrong on the device is this call's error.
    pub fn is_idle(&self) -> Result<bool, GpuError> {
        Ok(self.shared.stream.is_done()?)
    }

    /// Writes the step and launches the program's kernels one by one.
    ///
    /// # Panics
    /// As [`Recording::replay`].
    pub fn run_eagerly(&mut self, step: Step<'_>) -> Result<(), GpuError> {
        let start = Instant::now();
        begin(
            &self.shared,
            &self.program,
            &self.host_step,
            self.poison,
            step,
        )?;
        self.queue(true)?;
        self.finish(step.tokens.len(), start)
    }

    /// Row `row` of the last step's result: `[V]` logits.
    ///
    /// # Panics
    /// When the result has no such row.
    pub fn result(&self, row: usize) -> &[f32] {
        let slot = &self.program.result;
        let rows = slot.rows as usize;
        assert!(row < rows, "row {row} of a result of {rows} rows");
        let bytes = self
            .logits
            .slice(row * slot.row_bytes(), slot.cols as usize * 4);
        let first = bytes.expect("the buffer has all rows of the result");
        // SAFETY: the row is in the buffer, as just checked, and aligned, since the buffer is to a page
        // and rows are to 64 bytes. The device writes it only in steps, which take `&mut self` and wait.
        unsafe { std::slice::from_raw_parts(first.cast::<f32>(), slot.cols as usize) }
    }

    /// Captures the launches once more, for looking at what the driver makes of them.
    pub fn capture(&mut self) -> Result<Captured, GpuError> {
        Captured::new(&self.shared.stream, &mut self.resolved, &self.launches)
    }

    /// Device time of each launch over one step, the launches queued behind a kernel that keeps the
    /// device busy meanwhile, so that no gap in the queue counts as work.
    pub fn time_launches(&mut self, step: Step<'_>) -> Result<Vec<Duration>, GpuError> {
        begin(
            &self.shared,
            &self.program,
            &self.host_step,
            self.poison,
            step,
        )?;
        let times = super::measure::launches(&self.shared, &mut self.resolved)?;
        self.copy_result(step.tokens.len())?;
        self.shared.stream.synchronize()?;
        Ok(times)
    }

    /// Runs the kernels of the program's `launch` alone, on whatever memory holds (tests).
    ///
    /// # Panics
    /// As [`Recording::replay`].
    pub fn run_launch(&mut self, step: Step<'_>, launch: usize) -> Result<(), GpuError> {
        begin(&self.shared, &self.program, &self.host_step, false, step)?;
        for resolved in &mut self.resolved {
            if resolved.launch.is_none_or(|l| l == launch) {
                // SAFETY: as in `run_eagerly`.
                unsafe { resolved.launch(&self.shared.stream)? };
            }
        }
        self.shared.stream.synchronize()?;
        Ok(())
    }

    /// Copies the result of the last step to the host, where [`Recording::result`] finds it.
    ///
    /// # Panics
    /// When the program has several rows.
    pub fn fetch(&mut self) -> Result<(), GpuError> {
        assert_eq!(
            self.program.rows, 1,
            "only steps of one row are not waited for"
        );
        self.copy_result(1)?;
        Ok(self.shared.stream.synchronize()?)
    }

    /// Waits for the step that began at `start`, and for its result's live rows.
    fn finish(&mut self, live_rows: usize, start: Instant) -> Result<(), GpuError> {
        self.copy_result(live_rows)?;
        let nap = mem::take(&mut self.nap);
        thread::sleep(nap.saturating_sub(start.elapsed()));
        Ok(self.shared.stream.synchronize()?)
    }

    /// Queues the copy of the result's live rows to the host. Who calls this waits for it, before anything
    /// else.
    fn copy_result(&mut self, live_rows: usize) -> Result<(), GpuError> {
        let Slot { offset, rows, .. } = self.program.result;
        let live = live_rows.min(rows as usize);
        let bytes = live * self.program.result.row_bytes();
        let Shared { stream, arena, .. } = &*self.shared;
        // SAFETY: nobody reads or drops the buffer before the synchronisation that every caller goes on to:
        // reading takes `&self`, and dropping waits as well.
        unsafe { stream.copy_to_host_async(arena, offset, &self.logits, 0, bytes)? };
        Ok(())
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // A step that failed midway may have left work that uses the buffers. Its error was reported,
        // and if the device fails again there is nothing left to wait for.
        self.shared.stream.synchronize().ok();
    }
}

/// Checks a step and writes its words; with `poison` fills the arena with NaN.
fn begin(
    shared: &Shared,
    program: &Program,
    host_step: &PinnedBuffer,
    poison: bool,
    step: Step<'_>,
) -> Result<(), GpuError> {
    let (rows, capacity) = (step.tokens.len(), program.rows as usize);
    assert!(
        rows > 0 && rows <= capacity,
        "{rows} tokens for a step of {capacity} rows"
    );
    let end = step.position as usize + rows;
    let context = program.context as usize;
    assert!(end <= context, "position {end} of a cache of {context}");
    if capacity == 1 {
        let Shared { chain, stream, .. } = shared;
        chain.set_step(stream, step.position, step.tokens[0])?;
        if poison {
            stream.fill(&shared.arena, POISON)?;
        }
        return Ok(());
    }
    let head: [u32; STEP_HEAD_WORDS] = [step.position, rows as u32, 0, 0];
    let words = host_step.slice(0, step_bytes(step.tokens.len() as u32))?;
    for (index, &value) in head.iter().chain(step.tokens).enumerate() {
        // SAFETY: the word is in the buffer, as just checked, which is aligned to a page. No kernel
        // reads it now: every step waits for its own, and this is the recording's only reader.
        unsafe { words.cast::<u32>().add(index).write_volatile(value) };
    }
    if poison {
        shared.stream.fill(&shared.arena, POISON)?;
    }
    Ok(())
}
