//! Kernel launches as data.

use super::tuning::{Class, GemmKey, Kind};
use crate::dtype::DType;
use crate::graph::{Heads, StateId, ValueId, WeightId};
use crate::program::{Launch, Slot};
use std::fmt::{self, Write};

/// How a kernel reads a weight; each form is its own memory on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Form {
    /// Rows in planes ([`super::pack`]).
    Matrix,
    /// Rows as the file has them, for looking tokens up.
    Table,
    /// f32.
    Vector,
}

/// A part of what outlives a step and is neither weight nor cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// The step of recordings of one row, which the next one runs.
    Next,
    /// The token at each position.
    History,
    /// How tokens are chosen.
    Rule,
    /// Room for the penalised logits.
    Scores,
    /// Room for what each wave found.
    Firsts,
    /// Where the host finds the chosen tokens, in pinned host memory.
    Ring,
}

/// One argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// An address in the arena.
    Value {
        id: ValueId,
        offset: usize,
    },
    /// The first byte of a weight.
    Weight {
        id: WeightId,
        form: Form,
    },
    /// The first byte of a cache.
    State(StateId),
    /// The step on the device.
    Step,
    /// The step in pinned host memory, as the device addresses it.
    HostStep,
    /// Counters, all 0 between launches: for each K/V head, or each tile whose K blocks share.
    Tickets,
    /// Room for the sums that blocks which share a tile's K leave each other.
    Sums,
    /// Room for weights that are brought to f16, from a byte on.
    Expanded(usize),
    /// What links a step to the next.
    Link(Link),
    /// An operand that is not there.
    Null,
    U32(u32),
    F32(f32),
    F64(f64),
}

/// What the tuning table looked a layout up by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tuned {
    Gemv(Kind, DType, Class),
    Gemm(GemmKey),
}

/// What a launch uses of the room that all launches share, and leaves as it found it or to nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoomNeeds {
    /// [`Arg::Tickets`].
    pub tickets: usize,
    /// Bytes of [`Arg::Sums`].
    pub sums_bytes: usize,
    /// Bytes of [`Arg::Expanded`].
    pub expanded_bytes: usize,
}

impl RoomNeeds {
    /// What does for all of them.
    pub fn of<'l>(launches: impl IntoIterator<Item = &'l KernelLaunch>) -> Self {
        let launches = launches.into_iter();
        launches.fold(RoomNeeds::default(), |most, launch| RoomNeeds {
            tickets: most.tickets.max(launch.room.tickets),
            sums_bytes: most.sums_bytes.max(launch.room.sums_bytes),
            expanded_bytes: most.expanded_bytes.max(launch.room.expanded_bytes),
        })
    }
}

/// One kernel with everything but addresses.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelLaunch {
    pub kernel: String,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub lds_bytes: u32,
    /// Whether it may begin before its predecessors have finished, where the device can: the kernel
    /// waits for them itself.
    pub overlaps: bool,
    /// Where the tuning table has a say.
    pub tuned: Option<Tuned>,
    pub room: RoomNeeds,
    pub args: Vec<Arg>,
    /// The program's launch that this is a part of; `None` for the step's own copy.
    pub launch: Option<usize>,
}

impl fmt::Display for Arg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Arg::Value { id, offset } => write!(f, "{id}@{offset}"),
            Arg::Weight {
                id,
                form: Form::Matrix,
            } => write!(f, "{id}"),
            Arg::Weight {
                id,
                form: Form::Table,
            } => write!(f, "{id}.table"),
            Arg::Weight {
                id,
                form: Form::Vector,
            } => write!(f, "{id}.vector"),
            Arg::State(id) => write!(f, "{id}"),
            Arg::Step => f.write_str("step"),
            Arg::HostStep => f.write_str("host_step"),
            Arg::Tickets => f.write_str("tickets"),
            Arg::Sums => f.write_str("sums"),
            Arg::Expanded(offset) => write!(f, "expanded@{offset}"),
            Arg::Link(Link::Next) => f.write_str("next"),
            Arg::Link(Link::History) => f.write_str("history"),
            Arg::Link(Link::Rule) => f.write_str("rule"),
            Arg::Link(Link::Scores) => f.write_str("scores"),
            Arg::Link(Link::Firsts) => f.write_str("firsts"),
            Arg::Link(Link::Ring) => f.write_str("ring"),
            Arg::Null => f.write_str("null"),
            Arg::U32(n) => write!(f, "{n}"),
            Arg::F32(x) => write!(f, "{x:?}f"),
            Arg::F64(x) => write!(f, "{x:?}"),
        }
    }
}

