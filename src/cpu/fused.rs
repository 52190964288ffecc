//! What a GPU does in one launch and the CPU in several: the twins that GPU kernels are compared with.
//!
//! The CPU's own programs keep these apart, since a barrier costs it less than doing a norm on every
//! thread, and its threads share a step's attention by splits, not by heads.

use super::activation::{self, quantise_row};
use super::attention::{AttentionShape, attention_prompt};
use super::gemm::{Gated, Gemm, Input, Scratch};
use super::isa::Isa;
use super::task::{Caches, Rows};
use super::team::Worker;
use super::{kv, norm, rope};
use crate::graph::{Heads, RopeStyle};

/// The products of rows that something is done to first.
pub enum Product {
    Gemm(Gemm),
    Gated(Gated),
}

impl Product {
    pub fn name(&self) -> &'static str {
        match self {
            Product::Gemm(_) => "gemm",
            Product::Gated(_) => "gated_gemm",
        }
    }

    /// What its kernels ask for.
    pub fn scratch_bytes(&self) -> usize {
        match self {
            Product::Gemm(gemm) => gemm.scratch_bytes(),
            Product::Gated(gated) => gated.scratch_bytes(),
        }
    }

    /// This worker's share, over `rows` live rows of `input`.
    ///
    /// # Safety
    /// As [`Gemm::run_on`].
    pub unsafe fn run_on(&self, input: Input, worker: &Worker<'_>, rows: usize, scratch: Scratch) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Product::Gemm(gemm) => gemm.run_on(input, worker, rows, scratch),
                Product::Gated(gated) => gated.run_on(input, worker, rows, scratch),
            }
        }
    }
}

/// A norm and the products that read it. Every thread normalises the row for itself.
pub struct Normed {
    pub isa: Isa,
    pub x: Rows,
    pub weight: Box<[f32]>,
    pub eps: f32,
    pub quantise: bool,
    pub product: Product,
}

impl Normed {
    /// Bytes of the row as f32, in whole lines.
    fn row_bytes(&self) -> usize {
        (self.x.cols * size_of::<f32>()).next_multiple_of(64)
    }

    /// The product's scratch, the row, and the row as integers.
    pub fn scratch_bytes(&self) -> usize {
        let product = self.product.scratch_bytes().next_multiple_of(64);
        product + self.row_bytes() + activation::row_bytes(self.x.cols)
    }

    /// This worker's share of the products.
    ///
    /// # Safety
    /// As [`Gemm::run`], with [`Normed::scratch_bytes`] of scratch; there is one row.
    pub unsafe fn run(&self, worker: &Worker<'_>, scratch: Scratch) {
        // SAFETY: the row is live; the scratch has room for it twice behind the product's.
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
    pub isa: Isa,
    pub shape: AttentionShape,
    pub heads: Heads,
    pub dims: usize,
    pub style: RopeStyle,
    /// q, k, v and the table.
    pub inputs: [Rows; 4],
    pub y: Rows,
    pub quantise: bool,
    pub caches: Caches,
}

impl AttentionStep {
    /// Turned q and k, the output, and attention's own.
    pub fn scratch_bytes(&self) -> usize {
        3 * self.row_bytes() + self.shape.scratch_bytes()
    }

    /// Bytes of a row of q, which is no shorter than one of k, in whole lines.
    fn row_bytes(&self) -> usize {
        (self.inputs[0].cols * size_of::<f32>()).next_multiple_of(64)
    }

    /// All of it, in the first worker: nothing may be read from the cache before it is written there.
    ///
    /// # Safety
    /// The rows and caches are valid and `position` is below the capacity; `scratch` is this thread's
    /// own and [`AttentionStep::scratch_bytes`] long; no other launch runs meanwhile.
    pub unsafe fn run(&self, worker: &Worker<'_>, position: usize, scratch: Scratch) {
        if worker.index != 0 {
            return;
        }
        let [q, k, v, table] = &self.inputs;
        let (query, kv, size) = (
            self.heads.query as usize,
            self.heads.kv as usize,
            self.heads.size as usize,
        );
        let (isa, style, dims) = (self.isa, self.style, self.dims);
        // SAFETY: the caller's promise; the scratch is three rows and attention's.
        unsafe {
            let turned = scratch.kernel.cast::<f32>();
            let turned_k = scratch.kernel.add(self.row_bytes()).cast::<f32>();
            let out = scratch.kernel.add(2 * self.row_bytes()).cast::<f32>();
            let rest = scratch.kernel.add(3 * self.row_bytes());
            let angles = table.f32(0);
            rope::rope(isa, q.f32(0), turned, query, size, angles, style, dims);
            rope::rope(isa, k.f32(0), turned_k, kv, size, angles, style, dims);
            let Caches {
                keys,
                values,
                shape,
            } = self.caches;
            for (x, cache) in [(turned_k, keys), (v.f32(0), values)] {
                kv::kv_append(isa, x, 0, cache, shape, position, 1, (0, 1));
            }
            let y = if self.quantise { out } else { self.y.f32(0) };
            let (q, out) = ((turned.cast_const(), 0), (y, 0));
            attention_prompt(
                isa,
                &self.shape,
                q,
                keys,
                values,
                position,
                1,
                out,
                0..self.shape.prompt_units(1),
                rest,
            );
            if self.quantise {
                let row = std::slice::from_raw_parts(y, self.y.cols);
                quantise_row(isa, row, self.y.base);
            }
        }
    }
}
