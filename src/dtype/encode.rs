//! Rounding f32 into blocks, bit for bit as ggml's `quantize_row_*_ref` does, so that a file quantised here is the file
//! that llama.cpp makes.
//!
//! That is a stricter promise than a small error: every product and every sum is rounded on its own and in the same order,
//! because the searches of the K-types compare sums, and one last bit decides between two sets of quants. (ggml compiles
//! these routines for plain x86-64, without fused multiply-add.) Layouts are explained where they are decoded.

mod k;

use super::DType;
use half::{bf16, f16};

/// Encodes `values` into `bytes`; the lengths have been checked to agree.
pub(super) fn encode(dtype: DType, values: &[f32], bytes: &mut [u8]) {
    match dtype {
        DType::F32 => each(values, bytes, |x: &[f32; 1], b: &mut [u8; 4]| {
            *b = x[0].to_le_bytes();
        }),
        DType::F16 => each(values, bytes, |x: &[f32; 1], b: &mut [u8; 2]| {
            *b = f16::from_f32(x[0]).to_le_bytes();
        }),
        DType::BF16 => each(values, bytes, |x: &[f32; 1], b: &mut [u8; 2]| {
            *b = bf16::from_f32(x[0]).to_le_bytes();
        }),
        DType::Q4_0 => each(values, bytes, q4_0),
        DType::Q4_1 => each(values, bytes, q4_1),
        DType::Q5_0 => each(values, bytes, q5_0),
        DType::Q5_1 => each(values, bytes, q5_1),
        DType::Q8_0 => each(values, bytes, q8_0),
        DType::Q2_K => each(values, bytes, k::q2_k),
        DType::Q3_K => each(values, bytes, k::q3_k),
        DType::Q4_K => each(values, bytes, k::q4_k),
        DType::Q5_K => each(values, bytes, k::q5_k),
        DType::Q6_K => each(values, bytes, k::q6_k),
        other => panic!(
            "{other} cannot be encoded; those that can: {}",
            DType::runnable_names()
        ),
    }
}

/// Runs `block` over every `N` values and their block of `B` bytes.
fn each<const B: usize, const N: usize>(
    values: &[f32],
    bytes: &mut [u8],
    block: impl Fn(&[f32; N], &mut [u8; B]),
) {
    let (values, _) = values.as_chunks::<N>();
    let (blocks, _) = bytes.as_chunks_mut::<B>();
    for (x, b) in values.iter().zip(blocks) {
        block(x, b);
    }
}

/// Writes `value` as f16 at byte `at`; returns what that is worth.
fn put_half(b: &mut [u8], at: usize, value: f32) -> f32 {
    let half = f16::from_f32(value);
    b[at..at + 2].copy_from_slice(&half.to_le_bytes());
    half.to_f32()
}

/// `1 / d`, or 0 for no scale at all.
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// The value of the largest magnitude, the first of equals; 0 among none but zeros.
fn extreme(x: &[f32]) -> f32 {
    let (mut most, mut at_most) = (0.0f32, 0.0);
    for &value in x {
        if most < value.abs() {
            (most, at_most) = (value.abs(), value);
        }
    }
    at_most
}

/// Least and greatest.
fn range(x: &[f32]) -> (f32, f32) {
    let (mut least, mut greatest) = (f32::MAX, -f32::MAX);
    for &value in x {
        if value < least {
            least = value;
        }
        if value > greatest {
            greatest = value;
        }
    }
    (least, greatest)
}

fn q4_0(x: &[f32; 32], b: &mut [u8; 18]) {
    let d = extreme(x) / -8.0;
    let id = inverse(d);
    put_half(b, 0, d);
    let quant = |x: f32| ((x * id + 8.5) as i8).min(15) as u8;
    for i in 0..16 {
        b[2 + i] = quant(x[i]) | quant(x[i + 16]) << 4;
    }
}

fn q4_1(x: &[f32; 32], b: &mut [u8; 20]) {
    let (min, max) = range(x);
    let d = (max - min) / 15.0;
    let id = inverse(d);
    put_half(b, 0, d);
    put_half(b, 2, min);
    let quant = |x: f32| (((x - min) * id + 0.5) as i8).min(15) as u8;
    for i in 0..16 {
        b[4 + i] = quant(x[i]) | quant(x[i + 16]) << 4;
    }
}

/// Writes 5-bit quants: nibbles from byte `at + 4`, the fifth bits in the four bytes at `at`.
fn put_five_bits(b: &mut [u8], at: usize, quant: impl Fn(usize) -> u8) {
    let mut high = 0u32;
    for i in 0..16 {
        let (low, upper) = (quant(i), quant(i + 16));
        b[at + 4 + i] = low & 15 | (upper & 15) << 4;
        high |= u32::from(low >> 4 & 1) << i | u32::from(upper >> 4 & 1) << (i + 16);
    }
    b[at..at + 4].copy_from_slice(&high.to_le_bytes());
}

fn q5_0(x: &[f32; 32], b: &mut [u8; 22]) {
    let d = extreme(x) / -16.0;
    let id = inverse(d);
    put_half(b, 0, d);
    put_five_bits(b, 2, |i| ((x[i] * id + 16.5) as i8).min(31) as u8);
}

fn q5_1(x: &[f32; 32], b: &mut [u8; 24]) {
    let (min, max) = range(x);
    let d = (max - min) / 31.0;
    let id = inverse(d);
    put_half(b, 0, d);
    put_half(b, 2, min);
    put_five_bits(b, 4, |i| ((x[i] - min) * id + 0.5) as u8);
}

fn q8_0(x: &[f32; 32], b: &mut [u8; 34]) {
    let d = extreme(x).abs() / 127.0;
    let id = inverse(d);
    put_half(b, 0, d);
    for (b, x) in b[2..].iter_mut().zip(x) {
        *b = (x * id).round() as i8 as u8;
    }
}
