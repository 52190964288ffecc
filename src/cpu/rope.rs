//! Rotary position embedding: pairs of a head's elements turn by an angle that grows with the position.
//!
//! The angles of a position are the same in every layer and head, so a step computes one table, in f64 (an f32 product
//! position · frequency is off by a hundredth of a turn at position 100,000), and every layer only multiplies.

use super::isa::Isa;
use super::simd::{Lanes, entry};
use crate::graph::{Rope, RopeStyle};

/// Fills `out [dims/2][2]` with (cos, sin) of pair `i`'s angle at `position`, as [`Rope`] says:
/// `position · scale_i · base^(−2i/dims) / factors[i]`, times YaRN's magnitude.
///
/// `scale_i` is `rope.position_scale` but for what YaRN spares; `factors` are Llama 3's `rope_freqs`.
///
/// # Panics
/// When `out` is not `rope.dims` long, that is odd, or `factors` is not one a pair.
pub fn rope_table(position: usize, rope: &Rope, factors: Option<&[f32]>, out: &mut [f32]) {
    let d_rot = out.len();
    assert!(d_rot.is_multiple_of(2) && d_rot == rope.dims as usize);
    if let Some(factors) = factors {
        assert_eq!(factors.len(), d_rot / 2, "one frequency factor a pair");
    }
    let (base, scale) = (f64::from(rope.base), f64::from(rope.position_scale));
    for (i, pair) in out.chunks_exact_mut(2).enumerate() {
        let frequency = base.powf(-2.0 * i as f64 / d_rot as f64);
        let factor = factors.map_or(1.0, |factors| f64::from(factors[i]));
        let kept = rope.yarn.kept(i as u32);
        let scale = scale * (1.0 - kept) + kept;
        let (sin, cos) = (position as f64 * scale * frequency / factor).sin_cos();
        pair[0] = cos as f32 * rope.yarn.magnitude;
        pair[1] = sin as f32 * rope.yarn.magnitude;
    }
}

entry! {
    fn interleaved_fn(x: *const f32, y: *mut f32, heads: usize, d: usize, table: *const f32, d_rot: usize) = interleaved::<L>
}
entry! {
    fn half_fn(x: *const f32, y: *mut f32, heads: usize, d: usize, table: *const f32, d_rot: usize) = half::<L>
}

/// Turns `x [heads][D]` into `y [heads][D]` by a [`rope_table`]; elements past `d_rot` are copied.
///
/// # Safety
/// The machine runs `isa`; `x` holds heads · D readable f32 and `y` as many writable ones; `y` is `x` or does not
/// overlap it; `table` holds `d_rot` f32, `d_rot` is even and at most D.
#[inline]
#[allow(clippy::too_many_arguments)]
pub unsafe fn rope(
    isa: Isa,
    x: *const f32,
    y: *mut f32,
    heads: usize,
    d: usize,
    table: *const f32,
    style: RopeStyle,
    d_rot: usize,
) {
    debug_assert!(d_rot.is_multiple_of(2) && d_rot <= d);
    let turn = match style {
        RopeStyle::Interleaved => interleaved_fn(isa),
        RopeStyle::Half => half_fn(isa),
    };
    // SAFETY: the caller's promise is the instance's.
    unsafe { turn(x, y, heads, d, table, d_rot) }
}

/// The vectors are left to the compiler, which knows the shuffles of each machine; `L` only names the instance.
#[inline(always)]
unsafe fn interleaved<L: Lanes>(
    x: *const f32,
    y: *mut f32,
    heads: usize,
    d: usize,
    table: *const f32,
    d_rot: usize,
) {
    for head in 0..heads {
        // SAFETY: the caller promises the sizes; each pair is read before it is written, so `y` may be `x`.
        unsafe {
            let (x, y) = (x.add(head * d), y.add(head * d));
            for i in 0..d_rot / 2 {
                let (cos, sin) = (*table.add(2 * i), *table.add(2 * i + 1));
                let (a, b) = (*x.add(2 * i), *x.add(2 * i + 1));
                *y.add(2 * i) = a * cos - b * sin;
                *y.add(2 * i + 1) = a * sin + b * cos;
            }
            copy_rest(x, y, d_rot, d);
        }
    }
}

#[inline(always)]
unsafe fn half<L: Lanes>(
    x: *const f32,
    y: *mut f32,
    heads: usize,
    d: usize,
    table: *const f32,
    d_rot: usize,
) {
    let half = d_rot / 2;
    for head in 0..heads {
        // SAFETY: as for `interleaved`.
        unsafe {
            let (x, y) = (x.add(head * d), y.add(head * d));
            for i in 0..half {
                let (cos, sin) = (*table.add(2 * i), *table.add(2 * i + 1));
                let (a, b) = (*x.add(i), *x.add(i + half));
                *y.add(i) = a * cos - b * sin;
                *y.add(i + half) = a * sin + b * cos;
            }
            copy_rest(x, y, d_rot, d);
        }
    }
}

