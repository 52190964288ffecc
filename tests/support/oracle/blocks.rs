//! Dequantisation in f64, one element at a time, from the ggml block layouts.
//!
//! Each format is a function from (block, index in the block) to a value. That is slow and close to the specification,
//! where production decoders walk a block in storage order; a mistake in one is unlikely to be repeated in the other.

/// An element format: its ggml type id, its name, and the size of one block.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// The type id that a GGUF tensor description carries.
    pub id: u32,
    /// The name ggml prints.
    pub name: &'static str,
    /// Elements in a block.
    pub elements: usize,
    /// Bytes in a block.
    pub bytes: usize,
    element: fn(&[u8], usize) -> f64,
}

/// Every format the runtime has to run.
pub const FORMATS: [Format; 13] = [
    format(0, "F32", 1, 4, f32_element),
    format(1, "F16", 1, 2, |b, _| f16(b, 0)),
    format(30, "BF16", 1, 2, bf16_element),
    format(2, "Q4_0", 32, 18, q4_0),
    format(3, "Q4_1", 32, 20, q4_1),
    format(6, "Q5_0", 32, 22, q5_0),
    format(7, "Q5_1", 32, 24, q5_1),
    format(8, "Q8_0", 32, 34, q8_0),
    format(10, "Q2_K", 256, 84, q2_k),
    format(11, "Q3_K", 256, 110, q3_k),
    format(12, "Q4_K", 256, 144, q4_k),
    format(13, "Q5_K", 256, 176, q5_k),
    format(14, "Q6_K", 256, 210, q6_k),
];

const fn format(
    id: u32,
    name: &'static str,
    elements: usize,
    bytes: usize,
    element: fn(&[u8], usize) -> f64,
) -> Format {
    Format {
        id,
        name,
        elements,
        bytes,
        element,
    }
}

impl Format {
    /// The format with this ggml id. Panics if the oracle does not know it.
    pub fn by_id(id: u32) -> Format {
        *FORMATS
            .iter()
            .find(|f| f.id == id)
            .unwrap_or_else(|| panic!("ggml type {id}: the oracle has no such format"))
    }

    /// The format with this name. Panics if the oracle does not know it.
    pub fn by_name(name: &str) -> Format {
        *FORMATS
            .iter()
            .find(|f| f.name == name)
            .unwrap_or_else(|| panic!("{name}: the oracle has no such format"))
    }

    /// Whether the elements are plain floats rather than quantised blocks.
    pub fn is_float(self) -> bool {
        self.elements == 1
    }

    /// The values of whole blocks. Panics unless `bytes` is a whole number of blocks.
    pub fn dequantise(self, bytes: &[u8]) -> Vec<f64> {
        assert_eq!(
            bytes.len() % self.bytes,
            0,
            "{}: {} bytes are not whole blocks of {}",
            self.name,
            bytes.len(),
            self.bytes
        );
        bytes
            .chunks_exact(self.bytes)
            .flat_map(|block| (0..self.elements).map(move |i| (self.element)(block, i)))
            .collect()
    }
}

/// The IEEE binary16 at byte `at`, from its sign, exponent and fraction.
fn f16(block: &[u8], at: usize) -> f64 {
    let bits = u16::from_le_bytes([block[at], block[at + 1]]);
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(bits >> 10 & 31);
    let fraction = f64::from(bits & 1023);
    match exponent {
        0 => sign * fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => sign * f64::INFINITY,
        31 => f64::NAN,
        _ => sign * (1024.0 + fraction) * 2f64.powi(exponent - 25),
    }
}

fn f32_element(block: &[u8], _: usize) -> f64 {
    f64::from(f32::from_le_bytes([block[0], block[1], block[2], block[3]]))
}

fn bf16_element(block: &[u8], _: usize) -> f64 {
    f64::from(f32::from_bits(
        u32::from(u16::from_le_bytes([block[0], block[1]])) << 16,
    ))
}

/// Nibble `i` of a 32-element block: the low halves of 16 bytes first, then the high halves.
fn nibble(qs: &[u8], i: usize) -> u8 {
    if i < 16 { qs[i] & 15 } else { qs[i - 16] >> 4 }
}

/// Bit `i` of the 32 fifth bits, as 0 or 16.
fn fifth(qh: &[u8], i: usize) -> u8 {
    (qh[i / 8] >> (i % 8) & 1) << 4
}

