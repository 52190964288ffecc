//! Launches that turn rows by their positions, keep them in the cache, or read it. Field names are those of
//! [`Op`](crate::graph::Op).

use super::{Caches, Rows, StepMemory, Task};
use crate::cpu::attention::{
    AttentionShape, attention_combine, attention_decode, attention_prompt,
};
use crate::cpu::gemm::Scratch;
use crate::cpu::isa::Isa;
use crate::cpu::kv::{self, CacheShape};
use crate::cpu::resolve::Resolver;
use crate::cpu::rope;
use crate::cpu::team::Worker;
use crate::graph::{Heads, KvType, RopeStyle};
use crate::program::Slot;
use std::sync::Arc;

/// How heads are turned.
#[derive(Clone, Copy)]
pub struct Turn {
    pub isa: Isa,
    /// D: elements of a head.
    pub head_size: usize,
    /// The first of them, which are turned.
    pub dims: usize,
    pub style: RopeStyle,
}

impl Turn {
    /// `heads` heads at `x` by a row of the table, to `y`.
    ///
    /// # Safety
    /// As for [`rope::rope`].
    pub unsafe fn run(&self, x: *const f32, y: *mut f32, heads: usize, angles: *const f32) {
        let (isa, size, style, dims) = (self.isa, self.head_size, self.style, self.dims);
        // SAFETY: the caller's promise.
        unsafe { rope::rope(isa, x, y, heads, size, angles, style, dims) }
    }
}

/// The heads of each row, turned.
pub struct Rope {
    x: Rows,
    table: Rows,
    heads: usize,
    turn: Turn,
    y: Rows,
}

impl Rope {
    pub fn resolve(at: &Resolver<'_>, heads: u32, turn: Turn) -> Self {
        Rope {
            x: at.input(0),
            table: at.input(1),
            heads: heads as usize,
            turn,
            y: at.output(0),
        }
    }
}

impl Task for Rope {
    fn name(&self) -> &'static str {
        "rope"
    }

    unsafe fn run(&self, worker: &Worker<'_>, rows: usize, _: Scratch) {
        for r in worker.share(rows) {
            // SAFETY: a live row, in this worker's share.
            unsafe {
                let (x, y, angles) = (self.x.f32(r), self.y.f32(r), self.table.f32(r));
                self.turn.run(x, y, self.heads, angles);
            }
        }
    }
}

/// Keys and values into the cache; threads share the heads of the rows.
pub struct KvAppend {
    isa: Isa,
    step: Arc<StepMemory>,
    k: Rows,
    v: Rows,
    caches: Caches,
}

impl KvAppend {
    pub fn resolve(at: &Resolver<'_>) -> Self {
        KvAppend {
            isa: at.isa(),
            step: at.step(),
            k: at.input(0),
            v: at.input(1),
            caches: at.caches(),
        }
    }
}

impl Task for KvAppend {
    fn name(&self) -> &'static str {
        "kv_append"
    }

    unsafe fn run(&self, worker: &Worker<'_>, rows: usize, _: Scratch) {
        let Caches {
            keys,
            values,
            shape,
        } = self.caches;
        let part = (worker.index, worker.count);
        // SAFETY: live rows; the step ends within the capacity; parts do not overlap.
        unsafe {
            let position = self.step.position();
            for (x, cache) in [(self.k, keys), (self.v, values)] {
                let (x, stride) = (x.f32(0), x.stride_f32());
                kv::kv_append(self.isa, x, stride, cache, shape, position, rows, part);
            }
        }
    }
}

/// Queries turned; keys turned, and values, into the cache.
pub struct RopeAppend {
    step: Arc<StepMemory>,
    q: Rows,
    k: Rows,
    v: Rows,
    table: Rows,
    heads: Heads,
    turn: Turn,
    y: Rows,
    caches: Caches,
}

impl RopeAppend {
    pub fn resolve(at: &Resolver<'_>, heads: Heads, turn: Turn) -> Self {
        RopeAppend {
            step: at.step(),
            q: at.input(0),
            k: at.input(1),
            v: at.input(2),
            table: at.input(3),
            heads,
            turn,
            y: at.output(0),
            caches: at.caches(),
        }
    }
}

impl Task for RopeAppend {
    fn name(&self) -> &'static str {
        "rope_append"
    }

    /// A row of turned keys.
    fn scratch_bytes(&self) -> usize {
        self.k.cols * size_of::<f32>()
    }

    unsafe fn run(&self, worker: &Worker<'_>, rows: usize, scratch: Scratch) {
        let (query, kv) = (self.heads.query as usize, self.heads.kv as usize);
        let Caches {
            keys,
            values,
            shape,
        } = self.caches;
        let turned = scratch.kernel.cast::<f32>();
        for r in worker.share(rows) {
            // SAFETY: a live row, in this worker's share, whose position is below the capacity; the scratch has room
            // for one of keys.
            unsafe {
                let (position, angles) = (self.step.position() + r, self.table.f32(r));
                self.turn.run(self.q.f32(r), self.y.f32(r), query, angles);
                self.turn.run(self.k.f32(r), turned, kv, angles);
                for (x, cache) in [(turned, keys), (self.v.f32(r), values)] {
                    kv::kv_append(self.turn.isa, x, 0, cache, shape, position, 1, (0, 1));
                }
            }
        }
    }
}

