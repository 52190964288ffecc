//! Appending to the key/value cache: f32 rows become f16 rows of K and V, each [G, S, D].

use super::isa::Isa;
use super::simd::{Lanes, entry};

entry! {
    /// The instance of [`store_f16`] for an instruction set.
    pub fn store_f16_fn(x: *const f32, y: *mut u16, n: usize) = store_body::<L>
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

/// Where a layer keeps its keys, or its values: [heads, capacity, head] f16.
#[derive(Clone, Copy, Debug)]
pub struct CacheShape {
    /// G: heads that share nothing.
    pub heads: usize,
    /// S: positions each head has room for.
    pub capacity: usize,
    /// D: elements of a head.
    pub head: usize,
}

impl CacheShape {
    /// Elements of the cache.
    pub fn elements(&self) -> usize {
        self.heads * self.capacity * self.head
    }

    /// The first element of the row of head `g` at `position`.
    #[inline]
    pub fn row(&self, g: usize, position: usize) -> usize {
        (g * self.capacity + position) * self.head
    }
}

/// Appends `rows` rows of `x [rows][G·D]`, `x_stride` f32 apart, at `position` and after: for every `g`, row `r` goes to
/// `cache [g, position + r, ..]`, and nothing else is touched. The `part`-th of `parts` equal shares of the (row, head)
/// pairs is done.
///
/// # Safety
/// The machine runs `isa`; `x` holds the rows; `cache` holds `shape.elements()` writable u16 and does not overlap `x`;
/// `position + rows ≤ capacity`. Threads with different parts may run at once, but nobody may read these positions.
#[inline]
#[allow(clippy::too_many_arguments)]
pub unsafe fn kv_append(
    isa: Isa,
    x: *const f32,
    x_stride: usize,
    cache: *mut u16,
    shape: CacheShape,
    position: usize,
    rows: usize,
    (part, parts): (usize, usize),
) {
    debug_assert!(position + rows <= shape.capacity);
    let store = store_f16_fn(isa);
    for unit in super::team::share(rows * shape.heads, part, parts) {
        let (r, g) = (unit / shape.heads, unit % shape.heads);
        // SAFETY: row `r` holds G·D elements, and the destination is inside the cache by the promise on positions.
        unsafe {
            let from = x.add(r * x_stride + g * shape.head);
            store(from, cache.add(shape.row(g, position + r)), shape.head);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::test_data::Random;
    use half::f16;

    const UNTOUCHED: u16 = 0xdead;

    fn check(isa: Isa, shape: CacheShape, position: usize, rows: usize, parts: usize) {
        let mut random = Random::from_clock();
        let width = shape.heads * shape.head;
        let stride = width + 3;
        let x: Vec<f32> = random
            .normal(rows * stride)
            .iter()
            .map(|x| x * 1e-3)
            .collect();
        let mut cache = vec![UNTOUCHED; shape.elements()];
        for part in 0..parts {
            // SAFETY: the buffers have the sizes of the shape and `isa` is available.
            unsafe {
                kv_append(
                    isa,
                    x.as_ptr(),
                    stride,
                    cache.as_mut_ptr(),
                    shape,
                    position,
                    rows,
                    (part, parts),
                );
            }
        }
        for g in 0..shape.heads {
            for s in 0..shape.capacity {
                for d in 0..shape.head {
                    let expected = if (position..position + rows).contains(&s) {
                        let x = x[(s - position) * stride + g * shape.head + d];
                        f16::from_f32(x).to_bits()
                    } else {
                        UNTOUCHED
                    };
                    assert_eq!(
                        cache[shape.row(g, s) + d],
                        expected,
                        "{isa} [{g}, {s}, {d}]"
                    );
                }
            }
        }
    }

    #[test]
    fn writes_its_rows_bit_for_bit_and_no_other() {
        for isa in Isa::available() {
            for head in [1, 8, 20, 64, 80] {
                let shape = CacheShape {
                    heads: 3,
                    capacity: 9,
                    head,
                };
                check(isa, shape, 0, 1, 1);
                check(isa, shape, 8, 1, 2);
                check(isa, shape, 2, 5, 3);
                check(isa, shape, 0, 9, 2);
            }
        }
    }
}
