//! Weights as the GPU kernels read them: a quantised row becomes a few planes, so that a wave reads
//! contiguous 16-byte pieces of codes and finds their scales in pieces of their own.
//!
//! A row is its planes one after the other, each padded with zeros to [`PLANE_ALIGN`] bytes:
//!
//! | plane | bytes | of |
//! |---|---|---|
//! | `codes`: nibbles | 16 a block of 32: byte `i` is element `i` (low) and `i + 16` (high) | Q4_0 Q4_1 Q5_0 Q5_1 Q4_K Q5_K Q6_K |
//! | `codes`: bytes | 32 a block, signed | Q8_0 |
//! | `codes`: pairs | 8 a block: byte `i` is elements `i`, `i + 8`, `i + 16`, `i + 24` at bits 0, 2, 4, 6 | Q2_K Q3_K |
//! | `high`: bits | 4 a block: bit `i` of the word is element `i`'s top bit | Q5_0 Q5_1 Q5_K Q3_K |
//! | `high`: pairs | 8 a block, as above | Q6_K |
//! | `d` | an f16 for every 32 elements, or for every 256 of the K types | all |
//! | `m` | the same for minima | Q4_1 Q5_1 Q2_K Q4_K Q5_K |
//! | `scales` | a byte a sub-block of 16 (Q2_K Q3_K Q6_K) or 32 (Q4_K Q5_K), signed for Q3_K and Q6_K | K types |
//! | `mins` | an unsigned byte a sub-block | Q2_K Q4_K Q5_K |
//!
//! Codes are unsigned and count from an offset (Q4_0 8, Q5_0 16, Q3_K 4, Q6_K 32) that the kernels
//! know; the scales of Q3_K are stored with their 32 taken off. Rows of floats stay as the file has
//! them and are only padded. `kernels/repack.hip` writes this from a file's blocks, `kernels/layout.h` reads it.

use crate::dtype::DType;

/// Planes, and so rows, begin at multiples of this: one load of a lane.
pub const PLANE_ALIGN: usize = 16;

/// Elements that share a word of `high` and a run of `codes`.
pub const BLOCK: usize = 32;

/// How the low bits of the codes are stored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Codes {
    Nibbles,
    Bytes,
    Pairs,
}

/// How the bits above them are stored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum High {
    None,
    Bits,
    Pairs,
}

/// The planes of a quantised type.
struct Spec {
    codes: Codes,
    high: High,
    has_mins: bool,
    /// Elements a byte of `scales` is for; `None` where `d` is the only scale.
    sub_block: Option<usize>,
}

/// `None` for floats.
fn spec(dtype: DType) -> Option<Spec> {
    use Codes::{Bytes, Nibbles};
    let (codes, high, has_mins, sub_block) = match dtype {
        DType::F32 | DType::F16 | DType::BF16 => return None,
        DType::Q4_0 => (Nibbles, High::None, false, None),
        DType::Q4_1 => (Nibbles, High::None, true, None),
        DType::Q5_0 => (Nibbles, High::Bits, false, None),
        DType::Q5_1 => (Nibbles, High::Bits, true, None),
        DType::Q8_0 => (Bytes, High::None, false, None),
        DType::Q2_K => (Codes::Pairs, High::None, true, Some(16)),
        DType::Q3_K => (Codes::Pairs, High::Bits, false, Some(16)),
        DType::Q4_K => (Nibbles, High::None, true, Some(32)),
        DType::Q5_K => (Nibbles, High::Bits, true, Some(32)),
        DType::Q6_K => (Nibbles, High::Pairs, false, Some(16)),
        other => panic!("{other} does not run, and the model was checked for it"),
    };
    Some(Spec {
        codes,
        high,
        has_mins,
        sub_block,
    })
}

/// Where the planes of one row begin, in bytes. A plane that the type has not is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowLayout {
    pub codes: usize,
    pub high: usize,
    pub d: usize,
    pub m: usize,
    pub scales: usize,
    pub mins: usize,
    /// From one row to the next.
    pub stride: usize,
}

/// The layout of rows of `cols` elements, whole blocks of `dtype`.
///
/// # Panics
/// When the type does not run.
pub fn row_layout(dtype: DType, cols: usize) -> RowLayout {
    let Some(spec) = spec(dtype) else {
        let stride = (cols * dtype.block_bytes()).next_multiple_of(PLANE_ALIGN);
        return RowLayout {
            codes: 0,
            high: stride,
            d: stride,
            m: stride,
            scales: stride,
            mins: stride,
            stride,
        };
    };
    let blocks = cols / BLOCK;
    let codes_bytes = match spec.codes {
        Codes::Nibbles => 16 * blocks,
        Codes::Bytes => 32 * blocks,
        Codes::Pairs => 8 * blocks,
    };
    let high_bytes = match spec.high {
        High::None => 0,
        High::Bits => 4 * blocks,
        High::Pairs => 8 * blocks,
    };
    let d_bytes = cols / dtype.block_len() * 2;
    let sub_blocks = spec.sub_block.map_or(0, |len| cols / len);
    let mut end = 0;
    let mut plane = |bytes: usize| {
        let start = end;
        end += bytes.next_multiple_of(PLANE_ALIGN);
        start
    };
    let codes = plane(codes_bytes);
    let high = plane(high_bytes);
    let d = plane(d_bytes);
    let m = plane(if spec.has_mins { d_bytes } else { 0 });
    let scales = plane(sub_blocks);
    let mins = plane(if spec.has_mins { sub_blocks } else { 0 });
    RowLayout {
        codes,
        high,
        d,
        m,
        scales,
        mins,
        stride: end,
    }
}
