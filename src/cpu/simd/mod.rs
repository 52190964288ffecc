//! A small vector abstraction, so that each float kernel is written once.
//!
//! A kernel is a generic `#[inline(always)]` body over [`Lanes`]; [`entry!`] wraps it in one function per instruction
//! set, compiled with that set's features, into which the body and every operation of its vectors are inlined. The
//! bodies must therefore avoid closures and calls that are not `#[inline(always)]` on their hot paths: such a call
//! would be compiled without the features and pass vectors through memory.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod exp;
mod portable;
#[cfg(test)]
mod tests;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::F32x8;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::F32x16;
pub(crate) use exp::exp;
pub(crate) use portable::{Array8, f32_to_f16};

/// A vector of `N` f32.
///
/// # Safety
/// Every method may use the instructions of the implementing type without looking: call it only where the machine has
/// them. Pointers need no alignment; `load`, `store` and the like touch exactly `N` elements (the first `n` in the
/// `_partial` forms, where the other lanes read as 0), which must be valid.
pub(crate) trait Lanes: Copy {
    /// Lanes; 8 or 16.
    const N: usize;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(p: *const f32) -> Self;
    unsafe fn load_partial(p: *const f32, n: usize) -> Self;
    unsafe fn store(self, p: *mut f32);
    unsafe fn store_partial(self, p: *mut f32, n: usize);
    /// IEEE half precision, exactly.
    unsafe fn load_f16(p: *const u16) -> Self;
    unsafe fn load_f16_partial(p: *const u16, n: usize) -> Self;
    /// Rounds to nearest, ties to even.
    unsafe fn store_f16(self, p: *mut u16);
    /// The half at `p` in every lane, exactly.
    unsafe fn splat_f16(p: *const u16) -> Self;
    /// Signed bytes, exactly.
    unsafe fn load_i8(p: *const i8) -> Self;
    /// bfloat16, exactly.
    unsafe fn load_bf16(p: *const u16) -> Self;
    unsafe fn load_bf16_partial(p: *const u16, n: usize) -> Self;
    unsafe fn add(self, b: Self) -> Self;
    unsafe fn sub(self, b: Self) -> Self;
    unsafe fn mul(self, b: Self) -> Self;
    unsafe fn div(self, b: Self) -> Self;
    /// `self · b + c`, rounded once where the machine can.
    unsafe fn fma(self, b: Self, c: Self) -> Self;
    /// The greater of each pair, and `b` where either is NaN.
    unsafe fn max(self, b: Self) -> Self;
    /// The lesser of each pair, and `b` where either is NaN.
    unsafe fn min(self, b: Self) -> Self;
    /// `self · 2^n`, where `magic` holds n + 1.5·2²³; the result must be a normal number.
    unsafe fn shift_exponent(self, magic: Self) -> Self;
    /// 0 where `x < limit`, `self` elsewhere.
    unsafe fn zero_where_below(self, x: Self, limit: Self) -> Self;
    /// The sum of the lanes, by halves.
    unsafe fn sum(self) -> f32;
    /// Writes the sum of each of four vectors.
    unsafe fn store_sums(vectors: [Self; 4], p: *mut f32);
    /// The greatest lane.
    unsafe fn greatest(self) -> f32;
    /// Writes the transpose of an N × N block: row `i` is read at `src + min(i, live − 1)·stride` bytes, its first
    /// `cols` elements (the others read as 0), and element `c` goes to `out[c·out_stride + i]`.
    unsafe fn transpose<E: Element>(
        src: *const u8,
        stride: usize,
        live: usize,
        cols: usize,
        out: *mut f32,
        out_stride: usize,
    );
}

/// Asks for the cache line at `p` in the second-level cache; any address will do.
#[inline(always)]
pub(crate) fn prefetch(p: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: SSE is in the target's baseline, and a prefetch faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// A type of weights or cache entries that a vector loads from memory.
///
/// # Safety
/// As for [`Lanes`]: `load` reads `L::N` elements of `BYTES` at `p`, `load_partial` the first `n`.
pub(crate) trait Element {
    const BYTES: usize;
    unsafe fn load<L: Lanes>(p: *const u8) -> L;
    unsafe fn load_partial<L: Lanes>(p: *const u8, n: usize) -> L;
}

pub(crate) struct ElementF32;
pub(crate) struct ElementF16;
pub(crate) struct ElementBf16;

macro_rules! element {
    ($name:ident, $bytes:literal, $load:ident, $load_partial:ident) => {
        impl Element for $name {
            const BYTES: usize = $bytes;
            #[inline(always)]
            unsafe fn load<L: Lanes>(p: *const u8) -> L {
                // SAFETY: the caller's promise is that of `Lanes`, which asks for no alignment.
                unsafe { L::$load(p.cast()) }
            }
            #[inline(always)]
            unsafe fn load_partial<L: Lanes>(p: *const u8, n: usize) -> L {
                // SAFETY: as above.
                unsafe { L::$load_partial(p.cast(), n) }
            }
        }
    };
}
element!(ElementF32, 4, load, load_partial);
element!(ElementF16, 2, load_f16, load_f16_partial);
element!(ElementBf16, 2, load_bf16, load_bf16_partial);

/// Defines `fn name(isa) -> unsafe fn(args)`: the instance of a generic body for an instruction set. In the body
/// expression `L` names the set's vector type.
///
/// The functions it returns ask what the body asks, and that the machine has the instructions of `isa`.
macro_rules! entry {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:expr) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name(isa: $crate::cpu::isa::Isa) -> unsafe fn($($ty),*) $(-> $ret)? {
            #[allow(clippy::too_many_arguments)]
            unsafe fn portable($($arg: $ty),*) $(-> $ret)? {
                type L = $crate::cpu::simd::Array8;
                // SAFETY: the caller's promise; plain Rust needs no features.
                unsafe { $body($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn avx2($($arg: $ty),*) $(-> $ret)? {
                type L = $crate::cpu::simd::F32x8;
                // SAFETY: the caller's promise, and this function's features are those of the vector.
                unsafe { $body($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn avx512($($arg: $ty),*) $(-> $ret)? {
                type L = $crate::cpu::simd::F32x16;
                // SAFETY: the caller's promise, and this function's features are those of the vector.
                unsafe { $body($($arg),*) }
            }
            match isa {
                #[cfg(target_arch = "x86_64")]
                $crate::cpu::isa::Isa::Avx512 => avx512,
                #[cfg(target_arch = "x86_64")]
                $crate::cpu::isa::Isa::Avx2 => avx2,
                // On aarch64 the compiler turns the portable body into NEON, its baseline.
                _ => portable,
            }
        }
    };
}
pub(crate) use entry;
