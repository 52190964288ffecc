//! Merging the partial results of a query head.

use crate::cpu::simd::{Lanes, entry};

entry! {
    /// Merges `splits` partial results, `stride` f32 apart, into `out [d]`.
    pub(super) fn combine_fn(partials: *const f32, splits: usize, stride: usize, out: *mut f32, d: usize) = body::<L>
}

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
        let mut total = 0.0f64;
        for s in 0..splits {
            let at = partials.add(s * stride + padded);
            // A call of the scalar function, so that every instruction set gets the same factor.
            total += f64::from(*at.add(1)) * f64::from(*at - peak).exp();
        }
        let inverse = 1.0 / total;
        for i in (0..d).step_by(L::N) {
            let mut sum = L::splat(0.0);
            for s in 0..splits {
                let at = partials.add(s * stride);
                let factor = f64::from(*at.add(padded) - peak).exp() * inverse;
                sum = L::load(at.add(i)).fma(L::splat(factor as f32), sum);
            }
            sum.store_partial(out.add(i), d - i);
        }
    }
}
