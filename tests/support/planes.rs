//! Weights as `greta_infer::gpu::pack` describes them, made on the host: what the kernels that repack are compared with.

use greta_infer::dtype::DType;
use greta_infer::gpu::pack::{BLOCK, RowLayout, row_layout};

/// At which bytes of a block, as the file has it, an f16 begins: random bits are fine as codes, but not there.
pub fn halves(dtype: DType) -> &'static [usize] {
    match dtype {
        DType::Q4_0 | DType::Q5_0 | DType::Q8_0 => &[0],
        DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K => &[0, 2],
        DType::Q2_K => &[80, 82],
        DType::Q3_K => &[108],
        DType::Q6_K => &[208],
        _ => &[],
    }
}

/// Packs rows of `cols` elements from the file's blocks to planes.
pub fn pack_rows(dtype: DType, cols: usize, file: &[u8], out: &mut [u8]) {
    let row_bytes = dtype.row_bytes(cols).expect("whole blocks");
    let layout = row_layout(dtype, cols);
    let rows = file.len() / row_bytes;
    assert_eq!(
        (file.len(), out.len()),
        (rows * row_bytes, rows * layout.stride),
        "whole rows on both sides"
    );
    for (row, out) in file
        .chunks_exact(row_bytes)
        .zip(out.chunks_exact_mut(layout.stride))
    {
        if dtype.is_float() {
            out[..row_bytes].copy_from_slice(row);
            out[row_bytes..].fill(0);
        } else {
            pack_row(dtype, &layout, row, out);
        }
    }
}

/// The planes of one row, to be written block by block.
struct Planes<'o> {
    codes: &'o mut [u8],
    high: &'o mut [u8],
    d: &'o mut [u8],
    m: &'o mut [u8],
    scales: &'o mut [u8],
    mins: &'o mut [u8],
}

fn pack_row(dtype: DType, layout: &RowLayout, row: &[u8], out: &mut [u8]) {
    out.fill(0);
    let (codes, rest) = out.split_at_mut(layout.high);
    let (high, rest) = rest.split_at_mut(layout.d - layout.high);
    let (d, rest) = rest.split_at_mut(layout.m - layout.d);
    let (m, rest) = rest.split_at_mut(layout.scales - layout.m);
    let (scales, mins) = rest.split_at_mut(layout.mins - layout.scales);
    let mut planes = Planes {
        codes,
        high,
        d,
        m,
        scales,
        mins,
    };
    let blocks = row.chunks_exact(dtype.block_bytes()).enumerate();
    match dtype {
        DType::Q4_0 => blocks.for_each(|(i, b)| planes.simple(i, &b[..2], &[], &[], &b[2..])),
        DType::Q4_1 => blocks.for_each(|(i, b)| planes.simple(i, &b[..2], &b[2..4], &[], &b[4..])),
        DType::Q5_0 => blocks.for_each(|(i, b)| planes.simple(i, &b[..2], &[], &b[2..6], &b[6..])),
        DType::Q5_1 => {
            blocks.for_each(|(i, b)| planes.simple(i, &b[..2], &b[2..4], &b[4..8], &b[8..]));
        }
        DType::Q8_0 => blocks.for_each(|(i, b)| planes.simple(i, &b[..2], &[], &[], &b[2..])),
        DType::Q2_K => blocks.for_each(|(i, b)| planes.q2_k(i, b)),
        DType::Q3_K => blocks.for_each(|(i, b)| planes.q3_k(i, b)),
        DType::Q4_K => blocks.for_each(|(i, b)| planes.q4_k(i, b)),
        DType::Q5_K => blocks.for_each(|(i, b)| planes.q5_k(i, b)),
        DType::Q6_K => blocks.for_each(|(i, b)| planes.q6_k(i, b)),
        other => unreachable!("{other} has no planes"),
    }
}

/// Copies `bytes` to the `index`-th place of their size.
fn put(plane: &mut [u8], index: usize, bytes: &[u8]) {
    plane[index * bytes.len()..][..bytes.len()].copy_from_slice(bytes);
}

