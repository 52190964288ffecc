//! Random blocks of every format, of a chosen standard deviation.
//!
//! Quants, scales and minima are random in all their bits, so that every field of a layout matters to the result; only
//! the f16 scales are chosen, to make the values' deviation and mean come out near `deviation` and zero.

use super::super::oracle::Format;
use super::super::rng::Rng;
use half::{bf16, f16};

/// Random blocks for `elements` values of a deviation near `deviation`. Panics unless they are whole blocks.
pub fn random_blocks(rng: &mut Rng, format: Format, elements: usize, deviation: f64) -> Vec<u8> {
    assert_eq!(
        elements % format.elements,
        0,
        "{elements} elements are not whole blocks of {}",
        format.name
    );
    let mut bytes = Vec::with_capacity(elements / format.elements * format.bytes);
    for _ in 0..elements / format.elements {
        let start = bytes.len();
        bytes.extend((0..format.bytes).map(|_| rng.byte()));
        fill(rng, format.name, &mut bytes[start..], deviation);
    }
    bytes
}

/// Turn random bytes into a sane block. Divisors are the deviations of the integers each format can hold.
fn fill(rng: &mut Rng, name: &str, b: &mut [u8], deviation: f64) {
    let jitter = rng.uniform(0.7, 1.3);
    let sign = if rng.below(2) == 0 { 1.0 } else { -1.0 };
    let near = rng.uniform(0.9, 1.1);
    let d = |integers: f64| deviation * jitter / integers;
    match name {
        "F32" => {
            let x = (rng.normal() * deviation) as f32;
            b.copy_from_slice(&x.to_le_bytes());
        }
        "F16" => put(b, 0, rng.normal() * deviation),
        "BF16" => {
            let x = bf16::from_f64(rng.normal() * deviation);
            b.copy_from_slice(&x.to_le_bytes());
        }
        "Q4_0" => put(b, 0, sign * d(4.6)),
        "Q5_0" => put(b, 0, sign * d(9.2)),
        "Q8_0" => put(b, 0, sign * d(73.9)),
        "Q4_1" => {
            put(b, 0, sign * d(4.6));
            put(b, 2, sign * d(4.6) * -7.5 * near);
        }
        "Q5_1" => {
            put(b, 0, sign * d(9.2));
            put(b, 2, sign * d(9.2) * -15.5 * near);
        }
        "Q2_K" => {
            // A minimum near its scale keeps the mean near zero: 1.5 is the mean of the quants.
            for s in &mut b[..16] {
                let scale = 4 + rng.below(12) as u8;
                let min = (scale + rng.below(3) as u8).clamp(1, 16) - 1;
                *s = scale | min << 4;
            }
            put(b, 80, d(11.2));
            put(b, 82, d(11.2) * 1.5 * near);
        }
        "Q3_K" => put(b, 108, sign * d(42.8)),
        "Q4_K" | "Q5_K" => {
            let integers = if name == "Q4_K" { 4.6 } else { 9.2 };
            let mean = if name == "Q4_K" { 7.5 } else { 15.5 };
            pack_scales(rng, &mut b[4..16]);
            put(b, 0, d(integers * 42.0));
            put(b, 2, d(integers * 42.0) * mean * near);
        }
        "Q6_K" => put(b, 208, sign * d(18.5 * 73.9)),
        other => panic!("{other}: no random blocks of this format"),
    }
}

/// Eight random 6-bit scales, each with a minimum near it, in the 12 bytes of Q4_K and Q5_K.
fn pack_scales(rng: &mut Rng, packed: &mut [u8]) {
    packed.fill(0);
    for s in 0..8 {
        let scale = 20 + rng.below(44) as u8;
        let min = (scale + rng.below(7) as u8 - 3).min(63);
        if s < 4 {
            packed[s] |= scale;
            packed[s + 4] |= min;
        } else {
            packed[s + 4] |= scale & 15 | min << 4;
            packed[s - 4] |= scale >> 4 << 6;
            packed[s] |= min >> 4 << 6;
        }
    }
}

fn put(block: &mut [u8], at: usize, x: f64) {
    block[at..at + 2].copy_from_slice(&f16::from_f64(x).to_le_bytes());
}
