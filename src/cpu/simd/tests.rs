//! Each operation of each vector type, against plain arithmetic.

use super::*;
use crate::cpu::isa::Isa;
use crate::cpu::test_data::Random;
use half::{bf16, f16};

entry! { fn exp_fn(x: *const f32, y: *mut f32, n: usize) = exp_body::<L> }
entry! { fn halves_fn(x: *const u16, y: *mut f32, n: usize) = decode_body::<L, ElementF16> }
entry! { fn brains_fn(x: *const u16, y: *mut f32, n: usize) = decode_body::<L, ElementBf16> }
entry! { fn to_halves_fn(x: *const f32, y: *mut u16, n: usize) = to_halves_body::<L> }
entry! { fn transpose_fn(x: *const f32, live: usize, cols: usize, y: *mut f32) = transpose_body::<L> }
entry! { fn reduce_fn(x: *const f32, y: *mut f32) = reduce_body::<L> }

#[inline(always)]
unsafe fn exp_body<L: Lanes>(x: *const f32, y: *mut f32, n: usize) {
    for i in (0..n).step_by(L::N) {
        // SAFETY: the test passes slices of `n` elements.
        unsafe { exp(L::load_partial(x.add(i), n - i)).store_partial(y.add(i), n - i) }
    }
}

#[inline(always)]
unsafe fn decode_body<L: Lanes, E: Element>(x: *const u16, y: *mut f32, n: usize) {
    for i in (0..n).step_by(L::N) {
        // SAFETY: the test passes slices of `n` elements, a multiple of 16.
        unsafe {
            let whole = E::load::<L>(x.add(i).cast());
            whole.store(y.add(i));
            let partial = E::load_partial::<L>(x.add(i).cast(), 3);
            let mut lanes = [0.0f32; 16];
            partial.store(lanes.as_mut_ptr());
            let same = |j: usize| lanes[j].to_bits() == (*y.add(i + j)).to_bits();
            assert!((0..3).all(same) && lanes[3..].iter().all(|&x| x == 0.0));
        }
    }
}

#[inline(always)]
unsafe fn to_halves_body<L: Lanes>(x: *const f32, y: *mut u16, n: usize) {
    for i in (0..n).step_by(L::N) {
        // SAFETY: the test passes slices of `n` elements, a multiple of 16.
        unsafe { L::load(x.add(i)).store_f16(y.add(i)) }
    }
}

#[inline(always)]
unsafe fn transpose_body<L: Lanes>(x: *const f32, live: usize, cols: usize, y: *mut f32) {
    // SAFETY: the test passes `live` rows of 20 elements, and 16 rows of 24.
    unsafe { L::transpose::<ElementF32>(x.cast(), 20 * 4, live, cols, y, 24) }
}

#[inline(always)]
unsafe fn reduce_body<L: Lanes>(x: *const f32, y: *mut f32) {
    // SAFETY: the test passes 16 elements, and room for seven.
    unsafe {
        let x = L::load(x);
        *y = x.sum();
        *y.add(1) = x.greatest();
        *y.add(2) = L::N as f32;
        let numbered = |i: usize| x.mul(L::splat(i as f32));
        let vectors = [numbered(1), numbered(2), numbered(3), numbered(4)];
        L::store_sums(vectors, y.add(3));
    }
}

#[test]
fn exp_is_within_two_units_in_ten_million() {
    for isa in Isa::available() {
        let x: Vec<f32> = (0..2_000_003).map(|i| -87.0 + i as f32 * 8.75e-5).collect();
        let mut y = vec![0.0; x.len()];
        // SAFETY: both hold as many elements, and `isa` is available.
        unsafe { exp_fn(isa)(x.as_ptr(), y.as_mut_ptr(), x.len()) };
        for (&x, &y) in x.iter().zip(&y) {
            let exact = f64::from(x.min(88.376_26)).exp();
            assert!(
                (f64::from(y) / exact - 1.0).abs() < 2e-7,
                "{isa} exp({x}) = {y}"
            );
        }
        let x = [f32::NEG_INFINITY, -1e30, -87.1, 0.0, -0.0, f32::NAN];
        let mut y = [0.0; 6];
        // SAFETY: as above.
        unsafe { exp_fn(isa)(x.as_ptr(), y.as_mut_ptr(), x.len()) };
        assert_eq!(y[..5], [0.0, 0.0, 0.0, 1.0, 1.0], "{isa}");
        assert!(y[5].is_nan(), "{isa}");
    }
}