/// What both kinds of attention over the cache are made of.
struct Operands {
    isa: Isa,
    step: Arc<StepMemory>,
    shape: AttentionShape,
    q: Rows,
    y: Rows,
    caches: Caches,
}

impl Operands {
    fn resolve(
        at: &Resolver<'_>,
        heads: Heads,
        scale: f32,
        window: Option<u32>,
        split: u32,
    ) -> Self {
        let caches = at.caches();
        Operands {
            isa: at.isa(),
            step: at.step(),
            shape: shape(caches.shape, heads, scale, window, split),
            q: at.input(0),
            y: at.output(0),
            caches,
        }
    }
}

/// Attention of several rows.
pub struct Attention(Operands);

impl Attention {
    pub fn resolve(at: &Resolver<'_>, heads: Heads, scale: f32, window: Option<u32>) -> Self {
        // Splits are for one row; with several this length only has to be one.
        let split = at.program.context;
        Attention(Operands::resolve(at, heads, scale, window, split))
    }
}

impl Task for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn scratch_bytes(&self) -> usize {
        self.0.shape.scratch_bytes()
    }

    unsafe fn run(&self, worker: &Worker<'_>, rows: usize, scratch: Scratch) {
        let on = &self.0;
        // SAFETY: live rows, whose positions the cache holds; units are claimed once.
        unsafe {
            attention_prompt(
                on.isa,
                &on.shape,
                (on.q.f32(0), on.q.stride_f32()),
                on.caches.keys,
                on.caches.values,
                on.step.position(),
                rows,
                (on.y.f32(0), on.y.stride_f32()),
                worker.claims(on.shape.prompt_units(rows)).flatten(),
                scratch.kernel,
            );
        }
    }
}

/// Attention of one row, split by split.
pub struct AttentionSplit(Operands);

impl AttentionSplit {
    /// # Panics
    /// When the output has no room for every split.
    pub fn resolve(
        at: &Resolver<'_>,
        heads: Heads,
        scale: f32,
        window: Option<u32>,
        split: u32,
    ) -> Self {
        let operands = Operands::resolve(at, heads, scale, window, split);
        holds_partials(&at.launch.outputs[0], &operands.shape);
        AttentionSplit(operands)
    }
}

impl Task for AttentionSplit {
    fn name(&self) -> &'static str {
        "attention_split"
    }

    fn scratch_bytes(&self) -> usize {
        self.0.shape.scratch_bytes()
    }

    unsafe fn run(&self, worker: &Worker<'_>, _: usize, scratch: Scratch) {
        let on = &self.0;
        // SAFETY: there is one row, whose position the cache holds; units are claimed once.
        unsafe {
            let position = on.step.position();
            attention_decode(
                on.isa,
                &on.shape,
                on.q.f32(0),
                on.caches.keys,
                on.caches.values,
                position,
                on.y.f32(0),
                worker.claims(on.shape.decode_units(position)).flatten(),
                scratch.kernel,
            );
        }
    }
}

/// The splits of a row, merged. The first worker's.
pub struct AttentionCombine {
    isa: Isa,
    step: Arc<StepMemory>,
    shape: AttentionShape,
    x: Rows,
    y: Rows,
    quantise: bool,
}

impl AttentionCombine {
    /// # Panics
    /// When the input has no room for every split.
    pub fn resolve(at: &Resolver<'_>, heads: Heads, window: Option<u32>, split: u32) -> Self {
        // Partial results are f32, whatever the cache was.
        let cache = CacheShape {
            heads: heads.kv as usize,
            capacity: at.program.context as usize,
            head: heads.size as usize,
            kv_type: KvType::F16,
        };
        let shape = shape(cache, heads, 1.0, window, split);
        holds_partials(&at.launch.inputs[0], &shape);
        AttentionCombine {
            isa: at.isa(),
            step: at.step(),
            shape,
            x: at.input(0),
            y: at.output(0),
            quantise: at.quantises(),
        }
    }
}

impl Task for AttentionCombine {
    fn name(&self) -> &'static str {
        "attention_combine"
    }

    /// The row as f32.
    fn scratch_bytes(&self) -> usize {
        self.y.cols * size_of::<f32>()
    }

    unsafe fn run(&self, worker: &Worker<'_>, _: usize, scratch: Scratch) {
        if worker.index != 0 {
            return;
        }
        // SAFETY: the splits up to the position were written by the launch before; the scratch has room for the row.
        unsafe {
            let out = match self.quantise {
                true => scratch.kernel.cast(),
                false => self.y.f32(0),
            };
            let (partials, position) = (self.x.f32(0), self.step.position());
            attention_combine(self.isa, &self.shape, partials, position, out, (0, 1));
            if self.quantise {
                self.y.quantise(self.isa, out, 0);
            }
        }
    }
}

/// As many partial results as the shape has are written and read, whoever sized their place.
fn holds_partials(slot: &Slot, shape: &AttentionShape) {
    let (found, needed) = (slot.bytes(), shape.partials_len() * size_of::<f32>());
    assert!(
        found >= needed,
        "{}: {found} bytes for {needed} of partial results",
        slot.value
    );
}

/// What attention freezes.
pub fn shape(
    cache: CacheShape,
    heads: Heads,
    scale: f32,
    window: Option<u32>,
    split: u32,
) -> AttentionShape {
    AttentionShape {
        heads: heads.query as usize,
        cache,
        scale,
        window: window.map(|w| w as usize),
        split_len: split as usize,
    }
}
