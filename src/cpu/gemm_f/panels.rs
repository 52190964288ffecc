//! Several activation rows: the panels are transposed once a call, then multiplied.
//!
//! Measured in GMAC/s of CPU time on one core of a virtual Xeon (AVX-512, not alone on the machine: ± 5), f16, N and K
//! of SmolLM2-135M and K = 4096, the best pass of 0.3 s, the median of 2 to 4 such runs taken in turns. Lines of
//! different groups are not comparable to the digit, as the clock moved between them.
//!
//! | | K = 576, 256 rows | K = 576, 32 rows | K = 1536, 256 rows | K = 4096, 256 rows |
//! |---|---|---|---|---|
//! | one panel, 24 rows a tile, 256 columns (one run) | 64 | 57 | 61 | 53 |
//! | two panels, 12 rows a tile, 128 columns | 84 | 69 | 76 | 66 |
//! | 192 columns | 86 | 69 | 76 | 66 |
//! | 256 columns | 85 | 70 | 79 | 72 |
//! | 384 columns | 86 | 68 | 82 | 75 |
//! | 192 columns, the next tile's rows prefetched to L1 | 81 | 65 | 73 | 73 |
//! | 256 columns, the same | 78 | 64 | 72 | 74 |
//! | again: 384 columns | 90 | 72 | 83 | 76 |
//! | 576 columns | 85 | 73 | 83 | 81 |
//! | 384 columns, 4 steps between branches | 90 | 74 | 87 | 81 |
//! | 576 columns, the same (what is here) | 93 | 76 | 91 | 85 |
//!
//! A tile of one panel asks for 25 loads a step, and as many addresses as the compiler must keep 14 of in memory, for 24
//! multiplications; one of two panels for 14 loads, and 3. That is the gain. Eight steps between branches are slower
//! than four, two about as fast. AVX2 reaches 55 to 61 in every arrangement (K ≤ 1536), before and after: its tile of 6
//! rows by two vectors already loads less than it multiplies.

use super::gemv::{FEW, gemv};
use crate::cpu::panel::LANES;
use crate::cpu::simd::{Element, Lanes};
use crate::cpu::tile::{Rows, Start, multiply, multiply_pair};

/// Panels multiplied together.
pub(super) const PANELS: usize = 2;

/// Columns transposed at a time. Of two panels they are 72 KiB, which the second-level cache delivers fast enough; a
/// smaller block, in the first, costs more in sums that are stored and loaded again.
const BLOCK: usize = 576;

/// f32 of one transposed panel of `k` columns.
fn block_len(k: usize) -> usize {
    // The last vector of columns is transposed whole, so its rows past `k` need a place.
    BLOCK.min(k.next_multiple_of(LANES)) * LANES
}

/// Bytes of scratch for panels of `k` columns.
pub(super) fn scratch_bytes(k: usize) -> usize {
    PANELS * block_len(k) * size_of::<f32>()
}

/// A [`PanelFn`](crate::cpu::panel::PanelFn).
///
/// # Safety
/// As for `PanelFn`, and as for [`Lanes`].
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) unsafe fn panel<L: Lanes, E: Element>(
    w: *const u8,
    lanes: usize,
    k: usize,
    x: *const u8,
    x_stride: usize,
    rows: usize,
    tile: *mut f32,
    scratch: *mut u8,
) {
    debug_assert!(
        (1..=PANELS * LANES).contains(&lanes) && x_stride.is_multiple_of(size_of::<f32>())
    );
    let x = Rows {
        at: x.cast::<f32>(),
        stride: x_stride / size_of::<f32>(),
    };
    // SAFETY: the caller's promise: panels of together `lanes` rows of `k` elements, `rows` rows of f32, tiles of
    // [rows][16], and scratch of `scratch_bytes(k)`, 64-byte aligned.
    unsafe {
        if rows <= FEW {
            for first in (0..lanes).step_by(LANES) {
                let w = w.add(first * k * E::BYTES);
                let lanes = LANES.min(lanes - first);
                gemv::<L, E>(w, lanes, k, (x.at, x.stride, rows), tile.add(first * rows));
            }
        } else {
            gemm::<L, E>(w, lanes, k, x, rows, tile, scratch.cast());
        }
    }
}

/// The panels a block of columns at a time: transposed, then multiplied.
#[inline(always)]
unsafe fn gemm<L: Lanes, E: Element>(
    w: *const u8,
    lanes: usize,
    k: usize,
    x: Rows<*const f32>,
    rows: usize,
    tile: *mut f32,
    block: *mut f32,
) {
    let row_bytes = k * E::BYTES;
    let sums = Rows {
        at: tile,
        stride: LANES,
    };
    let next = (block_len(k), rows * LANES);
    let panels = Rows {
        at: block.cast_const(),
        stride: LANES,
    };
    let mut start = Start::Zero;
    for first in (0..k).step_by(BLOCK) {
        let cols = BLOCK.min(k - first);
        let x = x.from(first);
        // SAFETY: as the caller says; a second panel has at least one real row.
        unsafe {
            let w = w.add(first * E::BYTES);
            transpose::<L, E>(w, row_bytes, lanes.min(LANES), cols, block);
            if lanes > LANES {
                let w = w.add(LANES * row_bytes);
                transpose::<L, E>(w, row_bytes, lanes - LANES, cols, block.add(next.0));
                multiply_pair::<L>((rows, cols), x, panels, sums, next, start);
            } else {
                multiply::<L>((rows, LANES, cols), x, panels, sums, start);
            }
        }
        start = Start::Sum;
    }
}

/// The panel's rows, `cols` elements from `w` on, as f32 [cols][16]; lanes past `lanes` repeat the last real one.
#[inline(always)]
unsafe fn transpose<L: Lanes, E: Element>(
    w: *const u8,
    row_bytes: usize,
    lanes: usize,
    cols: usize,
    out: *mut f32,
) {
    // SAFETY: the caller promises the rows; a group past the last real lane is read at that lane. `out` holds `cols`
    // rounded up to 16 rows, and a group of columns is at most 16.
    unsafe {
        for col in (0..cols).step_by(L::N) {
            for lane in (0..LANES).step_by(L::N) {
                let first = lane.min(lanes - 1);
                L::transpose::<E>(
                    w.add(first * row_bytes + col * E::BYTES),
                    row_bytes,
                    lanes - first,
                    cols - col,
                    out.add(col * LANES + lane),
                    LANES,
                );
            }
        }
    }
}