#[test]
fn every_half_and_bfloat_decodes_exactly() {
    let x: Vec<u16> = (0..=u16::MAX).collect();
    for isa in Isa::available() {
        let mut y = vec![0.0f32; x.len()];
        // SAFETY: both hold 65,536 elements, and `isa` is available.
        unsafe { halves_fn(isa)(x.as_ptr(), y.as_mut_ptr(), x.len()) };
        for (&x, &y) in x.iter().zip(&y) {
            let exact = f16::from_bits(x).to_f32();
            assert!(
                exact.to_bits() == y.to_bits() || exact.is_nan() && y.is_nan(),
                "{isa} {x:#x}"
            );
        }
        // SAFETY: as above.
        unsafe { brains_fn(isa)(x.as_ptr(), y.as_mut_ptr(), x.len()) };
        for (&x, &y) in x.iter().zip(&y) {
            let exact = bf16::from_bits(x).to_f32();
            assert!(
                exact.to_bits() == y.to_bits() || exact.is_nan() && y.is_nan(),
                "{isa} {x:#x}"
            );
        }
    }
}

#[test]
fn rounding_to_half_is_to_nearest_even() {
    let mut x: Vec<f32> = Vec::new();
    for half in 0..0x7c00u16 {
        // Each half, the tie above it, and both neighbours of the tie.
        let low = f16::from_bits(half).to_f32();
        let next = if half == 0x7bff {
            65536.0
        } else {
            f16::from_bits(half + 1).to_f32()
        };
        let tie = (low + next) / 2.0;
        x.extend([low, tie, tie.next_down(), tie.next_up()]);
    }
    x.extend([
        65520.0,
        65519.9,
        1e30,
        f32::INFINITY,
        f32::MAX,
        1e-40,
        5e-8,
        f32::MIN_POSITIVE,
    ]);
    x.extend(x.clone().iter().map(|x| -x));
    x.extend(vec![0.0; x.len().next_multiple_of(16) - x.len()]);
    for isa in Isa::available() {
        let mut y = vec![0u16; x.len()];
        // SAFETY: both hold as many elements, a multiple of 16, and `isa` is available.
        unsafe { to_halves_fn(isa)(x.as_ptr(), y.as_mut_ptr(), x.len()) };
        for (&x, &y) in x.iter().zip(&y) {
            assert_eq!(y, f16::from_f32(x).to_bits(), "{isa} {x:e}");
        }
        let nan = [f32::NAN; 16];
        // SAFETY: as above.
        unsafe { to_halves_fn(isa)(nan.as_ptr(), y.as_mut_ptr(), 16) };
        assert!(y[..16].iter().all(|&y| f16::from_bits(y).is_nan()), "{isa}");
    }
}

#[test]
fn transposes_whole_and_ragged_blocks() {
    for isa in Isa::available() {
        let mut lanes = [0.0; 7];
        let x: Vec<f32> = Random::from_clock().normal(16 * 20);
        // SAFETY: 16 elements are readable, seven writable.
        unsafe { reduce_fn(isa)(x.as_ptr(), lanes.as_mut_ptr()) };
        let n = lanes[2] as usize;
        for live in 1..=n + 1 {
            for cols in 1..=n + 1 {
                let mut y = vec![f32::NAN; 16 * 24];
                // SAFETY: `x` holds 16 rows of 20, `y` 16 rows of 24.
                unsafe { transpose_fn(isa)(x.as_ptr(), live, cols, y.as_mut_ptr()) };
                for c in 0..16 {
                    for i in 0..24 {
                        let found = y[c * 24 + i];
                        if c >= n || i >= n {
                            assert!(found.is_nan(), "{isa}: wrote outside the block");
                        } else {
                            let expected = if c < cols {
                                x[i.min(live - 1) * 20 + c]
                            } else {
                                0.0
                            };
                            assert_eq!(found, expected, "{isa} live={live} cols={cols} [{c}, {i}]");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn reductions_take_every_lane() {
    for isa in Isa::available() {
        for lane in 0..16 {
            let mut x = [-1.0f32; 16];
            x[lane] = 5.0;
            let mut y = [0.0; 7];
            // SAFETY: 16 elements are readable, seven writable.
            unsafe { reduce_fn(isa)(x.as_ptr(), y.as_mut_ptr()) };
            if lane < y[2] as usize {
                assert_eq!(y[0], 6.0 - y[2], "{isa}");
                assert_eq!(y[1], 5.0, "{isa}");
                assert_eq!(y[3..], [1.0, 2.0, 3.0, 4.0].map(|i| i * y[0]), "{isa}");
            }
        }
    }
}
