//! `y [R, N] = x [R, K] · Wᵀ` over panels, with its epilogues.
//!
//! A unit of work is 32 output columns: two panels of 16. The panel kernel leaves its sums in a
//! tile of this thread's scratch; the epilogue takes the tile to memory, adding the residual,
//! applying the gate, or quantising on the way. A unit is wholly one thread's, so results do not
//! depend on how many threads there are.

use super::activation::{BLOCK_BYTES, BLOCK_LEN, quantise_row};
use super::isa::Isa;
use super::panel::{LANES, PanelKernel};
use super::silu;
use super::team::Worker;
use super::weights::Matrix;
use crate::graph::Activation;
use crate::program::GEMM_UNIT_COLS;

const PANELS: usize = GEMM_UNIT_COLS / LANES;
const _: () = assert!(GEMM_UNIT_COLS == BLOCK_LEN);

/// One weight matrix, its kernel, and where its columns go.
#[derive(Clone, Copy)]
pub struct Segment {
    pub matrix: Matrix,
    pub kernel: PanelKernel,
    /// `[R, N]` f32, or [`Element::Q15A`](crate::graph::Element::Q15A) after a gate.
    pub y: *mut u8,
    pub y_stride: usize,
}

impl Segment {
    fn units(&self) -> usize {
        self.matrix.rows.div_ceil(GEMM_UNIT_COLS)
    }
}

/// What happens to the sums.
#[derive(Clone, Copy)]
pub enum Epilogue {
    Store,
    /// Adds the same elements of `[R, N]` f32 rows.
    Residual {
        x: *const u8,
        stride: usize,
    },
}

/// The activations.
#[derive(Clone, Copy)]
pub struct Input {
    pub x: *const u8,
    pub stride: usize,
}

/// One GEMM launch, resolved.
pub struct Gemm {
    pub input: Input,
    pub segments: Vec<Segment>,
    pub epilogue: Epilogue,
}

/// One gated GEMM launch, resolved. Both matrices are `[F, E]`.
pub struct Gated {
    pub isa: Isa,
    pub input: Input,
    pub gate: Segment,
    pub up: Segment,
    pub activation: Activation,
    pub quantise: bool,
}

/// Bytes of tile scratch for `rows` rows: gate and up, two panels each.
pub fn tile_bytes(rows: usize) -> usize {
    2 * PANELS * rows * LANES * size_of::<f32>()
}

/// This thread's tiles and kernel scratch.
#[derive(Clone, Copy)]
pub struct Scratch {
    /// [`tile_bytes`] long, 64-byte aligned.
    pub tiles: *mut f32,
    /// As long as the widest kernel asks, 64-byte aligned.
    pub kernel: *mut u8,
}

/// Runs the panels of one unit into `tile`, `[PANELS][rows][16]`; the number of columns made.
///
/// # Safety
/// `segment` and `input` must be valid for `rows` rows, `tile` for `PANELS · rows · 16` floats.
#[inline]
unsafe fn unit(
    segment: &Segment,
    input: Input,
    unit: usize,
    rows: usize,
    tile: *mut f32,
    scratch: *mut u8,
) -> usize {
    let Matrix {
        base,
        panel_bytes,
        rows: n,
        cols: k,
        ..
    } = segment.matrix;
    let first = unit * GEMM_UNIT_COLS;
    let cols = GEMM_UNIT_COLS.min(n - first);
    let at_once = segment.kernel.panels;
    for panel in (0..cols.div_ceil(LANES)).step_by(at_once) {
        let lanes = (at_once * LANES).min(cols - panel * LANES);
        // SAFETY: the panels are inside the matrix since their first rows are, and follow one another; the rest is the
        // caller's.
        unsafe {
            let w = base.add((unit * PANELS + panel) * panel_bytes);
            let tile = tile.add(panel * rows * LANES);
            (segment.kernel.func)(w, lanes, k, input.x, input.stride, rows, tile, scratch);
        }
    }
    cols
}

impl Gemm {
    /// Units of all segments.
    pub fn units(&self) -> usize {
        self.segments.iter().map(Segment::units).sum()
    }

    /// Bytes of scratch that its kernels need.
    pub fn scratch_bytes(&self) -> usize {
        let bytes = self.segments.iter().map(|s| s.kernel.scratch_bytes);
        bytes.max().unwrap_or(0)
    }

