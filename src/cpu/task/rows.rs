//! Launches that treat each row for itself; threads share the rows. Field names are those of [`Op`](crate::graph::Op).

use super::{Rows, StepMemory, Task};
use crate::cpu::gemm::Scratch;
use crate::cpu::isa::Isa;
use crate::cpu::resolve::Resolver;
use crate::cpu::sample::Chain;
use crate::cpu::team::Worker;
use crate::cpu::weights::Table;
use crate::cpu::{elementwise, embed, norm, rope, silu};
use crate::graph;
use std::sync::Arc;

/// Rows of the embedding.
pub struct Embed {
    step: Arc<StepMemory>,
    table: Table,
    scale: f32,
    y: Rows,
}

impl Embed {
    pub fn resolve(at: &Resolver<'_>, scale: f32) -> Self {
        Embed {
            step: at.step(),
            table: at.table(0),
            scale,
            y: at.output(0),
        }
    }
}

impl Task for Embed {
    fn name(&self) -> &'static str {
        "embed"
    }

    unsafe fn run(&self, worker: &Worker<'_>, rows: usize, _: Scratch) {
        let table = &self.table;
        for r in worker.share(rows) {
            // SAFETY: a live row, in this worker's share.
            let (token, y) = unsafe { (self.step.token(r), self.y.slice(r)) };
            embed::embed(table.dtype, &table.bytes, token, self.scale, y);
        }
    }
}

/// The angles of each row's position.
pub struct RopeTable {
    step: Arc<StepMemory>,
    rope: graph::Rope,
    factors: Option<Box<[f32]>>,
    y: Rows,
}

impl RopeTable {
    pub fn resolve(at: &Resolver<'_>, rope: graph::Rope) -> Self {
        let has_factors = !at.launch.weights.is_empty();
        RopeTable {
            step: at.step(),
            rope,
            factors: has_factors.then(|| at.vector(0)),
            y: at.output(0),
        }
    }
}

impl Task for RopeTable {
    fn name(&self) -> &'static str {
        "rope_table"
    }

    unsafe fn run(&self, worker: &Worker<'_>, rows: usize, _: Scratch) {
        // SAFETY: nobody writes the step while tasks run.
        let position = unsafe { self.step.position() };
        for r in worker.share(rows) {
            // SAFETY: a live row, in this worker's share.
            let y = unsafe { self.y.slice(r) };
            rope::rope_table(position + r, &self.rope, self.factors.as_deref(), y);
        }
    }
}

/// The norm of each row, or of groups of it.
pub struct RmsNorm {
    isa: Isa,
    x: Rows,
    weight: Box<[f32]>,
    eps: f32,
    groups: usize,
    y: Rows,
    quantise: bool,
}

impl RmsNorm {
    pub fn resolve(at: &Resolver<'_>, eps: f32, groups: u32) -> Self {
        RmsNorm {
            isa: at.isa(),
            x: at.input(0),
            weight: at.vector(0),
            eps,
            groups: groups as usize,
            y: at.output(0),
            quantise: at.quantises(),
        }
    }
}

impl Task for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    /// A row of f32.
    fn scratch_bytes(&self) -> usize {
        self.x.cols * size_of::<f32>()
    }

    unsafe fn run(&self, worker: &Worker<'_>, rows: usize, scratch: Scratch) {
        let (isa, weight, n) = (self.isa, self.weight.as_ptr(), self.x.cols / self.groups);
        for r in worker.share(rows) {
            // SAFETY: a live row, in this worker's share; the scratch has room for one.
            unsafe {
                let (x, y) = match self.quantise {
                    true => (self.x.f32(r), scratch.kernel.cast()),
                    false => (self.x.f32(r), self.y.f32(r)),
                };
                for at in (0..self.x.cols).step_by(n) {
                    norm::rms_norm(isa, x.add(at), weight, self.eps, y.add(at), n);
                }
                if self.quantise {
                    self.y.quantise(isa, y, r);
                }
            }
        }
    }
}

/// Each row and the same vector.
pub struct AddBias {
    isa: Isa,
    x: Rows,
    bias: Box<[f32]>,
    y: Rows,
}

impl AddBias {
    pub fn resolve(at: &Resolver<'_>) -> Self {
        AddBias {
            isa: at.isa(),
            x: at.input(0),
            bias: at.vector(0),
            y: at.output(0),
        }
    }
}

impl Task for AddBias {
    fn name(&self) -> &'static str {
        "add_bias"
    }

    unsafe fn run(&self, worker: &Worker<'_>, rows: usize, _: Scratch) {
        let (isa, bias, n) = (self.isa, self.bias.as_ptr(), self.x.cols);
        for r in worker.share(rows) {
            // SAFETY: a live row, in this worker's share; the bias has as many columns.
            unsafe { elementwise::add(isa, self.x.f32(r), bias, self.y.f32(r), n) };
        }
    }
}

