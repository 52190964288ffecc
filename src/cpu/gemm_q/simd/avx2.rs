//! Eight lanes a register: AVX2, with the dot products of bytes of AVX-VNNI.
//!
//! Everything but [`Simd::dots`] is AVX2: what machines without VNNI read their weights with too.

use super::Simd;
use crate::cpu::activation::HIGH_SHIFT;
use crate::cpu::gemm_q::driver::{self, Panel, Tile, tile_by_rows};
use crate::cpu::gemm_q::format::{Format, Shape};
use core::arch::x86_64::*;

/// AVX2, F16C, FMA and AVX-VNNI.
///
/// The safety arguments below are one: the trait's contract says that each function is inlined into one compiled with
/// these features and that its pointers are valid for one vector.
pub(crate) struct Ymm;

/// Four activations in every lane.
///
/// # Safety
/// `x` must be valid for reads of four bytes; otherwise as [`Simd`] says.
#[inline(always)]
unsafe fn broadcast(x: *const u8) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { _mm256_set1_epi32(x.cast::<i32>().read_unaligned()) }
}

/// # Safety
/// As [`driver::tile`], on a machine with the features.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
unsafe fn tile_of<H: Shape, const R: usize>(tile: &Tile) {
    // SAFETY: the caller's promise.
    unsafe { driver::tile::<Ymm, H, R>(tile) }
}

impl Simd for Ymm {
    type I = __m256i;
    type F = __m256;
    type A = __m256i;
    const LANES: usize = 8;
    /// Two accumulators a row leave four of 16 registers for weights and scales.
    const ROWS: usize = 6;

    #[inline(always)]
    unsafe fn load(at: *const u8) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_loadu_si256(at.cast()) }
    }
    #[inline(always)]
    unsafe fn store(at: *mut u8, v: __m256i) {
        // SAFETY: the trait's contract.
        unsafe { _mm256_storeu_si256(at.cast(), v) }
    }
    #[inline(always)]
    unsafe fn bytes(v: __m256i) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_xor_si256(v, _mm256_set1_epi8(-128)) }
    }
    #[inline(always)]
    unsafe fn and(v: __m256i, mask: u8) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_and_si256(v, _mm256_set1_epi8(mask as i8)) }
    }
    #[inline(always)]
    unsafe fn or(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_or_si256(a, b) }
    }
    #[inline(always)]
    unsafe fn shift_left(v: __m256i, by: u32, mask: u8) -> __m256i {
        // SAFETY: the trait's contract. Bits that cross into the next byte are masked away.
        unsafe { Self::and(_mm256_sll_epi16(v, _mm_cvtsi32_si128(by as i32)), mask) }
    }
    #[inline(always)]
    unsafe fn shift_right(v: __m256i, by: u32, mask: u8) -> __m256i {
        // SAFETY: the trait's contract. Bits that cross into the next byte are masked away.
        unsafe { Self::and(_mm256_srl_epi16(v, _mm_cvtsi32_si128(by as i32)), mask) }
    }

    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        // SAFETY: SSE is part of x86-64, and a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }

    #[inline(always)]
    unsafe fn load_f(at: *const f32) -> __m256 {
        // SAFETY: the trait's contract.
        unsafe { _mm256_loadu_ps(at) }
    }
    #[inline(always)]
    unsafe fn store_f(at: *mut f32, v: __m256) {
        // SAFETY: the trait's contract.
        unsafe { _mm256_storeu_ps(at, v) }
    }
    #[inline(always)]
    unsafe fn splat(v: f32) -> __m256 {
        // SAFETY: the trait's contract.
        unsafe { _mm256_set1_ps(v) }
    }
    #[inline(always)]
    unsafe fn halves(at: *const u8) -> __m256 {
        // SAFETY: the trait's contract.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(at.cast())) }
    }
    #[inline(always)]
    unsafe fn unsigned(at: *const u8, shift: u32, mask: u8) -> __m256 {
        // SAFETY: the trait's contract.
        unsafe {
            let v = _mm_srl_epi16(_mm_loadl_epi64(at.cast()), _mm_cvtsi32_si128(shift as i32));
            let v = _mm_and_si128(v, _mm_set1_epi8(mask as i8));
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(v))
        }
    }
    #[inline(always)]
    unsafe fn signed(at: *const u8) -> __m256 {
        // SAFETY: the trait's contract.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(at.cast()))) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        // SAFETY: the trait's contract.
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: the trait's contract.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn zero() -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn shift_sums(sums: __m256i) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_slli_epi32::<{ HIGH_SHIFT as i32 }>(sums) }
    }
    #[inline(always)]
    unsafe fn subtract(sums: __m256i, v: i32) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_sub_epi32(sums, _mm256_set1_epi32(v)) }
    }
    #[inline(always)]
    unsafe fn dots<const R: usize>(
        mut sums: [__m256i; R],
        groups: usize,
        w: impl Fn(usize) -> __m256i,
        x: [*const u8; R],
    ) -> [__m256i; R] {
        for i in 0..groups {
            let w = w(i);
            for r in 0..R {
                // SAFETY: the trait's contract.
                sums[r] =
                    unsafe { _mm256_dpbusd_avx_epi32(sums[r], w, broadcast(x[r].add(4 * i))) };
            }
        }
        sums
    }
    #[inline(always)]
    unsafe fn to_f(v: __m256i) -> __m256 {
        // SAFETY: the trait's contract.
        unsafe { _mm256_cvtepi32_ps(v) }
    }

    #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
    unsafe fn panel<F: Format>(panel: &Panel) {
        // SAFETY: the caller's promise.
        unsafe { driver::panel::<Self, F>(panel) }
    }
    unsafe fn tiles<H: Shape>(tile: &Tile) {
        // SAFETY: the caller's promise.
        unsafe { tile_by_rows!(tile_of, H, tile, 1 2 3 4 5 6) }
    }
}
