//! What a quantised type has to say about itself, and the bit planes its panels are made of.

use super::simd::Simd;
use crate::cpu::panel::LANES;

/// Columns of a chunk: what shares one activation scale, and what [`Format::unpack`] yields at a time.
pub(crate) const CHUNK: usize = 32;

/// Four-column groups in a chunk. One group of 16 lanes is 64 bytes: a cache line, and an AVX-512 register.
pub(crate) const GROUPS: usize = CHUNK / 4;

/// The arithmetic a type needs, apart from how its bits are packed. Types that agree share their GEMM code.
pub(crate) trait Shape {
    /// Columns that share a weight scale: 16 or 32.
    const SCALED: usize;
    /// Whether a constant, the block's minimum, is added to each weight.
    const MIN: bool;
    /// Scales in a chunk.
    const SCALES: usize = CHUNK / Self::SCALED;
    /// Bytes of an unpacked chunk: codes, scales, minima.
    const UNPACKED_BYTES: usize = 64 * (GROUPS + Self::SCALES * if Self::MIN { 2 } else { 1 });
}

/// The [`Shape`] with these constants.
pub(crate) struct Is<const SCALED: usize, const MIN: bool>;

impl<const SCALED: usize, const MIN: bool> Shape for Is<SCALED, MIN> {
    const SCALED: usize = SCALED;
    const MIN: bool = MIN;
}

/// A part of a panel's chunk in registers: `w = scale · (code − offset) + min`.
pub(crate) struct Chunk<S: Simd> {
    /// Codes of columns `4i … 4i+3`, four bytes a lane.
    pub q: [S::I; GROUPS],
    /// Scales of the first and second 16 columns. A type with one scale a chunk uses the first.
    pub scale: [S::F; 2],
    /// Minima, likewise; anything where [`Shape::MIN`] is false.
    pub min: [S::F; 2],
}

/// A quantised type: how a block of the file becomes 1/16 of a panel's block, and how that is read back.
pub(crate) trait Format {
    /// The arithmetic.
    type Shape: Shape;
    /// Columns in a block.
    const COLS: usize;
    /// Bytes of a block in the file.
    const FILE_BYTES: usize;
    /// Bytes of a block of 16 lanes in a panel.
    const PANEL_BYTES: usize;
    /// Subtracted from every code.
    const OFFSET: i32;

    /// Bytes from one panel of `k` columns to the next: its blocks, up to a whole cache line.
    fn panel_stride(k: usize) -> usize {
        (k / Self::COLS * Self::PANEL_BYTES).next_multiple_of(64)
    }

    /// Writes one file block as lane `lane` of the panel block `out`.
    fn pack(lane: usize, file: &[u8], out: &mut [u8]);

    /// Part `part` of chunk `chunk` of the panel block at `block`.
    ///
    /// # Safety
    /// `block` must be valid for reads of `PANEL_BYTES`; `chunk < COLS / 32`; `part < 16 / S::LANES`; must be inlined into
    /// a function compiled for `S`.
    unsafe fn unpack<S: Simd>(block: *const u8, chunk: usize, part: usize) -> Chunk<S>;
}

/// 32 codes of one lane, four to a word in column order, as packing handles them.
pub(crate) type Codes = [u32; GROUPS];

/// Reads 32 bytes as codes.
pub(crate) fn codes(bytes: &[u8]) -> Codes {
    let (words, rest) = bytes.as_chunks::<4>();
    debug_assert!(words.len() == GROUPS && rest.is_empty());
    core::array::from_fn(|i| u32::from_le_bytes(words[i]))
}

/// The same byte in all four places of a word.
pub(crate) const fn spread(byte: u8) -> u32 {
    byte as u32 * 0x0101_0101
}

fn put(out: &mut [u8], group: usize, lane: usize, word: u32) {
    out[group * 64 + lane * 4..][..4].copy_from_slice(&word.to_le_bytes());
}

/// Writes a 16-bit float of the file as lane `lane` of 16.
pub(crate) fn put_half(out: &mut [u8], lane: usize, file: &[u8]) {
    out[2 * lane..][..2].copy_from_slice(&file[..2]);
}

/// Bytes of a plane of whole bytes, of nibbles, of bit pairs, and of bits: 32 columns × 16 lanes each.
pub(crate) const BYTES: usize = CHUNK * LANES;
pub(crate) const NIBBLES: usize = BYTES / 2;
pub(crate) const PAIRS: usize = BYTES / 4;
pub(crate) const BITS: usize = BYTES / 8;
/// Bytes of 16 half-precision floats.
pub(crate) const HALVES: usize = 2 * LANES;

/// Writes whole bytes.
pub(crate) fn put_bytes(out: &mut [u8], lane: usize, codes: Codes) {
    for (i, word) in codes.into_iter().enumerate() {
        put(out, i, lane, word);
    }
}

/// Writes the low four bits of the codes: group `i` with group `i + 4` above it, as 32-wide files have them.
pub(crate) fn put_nibbles(out: &mut [u8], lane: usize, codes: Codes) {
    let nibble = spread(15);
    for i in 0..4 {
        put(
            out,
            i,
            lane,
            codes[i] & nibble | (codes[i + 4] & nibble) << 4,
        );
    }
}

