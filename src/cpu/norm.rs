//! Root-mean-square normalisation: y = x · w / √(mean(x²) + eps).
//!
//! The mean of squares is the one sum a whole row depends on, so it is summed in f64 over short f32 runs: its relative
//! error stays near 10⁻⁷ at any length. A norm per head is the same function on `D` elements.

use super::isa::Isa;
use super::simd::{Lanes, entry};

/// Vectors each accumulator sums in f32 before it moves into the f64 sum.
const RUN: usize = 8;

/// Accumulators: enough to hide an addition's latency.
const SIDE_BY_SIDE: usize = 4;

entry! {
    /// The instance of [`rms_norm`] for an instruction set, for callers that resolve it once.
    pub fn rms_norm_fn(x: *const f32, weight: *const f32, eps: f32, y: *mut f32, n: usize) = body::<L>
}

/// `y [n] = x [n] · weight [n] / √(mean(x²) + eps)`.
///
/// `y` may be `x`, or a buffer that the caller quantises next. `n` is at least 1.
///
/// # Safety
/// The machine runs `isa`; `x` and `weight` hold `n` readable f32, `y` `n` writable ones; `y` is `x` or overlaps
/// neither.
#[inline]
pub unsafe fn rms_norm(
    isa: Isa,
    x: *const f32,
    weight: *const f32,
    eps: f32,
    y: *mut f32,
    n: usize,
) {
    // SAFETY: the caller's promise is the instance's.
    unsafe { rms_norm_fn(isa)(x, weight, eps, y, n) }
}

#[inline(always)]
unsafe fn body<L: Lanes>(x: *const f32, weight: *const f32, eps: f32, y: *mut f32, n: usize) {
    // SAFETY: the caller's promise; each vector is read before it is written, so `y` may be `x`.
    unsafe {
        let mean = square_sum::<L>(x, n) / n as f64;
        let scale = L::splat((1.0 / (mean + f64::from(eps)).sqrt()) as f32);
        let mut i = 0;
        while i + L::N <= n {
            let scaled = L::load(x.add(i)).mul(scale);
            scaled.mul(L::load(weight.add(i))).store(y.add(i));
            i += L::N;
        }
        if i < n {
            let scaled = L::load_partial(x.add(i), n - i).mul(scale);
            let scaled = scaled.mul(L::load_partial(weight.add(i), n - i));
            scaled.store_partial(y.add(i), n - i);
        }
    }
}

#[inline(always)]
unsafe fn square_sum<L: Lanes>(x: *const f32, n: usize) -> f64 {
    // SAFETY: the caller promises `n` readable f32; vectors stay below n, the last is partial.
    unsafe {
        let mut total = 0.0f64;
        let mut i = 0;
        while i + SIDE_BY_SIDE * L::N <= n {
            let mut sums = [L::splat(0.0); SIDE_BY_SIDE];
            let mut run = 0;
            while run < RUN && i + SIDE_BY_SIDE * L::N <= n {
                for (v, sum) in sums.iter_mut().enumerate() {
                    let x = L::load(x.add(i + v * L::N));
                    *sum = x.fma(x, *sum);
                }
                i += SIDE_BY_SIDE * L::N;
                run += 1;
            }
            let sum = sums[0].add(sums[1]).add(sums[2].add(sums[3]));
            total += f64::from(sum.sum());
        }
        let mut rest = L::splat(0.0);
        while i < n {
            let take = (n - i).min(L::N);
            let x = L::load_partial(x.add(i), take);
            rest = x.fma(x, rest);
            i += take;
        }
        total + f64::from(rest.sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::test_data::{Random, assert_close};

    fn check(isa: Isa, n: usize, magnitude: f32, random: &mut Random) {
        let x: Vec<f32> = random.normal(n).iter().map(|x| x * magnitude).collect();
        let weight = random.normal(n);
        let eps = 1e-5f32;
        let mean: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n as f64;
        let scale = 1.0 / (mean + f64::from(eps)).sqrt();
        let expected: Vec<f64> = (0..n)
            .map(|i| f64::from(x[i]) * scale * f64::from(weight[i]))
            .collect();
        let mut y = vec![f32::NAN; n + 1];
        // SAFETY: the slices hold `n` elements and `isa` is available.
        unsafe { rms_norm(isa, x.as_ptr(), weight.as_ptr(), eps, y.as_mut_ptr(), n) };
        assert_close(&y[..n], &expected, 5e-7, 0.0, &format!("{isa} n={n}"));
        assert!(y[n].is_nan(), "{isa} n={n}: wrote past the end");
        let mut in_place = x.clone();
        // SAFETY: as above; in place is allowed.
        unsafe {
            rms_norm(
                isa,
                in_place.as_ptr(),
                weight.as_ptr(),
                eps,
                in_place.as_mut_ptr(),
                n,
            )
        };
        assert_eq!(in_place, y[..n]);
    }

    #[test]
    fn agrees_with_the_formula() {
        let mut random = Random::from_clock();
        for isa in Isa::available() {
            for n in [
                1, 2, 7, 8, 15, 16, 17, 63, 64, 65, 127, 128, 576, 1000, 4096, 8199,
            ] {
                for magnitude in [1e-4, 1.0, 300.0] {
                    check(isa, n, magnitude, &mut random);
                }
            }
        }
    }
}
