//! Many rows of types of more than four bits on AVX2, whose machines multiply 16-bit integers at the rate of bytes.
//!
//! `vpmaddwd` multiplies 16 pairs of 16-bit integers and adds neighbours to 32 bits: codes, less their offset, and whole
//! activations `q = 128 · high + low` fit it exactly, so the sums are the integers that the planes give, and every bit after
//! them is the same. `vpmaddubsw` takes as many instructions for two planes of nibbles, and up to twice as many for wider
//! codes: pairs of products soon fill 16 bits and have to be widened, and whole bytes have signs that must be moved.
//!
//! Two columns of 16 lanes by [`ROWS`] rows are 2 loads of weights, 3 broadcasts, 6 products and 6 additions: 3 cycles on a
//! machine with two multipliers and four pipes (Zen 3), 32 multiply-adds a cycle. Weights are unpacked [`CHUNKS`] chunks at
//! a time, which the first-level cache holds while all rows pass; what a row has summed up waits in the tile.
//!
//! A prompt of 512 tokens of SmolLM2-135M on two busy Zen 3 cores, tokens/s before and after, medians of 5 interleaved
//! runs: Q6_K (whose narrow tensors are Q8_0) 348 and 423, Q4_0 459 and 442, Q4_1 498 and 477; so nibbles stay with planes.

use super::driver::Panel;
use super::format::{CHUNK, Chunk, Format, GROUPS, Shape};
use super::simd::{Maddubs, Ymm};
use crate::cpu::activation::{BLOCK_BYTES, Block, HIGH_SHIFT};
use crate::cpu::panel::LANES;
use core::arch::x86_64::*;

/// Panels of a call: a row's activations are widened once for all of them.
pub(super) const PANELS: usize = 2;

/// Rows of a tile: of 16 registers 6 hold integer sums and 6 what they are added to.
const ROWS: usize = 3;

/// Chunks that are unpacked at a time: a block of the K types.
const CHUNKS: usize = 8;

/// Whether codes of this shape are multiplied faster here than as bytes.
pub(super) const fn pays<H: Shape>() -> bool {
    H::MAX > 15
}

/// Lanes of a register, of which a panel is two parts.
const PART: usize = 8;
const PARTS: usize = LANES / PART;

type Avx2 = Ymm<Maddubs>;

/// An unpacked chunk of a panel. Entry `2i` of `codes` has columns `4i` and `4i + 2` of each lane, entry `2i + 1` the
/// others, which is what splitting bytes into even and odd ones gives.
#[repr(C, align(64))]
struct Unpacked {
    codes: [[__m256i; PARTS]; 2 * GROUPS],
    scales: [[__m256; PARTS]; 2],
    mins: [[__m256; PARTS]; 2],
}

/// A chunk of a row in the order of [`Unpacked::codes`].
#[repr(C, align(64))]
struct Widened([i16; CHUNK]);

/// What a call needs for itself.
#[repr(C, align(64))]
pub(super) struct Scratch {
    panels: [[Unpacked; CHUNKS]; PANELS],
    rows: [[Widened; CHUNKS]; ROWS],
}

/// `lanes` rows of weights, in up to [`PANELS`] panels, against every row of `panel.x`; `panel.scratch` holds a [`Scratch`].
///
/// # Safety
/// What [`crate::cpu::panel::PanelFn`] demands, on a machine with AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn panels<F: Format>(panel: &Panel, lanes: usize) {
    // SAFETY: the caller's promise. Blocks of a panel follow each other, as do panels, and a row's blocks.
    unsafe {
        let scratch = panel.scratch.cast::<Scratch>();
        let panels = lanes.div_ceil(LANES);
        let chunks = panel.k / CHUNK;
        let mut first = 0;
        while first < chunks {
            let count = CHUNKS.min(chunks - first);
            for p in 0..panels {
                let w = panel.w.add(p * F::panel_stride(panel.k));
                let unpacked = (&raw mut (*scratch).panels[p]).cast::<Unpacked>();
                unpack::<F>(w, first, count, unpacked);
            }
            let mut row = 0;
            while row < panel.rows {
                // As even tiles as possible.
                let left = panel.rows - row;
                let rows = left.div_ceil(left.div_ceil(ROWS));
                let x = panel.x.add(row * panel.x_stride + first * BLOCK_BYTES);
                for r in 0..rows {
                    let to = (&raw mut (*scratch).rows[r]).cast::<Widened>();
                    widen(x.add(r * panel.x_stride).cast(), count, to);
                }
                for p in 0..panels {
                    let tile = Tile {
                        w: (&raw const (*scratch).panels[p]).cast(),
                        q: &raw const (*scratch).rows,
                        x,
                        x_stride: panel.x_stride,
                        chunks: count,
                        begins: first == 0,
                        out: panel.tile.add((p * panel.rows + row) * LANES),
                    };
                    match rows {
                        1 => tile.run::<F::Shape, 1>(),
                        2 => tile.run::<F::Shape, 2>(),
                        _ => tile.run::<F::Shape, 3>(),
                    }
                }
                row += rows;
            }
            first += count;
        }
    }
}

