//! One activation row: dot products with the rows of a panel.

#![allow(clippy::needless_range_loop)] // Registers are numbered: rows and vectors by index read like the formula.

use crate::cpu::panel::LANES;
use crate::cpu::simd::{Element, Lanes};

/// Weight rows read side by side: enough loads in flight for one core, few enough streams for its prefetcher.
const SIDE_BY_SIDE: usize = 4;

/// `sums[j] = Σ_k x[k] · w[j, k]` for `j < lanes`, and 0 for the other lanes.
///
/// # Safety
/// As for [`Lanes`]: `lanes` rows of `k` elements at `w`, `k` f32 at `x`, 16 f32 at `sums`.
#[inline(always)]
pub(super) unsafe fn gemv<L: Lanes, E: Element>(
    w: *const u8,
    lanes: usize,
    k: usize,
    x: *const f32,
    sums: *mut f32,
) {
    // SAFETY: the caller's promise; row `j` starts at j·k elements.
    unsafe {
        let row_bytes = k * E::BYTES;
        let mut j = 0;
        while j + SIDE_BY_SIDE <= lanes {
            dots::<L, E, SIDE_BY_SIDE>(w.add(j * row_bytes), k, x, sums.add(j));
            j += SIDE_BY_SIDE;
        }
        while j < lanes {
            dots::<L, E, 1>(w.add(j * row_bytes), k, x, sums.add(j));
            j += 1;
        }
        for j in lanes..LANES {
            *sums.add(j) = 0.0;
        }
    }
}

/// The dot products of `R` rows with `x`.
#[inline(always)]
unsafe fn dots<L: Lanes, E: Element, const R: usize>(
    w: *const u8,
    k: usize,
    x: *const f32,
    out: *mut f32,
) {
    // SAFETY: the caller promises R rows of `k` elements and `k` f32; whole vectors stay below k, the last is partial.
    unsafe {
        let row_bytes = k * E::BYTES;
        let mut even = [L::splat(0.0); R];
        let mut odd = [L::splat(0.0); R];
        let mut col = 0;
        while col + 2 * L::N <= k {
            let x0 = L::load(x.add(col));
            let x1 = L::load(x.add(col + L::N));
            for r in 0..R {
                let p = w.add(r * row_bytes + col * E::BYTES);
                even[r] = E::load::<L>(p).fma(x0, even[r]);
                odd[r] = E::load::<L>(p.add(L::N * E::BYTES)).fma(x1, odd[r]);
            }
            col += 2 * L::N;
        }
        while col < k {
            let n = (k - col).min(L::N);
            let x0 = L::load_partial(x.add(col), n);
            for r in 0..R {
                let p = w.add(r * row_bytes + col * E::BYTES);
                even[r] = E::load_partial::<L>(p, n).fma(x0, even[r]);
            }
            col += n;
        }
        for r in 0..R {
            *out.add(r) = even[r].add(odd[r]).sum();
        }
    }
}
