//! One activation row, or few: dot products with the rows of a panel.

#![allow(clippy::needless_range_loop)] // Registers are numbered: rows by index read like the formula.

use crate::cpu::panel::{LANES, by_count};
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

/// The most activation rows for which dot products are faster than transposing the panel: measured at K = 576, f16, a
/// panel of 5 rows takes 1.2 µs so and 2.4 µs transposed, of 13 rows 2.8 and 3.1, of 16 rows 3.6 and 3.0.
pub(super) const FEW: usize = 15;

/// `tile[r][j] = Σ_k x[r, k] · w[j, k]` for `r < rows` and `j < lanes`, and 0 for the other lanes. A row's sums are the
/// same whatever the number of rows.
///
/// # Safety
/// As for [`Lanes`]: `lanes` rows of `k` elements at `w`; `rows` rows of `k` f32 at `x`, `x_stride` f32 apart; `rows` · 16
/// f32 at `tile`.
#[inline(always)]
pub(super) unsafe fn gemv<L: Lanes, E: Element>(
    w: *const u8,
    lanes: usize,
    k: usize,
    (x, x_stride, rows): (*const f32, usize, usize),
    tile: *mut f32,
) {
    for j in 0..lanes {
        let w = w.wrapping_add(j * k * E::BYTES);
        let mut row = 0;
        macro_rules! rows {
            ($n:literal) => {
                while rows - row >= $n {
                    // SAFETY: the caller's promise; row `j` of the panel starts at j·k elements, and activation rows
                    // `row..row + n` exist.
                    unsafe {
                        let x = x.add(row * x_stride);
                        dots::<L, E, $n>(w, k, x, x_stride, tile.add(row * LANES + j));
                    }
                    row += $n;
                }
            };
        }
        rows!(4);
        rows!(2);
        rows!(1);
    }
    for r in 0..rows {
        for j in lanes..LANES {
            // SAFETY: inside the tile.
            unsafe { *tile.add(r * LANES + j) = 0.0 }
        }
    }
}

/// One activation row against several panels of 16 rows, a row of each side by side: the sums of [`gemv`]. Asking for
/// weights ahead as well gives an Emerald Rapids core 6 % more tokens and takes 6 to 20 % from a Zen 3.
///
/// # Safety
/// As for [`gemv`] with one row and 16 lanes, for each panel and its tile.
#[inline(always)]
pub(super) unsafe fn streams<L: Lanes, E: Element>(
    w: &[*const u8],
    k: usize,
    x: *const u8,
    tiles: &[*mut f32],
) {
    // SAFETY: the caller's promise.
    unsafe { by_count!(w, tiles, S => side_by_side::<L, E, S>(w, k, x, tiles)) }
}

/// [`streams`] of `S` panels.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn side_by_side<L: Lanes, E: Element, const S: usize>(
    w: [*const u8; S],
    k: usize,
    x: *const u8,
    tiles: [*mut f32; S],
) {
    let x = x.cast::<f32>();
    for j in 0..LANES {
        // SAFETY: the caller's promise; row `j` of a panel starts at j·k elements. Whole vectors stay below k, the last is
        // partial. A prefetch may name any address.
        unsafe {
            let mut even = [L::splat(0.0); S];
            let mut odd = [L::splat(0.0); S];
            let mut col = 0;
            while col + 2 * L::N <= k {
                let (x0, x1) = (L::load(x.add(col)), L::load(x.add(col + L::N)));
                for s in 0..S {
                    let p = w[s].add((j * k + col) * E::BYTES);
                    if L::N == 16 {
                        for line in (0..2 * L::N * E::BYTES).step_by(64) {
                            prefetch(p.wrapping_add(AHEAD + line));
                        }
                    }
                    even[s] = E::load::<L>(p).fma(x0, even[s]);
                    odd[s] = E::load::<L>(p.add(L::N * E::BYTES)).fma(x1, odd[s]);
                }
                col += 2 * L::N;
            }
            while col < k {
                let n = (k - col).min(L::N);
                let x = L::load_partial(x.add(col), n);
                for s in 0..S {
                    let w = E::load_partial::<L>(w[s].add((j * k + col) * E::BYTES), n);
                    even[s] = w.fma(x, even[s]);
                }
                col += n;
            }
            for s in 0..S {
                *tiles[s].add(j) = even[s].add(odd[s]).sum();
            }
        }
    }
}

/// The dot products of one weight row with `R` activation rows, written 16 f32 apart.
#[inline(always)]
unsafe fn dots<L: Lanes, E: Element, const R: usize>(
    w: *const u8,
    k: usize,
    x: *const f32,
    x_stride: usize,
    out: *mut f32,
) {
    // SAFETY: the caller promises `k` elements and R rows of `k` f32; whole vectors stay below k, the last is partial. A
    // prefetch may name any address.
    unsafe {
        let mut even = [L::splat(0.0); R];
        let mut odd = [L::splat(0.0); R];
        let mut col = 0;
        while col + 2 * L::N <= k {
            let p = w.add(col * E::BYTES);
            for line in (0..2 * L::N * E::BYTES).step_by(64) {
                prefetch(p.wrapping_add(AHEAD + line));
            }
            let (w0, w1) = (E::load::<L>(p), E::load::<L>(p.add(L::N * E::BYTES)));
            for r in 0..R {
                let x = x.add(r * x_stride + col);
                even[r] = w0.fma(L::load(x), even[r]);
                odd[r] = w1.fma(L::load(x.add(L::N)), odd[r]);
            }
            col += 2 * L::N;
        }
        while col < k {
            let n = (k - col).min(L::N);
            let w = E::load_partial::<L>(w.add(col * E::BYTES), n);
            for r in 0..R {
                even[r] = w.fma(L::load_partial(x.add(r * x_stride + col), n), even[r]);
            }
            col += n;
        }
        for r in 0..R {
            *out.add(r * LANES) = even[r].add(odd[r]).sum();
        }
    }
}
