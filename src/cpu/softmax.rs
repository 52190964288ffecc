//! Softmax of one row: y = e^(x − max x) / Σ e^(x − max x).

use super::isa::Isa;
use super::simd::{Lanes, entry, exp};

entry! {
    fn softmax_fn(x: *mut f32, n: usize) = body::<L>
}

/// Replaces `x` by its softmax; an empty row stays empty. Attention computes the same piece by piece.
pub fn softmax(isa: Isa, x: &mut [f32]) {
    // SAFETY: an `Isa` is a promise about the machine; the slice is writable.
    unsafe { softmax_fn(isa)(x.as_mut_ptr(), x.len()) }
}

#[inline(always)]
unsafe fn body<L: Lanes>(x: *mut f32, n: usize) {
    // SAFETY: the caller promises `n` f32; vectors stay below n, the last is partial.
    unsafe {
        let whole = n - n % L::N;
        let mut greatest = L::splat(f32::NEG_INFINITY);
        for i in (0..whole).step_by(L::N) {
            greatest = greatest.max(L::load(x.add(i)));
        }
        let mut peak = greatest.greatest();
        for i in whole..n {
            peak = peak.max(*x.add(i));
        }
        let mut total = 0.0f64;
        for i in (0..n).step_by(L::N) {
            let take = (n - i).min(L::N);
            let e = exp(L::load_partial(x.add(i), take).sub(L::splat(peak)));
            e.store_partial(x.add(i), take);
            // Read back, so that lanes past the row count as 0.
            total += f64::from(L::load_partial(x.add(i), take).sum());
        }
        let scale = L::splat((1.0 / total) as f32);
        for i in (0..n).step_by(L::N) {
            let take = (n - i).min(L::N);
            L::load_partial(x.add(i), take)
                .mul(scale)
                .store_partial(x.add(i), take);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::test_data::{Random, assert_close};

    #[test]
    fn agrees_with_the_formula() {
        let mut random = Random::from_clock();
        for isa in Isa::available() {
            for n in [1, 2, 7, 8, 9, 15, 16, 17, 33, 511, 4096, 49_152] {
                for spread in [0.1, 3.0, 8.0] {
                    let mut x: Vec<f32> = random.normal(n).iter().map(|x| x * spread).collect();
                    let peak = x.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
                    let e: Vec<f64> = x
                        .iter()
                        .map(|&x| (f64::from(x) - f64::from(peak)).exp())
                        .collect();
                    let sum: f64 = e.iter().sum();
                    let expected: Vec<f64> = e.iter().map(|e| e / sum).collect();
                    softmax(isa, &mut x);
                    // x − max is rounded to f32, which moves e^(x − max) by as much as |x − max| units in the last place
                    // of 1; at a difference of 16 that is the bound.
                    assert_close(
                        &x,
                        &expected,
                        1e-6,
                        1e-9,
                        &format!("{isa} n={n} spread={spread}"),
                    );
                }
            }
        }
    }
}
