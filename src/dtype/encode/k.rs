//! The K-types: super-blocks of 256 values, whose groups' scales are themselves quantised.
//!
//! For each group a few scales (and minima) are tried and that of the least error kept; then the scales are rounded, and
//! the values quantised again with what the rounded scales are worth.

use super::put_half;

/// Below this a group counts as all zero.
const GROUP_MAX_EPS: f32 = 1e-15;

/// The nearest integer, ties to even, by ggml's way of adding 1.5 · 2²³.
fn nearest(value: f32) -> i32 {
    let bits = (value + 12_582_912.0).to_bits() as i32;
    (bits & 0x007f_ffff) - 0x0040_0000
}

/// The value of the largest magnitude and that magnitude.
fn extreme(x: &[f32]) -> (f32, f32) {
    let (mut at_most, mut most) = (0.0, 0.0);
    for &value in x {
        if value.abs() > most {
            (at_most, most) = (value, value.abs());
        }
    }
    (at_most, most)
}

/// A scale for `x` as `scale · (l − most)`, `l` in `0..2·most`, weighing errors by the square of the value; ggml's
/// `make_qx_quants` with `rmse_type` 1.
fn symmetric<const N: usize>(most: i32, x: &[f32; N], quants: &mut [u8]) -> f32 {
    let (extreme, magnitude) = extreme(x);
    if magnitude < GROUP_MAX_EPS {
        quants.fill(0);
        return 0.0;
    }
    let quant = |inverse: f32, x: f32| nearest(inverse * x).clamp(-most, most - 1);
    let fit = |inverse: f32| {
        let (mut products, mut squares) = (0.0f32, 0.0f32);
        for &x in x {
            let l = quant(inverse, x) as f32;
            let weight = x * x;
            products += weight * x * l;
            squares += weight * l * l;
        }
        (products, squares)
    };
    let mut take = |inverse: f32| {
        for (q, &x) in quants.iter_mut().zip(x) {
            *q = (quant(inverse, x) + most) as u8;
        }
    };
    let inverse = -most as f32 / extreme;
    let (products, squares) = fit(inverse);
    take(inverse);
    let mut scale = if squares != 0.0 {
        products / squares
    } else {
        0.0
    };
    let mut best = scale * products;
    for step in (-9..=9).filter(|&step| step != 0) {
        let inverse = -(most as f32 + 0.1 * step as f32) / extreme;
        let (products, squares) = fit(inverse);
        if squares > 0.0 && products * products > best * squares {
            take(inverse);
            scale = products / squares;
            best = scale * products;
        }
    }
    scale
}

/// As [`symmetric`], by improving one quant at a time; ggml's `make_q3_quants`.
fn descending<const N: usize>(most: i32, x: &[f32; N], quants: &mut [u8]) -> f32 {
    let (extreme, magnitude) = extreme(x);
    if magnitude < GROUP_MAX_EPS {
        quants.fill(0);
        return 0.0;
    }
    let inverse = -most as f32 / extreme;
    let mut levels = [0i32; N];
    let (mut products, mut squares) = (0.0f32, 0.0f32);
    for (level, &x) in levels.iter_mut().zip(x) {
        *level = nearest(inverse * x).clamp(-most, most - 1);
        let (weight, l) = (x * x, *level as f32);
        products += weight * x * l;
        squares += weight * l * l;
    }
    for _ in 0..5 {
        let mut changed = false;
        for (level, &x) in levels.iter_mut().zip(x) {
            let (weight, l) = (x * x, *level as f32);
            let mut others = products - weight * x * l;
            if others > 0.0 {
                let mut other_squares = squares - weight * l * l;
                let new = nearest(x * other_squares / others).clamp(-most, most - 1);
                if new != *level {
                    let l = new as f32;
                    others += weight * x * l;
                    other_squares += weight * l * l;
                    if other_squares > 0.0
                        && others * others * squares > products * products * other_squares
                    {
                        *level = new;
                        (products, squares) = (others, other_squares);
                        changed = true;
                    }
                }
            }
        }
        if !changed {
            break;
        }
    }
    for (q, level) in quants.iter_mut().zip(levels) {
        *q = (level + most) as u8;
    }
    if squares > 0.0 {
        products / squares
    } else {
        0.0
    }
}

