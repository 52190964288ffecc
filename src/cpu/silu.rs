//! The gated activations of a feed-forward block: y = silu(gate) · up and y = gelu(gate) · up.

use super::isa::Isa;
use super::simd::{Lanes, entry, exp};
use crate::graph;

entry! {
    /// The instance of [`silu_mul`] for an instruction set.
    pub fn silu_mul_fn(gate: *const f32, up: *const f32, y: *mut f32, n: usize) = body::<L, Silu>
}
entry! {
    /// The instance of [`gelu_tanh_mul`] for an instruction set.
    pub fn gelu_tanh_mul_fn(gate: *const f32, up: *const f32, y: *mut f32, n: usize) = body::<L, GeluTanh>
}

/// `y [n] = gate [n] / (1 + e^−gate) · up [n]`.
///
/// # Safety
/// The machine runs `isa`; `gate` and `up` hold `n` readable f32, `y` `n` writable ones; `y` is one of them or overlaps
/// neither.
#[inline]
pub unsafe fn silu_mul(isa: Isa, gate: *const f32, up: *const f32, y: *mut f32, n: usize) {
    // SAFETY: the caller's promise is the instance's.
    unsafe { silu_mul_fn(isa)(gate, up, y, n) }
}

/// `y [n] = gelu(gate [n]) · up [n]` with GELU's tanh form, ½·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))).
///
/// # Safety
/// As for [`silu_mul`].
#[inline]
pub unsafe fn gelu_tanh_mul(isa: Isa, gate: *const f32, up: *const f32, y: *mut f32, n: usize) {
    // SAFETY: the caller's promise is the instance's.
    unsafe { gelu_tanh_mul_fn(isa)(gate, up, y, n) }
}

/// `y [n] = activation(gate [n]) · up [n]`.
///
/// # Safety
/// As for [`silu_mul`].
#[inline]
pub unsafe fn gated_mul(
    isa: Isa,
    activation: graph::Activation,
    gate: *const f32,
    up: *const f32,
    y: *mut f32,
    n: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match activation {
            graph::Activation::Silu => silu_mul(isa, gate, up, y, n),
            graph::Activation::GeluTanh => gelu_tanh_mul(isa, gate, up, y, n),
        }
    }
}

/// x / (1 + e^−z(x)), which both activations are.
trait Activation {
    /// −z(x).
    unsafe fn exponent<L: Lanes>(x: L) -> L;
}

struct Silu;

impl Activation for Silu {
    #[inline(always)]
    unsafe fn exponent<L: Lanes>(x: L) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::splat(0.0).sub(x) }
    }
}

struct GeluTanh;

impl Activation for GeluTanh {
    /// ½·(1 + tanh u) = 1 / (1 + e^−2u).
    #[inline(always)]
    unsafe fn exponent<L: Lanes>(x: L) -> L {
        const LINEAR: f32 = -2.0 * 0.797_884_6;
        // SAFETY: the caller's promise.
        unsafe {
            let cubic = x.mul(x).mul(L::splat(LINEAR * 0.044_715));
            cubic.add(L::splat(LINEAR)).mul(x)
        }
    }
}

#[inline(always)]
unsafe fn body<L: Lanes, A: Activation>(gate: *const f32, up: *const f32, y: *mut f32, n: usize) {
    // SAFETY: the caller's promise; each vector is read before it is written.
    unsafe {
        let mut i = 0;
        while i + L::N <= n {
            let gated = gated::<L, A>(L::load(gate.add(i)));
            gated.mul(L::load(up.add(i))).store(y.add(i));
            i += L::N;
        }
        if i < n {
            let gated = gated::<L, A>(L::load_partial(gate.add(i), n - i));
            let up = L::load_partial(up.add(i), n - i);
            gated.mul(up).store_partial(y.add(i), n - i);
        }
    }
}

#[inline(always)]
unsafe fn gated<L: Lanes, A: Activation>(x: L) -> L {
    // SAFETY: the caller's promise.
    unsafe { x.div(exp(A::exponent(x)).add(L::splat(1.0))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::test_data::{Random, assert_close};

    type Kernel = unsafe fn(Isa, *const f32, *const f32, *mut f32, usize);

    fn check(kernel: Kernel, formula: fn(f64) -> f64, isa: Isa, gate: &[f32], up: &[f32]) {
        let n = gate.len();
        let expected: Vec<f64> = (0..n)
            .map(|i| formula(f64::from(gate[i])) * f64::from(up[i]))
            .collect();
        let mut y = vec![f32::NAN; n + 1];
        // SAFETY: the slices hold `n` elements and `isa` is available.
        unsafe { kernel(isa, gate.as_ptr(), up.as_ptr(), y.as_mut_ptr(), n) };
        // The exponent's rounding is amplified by its size, which below e^−20 no sum can notice.
        assert_close(&y[..n], &expected, 1.5e-6, 1e-8, &format!("{isa} n={n}"));
        assert!(y[n].is_nan(), "{isa} n={n}: wrote past the end");
    }

    #[test]
    fn agree_with_the_formulas() {
        let mut random = Random::from_clock();
        let silu = |x: f64| x / (1.0 + (-x).exp());
        let gelu = |x: f64| {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + u.tanh())
        };
        for isa in Isa::available() {
            for n in [1, 7, 8, 9, 15, 16, 17, 100, 1536] {
                let gate: Vec<f32> = random.normal(n).iter().map(|x| x * 4.0).collect();
                let up = random.normal(n);
                check(silu_mul, silu, isa, &gate, &up);
                check(gelu_tanh_mul, gelu, isa, &gate, &up);
            }
            let extremes = [
                0.0, -0.0, 1e-30, -1e-30, 50.0, -50.0, 1e4, -1e4, 200.0, -200.0,
            ];
            check(silu_mul, silu, isa, &extremes, &[1.0; 10]);
            check(gelu_tanh_mul, gelu, isa, &extremes, &[1.0; 10]);
        }
    }
}
