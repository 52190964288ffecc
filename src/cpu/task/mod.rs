//! Launches as the threads run them: kernels chosen, addresses resolved.

use super::attention::{AttentionShape, attention_combine, attention_decode, attention_prompt};
use super::fused::{AttentionStep, Normed};
use super::gemm::{Gated, Gemm, Scratch};
use super::half_rows::{Rounded, Widened};
use super::isa::Isa;
use super::kv::CacheShape;
use super::sample::Chain;
use super::team::Worker;
use super::weights::Table;
use super::{activation, elementwise, embed, kv, norm, rope, silu};
use crate::graph::{Activation, Heads, Rope, RopeStyle};
use crate::program::Step;
use std::cell::UnsafeCell;
use std::sync::Arc;

/// The words that change from step to step, at an address that does not.
pub struct StepMemory {
    position: UnsafeCell<u32>,
    /// The position after the last live row.
    end: UnsafeCell<u32>,
    tokens: Box<[UnsafeCell<u32>]>,
}

// SAFETY: written only by `set`, whose caller promises that no task runs; read by tasks otherwise.
unsafe impl Send for StepMemory {}
// SAFETY: as above.
unsafe impl Sync for StepMemory {}

impl StepMemory {
    /// Room for `rows` tokens.
    pub fn new(rows: usize) -> Self {
        let tokens = (0..rows).map(|_| UnsafeCell::new(0)).collect();
        StepMemory {
            position: UnsafeCell::new(0),
            end: UnsafeCell::new(0),
            tokens,
        }
    }

    /// Writes the next step.
    ///
    /// # Safety
    /// No task reads the step meanwhile.
    pub unsafe fn set(&self, step: Step<'_>) {
        // SAFETY: the caller's promise.
        unsafe {
            *self.position.get() = step.position;
            *self.end.get() = step.position + step.tokens.len() as u32;
            for (cell, &token) in self.tokens.iter().zip(step.tokens) {
                *cell.get() = token;
            }
        }
    }

    /// # Safety
    /// No `set` at the same time.
    unsafe fn position(&self) -> usize {
        // SAFETY: the caller's promise.
        unsafe { *self.position.get() as usize }
    }

    /// # Safety
    /// No `set` at the same time.
    unsafe fn end(&self) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { *self.end.get() }
    }

    /// # Safety
    /// No `set` at the same time.
    unsafe fn token(&self, row: usize) -> usize {
        // SAFETY: the caller's promise.
        unsafe { *self.tokens[row].get() as usize }
    }
}

/// Rows of a value in the arena.
#[derive(Clone, Copy)]
pub struct Rows {
    pub base: *mut u8,
    /// Bytes from row to row.
    pub stride: usize,
    pub cols: usize,
}

impl Rows {
    /// Row `r` as f32.
    ///
    /// # Safety
    /// `r` is a row of the value.
    pub unsafe fn f32(&self, r: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.base.add(r * self.stride).cast() }
    }

    /// Row `r` as an f32 slice.
    ///
    /// # Safety
    /// `r` is a row of the value, f32, and nobody else touches it.
    unsafe fn slice<'s>(&self, r: usize) -> &'s mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.f32(r), self.cols) }
    }
}

/// A layer's caches.
#[derive(Clone, Copy)]
pub struct Caches {
    pub keys: *mut u8,
    pub values: *mut u8,
    pub shape: CacheShape,
}

