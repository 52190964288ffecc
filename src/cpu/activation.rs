//! Activations as 8-bit integers, the right-hand side of every quantised matrix product.
//!
//! A row of `K` values becomes `⌈K/32⌉` [`Block`]s, padded with zeros. Each block of 32 is rounded to `x ≈ scale · q`
//! with `scale = absmax / 127` kept as f32, and carries the sums that let the kernels treat weights as unsigned bytes.
//! Scales and sums lie beside the bytes they belong to, so that a kernel walking twelve rows needs one pointer a row.
//!
//! Rounding is to nearest, ties to even, and every path gives the same bits. A block containing NaN or an infinity gets
//! the scale NaN: the fault then shows in every sum it enters instead of hiding in a saturated byte. A block whose
//! largest magnitude is below 2⁻¹¹⁰ becomes zero, because its reciprocal scale would overflow.

use super::isa::Isa;

/// Columns in a block.
pub const BLOCK_LEN: usize = 32;

/// 32 activations.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Block {
    /// The values, −127 to 127.
    pub qs: [i8; BLOCK_LEN],
    /// What one unit of `qs` is worth.
    pub scale: f32,
    /// `scale · Σ qs`: what a weight's constant term is multiplied by.
    pub scaled_sum: f32,
    /// Sums of the first and of the last 16 `qs`.
    pub sums: [i16; 2],
}

/// Bytes in a block.
pub const BLOCK_BYTES: usize = size_of::<Block>();
const _: () = assert!(BLOCK_BYTES == 44 && align_of::<Block>() == 4);

/// A row of `k` activations in bytes, rounded up to a cache line.
pub const fn row_bytes(k: usize) -> usize {
    (k.div_ceil(BLOCK_LEN) * BLOCK_BYTES).next_multiple_of(64)
}

/// Magnitudes below this (2⁻¹¹⁰) are rounded to zero blocks.
const SMALLEST: f32 = f32::from_bits((127 - 110) << 23);

/// Quantises the row `x [K]` to `⌈K/32⌉` blocks at `out`.
///
/// # Safety
/// The machine must run `isa`; `out` must be valid for writes of [`row_bytes`]`(x.len())` bytes and aligned to 4.
pub unsafe fn quantise_row(isa: Isa, x: &[f32], out: *mut u8) {
    let out = out.cast::<Block>();
    let whole = x.len() / BLOCK_LEN;
    // SAFETY: `whole` blocks lie inside both `x` and the caller's `out`, and the caller promises the instruction set.
    unsafe {
        match isa {
            // Reductions, not width, bound this loop: a version with 64-byte registers took a third longer.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::Avx512 => x86::blocks(x.as_ptr(), whole, out),
            _ => {
                for (i, block) in x.chunks_exact(BLOCK_LEN).enumerate() {
                    out.add(i).write(quantise_block(block));
                }
            }
        }
    }
    let rest = &x[whole * BLOCK_LEN..];
    if !rest.is_empty() {
        let mut last = [0.0; BLOCK_LEN];
        last[..rest.len()].copy_from_slice(rest);
        // SAFETY: a ragged row has one block more, which `row_bytes` counts.
        unsafe { out.add(whole).write(quantise_block(&last)) };
    }
}

/// The factor from value to integer and the scale, from the bits of the largest magnitude. `None`: the block is zero.
fn factors(absmax: f32) -> Option<(f32, f32)> {
    (absmax >= SMALLEST).then(|| (127.0 / absmax, absmax / 127.0))
}

/// A block with no information in its bytes: all zero, or poisoned by a NaN scale.
fn blank(absmax: f32) -> Block {
    let scale = if absmax.is_finite() { 0.0 } else { f32::NAN };
    Block {
        qs: [0; BLOCK_LEN],
        scale,
        scaled_sum: scale,
        sums: [0; 2],
    }
}