/// How [`shifted`] searches.
struct Search {
    /// The largest quant.
    most: i32,
    first: f32,
    step: f32,
    steps: i32,
    /// Absolute errors rather than squares.
    absolute: bool,
}

/// A scale and a minimum for `x` as `scale · l − minimum`, errors weighed by `weights`; ggml's `make_qkx2_quants`.
fn shifted<const N: usize>(
    search: &Search,
    x: &[f32; N],
    weights: &[f32; N],
    quants: &mut [u8],
) -> (f32, f32) {
    let most = search.most;
    let (mut min, mut max) = (x[0], x[0]);
    let mut weight_sum = weights[0];
    let mut x_sum = weight_sum * x[0];
    for (&x, &weight) in x.iter().zip(weights).skip(1) {
        if x < min {
            min = x;
        }
        if x > max {
            max = x;
        }
        weight_sum += weight;
        x_sum += weight * x;
    }
    if min > 0.0 {
        min = 0.0;
    }
    if max == min {
        quants.fill(0);
        return (0.0, -min);
    }
    let quant = |inverse: f32, x: f32, min: f32| nearest(inverse * (x - min)).clamp(0, most) as u8;
    let error = |scale: f32, min: f32, levels: &[u8]| {
        let mut sum = 0.0f32;
        for ((&x, &weight), &l) in x.iter().zip(weights).zip(levels) {
            let difference = scale * f32::from(l) + min - x;
            let difference = if search.absolute {
                difference.abs()
            } else {
                difference * difference
            };
            sum += weight * difference;
        }
        sum
    };
    let inverse = most as f32 / (max - min);
    let mut scale = 1.0 / inverse;
    for (q, &x) in quants.iter_mut().zip(x) {
        *q = quant(inverse, x, min);
    }
    let mut best = error(scale, min, quants);
    let mut levels = [0u8; N];
    for step in 0..=search.steps {
        // From the best minimum so far, not from the first.
        let inverse = (search.first + search.step * step as f32 + most as f32) / (max - min);
        let (mut l_sum, mut l2_sum, mut xl_sum) = (0.0f32, 0.0f32, 0.0f32);
        for ((level, &x), &weight) in levels.iter_mut().zip(x).zip(weights) {
            *level = quant(inverse, x, min);
            let l = f32::from(*level);
            l_sum += weight * l;
            l2_sum += weight * l * l;
            xl_sum += weight * l * x;
        }
        let determinant = weight_sum * l2_sum - l_sum * l_sum;
        if determinant > 0.0 {
            let mut this_scale = (weight_sum * xl_sum - x_sum * l_sum) / determinant;
            let mut this_min = (l2_sum * x_sum - l_sum * xl_sum) / determinant;
            if this_min > 0.0 {
                this_min = 0.0;
                this_scale = xl_sum / l2_sum;
            }
            let this = error(this_scale, this_min, &levels);
            if this < best {
                quants.copy_from_slice(&levels);
                (best, scale, min) = (this, this_scale, this_min);
            }
        }
    }
    (scale, -min)
}

/// The largest, 0 among none above it.
fn largest(values: &[f32]) -> f32 {
    let mut most = 0.0;
    for &value in values {
        if value > most {
            most = value;
        }
    }
    most
}

/// Two bits of each of 256 quants, 128 at a time: see the decoder of Q2_K.
fn put_two_bits(quants: &[u8; 256], out: &mut [u8]) {
    for (half, out) in quants.chunks_exact(128).zip(out.chunks_exact_mut(32)) {
        for (l, out) in out.iter_mut().enumerate() {
            *out = half[l] | half[l + 32] << 2 | half[l + 64] << 4 | half[l + 96] << 6;
        }
    }
}

