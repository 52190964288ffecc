//! The GPU backend: a program becomes kernel launches, and those a graph that the driver replays.
//!
//! ```text
//! Program ─ lower ─→ KernelLaunch… ─ resolve ─→ addresses ─ capture ─→ graph ─→ replay, replay …
//!                    data: name, grid, args      one alloc each         checked node by node
//! ```
//!
//! [`lower()`], [`weights`], [`pack`] and [`mod@repack`] decide, as functions of values that are tested without a
//! device; [`Gpu`] allocates everything once, uploads the weights, whose layout the device itself makes
//! of the file's bytes, and records. The kernels are in `kernels/*.hip`, how they are launched in [`geometry`].
//!
//! Invariants: what a step needs is allocated before anything is captured; only kernels are recorded;
//! a recording's memory, code, stream and device are dropped after it, in this order.

mod arguments;
mod capture;
mod chain;
mod crew;
mod device;
mod error;
mod gemv;
pub mod geometry;
mod half;
pub mod hardware;
mod inspect;
pub mod launch;
pub mod lower;
mod measure;
pub mod memory;
pub mod overlap;
pub mod pack;
mod recorded;
mod recording;
pub mod repack;
mod resolve;
mod tune;
pub mod tuning;
mod upload;
pub mod weights;

pub use capture::Captured;
pub use chain::RING;
pub use device::{Found, devices, select};
pub use error::GpuError;
pub use hardware::Hardware;
pub use launch::{Arg, Form, KernelLaunch, text};
pub use lower::{LowerError, lower};
pub use recorded::GROUP_STEPS;
pub use recording::Recording;

use crate::hip::{Device, DeviceBuffer, DeviceInfo, Module, Stream};
use crate::kernels;
use crate::loader::{Loading, Tensor};
use crate::program::Program;
use crate::sampler::{Rule, SamplerError, Sampling};
use chain::Chain;
use launch::RoomNeeds;
use memory::Needs;
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tuning::Tuning;
use weights::WeightLayout;

/// What the recordings of one model share. Fields are dropped in order: code and memory before the
/// stream and the device.
struct Shared {
    module: Module,
    layout: WeightLayout,
    weights: DeviceBuffer,
    arena: DeviceBuffer,
    /// The caches, one after the other.
    states: DeviceBuffer,
    state_offsets: Vec<usize>,
    /// [`Arg::Tickets`], [`Arg::Sums`] and [`Arg::Expanded`]. The recordings of a model never run at the
    /// same time, so one set serves all.
    room: Room,
    chain: Chain,
    /// Whose turn it is has it alone: what is put on it while another captures would be recorded.
    stream: Mutex<Stream>,
    hardware: Hardware,
    /// Whether launches that can begin before their predecessors have finished are to.
    overlap: bool,
    info: DeviceInfo,
    description: String,
    device: Device,
}

impl Shared {
    /// The stream, for as long as the guard lives. A panic leaves nothing half done on it: captures end.
    fn stream(&self) -> MutexGuard<'_, Stream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What launches use of what all share, as [`RoomNeeds`] sizes it.
struct Room {
    tickets: DeviceBuffer,
    sums: DeviceBuffer,
    expanded: DeviceBuffer,
}

impl Room {
    fn new(device: &Device, stream: &Stream, needs: RoomNeeds) -> Result<Self, GpuError> {
        let tickets = DeviceBuffer::new(device, 4 * needs.tickets.max(1))?;
        stream.fill(&tickets, 0)?;
        let sums = DeviceBuffer::new(device, needs.sums_bytes.max(1))?;
        let expanded = DeviceBuffer::new(device, needs.expanded_bytes.max(1))?;
        Ok(Room {
            tickets,
            sums,
            expanded,
        })
    }

    /// Whether it does for these.
    fn holds(&self, needs: RoomNeeds) -> bool {
        4 * needs.tickets <= self.tickets.bytes()
            && needs.sums_bytes <= self.sums.bytes()
            && needs.expanded_bytes <= self.expanded.bytes()
    }
}

/// A model's memory on a GPU. One thread at a time has it, since the host's words in the ring are written through it.
pub struct Gpu {
    poison: bool,
    loading: Loading,
    shared: Arc<Shared>,
    /// `Send`, but not `Sync`.
    _one_thread: PhantomData<Cell<()>>,
}

/// How a [`Gpu`] is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Threads that read weights.
    pub threads: usize,
    /// Fill the arena with NaN before every step.
    pub poison: bool,
    /// Let launches begin before their predecessors have finished, where the device can.
    pub overlap: bool,
}

