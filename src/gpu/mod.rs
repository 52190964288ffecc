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

mod capture;
mod chain;
mod crew;
mod device;
mod error;
mod gemv;
pub mod geometry;
mod half;
pub mod hardware;
pub mod launch;
pub mod lower;
mod measure;
pub mod memory;
pub mod overlap;
pub mod pack;
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
pub use recording::{GROUP_STEPS, Recording};

use crate::hip::{Device, DeviceBuffer, DeviceInfo, Module, Stream};
use crate::kernels;
use crate::loader::{Loading, Tensor};
use crate::program::Program;
use crate::sampler::{Rule, SamplerError, Sampling};
use chain::Chain;
use memory::Needs;
use std::ops::Range;
use std::sync::Arc;
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
    stream: Stream,
    hardware: Hardware,
    /// Whether launches that can begin before their predecessors have finished do.
    overlap: bool,
    info: DeviceInfo,
    description: String,
    device: Device,
}

/// What launches use of what all share.
struct Room {
    tickets: DeviceBuffer,
    sums: DeviceBuffer,
    expanded: DeviceBuffer,
}

impl Room {
    fn new(device: &Device, stream: &Stream, shared: launch::Shared) -> Result<Self, GpuError> {
        let tickets = DeviceBuffer::new(device, 4 * shared.tickets.max(1))?;
        stream.fill(&tickets, 0)?;
        let sums = DeviceBuffer::new(device, shared.sums_bytes.max(1))?;
        let expanded = DeviceBuffer::new(device, shared.expanded_bytes.max(1))?;
        Ok(Room {
            tickets,
            sums,
            expanded,
        })
    }

    /// Whether it does for these.
    fn holds(&self, shared: launch::Shared) -> bool {
        4 * shared.tickets <= self.tickets.bytes()
            && shared.sums_bytes <= self.sums.bytes()
            && shared.expanded_bytes <= self.expanded.bytes()
    }
}

/// A model's memory on a GPU.
pub struct Gpu {
    poison: bool,
    loading: Loading,
    shared: Arc<Shared>,
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
        let shared = launch::Shared::of(lowered.iter().flatten());
        let needs = Needs::of(programs, &layout, shared, wave);

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
        let room = Room::new(&device, &stream, shared)?;
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
            stream,
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
        let Shared { chain, stream, .. } = &*self.shared;
        Ok(chain.set_rule(stream, rule)?)
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

    /// Whether launches begin before their predecessors have finished.
    pub fn overlaps(&self) -> bool {
        self.shared.overlap
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

/// Looking into the device's memory, for tests: each call copies everything and waits.
impl Gpu {
    /// The arena.
    pub fn read_arena(&self) -> Result<Vec<u8>, GpuError> {
        self.read(&self.shared.arena)
    }

    /// Where each weight lies.
    pub fn weight_layout(&self) -> &WeightLayout {
        &self.shared.layout
    }

    /// All weights.
    pub fn read_weights(&self) -> Result<Vec<u8>, GpuError> {
        self.read(&self.shared.weights)
    }

    /// Replaces the start of the arena.
    pub fn write_arena(&self, bytes: &[u8]) -> Result<(), GpuError> {
        self.write(&self.shared.arena, 0, bytes)
    }

    /// The cache with this number.
    pub fn read_state(&self, program: &Program, index: usize) -> Result<Vec<u8>, GpuError> {
        let all = self.read(&self.shared.states)?;
        let offset = self.shared.state_offsets[index];
        Ok(all[offset..offset + program.states[index].bytes()].to_vec())
    }

    /// Replaces the cache with this number.
    pub fn write_state(&self, index: usize, bytes: &[u8]) -> Result<(), GpuError> {
        self.write(&self.shared.states, self.shared.state_offsets[index], bytes)
    }

    fn read(&self, from: &DeviceBuffer) -> Result<Vec<u8>, GpuError> {
        let mut bytes = vec![0; from.bytes()];
        self.shared.stream.copy_to_host(from, 0, &mut bytes)?;
        Ok(bytes)
    }

    fn write(&self, to: &DeviceBuffer, offset: usize, bytes: &[u8]) -> Result<(), GpuError> {
        Ok(self.shared.stream.copy_to_device(to, offset, bytes)?)
    }
}