/// Chunks `first ..` of the panel at `w`, signed and 16 bits wide.
///
/// # Safety
/// As [`panels`]; `out` has room for `count` chunks, and `first` begins a block.
#[inline(always)]
unsafe fn unpack<F: Format>(w: *const u8, first: usize, count: usize, out: *mut Unpacked) {
    // SAFETY: the caller's promise.
    unsafe {
        let offset = _mm256_set1_epi16(F::OFFSET as i16);
        for c in 0..count {
            let at = first + c;
            let block = w.add(at / (F::COLS / CHUNK) * F::PANEL_BYTES);
            let out = out.add(c);
            for part in 0..PARTS {
                let Chunk { q, scale, min } =
                    F::unpack::<Avx2>(block, at % (F::COLS / CHUNK), part);
                for (i, &q) in q.iter().enumerate() {
                    let [even, odd] = if F::Shape::MAX == 255 {
                        let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(q));
                        [even, _mm256_srai_epi16::<8>(q)]
                    } else {
                        let even = _mm256_and_si256(q, _mm256_set1_epi16(255));
                        [even, _mm256_srli_epi16::<8>(q)].map(|v| _mm256_sub_epi16(v, offset))
                    };
                    (*out).codes[2 * i][part] = even;
                    (*out).codes[2 * i + 1][part] = odd;
                }
                for s in 0..F::Shape::SCALES {
                    (*out).scales[s][part] = scale[s];
                    (*out).mins[s][part] = min[s];
                }
            }
        }
    }
}

/// A row's activations as whole integers.
///
/// # Safety
/// `x` points to `count` blocks, `out` has room for as many chunks; AVX2.
#[inline(always)]
unsafe fn widen(x: *const Block, count: usize, out: *mut Widened) {
    // SAFETY: the caller's promise.
    unsafe {
        for c in 0..count {
            let planes = &(*x.add(c)).planes;
            for half in 0..2 {
                let plane = |p: usize| {
                    let at = planes[p].as_ptr().add(16 * half);
                    _mm256_cvtepi8_epi16(_mm_loadu_si128(at.cast()))
                };
                const SHIFT: i32 = HIGH_SHIFT as i32;
                let q = _mm256_add_epi16(_mm256_slli_epi16::<SHIFT>(plane(0)), plane(1));
                // Of each four the second and third change places.
                const EVEN_FIRST: i32 = 0b11_01_10_00;
                let q = _mm256_shufflelo_epi16::<EVEN_FIRST>(q);
                let q = _mm256_shufflehi_epi16::<EVEN_FIRST>(q);
                let to = (*out.add(c)).0.as_mut_ptr().add(16 * half);
                _mm256_store_si256(to.cast(), q);
            }
        }
    }
}

/// Some rows against some chunks of a panel.
struct Tile {
    w: *const Unpacked,
    q: *const [[Widened; CHUNKS]; ROWS],
    /// The same rows as blocks, for their scales and sums.
    x: *const u8,
    x_stride: usize,
    chunks: usize,
    /// Whether these are the first chunks; otherwise `out` has the sums of those before.
    begins: bool,
    out: *mut f32,
}

impl Tile {
    /// The arithmetic of [`super::driver`], with the same roundings in the same order.
    ///
    /// # Safety
    /// What the fields point to must be as long as they say, for `R` rows; AVX2 and FMA.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn run<H: Shape, const R: usize>(&self) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut acc = [[_mm256_setzero_ps(); PARTS]; R];
            if !self.begins {
                for (r, acc) in acc.iter_mut().enumerate() {
                    for (part, acc) in acc.iter_mut().enumerate() {
                        *acc = _mm256_loadu_ps(self.out.add(r * LANES + part * PART));
                    }
                }
            }
            for c in 0..self.chunks {
                let w = self.w.add(c);
                let x: [*const Block; R] =
                    core::array::from_fn(|r| self.x.add(r * self.x_stride).cast::<Block>().add(c));
                let q: [*const i32; R] =
                    core::array::from_fn(|r| (*self.q)[r][c].0.as_ptr().cast());
                let pairs = 2 * GROUPS / H::SCALES;
                for s in 0..H::SCALES {
                    let mut sums = [[_mm256_setzero_si256(); PARTS]; R];
                    for i in s * pairs..(s + 1) * pairs {
                        let codes = (*w).codes[i];
                        for r in 0..R {
                            let q = _mm256_set1_epi32(*q[r].add(i));
                            for part in 0..PARTS {
                                let products = _mm256_madd_epi16(codes[part], q);
                                sums[r][part] = _mm256_add_epi32(sums[r][part], products);
                            }
                        }
                    }
                    for r in 0..R {
                        let x_scale = _mm256_set1_ps((*x[r]).scale);
                        for part in 0..PARTS {
                            let sum = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[r][part]), x_scale);
                            acc[r][part] = _mm256_fmadd_ps((*w).scales[s][part], sum, acc[r][part]);
                        }
                        if H::MIN {
                            let sum = match H::SCALES {
                                1 => (*x[r]).scaled_sum,
                                _ => (*x[r]).scale * (*x[r]).sums[s] as f32,
                            };
                            for (part, acc) in acc[r].iter_mut().enumerate() {
                                let min = (*w).mins[s][part];
                                *acc = _mm256_fmadd_ps(min, _mm256_set1_ps(sum), *acc);
                            }
                        }
                    }
                }
            }
            for (r, acc) in acc.into_iter().enumerate() {
                for (part, acc) in acc.into_iter().enumerate() {
                    _mm256_storeu_ps(self.out.add(r * LANES + part * PART), acc);
                }
            }
        }
    }
}
