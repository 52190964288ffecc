//! Several activation rows: the panel is transposed once a call, then multiplied.

use super::gemv::{FEW, gemv};
use crate::cpu::panel::LANES;
use crate::cpu::simd::{Element, Lanes};
use crate::cpu::tile::{Rows, Start, multiply};

/// Columns transposed at a time: 256 · 16 f32 are 16 KiB, which leaves two thirds of a 48 KiB L1 to the activations.
const BLOCK: usize = 256;

/// Bytes of scratch for panels of `k` columns.
pub(super) fn scratch_bytes(k: usize) -> usize {
    // The last vector of columns is transposed whole, so its rows past `k` need a place.
    BLOCK.min(k.next_multiple_of(LANES)) * LANES * size_of::<f32>()
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
    debug_assert!((1..=LANES).contains(&lanes) && x_stride.is_multiple_of(size_of::<f32>()));
    // SAFETY: the caller's promise: a panel of `lanes` rows of `k` elements, `rows` rows of f32, a tile of [rows][16],
    // and scratch of `scratch_bytes(k)`, 64-byte aligned.
    unsafe {
        let x_stride = x_stride / size_of::<f32>();
        if rows <= FEW {
            gemv::<L, E>(w, lanes, k, (x.cast(), x_stride, rows), tile);
            return;
        }
        let row_bytes = k * E::BYTES;
        let block = scratch.cast::<f32>();
        let sums = Rows {
            at: tile,
            stride: LANES,
        };
        let mut start = Start::Zero;
        for first in (0..k).step_by(BLOCK) {
            let cols = BLOCK.min(k - first);
            transpose::<L, E>(w.add(first * E::BYTES), row_bytes, lanes, cols, block);
            let x = Rows {
                at: x.cast::<f32>().add(first),
                stride: x_stride,
            };
            let block = Rows {
                at: block.cast_const(),
                stride: LANES,
            };
            multiply::<L>((rows, LANES, cols), x, block, sums, start);
            start = Start::Sum;
        }
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
