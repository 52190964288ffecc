//! The 32-wide types. A panel's block is the file's 16 blocks with like put beside like: the codes' planes, then 16 scales,
//! then 16 minima; exactly as many bytes as the file has.

use super::format::*;
use super::simd::Simd;

/// The constants and `unpack` of a type whose file block is `d [m] [qh] qs`.
macro_rules! nibble_type {
    ($(#[$doc:meta])* $name:ident, $shape:ty, offset $offset:literal, minimum $min:literal, fifth bit $fifth:literal) => {
        $(#[$doc])*
        pub(crate) struct $name;

        impl Format for $name {
            type Shape = $shape;
            const COLS: usize = 32;
            const FILE_BYTES: usize = 2 + 2 * $min as usize + 4 * $fifth as usize + 16;
            const PANEL_BYTES: usize = 16 * Self::FILE_BYTES;
            const OFFSET: i32 = $offset;

            fn pack(lane: usize, file: &[u8], out: &mut [u8]) {
                let (head, qs) = file.split_at(Self::FILE_BYTES - 16);
                // The file pairs column c with column c + 16, and so does the plane: words move whole.
                for (i, word) in qs.as_chunks::<4>().0.iter().enumerate() {
                    out[64 * i + 4 * lane..][..4].copy_from_slice(word);
                }
                let mut at = NIBBLES;
                if $fifth {
                    let qh = u32::from_le_bytes(*head.last_chunk().expect("qh ends the head"));
                    put_bits(&mut out[at..], lane, fifth_bits(qh), 0);
                    at += BITS;
                }
                put_half(&mut out[at..], lane, head);
                if $min {
                    put_half(&mut out[at + HALVES..], lane, &head[2..]);
                }
            }

            #[inline(always)]
            unsafe fn unpack<S: Simd>(block: *const u8, _: usize, part: usize) -> Chunk<S> {
                // SAFETY: the caller's promise; the planes and halves fill the block's `PANEL_BYTES`.
                unsafe {
                    let mut q = nibbles::<S>(block, part);
                    let mut at = block.add(NIBBLES);
                    if $fifth {
                        q = joined::<S>(q, bits::<S>(at, part, 4));
                        at = at.add(BITS);
                    }
                    let scale = halves::<S>(at, part);
                    let min = if $min { halves::<S>(at.add(HALVES), part) } else { scale };
                    Chunk { q, scale: [scale; 2], min: [min; 2] }
                }
            }
        }
    };
}

/// Spreads 32 bits to one a code.
fn fifth_bits(qh: u32) -> Codes {
    core::array::from_fn(|i| {
        let four = qh >> (4 * i);
        (0..4).fold(0, |w, j| w | (four >> j & 1) << (8 * j))
    })
}

nibble_type! {
    /// `w = d · (q − 8)`, `q` four bits.
    Q4_0, Is<32, false>, offset 8, minimum false, fifth bit false
}
nibble_type! {
    /// `w = d · q + m`, `q` four bits.
    Q4_1, Is<32, true>, offset 0, minimum true, fifth bit false
}
nibble_type! {
    /// `w = d · (q − 16)`, `q` five bits.
    Q5_0, Is<32, false>, offset 16, minimum false, fifth bit true
}
nibble_type! {
    /// `w = d · q + m`, `q` five bits.
    Q5_1, Is<32, true>, offset 0, minimum true, fifth bit true
}

/// `w = d · q`, `q` a signed byte; the code is `q + 128`.
pub(crate) struct Q8_0;

impl Format for Q8_0 {
    type Shape = Is<32, false>;
    const COLS: usize = 32;
    const FILE_BYTES: usize = 34;
    const PANEL_BYTES: usize = 16 * Self::FILE_BYTES;
    const OFFSET: i32 = 128;

    fn pack(lane: usize, file: &[u8], out: &mut [u8]) {
        put_bytes(out, lane, codes(&file[2..]));
        put_half(&mut out[BYTES..], lane, file);
    }

    #[inline(always)]
    unsafe fn unpack<S: Simd>(block: *const u8, _: usize, part: usize) -> Chunk<S> {
        // SAFETY: the caller's promise; the plane and the halves fill the block's `PANEL_BYTES`.
        unsafe {
            let q = bytes::<S>(block, part);
            let scale = halves::<S>(block.add(BYTES), part);
            Chunk {
                q,
                scale: [scale; 2],
                min: [scale; 2],
            }
        }
    }
}