pub(super) fn q2_k(x: &[f32; 256], b: &mut [u8; 84]) {
    const SEARCH: Search = Search {
        most: 3,
        first: -0.5,
        step: 0.1,
        steps: 15,
        absolute: true,
    };
    let (groups, _) = x.as_chunks::<16>();
    let mut quants = [0u8; 256];
    let (mut scales, mut mins) = ([0.0; 16], [0.0; 16]);
    for (j, group) in groups.iter().enumerate() {
        let weights = group.map(f32::abs);
        (scales[j], mins[j]) = shifted(&SEARCH, group, &weights, &mut quants[16 * j..][..16]);
    }
    let (max_scale, max_min) = (largest(&scales), largest(&mins));
    let (mut d, mut dmin) = (0.0, 0.0);
    b[..16].fill(0);
    if max_scale > 0.0 {
        let inverse = 15.0 / max_scale;
        for (out, &scale) in b.iter_mut().zip(&scales) {
            *out = nearest(inverse * scale) as u8;
        }
        d = max_scale / 15.0;
    }
    if max_min > 0.0 {
        let inverse = 15.0 / max_min;
        for (out, &min) in b.iter_mut().zip(&mins) {
            *out |= (nearest(inverse * min) << 4) as u8;
        }
        dmin = max_min / 15.0;
    }
    let (d, dmin) = (put_half(b, 80, d), put_half(b, 82, dmin));
    for (j, group) in groups.iter().enumerate() {
        let scale = d * f32::from(b[j] & 15);
        if scale == 0.0 {
            continue;
        }
        let min = dmin * f32::from(b[j] >> 4);
        for (q, &x) in quants[16 * j..].iter_mut().zip(group) {
            *q = nearest((x + min) / scale).clamp(0, 3) as u8;
        }
    }
    put_two_bits(&quants, &mut b[16..80]);
}

pub(super) fn q3_k(x: &[f32; 256], b: &mut [u8; 110]) {
    let (groups, _) = x.as_chunks::<16>();
    let mut quants = [0u8; 256];
    let mut scales = [0.0; 16];
    for (j, group) in groups.iter().enumerate() {
        scales[j] = descending(4, group, &mut quants[16 * j..][..16]);
    }
    let (max_scale, _) = extreme(&scales);
    let mut levels = [0i32; 16];
    let mut packed = [0u8; 12];
    let mut d = 0.0;
    if max_scale != 0.0 {
        let inverse = -32.0 / max_scale;
        for (j, &scale) in scales.iter().enumerate() {
            // ggml keeps the rounded scale in eight bits before it clamps it.
            let level = i32::from(nearest(inverse * scale) as i8).clamp(-32, 31) + 32;
            packed[j % 8] |= ((level & 15) << (j / 8 * 4)) as u8;
            packed[8 + j % 4] |= ((level >> 4) << (j / 4 * 2)) as u8;
            levels[j] = level;
        }
        d = 1.0 / inverse;
    }
    b[96..108].copy_from_slice(&packed);
    let d = put_half(b, 108, d);
    for (j, group) in groups.iter().enumerate() {
        let scale = d * (levels[j] - 32) as f32;
        if scale == 0.0 {
            continue;
        }
        for (q, &x) in quants[16 * j..].iter_mut().zip(group) {
            *q = (nearest(x / scale).clamp(-4, 3) + 4) as u8;
        }
    }
    let (high, low) = b[..96].split_at_mut(32);
    high.fill(0);
    for (j, q) in quants.iter_mut().enumerate() {
        if *q > 3 {
            high[j % 32] |= 1 << (j / 32);
            *q -= 4;
        }
    }
    put_two_bits(&quants, low);
}