    /// [`Gemm::run_on`] of its own input.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn run(&self, worker: &Worker<'_>, rows: usize, scratch: Scratch) {
        // SAFETY: the caller's promise.
        unsafe { self.run_on(self.input, worker, rows, scratch) }
    }

    /// This worker's share of the units, over `rows` live rows of `input`.
    ///
    /// # Safety
    /// Every pointer must be valid for `rows` rows of its shape, outputs apart from inputs, and
    /// `scratch` this thread's own; no other launch may run meanwhile.
    pub unsafe fn run_on(&self, input: Input, worker: &Worker<'_>, rows: usize, scratch: Scratch) {
        let mut share = worker.share(self.units());
        let mut before = 0;
        for segment in &self.segments {
            let units = segment.units();
            let end = share.end.min(before + units);
            while share.start < end {
                let at = share.start - before;
                // SAFETY: the caller's promise; `at` is a unit of this segment.
                unsafe {
                    let cols = unit(segment, input, at, rows, scratch.tiles, scratch.kernel);
                    self.finish(segment, at, cols, rows, scratch.tiles);
                }
                share.start += 1;
            }
            before += units;
        }
    }

    /// # Safety
    /// As [`Gemm::run`].
    #[inline]
    unsafe fn finish(
        &self,
        segment: &Segment,
        at: usize,
        cols: usize,
        rows: usize,
        tile: *const f32,
    ) {
        for panel in 0..cols.div_ceil(LANES) {
            let lanes = LANES.min(cols - panel * LANES);
            let col = at * GEMM_UNIT_COLS + panel * LANES;
            for r in 0..rows {
                // SAFETY: row `r` is live and columns `col..col + lanes` are inside it.
                unsafe {
                    let sums = tile.add((panel * rows + r) * LANES);
                    let y = segment.y.add(r * segment.y_stride).cast::<f32>().add(col);
                    match self.epilogue {
                        Epilogue::Store if lanes == LANES => {
                            y.cast::<[f32; LANES]>().write_unaligned(*sums.cast());
                        }
                        Epilogue::Store => y.copy_from_nonoverlapping(sums, lanes),
                        Epilogue::Residual { x, stride } => {
                            let x = x.add(r * stride).cast::<f32>().add(col);
                            for j in 0..lanes {
                                *y.add(j) = *sums.add(j) + *x.add(j);
                            }
                        }
                    }
                }
            }
        }
    }
}

impl Gated {
    /// Bytes of scratch that its kernels need.
    pub fn scratch_bytes(&self) -> usize {
        let (gate, up) = (self.gate.kernel, self.up.kernel);
        gate.scratch_bytes.max(up.scratch_bytes)
    }

    /// This worker's share of the units, over `rows` live rows.
    ///
    /// # Safety
    /// As [`Gemm::run`].
    pub unsafe fn run(&self, worker: &Worker<'_>, rows: usize, scratch: Scratch) {
        // SAFETY: the caller's promise.
        unsafe { self.run_on(self.input, worker, rows, scratch) }
    }

    /// As [`Gated::run`], with other activations.
    ///
    /// # Safety
    /// As [`Gemm::run`], for `input` in place of the launch's.
    pub unsafe fn run_on(&self, input: Input, worker: &Worker<'_>, rows: usize, scratch: Scratch) {
        let gate_tile = scratch.tiles;
        for at in worker.share(self.gate.units()) {
            // SAFETY: the caller's promise; both tiles together are `tile_bytes` long.
            unsafe {
                let up_tile = gate_tile.add(PANELS * rows * LANES);
                let cols = unit(&self.gate, input, at, rows, gate_tile, scratch.kernel);
                unit(&self.up, input, at, rows, up_tile, scratch.kernel);
                let panels = cols.div_ceil(LANES);
                let sums = panels * rows * LANES;
                silu::gated_mul(
                    self.isa,
                    self.activation,
                    gate_tile,
                    up_tile,
                    gate_tile,
                    sums,
                );
                self.finish(at, cols, rows, gate_tile);
            }
        }
    }

    /// # Safety
    /// As [`Gemm::run`].
    #[inline]
    unsafe fn finish(&self, at: usize, cols: usize, rows: usize, tile: *const f32) {
        for r in 0..rows {
            let mut block = [0f32; GEMM_UNIT_COLS];
            for panel in 0..cols.div_ceil(LANES) {
                let lanes = LANES.min(cols - panel * LANES);
                // SAFETY: the tile holds `rows` rows a panel.
                let sums = unsafe {
                    std::slice::from_raw_parts(tile.add((panel * rows + r) * LANES), lanes)
                };
                block[panel * LANES..][..lanes].copy_from_slice(sums);
            }
            // SAFETY: row `r` is live; the unit's 32 columns are block `at` of a quantised row, or
            // `cols` floats of an f32 one.
            unsafe {
                let y = self.gate.y.add(r * self.gate.y_stride);
                if self.quantise {
                    quantise_row(self.isa, &block, y.add(at * BLOCK_BYTES));
                } else {
                    let y = y.cast::<f32>().add(at * GEMM_UNIT_COLS);
                    y.copy_from_nonoverlapping(block.as_ptr(), cols);
                }
            }
        }
    }
}