/// The launches as text, one a line.
pub fn text(launches: &[KernelLaunch]) -> String {
    let mut out = String::new();
    for (index, launch) in launches.iter().enumerate() {
        let dims = |d: [u32; 3]| d.map(|n| n.to_string()).join("×");
        let of = launch.launch.map_or("-".into(), |l| l.to_string());
        let args: Vec<String> = launch.args.iter().map(Arg::to_string).collect();
        writeln!(
            out,
            "{index} ({of}) {}<<<{}, {}, {}>>>({})",
            launch.kernel,
            dims(launch.grid),
            dims(launch.block),
            launch.lds_bytes,
            args.join(", "),
        )
        .expect("writing to a string");
    }
    out
}

/// Arguments in the order of the kernel's parameters; the step comes first in all of these.
pub(super) struct Args(pub Vec<Arg>);

impl Args {
    pub fn new() -> Self {
        Args(vec![Arg::Step])
    }

    fn push(&mut self, arg: Arg) -> &mut Self {
        self.0.push(arg);
        self
    }

    pub fn value(&mut self, slot: Slot) -> &mut Self {
        let Slot {
            value: id, offset, ..
        } = slot;
        self.push(Arg::Value { id, offset })
    }

    /// A value and the bytes from one of its rows to the next.
    pub fn rows(&mut self, slot: Slot) -> &mut Self {
        self.value(slot).size(slot.row_bytes())
    }

    pub fn weight(&mut self, id: WeightId, form: Form) -> &mut Self {
        self.push(Arg::Weight { id, form })
    }

    pub fn matrix(&mut self, id: WeightId, stride: u32) -> &mut Self {
        self.weight(id, Form::Matrix).u32(stride)
    }

    /// A norm's weight and eps, or none.
    pub fn norm(&mut self, norm: Option<(WeightId, f32)>) -> &mut Self {
        match norm {
            Some((weight, eps)) => self.weight(weight, Form::Vector).f32(eps),
            None => self.null().f32(0.0),
        }
    }

    /// A layer's keys and values.
    pub fn caches(&mut self, launch: &Launch) -> &mut Self {
        self.push(Arg::State(launch.states[0]))
            .push(Arg::State(launch.states[1]))
    }

    /// `H`, `G` and `D`.
    pub fn heads(&mut self, heads: Heads) -> &mut Self {
        self.u32(heads.query).u32(heads.kv).u32(heads.size)
    }

    pub fn tickets(&mut self) -> &mut Self {
        self.push(Arg::Tickets)
    }

    pub fn sums(&mut self) -> &mut Self {
        self.push(Arg::Sums)
    }

    pub fn expanded(&mut self, offset: usize) -> &mut Self {
        self.push(Arg::Expanded(offset))
    }

    pub fn link(&mut self, link: Link) -> &mut Self {
        self.push(Arg::Link(link))
    }

    pub fn null(&mut self) -> &mut Self {
        self.push(Arg::Null)
    }

    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.push(Arg::U32(value))
    }

    pub fn size(&mut self, value: usize) -> &mut Self {
        self.u32(size(value))
    }

    pub fn f32(&mut self, value: f32) -> &mut Self {
        self.push(Arg::F32(value))
    }

    pub fn f64(&mut self, value: f32) -> &mut Self {
        self.push(Arg::F64(value.into()))
    }
}

pub(super) fn size(value: usize) -> u32 {
    u32::try_from(value).expect("rows and dimensions are far below 4 GiB")
}
