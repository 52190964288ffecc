//! Activations as integers, the right-hand side of every quantised matrix product.
//!
//! A row of `K` values becomes `⌈K/32⌉` [`Block`]s, padded with zeros. Each block of 32 is rounded to `x ≈ scale · q` with
//! `scale = absmax / 16256` kept as f32, so that rounding costs 15 bits of precision and not 8. (Rounded to 8 bits,
//! SmolLM2-135M Q4_1 has a perplexity of 18.50 where exact arithmetic has 18.34; to 15, 18.34.) How `q` is kept is the
//! machine's [`Form`]: two planes of signed bytes, `q = 128 · high + low`, where it has dot products of bytes, which multiply
//! one plane after the other; integers of 16 bits where it has not. (Two planes take 1.8 × the time of one when many rows
//! share a weight, and the same when memory is the limit.)
//!
//! Each block carries the sums that let the kernels treat weights as unsigned bytes. Scales and sums lie beside the bytes
//! they belong to, so that a kernel walking twelve rows needs one pointer a row.
//!
//! Rounding is to nearest, ties to even, and every path gives the same bits. A block containing NaN or an infinity gets
//! the scale NaN: the fault then shows in every sum it enters instead of hiding in a saturated byte. A block whose
//! largest magnitude is below 2⁻¹¹⁰ becomes zero, because its reciprocal scale would overflow.

use super::isa::Isa;

/// Columns in a block.
pub const BLOCK_LEN: usize = 32;

/// The high plane counts `1 << HIGH_SHIFT` units.
pub const HIGH_SHIFT: u32 = 7;

/// The largest `q`: 127 of the high plane.
const Q_MAX: f32 = (127 << HIGH_SHIFT) as f32;

/// Half a unit of the high plane, which makes `low` signed.
const HALF: i32 = 1 << (HIGH_SHIFT - 1);

/// How a block keeps its `q`: what the kernels of an instruction set multiply. The integers are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `high`, −127 to 127, of all columns, then `low`, −64 to 63, of `q = 128 · high + low`.
    Planes,
    /// 16 bits each; of every four columns the second and third have changed places.
    Whole,
}

impl Form {
    /// The form that rows have on a machine that runs `isa`.
    pub fn of(isa: Isa) -> Form {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 if !is_x86_feature_detected!("avxvnni") => Form::Whole,
            _ => Form::Planes,
        }
    }
}

/// The order of four columns in [`Form::Whole`]: that in which bytes of weights split into even and odd ones.
const EVEN_FIRST: [usize; 4] = [0, 2, 1, 3];

/// 32 activations.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Block {
    /// The `q`, in the bytes of [`Form::Planes`]; see [`Block::whole`].
    pub planes: [[i8; BLOCK_LEN]; 2],
    /// What one unit of `q` is worth.
    pub scale: f32,
    /// `scale · Σ q`: what a weight's constant term is multiplied by.
    pub scaled_sum: f32,
    /// Sums of the first and of the last 16 `q`.
    pub sums: [i32; 2],
}

impl Block {
    /// The block's `q` if its form is [`Form::Whole`].
    pub fn whole(&self) -> [i16; BLOCK_LEN] {
        let bytes = self.planes.as_flattened();
        core::array::from_fn(|i| i16::from_ne_bytes([bytes[2 * i] as u8, bytes[2 * i + 1] as u8]))
    }

    /// The `j`-th value in units of `scale`.
    pub fn q(&self, form: Form, j: usize) -> i32 {
        match form {
            Form::Planes => {
                let [high, low] = self.planes.map(|plane| i32::from(plane[j]));
                (high << HIGH_SHIFT) + low
            }
            Form::Whole => i32::from(self.whole()[j / 4 * 4 + EVEN_FIRST[j % 4]]),
        }
    }
}

/// Bytes in a block.
pub const BLOCK_BYTES: usize = size_of::<Block>();
const _: () = assert!(BLOCK_BYTES == 80 && align_of::<Block>() == 4);

/// A row of `k` activations in bytes, rounded up to a cache line.
pub const fn row_bytes(k: usize) -> usize {
    (k.div_ceil(BLOCK_LEN) * BLOCK_BYTES).next_multiple_of(64)
}

