//! Launch → task: kernels by instruction set and type, addresses by offset.

use super::fused::{AttentionStep, Normed};
use super::isa::Isa;
use super::kv::CacheShape;
use super::product::Product;
use super::sample::Chain;
use super::task::attention::{
    Attention, AttentionCombine, AttentionSplit, KvAppend, Rope, RopeAppend, Turn,
};
use super::task::rows::{
    Add, AddBias, Embed, GatedMul, LastRow, Quantize, RmsNorm, RopeTable, Sample, Scale,
};
use super::task::{Caches, Rows, StepMemory, Task};
use super::weights::{Matrix, Table};
use super::{CpuError, Shared, half_rows};
use crate::graph::{Element, Op, RopeStyle};
use crate::program::{Launch, Program, Slot};
use std::sync::Arc;

/// A launch, and what its task is made of.
pub struct Resolver<'r> {
    pub program: &'r Program,
    pub launch: &'r Launch,
    shared: &'r Shared,
    step: &'r Arc<StepMemory>,
    /// Where the output goes in place of its slot.
    elsewhere: Option<Rows>,
}

impl<'r> Resolver<'r> {
    pub fn new(
        program: &'r Program,
        launch: &'r Launch,
        shared: &'r Shared,
        step: &'r Arc<StepMemory>,
    ) -> Self {
        Resolver {
            program,
            launch,
            shared,
            step,
            elsewhere: None,
        }
    }

    /// The same for another launch, whose output goes to `rows`.
    pub fn with_output<'a>(&self, launch: &'a Launch, rows: Rows) -> Resolver<'a>
    where
        'r: 'a,
    {
        Resolver {
            launch,
            elsewhere: Some(rows),
            ..*self
        }
    }

    /// Chooses kernels and addresses.
    pub fn task(&self) -> Result<Box<dyn Task>, CpuError> {
        // Rows of 16-bit floats are a GPU's: here they are made of, and made into, what this backend has.
        let half = |slot: Option<&Slot>| slot.is_some_and(|s| s.element == Element::F16);
        if half(self.launch.outputs.first()) || half(self.launch.inputs.first()) {
            half_rows::resolve(self)
        } else {
            self.plain()
        }
    }

    /// The same for launches without rows of 16-bit floats.
    pub fn plain(&self) -> Result<Box<dyn Task>, CpuError> {
        let at = self;
        Ok(match self.launch.op {
            Op::Embed { scale } => Box::new(Embed::resolve(at, scale)),
            Op::RopeTable(rope) => Box::new(RopeTable::resolve(at, rope)),
            Op::RmsNorm { eps, groups } => Box::new(RmsNorm::resolve(at, eps, groups)),
            Op::Gemm { .. } | Op::GatedGemm(_) => Box::new(Product::resolve(at)?),
            Op::NormGemm { eps } | Op::NormGatedGemm { eps, .. } => {
                Box::new(Normed::resolve(at, eps)?)
            }
            Op::AddBias => Box::new(AddBias::resolve(at)),
            Op::Rope {
                heads,
                head_size,
                dims,
                style,
            } => Box::new(Rope::resolve(at, heads, at.turn(head_size, dims, style))),
            Op::KvAppend { .. } => Box::new(KvAppend::resolve(at)),
            Op::RopeAppend { heads, dims, style } => {
                let turn = at.turn(heads.size, dims, style);
                Box::new(RopeAppend::resolve(at, heads, turn))
            }
            Op::Attention {
                heads,
                scale,
                window,
            } => Box::new(Attention::resolve(at, heads, scale, window)),
            Op::AttentionSplit {
                heads,
                scale,
                window,
                split,
            } => Box::new(AttentionSplit::resolve(at, heads, scale, window, split)),
            Op::AttentionCombine {
                heads,
                window,
                split,
            } => Box::new(AttentionCombine::resolve(at, heads, window, split)),
            Op::AttentionStep {
                heads,
                dims,
                style,
                scale,
                window,
                ..
            } => {
                let turn = at.turn(heads.size, dims, style);
                Box::new(AttentionStep::resolve(at, heads, turn, scale, window))
            }
            Op::GatedMul(activation) => Box::new(GatedMul::resolve(at, activation)),
            Op::Add => Box::new(Add::resolve(at)),
            Op::Scale { by } => Box::new(Scale::resolve(at, by)),
            Op::Quantize => Box::new(Quantize::resolve(at)),
            Op::LastRow => Box::new(LastRow::resolve(at)),
            Op::Sample => Box::new(Sample::resolve(at)),
        })
    }

    /// The instruction set of the kernels.
    pub fn isa(&self) -> Isa {
        self.shared.isa
    }

    /// What changes from step to step.
    pub fn step(&self) -> Arc<StepMemory> {
        Arc::clone(self.step)
    }

    /// How tokens are chosen.
    pub fn chain(&self) -> Arc<Chain> {
        Arc::clone(&self.shared.chain)
    }

    /// The launch's input with this number.
    pub fn input(&self, index: usize) -> Rows {
        self.rows(&self.launch.inputs[index])
    }

    /// The launch's output with this number.
    pub fn output(&self, index: usize) -> Rows {
        let slot = || self.rows(&self.launch.outputs[index]);
        self.elsewhere.unwrap_or_else(slot)
    }

    /// Whether the output is quantised on the way.
    pub fn quantises(&self) -> bool {
        let output = self.launch.outputs.first();
        output.is_some_and(|s| s.element == Element::Q15A)
    }

    /// The launch's weight with this number, a vector.
    pub fn vector(&self, index: usize) -> Box<[f32]> {
        let weights = &self.shared.weights;
        weights
            .vector(self.program, self.launch.weights[index])
            .into()
    }

    /// The launch's weight with this number, a table.
    pub fn table(&self, index: usize) -> Table {
        let weights = &self.shared.weights;
        weights
            .table(self.program, self.launch.weights[index])
            .clone()
    }

    /// The launch's weight with this number, a matrix.
    pub fn matrix(&self, index: usize) -> Matrix {
        let weights = &self.shared.weights;
        weights.matrix(self.program, self.launch.weights[index])
    }

    /// The launch's caches of keys and values.
    pub fn caches(&self) -> Caches {
        let base = |index: usize| {
            let offset = self.shared.state_offsets[self.launch.states[index].index()];
            // SAFETY: the offsets were laid out inside these pages for the same states.
            unsafe { self.shared.states.base().add(offset) }
        };
        let state = &self.program.states[self.launch.states[0].index()];
        let shape = CacheShape {
            heads: state.kv_heads as usize,
            capacity: state.positions as usize,
            head: state.head_size as usize,
            kv_type: state.kv_type,
        };
        Caches {
            keys: base(0),
            values: base(1),
            shape,
        }
    }

    fn turn(&self, head_size: u32, dims: u32, style: RopeStyle) -> Turn {
        Turn {
            isa: self.isa(),
            head_size: head_size as usize,
            dims: dims as usize,
            style,
        }
    }

    fn rows(&self, slot: &Slot) -> Rows {
        let arena = &self.shared.arena;
        assert!(
            slot.offset + slot.bytes() <= arena.len(),
            "{} outside the arena",
            slot.value
        );
        // SAFETY: inside the arena, as just checked.
        let base = unsafe { arena.base().add(slot.offset) };
        Rows {
            base,
            stride: slot.row_bytes(),
            cols: slot.cols as usize,
        }
    }
}
