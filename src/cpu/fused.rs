//! What a GPU does in one launch and the CPU in several: the twins that GPU kernels are compared with.
//!
//! The CPU's own programs keep these apart, since a barrier costs it less than doing a norm on every
//! thread, and its threads share a step's attention by splits, not by heads.

use super::activation::{self, quantise_row};
use super::attention::{AttentionShape, attention_prompt};
use super::gemm::{Input, Scratch};
use super::isa::Isa;
use super::product::Product;
use super::resolve::Resolver;
use super::task::attention::{Turn, shape};
use super::task::{Caches, Rows, StepMemory, Task};
use super::team::Worker;
use super::{CpuError, kv, norm};
use crate::graph::Heads;
use std::sync::Arc;

/// A norm and the products that read it. Every thread normalises the row for itself.
pub struct Normed {
    isa: Isa,
    x: Rows,
    weight: Box<[f32]>,
    eps: f32,
    quantise: bool,
    product: Product,
}

impl Normed {
    /// A product behind the norm whose weight is the launch's last.
    ///
    /// # Errors
    /// As for [`Product::resolve`].
    pub fn resolve(at: &Resolver<'_>, eps: f32) -> Result<Self, CpuError> {
        let product = Product::resolve(at)?;
        Ok(Normed {
            isa: at.isa(),
            x: at.input(0),
            weight: at.vector(at.launch.weights.len() - 1),
            eps,
            quantise: !product.is_float(),
            product,
        })
    }

    /// Bytes of the row as f32, in whole lines.
    fn row_bytes(&self) -> usize {
        (self.x.cols * size_of::<f32>()).next_multiple_of(64)
    }
}

impl Task for Normed {
    fn name(&self) -> &'static str {
        "norm_gemm"
    }

    /// The product's scratch, the row, and the row as integers.
    fn scratch_bytes(&self) -> usize {
        let product = self.product.scratch_bytes().next_multiple_of(64);
        product + self.row_bytes() + activation::row_bytes(self.x.cols)
    }

    unsafe fn run(&self, worker: &Worker<'_>, _: usize, scratch: Scratch) {
        // SAFETY: there is one row; the scratch has room for it twice behind the product's.
        let x = unsafe {
            let row = scratch
                .kernel
                .add(self.product.scratch_bytes().next_multiple_of(64));
            let integers = row.add(self.row_bytes());
            let (x, weight, n) = (self.x.f32(0), self.weight.as_ptr(), self.x.cols);
            norm::rms_norm(self.isa, x, weight, self.eps, row.cast(), n);
            if self.quantise {
                let row = std::slice::from_raw_parts(row.cast::<f32>(), n);
                quantise_row(self.isa, row, integers);
                integers
            } else {
                row
            }
        };
        let input = Input { x, stride: 0 };
        // SAFETY: the caller's promise, and the input is a row as the kernels were chosen for.
        unsafe { self.product.run_on(input, worker, 1, scratch) }
    }
}

/// Rope, append and attention of one row.
pub struct AttentionStep {
    step: Arc<StepMemory>,
    shape: AttentionShape,
    heads: Heads,
    turn: Turn,
    /// q, k, v and the table.
    inputs: [Rows; 4],
    y: Rows,
    quantise: bool,
    caches: Caches,
}

impl AttentionStep {
    pub fn resolve(
        at: &Resolver<'_>,
        heads: Heads,
        turn: Turn,
        scale: f32,
        window: Option<u32>,
    ) -> Self {
        let caches = at.caches();
        // Splits are for the CPU's own steps; here this length only has to be one.
        let split = at.program.context;
        AttentionStep {
            step: at.step(),
            shape: shape(caches.shape, heads, scale, window, split),
            heads,
            turn,
            inputs: [0, 1, 2, 3].map(|index| at.input(index)),
            y: at.output(0),
            quantise: at.quantises(),
            caches,
        }
    }

    /// Bytes of a row of q, which is no shorter than one of k, in whole lines.
    fn row_bytes(&self) -> usize {
        (self.inputs[0].cols * size_of::<f32>()).next_multiple_of(64)
    }
}

impl Task for AttentionStep {
    fn name(&self) -> &'static str {
        "attention_step"
    }

    /// Turned q and k, the output, and attention's own.
    fn scratch_bytes(&self) -> usize {
        3 * self.row_bytes() + self.shape.scratch_bytes()
    }

    /// All of it in the first worker: nothing may be read from the cache before it is written there.
    unsafe fn run(&self, worker: &Worker<'_>, _: usize, scratch: Scratch) {
        if worker.index != 0 {
            return;
        }
        let [q, k, v, table] = &self.inputs;
        let (query, kv, isa) = (
            self.heads.query as usize,
            self.heads.kv as usize,
            self.turn.isa,
        );
        let Caches {
            keys,
            values,
            shape,
        } = self.caches;
        // SAFETY: the caller's promise: there is one row, and its position is below the capacity; the scratch is three
        // rows and attention's.
        unsafe {
            let turned = scratch.kernel.cast::<f32>();
            let turned_k = scratch.kernel.add(self.row_bytes()).cast::<f32>();
            let out = scratch.kernel.add(2 * self.row_bytes()).cast::<f32>();
            let rest = scratch.kernel.add(3 * self.row_bytes());
            let (position, angles) = (self.step.position(), table.f32(0));
            self.turn.run(q.f32(0), turned, query, angles);
            self.turn.run(k.f32(0), turned_k, kv, angles);
            for (x, cache) in [(turned_k, keys), (v.f32(0), values)] {
                kv::kv_append(isa, x, 0, cache, shape, position, 1, (0, 1));
            }
            let y = if self.quantise { out } else { self.y.f32(0) };
            attention_prompt(
                isa,
                &self.shape,
                (turned.cast_const(), 0),
                keys,
                values,
                position,
                1,
                (y, 0),
                0..self.shape.prompt_units(1),
                rest,
            );
            if self.quantise {
                self.y.quantise(isa, y, 0);
            }
        }
    }
}