/// Magnitudes below this (2⁻¹¹⁰) are rounded to zero blocks.
const SMALLEST: f32 = f32::from_bits((127 - 110) << 23);

/// Quantises the row `x [K]` to `⌈K/32⌉` blocks at `out`, in the form of `isa`.
///
/// # Safety
/// The machine must run `isa`; `out` must be valid for writes of [`row_bytes`]`(x.len())` bytes and aligned to 4.
pub unsafe fn quantise_row(isa: Isa, x: &[f32], out: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe { quantise_row_as(Form::of(isa), isa, x, out) }
}

/// [`quantise_row`] in any form.
///
/// # Safety
/// As there.
pub(crate) unsafe fn quantise_row_as(form: Form, isa: Isa, x: &[f32], out: *mut u8) {
    let out = out.cast::<Block>();
    let whole = x.len() / BLOCK_LEN;
    // SAFETY: `whole` blocks lie inside both `x` and the caller's `out`, and the caller promises the instruction set.
    unsafe {
        match isa {
            // Reductions, not width, bound this loop: a version with 64-byte registers took a third longer.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::Avx512 => x86::blocks(form, x.as_ptr(), whole, out),
            _ => {
                for (i, block) in x.chunks_exact(BLOCK_LEN).enumerate() {
                    out.add(i).write(quantise_block(form, block));
                }
            }
        }
    }
    let rest = &x[whole * BLOCK_LEN..];
    if !rest.is_empty() {
        let mut last = [0.0; BLOCK_LEN];
        last[..rest.len()].copy_from_slice(rest);
        // SAFETY: a ragged row has one block more, which `row_bytes` counts.
        unsafe { out.add(whole).write(quantise_block(form, &last)) };
    }
}

/// The factor from value to integer and the scale, from the bits of the largest magnitude. `None`: the block is zero.
fn factors(absmax: f32) -> Option<(f32, f32)> {
    (absmax >= SMALLEST).then(|| (Q_MAX / absmax, absmax / Q_MAX))
}

/// A block with no information in its bytes: all zero, or poisoned by a NaN scale.
fn blank(absmax: f32) -> Block {
    let scale = if absmax.is_finite() { 0.0 } else { f32::NAN };
    Block {
        planes: [[0; BLOCK_LEN]; 2],
        scale,
        scaled_sum: scale,
        sums: [0; 2],
    }
}