impl Planes<'_> {
    /// A 32-wide block, whose codes and top bits the file stores as the planes do.
    fn simple(&mut self, index: usize, d: &[u8], m: &[u8], high: &[u8], codes: &[u8]) {
        put(self.d, index, d);
        put(self.m, index, m);
        put(self.high, index, high);
        put(self.codes, index, codes);
    }

    /// The `index`-th 256 codes: their low nibbles to `codes`.
    fn nibbles(&mut self, index: usize, codes: &[u8; 256]) {
        for (block, codes) in codes.chunks_exact(BLOCK).enumerate() {
            let mut bytes = [0; 16];
            for (i, byte) in bytes.iter_mut().enumerate() {
                *byte = codes[i] & 15 | codes[i + 16] << 4;
            }
            put(self.codes, index * 8 + block, &bytes);
        }
    }

    /// Bits `shift` and above of 256 codes, two of each, in a plane of pairs.
    fn pairs(plane: &mut [u8], index: usize, codes: &[u8; 256], shift: u32) {
        for (block, codes) in codes.chunks_exact(BLOCK).enumerate() {
            let mut bytes = [0; 8];
            let pair = |i: usize| codes[i] >> shift & 3;
            for (i, byte) in bytes.iter_mut().enumerate() {
                *byte = pair(i) | pair(i + 8) << 2 | pair(i + 16) << 4 | pair(i + 24) << 6;
            }
            put(plane, index * 8 + block, &bytes);
        }
    }

    /// Bit `shift` of 256 codes, in `high`.
    fn bits(&mut self, index: usize, codes: &[u8; 256], shift: u32) {
        for (block, codes) in codes.chunks_exact(BLOCK).enumerate() {
            let bit = |(i, code): (usize, &u8)| u32::from(code >> shift & 1) << i;
            let word: u32 = codes.iter().enumerate().map(bit).sum();
            put(self.high, index * 8 + block, &word.to_le_bytes());
        }
    }

    /// `scales [16] (low nibble scale, high nibble minimum) | qs [64] | f16 d | f16 dmin`
    fn q2_k(&mut self, index: usize, b: &[u8]) {
        let codes = two_bit_codes(&b[16..80]);
        Self::pairs(self.codes, index, &codes, 0);
        put(self.d, index, &b[80..82]);
        put(self.m, index, &b[82..84]);
        for (i, both) in b[..16].iter().enumerate() {
            self.scales[index * 16 + i] = both & 15;
            self.mins[index * 16 + i] = both >> 4;
        }
    }

    /// `high bits [32] | qs [64] | scales [12] | f16 d`
    fn q3_k(&mut self, index: usize, b: &[u8]) {
        let (high, scales) = (&b[..32], &b[96..108]);
        let mut codes = two_bit_codes(&b[32..96]);
        for (i, code) in codes.iter_mut().enumerate() {
            *code |= (high[i % 32] >> (i / 32) & 1) << 2;
        }
        Self::pairs(self.codes, index, &codes, 0);
        self.bits(index, &codes, 2);
        put(self.d, index, &b[108..110]);
        for group in 0..16 {
            let low = scales[group % 8] >> (group / 8 * 4) & 15;
            let top = scales[8 + group % 4] >> (group / 4 * 2) & 3;
            self.scales[index * 16 + group] = (low | top << 4).wrapping_sub(32);
        }
    }

    /// `f16 d | f16 dmin | scales [12] | qs [128]`
    fn q4_k(&mut self, index: usize, b: &[u8]) {
        self.nibbles(index, &nibble_codes(&b[16..144]));
        self.scales_and_mins(index, b);
    }

    /// `f16 d | f16 dmin | scales [12] | high bits [32] | qs [128]`
    fn q5_k(&mut self, index: usize, b: &[u8]) {
        let mut codes = nibble_codes(&b[48..176]);
        for (i, code) in codes.iter_mut().enumerate() {
            *code |= (b[16 + i % 32] >> (i / 32) & 1) << 4;
        }
        self.nibbles(index, &codes);
        self.bits(index, &codes, 4);
        self.scales_and_mins(index, b);
    }

    /// The head that Q4_K and Q5_K share: `f16 d | f16 dmin`, then 6-bit scales and minima, whose
    /// packing [`DType::decode`] describes.
    fn scales_and_mins(&mut self, index: usize, b: &[u8]) {
        put(self.d, index, &b[..2]);
        put(self.m, index, &b[2..4]);
        let packed = &b[4..16];
        for group in 0..8 {
            let (scale, min) = if group < 4 {
                (packed[group] & 63, packed[group + 4] & 63)
            } else {
                (
                    packed[group + 4] & 15 | packed[group - 4] >> 6 << 4,
                    packed[group + 4] >> 4 | packed[group] >> 6 << 4,
                )
            };
            self.scales[index * 8 + group] = scale;
            self.mins[index * 8 + group] = min;
        }
    }

    /// `low nibbles [128] | high pairs [64] | i8 scales [16] | f16 d`
    fn q6_k(&mut self, index: usize, b: &[u8]) {
        let (low, high) = (&b[..128], &b[128..192]);
        let mut codes = [0; 256];
        for (i, code) in codes.iter_mut().enumerate() {
            let (half, within) = (i / 128, i % 128);
            let nibble = low[half * 64 + within % 64] >> (within / 64 * 4) & 15;
            let pair = high[half * 32 + within % 32] >> (within / 32 * 2) & 3;
            *code = nibble | pair << 4;
        }
        self.nibbles(index, &codes);
        Self::pairs(self.high, index, &codes, 4);
        put(self.scales, index, &b[192..208]);
        put(self.d, index, &b[208..210]);
    }
}

/// Q2_K's and Q3_K's low bits: each half of 128 elements has 32 bytes, whose bits 0–1 are its first
/// 32 elements, bits 2–3 the next, and so on.
fn two_bit_codes(qs: &[u8]) -> [u8; 256] {
    let mut codes = [0; 256];
    for (i, code) in codes.iter_mut().enumerate() {
        let (half, within) = (i / 128, i % 128);
        *code = qs[half * 32 + within % 32] >> (within / 32 * 2) & 3;
    }
    codes
}

/// Q4_K's and Q5_K's nibbles: each 32 bytes are 32 elements (low) and the next 32 (high).
fn nibble_codes(qs: &[u8]) -> [u8; 256] {
    let mut codes = [0; 256];
    for (i, code) in codes.iter_mut().enumerate() {
        *code = qs[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15;
    }
    codes
}
