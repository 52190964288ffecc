//! Kernel launches → addresses.

use super::arguments::{ARGUMENTS_MOST, Follows, launch_values};
use super::geometry::Geometry;
use super::launch::{Arg, KernelLaunch, Link};
use super::{GpuError, Shared};
use crate::hip::{Function, HipError, Stream};
use crate::program::Program;

/// What addresses are made of.
pub struct Buffers<'b> {
    pub shared: &'b Shared,
    /// The step in pinned memory, as the device addresses it.
    pub host_step: u64,
    /// The step on the device.
    pub step: u64,
    /// [`Arg::Tickets`], [`Arg::Sums`] and [`Arg::Expanded`].
    pub tickets: u64,
    pub sums: u64,
    pub expanded: u64,
}

/// A kernel with its addresses.
pub struct Resolved {
    function: Function,
    geometry: Geometry,
    follows: Follows,
    /// A value an argument, in its first bytes.
    values: Box<[u64]>,
    /// The program's launch that this is a part of.
    pub launch: Option<usize>,
}

impl Resolved {
    /// # Panics
    /// When a value begins outside the arena, or a weight was not laid out.
    pub fn new(
        program: &Program,
        launch: &KernelLaunch,
        buffers: &Buffers<'_>,
    ) -> Result<Self, GpuError> {
        let function = buffers.shared.module.function(&launch.kernel)?;
        function.allow_lds(launch.lds_bytes)?;
        let follows = match launch.overlaps && buffers.shared.overlap {
            true => Follows::Overlapping,
            false => Follows::InTurn,
        };
        if follows == Follows::Overlapping {
            function.prefer_lds()?;
        }
        let (found, kernel) = (launch.args.len(), &launch.kernel);
        assert!(found <= ARGUMENTS_MOST, "{kernel}: {found} arguments");
        Ok(Resolved {
            function,
            geometry: Geometry {
                grid: launch.grid,
                block: launch.block,
                lds_bytes: launch.lds_bytes,
            },
            follows,
            values: launch
                .args
                .iter()
                .map(|arg| buffers.value(program, arg))
                .collect(),
            launch: launch.launch,
        })
    }

    /// Whether it may begin before what is before it has finished.
    pub fn overlaps(&self) -> bool {
        self.follows == Follows::Overlapping
    }

    /// Has it begin after everything before it has finished from now on.
    pub fn wait_in_turn(&mut self) {
        self.follows = Follows::InTurn;
    }

    /// Queues the kernel on `stream`, or adds it to what the stream captures.
    ///
    /// # Safety
    /// The buffers this was resolved against live until the kernel has run, and nobody else
    /// touches what it writes.
    pub unsafe fn launch(&mut self, stream: &Stream) -> Result<(), HipError> {
        // SAFETY: the caller's promise.
        unsafe { self.launch_as(self.follows, stream) }
    }

    /// As [`Resolved::launch`], without overlap: where a launch is timed, or what is before it is no launch of its
    /// step, it has to begin at its own time.
    ///
    /// # Safety
    /// As [`Resolved::launch`].
    pub unsafe fn launch_alone(&mut self, stream: &Stream) -> Result<(), HipError> {
        // SAFETY: the caller's promise.
        unsafe { self.launch_as(Follows::InTurn, stream) }
    }

    /// # Safety
    /// As [`Resolved::launch`].
    unsafe fn launch_as(&mut self, follows: Follows, stream: &Stream) -> Result<(), HipError> {
        let Resolved {
            function,
            geometry,
            values,
            ..
        } = self;
        // SAFETY: the arguments are those that the kernel declares (golden files and the device tests
        // compare them); the memory they name lives by the caller's promise. A kernel that overlaps waits for
        // its predecessors itself (`overlap`).
        unsafe { launch_values(stream, function, *geometry, follows, values) }
    }
}

impl Buffers<'_> {
    /// An argument's bits. A kernel reads as many of the bytes as its parameter has, and both sides
    /// are little-endian.
    fn value(&self, program: &Program, arg: &Arg) -> u64 {
        let shared = self.shared;
        match *arg {
            Arg::Value { id, offset } => {
                assert!(offset < shared.arena.bytes(), "{id} outside the arena");
                shared.arena.address() + offset as u64
            }
            Arg::Weight { id, form } => {
                shared.weights.address() + shared.layout.offset(program, id, form) as u64
            }
            Arg::State(id) => shared.states.address() + shared.state_offsets[id.index()] as u64,
            Arg::Step => self.step,
            Arg::HostStep => self.host_step,
            Arg::Tickets => self.tickets,
            Arg::Sums => self.sums,
            Arg::Expanded(offset) => self.expanded + offset as u64,
            Arg::Link(link) => {
                let chain = &shared.chain;
                match link {
                    Link::Next => chain.step.address(),
                    Link::History => chain.history.address(),
                    Link::Rule => chain.rule.address(),
                    Link::Scores => chain.scores.address(),
                    Link::Firsts => chain.firsts.address(),
                    Link::Ring => chain.ring.address(),
                }
            }
            Arg::Null => 0,
            Arg::U32(n) => n.into(),
            Arg::F32(x) => x.to_bits().into(),
            Arg::F64(x) => x.to_bits(),
        }
    }
}
