//! `y [R, N] = x [R, K] · Wᵀ` over panels, with its epilogues.
//!
//! A unit of work is 32 output columns: two panels of 16. The panel kernel leaves its sums in a
//! tile of this thread's scratch; the epilogue takes the tile to memory, adding the residual,
//! applying the gate, or quantising on the way. A unit is wholly one thread's, whichever comes to it
//! first, so results do not depend on how many threads there are or how fast.

use super::activation::{BLOCK_BYTES, BLOCK_LEN, quantise_row};
use super::isa::Isa;
use super::panel::{LANES, PanelKernel, STREAMS};
use super::silu;
use super::team::Worker;
use super::weights::Matrix;
use crate::graph::Activation;
use crate::program::GEMM_UNIT_COLS;
use std::array;
use std::ops::Range;

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

/// Bytes of tile scratch for `rows` rows, or one row and several units: gate and up, two panels each.
pub fn tile_bytes(rows: usize) -> usize {
    2 * PANELS * rows.max(STREAMS) * LANES * size_of::<f32>()
}

/// This thread's tiles and kernel scratch.
#[derive(Clone, Copy)]
pub struct Scratch {
    /// [`tile_bytes`] long, 64-byte aligned.
    pub tiles: *mut f32,
    /// As long as the widest kernel asks, 64-byte aligned.
    pub kernel: *mut u8,
}

/// Units that are computed together: `count` of them, `step` apart.
#[derive(Clone, Copy)]
struct Units {
    first: usize,
    step: usize,
    count: usize,
}

impl Units {
    /// All of `units`, up to `most` at a time and about as many each time, a part of the range from each other. Units from
    /// `whole` on have fewer columns than the others, and come last, one by one.
    fn of(units: Range<usize>, whole: usize, most: usize) -> impl Iterator<Item = Units> {
        let start = units.start;
        let together = match most {
            1 => 0,
            _ => units.end.min(whole).saturating_sub(start),
        };
        let step = together.div_ceil(most);
        let several = (0..step).map(move |i| Units {
            first: start + i,
            step,
            count: (together - i).div_ceil(step),
        });
        let single = (start + together..units.end).map(|first| Units {
            first,
            step: 0,
            count: 1,
        });
        several.chain(single)
    }

    /// Each of them, and where its sums are in the tile.
    fn each(self, rows: usize) -> impl Iterator<Item = (usize, usize)> {
        (0..self.count).map(move |i| (self.first + i * self.step, i * PANELS * rows * LANES))
    }
}

impl Segment {
    fn units(&self) -> usize {
        self.matrix.rows.div_ceil(GEMM_UNIT_COLS)
    }

    /// Those that have all their columns.
    fn whole_units(&self) -> usize {
        self.matrix.rows / GEMM_UNIT_COLS
    }

    /// The most units of `rows` rows that are quicker together.
    fn together(&self, rows: usize) -> usize {
        match self.kernel.streams {
            Some(streams) if rows == 1 => streams.most,
            _ => 1,
        }
    }

    /// Columns of a unit.
    fn cols(&self, unit: usize) -> usize {
        GEMM_UNIT_COLS.min(self.matrix.rows - unit * GEMM_UNIT_COLS)
    }

    /// Runs the panels of some units into `tile`, `[count][PANELS][rows][16]`.
    ///
    /// # Safety
    /// The segment and `input` must be valid for `rows` rows, `tile` for `count · PANELS · rows · 16` floats.
    #[inline]
    unsafe fn run(
        &self,
        input: Input,
        units: Units,
        rows: usize,
        tile: *mut f32,
        scratch: *mut u8,
    ) {
        let Matrix {
            base,
            panel_bytes,
            cols: k,
            ..
        } = self.matrix;
        let PanelKernel {
            func,
            streams,
            panels: at_once,
            ..
        } = self.kernel;
        let panels_of = |unit: usize| base.wrapping_add(unit * PANELS * panel_bytes);
        if units.count > 1 {
            let streams = streams.expect("only for this are units run together");
            for panel in 0..PANELS {
                let w: [_; STREAMS] = array::from_fn(|i| {
                    panels_of(units.first + i * units.step).wrapping_add(panel * panel_bytes)
                });
                let tiles: [_; STREAMS] =
                    array::from_fn(|i| tile.wrapping_add((i * PANELS + panel) * LANES));
                // SAFETY: all panels of whole units are inside the matrix, and have 16 rows; the rest is the
                // caller's.
                unsafe { (streams.func)(&w[..units.count], k, input.x, &tiles[..units.count]) }
            }
            return;
        }
        let cols = self.cols(units.first);
        for panel in (0..cols.div_ceil(LANES)).step_by(at_once) {
            let lanes = (at_once * LANES).min(cols - panel * LANES);
            // SAFETY: the panels are inside the matrix since their first rows are, and follow one another; the rest
            // is the caller's.
            unsafe {
                let w = panels_of(units.first).add(panel * panel_bytes);
                let tile = tile.add(panel * rows * LANES);
                func(w, lanes, k, input.x, input.stride, rows, tile, scratch);
            }
        }
    }
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

