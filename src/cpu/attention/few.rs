//! Products with a tile of K or V for few queries, as decode has them: converting a tile pays only if many queries use
//! it, so here its rows are read straight into the products.

use super::flash::{TILE, Unit};
use super::stored::Stored;
use crate::cpu::kv::HeadRows;
use crate::cpu::simd::Lanes;
use crate::cpu::tile::{Rows, Start};

/// The most queries for which this is faster than a converted tile (at D = 64 the transposition of a tile of K costs
/// as much as the sums across lanes of about nine queries).
pub(super) const FEW: usize = 8;

/// How far ahead, in bytes, rows are asked for: measured for the [GEMV](crate::cpu::gemm_f), and alike here.
const AHEAD: usize = 8192;

/// Positions whose products with the same queries are summed side by side.
const POSITIONS: usize = 4;

/// `scores[i][p] = q[i] · K[first + p]` for every query and p below `live` rounded up to 16; positions past `live`
/// repeat the last live one.
///
/// # Safety
/// As for [`Lanes`]; positions `first..first + live` of K are readable; `q` is padded with 0 to whole vectors.
#[inline(always)]
pub(super) unsafe fn scores<L: Lanes, C: Stored>(
    unit: &Unit,
    (first, live): (usize, usize),
    q: Rows<*const f32>,
    scores: Rows<*mut f32>,
) {
    let queries = unit.rows * unit.group;
    let mut query = 0;
    macro_rules! queries {
        ($n:literal) => {
            while queries - query >= $n {
                for p in (0..live.next_multiple_of(16)).step_by(POSITIONS) {
                    // SAFETY: the caller's promise, for queries `query..query + n`.
                    unsafe { dots::<L, C, $n>(unit, first, (p, live), q, query, scores) }
                }
                query += $n;
            }
        };
    }
    // Sums held: four of AVX-512's 32 registers a query, of AVX2's 16.
    if L::N == 16 {
        queries!(4);
        queries!(3);
    }
    queries!(2);
    queries!(1);
}

/// `M` queries times [`POSITIONS`] positions from `p` on.
#[inline(always)]
unsafe fn dots<L: Lanes, C: Stored, const M: usize>(
    unit: &Unit,
    first: usize,
    (p, live): (usize, usize),
    q: Rows<*const f32>,
    query: usize,
    scores: Rows<*mut f32>,
) {
    // SAFETY: the caller's promise; the positions read are below `first + live`, a prefetch may name any address.
    unsafe {
        let q = q.at.add(query * q.stride);
        let stride = unit.d.next_multiple_of(16);
        let mut rows = [0; POSITIONS];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = (first + (p + i).min(live - 1)) * unit.d;
        }
        let mut sums = [[L::splat(0.0); POSITIONS]; M];
        let mut col = 0;
        while col + 2 * L::N <= unit.d {
            for row in rows {
                C::prefetch(unit.k, row + col, AHEAD);
            }
            let mut keys = [[L::splat(0.0); POSITIONS]; 2];
            for (i, row) in rows.into_iter().enumerate() {
                let [even, odd] = C::pair::<L>(unit.k, row + col);
                (keys[0][i], keys[1][i]) = (even, odd);
            }
            for (v, keys) in keys.into_iter().enumerate() {
                add_products(&mut sums, q.add(col + v * L::N), stride, keys);
            }
            col += 2 * L::N;
        }
        while col < unit.d {
            let mut keys = [L::splat(0.0); POSITIONS];
            for (key, row) in keys.iter_mut().zip(rows) {
                *key = C::some::<L>(unit.k, row + col, unit.d - col);
            }
            add_products(&mut sums, q.add(col), stride, keys);
            col += L::N;
        }
        for (m, sums) in sums.into_iter().enumerate() {
            let at = scores.at.add((query + m) * scores.stride + p);
            L::store_sums(sums, at);
        }
    }
}