/// The gated activation of two values.
pub struct GatedMul {
    isa: Isa,
    activation: graph::Activation,
    gate: Rows,
    up: Rows,
    y: Rows,
}

impl GatedMul {
    pub fn resolve(at: &Resolver<'_>, activation: graph::Activation) -> Self {
        GatedMul {
            isa: at.isa(),
            activation,
            gate: at.input(0),
            up: at.input(1),
            y: at.output(0),
        }
    }
}

impl Task for GatedMul {
    fn name(&self) -> &'static str {
        "gated_mul"
    }

    unsafe fn run(&self, worker: &Worker<'_>, rows: usize, _: Scratch) {
        for r in worker.share(rows) {
            // SAFETY: a live row, in this worker's share.
            unsafe {
                let (gate, up, y) = (self.gate.f32(r), self.up.f32(r), self.y.f32(r));
                silu::gated_mul(self.isa, self.activation, gate, up, y, self.y.cols);
            }
        }
    }
}

/// The sum of two values.
pub struct Add {
    isa: Isa,
    a: Rows,
    b: Rows,
    y: Rows,
}

impl Add {
    pub fn resolve(at: &Resolver<'_>) -> Self {
        Add {
            isa: at.isa(),
            a: at.input(0),
            b: at.input(1),
            y: at.output(0),
        }
    }
}

impl Task for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    unsafe fn run(&self, worker: &Worker<'_>, rows: usize, _: Scratch) {
        for r in worker.share(rows) {
            // SAFETY: a live row, in this worker's share.
            unsafe {
                let (a, b, y) = (self.a.f32(r), self.b.f32(r), self.y.f32(r));
                elementwise::add(self.isa, a, b, y, self.y.cols);
            }
        }
    }
}

/// A value times a constant.
pub struct Scale {
    isa: Isa,
    by: f32,
    x: Rows,
    y: Rows,
}

impl Scale {
    pub fn resolve(at: &Resolver<'_>, by: f32) -> Self {
        Scale {
            isa: at.isa(),
            by,
            x: at.input(0),
            y: at.output(0),
        }
    }
}

impl Task for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    unsafe fn run(&self, worker: &Worker<'_>, rows: usize, _: Scratch) {
        for r in worker.share(rows) {
            // SAFETY: a live row, in this worker's share.
            unsafe {
                let (x, y) = (self.x.f32(r), self.y.f32(r));
                elementwise::scale(self.isa, x, self.by, y, self.y.cols);
            }
        }
    }
}

/// f32 as integers.
pub struct Quantize {
    isa: Isa,
    x: Rows,
    y: Rows,
}

impl Quantize {
    pub fn resolve(at: &Resolver<'_>) -> Self {
        Quantize {
            isa: at.isa(),
            x: at.input(0),
            y: at.output(0),
        }
    }
}

impl Task for Quantize {
    fn name(&self) -> &'static str {
        "quantize"
    }

    unsafe fn run(&self, worker: &Worker<'_>, rows: usize, _: Scratch) {
        for r in worker.share(rows) {
            // SAFETY: a live row, in this worker's share.
            unsafe { self.y.quantise(self.isa, self.x.f32(r), r) };
        }
    }
}

/// The last live row, which is all that the head looks at. The first worker's.
pub struct LastRow {
    x: Rows,
    y: Rows,
}

impl LastRow {
    pub fn resolve(at: &Resolver<'_>) -> Self {
        LastRow {
            x: at.input(0),
            y: at.output(0),
        }
    }
}

impl Task for LastRow {
    fn name(&self) -> &'static str {
        "last_row"
    }

    unsafe fn run(&self, worker: &Worker<'_>, rows: usize, _: Scratch) {
        if worker.index == 0 {
            // SAFETY: a step has a live row, and the output is one of as many columns.
            unsafe {
                let x = self.x.f32(rows - 1);
                self.y.f32(0).copy_from_nonoverlapping(x, self.x.cols);
            }
        }
    }
}

/// The choice of the next token. The first worker's.
pub struct Sample {
    isa: Isa,
    step: Arc<StepMemory>,
    chain: Arc<Chain>,
    x: Rows,
}

impl Sample {
    pub fn resolve(at: &Resolver<'_>) -> Self {
        Sample {
            isa: at.isa(),
            step: at.step(),
            chain: at.chain(),
            x: at.input(0),
        }
    }
}

impl Task for Sample {
    fn name(&self) -> &'static str {
        "sample"
    }

    unsafe fn run(&self, worker: &Worker<'_>, _: usize, _: Scratch) {
        if worker.index == 0 {
            // SAFETY: there is one row of logits; nobody writes the step while tasks run.
            unsafe {
                self.chain
                    .choose(self.isa, self.x.slice(0), self.step.end())
            };
        }
    }
}
