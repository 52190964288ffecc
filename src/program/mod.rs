//! The program: a flat list of launches, everything resolved but the addresses.
//!
//! [`lower`] turns a verified graph and its proved plan into one [`Launch`] a node: which kernel,
//! over how many independent units of work, on which arena offsets, weights and states, at what
//! cost. It is data that any backend can run, print or price; a backend's recording only turns
//! offsets into addresses. Every argument is frozen here; tokens, position and live rows reach the
//! kernels through the step in memory.

mod cost;
mod lower;
#[cfg(test)]
mod tests;

pub use cost::{Cost, cost};
pub use lower::{ATTENTION_UNIT_QUERIES, GEMM_UNIT_COLS, lower};

use crate::dtype::DType;
use crate::graph::{Element, NodeId, Op, Section, State, StateId, ValueId, WeightId};
use serde::Serialize;
use std::fmt::Write;

/// The kind of machine a program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A team of threads that cut a launch's units into even ranges.
    Cpu,
    /// A GPU whose waves have this many lanes: 64 on CDNA, 32 on RDNA and NVIDIA.
    Gpu { wave: u32 },
}

/// A value's place in the arena, with its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    pub value: ValueId,
    pub offset: usize,
    pub rows: u32,
    pub cols: u32,
    pub element: Element,
}

impl Slot {
    /// Bytes from one row to the next.
    pub fn row_bytes(&self) -> usize {
        self.element.row_bytes(self.cols)
    }

    /// Bytes of all rows.
    pub fn bytes(&self) -> usize {
        self.rows as usize * self.row_bytes()
    }
}

/// One kernel over one node's operands.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    pub node: NodeId,
    pub section: Section,
    /// The kernel's name, with the weight type where it decides the code (`gemm_q4_1`).
    pub kernel: String,
    pub op: Op,
    pub inputs: Vec<Slot>,
    pub weights: Vec<WeightId>,
    pub states: Vec<StateId>,
    pub outputs: Vec<Slot>,
    /// Pieces of work that may run anywhere and in any order at full rows and context.
    pub units: u32,
    pub cost: Cost,
}

/// A weight as the program refers to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightSlot {
    /// The tensor's name in the checkpoint.
    pub name: String,
    pub dtype: DType,
    pub rows: usize,
    pub cols: usize,
}

/// One step of a model for one kind of machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    pub target: Target,
    pub launches: Vec<Launch>,
    pub weights: Vec<WeightSlot>,
    pub states: Vec<State>,
    pub arena_bytes: usize,
    /// Row capacity `R` of a step.
    pub rows: u32,
    /// Positions the caches hold.
    pub context: u32,
    /// The logits.
    pub result: Slot,
}

impl Program {
    /// The cost of a whole step.
    pub fn cost(&self) -> Cost {
        self.launches.iter().map(|l| l.cost).sum()
    }

    /// Bytes a whole step moves when `positions` are in the cache. Summed launch by launch, since
    /// layers may have different windows.
    pub fn bytes_at(&self, positions: u64) -> u64 {
        self.launches
            .iter()
            .map(|l| l.cost.bytes_at(positions))
            .sum()
    }

    /// Operations of a whole step when `positions` are in the cache.
    pub fn flops_at(&self, positions: u64) -> u64 {
        self.launches
            .iter()
            .map(|l| l.cost.flops_at(positions))
            .sum()
    }

    /// Whether its products take rows of 16-bit floats: then attention may round as much.
    pub fn is_half(&self) -> bool {
        let half = |slot: &Slot| slot.element == Element::F16;
        self.launches
            .iter()
            .any(|launch| launch.outputs.iter().any(half))
    }

    /// Bytes of all caches.
    pub fn state_bytes(&self) -> usize {
        self.states.iter().map(|s| s.bytes()).sum()
    }

    /// The launches as text, one a line.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for (index, launch) in self.launches.iter().enumerate() {
            let slots = |slots: &[Slot]| {
                let one = |s: &Slot| {
                    format!(
                        "{}@{}:{}[{}, {}]",
                        s.value, s.offset, s.element, s.rows, s.cols
                    )
                };
                slots.iter().map(one).collect::<Vec<_>>()
            };
            let mut operands = slots(&launch.inputs);
            operands.extend(launch.weights.iter().map(|w| w.to_string()));
            operands.extend(launch.states.iter().map(|s| s.to_string()));
            writeln!(
                out,
                "{index} {} {}: {}({}) -> {} | units {} bytes {} +{}/pos flops {} +{}/pos",
                launch.node,
                launch.section,
                launch.kernel,
                operands.join(" "),
                slots(&launch.outputs).join(" "),
                launch.units,
                launch.cost.bytes_at(0),
                launch.cost.cache_read_bytes_per_position,
                launch.cost.flops,
                launch.cost.flops_per_position,
            )
            .expect("writing to a string");
        }
        let (arena, states) = (self.arena_bytes, self.state_bytes());
        writeln!(out, "arena {arena} bytes, states {states} bytes").expect("writing to a string");
        out
    }
}

/// What differs between two replays, and nothing else does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step<'t> {
    /// Position of the first row in the sequence: how much the cache already holds.
    pub position: u32,
    /// A token for each live row, at most `R`.
    pub tokens: &'t [u32],
}
