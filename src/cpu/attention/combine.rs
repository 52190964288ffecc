//! Merging the partial results of a query head.

use crate::cpu::simd::{Lanes, entry, exp};

entry! {
    /// Merges `splits` partial results, `stride` f32 apart, into `out [d]`.
    pub(super) fn combine_fn(partials: *const f32, splits: usize, stride: usize, out: *mut f32, d: usize) = body::<L>
}

/// Vectors of sums held in registers while the splits pass by: all of D = 128 in AVX-512.
const SIDE_BY_SIDE: usize = 8;

/// A split's sums are relative to its own maximum: rescaled to the greatest, they add up.
///
/// # Safety
/// As for [`Lanes`]: partial results as `partial_fn` writes them, each with a finite maximum, and `d` f32 of `out`.
#[inline(always)]
unsafe fn body<L: Lanes>(
    partials: *const f32,
    splits: usize,
    stride: usize,
    out: *mut f32,
    d: usize,
) {
    // SAFETY: the caller's promise; sums are padded to whole vectors, the output is not.
    unsafe {
        let padded = stride - 16;
        let mut peak = f32::NEG_INFINITY;
        for s in 0..splits {
            peak = peak.max(*partials.add(s * stride + padded));
        }
        for first in (0..padded).step_by(SIDE_BY_SIDE * L::N) {
            let mut total = L::splat(0.0);
            let mut sums = [L::splat(0.0); SIDE_BY_SIDE];
            for s in 0..splits {
                let at = partials.add(s * stride);
                let factor = exp(L::splat(*at.add(padded) - peak));
                total = L::splat(*at.add(padded + 1)).fma(factor, total);
                for (v, sum) in sums.iter_mut().enumerate() {
                    if first + v * L::N < padded {
                        *sum = L::load(at.add(first + v * L::N)).fma(factor, *sum);
                    }
                }
            }
            for (v, sum) in sums.into_iter().enumerate() {
                let i = first + v * L::N;
                if i < d {
                    sum.div(total).store_partial(out.add(i), d - i);
                }
            }
        }
    }
}
