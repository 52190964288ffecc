//! The K-quants: super-blocks of 256 columns with one or two halves for all, and small integer scales for each 16 or 32.
//!
//! A panel's block is the 16 lanes' halves, then eight chunks of 32 columns: scales, minima, then the codes' planes. The
//! integer scales are kept whole, a byte each, so that the product with the half is the file's exact value (11 bits times
//! 8 fit a float). Q4_K and Q5_K, whose file packs them in six bits, grow by 2.8 and 2.3 %, Q3_K by 3.6 %; the others keep
//! their size.

use super::format::*;
use super::simd::Simd;
use crate::cpu::panel::LANES;

const CHUNKS: usize = 256 / CHUNK;

/// The nibbles at bit `from` of 32 bytes.
fn nibble_at(codes: Codes, from: u32) -> Codes {
    codes.map(|word| word >> from & spread(15))
}

/// The six-bit scale and minimum of chunk `c` as Q4_K and Q5_K pack them.
fn scale_min(scales: &[u8], c: usize) -> [u8; 2] {
    if c < 4 {
        [scales[c] & 63, scales[c + 4] & 63]
    } else {
        [
            scales[c + 4] & 15 | scales[c - 4] >> 6 << 4,
            scales[c + 4] >> 4 | scales[c] >> 6 << 4,
        ]
    }
}