/// One launch, resolved. Field names are those of [`Op`](crate::graph::Op).
pub enum Task {
    Embed {
        step: Arc<StepMemory>,
        table: Table,
        scale: f32,
        y: Rows,
    },
    RopeTable {
        step: Arc<StepMemory>,
        rope: Rope,
        factors: Option<Box<[f32]>>,
        y: Rows,
    },
    RmsNorm {
        isa: Isa,
        x: Rows,
        weight: Box<[f32]>,
        eps: f32,
        groups: usize,
        y: Rows,
        quantise: bool,
    },
    Gemm(Gemm),
    Gated(Gated),
    Normed(Normed),
    AddBias {
        isa: Isa,
        x: Rows,
        bias: Box<[f32]>,
        y: Rows,
    },
    Rope {
        isa: Isa,
        x: Rows,
        table: Rows,
        heads: usize,
        head_size: usize,
        dims: usize,
        style: RopeStyle,
        y: Rows,
    },
    KvAppend {
        isa: Isa,
        step: Arc<StepMemory>,
        k: Rows,
        v: Rows,
        caches: Caches,
    },
    RopeAppend {
        isa: Isa,
        step: Arc<StepMemory>,
        q: Rows,
        k: Rows,
        v: Rows,
        table: Rows,
        heads: Heads,
        dims: usize,
        style: RopeStyle,
        y: Rows,
        caches: Caches,
    },
    Attention {
        isa: Isa,
        step: Arc<StepMemory>,
        shape: AttentionShape,
        q: Rows,
        y: Rows,
        caches: Caches,
    },
    AttentionSplit {
        isa: Isa,
        step: Arc<StepMemory>,
        shape: AttentionShape,
        q: Rows,
        y: Rows,
        caches: Caches,
    },
    AttentionCombine {
        isa: Isa,
        step: Arc<StepMemory>,
        shape: AttentionShape,
        x: Rows,
        y: Rows,
        quantise: bool,
    },
    AttentionStep {
        step: Arc<StepMemory>,
        attention: AttentionStep,
    },
    GatedMul {
        isa: Isa,
        activation: Activation,
        gate: Rows,
        up: Rows,
        y: Rows,
    },
    Add {
        isa: Isa,
        a: Rows,
        b: Rows,
        y: Rows,
    },
    Scale {
        isa: Isa,
        by: f32,
        x: Rows,
        y: Rows,
    },
    Quantize {
        isa: Isa,
        x: Rows,
        y: Rows,
    },
    LastRow {
        x: Rows,
        y: Rows,
    },
    Rounded(Rounded),
    Widened(Widened),
    Sample {
        isa: Isa,
        step: Arc<StepMemory>,
        chain: Arc<Chain>,
        x: Rows,
    },
}

// SAFETY: the addresses lead into memory that the recording owning the task keeps alive and that no
// thread owns; what may be touched when is `run`'s contract.
unsafe impl Send for Task {}
// SAFETY: as above.
unsafe impl Sync for Task {}

