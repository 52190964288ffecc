//! Eight lanes in AVX2, FMA and F16C.

use super::{Element, Lanes};
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(crate) struct F32x8(__m256);

const N: usize = 8;

/// The first `n` of N elements at `p`, copied where the others are 0.
///
/// # Safety
/// `n` elements at `p` are readable.
#[inline(always)]
unsafe fn padded<T: Copy + Default>(p: *const T, n: usize) -> [T; N] {
    let mut buffer = [T::default(); N];
    for (i, x) in buffer.iter_mut().enumerate().take(n) {
        // SAFETY: the caller's promise.
        *x = unsafe { p.add(i).read_unaligned() };
    }
    buffer
}

// SAFETY, for every method: the caller of a `Lanes` method promises AVX2, FMA and F16C, and the memory it names; the
// intrinsics used for memory are the unaligned ones.
impl Lanes for F32x8 {
    const N: usize = N;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        unsafe { F32x8(_mm256_set1_ps(x)) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        unsafe { F32x8(_mm256_loadu_ps(p)) }
    }
    #[inline(always)]
    unsafe fn load_partial(p: *const f32, n: usize) -> Self {
        unsafe { Self::load(padded(p, n).as_ptr()) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        unsafe { _mm256_storeu_ps(p, self.0) }
    }
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize) {
        let mut buffer = [0.0f32; N];
        unsafe {
            self.store(buffer.as_mut_ptr());
            std::ptr::copy_nonoverlapping(buffer.as_ptr(), p, n.min(N));
        }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self {
        unsafe { F32x8(_mm256_cvtph_ps(_mm_loadu_si128(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_f16_partial(p: *const u16, n: usize) -> Self {
        unsafe { Self::load_f16(padded(p, n).as_ptr()) }
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u16) {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT;
        unsafe { _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<NEAREST>(self.0)) }
    }
    #[inline(always)]
    unsafe fn splat_f16(p: *const u16) -> Self {
        unsafe {
            let half = _mm_set1_epi16(p.read_unaligned().cast_signed());
            F32x8(_mm256_cvtph_ps(half))
        }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self {
        unsafe {
            let wide = _mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()));
            F32x8(_mm256_cvtepi32_ps(wide))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            F32x8(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide)))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16_partial(p: *const u16, n: usize) -> Self {
        unsafe { Self::load_bf16(padded(p, n).as_ptr()) }
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        unsafe { F32x8(_mm256_add_ps(self.0, b.0)) }
    }
    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        unsafe { F32x8(_mm256_sub_ps(self.0, b.0)) }
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        unsafe { F32x8(_mm256_mul_ps(self.0, b.0)) }
    }
    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        unsafe { F32x8(_mm256_div_ps(self.0, b.0)) }
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        unsafe { F32x8(_mm256_fmadd_ps(self.0, b.0, c.0)) }
    }
    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        unsafe { F32x8(_mm256_max_ps(self.0, b.0)) }
    }
    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        unsafe { F32x8(_mm256_min_ps(self.0, b.0)) }
    }
    #[inline(always)]
    unsafe fn shift_exponent(self, magic: Self) -> Self {
        unsafe {
            let n = _mm256_slli_epi32::<23>(_mm256_castps_si256(magic.0));
            F32x8(_mm256_castsi256_ps(_mm256_add_epi32(
                _mm256_castps_si256(self.0),
                n,
            )))
        }
    }
    #[inline(always)]
    unsafe fn zero_where_below(self, x: Self, limit: Self) -> Self {
        unsafe {
            F32x8(_mm256_andnot_ps(
                _mm256_cmp_ps::<_CMP_LT_OQ>(x.0, limit.0),
                self.0,
            ))
        }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe {
            let a = _mm_add_ps(
                _mm256_castps256_ps128(self.0),
                _mm256_extractf128_ps::<1>(self.0),
            );
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_shuffle_ps::<1>(a, a)))
        }
    }
    #[inline(always)]
    unsafe fn store_sums([a, b, c, d]: [Self; 4], p: *mut f32) {
        unsafe {
            // Each half holds, in order, a pair's sums of the four, then their sums.
            let pairs = _mm256_hadd_ps(_mm256_hadd_ps(a.0, b.0), _mm256_hadd_ps(c.0, d.0));
            let low = _mm256_castps256_ps128(pairs);
            _mm_storeu_ps(p, _mm_add_ps(low, _mm256_extractf128_ps::<1>(pairs)));
        }
    }
    #[inline(always)]
    unsafe fn greatest(self) -> f32 {
        unsafe {
            let a = _mm_max_ps(
                _mm256_castps256_ps128(self.0),
                _mm256_extractf128_ps::<1>(self.0),
            );
            let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_max_ss(a, _mm_shuffle_ps::<1>(a, a)))
        }
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
        unsafe {
            let mut r = [_mm256_setzero_ps(); N];
            for (i, row) in r.iter_mut().enumerate() {
                let p = src.add(i.min(live - 1) * stride);
                let loaded: Self = if cols >= N {
                    E::load(p)
                } else {
                    E::load_partial(p, cols)
                };
                *row = loaded.0;
            }
            let mut t = [_mm256_setzero_ps(); N];
            for i in 0..N / 4 {
                let (a, b, c, d) = (r[4 * i], r[4 * i + 1], r[4 * i + 2], r[4 * i + 3]);
                let ab = _mm256_castps_pd(_mm256_unpacklo_ps(a, b));
                let cd = _mm256_castps_pd(_mm256_unpacklo_ps(c, d));
                let ab_high = _mm256_castps_pd(_mm256_unpackhi_ps(a, b));
                let cd_high = _mm256_castps_pd(_mm256_unpackhi_ps(c, d));
                t[4 * i] = _mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd));
                t[4 * i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd));
                t[4 * i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(ab_high, cd_high));
                t[4 * i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(ab_high, cd_high));
            }
            // t[4i + c] holds columns c and c + 4 of rows 4i..4i+4, a column a half.
            for c in 0..4 {
                let low = _mm256_permute2f128_ps::<0x20>(t[c], t[c + 4]);
                let high = _mm256_permute2f128_ps::<0x31>(t[c], t[c + 4]);
                _mm256_storeu_ps(out.add(c * out_stride), low);
                _mm256_storeu_ps(out.add((c + 4) * out_stride), high);
            }
        }
    }
}
