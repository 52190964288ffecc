//! The register tile that the float GEMM and prompt attention are made of: C [M, N] (+)= A [M, K] · B [K, N].
//!
//! A's elements are broadcast, B's rows are vectors. The tile is as large as the registers allow (24 of AVX-512's 32
//! hold sums, 12 of AVX2's 16), because each loaded vector is then used for that many products: the loads of a step
//! stay below its multiplications, which is what bounds the speed. Where a tile of two vectors by 12 rows is possible it
//! beats one by 24: that loads 24 elements of A a step, from more addresses than there are registers for.

#![allow(clippy::needless_range_loop)] // Registers are numbered: rows and vectors by index read like the formula.

use super::simd::Lanes;

/// Steps of a tile between two branches; more make the compiler keep addresses in memory.
const UNROLL: usize = 4;

/// What the sums of a tile start from.
#[derive(Clone, Copy)]
pub(crate) enum Start {
    /// 0: C is written only.
    Zero,
    /// What C holds.
    Sum,
    /// What C holds, row `r` multiplied by the `r`-th factor.
    Scaled(*const f32),
}

/// A matrix: the address of its first element, and elements from one row to the next.
#[derive(Clone, Copy)]
pub(crate) struct Rows<P> {
    pub(crate) at: P,
    pub(crate) stride: usize,
}

impl Rows<*const f32> {
    /// The matrix without its first `col` columns.
    #[inline(always)]
    pub(crate) fn from(self, col: usize) -> Self {
        let at = self.at.wrapping_add(col);
        Rows { at, ..self }
    }
}

impl Rows<*mut f32> {
    /// The matrix without its first `col` columns.
    #[inline(always)]
    pub(crate) fn from(self, col: usize) -> Self {
        let at = self.at.wrapping_add(col);
        Rows { at, ..self }
    }
}

/// C [m, n] (+)= A [m, k] · B [k, n] for `n` a multiple of 16.
///
/// # Safety
/// As for [`Lanes`]; A and B are readable and C writable in the given sizes, C overlapping neither.
#[inline(always)]
pub(crate) unsafe fn multiply<L: Lanes>(
    (m, n, k): (usize, usize, usize),
    a: Rows<*const f32>,
    b: Rows<*const f32>,
    c: Rows<*mut f32>,
    start: Start,
) {
    let next = (L::N, L::N);
    // SAFETY: the caller's promise; the steps below stay inside m and n.
    unsafe {
        let mut col = 0;
        while L::N == 16 && n - col >= 4 * L::N {
            column::<L, 4>(m, k, a, b.from(col), c.from(col), next, start);
            col += 4 * L::N;
        }
        while n - col >= 2 * L::N {
            column::<L, 2>(m, k, a, b.from(col), c.from(col), next, start);
            col += 2 * L::N;
        }
        while n - col >= L::N {
            column::<L, 1>(m, k, a, b.from(col), c.from(col), next, start);
            col += L::N;
        }
    }
}

/// As [`multiply`] for two panels of 16 columns: in B the second lies `next.0` elements after the first, in C `next.1`.
///
/// # Safety
/// As for [`multiply`].
#[inline(always)]
pub(crate) unsafe fn multiply_pair<L: Lanes>(
    (m, k): (usize, usize),
    a: Rows<*const f32>,
    b: Rows<*const f32>,
    c: Rows<*mut f32>,
    next: (usize, usize),
    start: Start,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if L::N == 16 {
            column::<L, 2>(m, k, a, b, c, next, start);
        } else {
            // Two vectors of a panel already share each broadcast.
            multiply::<L>((m, 16, k), a, b, c, start);
            multiply::<L>((m, 16, k), a, b.from(next.0), c.from(next.1), start);
        }
    }
}

/// `NV` vectors of columns, all rows. From one vector to the next there are `next.0` elements in B, `next.1` in C.
#[inline(always)]
unsafe fn column<L: Lanes, const NV: usize>(
    m: usize,
    k: usize,
    a: Rows<*const f32>,
    b: Rows<*const f32>,
    c: Rows<*mut f32>,
    next: (usize, usize),
    start: Start,
) {
    let mut row = 0;
    macro_rules! rows {
        ($mr:literal) => {
            while m - row >= $mr {
                // SAFETY: rows row..row + MR and the columns of B and C exist, which the caller promises.
                unsafe { tile::<L, $mr, NV>(k, a, b, c, next, start, row) };
                row += $mr;
            }
        };
    }
    // Each height holds as many sums as the machine hides latencies with, or is what is left of one that does.
    match (L::N, NV) {
        (16, 1) => {
            rows!(24);
            rows!(16);
            rows!(8);
        }
        (16, 2) => {
            rows!(12);
            rows!(8);
        }
        (16, _) => {
            rows!(6);
            rows!(3);
        }
        _ => rows!(6),
    }
    rows!(4);
    rows!(2);
    rows!(1);
}

/// One tile: `MR` rows from `row` on.
#[inline(always)]
unsafe fn tile<L: Lanes, const MR: usize, const NV: usize>(
    k: usize,
    a: Rows<*const f32>,
    b: Rows<*const f32>,
    c: Rows<*mut f32>,
    next: (usize, usize),
    start: Start,
    row: usize,
) {
    // SAFETY: the caller's promise: rows `row..row + MR` of A and C, `NV` vectors of columns of B and C, `k` steps.
    unsafe {
        let a_rows = a.at.add(row * a.stride);
        let c_rows = c.at.add(row * c.stride);
        let mut b_row = b.at;
        let mut sums = [[L::splat(0.0); NV]; MR];
        match start {
            Start::Zero => {}
            Start::Sum => {
                for r in 0..MR {
                    for v in 0..NV {
                        sums[r][v] = L::load(c_rows.add(r * c.stride + v * next.1));
                    }
                }
            }
            Start::Scaled(factors) => {
                for r in 0..MR {
                    let factor = L::splat(*factors.add(row + r));
                    for v in 0..NV {
                        sums[r][v] = L::load(c_rows.add(r * c.stride + v * next.1)).mul(factor);
                    }
                }
            }
        }
        let mut step = 0;
        while step + UNROLL <= k {
            for _ in 0..UNROLL {
                add_step(&mut sums, a_rows.add(step), a.stride, b_row, next.0);
                b_row = b_row.wrapping_add(b.stride);
                step += 1;
            }
        }
        while step < k {
            add_step(&mut sums, a_rows.add(step), a.stride, b_row, next.0);
            b_row = b_row.wrapping_add(b.stride);
            step += 1;
        }
        for r in 0..MR {
            for v in 0..NV {
                sums[r][v].store(c_rows.add(r * c.stride + v * next.1));
            }
        }
    }
}

/// Adds to each sum the product of its row of A's column at `a` and its vector of B's row at `b`.
#[inline(always)]
unsafe fn add_step<L: Lanes, const MR: usize, const NV: usize>(
    sums: &mut [[L; NV]; MR],
    a: *const f32,
    a_stride: usize,
    b: *const f32,
    b_next: usize,
) {
    // SAFETY: the caller's promise: `MR` rows of A, `NV` vectors of B.
    unsafe {
        let mut vectors = [L::splat(0.0); NV];
        for v in 0..NV {
            vectors[v] = L::load(b.add(v * b_next));
        }
        for r in 0..MR {
            let x = L::splat(*a.add(r * a_stride));
            for v in 0..NV {
                sums[r][v] = x.fma(vectors[v], sums[r][v]);
            }
        }
    }
}