fn quantise_block(form: Form, x: &[f32]) -> Block {
    // Magnitudes are compared as integers: that orders finite values, then infinity, then NaN.
    let bits = x.iter().fold(0, |m, v| m.max(v.abs().to_bits()));
    let absmax = f32::from_bits(bits);
    if !absmax.is_finite() {
        return blank(absmax);
    }
    let Some((inverse, scale)) = factors(absmax) else {
        return blank(absmax);
    };
    let mut planes = [[0i8; BLOCK_LEN]; 2];
    let mut sums = [0; 2];
    for (i, v) in x.iter().enumerate() {
        let q = (v * inverse).round_ties_even() as i32;
        match form {
            Form::Planes => {
                let high = (q + HALF) >> HIGH_SHIFT;
                planes[0][i] = high as i8;
                planes[1][i] = (q - (high << HIGH_SHIFT)) as i8;
            }
            Form::Whole => {
                let at = 2 * (i / 4 * 4 + EVEN_FIRST[i % 4]);
                let bytes = (q as i16).to_ne_bytes().map(|b| b as i8);
                planes.as_flattened_mut()[at..at + 2].copy_from_slice(&bytes);
            }
        }
        sums[i / 16] += q;
    }
    Block {
        planes,
        scale,
        scaled_sum: scale * (sums[0] + sums[1]) as f32,
        sums,
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{BLOCK_LEN, Block, Form, HALF, HIGH_SHIFT, blank, factors};
    use core::arch::x86_64::*;

    /// 32 integers that fit bytes as bytes, in order.
    ///
    /// # Safety
    /// AVX2.
    #[inline(always)]
    unsafe fn bytes(q: [__m256i; 4]) -> __m256i {
        // Packing works within 128-bit halves; the permutation puts the 4-byte groups back in order.
        // SAFETY: the caller's promise.
        unsafe {
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            let shorts = [
                _mm256_packs_epi32(q[0], q[1]),
                _mm256_packs_epi32(q[2], q[3]),
            ];
            _mm256_permutevar8x32_epi32(_mm256_packs_epi16(shorts[0], shorts[1]), order)
        }
    }

    /// The two planes of 32 integers.
    ///
    /// # Safety
    /// AVX2.
    #[inline(always)]
    unsafe fn planes(q: [__m256i; 4]) -> [__m256i; 2] {
        const SHIFT: i32 = HIGH_SHIFT as i32;
        // SAFETY: the caller's promise.
        unsafe {
            let half = _mm256_set1_epi32(HALF);
            let high = q.map(|q| _mm256_srai_epi32::<SHIFT>(_mm256_add_epi32(q, half)));
            let low = core::array::from_fn(|i| {
                _mm256_sub_epi32(q[i], _mm256_slli_epi32::<SHIFT>(high[i]))
            });
            [bytes(high), bytes(low)]
        }
    }

    /// 32 integers as [`Form::Whole`] has them.
    ///
    /// # Safety
    /// AVX2.
    #[inline(always)]
    unsafe fn whole(q: [__m256i; 4]) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            [[q[0], q[1]], [q[2], q[3]]].map(|[a, b]| {
                // Packing works within 128-bit halves.
                const IN_ORDER: i32 = 0b11_01_10_00;
                const EVEN_FIRST: i32 = 0b11_01_10_00;
                let q = _mm256_permute4x64_epi64::<IN_ORDER>(_mm256_packs_epi32(a, b));
                _mm256_shufflehi_epi16::<EVEN_FIRST>(_mm256_shufflelo_epi16::<EVEN_FIRST>(q))
            })
        }
    }

    /// Fills in everything but the integers from the two sums.
    ///
    /// # Safety
    /// `out` must be valid for writes.
    #[inline(always)]
    unsafe fn finish(out: *mut Block, scale: f32, sums: [i32; 2]) {
        // SAFETY: the caller's promise.
        unsafe {
            (*out).scale = scale;
            (*out).scaled_sum = scale * (sums[0] + sums[1]) as f32;
            (*out).sums = sums;
        }
    }

    /// # Safety
    /// AVX2; `x` holds `32 · blocks` values and `out` room for `blocks` blocks.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn blocks(form: Form, x: *const f32, blocks: usize, out: *mut Block) {
        for b in 0..blocks {
            // SAFETY: block `b` is inside both buffers by the caller's promise.
            unsafe {
                let out = out.add(b);
                let mask = _mm256_set1_epi32(i32::MAX);
                let v: [__m256; 4] =
                    core::array::from_fn(|i| _mm256_loadu_ps(x.add(b * BLOCK_LEN + 8 * i)));
                let m = v.map(|v| _mm256_and_si256(_mm256_castps_si256(v), mask));
                let m =
                    _mm256_max_epi32(_mm256_max_epi32(m[0], m[1]), _mm256_max_epi32(m[2], m[3]));
                let m = _mm_max_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256::<1>(m));
                let m = _mm_max_epi32(m, _mm_shuffle_epi32::<0b1110>(m));
                let m = _mm_max_epi32(m, _mm_shuffle_epi32::<1>(m));
                let absmax = f32::from_bits(_mm_cvtsi128_si32(m) as u32);
                let Some((inverse, scale)) = factors(absmax).filter(|_| absmax.is_finite()) else {
                    out.write(blank(absmax));
                    continue;
                };
                let inverse = _mm256_set1_ps(inverse);
                let q = v.map(|v| _mm256_cvtps_epi32(_mm256_mul_ps(v, inverse)));
                let integers = match form {
                    Form::Planes => planes(q),
                    Form::Whole => whole(q),
                };
                let to = (&raw mut (*out).planes).cast::<__m256i>();
                _mm256_storeu_si256(to, integers[0]);
                _mm256_storeu_si256(to.add(1), integers[1]);
                let sums = [_mm256_add_epi32(q[0], q[1]), _mm256_add_epi32(q[2], q[3])].map(|s| {
                    let s =
                        _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256::<1>(s));
                    let s = _mm_add_epi32(s, _mm_shuffle_epi32::<0b1110>(s));
                    _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32::<1>(s)))
                });
                finish(out, scale, sums);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantise(form: Form, isa: Isa, x: &[f32]) -> Vec<Block> {
        let blocks = row_bytes(x.len()).div_ceil(BLOCK_BYTES);
        let mut out = vec![blank(0.0); blocks];
        // SAFETY: `out` covers `row_bytes` and the instruction set is one the machine reports.
        unsafe { quantise_row_as(form, isa, x, out.as_mut_ptr().cast()) };
        out.truncate(x.len().div_ceil(BLOCK_LEN));
        out
    }

    /// The blocks' bytes, so that NaN equals NaN.
    fn bits(blocks: &[Block]) -> &[u8] {
        // SAFETY: a block is plain data without padding (its size is the sum of its fields').
        unsafe { std::slice::from_raw_parts(blocks.as_ptr().cast(), size_of_val(blocks)) }
    }

    fn check(x: &[f32]) {
        for form in [Form::Planes, Form::Whole] {
            check_form(form, x);
        }
    }

    fn check_form(form: Form, x: &[f32]) {
        let want = quantise(form, Isa::Portable, x);
        for isa in Isa::available() {
            let got = quantise(form, isa, x);
            assert_eq!(bits(&got), bits(&want), "{form:?} {}", isa.name());
        }
        for (i, block) in want.iter().enumerate() {
            let x = &x[i * BLOCK_LEN..x.len().min((i + 1) * BLOCK_LEN)];
            if x.iter().any(|v| !v.is_finite()) {
                assert!(block.scale.is_nan() && block.scaled_sum.is_nan());
                continue;
            }
            let qs: Vec<i32> = (0..BLOCK_LEN).map(|j| block.q(form, j)).collect();
            for (j, q) in qs.iter().enumerate() {
                let exact = x.get(j).copied().unwrap_or(0.0);
                let error = f64::from(exact) - f64::from(block.scale) * f64::from(*q);
                let bound = f64::from(block.scale) * 0.503 + 1e-33;
                assert!(error.abs() <= bound, "{exact} became {q} · {}", block.scale);
            }
            let halves: Vec<i32> = qs.chunks(16).map(|h| h.iter().sum()).collect();
            assert_eq!(halves, block.sums);
            let total = (block.sums[0] + block.sums[1]) as f32;
            assert_eq!(block.scaled_sum, block.scale * total);
        }
    }

    #[test]
    fn every_path_gives_the_same_bits() {
        let seed = 0x5eed_ac71u64;
        println!("seed {seed:#x}");
        let mut state = seed;
        let mut next = move || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        for len in [1, 31, 32, 33, 96, 576, 1536, 1537] {
            let scale = 10f32.powf(next() * 8.0);
            check(&(0..len).map(|_| next() * scale).collect::<Vec<_>>());
        }
    }

    #[test]
    fn edges() {
        check(&[]);
        check(&[0.0; 64]);
        check(&[-0.0; 32]);
        // Ties: with this absmax the factor is one, and halves must round to even.
        let mut ties: Vec<f32> = (0..32).map(|i| i as f32 - 15.5).collect();
        ties[0] = Q_MAX;
        check(&ties);
        let block = quantise(Form::Planes, Isa::Portable, &ties)[0];
        let first: Vec<i32> = (0..5).map(|j| block.q(Form::Planes, j)).collect();
        assert_eq!(first, [127 << HIGH_SHIFT, -14, -14, -12, -12]);
        for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN] {
            for at in [0, 17, 33] {
                let mut x = [1.5; 70];
                x[at] = special;
                check(&x);
            }
        }
        for tiny in [f32::MIN_POSITIVE, 1e-45, 7e-34, 8e-34, 1e-30, f32::MAX] {
            check(&[tiny, -tiny, tiny / 2.0, 0.0]);
            check(&[tiny; 64]);
        }
    }
}