/// The constants, `pack` and `unpack` of Q4_K and Q5_K: `d dmin scales [qh] qs`, scales and minima for 32 columns.
macro_rules! six_bit_type {
    ($(#[$doc:meta])* $name:ident, $shape:ty, fifth bit $fifth:literal) => {
        $(#[$doc])*
        pub(crate) struct $name;

        impl $name {
            const PLANES: usize = NIBBLES + BITS * $fifth as usize;
            const CHUNK_BYTES: usize = 2 * LANES + Self::PLANES;
        }

        impl Format for $name {
            type Shape = $shape;
            const COLS: usize = 256;
            const FILE_BYTES: usize = 2 + 2 + 12 + 32 * $fifth as usize + 128;
            const PANEL_BYTES: usize = 2 * HALVES + CHUNKS * Self::CHUNK_BYTES;
            const OFFSET: i32 = 0;

            fn pack(lane: usize, file: &[u8], out: &mut [u8]) {
                let (head, qs) = file.split_at(Self::FILE_BYTES - 128);
                put_half(out, lane, head);
                put_half(&mut out[HALVES..], lane, &head[2..]);
                let chunks = out[2 * HALVES..].chunks_exact_mut(Self::CHUNK_BYTES);
                for (c, out) in chunks.enumerate() {
                    let [scale, min] = scale_min(&head[4..16], c);
                    out[lane] = scale;
                    out[LANES + lane] = min;
                    let out = &mut out[2 * LANES..];
                    // Chunks 2i and 2i + 1 share 32 bytes, low and high nibble.
                    let low = nibble_at(codes(&qs[c / 2 * 32..][..32]), c as u32 % 2 * 4);
                    put_nibbles(out, lane, low);
                    if $fifth {
                        put_bits(&mut out[NIBBLES..], lane, codes(&head[16..48]), c as u32);
                    }
                }
            }

            #[inline(always)]
            unsafe fn unpack<S: Simd>(block: *const u8, chunk: usize, part: usize) -> Chunk<S> {
                // SAFETY: the caller's promise; header and chunks fill the block's `PANEL_BYTES`.
                unsafe {
                    let at = block.add(2 * HALVES + chunk * Self::CHUNK_BYTES);
                    let lane = part * S::LANES;
                    let scale = S::mul(halves::<S>(block, part), S::unsigned(at.add(lane), 0, 255));
                    let minus = S::mul(halves::<S>(block.add(HALVES), part), S::splat(-1.0));
                    let min = S::mul(minus, S::unsigned(at.add(LANES + lane), 0, 255));
                    let at = at.add(2 * LANES);
                    let mut q = nibbles::<S>(at, part);
                    if $fifth {
                        q = joined::<S>(q, bits::<S>(at.add(NIBBLES), part, 4));
                    }
                    Chunk { q, scale: [scale; 2], min: [min; 2] }
                }
            }
        }
    };
}

six_bit_type! {
    /// `w = d · scale · q − dmin · min`, `q` four bits.
    Q4K, Is<32, true>, fifth bit false
}
six_bit_type! {
    /// `w = d · scale · q − dmin · min`, `q` five bits.
    Q5K, Is<32, true>, fifth bit true
}

/// `w = d · scale · (q − 32)`, `q` six bits, `scale` a signed byte for 16 columns.
pub(crate) struct Q6K;

impl Q6K {
    const CHUNK_BYTES: usize = 2 * LANES + NIBBLES + PAIRS;
}

impl Format for Q6K {
    type Shape = Is<16, false>;
    const COLS: usize = 256;
    const FILE_BYTES: usize = 128 + 64 + 16 + 2;
    const PANEL_BYTES: usize = HALVES + CHUNKS * Self::CHUNK_BYTES;
    const OFFSET: i32 = 32;

    fn pack(lane: usize, file: &[u8], out: &mut [u8]) {
        let (ql, rest) = file.split_at(128);
        let (qh, rest) = rest.split_at(64);
        let (scales, d) = rest.split_at(16);
        put_half(out, lane, d);
        let chunks = out[HALVES..].chunks_exact_mut(Self::CHUNK_BYTES);
        for (c, out) in chunks.enumerate() {
            out[lane] = scales[2 * c];
            out[LANES + lane] = scales[2 * c + 1];
            let out = &mut out[2 * LANES..];
            // Each half of 128 columns: 64 bytes hold chunks 0 and 1 low, 2 and 3 high; 32 bytes hold all four's pairs.
            let (half, of) = (c / 4, c % 4);
            let low = codes(&ql[half * 64 + of % 2 * 32..][..32]);
            put_nibbles(out, lane, nibble_at(low, of as u32 / 2 * 4));
            put_pairs(
                &mut out[NIBBLES..],
                lane,
                codes(&qh[half * 32..][..32]),
                2 * of as u32,
            );
        }
    }

    #[inline(always)]
    unsafe fn unpack<S: Simd>(block: *const u8, chunk: usize, part: usize) -> Chunk<S> {
        // SAFETY: the caller's promise; header and chunks fill the block's `PANEL_BYTES`.
        unsafe {
            let at = block.add(HALVES + chunk * Self::CHUNK_BYTES);
            let lane = part * S::LANES;
            let d = halves::<S>(block, part);
            let scale = [
                S::mul(d, S::signed(at.add(lane))),
                S::mul(d, S::signed(at.add(LANES + lane))),
            ];
            let at = at.add(2 * LANES);
            let q = joined::<S>(nibbles::<S>(at, part), pairs::<S>(at.add(NIBBLES), part, 4));
            Chunk {
                q,
                scale,
                min: scale,
            }
        }
    }
}

/// `w = d · scale · q − dmin · min`, `q` two bits, scale and minimum a nibble each for 16 columns.
pub(crate) struct Q2K;

impl Q2K {
    const CHUNK_BYTES: usize = 2 * LANES + PAIRS;
}

impl Format for Q2K {
    type Shape = Is<16, true>;
    const COLS: usize = 256;
    const FILE_BYTES: usize = 16 + 64 + 2 + 2;
    const PANEL_BYTES: usize = 2 * HALVES + CHUNKS * Self::CHUNK_BYTES;
    const OFFSET: i32 = 0;

    fn pack(lane: usize, file: &[u8], out: &mut [u8]) {
        let (scales, rest) = file.split_at(16);
        let (qs, d) = rest.split_at(64);
        put_half(out, lane, d);
        put_half(&mut out[HALVES..], lane, &d[2..]);
        let chunks = out[2 * HALVES..].chunks_exact_mut(Self::CHUNK_BYTES);
        for (c, out) in chunks.enumerate() {
            out[lane] = scales[2 * c];
            out[LANES + lane] = scales[2 * c + 1];
            let pairs = codes(&qs[c / 4 * 32..][..32]);
            put_pairs(&mut out[2 * LANES..], lane, pairs, c as u32 % 4 * 2);
        }
    }

    #[inline(always)]
    unsafe fn unpack<S: Simd>(block: *const u8, chunk: usize, part: usize) -> Chunk<S> {
        // SAFETY: the caller's promise; header and chunks fill the block's `PANEL_BYTES`.
        unsafe {
            let at = block.add(2 * HALVES + chunk * Self::CHUNK_BYTES);
            let first = at.add(part * S::LANES);
            let second = first.add(LANES);
            let d = halves::<S>(block, part);
            let minus = S::mul(halves::<S>(block.add(HALVES), part), S::splat(-1.0));
            Chunk {
                q: pairs::<S>(at.add(2 * LANES), part, 0),
                scale: [
                    S::mul(d, S::unsigned(first, 0, 15)),
                    S::mul(d, S::unsigned(second, 0, 15)),
                ],
                min: [
                    S::mul(minus, S::unsigned(first, 4, 15)),
                    S::mul(minus, S::unsigned(second, 4, 15)),
                ],
            }
        }
    }
}

/// `w = d · (scale − 32) · (q − 4)`, `q` three bits, `scale` six bits for 16 columns.
pub(crate) struct Q3K;

impl Q3K {
    const CHUNK_BYTES: usize = 2 * LANES + PAIRS + BITS;

    /// The 16 six-bit scales, less 32, from 12 bytes: low nibbles in the first eight, high pairs in the last four.
    fn scales(packed: &[u8]) -> [i8; 16] {
        core::array::from_fn(|i| {
            let low = packed[i % 8] >> (i / 8 * 4) & 15;
            let high = packed[8 + i % 4] >> (i / 4 * 2) & 3;
            (low | high << 4) as i8 - 32
        })
    }
}

impl Format for Q3K {
    type Shape = Is<16, false>;
    const COLS: usize = 256;
    const FILE_BYTES: usize = 32 + 64 + 12 + 2;
    const PANEL_BYTES: usize = HALVES + CHUNKS * Self::CHUNK_BYTES;
    const OFFSET: i32 = 4;

    fn pack(lane: usize, file: &[u8], out: &mut [u8]) {
        let (mask, rest) = file.split_at(32);
        let (qs, rest) = rest.split_at(64);
        let (scales, d) = rest.split_at(12);
        let scales = Self::scales(scales);
        put_half(out, lane, d);
        let chunks = out[HALVES..].chunks_exact_mut(Self::CHUNK_BYTES);
        for (c, out) in chunks.enumerate() {
            out[lane] = scales[2 * c] as u8;
            out[LANES + lane] = scales[2 * c + 1] as u8;
            let out = &mut out[2 * LANES..];
            let pairs = codes(&qs[c / 4 * 32..][..32]);
            put_pairs(out, lane, pairs, c as u32 % 4 * 2);
            put_bits(&mut out[PAIRS..], lane, codes(mask), c as u32);
        }
    }

    #[inline(always)]
    unsafe fn unpack<S: Simd>(block: *const u8, chunk: usize, part: usize) -> Chunk<S> {
        // SAFETY: the caller's promise; header and chunks fill the block's `PANEL_BYTES`.
        unsafe {
            let at = block.add(HALVES + chunk * Self::CHUNK_BYTES);
            let lane = part * S::LANES;
            let d = halves::<S>(block, part);
            let scale = [
                S::mul(d, S::signed(at.add(lane))),
                S::mul(d, S::signed(at.add(LANES + lane))),
            ];
            let at = at.add(2 * LANES);
            let q = joined::<S>(pairs::<S>(at, part, 0), bits::<S>(at.add(PAIRS), part, 2));
            Chunk {
                q,
                scale,
                min: scale,
            }
        }
    }
}