#[inline(always)]
unsafe fn copy_rest(x: *const f32, y: *mut f32, d_rot: usize, d: usize) {
    if !std::ptr::eq(x, y) {
        // SAFETY: both hold `d` elements, which the caller promises, and do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(x.add(d_rot), y.add(d_rot), d - d_rot) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::test_data::{Random, assert_close};
    use crate::graph::Yarn;

    fn plain(dims: usize, base: f32, position_scale: f32) -> Rope {
        Rope {
            dims: dims as u32,
            base,
            position_scale,
            yarn: Yarn::NONE,
        }
    }

    /// Each pair as a complex number times e^(i·angle), in f64.
    fn expected(
        x: &[f32],
        d: usize,
        d_rot: usize,
        style: RopeStyle,
        angle: impl Fn(usize) -> f64,
    ) -> Vec<f64> {
        let mut y: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        for head in y.chunks_exact_mut(d) {
            for i in 0..d_rot / 2 {
                let (p, q) = match style {
                    RopeStyle::Interleaved => (2 * i, 2 * i + 1),
                    RopeStyle::Half => (i, i + d_rot / 2),
                };
                let (radius, phase) = (head[p].hypot(head[q]), head[q].atan2(head[p]));
                head[p] = radius * (phase + angle(i)).cos();
                head[q] = radius * (phase + angle(i)).sin();
            }
        }
        y
    }

    #[test]
    fn agrees_with_complex_multiplication() {
        let mut random = Random::from_clock();
        for isa in Isa::available() {
            for style in [RopeStyle::Interleaved, RopeStyle::Half] {
                for (d, d_rot) in [
                    (2, 2),
                    (8, 8),
                    (64, 64),
                    (80, 32),
                    (96, 96),
                    (128, 64),
                    (256, 256),
                ] {
                    for position in [0, 1, 77, 4095, 131_071] {
                        let heads = 3;
                        let factors: Vec<f32> =
                            (0..d_rot / 2).map(|i| 1.0 + i as f32 / 4.0).collect();
                        let x = random.normal(heads * d);
                        let mut table = vec![0.0; d_rot];
                        let rope_of = plain(d_rot, 500_000.0, 0.25);
                        rope_table(position, &rope_of, Some(&factors), &mut table);
                        let mut y = vec![f32::NAN; heads * d];
                        // SAFETY: the slices have the sizes given and `isa` is available.
                        unsafe {
                            rope(
                                isa,
                                x.as_ptr(),
                                y.as_mut_ptr(),
                                heads,
                                d,
                                table.as_ptr(),
                                style,
                                d_rot,
                            )
                        };
                        let angle = |i: usize| {
                            let exponent = 2.0 * i as f64 / d_rot as f64;
                            position as f64 * 0.25
                                / 500_000f64.powf(exponent)
                                / f64::from(factors[i])
                        };
                        let expected = expected(&x, d, d_rot, style, angle);
                        let what =
                            format!("{isa} {style:?} d={d} d_rot={d_rot} position={position}");
                        // A turned element is a difference, so its error is relative to the pair, of size about 1.
                        assert_close(&y, &expected, 1e-6, 1e-6, &what);
                        let mut in_place = x.clone();
                        // SAFETY: as above; in place is allowed.
                        unsafe {
                            rope(
                                isa,
                                in_place.as_ptr(),
                                in_place.as_mut_ptr(),
                                heads,
                                d,
                                table.as_ptr(),
                                style,
                                d_rot,
                            );
                        }
                        assert_eq!(in_place, y, "{what}");
                    }
                }
            }
        }
    }

    #[test]
    fn without_factors_or_stretching_the_table_is_the_papers() {
        let mut table = [0.0; 64];
        rope_table(100_003, &plain(64, 10_000.0, 1.0), None, &mut table);
        for (i, pair) in table.chunks_exact(2).enumerate() {
            let angle = 100_003.0 / 10_000f64.powf(i as f64 / 32.0);
            assert!((f64::from(pair[0]) - angle.cos()).abs() < 1e-7);
            assert!((f64::from(pair[1]) - angle.sin()).abs() < 1e-7);
        }
    }

    #[test]
    fn yarn_spares_what_turns_often() {
        let yarn = Yarn {
            first: 2.0,
            last: 6.0,
            keep: 1.0,
            magnitude: 1.25,
        };
        let rope = Rope {
            yarn,
            ..plain(16, 100.0, 0.25)
        };
        let mut table = [0.0; 16];
        rope_table(37, &rope, None, &mut table);
        // Of pairs 0 to 7: up to 2 as they are, from 6 on a quarter, evenly in between.
        let scales = [1.0, 1.0, 1.0, 0.8125, 0.625, 0.4375, 0.25, 0.25];
        for (i, (pair, scale)) in table.chunks_exact(2).zip(scales).enumerate() {
            let angle = 37.0 * scale / 100f64.powf(i as f64 / 8.0);
            assert!(
                (f64::from(pair[0]) - 1.25 * angle.cos()).abs() < 2e-7,
                "{i}"
            );
            assert!(
                (f64::from(pair[1]) - 1.25 * angle.sin()).abs() < 2e-7,
                "{i}"
            );
        }
    }
}
