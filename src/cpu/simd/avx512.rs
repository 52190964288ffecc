//! Sixteen lanes in AVX-512 F, BW, VL and DQ.

use super::{Element, Lanes};
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(crate) struct F32x16(__m512);

const N: usize = 16;

/// A mask of the first `n` lanes.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    if n >= N { !0 } else { (1 << n) - 1 }
}

// SAFETY, for every method: the caller of a `Lanes` method promises AVX-512 F, BW, VL and DQ, and the memory it names;
// the intrinsics used for memory are the unaligned ones, and the masked ones do not touch what the mask leaves out.
impl Lanes for F32x16 {
    const N: usize = N;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        unsafe { F32x16(_mm512_set1_ps(x)) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        unsafe { F32x16(_mm512_loadu_ps(p)) }
    }
    #[inline(always)]
    unsafe fn load_partial(p: *const f32, n: usize) -> Self {
        unsafe { F32x16(_mm512_maskz_loadu_ps(first(n), p)) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        unsafe { _mm512_storeu_ps(p, self.0) }
    }
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize) {
        unsafe { _mm512_mask_storeu_ps(p, first(n), self.0) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self {
        unsafe { F32x16(_mm512_cvtph_ps(_mm256_loadu_si256(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_f16_partial(p: *const u16, n: usize) -> Self {
        unsafe {
            let halves = _mm256_maskz_loadu_epi16(first(n), p.cast());
            F32x16(_mm512_cvtph_ps(halves))
        }
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u16) {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        unsafe { _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph::<NEAREST>(self.0)) }
    }
    #[inline(always)]
    unsafe fn splat_f16(p: *const u16) -> Self {
        unsafe {
            let half = _mm256_set1_epi16(p.read_unaligned().cast_signed());
            F32x16(_mm512_cvtph_ps(half))
        }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self {
        unsafe {
            let wide = _mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()));
            F32x16(_mm512_cvtepi32_ps(wide))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            F32x16(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide)))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16_partial(p: *const u16, n: usize) -> Self {
        unsafe {
            let halves = _mm256_maskz_loadu_epi16(first(n), p.cast());
            let wide = _mm512_cvtepu16_epi32(halves);
            F32x16(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide)))
        }
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        unsafe { F32x16(_mm512_add_ps(self.0, b.0)) }
    }
    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        unsafe { F32x16(_mm512_sub_ps(self.0, b.0)) }
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        unsafe { F32x16(_mm512_mul_ps(self.0, b.0)) }
    }
    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        unsafe { F32x16(_mm512_div_ps(self.0, b.0)) }
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        unsafe { F32x16(_mm512_fmadd_ps(self.0, b.0, c.0)) }
    }
    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        unsafe { F32x16(_mm512_max_ps(self.0, b.0)) }
    }
    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        unsafe { F32x16(_mm512_min_ps(self.0, b.0)) }
    }
    #[inline(always)]
    unsafe fn shift_exponent(self, magic: Self) -> Self {
        unsafe {
            let n = _mm512_slli_epi32::<23>(_mm512_castps_si512(magic.0));
            F32x16(_mm512_castsi512_ps(_mm512_add_epi32(
                _mm512_castps_si512(self.0),
                n,
            )))
        }
    }
    #[inline(always)]
    unsafe fn zero_where_below(self, x: Self, limit: Self) -> Self {
        unsafe {
            // "Not less than" rather than "at least", so that a NaN keeps its lane.
            let keep = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x.0, limit.0);
            F32x16(_mm512_maskz_mov_ps(keep, self.0))
        }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe { _mm512_reduce_add_ps(self.0) }
    }
    #[inline(always)]
    unsafe fn store_sums([a, b, c, d]: [Self; 4], p: *mut f32) {
        unsafe {
            let ab = _mm512_add_ps(_mm512_unpacklo_ps(a.0, b.0), _mm512_unpackhi_ps(a.0, b.0));
            let cd = _mm512_add_ps(_mm512_unpacklo_ps(c.0, d.0), _mm512_unpackhi_ps(c.0, d.0));
            let (ab, cd) = (_mm512_castps_pd(ab), _mm512_castps_pd(cd));
            // Each quarter holds its own sums of the four vectors, in order.
            let quarters = _mm512_add_ps(
                _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)),
                _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)),
            );
            let halves = _mm256_add_ps(
                _mm512_castps512_ps256(quarters),
                _mm512_extractf32x8_ps::<1>(quarters),
            );
            let low = _mm256_castps256_ps128(halves);
            _mm_storeu_ps(p, _mm_add_ps(low, _mm256_extractf128_ps::<1>(halves)));
        }
    }
    #[inline(always)]
    unsafe fn greatest(self) -> f32 {
        unsafe { _mm512_reduce_max_ps(self.0) }
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
            let mut r = [_mm512_setzero_ps(); N];
            if cols >= N && live >= N {
                for (i, row) in r.iter_mut().enumerate() {
                    *row = E::load::<Self>(src.add(i * stride)).0;
                }
            } else {
                for (i, row) in r.iter_mut().enumerate() {
                    let p = src.add(i.min(live - 1) * stride);
                    *row = E::load_partial::<Self>(p, cols).0;
                }
            }
            let mut t = [_mm512_setzero_ps(); N];
            for i in 0..N / 4 {
                let (a, b, c, d) = (r[4 * i], r[4 * i + 1], r[4 * i + 2], r[4 * i + 3]);
                let ab = _mm512_castps_pd(_mm512_unpacklo_ps(a, b));
                let cd = _mm512_castps_pd(_mm512_unpacklo_ps(c, d));
                let ab_high = _mm512_castps_pd(_mm512_unpackhi_ps(a, b));
                let cd_high = _mm512_castps_pd(_mm512_unpackhi_ps(c, d));
                t[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd));
                t[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd));
                t[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(ab_high, cd_high));
                t[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(ab_high, cd_high));
            }
            // t[4i + c] holds columns c, c + 4, c + 8, c + 12 of rows 4i..4i+4, a column a quarter. Two rounds of
            // picking even and odd quarters gather each column.
            for c in 0..4 {
                let even_top = _mm512_shuffle_f32x4::<0x88>(t[c], t[c + 4]);
                let odd_top = _mm512_shuffle_f32x4::<0xdd>(t[c], t[c + 4]);
                let even_low = _mm512_shuffle_f32x4::<0x88>(t[c + 8], t[c + 12]);
                let odd_low = _mm512_shuffle_f32x4::<0xdd>(t[c + 8], t[c + 12]);
                let column = [
                    _mm512_shuffle_f32x4::<0x88>(even_top, even_low),
                    _mm512_shuffle_f32x4::<0x88>(odd_top, odd_low),
                    _mm512_shuffle_f32x4::<0xdd>(even_top, even_low),
                    _mm512_shuffle_f32x4::<0xdd>(odd_top, odd_low),
                ];
                for (q, column) in column.into_iter().enumerate() {
                    _mm512_storeu_ps(out.add((c + 4 * q) * out_stride), column);
                }
            }
        }
    }
}