impl Gpu {
    /// Allocates everything for `programs`, which are programs of one model over the same caches, and
    /// uploads the weights. `progress(done, total)` counts bytes of the file.
    pub fn new(
        found: &Found,
        setup: Setup,
        programs: &[&Program],
        fetch: &dyn Fn(&str) -> Option<Tensor>,
        progress: &dyn Fn(u64, u64),
    ) -> Result<Self, GpuError> {
        let states = programs.first().map_or(&[][..], |p| &p.states);
        assert!(
            programs.iter().all(|p| p.states == states),
            "programs of different caches"
        );
        let hardware = Hardware::of(&found.info)?;
        let lowered = programs
            .iter()
            .map(|p| lower(p, &hardware))
            .collect::<Result<Vec<_>, _>>()?;
        let pairs = programs.iter().zip(&lowered);
        let pairs: Vec<_> = pairs.map(|(p, l)| (*p, l.as_slice())).collect();
        let layout = WeightLayout::new(&pairs);
        let wave = hardware.machine.wave();
        let room_needs = RoomNeeds::of(lowered.iter().flatten());
        let needs = Needs::of(programs, &layout, room_needs, wave);

        let image = found.code_object()?;
        let device = Device::open(&found.hip, found.info.index)?;
        let (free, total) = device.memory()?;
        needs.check(&found.describe(), free as usize, total as usize)?;
        // SAFETY: the image is what the compiler wrote when this program was built.
        let module = unsafe { Module::load(&device, image)? };
        let stream = Stream::new(&device)?;
        let buffer = |bytes: usize| DeviceBuffer::new(&device, bytes.max(1));
        let (context, vocabulary) = memory::chained(programs);
        let chain = Chain::new(&device, &module, context, vocabulary, wave)?;
        chain.set_rule(&stream, &Rule::new(&Sampling::greedy()))?;
        let weights = buffer(needs.weights)?;
        let arena = buffer(needs.arena)?;
        let states = buffer(needs.states)?;
        let state_offsets = programs
            .first()
            .map_or(Vec::new(), |p| memory::state_offsets(p).0);
        let overlap = setup.overlap && kernels::overlaps(&found.info.arch) && stream.overlaps();
        let room = Room::new(&device, &stream, room_needs)?;
        let begin = Instant::now();
        let file_bytes = upload::upload(
            &module,
            &stream,
            &layout,
            &weights,
            setup.threads,
            fetch,
            progress,
        )?;
        let loading = Loading {
            file_bytes,
            time: begin.elapsed(),
        };
        let shared = Shared {
            module,
            layout,
            weights,
            arena,
            states,
            state_offsets,
            room,
            chain,
            stream: Mutex::new(stream),
            hardware,
            overlap,
            info: found.info.clone(),
            description: found.describe(),
            device,
        };
        Ok(Gpu {
            poison: setup.poison,
            loading,
            shared: Arc::new(shared),
            _one_thread: PhantomData,
        })
    }

    /// Records one of the programs that [`Gpu::new`] allocated for.
    pub fn record(&self, program: Program) -> Result<Recording, GpuError> {
        let launches = lower(&program, &self.shared.hardware)?;
        Recording::new(Arc::clone(&self.shared), program, launches, self.poison)
    }

    /// The same, laid out by another table than the device's.
    pub fn record_tuned(&self, program: Program, tuning: Tuning) -> Result<Recording, GpuError> {
        let hardware = Hardware {
            tuning,
            ..self.shared.hardware.clone()
        };
        let launches = lower(&program, &hardware)?;
        Recording::new(Arc::clone(&self.shared), program, launches, self.poison)
    }

    /// How the steps that are queued from now on choose tokens.
    pub fn set_rule(&self, rule: &Rule) -> Result<(), GpuError> {
        let stream = self.shared.stream();
        Ok(self.shared.chain.set_rule(&stream, rule)?)
    }

    /// Has slots for what steps that are not queued yet will choose for these positions.
    pub fn expect(&self, positions: Range<u32>) -> Result<(), GpuError> {
        self.shared.chain.expect(positions)
    }

    /// Whether the step that chooses for `position` has done so, since it was expected.
    pub fn told(&self, position: u32) -> Result<bool, GpuError> {
        self.shared.chain.told(position)
    }

    /// The token that a step which is done chose for `position`.
    pub fn chosen(&self, position: u32) -> Result<Result<u32, SamplerError>, GpuError> {
        self.shared.chain.chosen(position)
    }

    /// `hip:0 (NVIDIA H100 80GB HBM3, sm_90)`
    pub fn describe(&self) -> &str {
        &self.shared.description
    }

    /// Bytes of weights on the device.
    pub fn weight_bytes(&self) -> u64 {
        self.shared.layout.bytes as u64
    }

    /// What the weights were made of, and how long that took.
    pub fn loading(&self) -> Loading {
        self.loading
    }

    /// Bytes of the device's memory that are free and that there are.
    pub fn memory(&self) -> Result<(u64, u64), GpuError> {
        Ok(self.shared.device.memory()?)
    }

    /// Bytes a second that the device reads from its memory, measured now.
    pub fn stream_bytes_per_second(&self) -> Result<f64, GpuError> {
        measure::stream_bytes_per_second(&self.shared)
    }

    /// Bytes a second that are copied from pinned memory to the device, measured now.
    pub fn copy_bytes_per_second(&self) -> Result<f64, GpuError> {
        measure::copy_bytes_per_second(&self.shared)
    }
}
