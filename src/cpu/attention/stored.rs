//! How attention reads a cache: rows of floats or halves, or rows of bytes with a scale for every 32.
//!
//! Bytes are widened and scaled where they are loaded, once for all queries that share a K/V head. That costs four
//! instructions a vector where a half costs one, so bytes were expected to be slower while the cache is in the
//! second-level cache and to gain where it is not. GMAC/s of CPU time, one core of Zen 4 with others at work, nine query
//! heads over three of 64, the best of 30:
//!
//! | | f16 | q8_0 |
//! |---|---|---|
//! | one row at position 511 | 31.6 | 25.8 |
//! | one row at 4,095 (1.6 MB of f16) | 32.1 | 26.2 |
//! | 256 rows from 0 | 40.4 | 38.7 |
//! | 256 rows from 256 | 41.7 | 40.3 |
//!
//! Perplexity of SmolLM2-135M Q4_1 over the GPL's first 19,346 bytes at `--ctx 512`: 18.342 with f16, 18.338 with q8_0.

use crate::cpu::kv::{HeadRows, Q8_BLOCK};
use crate::cpu::simd::{Element, ElementF32, Lanes, prefetch};

/// A type of cache, as vectors of f32. Elements are counted from the head's position 0.
///
/// # Safety
/// As for [`Lanes`]: the elements named are readable in the head's rows, which are of this type.
pub(super) trait Stored {
    /// Two vectors from `element` on, which is a multiple of their length from the row's start.
    unsafe fn pair<L: Lanes>(rows: HeadRows, element: usize) -> [L; 2];
    /// The first `n` elements of a vector, the others 0. `element` is a whole number of vectors from the row's start.
    unsafe fn some<L: Lanes>(rows: HeadRows, element: usize, n: usize) -> L;
    /// Asks for what lies `ahead` bytes past `element`.
    unsafe fn prefetch(rows: HeadRows, element: usize, ahead: usize);
    /// Writes the transpose of an N × N block, as [`Lanes::transpose`]: row `i` begins at element `first + min(i,
    /// live − 1) · d` and has `cols` elements, and element `c` goes to `out[c · out_stride + i]`.
    unsafe fn transpose<L: Lanes>(
        rows: HeadRows,
        first: usize,
        d: usize,
        live: usize,
        cols: usize,
        out: *mut f32,
        out_stride: usize,
    );
}

/// Signed bytes, a scale for every 32 ([`crate::graph::KvType::Q8_0`]). Rows are whole blocks, and a vector, or an
/// aligned pair of the shorter ones, lies in one block.
pub(super) struct Q8;

/// Elements that a vector loads as they lie.
impl<E: Element> Stored for E {
    #[inline(always)]
    unsafe fn pair<L: Lanes>(rows: HeadRows, element: usize) -> [L; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let at = rows.at.add(E::BYTES * element);
            [E::load(at), E::load(at.add(E::BYTES * L::N))]
        }
    }
    #[inline(always)]
    unsafe fn some<L: Lanes>(rows: HeadRows, element: usize, n: usize) -> L {
        // SAFETY: the caller's promise.
        unsafe {
            let at = rows.at.add(E::BYTES * element);
            if n >= L::N {
                E::load(at)
            } else {
                E::load_partial(at, n)
            }
        }
    }
    #[inline(always)]
    unsafe fn prefetch(rows: HeadRows, element: usize, ahead: usize) {
        prefetch(rows.at.wrapping_add(E::BYTES * element + ahead));
    }
    #[inline(always)]
    unsafe fn transpose<L: Lanes>(
        rows: HeadRows,
        first: usize,
        d: usize,
        live: usize,
        cols: usize,
        out: *mut f32,
        out_stride: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let from = rows.at.add(E::BYTES * first);
            L::transpose::<E>(from, E::BYTES * d, live, cols, out, out_stride);
        }
    }
}

impl Q8 {
    /// The scale of an element in every lane.
    #[inline(always)]
    unsafe fn scale<L: Lanes>(rows: HeadRows, element: usize) -> L {
        // SAFETY: the caller's promise: the element's block has a scale.
        unsafe { L::splat_f16(rows.scales.add(element / Q8_BLOCK)) }
    }
}

impl Stored for Q8 {
    #[inline(always)]
    unsafe fn pair<L: Lanes>(rows: HeadRows, element: usize) -> [L; 2] {
        // SAFETY: the caller's promise; two vectors of at most 16 from a multiple of both are of one block.
        unsafe {
            let (at, scale) = (
                rows.at.add(element).cast::<i8>(),
                Self::scale::<L>(rows, element),
            );
            [
                L::load_i8(at).mul(scale),
                L::load_i8(at.add(L::N)).mul(scale),
            ]
        }
    }
    #[inline(always)]
    unsafe fn some<L: Lanes>(rows: HeadRows, element: usize, n: usize) -> L {
        if n < L::N {
            // Rows are whole blocks: what is not a whole vector lies past the row.
            debug_assert_eq!(n, 0);
            // SAFETY: nothing is read.
            return unsafe { L::splat(0.0) };
        }
        // SAFETY: the caller's promise.
        unsafe {
            let at = rows.at.add(element).cast::<i8>();
            L::load_i8(at).mul(Self::scale::<L>(rows, element))
        }
    }
    #[inline(always)]
    unsafe fn prefetch(rows: HeadRows, element: usize, ahead: usize) {
        prefetch(rows.at.wrapping_add(element + ahead));
    }
    #[inline(always)]
    unsafe fn transpose<L: Lanes>(
        rows: HeadRows,
        first: usize,
        d: usize,
        live: usize,
        cols: usize,
        out: *mut f32,
        out_stride: usize,
    ) {
        debug_assert!(cols >= L::N);
        let mut block = [0f32; 16 * 16];
        // SAFETY: the caller's promise; N rows of N elements fit the block.
        unsafe {
            for i in 0..L::N.min(live) {
                let row = Self::some::<L>(rows, first + i * d, L::N);
                row.store(block.as_mut_ptr().add(i * L::N));
            }
            let from = block.as_ptr().cast::<u8>();
            L::transpose::<ElementF32>(from, 4 * L::N, live, L::N, out, out_stride);
        }
    }
}