impl Task {
    /// What is done, as dumps write it.
    pub fn name(&self) -> &'static str {
        match self {
            Task::Embed { .. } => "embed",
            Task::RopeTable { .. } => "rope_table",
            Task::RmsNorm { .. } => "rms_norm",
            Task::Gemm(_) => "gemm",
            Task::Gated(_) => "gated_gemm",
            Task::Normed(_) => "norm_gemm",
            Task::AddBias { .. } => "add_bias",
            Task::Rope { .. } => "rope",
            Task::KvAppend { .. } => "kv_append",
            Task::RopeAppend { .. } => "rope_append",
            Task::Attention { .. } => "attention",
            Task::AttentionSplit { .. } => "attention_split",
            Task::AttentionCombine { .. } => "attention_combine",
            Task::AttentionStep { .. } => "attention_step",
            Task::GatedMul { .. } => "gated_mul",
            Task::Add { .. } => "add",
            Task::Scale { .. } => "scale",
            Task::Quantize { .. } => "quantize",
            Task::LastRow { .. } => "last_row",
            Task::Rounded(rounded) => rounded.inner.name(),
            Task::Widened(widened) => widened.name(),
            Task::Sample { .. } => "sample",
        }
    }

    /// Bytes of kernel scratch a thread needs for this task.
    pub fn scratch_bytes(&self) -> usize {
        match self {
            Task::Gemm(gemm) => gemm.scratch_bytes(),
            Task::Gated(gated) => gated.scratch_bytes(),
            Task::Normed(normed) => normed.scratch_bytes(),
            Task::AttentionStep { attention, .. } => attention.scratch_bytes(),
            Task::Rounded(rounded) => rounded.inner.scratch_bytes(),
            Task::Widened(widened) => widened.scratch_bytes(),
            Task::RmsNorm { x, .. } => x.cols * size_of::<f32>(),
            Task::RopeAppend { k, .. } => k.cols * size_of::<f32>(),
            Task::AttentionCombine { y, .. } => y.cols * size_of::<f32>(),
            Task::Attention { shape, .. } | Task::AttentionSplit { shape, .. } => {
                shape.scratch_bytes()
            }
            _ => 0,
        }
    }

    /// This worker's share of the launch, over the `rows` live rows of the step.
    ///
    /// # Safety
    /// The task was resolved for this machine against memory that is still there; `rows` is at most
    /// the program's; every worker of the team runs the task and no other task meanwhile; `scratch`
    /// is this worker's, as long as [`Task::scratch_bytes`] and the tiles ask.
    pub unsafe fn run(&self, worker: &Worker<'_>, rows: usize, scratch: Scratch) {
        let part = (worker.index, worker.count);
        // SAFETY: every block below uses rows below `rows` of values resolved for at least that
        // many, in this worker's share of a partition, and kernels of an instruction set that was
        // detected; the rest is the caller's promise.
        unsafe {
            match self {
                Task::Embed {
                    step,
                    table,
                    scale,
                    y,
                } => {
                    for r in worker.share(rows) {
                        embed::embed(table.dtype, &table.bytes, step.token(r), *scale, y.slice(r));
                    }
                }
                Task::RopeTable {
                    step,
                    rope,
                    factors,
                    y,
                } => {
                    let position = step.position();
                    for r in worker.share(rows) {
                        rope::rope_table(position + r, rope, factors.as_deref(), y.slice(r));
                    }
                }
                Task::RmsNorm {
                    isa,
                    x,
                    weight,
                    eps,
                    groups,
                    y,
                    quantise,
                } => {
                    let n = x.cols / groups;
                    for r in worker.share(rows) {
                        let out = if *quantise {
                            scratch.kernel.cast()
                        } else {
                            y.f32(r)
                        };
                        for group in 0..*groups {
                            let x = x.f32(r).add(group * n);
                            norm::rms_norm(*isa, x, weight.as_ptr(), *eps, out.add(group * n), n);
                        }
                        if *quantise {
                            quantise_to(*isa, out, y, r);
                        }
                    }
                }
                Task::Gemm(gemm) => gemm.run(worker, rows, scratch),
                Task::Rounded(rounded) => rounded.run(worker, rows, scratch),
                Task::Widened(widened) => widened.run(worker, rows, scratch),
                Task::Gated(gated) => gated.run(worker, rows, scratch),
                Task::Normed(normed) => normed.run(worker, scratch),
                Task::AttentionStep { step, attention } => {
                    attention.run(worker, step.position(), scratch);
                }
                Task::AddBias { isa, x, bias, y } => {
                    for r in worker.share(rows) {
                        elementwise::add(*isa, x.f32(r), bias.as_ptr(), y.f32(r), x.cols);
                    }
                }
                Task::Rope {
                    isa,
                    x,
                    table,
                    heads,
                    head_size,
                    dims,
                    style,
                    y,
                } => {
                    for r in worker.share(rows) {
                        let (x, y, table) = (x.f32(r), y.f32(r), table.f32(r));
                        rope::rope(*isa, x, y, *heads, *head_size, table, *style, *dims);
                    }
                }
                Task::KvAppend {
                    isa,
                    step,
                    k,
                    v,
                    caches,
                } => {
                    let position = step.position();
                    for (x, cache) in [(k, caches.keys), (v, caches.values)] {
                        let stride = x.stride / size_of::<f32>();
                        kv::kv_append(
                            *isa,
                            x.f32(0),
                            stride,
                            cache,
                            caches.shape,
                            position,
                            rows,
                            part,
                        );
                    }
                }
                Task::RopeAppend {
                    isa,
                    step,
                    q,
                    k,
                    v,
                    table,
                    heads,
                    dims,
                    style,
                    y,
                    caches,
                } => {
                    let position = step.position();
                    let (shape, size) = (caches.shape, heads.size as usize);
                    for r in worker.share(rows) {
                        let (query, kv, angles) =
                            (heads.query as usize, heads.kv as usize, table.f32(r));
                        rope::rope(*isa, q.f32(r), y.f32(r), query, size, angles, *style, *dims);
                        let turned = scratch.kernel.cast::<f32>();
                        rope::rope(*isa, k.f32(r), turned, kv, size, angles, *style, *dims);
                        for (x, cache) in [(turned, caches.keys), (v.f32(r), caches.values)] {
                            kv::kv_append(*isa, x, 0, cache, shape, position + r, 1, (0, 1));
                        }
                    }
                }
                Task::Attention {
                    isa,
                    step,
                    shape,
                    q,
                    y,
                    caches,
                } => attention_prompt(
                    *isa,
                    shape,
                    (q.f32(0), q.stride / size_of::<f32>()),
                    caches.keys,
                    caches.values,
                    step.position(),
                    rows,
                    (y.f32(0), y.stride / size_of::<f32>()),
                    worker.claims(shape.prompt_units(rows)).flatten(),
                    scratch.kernel,
                ),
                Task::AttentionSplit {
                    isa,
                    step,
                    shape,
                    q,
                    y,
                    caches,
                } => {
                    let (keys, values, position) = (caches.keys, caches.values, step.position());
                    let (q, partials) = (q.f32(0), y.f32(0));
                    attention_decode(
                        *isa,
                        shape,
                        q,
                        keys,
                        values,
                        position,
                        partials,
                        worker.claims(shape.decode_units(position)).flatten(),
                        scratch.kernel,
                    );
                }
                Task::AttentionCombine {
                    isa,
                    step,
                    shape,
                    x,
                    y,
                    quantise,
                } => {
                    if worker.index == 0 {
                        let out = if *quantise {
                            scratch.kernel.cast()
                        } else {
                            y.f32(0)
                        };
                        attention_combine(*isa, shape, x.f32(0), step.position(), out, (0, 1));
                        if *quantise {
                            quantise_to(*isa, out, y, 0);
                        }
                    }
                }
                Task::GatedMul {
                    isa,
                    activation,
                    gate,
                    up,
                    y,
                } => {
                    for r in worker.share(rows) {
                        let (gate, up, y, n) = (gate.f32(r), up.f32(r), y.f32(r), y.cols);
                        silu::gated_mul(*isa, *activation, gate, up, y, n);
                    }
                }
                Task::Add { isa, a, b, y } => {
                    for r in worker.share(rows) {
                        elementwise::add(*isa, a.f32(r), b.f32(r), y.f32(r), y.cols);
                    }
                }
                Task::Scale { isa, by, x, y } => {
                    for r in worker.share(rows) {
                        elementwise::scale(*isa, x.f32(r), *by, y.f32(r), y.cols);
                    }
                }
                Task::Quantize { isa, x, y } => {
                    for r in worker.share(rows) {
                        quantise_to(*isa, x.f32(r), y, r);
                    }
                }
                Task::LastRow { x, y } => {
                    if worker.index == 0 {
                        y.f32(0).copy_from_nonoverlapping(x.f32(rows - 1), x.cols);
                    }
                }
                Task::Sample {
                    isa,
                    step,
                    chain,
                    x,
                } => {
                    if worker.index == 0 {
                        chain.choose(*isa, x.slice(0), step.end());
                    }
                }
            }
        }
    }
}

/// Quantises `y.cols` f32 at `x` into row `r` of `y`.
///
/// # Safety
/// `x` holds the columns, and row `r` of `y` is this thread's.
unsafe fn quantise_to(isa: Isa, x: *const f32, y: &Rows, r: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let x = std::slice::from_raw_parts(x, y.cols);
        activation::quantise_row(isa, x, y.base.add(r * y.stride));
    }
}
