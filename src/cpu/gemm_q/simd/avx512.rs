//! Sixteen lanes in one register; four products a lane in one VNNI instruction.

use super::Simd;
use crate::cpu::activation::HIGH_SHIFT;
use crate::cpu::gemm_q::driver::{self, Panel, Tile, tile_by_rows};
use crate::cpu::gemm_q::format::{Format, Shape};
use core::arch::x86_64::*;

/// AVX-512 F, BW, VL, DQ and VNNI.
///
/// The safety arguments below are one: the trait's contract says that each function is inlined into one compiled with
/// these features and that its pointers are valid for one vector.
pub(crate) struct Zmm;

/// # Safety
/// As [`driver::tile`], on a machine with the features.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn tile_of<H: Shape, const R: usize>(tile: &Tile) {
    // SAFETY: the caller's promise.
    unsafe { driver::tile::<Zmm, H, R>(tile) }
}

impl Simd for Zmm {
    type I = __m512i;
    type F = __m512;
    type A = __m512i;
    const LANES: usize = 16;
    /// Twelve integer and twelve float accumulators leave eight of 32 registers for weights and scales.
    const ROWS: usize = 12;

    #[inline(always)]
    unsafe fn load(at: *const u8) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_loadu_si512(at.cast()) }
    }
    #[inline(always)]
    unsafe fn store(at: *mut u8, v: __m512i) {
        // SAFETY: the trait's contract.
        unsafe { _mm512_storeu_si512(at.cast(), v) }
    }
    #[inline(always)]
    unsafe fn bytes(v: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_xor_si512(v, _mm512_set1_epi8(-128)) }
    }
    #[inline(always)]
    unsafe fn and(v: __m512i, mask: u8) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_and_si512(v, _mm512_set1_epi8(mask as i8)) }
    }
    #[inline(always)]
    unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn shift_left(v: __m512i, by: u32, mask: u8) -> __m512i {
        // SAFETY: the trait's contract. Bits that cross into the next byte are masked away.
        unsafe { Self::and(_mm512_sll_epi16(v, _mm_cvtsi32_si128(by as i32)), mask) }
    }
    #[inline(always)]
    unsafe fn shift_right(v: __m512i, by: u32, mask: u8) -> __m512i {
        // SAFETY: the trait's contract. Bits that cross into the next byte are masked away.
        unsafe { Self::and(_mm512_srl_epi16(v, _mm_cvtsi32_si128(by as i32)), mask) }
    }

    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        // SAFETY: SSE is part of x86-64, and a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }

    #[inline(always)]
    unsafe fn load_f(at: *const f32) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_loadu_ps(at) }
    }
    #[inline(always)]
    unsafe fn store_f(at: *mut f32, v: __m512) {
        // SAFETY: the trait's contract.
        unsafe { _mm512_storeu_ps(at, v) }
    }
    #[inline(always)]
    unsafe fn splat(v: f32) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_set1_ps(v) }
    }
    #[inline(always)]
    unsafe fn halves(at: *const u8) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())) }
    }
    #[inline(always)]
    unsafe fn unsigned(at: *const u8, shift: u32, mask: u8) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe {
            let v = _mm_srl_epi16(_mm_loadu_si128(at.cast()), _mm_cvtsi32_si128(shift as i32));
            let v = _mm_and_si128(v, _mm_set1_epi8(mask as i8));
            _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(v))
        }
    }
    #[inline(always)]
    unsafe fn signed(at: *const u8) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(at.cast()))) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn zero() -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn shift_sums(sums: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_slli_epi32::<HIGH_SHIFT>(sums) }
    }
    #[inline(always)]
    unsafe fn subtract(sums: __m512i, v: i32) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_sub_epi32(sums, _mm512_set1_epi32(v)) }
    }
    #[inline(always)]
    unsafe fn dots<const R: usize>(
        mut sums: [__m512i; R],
        groups: usize,
        w: impl Fn(usize) -> __m512i,
        x: [*const u8; R],
    ) -> [__m512i; R] {
        for i in 0..groups {
            let w = w(i);
            for r in 0..R {
                // SAFETY: the trait's contract.
                sums[r] = unsafe {
                    let x = _mm512_set1_epi32(x[r].add(4 * i).cast::<i32>().read_unaligned());
                    _mm512_dpbusd_epi32(sums[r], w, x)
                };
            }
        }
        sums
    }
    #[inline(always)]
    unsafe fn to_f(v: __m512i) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_cvtepi32_ps(v) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn panel<F: Format>(panel: &Panel) {
        // SAFETY: the caller's promise.
        unsafe { driver::panel::<Self, F>(panel) }
    }
    unsafe fn tiles<H: Shape>(tile: &Tile) {
        // SAFETY: the caller's promise.
        unsafe { tile_by_rows!(tile_of, H, tile, 1 2 3 4 5 6 7 8 9 10 11 12) }
    }
}

/// # Safety
/// As [`driver::streams`], on a machine with the features.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) unsafe fn streams<F: Format>(
    w: &[*const u8],
    k: usize,
    x: *const u8,
    tiles: &[*mut f32],
) {
    // SAFETY: the caller's promise.
    unsafe { driver::streams::<Zmm, F>(w, k, x, tiles) }
}
