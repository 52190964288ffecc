//! The exponential of a vector.

use super::Lanes;

/// Adding it to a float below 2²² in magnitude leaves the nearest integer in the low bits of the mantissa.
const MAGIC: f32 = 12_582_912.0;

/// ln 2 in two parts; the first has so few bits that its product with an exponent is exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// Below this the result is 0 instead of a subnormal, above [`GREATEST`] it is that of `GREATEST`.
const LEAST: f32 = -87.0;
const GREATEST: f32 = 88.376_26;

/// exp(x) with a relative error below 2·10⁻⁷; 0 below −87; NaN stays NaN.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2, and e^r by Cephes's polynomial of degree 7 (`expf.c`).
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn exp<L: Lanes>(x: L) -> L {
    // SAFETY: the caller's promise.
    unsafe {
        let clamped = L::splat(GREATEST).min(L::splat(LEAST).max(x));
        let magic = clamped.fma(L::splat(std::f32::consts::LOG2_E), L::splat(MAGIC));
        let n = magic.sub(L::splat(MAGIC));
        let r = n.fma(L::splat(-LN2_HIGH), clamped);
        let r = n.fma(L::splat(-LN2_LOW), r);
        let p = L::splat(1.987_569_1e-4);
        let p = p.fma(r, L::splat(1.398_199_9e-3));
        let p = p.fma(r, L::splat(8.333_452e-3));
        let p = p.fma(r, L::splat(4.166_579_6e-2));
        let p = p.fma(r, L::splat(1.666_666_5e-1));
        let p = p.fma(r, L::splat(0.5));
        let p = p.fma(r.mul(r), r).add(L::splat(1.0));
        p.shift_exponent(magic).zero_where_below(x, L::splat(LEAST))
    }
}
