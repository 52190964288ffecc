//! One activation row: dot products with the rows of a panel.

use crate::cpu::panel::LANES;
use crate::cpu::simd::{Element, Lanes, prefetch};

/// How far ahead of its loads a row asks for weights, in bytes.
///
/// Measured on one core of a virtual Xeon, f16, K = 576, 192 MB of weights, best of 15 interleaved rounds, in GB/s:
///
/// | pages | 4 rows side by side | 1 row | 1 row, prefetch to L2 | a plain read |
/// |---|---|---|---|---|
/// | 4 KB | 9.1 | 9.7 | 15.5 | 14.9 |
/// | 2 MB | 14.7 | 16.7 | 19.9 | 16.3 |
///
/// Any distance from 4 to 32 KB serves alike; prefetching to L1 gains half as much on small pages, and the nontemporal
/// hint costs half the speed.
const AHEAD: usize = 8192;

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
        for j in 0..lanes {
            *sums.add(j) = dot::<L, E>(w.add(j * k * E::BYTES), k, x);
        }
        for j in lanes..LANES {
            *sums.add(j) = 0.0;
        }
    }
}

/// The dot product of one row with `x`.
#[inline(always)]
unsafe fn dot<L: Lanes, E: Element>(w: *const u8, k: usize, x: *const f32) -> f32 {
    // SAFETY: the caller promises `k` elements and `k` f32; whole vectors stay below k, the last is partial. A prefetch
    // may name any address.
    unsafe {
        let mut even = L::splat(0.0);
        let mut odd = L::splat(0.0);
        let mut col = 0;
        while col + 2 * L::N <= k {
            let p = w.add(col * E::BYTES);
            for line in (0..2 * L::N * E::BYTES).step_by(64) {
                prefetch(p.wrapping_add(AHEAD + line));
            }
            even = E::load::<L>(p).fma(L::load(x.add(col)), even);
            let p = p.add(L::N * E::BYTES);
            odd = E::load::<L>(p).fma(L::load(x.add(col + L::N)), odd);
            col += 2 * L::N;
        }
        while col < k {
            let n = (k - col).min(L::N);
            let p = w.add(col * E::BYTES);
            even = E::load_partial::<L>(p, n).fma(L::load_partial(x.add(col), n), even);
            col += n;
        }
        even.add(odd).sum()
    }
}