fn q4_0(b: &[u8], i: usize) -> f64 {
    f16(b, 0) * (f64::from(nibble(&b[2..], i)) - 8.0)
}

fn q4_1(b: &[u8], i: usize) -> f64 {
    f16(b, 0) * f64::from(nibble(&b[4..], i)) + f16(b, 2)
}

fn q5_0(b: &[u8], i: usize) -> f64 {
    f16(b, 0) * (f64::from(nibble(&b[6..], i) | fifth(&b[2..6], i)) - 16.0)
}

fn q5_1(b: &[u8], i: usize) -> f64 {
    f16(b, 0) * f64::from(nibble(&b[8..], i) | fifth(&b[4..8], i)) + f16(b, 2)
}

fn q8_0(b: &[u8], i: usize) -> f64 {
    f16(b, 0) * f64::from(b[2 + i] as i8)
}

/// Two bits of a 256-element block: 128 elements share 32 bytes, each byte holding elements `l, l+32, l+64, l+96`.
fn crumb(qs: &[u8], i: usize) -> u8 {
    qs[32 * (i / 128) + i % 32] >> (2 * (i % 128 / 32)) & 3
}

/// `scales[16] qs[64] d dmin`: a 4-bit scale and a 4-bit minimum for every 16 elements.
fn q2_k(b: &[u8], i: usize) -> f64 {
    let scale = b[i / 16];
    f16(b, 80) * f64::from(scale & 15) * f64::from(crumb(&b[16..80], i))
        - f16(b, 82) * f64::from(scale >> 4)
}

/// `hmask[32] qs[64] scales[12] d`: a 6-bit scale less 32 for every 16 elements; a clear high bit means minus 4.
fn q3_k(b: &[u8], i: usize) -> f64 {
    let (packed, s) = (&b[96..108], i / 16);
    let low = if s < 8 {
        packed[s] & 15
    } else {
        packed[s - 8] >> 4
    };
    let high = packed[8 + s % 4] >> (2 * (s / 4)) & 3;
    let scale = f64::from(low | high << 4) - 32.0;
    let bit = b[i % 32] >> (i / 32) & 1;
    let q = f64::from(crumb(&b[32..96], i)) - if bit == 1 { 0.0 } else { 4.0 };
    f16(b, 108) * scale * q
}

/// The 6-bit scale and minimum of sub-block `s` of eight, packed in 12 bytes (Q4_K and Q5_K).
fn scale_and_min(packed: &[u8], s: usize) -> (f64, f64) {
    let (scale, min) = if s < 4 {
        (packed[s] & 63, packed[s + 4] & 63)
    } else {
        (
            packed[s + 4] & 15 | packed[s - 4] >> 6 << 4,
            packed[s + 4] >> 4 | packed[s] >> 6 << 4,
        )
    };
    (f64::from(scale), f64::from(min))
}

/// Nibble `i` of a 256-element block: 64 elements share 32 bytes, low halves first.
fn wide_nibble(qs: &[u8], i: usize) -> u8 {
    qs[32 * (i / 64) + i % 32] >> (4 * (i / 32 % 2)) & 15
}

/// `d dmin scales[12] qs[128]`.
fn q4_k(b: &[u8], i: usize) -> f64 {
    let (scale, min) = scale_and_min(&b[4..16], i / 32);
    f16(b, 0) * scale * f64::from(wide_nibble(&b[16..], i)) - f16(b, 2) * min
}

/// `d dmin scales[12] qh[32] qs[128]`.
fn q5_k(b: &[u8], i: usize) -> f64 {
    let (scale, min) = scale_and_min(&b[4..16], i / 32);
    let high = (b[16 + i % 32] >> (i / 32) & 1) << 4;
    f16(b, 0) * scale * f64::from(wide_nibble(&b[48..], i) | high) - f16(b, 2) * min
}

/// `ql[128] qh[64] scales[16] d`: a signed 8-bit scale for every 16 elements.
fn q6_k(b: &[u8], i: usize) -> f64 {
    let (half, quarter, l) = (i / 128, i % 128 / 32, i % 32);
    let low = b[64 * half + 32 * (quarter % 2) + l] >> (4 * (quarter / 2)) & 15;
    let high = b[128 + 32 * half + l] >> (2 * quarter) & 3;
    let scale = f64::from(b[192 + i / 16] as i8);
    f16(b, 208) * scale * (f64::from(low | high << 4) - 32.0)
}
