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

use super::capture::Captured;
use super::launch::{KernelLaunch, RoomNeeds};
use super::memory::{STEP_HEAD_WORDS, step_bytes};
use super::recorded::Recorded;
use super::resolve::{Buffers, Resolved};
use super::{GpuError, Room, Shared};
use crate::hip::{DeviceBuffer, PinnedBuffer, Stream};
use crate::program::{Program, Slot, Step};
use std::mem;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Every byte of poison: NaN as f32 and as f16.
pub(super) const POISON: u8 = 0xff;

/// Bytes that a step moves at most where it is: longer steps are never launched so many at a time
/// ([`Decode`](crate::runtime::Decode)), and recording them would take loading a model 50 ms for nothing.
const GROUP_BYTES: u64 = 1 << 30;

/// A recorded program and everything it points at. Fields are dropped in order: the graphs before
/// the memory and the code that their kernels name.
pub struct Recording {
    pub(super) recorded: Recorded,
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
    /// What the next step is slept through for.
    nap: Duration,
    pub(super) shared: Arc<Shared>,
}

impl Recording {
    /// Resolves `launches`, which are `program` lowered, against the shared memory, and records them.
    /// With `poison` the arena is filled with NaN before every step.
    ///
    /// # Panics
    /// When the shared arena is smaller than the program's.
    pub(super) fn new(
        shared: Arc<Shared>,
        program: Program,
        launches: Vec<KernelLaunch>,
        poison: bool,
    ) -> Result<Self, GpuError> {
        let (needed, found) = (program.arena_bytes, shared.arena.bytes());
        assert!(
            needed <= found,
            "an arena of {found} bytes for a program of {needed}"
        );
        let device = &shared.device;
        let bytes = step_bytes(program.rows);
        let host_step = PinnedBuffer::new(device, bytes)?;
        let step = DeviceBuffer::new(device, bytes)?;
        let logits = PinnedBuffer::new(device, program.result.bytes())?;
        let stream = shared.stream();
        let needed = RoomNeeds::of(&launches);
        let own = match shared.room.holds(needed) {
            true => None,
            false => Some(Room::new(device, &stream, needed)?),
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
        let resolved = launches
            .iter()
            .map(|launch| Resolved::new(&program, launch, &buffers))
            .collect::<Result<Vec<_>, _>>()?;
        // Without groups, as many steps are launched one by one. Poison goes between steps.
        let groups = program.rows == 1 && program.bytes_at(0) <= GROUP_BYTES && !poison;
        let recorded = Recorded::new(&stream, resolved, groups);
        drop(stream);
        Ok(Recording {
            recorded,
            launches,
            host_step,
            _step: step,
            _room: own,
            logits,
            program,
            poison,
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
        self.recorded.nodes()
    }

    /// Steps replayed so far.
    pub fn replays(&self) -> u64 {
        self.recorded.replays
    }

    /// Steps run launch by launch so far.
    pub fn eager_steps(&self) -> u64 {
        self.recorded.eager_steps
    }

    /// Why there is no graph and replaying runs eagerly; `None` when there is one.
    pub fn fallback(&self) -> Option<&str> {
        self.recorded.fallback()
    }

    /// What the driver could not do and why, where steps take longer for it. The bits are the same.
    pub fn shortfalls(&self) -> &[String] {
        self.recorded.shortfalls()
    }

    /// Whether launches begin before their predecessors have finished.
    pub fn overlaps(&self) -> bool {
        self.recorded.overlaps()
    }

    /// Time the host spent in launch calls, for all steps so far: one call a replay, one a kernel in
    /// an eager step.
    pub fn launch_time(&self) -> Duration {
        self.recorded.launch_time
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
        let eager = self.fallback().is_some();
        self.run(step, eager)
    }

    /// Writes the step and launches the program's kernels one by one.
    ///
    /// # Panics
    /// As [`Recording::replay`].
    pub fn run_eagerly(&mut self, step: Step<'_>) -> Result<(), GpuError> {
        self.run(step, true)
    }

    /// Runs a step and waits for it, and for its result's live rows.
    fn run(&mut self, step: Step<'_>, eager: bool) -> Result<(), GpuError> {
        let start = Instant::now();
        let nap = mem::take(&mut self.nap);
        let stream = self.shared.stream();
        self.begin(&stream, step, self.poison)?;
        if !eager {
            self.recorded.launch_time += start.elapsed();
        }
        // SAFETY: the buffers are this recording's or kept alive by it, the stream is ours for as long as the
        // guard lives, and `begin` checked the step.
        unsafe { self.recorded.step(&stream, eager)? };
        self.copy_result(&stream, step.tokens.len())?;
        thread::sleep(nap.saturating_sub(start.elapsed()));
        Ok(stream.synchronize()?)
    }

    /// Queues `steps` steps, each with the token and at the position that the one before it left. Neither
    /// the host's memory nor the graph is touched.
    ///
    /// # Panics
    /// When the program has several rows.
    pub fn advance(&mut self, steps: u32, eager: bool) -> Result<(), GpuError> {
        assert_eq!(self.program.rows, 1, "only single rows follow each other");
        let stream = self.shared.stream();
        let left = match eager {
            true => steps,
            // SAFETY: as in `run`, but that the chain keeps each step within the context; dropping waits.
            false => unsafe { self.recorded.groups(&stream, steps)? },
        };
        for _ in 0..left {
            if self.poison {
                stream.fill(&self.shared.arena, POISON)?;
            }
            // SAFETY: as above.
            unsafe { self.recorded.step(&stream, eager)? };
        }
        Ok(())
    }

    /// Whether all that was queued is done. What went wrong on the device is this call's error.
    pub fn is_idle(&self) -> Result<bool, GpuError> {
        Ok(self.shared.stream().is_done()?)
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
        let stream = self.shared.stream();
        Captured::new(&stream, &mut self.recorded.resolved, &self.launches)
    }

    /// Device time of each launch over one step, the launches queued behind a kernel that keeps the
    /// device busy meanwhile, so that no gap in the queue counts as work.
    pub fn time_launches(&mut self, step: Step<'_>) -> Result<Vec<Duration>, GpuError> {
        let stream = self.shared.stream();
        self.begin(&stream, step, self.poison)?;
        let resolved = &mut self.recorded.resolved;
        let times = super::measure::launches(&self.shared, &stream, resolved)?;
        self.copy_result(&stream, step.tokens.len())?;
        stream.synchronize()?;
        Ok(times)
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
        let stream = self.shared.stream();
        self.copy_result(&stream, 1)?;
        Ok(stream.synchronize()?)
    }

    /// Queues the copy of the result's live rows to the host. Who calls this waits for it, before anything
    /// else, and is the only one who has the recording.
    fn copy_result(&self, stream: &Stream, live_rows: usize) -> Result<(), GpuError> {
        let Slot { offset, rows, .. } = self.program.result;
        let live = live_rows.min(rows as usize);
        let bytes = live * self.program.result.row_bytes();
        let (from, to) = (&self.shared.arena, &self.logits);
        // SAFETY: nobody reads or drops the buffer before the synchronisation that every caller goes on to:
        // each has it by `&mut self`, and dropping waits as well.
        unsafe { stream.copy_to_host_async(from, offset, to, 0, bytes)? };
        Ok(())
    }

    /// Checks a step and writes its words; with `poison` fills the arena with NaN.
    pub(super) fn begin(
        &self,
        stream: &Stream,
        step: Step<'_>,
        poison: bool,
    ) -> Result<(), GpuError> {
        let (rows, capacity) = (step.tokens.len(), self.program.rows as usize);
        assert!(
            rows > 0 && rows <= capacity,
            "{rows} tokens for a step of {capacity} rows"
        );
        let end = step.position as usize + rows;
        let context = self.program.context as usize;
        assert!(end <= context, "position {end} of a cache of {context}");
        if capacity == 1 {
            let chain = &self.shared.chain;
            chain.set_step(stream, step.position, step.tokens[0])?;
        } else {
            self.write_step(step)?;
        }
        if poison {
            stream.fill(&self.shared.arena, POISON)?;
        }
        Ok(())
    }

    /// Writes the words of a step of several rows.
    fn write_step(&self, step: Step<'_>) -> Result<(), GpuError> {
        let rows = step.tokens.len() as u32;
        let head: [u32; STEP_HEAD_WORDS] = [step.position, rows, 0, 0];
        let words = self.host_step.slice(0, step_bytes(rows))?;
        for (index, &value) in head.iter().chain(step.tokens).enumerate() {
            // SAFETY: the word is in the buffer, as just checked, which is aligned to a page. No kernel
            // reads it now: every step waits for its own, and this is the recording's only reader.
            unsafe { words.cast::<u32>().add(index).write_volatile(value) };
        }
        Ok(())
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // A step that failed midway may have left work that uses the buffers. Its error was reported,
        // and if the device fails again there is nothing left to wait for.
        self.shared.stream().synchronize().ok();
    }
}