/// Writes two bits of each code, those from bit `from` up: four groups to a register.
pub(crate) fn put_pairs(out: &mut [u8], lane: usize, codes: Codes, from: u32) {
    for (i, four) in codes.as_chunks::<4>().0.iter().enumerate() {
        let word = (0..4).fold(0, |w, j| w | (four[j] >> from & spread(3)) << (2 * j));
        put(out, i, lane, word);
    }
}

/// Writes bit `from` of each code: all eight groups in one register.
pub(crate) fn put_bits(out: &mut [u8], lane: usize, codes: Codes, from: u32) {
    let word = (0..GROUPS).fold(0, |w, i| w | (codes[i] >> from & spread(1)) << i);
    put(out, 0, lane, word);
}

/// Moves the `width`-bit field at bit `from` of each byte to bit `to`, clearing the others.
///
/// # Safety
/// As [`Simd`] says.
#[inline(always)]
unsafe fn moved<S: Simd>(v: S::I, from: u32, to: u32, width: u32) -> S::I {
    let mask = (((1u32 << width) - 1) << to) as u8;
    // SAFETY: the caller inlines this into a function compiled for `S`.
    unsafe {
        match from.cmp(&to) {
            core::cmp::Ordering::Equal => S::and(v, mask),
            core::cmp::Ordering::Less => S::shift_left(v, to - from, mask),
            core::cmp::Ordering::Greater => S::shift_right(v, from - to, mask),
        }
    }
}

/// Reads register `group` of the plane at `at`.
///
/// # Safety
/// The plane must be readable; otherwise as [`Simd`] says.
#[inline(always)]
unsafe fn plane<S: Simd>(at: *const u8, group: usize, part: usize) -> S::I {
    // SAFETY: the caller's promise; a part is `LANES` lanes of four bytes.
    unsafe { S::load(at.add(64 * group + 4 * S::LANES * part)) }
}

/// The eight values of an expression in the group's index, written out: a closure would be compiled without the target's
/// features and might stay a call.
macro_rules! each_group {
    ($i:ident => $value:expr) => {
        each_group!(@ $i, $value, 0 1 2 3 4 5 6 7)
    };
    (@ $i:ident, $value:expr, $($n:literal)*) => {
        [$({
            let $i: usize = $n;
            $value
        }),*]
    };
}

/// Reads whole signed bytes as codes, 128 more.
///
/// # Safety
/// `at` must hold [`BYTES`]; otherwise as [`Simd`] says.
#[inline(always)]
pub(crate) unsafe fn bytes<S: Simd>(at: *const u8, part: usize) -> [S::I; GROUPS] {
    // SAFETY: the caller's promise.
    unsafe { each_group!(i => S::bytes(plane::<S>(at, i, part))) }
}

/// Reads what [`put_nibbles`] wrote.
///
/// # Safety
/// `at` must hold [`NIBBLES`]; otherwise as [`Simd`] says.
#[inline(always)]
pub(crate) unsafe fn nibbles<S: Simd>(at: *const u8, part: usize) -> [S::I; GROUPS] {
    // SAFETY: the caller's promise.
    unsafe { each_group!(i => moved::<S>(plane::<S>(at, i % 4, part), 4 * (i as u32 / 4), 0, 4)) }
}

/// Reads what [`put_pairs`] wrote, at bit `to`.
///
/// # Safety
/// `at` must hold [`PAIRS`]; otherwise as [`Simd`] says.
#[inline(always)]
pub(crate) unsafe fn pairs<S: Simd>(at: *const u8, part: usize, to: u32) -> [S::I; GROUPS] {
    // SAFETY: the caller's promise.
    unsafe { each_group!(i => moved::<S>(plane::<S>(at, i / 4, part), 2 * (i as u32 % 4), to, 2)) }
}

/// Reads what [`put_bits`] wrote, at bit `to`.
///
/// # Safety
/// `at` must hold [`BITS`]; otherwise as [`Simd`] says.
#[inline(always)]
pub(crate) unsafe fn bits<S: Simd>(at: *const u8, part: usize, to: u32) -> [S::I; GROUPS] {
    // SAFETY: the caller's promise.
    unsafe { each_group!(i => moved::<S>(plane::<S>(at, 0, part), i as u32, to, 1)) }
}

/// Joins two disjoint planes.
///
/// # Safety
/// As [`Simd`] says.
#[inline(always)]
pub(crate) unsafe fn joined<S: Simd>(a: [S::I; GROUPS], b: [S::I; GROUPS]) -> [S::I; GROUPS] {
    // SAFETY: the caller's promise.
    unsafe { each_group!(i => S::or(a[i], b[i])) }
}

/// Reads part `part` of 16 half-precision floats.
///
/// # Safety
/// `at` must hold [`HALVES`]; otherwise as [`Simd`] says.
#[inline(always)]
pub(crate) unsafe fn halves<S: Simd>(at: *const u8, part: usize) -> S::F {
    // SAFETY: the caller's promise.
    unsafe { S::halves(at.add(2 * S::LANES * part)) }
}
