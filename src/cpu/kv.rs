//! Appending to the key/value cache: f32 rows become rows of K and V, each [G, S, D], in f32, in f16 or in ggml's Q8_0.

use super::isa::Isa;
use super::simd::{Lanes, entry, f32_to_f16};
use crate::graph::KvType;

entry! {
    /// The instance of [`store_f16`] for an instruction set.
    pub fn store_f16_fn(x: *const f32, y: *mut u16, n: usize) = store_body::<L>
}

entry! {
    /// `n` f32, whole blocks of 32, as Q8_0: bytes to `q`, a scale a block to `scales`.
    fn store_q8_fn(x: *const f32, q: *mut i8, scales: *mut u16, n: usize) = store_q8_body::<L>
}

/// `y [n] = f16(x [n])`, to nearest, ties to even.
///
/// # Safety
/// The machine runs `isa`; `x` holds `n` readable f32, `y` `n` writable u16, and they do not overlap.
#[inline]
pub unsafe fn store_f16(isa: Isa, x: *const f32, y: *mut u16, n: usize) {
    // SAFETY: the caller's promise is the instance's.
    unsafe { store_f16_fn(isa)(x, y, n) }
}

/// Elements that share a scale in Q8_0.
pub const Q8_BLOCK: usize = 32;

/// Where a layer keeps its keys, or its values: [heads, capacity, head] of a type.
#[derive(Clone, Copy, Debug)]
pub struct CacheShape {
    /// G: heads that share nothing.
    pub heads: usize,
    /// S: positions each head has room for.
    pub capacity: usize,
    /// D: elements of a head; whole blocks of the type.
    pub head: usize,
    /// What the elements are.
    pub kv_type: KvType,
}

/// One head's rows of a cache, from position 0.
#[derive(Clone, Copy, Debug)]
pub struct HeadRows {
    /// The first element: a float, a half, or a signed byte.
    pub at: *const u8,
    /// The first block's scale; only where the type has scales.
    pub scales: *const u16,
}

impl CacheShape {
    /// Elements of the cache.
    pub fn elements(&self) -> usize {
        self.heads * self.capacity * self.head
    }

    /// Bytes of the cache, scales included.
    pub fn bytes(&self) -> usize {
        self.kv_type.bytes(self.elements() as u64) as usize
    }

    /// The first element of the row of head `g` at `position`.
    #[inline]
    pub fn row(&self, g: usize, position: usize) -> usize {
        (g * self.capacity + position) * self.head
    }

    /// Where the element with this number lies from the cache's first byte, and where its scale does.
    #[inline]
    fn place(&self, element: usize) -> (usize, usize) {
        match self.kv_type {
            KvType::F32 => (4 * element, 0),
            KvType::F16 => (2 * element, 0),
            KvType::Q8_0 => (element, self.elements() + element / Q8_BLOCK * 2),
        }
    }

    /// The rows of head `g` of the cache at `cache`.
    ///
    /// # Safety
    /// `cache` points to [`CacheShape::bytes`] bytes, aligned to 2, and `g` is one of the heads.
    #[inline]
    pub unsafe fn head_rows(&self, cache: *const u8, g: usize) -> HeadRows {
        let (at, scale) = self.place(self.row(g, 0));
        // SAFETY: the caller's promise; both offsets are inside the cache.
        unsafe {
            HeadRows {
                at: cache.add(at),
                scales: cache.add(scale).cast(),
            }
        }
    }
}

/// Appends `rows` rows of `x [rows][G·D]`, `x_stride` f32 apart, at `position` and after: for every `g`, row `r` goes to
/// `cache [g, position + r, ..]`, and nothing else is touched. The `part`-th of `parts` equal shares of the (row, head)
/// pairs is done.
///
/// Q8_0 is rounded as ggml's reference rounds it: the scale is absmax / 127 as f16, an element `x · (127 / absmax)` to
/// nearest, halves away from zero. A block that holds a NaN or an infinity gets the scale NaN, so that the fault shows
/// in everything that is computed from it.
///
/// # Safety
/// The machine runs `isa`; `x` holds the rows; `cache` holds `shape.bytes()` writable bytes, aligned to 2, and does not
/// overlap `x`; `position + rows ≤ capacity`. Threads with different parts may run at once, but nobody may read these
/// positions.
#[inline]
#[allow(clippy::too_many_arguments)]
pub unsafe fn kv_append(
    isa: Isa,
    x: *const f32,
    x_stride: usize,
    cache: *mut u8,
    shape: CacheShape,
    position: usize,
    rows: usize,
    (part, parts): (usize, usize),
) {
    debug_assert!(position + rows <= shape.capacity);
    let (store, store_q8) = (store_f16_fn(isa), store_q8_fn(isa));
    for unit in super::team::share(rows * shape.heads, part, parts) {
        let (r, g) = (unit / shape.heads, unit % shape.heads);
        let (at, scale) = shape.place(shape.row(g, position + r));
        // SAFETY: row `r` holds G·D elements, and the destination is inside the cache by the promise on positions.
        unsafe {
            let from = x.add(r * x_stride + g * shape.head);
            match shape.kv_type {
                KvType::F32 => cache
                    .add(at)
                    .copy_from_nonoverlapping(from.cast(), 4 * shape.head),
                KvType::F16 => store(from, cache.add(at).cast(), shape.head),
                KvType::Q8_0 => {
                    let (q, scales) = (cache.add(at).cast(), cache.add(scale).cast());
                    store_q8(from, q, scales, shape.head);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn store_body<L: Lanes>(x: *const f32, y: *mut u16, n: usize) {
    // SAFETY: the caller's promise; vectors stay below n, the last goes through a buffer.
    unsafe {
        let mut i = 0;
        while i + L::N <= n {
            L::load(x.add(i)).store_f16(y.add(i));
            i += L::N;
        }
        if i < n {
            let mut buffer = [0u16; 16];
            L::load_partial(x.add(i), n - i).store_f16(buffer.as_mut_ptr());
            std::ptr::copy_nonoverlapping(buffer.as_ptr(), y.add(i), n - i);
        }
    }
}

/// The vectors are left to the compiler, so that every instruction set gives the same bits; `L` only names the instance.
#[inline(always)]
unsafe fn store_q8_body<L: Lanes>(x: *const f32, q: *mut i8, scales: *mut u16, n: usize) {
    for block in 0..n / Q8_BLOCK {
        // SAFETY: the caller promises whole blocks of x and q, and a scale a block; none asks for alignment.
        unsafe {
            let x = x.add(block * Q8_BLOCK).cast::<[f32; Q8_BLOCK]>();
            let x = x.read_unaligned();
            // Magnitudes are compared as integers: that orders finite values, then infinity, then NaN.
            let mut greatest = 0;
            for v in x {
                greatest = greatest.max(v.abs().to_bits());
            }
            let greatest = f32::from_bits(greatest);
            let d = greatest / 127.0;
            let finite = greatest.is_finite();
            let inverse = if finite && d != 0.0 { 1.0 / d } else { 0.0 };
            let mut rounded = [0i8; Q8_BLOCK];
            for (to, v) in rounded.iter_mut().zip(x) {
                *to = (v * inverse).round() as i8;
            }
            let scale = if finite { d } else { f32::NAN };
            q.add(block * Q8_BLOCK)
                .cast::<[i8; Q8_BLOCK]>()
                .write_unaligned(rounded);
            scales.add(block).write_unaligned(f32_to_f16(scale));
        }
    }
}

#[cfg(test)]
mod tests;