/// Scales, minima and quants of eight groups of 32, as Q4_K and Q5_K have them; writes the first 16 bytes of the block.
fn eight_groups(search: &Search, x: &[f32; 256], b: &mut [u8]) -> [u8; 256] {
    let (groups, _) = x.as_chunks::<32>();
    let mut quants = [0u8; 256];
    let (mut scales, mut mins) = ([0.0; 8], [0.0; 8]);
    for (j, group) in groups.iter().enumerate() {
        let mut squares = 0.0f32;
        for x in group {
            squares += x * x;
        }
        let average = (squares / 32.0).sqrt();
        let weights = group.map(|x| average + x.abs());
        (scales[j], mins[j]) = shifted(search, group, &weights, &mut quants[32 * j..][..32]);
    }
    let (max_scale, max_min) = (largest(&scales), largest(&mins));
    let inverse = |most: f32| if most > 0.0 { 63.0 / most } else { 0.0 };
    let (inverse_scale, inverse_min) = (inverse(max_scale), inverse(max_min));
    let mut levels = [(0u8, 0u8); 8];
    let packed = &mut b[4..16];
    for j in 0..8 {
        let scale = (nearest(inverse_scale * scales[j]) as u8).min(63);
        let min = (nearest(inverse_min * mins[j]) as u8).min(63);
        levels[j] = (scale, min);
        if j < 4 {
            packed[j] = scale;
            packed[j + 4] = min;
        } else {
            packed[j + 4] = scale & 15 | (min & 15) << 4;
            packed[j - 4] |= scale >> 4 << 6;
            packed[j] |= min >> 4 << 6;
        }
    }
    let (d, dmin) = (
        put_half(b, 0, max_scale / 63.0),
        put_half(b, 2, max_min / 63.0),
    );
    for (j, group) in groups.iter().enumerate() {
        let scale = d * f32::from(levels[j].0);
        if scale == 0.0 {
            continue;
        }
        let min = dmin * f32::from(levels[j].1);
        for (q, &x) in quants[32 * j..].iter_mut().zip(group) {
            *q = nearest((x + min) / scale).clamp(0, search.most) as u8;
        }
    }
    quants
}

pub(super) fn q4_k(x: &[f32; 256], b: &mut [u8; 144]) {
    const SEARCH: Search = Search {
        most: 15,
        first: -1.0,
        step: 0.1,
        steps: 20,
        absolute: false,
    };
    let quants = eight_groups(&SEARCH, x, b);
    for (pair, out) in quants.chunks_exact(64).zip(b[16..].chunks_exact_mut(32)) {
        for (l, out) in out.iter_mut().enumerate() {
            *out = pair[l] | pair[l + 32] << 4;
        }
    }
}

pub(super) fn q5_k(x: &[f32; 256], b: &mut [u8; 176]) {
    const SEARCH: Search = Search {
        most: 31,
        first: -0.5,
        step: 0.1,
        steps: 15,
        absolute: false,
    };
    let quants = eight_groups(&SEARCH, x, b);
    let (high, low) = b[16..].split_at_mut(32);
    high.fill(0);
    for (n, (pair, out)) in quants
        .chunks_exact(64)
        .zip(low.chunks_exact_mut(32))
        .enumerate()
    {
        for (l, out) in out.iter_mut().enumerate() {
            let (first, second) = (pair[l], pair[l + 32]);
            *out = first & 15 | (second & 15) << 4;
            high[l] |= (first >> 4) << (2 * n) | (second >> 4) << (2 * n + 1);
        }
    }
}

pub(super) fn q6_k(x: &[f32; 256], b: &mut [u8; 210]) {
    let (groups, _) = x.as_chunks::<16>();
    let mut quants = [0u8; 256];
    let mut scales = [0.0; 16];
    for (j, group) in groups.iter().enumerate() {
        scales[j] = symmetric(32, group, &mut quants[16 * j..][..16]);
    }
    let (max_scale, magnitude) = extreme(&scales);
    if magnitude < GROUP_MAX_EPS {
        b.fill(0);
        return;
    }
    let inverse = -128.0 / max_scale;
    let d = put_half(b, 208, 1.0 / inverse);
    for (j, group) in groups.iter().enumerate() {
        let level = nearest(inverse * scales[j]).min(127) as i8;
        b[192 + j] = level as u8;
        let scale = d * f32::from(level);
        if scale == 0.0 {
            continue;
        }
        for (q, &x) in quants[16 * j..].iter_mut().zip(group) {
            *q = (nearest(x / scale).clamp(-32, 31) + 32) as u8;
        }
    }
    let (low, high) = b[..192].split_at_mut(128);
    for (n, half) in quants.chunks_exact(128).enumerate() {
        for l in 0..32 {
            let [q1, q2, q3, q4] = [half[l], half[l + 32], half[l + 64], half[l + 96]];
            low[64 * n + l] = q1 & 15 | (q3 & 15) << 4;
            low[64 * n + l + 32] = q2 & 15 | (q4 & 15) << 4;
            high[32 * n + l] = q1 >> 4 | (q2 >> 4) << 2 | (q3 >> 4) << 4 | (q4 >> 4) << 6;
        }
    }
}
