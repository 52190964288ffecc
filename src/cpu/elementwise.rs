//! Sums and products of rows, element by element.

use super::isa::Isa;
use super::simd::{Lanes, entry};

entry! {
    /// The instance of [`add`] for an instruction set.
    pub fn add_fn(a: *const f32, b: *const f32, y: *mut f32, n: usize) = add_body::<L>
}
entry! {
    /// The instance of [`scale`] for an instruction set.
    pub fn scale_fn(x: *const f32, factor: f32, y: *mut f32, n: usize) = scale_body::<L>
}

/// `y [n] = a [n] + b [n]`.
///
/// # Safety
/// The machine runs `isa`; `a` and `b` hold `n` readable f32, `y` `n` writable ones; `y` is one of them or overlaps
/// neither.
#[inline]
pub unsafe fn add(isa: Isa, a: *const f32, b: *const f32, y: *mut f32, n: usize) {
    // SAFETY: the caller's promise is the instance's.
    unsafe { add_fn(isa)(a, b, y, n) }
}

/// `y [n] = x [n] · factor`.
///
/// # Safety
/// The machine runs `isa`; `x` holds `n` readable f32, `y` `n` writable ones; `y` is `x` or does not overlap it.
#[inline]
pub unsafe fn scale(isa: Isa, x: *const f32, factor: f32, y: *mut f32, n: usize) {
    // SAFETY: the caller's promise is the instance's.
    unsafe { scale_fn(isa)(x, factor, y, n) }
}

#[inline(always)]
unsafe fn add_body<L: Lanes>(a: *const f32, b: *const f32, y: *mut f32, n: usize) {
    // SAFETY: the caller's promise; vectors stay below n, the last is partial.
    unsafe {
        let mut i = 0;
        while i + L::N <= n {
            L::load(a.add(i)).add(L::load(b.add(i))).store(y.add(i));
            i += L::N;
        }
        if i < n {
            let a = L::load_partial(a.add(i), n - i);
            let b = L::load_partial(b.add(i), n - i);
            a.add(b).store_partial(y.add(i), n - i);
        }
    }
}

#[inline(always)]
unsafe fn scale_body<L: Lanes>(x: *const f32, factor: f32, y: *mut f32, n: usize) {
    // SAFETY: the caller's promise; vectors stay below n, the last is partial.
    unsafe {
        let factor = L::splat(factor);
        let mut i = 0;
        while i + L::N <= n {
            L::load(x.add(i)).mul(factor).store(y.add(i));
            i += L::N;
        }
        if i < n {
            let scaled = L::load_partial(x.add(i), n - i).mul(factor);
            scaled.store_partial(y.add(i), n - i);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::test_data::Random;

    #[test]
    fn every_path_rounds_alike() {
        let mut random = Random::from_clock();
        for isa in Isa::available() {
            for n in [1, 7, 8, 9, 16, 31, 576] {
                let (a, b) = (random.normal(n), random.normal(n));
                let mut y = vec![f32::NAN; n + 1];
                // SAFETY: the slices hold `n` elements and `isa` is available.
                unsafe { add(isa, a.as_ptr(), b.as_ptr(), y.as_mut_ptr(), n) };
                assert!((0..n).all(|i| y[i] == a[i] + b[i]), "{isa} n={n}");
                // SAFETY: as above.
                unsafe { scale(isa, a.as_ptr(), 24.0, y.as_mut_ptr(), n) };
                assert!((0..n).all(|i| y[i] == a[i] * 24.0), "{isa} n={n}");
                assert!(y[n].is_nan(), "{isa} n={n}: wrote past the end");
            }
        }
    }
}
