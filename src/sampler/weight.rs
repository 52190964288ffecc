//! Weights as integers: the twin of `exponential` in `kernels/common.h` and of `fixed` in `kernels/sample.hip`.

/// The weight of the likeliest token.
pub const ONE: u64 = 1 << FRACTION;

/// Bits of a weight below the likeliest token's.
const FRACTION: u32 = 40;

/// e^x for x ≤ 0 with a relative error below 2·10⁻⁷; 0 below −87. The formula of `cpu::simd::exp`, with multiply-adds
/// that are rounded once whatever the machine, where that one may take what is fast.
#[inline(always)]
fn exponential(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    let clamped = if x < -87.0 { -87.0 } else { x };
    let magic = clamped.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = magic - MAGIC;
    let r = n.mul_add(-0.693_359_4, clamped);
    let r = n.mul_add(2.121_944_4e-4, r);
    let p = 1.987_569_1e-4_f32.mul_add(r, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 0.5);
    let p = p.mul_add(r * r, r) + 1.0;
    let scaled = f32::from_bits(p.to_bits().wrapping_add(magic.to_bits() << 23));
    if x < -87.0 { 0.0 } else { scaled }
}

/// `⌊2⁴⁰ · x⌋` for x in 0 ..= 1.
#[inline(always)]
fn fixed(x: f32) -> u64 {
    let bits = x.to_bits();
    let (exponent, mantissa) = (bits >> 23, u64::from(bits & 0x007f_ffff | 0x0080_0000));
    // 2⁴⁰ · x = mantissa · 2^(exponent − 127 − 23 + 40); without a branch, so that a loop over it vectorises.
    let left = mantissa << exponent.saturating_sub(110).min(17);
    left >> 110u32.saturating_sub(exponent).min(63)
}

/// A token's weight: its probability at a temperature, up to the factor that makes the likeliest token's weight
/// [`ONE`]. `max` is finite and at least `logit`, which is not NaN.
#[inline(always)]
pub fn weight(logit: f32, max: f32, inverse_temperature: f32) -> u64 {
    fixed(exponential((logit - max) * inverse_temperature))
}

/// The weights of a row, 0 where `x − max` is below `floor`; what the passes over whole rows call, in the instance that
/// suits the machine.
#[inline(always)]
pub fn weigh(row: &[f32], max: f32, inverse_temperature: f32, floor: f32, out: &mut [u64]) {
    for (out, &x) in out.iter_mut().zip(row) {
        let weight = weight(x, max, inverse_temperature);
        *out = if x - max >= floor { weight } else { 0 };
    }
}

/// `⌊fraction · total / 2⁶⁴⌋`: below `total` unless that is 0.
pub fn share(fraction: u64, total: u64) -> u64 {
    ((u128::from(fraction) * u128::from(total)) >> 64) as u64
}
