//! Exact decoding of blocks to f32, written to be read: one function a type, the layout in its doc.
//!
//! All numbers are little-endian. `f16 d` is two bytes; `[n]` counts bytes. The kernels have their own, faster readings
//! of the same layouts; this one is what they are compared with, and what rare paths use.

use super::DType;
use half::{bf16, f16};

/// Decodes `bytes` into `out`; the lengths have been checked to agree.
pub(super) fn decode(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        DType::F32 => each(bytes, out, |b: &[u8; 4], y: &mut [f32; 1]| {
            y[0] = f32::from_le_bytes(*b);
        }),
        DType::F16 => each(bytes, out, |b: &[u8; 2], y: &mut [f32; 1]| {
            y[0] = f16::from_le_bytes(*b).to_f32();
        }),
        DType::BF16 => each(bytes, out, |b: &[u8; 2], y: &mut [f32; 1]| {
            y[0] = bf16::from_le_bytes(*b).to_f32();
        }),
        DType::Q4_0 => each(bytes, out, q4_0),
        DType::Q4_1 => each(bytes, out, q4_1),
        DType::Q5_0 => each(bytes, out, q5_0),
        DType::Q5_1 => each(bytes, out, q5_1),
        DType::Q8_0 => each(bytes, out, q8_0),
        DType::Q2_K => each(bytes, out, q2_k),
        DType::Q3_K => each(bytes, out, q3_k),
        DType::Q4_K => each(bytes, out, q4_k),
        DType::Q5_K => each(bytes, out, q5_k),
        DType::Q6_K => each(bytes, out, q6_k),
        other => panic!(
            "{other} cannot be decoded; those that can: {}",
            DType::runnable_names()
        ),
    }
}

/// Runs `block` over every block of `B` bytes and its `N` elements.
fn each<const B: usize, const N: usize>(
    bytes: &[u8],
    out: &mut [f32],
    block: impl Fn(&[u8; B], &mut [f32; N]),
) {
    let (blocks, _) = bytes.as_chunks::<B>();
    let (outs, _) = out.as_chunks_mut::<N>();
    for (b, y) in blocks.iter().zip(outs) {
        block(b, y);
    }
}

/// The f16 at byte `at`, widened.
fn half_at(b: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([b[at], b[at + 1]]).to_f32()
}

/// `f16 d | qs [16]`: element `i` is the low nibble of byte `i`, element `i + 16` its high nibble.
fn q4_0(b: &[u8; 18], y: &mut [f32; 32]) {
    let d = half_at(b, 0);
    for (i, q) in b[2..].iter().enumerate() {
        y[i] = d * (i32::from(q & 15) - 8) as f32;
        y[i + 16] = d * (i32::from(q >> 4) - 8) as f32;
    }
}

/// `f16 d | f16 m | qs [16]`, nibbles as in Q4_0.
fn q4_1(b: &[u8; 20], y: &mut [f32; 32]) {
    let (d, m) = (half_at(b, 0), half_at(b, 2));
    for (i, q) in b[4..].iter().enumerate() {
        y[i] = d * f32::from(q & 15) + m;
        y[i + 16] = d * f32::from(q >> 4) + m;
    }
}

/// The two 5-bit quants of byte `i`: nibbles as in Q4_0, bit `i` (and `i + 16`) of `high` on top.
fn five_bits(high: u32, i: usize, q: u8) -> (i32, i32) {
    let low = i32::from(q & 15) | ((high >> i & 1) << 4) as i32;
    let upper = i32::from(q >> 4) | ((high >> (i + 16) & 1) << 4) as i32;
    (low, upper)
}

/// `f16 d | u32 fifth bits | qs [16]`.
fn q5_0(b: &[u8; 22], y: &mut [f32; 32]) {
    let d = half_at(b, 0);
    let high = u32::from_le_bytes([b[2], b[3], b[4], b[5]]);
    for (i, &q) in b[6..].iter().enumerate() {
        let (low, upper) = five_bits(high, i, q);
        y[i] = d * (low - 16) as f32;
        y[i + 16] = d * (upper - 16) as f32;
    }
}

/// `f16 d | f16 m | u32 fifth bits | qs [16]`.
fn q5_1(b: &[u8; 24], y: &mut [f32; 32]) {
    let (d, m) = (half_at(b, 0), half_at(b, 2));
    let high = u32::from_le_bytes([b[4], b[5], b[6], b[7]]);
    for (i, &q) in b[8..].iter().enumerate() {
        let (low, upper) = five_bits(high, i, q);
        y[i] = d * low as f32 + m;
        y[i + 16] = d * upper as f32 + m;
    }
}

/// `f16 d | i8 qs [32]`.
fn q8_0(b: &[u8; 34], y: &mut [f32; 32]) {
    let d = half_at(b, 0);
    for (y, &q) in y.iter_mut().zip(&b[2..]) {
        *y = d * f32::from(q as i8);
    }
}