/// `sums[m][i] += q[m] · keys[i]`, lane by lane.
#[inline(always)]
unsafe fn add_products<L: Lanes, const M: usize>(
    sums: &mut [[L; POSITIONS]; M],
    q: *const f32,
    stride: usize,
    keys: [L; POSITIONS],
) {
    for (m, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller of `dots` promises M queries, padded to whole vectors.
        unsafe {
            let q = L::load(q.add(m * stride));
            for (sum, key) in sums.iter_mut().zip(keys) {
                *sum = key.fma(q, *sum);
            }
        }
    }
}

/// `sums[i] (+)= Σ_p weights[i][p] · V[first + p]` for every query, padded with 0 to whole vectors.
///
/// # Safety
/// As for [`Lanes`]; positions `first..first + live` of V are readable; `start` holds a factor a query.
#[inline(always)]
pub(super) unsafe fn weighted_sums<L: Lanes, C: Stored>(
    unit: &Unit,
    (first, live): (usize, usize),
    weights: *const f32,
    sums: Rows<*mut f32>,
    start: Start,
) {
    let queries = unit.rows * unit.group;
    let values = (unit.v, first * unit.d);
    let mut query = 0;
    macro_rules! queries {
        ($n:literal) => {
            while queries - query >= $n {
                let mut col = 0;
                // SAFETY: the caller's promise, for queries `query..query + n` and columns below the padded D.
                unsafe {
                    let weights = weights.add(query * TILE);
                    while L::N == 16 && col + 4 * L::N <= unit.d {
                        columns::<L, C, $n, 4>((values, unit.d), live, weights, (query, col), sums, start);
                        col += 4 * L::N;
                    }
                    while col + 2 * L::N <= unit.d {
                        columns::<L, C, $n, 2>((values, unit.d), live, weights, (query, col), sums, start);
                        col += 2 * L::N;
                    }
                    while col < sums.stride {
                        columns::<L, C, $n, 1>((values, unit.d), live, weights, (query, col), sums, start);
                        col += L::N;
                    }
                }
                query += $n;
            }
        };
    }
    queries!(4);
    queries!(3);
    queries!(2);
    queries!(1);
}

/// `M` queries and `NV` vectors of columns from `col` on.
#[inline(always)]
unsafe fn columns<L: Lanes, C: Stored, const M: usize, const NV: usize>(
    ((values, first), d): ((HeadRows, usize), usize),
    live: usize,
    weights: *const f32,
    (query, col): (usize, usize),
    sums: Rows<*mut f32>,
    start: Start,
) {
    // SAFETY: the caller's promise; only a last single vector is partial, or past D and then empty.
    unsafe {
        let out = sums.at.add(query * sums.stride + col);
        let mut acc = [[L::splat(0.0); NV]; M];
        if !matches!(start, Start::Zero) {
            for (m, acc) in acc.iter_mut().enumerate() {
                let factor = match start {
                    Start::Scaled(factors) => *factors.add(query + m),
                    Start::Zero | Start::Sum => 1.0,
                };
                for (v, acc) in acc.iter_mut().enumerate() {
                    *acc = L::load(out.add(m * sums.stride + v * L::N)).mul(L::splat(factor));
                }
            }
        }
        let whole = col + NV * L::N <= d;
        for p in 0..live {
            let row = first + p * d;
            let mut value = [L::splat(0.0); NV];
            if whole && NV > 1 {
                for v in (0..NV).step_by(2) {
                    C::prefetch(values, row + col + v * L::N, AHEAD);
                    let [even, odd] = C::pair::<L>(values, row + col + v * L::N);
                    (value[v], value[v + 1]) = (even, odd);
                }
            } else {
                value[0] = C::some::<L>(values, row + col.min(d), d.saturating_sub(col));
            }
            for (m, acc) in acc.iter_mut().enumerate() {
                let weight = L::splat(*weights.add(m * TILE + p));
                for (acc, value) in acc.iter_mut().zip(value) {
                    *acc = weight.fma(value, *acc);
                }
            }
        }
        for (m, acc) in acc.into_iter().enumerate() {
            for (v, acc) in acc.into_iter().enumerate() {
                acc.store(out.add(m * sums.stride + v * L::N));
            }
        }
    }
}