    /// This worker's share of the units, over `rows` live rows of `input`.
    ///
    /// # Safety
    /// Every pointer must be valid for `rows` rows of its shape, outputs apart from inputs, and
    /// `scratch` this thread's own; no other launch may run meanwhile.
    pub unsafe fn run(&self, input: Input, worker: &Worker<'_>, rows: usize, scratch: Scratch) {
        for claim in worker.claims(self.units()) {
            let mut before = 0;
            for segment in &self.segments {
                let units = segment.units();
                let (start, end) = (claim.start.max(before), claim.end.min(before + units));
                if start < end {
                    // SAFETY: the caller's promise; these are units of this segment.
                    unsafe {
                        self.run_units(segment, start - before..end - before, input, rows, scratch);
                    }
                }
                before += units;
            }
        }
    }

    /// # Safety
    /// As [`Gemm::run`]; `units` are of this segment, and nobody else's.
    unsafe fn run_units(
        &self,
        segment: &Segment,
        units: Range<usize>,
        input: Input,
        rows: usize,
        scratch: Scratch,
    ) {
        for units in Units::of(units, segment.whole_units(), segment.together(rows)) {
            // SAFETY: the caller's promise.
            unsafe {
                segment.run(input, units, rows, scratch.tiles, scratch.kernel);
                for (at, sums) in units.each(rows) {
                    self.finish(segment, at, rows, scratch.tiles.add(sums));
                }
            }
        }
    }

    /// # Safety
    /// As [`Gemm::run`].
    #[inline]
    unsafe fn finish(&self, segment: &Segment, at: usize, rows: usize, tile: *const f32) {
        let cols = segment.cols(at);
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

    /// This worker's share of the units, over `rows` live rows of `input`.
    ///
    /// # Safety
    /// As [`Gemm::run`].
    pub unsafe fn run(&self, input: Input, worker: &Worker<'_>, rows: usize, scratch: Scratch) {
        let gate_tile = scratch.tiles;
        let together = self.gate.together(rows).min(self.up.together(rows));
        let units_of = |claim| Units::of(claim, self.gate.whole_units(), together);
        for units in worker.claims(self.gate.units()).flat_map(units_of) {
            let sums = units.count * PANELS * rows * LANES;
            // SAFETY: the caller's promise; both tiles together are `tile_bytes` long.
            unsafe {
                let up_tile = gate_tile.add(sums);
                self.gate.run(input, units, rows, gate_tile, scratch.kernel);
                self.up.run(input, units, rows, up_tile, scratch.kernel);
                silu::gated_mul(
                    self.isa,
                    self.activation,
                    gate_tile,
                    up_tile,
                    gate_tile,
                    sums,
                );
                for (at, sums) in units.each(rows) {
                    self.finish(at, rows, gate_tile.add(sums));
                }
            }
        }
    }

    /// # Safety
    /// As [`Gemm::run`].
    #[inline]
    unsafe fn finish(&self, at: usize, rows: usize, tile: *const f32) {
        let cols = self.gate.cols(at);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_run_once_and_whole_ones_together() {
        for (start, end, whole) in [(0, 1, 1), (0, 3, 3), (5, 9, 9), (3, 50, 49), (2, 21, 20)] {
            for most in 1..=STREAMS {
                let mut seen = Vec::new();
                for units in Units::of(start..end, whole, most) {
                    assert!((1..=most).contains(&units.count));
                    let places: Vec<_> = units.each(1).collect();
                    if units.count > 1 {
                        assert!(places.iter().all(|&(unit, _)| unit < whole));
                    }
                    for (i, (unit, at)) in places.into_iter().enumerate() {
                        assert_eq!(at, i * PANELS * LANES);
                        seen.push(unit);
                    }
                }
                seen.sort_unstable();
                let all: Vec<usize> = (start..end).collect();
                assert_eq!(seen, all);
            }
        }
    }
}
