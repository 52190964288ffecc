//! Eight lanes in plain Rust, written so that the compiler vectorises them for whatever the target has.

#![allow(clippy::needless_range_loop)] // Registers are numbered: rows and vectors by index read like the formula.

use super::{Element, Lanes};

#[derive(Clone, Copy)]
pub(crate) struct Array8([f32; 8]);

const N: usize = 8;

/// `a · b + c`: fused only where that is an instruction, because the library's fused multiply is a slow call.
#[inline(always)]
fn fma(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
        a.mul_add(b, c)
    } else {
        a * b + c
    }
}

/// IEEE half to single, without branches: the exponent is rebased by a multiplication, which also normalises
/// subnormals; infinities and NaN keep the full exponent.
#[inline(always)]
pub(crate) fn f16_to_f32(h: u16) -> f32 {
    let magnitude = u32::from(h & 0x7fff) << 13;
    let rebased = (f32::from_bits(magnitude) * f32::from_bits(0x7780_0000)).to_bits();
    let special = if h & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(rebased | special | (u32::from(h & 0x8000) << 16))
}

/// IEEE single to half, to nearest even, without branches that depend on the value's class more than a select.
#[inline(always)]
pub(crate) fn f32_to_f16(x: f32) -> u16 {
    let bits = x.to_bits();
    let sign = (bits >> 16) & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    // Normal results: rebase the exponent and round by adding just under half, plus the bit that breaks ties to even.
    let odd = (magnitude >> 13) & 1;
    let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + odd) >> 13;
    // Subnormal results (below 2⁻¹⁴): adding 0.5 makes the hardware round at bit 2⁻²⁴.
    let subnormal = (f32::from_bits(magnitude) + 0.5)
        .to_bits()
        .wrapping_sub(0.5f32.to_bits());
    let finite = if magnitude < 113 << 23 {
        subnormal
    } else {
        normal
    };
    // From 65520 up it is infinity, which rounding reached by itself just below; NaN keeps its leading payload, quiet.
    let large = if magnitude > 0x7f80_0000 {
        0x7e00 | ((magnitude >> 13) & 0x3ff)
    } else {
        0x7c00
    };
    (sign
        | if magnitude >= 143 << 23 {
            large
        } else {
            finite
        }) as u16
}

impl Array8 {
    #[inline(always)]
    fn zip(self, b: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut out = [0.0; N];
        for i in 0..N {
            out[i] = f(self.0[i], b.0[i]);
        }
        Array8(out)
    }

    /// Lane `i` is `f` of the element at `p + i`, for `i < n`, else 0.
    #[inline(always)]
    unsafe fn gather<T>(p: *const T, n: usize, f: impl Fn(T) -> f32) -> Self {
        let mut out = [0.0; N];
        for (i, lane) in out.iter_mut().enumerate().take(n) {
            // SAFETY: the caller promises `n` readable elements; alignment is not asked for.
            *lane = f(unsafe { p.add(i).read_unaligned() });
        }
        Array8(out)
    }
}

impl Lanes for Array8 {
    const N: usize = N;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Array8([x; N])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller's promise; an array of f32 is valid for any bits.
        Array8(unsafe { p.cast::<[f32; N]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_partial(p: *const f32, n: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::gather(p, n, |x| x) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[f32; N]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize) {
        for (i, lane) in self.0.iter().enumerate().take(n) {
            // SAFETY: the caller promises `n` writable elements.
            unsafe { p.add(i).write_unaligned(*lane) }
        }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::gather(p, N, f16_to_f32) }
    }
    #[inline(always)]
    unsafe fn load_f16_partial(p: *const u16, n: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::gather(p, n, f16_to_f32) }
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u16) {
        for (i, lane) in self.0.iter().enumerate() {
            // SAFETY: the caller promises N writable elements.
            unsafe { p.add(i).write_unaligned(f32_to_f16(*lane)) }
        }
    }
    #[inline(always)]
    unsafe fn splat_f16(p: *const u16) -> Self {
        // SAFETY: the caller's promise.
        Array8([f16_to_f32(unsafe { p.read_unaligned() }); N])
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::gather(p, N, f32::from) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::gather(p, N, |h| f32::from_bits(u32::from(h) << 16)) }
    }
    #[inline(always)]
    unsafe fn load_bf16_partial(p: *const u16, n: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::gather(p, n, |h| f32::from_bits(u32::from(h) << 16)) }
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        self.zip(b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        self.zip(b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        self.zip(b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        self.zip(b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        let mut out = [0.0; N];
        for (i, lane) in out.iter_mut().enumerate() {
            *lane = fma(self.0[i], b.0[i], c.0[i]);
        }
        Array8(out)
    }
    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        self.zip(b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        self.zip(b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn shift_exponent(self, magic: Self) -> Self {
        self.zip(magic, |a, n| {
            f32::from_bits(a.to_bits().wrapping_add(n.to_bits() << 23))
        })
    }
    #[inline(always)]
    unsafe fn zero_where_below(self, x: Self, limit: Self) -> Self {
        let mut out = self.0;
        for (i, lane) in out.iter_mut().enumerate() {
            *lane = if x.0[i] < limit.0[i] { 0.0 } else { *lane };
        }
        Array8(out)
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let a = self.0;
        ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    }
    #[inline(always)]
    unsafe fn store_sums(vectors: [Self; 4], p: *mut f32) {
        for (i, v) in vectors.into_iter().enumerate() {
            // SAFETY: the caller promises four writable f32.
            unsafe { p.add(i).write_unaligned(v.sum()) }
        }
    }
    #[inline(always)]
    unsafe fn greatest(self) -> f32 {
        self.0.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    unsafe fn transpose<E: Element>(
        src: *const u8,
        stride: usize,
        live: usize,
        cols: usize,
        out: *mut f32,
        out_stride: usize,
    ) {
        for i in 0..N {
            // SAFETY: the caller promises `live` rows of `cols` elements, and N × N elements of `out`.
            unsafe {
                let row = src.add(i.min(live - 1) * stride);
                let row: Self = if cols >= N {
                    E::load(row)
                } else {
                    E::load_partial(row, cols)
                };
                for (c, lane) in row.0.iter().enumerate() {
                    *out.add(c * out_stride + i) = *lane;
                }
            }
        }
    }
}
