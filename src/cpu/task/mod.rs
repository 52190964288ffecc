//! Launches as the threads run them: kernels chosen, addresses resolved.
//!
//! Each kind of launch is a [`Task`] that knows how to resolve itself: [`rows`] has those that treat each row for itself,
//! [`attention`] those that meet the cache; products are in [`fused`](super::fused), rows of 16-bit floats in
//! [`half_rows`](super::half_rows).

pub mod attention;
pub mod rows;
mod step;

pub use step::StepMemory;

use super::activation;
use super::gemm::Scratch;
use super::isa::Isa;
use super::kv::CacheShape;
use super::team::Worker;

/// One launch, resolved.
pub trait Task {
    /// What is done, as dumps write it.
    fn name(&self) -> &'static str;

    /// Bytes of kernel scratch that a thread needs.
    fn scratch_bytes(&self) -> usize {
        0
    }

    /// This worker's share of the launch, over the `rows` live rows of the step.
    ///
    /// # Safety
    /// The task was resolved for this machine against memory that is still there; `rows` is at most
    /// the program's; every worker of the team runs the task and no other task meanwhile; `scratch`
    /// is this worker's, as long as [`Task::scratch_bytes`] and the tiles ask.
    unsafe fn run(&self, worker: &Worker<'_>, rows: usize, scratch: Scratch);
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

    /// f32 from row to row.
    fn stride_f32(&self) -> usize {
        self.stride / size_of::<f32>()
    }

    /// Row `r` as an f32 slice.
    ///
    /// # Safety
    /// `r` is a row of the value, f32, and nobody else touches it.
    unsafe fn slice<'s>(&self, r: usize) -> &'s mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.f32(r), self.cols) }
    }

    /// Quantises as many f32 at `x` as there are columns into row `r`.
    ///
    /// # Safety
    /// `x` holds the columns, row `r` is quantised and this thread's, and the machine runs `isa`.
    pub unsafe fn quantise(&self, isa: Isa, x: *const f32, r: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let x = std::slice::from_raw_parts(x, self.cols);
            activation::quantise_row(isa, x, self.base.add(r * self.stride));
        }
    }
}

/// A layer's caches.
#[derive(Clone, Copy)]
pub struct Caches {
    pub keys: *mut u8,
    pub values: *mut u8,
    pub shape: CacheShape,
}