/// `scales [16] (low nibble scale, high nibble minimum) | qs [64] | f16 d | f16 dmin`.
///
/// Each half of 128 elements has 32 bytes of quants: bits 0–1 are its first 32 elements, bits 2–3 the next, and so on.
fn q2_k(b: &[u8; 84], y: &mut [f32; 256]) {
    let (scales, qs) = (&b[..16], &b[16..80]);
    let (d, dmin) = (half_at(b, 80), half_at(b, 82));
    for (group, y) in y.chunks_exact_mut(16).enumerate() {
        let scale = d * f32::from(scales[group] & 15);
        let min = dmin * f32::from(scales[group] >> 4);
        let (from, shift) = two_bit_group(group);
        for (y, q) in y.iter_mut().zip(&qs[from..]) {
            *y = scale * f32::from(q >> shift & 3) - min;
        }
    }
}

/// Where the 2-bit quants of 16-element `group` are: the first byte and the shift.
fn two_bit_group(group: usize) -> (usize, usize) {
    let (half, plane, upper) = (group / 8, group % 8 / 2, group % 2);
    (half * 32 + upper * 16, plane * 2)
}

/// `high bits [32] | qs [64] | scales [12] | f16 d`.
///
/// Low bits lie as in Q2_K. Bit `p` of the high bits belongs to elements `32 p …`, and a *clear* bit subtracts 4.
/// Scales are 6 bits, offset by 32: a nibble of the first eight bytes and two bits of the last four.
fn q3_k(b: &[u8; 110], y: &mut [f32; 256]) {
    let (high, qs, scales) = (&b[..32], &b[32..96], &b[96..108]);
    let d = half_at(b, 108);
    for (group, y) in y.chunks_exact_mut(16).enumerate() {
        let low = scales[group % 8] >> (group / 8 * 4) & 15;
        let top = scales[8 + group % 4] >> (group / 4 * 2) & 3;
        let scale = d * (i32::from(low | top << 4) - 32) as f32;
        let (from, shift) = two_bit_group(group);
        let high = &high[group % 2 * 16..];
        for ((y, q), h) in y.iter_mut().zip(&qs[from..]).zip(high) {
            let offset = if h >> (group / 2) & 1 == 0 { 4 } else { 0 };
            *y = scale * (i32::from(q >> shift & 3) - offset) as f32;
        }
    }
}

/// The 6-bit scale and minimum of 32-element `group` in the twelve packed bytes of Q4_K and Q5_K.
///
/// Groups 0–3 have the low six bits of bytes `group` and `group + 4`; groups 4–7 have a nibble each of byte
/// `group + 4`, and as top bits those left over in bytes `group − 4` and `group`.
fn scale_and_min(packed: &[u8], group: usize) -> (f32, f32) {
    let (scale, min) = if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        (
            packed[group + 4] & 15 | packed[group - 4] >> 6 << 4,
            packed[group + 4] >> 4 | packed[group] >> 6 << 4,
        )
    };
    (f32::from(scale), f32::from(min))
}

/// `f16 d | f16 dmin | scales [12] | qs [128]`: each 32 bytes hold 32 elements in low and the next 32 in high nibbles.
fn q4_k(b: &[u8; 144], y: &mut [f32; 256]) {
    let (d, dmin) = (half_at(b, 0), half_at(b, 2));
    let (scales, qs) = (&b[4..16], &b[16..]);
    for (group, y) in y.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(scales, group);
        let (scale, min) = (d * scale, dmin * min);
        let shift = group % 2 * 4;
        for (y, q) in y.iter_mut().zip(&qs[group / 2 * 32..]) {
            *y = scale * f32::from(q >> shift & 15) - min;
        }
    }
}

/// `f16 d | f16 dmin | scales [12] | high bits [32] | qs [128]`: Q4_K with bit `group` of the high bits on top.
fn q5_k(b: &[u8; 176], y: &mut [f32; 256]) {
    let (d, dmin) = (half_at(b, 0), half_at(b, 2));
    let (scales, high, qs) = (&b[4..16], &b[16..48], &b[48..]);
    for (group, y) in y.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(scales, group);
        let (scale, min) = (d * scale, dmin * min);
        let shift = group % 2 * 4;
        for ((y, q), h) in y.iter_mut().zip(&qs[group / 2 * 32..]).zip(high) {
            let q = q >> shift & 15 | (h >> group & 1) << 4;
            *y = scale * f32::from(q) - min;
        }
    }
}

/// `low nibbles [128] | high pairs [64] | i8 scales [16] | f16 d`.
///
/// Each half of 128 elements has 64 bytes of nibbles (first 64 elements low, next 64 high) and 32 bytes of pairs
/// (bits 0–1 its first 32 elements, and so on).
fn q6_k(b: &[u8; 210], y: &mut [f32; 256]) {
    let (low, high, scales) = (&b[..128], &b[128..192], &b[192..208]);
    let d = half_at(b, 208);
    for (group, y) in y.chunks_exact_mut(16).enumerate() {
        let scale = d * f32::from(scales[group] as i8);
        let (half, within) = (group / 8, group % 8);
        let low = &low[half * 64 + within % 4 * 16..];
        let low_shift = within / 4 * 4;
        let high = &high[half * 32 + within % 2 * 16..];
        let high_shift = within / 2 * 2;
        for ((y, l), h) in y.iter_mut().zip(low).zip(high) {
            let q = l >> low_shift & 15 | (h >> high_shift & 3) << 4;
            *y = scale * (i32::from(q) - 32) as f32;
        }
    }
}