fn quantise_block(x: &[f32]) -> Block {
    // Magnitudes are compared as integers: that orders finite values, then infinity, then NaN.
    let bits = x.iter().fold(0, |m, v| m.max(v.abs().to_bits()));
    let absmax = f32::from_bits(bits);
    if !absmax.is_finite() {
        return blank(absmax);
    }
    let Some((inverse, scale)) = factors(absmax) else {
        return blank(absmax);
    };
    let mut qs = [0i8; BLOCK_LEN];
    let mut sums = [0i16; 2];
    for (i, v) in x.iter().enumerate() {
        qs[i] = (v * inverse).round_ties_even() as i8;
        sums[i / 16] += i16::from(qs[i]);
    }
    Block {
        qs,
        scale,
        scaled_sum: scale * f32::from(sums[0] + sums[1]),
        sums,
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{BLOCK_LEN, Block, blank, factors};
    use core::arch::x86_64::*;

    /// Fills in everything but `qs` from the two sums.
    ///
    /// # Safety
    /// `out` must be valid for writes.
    #[inline(always)]
    unsafe fn finish(out: *mut Block, scale: f32, sums: [i32; 2]) {
        // SAFETY: the caller's promise.
        unsafe {
            (*out).scale = scale;
            (*out).scaled_sum = scale * (sums[0] + sums[1]) as f32;
            // A sum of 16 bytes fits sixteen bits.
            (*out).sums = [sums[0] as i16, sums[1] as i16];
        }
    }

    /// # Safety
    /// AVX2; `x` holds `32 · blocks` values and `out` room for `blocks` blocks.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn blocks(x: *const f32, blocks: usize, out: *mut Block) {
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
                // Packing works within 128-bit halves; the permutation puts the 4-byte groups back in order.
                let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
                let bytes = _mm256_packs_epi16(
                    _mm256_packs_epi32(q[0], q[1]),
                    _mm256_packs_epi32(q[2], q[3]),
                );
                let qs = (&raw mut (*out).qs).cast::<__m256i>();
                _mm256_storeu_si256(qs, _mm256_permutevar8x32_epi32(bytes, order));
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

    fn quantise(isa: Isa, x: &[f32]) -> Vec<Block> {
        let blocks = row_bytes(x.len()).div_ceil(BLOCK_BYTES);
        let mut out = vec![blank(0.0); blocks];
        // SAFETY: `out` covers `row_bytes` and the instruction set is one the machine reports.
        unsafe { quantise_row(isa, x, out.as_mut_ptr().cast()) };
        out.truncate(x.len().div_ceil(BLOCK_LEN));
        out
    }

    /// The block's bits, so that NaN equals NaN.
    fn bits(blocks: &[Block]) -> Vec<(Vec<i8>, u32, u32, [i16; 2])> {
        blocks
            .iter()
            .map(|b| {
                (
                    b.qs.to_vec(),
                    b.scale.to_bits(),
                    b.scaled_sum.to_bits(),
                    b.sums,
                )
            })
            .collect()
    }

    fn check(x: &[f32]) {
        let want = quantise(Isa::Portable, x);
        for isa in Isa::available() {
            assert_eq!(bits(&quantise(isa, x)), bits(&want), "{}", isa.name());
        }
        for (i, block) in want.iter().enumerate() {
            let x = &x[i * BLOCK_LEN..x.len().min((i + 1) * BLOCK_LEN)];
            if x.iter().any(|v| !v.is_finite()) {
                assert!(block.scale.is_nan() && block.scaled_sum.is_nan());
                continue;
            }
            for (j, q) in block.qs.iter().enumerate() {
                let exact = x.get(j).copied().unwrap_or(0.0);
                let error = f64::from(exact) - f64::from(block.scale) * f64::from(*q);
                let bound = f64::from(block.scale) * 0.50002 + 1e-33;
                assert!(error.abs() <= bound, "{exact} became {q} · {}", block.scale);
            }
            let halves: Vec<i16> = block
                .qs
                .chunks(16)
                .map(|h| h.iter().map(|q| i16::from(*q)).sum())
                .collect();
            assert_eq!(halves, block.sums);
            let total = f32::from(block.sums[0] + block.sums[1]);
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
        // Ties: with absmax 127 the factor is one, and halves must round to even.
        let mut ties: Vec<f32> = (0..32).map(|i| i as f32 - 15.5).collect();
        ties[0] = 127.0;
        check(&ties);
        assert_eq!(
            quantise(Isa::Portable, &ties)[0].qs[1..5],
            [-14, -14, -12, -12]
        );
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
