//! Panels on AVX2 without dot products of bytes: codes and activations as integers of 16 bits.
//!
//! `vpmaddwd` multiplies 16 pairs of 16-bit integers and adds neighbours to 32 bits: codes and whole activations fit it
//! exactly, so the sums are the integers that the planes give elsewhere, and every bit after them is the same.
//! `vpmaddubsw` on planes takes as many instructions for codes of four bits and up to twice as many for wider ones: pairs of
//! products soon fill 16 bits and have to be widened, and whole bytes have signs that must be moved.
//!
//! # What bounds it
//!
//! Many rows: a pair of columns of two panels by [`ROWS`] rows is 4 loads of weights, 2 broadcasts, 8 products and 8
//! additions: 22 instructions for 128 multiply-adds. Counted by pipes they take 4 cycles of a machine with two multipliers
//! among four pipes (Zen 3). But sums that wait for products take the pipes that multiply: products and additions alone, from
//! registers, come to 3 a cycle and not 4. Where another thread shares the core, what it can decode decides as well, and each
//! instruction counts. Multiply-adds a cycle of Zen 3, 128 rows of K = 576 and 1536 (Q6_K: 1536), the best of many passes, and
//! in parentheses with somebody else on the core:
//!
//! | | Q4_0 | Q4_1 | Q6_K |
//! |---|---|---|---|
//! | two planes of bytes, 4 rows by 8 lanes | 14.2, 14.5 (11.4) | 16.0, 16.6 (12.8) | |
//! | 16 bits, widened in every call | | | 9.9 |
//! | 16 bits, one panel by 3 rows, a loop over pairs of columns | 19.1, 19.5 (10.8) | 18.1, 18.5 (10.7) | 16.4 |
//! | the same unrolled by the compiler, which spills | 16.8, 17.5 (12.0) | 14.6, 14.9 (11.0) | |
//! | unrolled in assembly | 20.6, 20.9 (14 to 16) | 19.6, 20.0 (14 to 15) | 17.7 |
//!
//! Two panels by two rows (what is here) and that last line, in turns, GMAC/s of two threads of a busy machine, 256
//! rows of Q4_0, K = 576 and 1536, medians:
//!
//! | 1 panel × 3 rows | first products not added to zeros | 2 × 2 | 2 × 2, weights as operands in memory | 1 × 3, likewise |
//! |---|---|---|---|---|
//! | 93, 84 | 95, 88 | 95, 92 | 94, 90 | 78, 76 |
//!
//! In place, prompts of SmolLM2-135M: Q4_0 +11 %, Q4_1 +10 %, Q6_K and Q8_0 between −6 and +9 %.
//!
//! What did not help: fences for the compiler between steps (16.6); all of K unpacked at once for one panel (as good);
//! asking for the next rows' activations. In assembly, with the float work: tiles of 4 × 2 and 3 × 3 registers (20.3 and
//! 19.3); and `(x₀ + w₁)(x₁ + w₀)`, which has half the products and more additions (Winograd's; 19.8 in a tile of 4 × 2, 19.0
//! in one of 3 × 2).
//!
//! One row is bound by memory: from the first-level cache it takes 11.4 multiply-adds a cycle of Q4_0 and 12.3 of Q8_0 (planes,
//! the halves of a panel one after the other: 11.6, and 6.5 to 7.5), 18 to 20 GB/s of memory (13 to 16). Prefetching 2 to
//! 8 KB ahead, to either cache, is alike; 16 KB ahead, or half a KB, is slower. Fewer instructions gain at most 2 % there:
//! three of a 16-bit lane's four codes masked where they are and multiplied as 1, 16 and 256 times themselves (12 for 15),
//! or planes of bytes whose products 16 bits hold over a chunk (11). Two panels at a time do ([`STREAMS`]).

use super::driver::{PREFETCH_BYTES, Panel, prefetch_chunk, total};
use super::format::{CHUNK, Chunk, Format, GROUPS, Shape};
use super::is_heavy;
use super::simd::Ymm;
use crate::cpu::activation::{BLOCK_BYTES, Block};
use crate::cpu::panel::{LANES, by_count};
use core::arch::asm;
use core::arch::x86_64::*;

/// Panels of a call: a row is fetched once for all of them.
pub(super) const PANELS: usize = 2;

/// Rows of a tile: of 16 registers 8 hold the integer sums of two rows and two panels.
const ROWS: usize = 2;

/// Chunks that are unpacked at a time: a block of the K types.
const CHUNKS: usize = 8;

/// Lanes of a register, of which a panel is two parts.
const PART: usize = 8;
const PARTS: usize = LANES / PART;

/// Pairs of columns in a chunk: a register of codes holds one of each lane.
const PAIRS: usize = CHUNK / 2;

/// An unpacked chunk of the panels. Entry `2i` of `codes` has columns `4i` and `4i + 2` of each lane, entry `2i + 1` the
/// others, as [`split`] gives them.
#[repr(C, align(64))]
struct Unpacked {
    codes: [[[__m256i; PARTS]; PANELS]; PAIRS],
    scales: [[[__m256; PARTS]; PANELS]; 2],
    mins: [[[__m256; PARTS]; PANELS]; 2],
}

/// What a call of many rows needs for itself.
#[repr(C, align(64))]
pub(super) struct Scratch([Unpacked; CHUNKS]);

/// `lanes` rows of weights, in up to [`PANELS`] panels, against every row of `panel.x`; `panel.scratch` holds a [`Scratch`]
/// if there are several.
///
/// # Safety
/// What [`crate::cpu::panel::PanelFn`] demands, on a machine with AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn panels<F: Format>(panel: &Panel, lanes: usize) {
    // SAFETY: the caller's promise; panels follow one another, and so do their tiles.
    unsafe {
        if panel.rows > 1 {
            return many_rows::<F>(panel, lanes.div_ceil(LANES));
        }
        for p in 0..lanes.div_ceil(LANES) {
            one_row::<F>(
                panel.w.add(p * F::panel_stride(panel.k)),
                panel,
                panel.tile.add(p * LANES),
            );
        }
    }
}

/// One activation row, straight from the packed panel at `w`.
///
/// # Safety
/// As [`panels`].
#[inline(always)]
unsafe fn one_row<F: Format>(w: *const u8, panel: &Panel, out: *mut f32) {
    // SAFETY: the blocks of `k` columns lie one after another in the panel, as do those of the activation row.
    unsafe {
        let mut acc = [_mm256_setzero_ps(); PARTS];
        let mut x = panel.x.cast::<Block>();
        for b in 0..panel.k / F::COLS {
            let block = w.add(b * F::PANEL_BYTES);
            for c in 0..F::COLS / CHUNK {
                prefetch_chunk::<Ymm, F>(block.wrapping_add(PREFETCH_BYTES), c);
                acc = add_chunk::<F>(acc, block, c, x);
                x = x.add(1);
            }
        }
        store(acc, out);
    }
}

/// One activation row against several packed panels, in turns of a chunk.
///
/// # Safety
/// What [`crate::cpu::panel::StreamsFn`] demands, on a machine with AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn streams<F: Format>(
    w: &[*const u8],
    k: usize,
    x: *const u8,
    tiles: &[*mut f32],
) {
    // SAFETY: the caller's promise.
    unsafe { by_count!(w, tiles, N => side_by_side::<F, N>(w, k, x, tiles)) }
}

/// [`streams`] of `N` panels.
///
/// # Safety
/// As there.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn side_by_side<F: Format, const N: usize>(
    w: [*const u8; N],
    k: usize,
    x: *const u8,
    tiles: [*mut f32; N],
) {
    // SAFETY: the blocks of `k` columns lie one after another in each panel, as do those of the activation row.
    unsafe {
        let mut accs = [[_mm256_setzero_ps(); PARTS]; N];
        let mut x = x.cast::<Block>();
        for b in 0..k / F::COLS {
            for c in 0..F::COLS / CHUNK {
                for (w, acc) in w.iter().zip(&mut accs) {
                    let block = w.add(b * F::PANEL_BYTES);
                    if !is_heavy::<F>() {
                        prefetch_chunk::<Ymm, F>(block.wrapping_add(PREFETCH_BYTES), c);
                    }
                    *acc = add_chunk::<F>(*acc, block, c, x);
                }
                x = x.add(1);
            }
        }
        for (acc, tile) in accs.into_iter().zip(tiles) {
            store(acc, tile);
        }
    }
}

/// Adds the products of chunk `c` of a packed panel's `block` with `x`.
///
/// # Safety
/// As [`panels`].
#[inline(always)]
unsafe fn add_chunk<F: Format>(
    mut acc: [__m256; PARTS],
    block: *const u8,
    c: usize,
    x: *const Block,
) -> [__m256; PARTS] {
    // SAFETY: the caller's promise.
    unsafe {
        let parts = [F::unpack::<Ymm>(block, c, 0), F::unpack::<Ymm>(block, c, 1)];
        for s in 0..F::Shape::SCALES {
            let mut sums = [_mm256_setzero_si256(); PARTS];
            if !F::Shape::MIN {
                let offset = -F::OFFSET * total::<F::Shape>(x, s);
                sums = [_mm256_set1_epi32(offset); PARTS];
            }
            for i in s * GROUPS / F::Shape::SCALES..(s + 1) * GROUPS / F::Shape::SCALES {
                for (part, sum) in sums.iter_mut().enumerate() {
                    for (odd, codes) in split(parts[part].q[i]).into_iter().enumerate() {
                        let products = _mm256_madd_epi16(codes, pair(x, 2 * i + odd));
                        *sum = _mm256_add_epi32(*sum, products);
                    }
                }
            }
            let scale = [parts[0].scale[s], parts[1].scale[s]];
            let min = [parts[0].min[s], parts[1].min[s]];
            acc = accumulate::<F::Shape>(acc, sums, scale, min, x, s);
        }
        acc
    }
}

/// Many rows: the panels are unpacked [`CHUNKS`] chunks at a time, which the first-level cache holds while all rows pass.
/// What a row has summed up waits in the tile.
///
/// # Safety
/// As [`panels`].
#[inline(always)]
unsafe fn many_rows<F: Format>(panel: &Panel, panels: usize) {
    // SAFETY: the caller's promise. Blocks of a panel follow each other, as do panels, and a row's blocks.
    unsafe {
        let scratch = panel.scratch.cast::<Unpacked>();
        let (chunks, stride) = (panel.k / CHUNK, F::panel_stride(panel.k));
        for first in (0..chunks).step_by(CHUNKS) {
            let count = CHUNKS.min(chunks - first);
            for p in 0..panels {
                let w = panel.w.add(p * stride);
                unpack::<F>(w, (first, count), PANELS * stride, scratch, p);
            }
            for row in (0..panel.rows).step_by(ROWS) {
                let tile = Tile {
                    w: scratch,
                    x: panel.x.add(row * panel.x_stride + first * BLOCK_BYTES),
                    x_stride: panel.x_stride,
                    chunks: count,
                    begins: first == 0,
                    out: panel.tile.add(row * LANES),
                    out_stride: panel.rows * LANES,
                };
                match (panel.rows - row, panels) {
                    (1, 1) => tile.run::<F::Shape, 1, 1>(),
                    (1, _) => tile.run::<F::Shape, 1, PANELS>(),
                    (_, 1) => tile.run::<F::Shape, ROWS, 1>(),
                    (_, _) => tile.run::<F::Shape, ROWS, PANELS>(),
                }
            }
        }
    }
}

/// The even and the odd ones of 32 bytes, 16 bits wide.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn split(bytes: __m256i) -> [__m256i; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let even = _mm256_and_si256(bytes, _mm256_set1_epi16(255));
        [even, _mm256_srli_epi16::<8>(bytes)]
    }
}

/// Chunks `first ..` of panel `p` at `w`, signed and 16 bits wide. Those `ahead` bytes further, which the next call will
/// unpack, travel meanwhile.
///
/// # Safety
/// As [`panels`]; `out` has room for `count` chunks, and `first` begins a block.
#[inline(always)]
unsafe fn unpack<F: Format>(
    w: *const u8,
    (first, count): (usize, usize),
    ahead: usize,
    out: *mut Unpacked,
    p: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let offset = _mm256_set1_epi16(F::OFFSET as i16);
        for c in 0..count {
            let at = first + c;
            let (block, at) = (at / (F::COLS / CHUNK), at % (F::COLS / CHUNK));
            let block = w.add(block * F::PANEL_BYTES);
            prefetch_chunk::<Ymm, F>(block.wrapping_add(ahead), at);
            let out = out.add(c);
            for part in 0..PARTS {
                let Chunk { q, scale, min } = F::unpack::<Ymm>(block, at, part);
                for (i, &q) in q.iter().enumerate() {
                    let [even, odd] = split(q);
                    (*out).codes[2 * i][p][part] = _mm256_sub_epi16(even, offset);
                    (*out).codes[2 * i + 1][p][part] = _mm256_sub_epi16(odd, offset);
                }
                for s in 0..F::Shape::SCALES {
                    (*out).scales[s][p][part] = scale[s];
                    (*out).mins[s][p][part] = min[s];
                }
            }
        }
    }
}

/// Some rows against some chunks of unpacked panels.
struct Tile {
    w: *const Unpacked,
    x: *const u8,
    x_stride: usize,
    chunks: usize,
    /// Whether these are the first chunks; otherwise `out` has the sums of those before.
    begins: bool,
    /// `[R][16]` of the first panel, those of the second `out_stride` floats further.
    out: *mut f32,
    out_stride: usize,
}

impl Tile {
    /// # Safety
    /// What the fields point to must be as long as they say, for `R` rows and `P` panels; AVX2 and FMA.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn run<H: Shape, const R: usize, const P: usize>(&self) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut acc = [[[_mm256_setzero_ps(); PARTS]; P]; R];
            if !self.begins {
                for (r, acc) in acc.iter_mut().enumerate() {
                    for (p, acc) in acc.iter_mut().enumerate() {
                        *acc = load(self.out(r, p));
                    }
                }
            }
            for c in 0..self.chunks {
                let w = self.w.add(c);
                let mut x = [core::ptr::null(); R];
                for (r, x) in x.iter_mut().enumerate() {
                    *x = self.x.add(r * self.x_stride).cast::<Block>().add(c);
                }
                for s in 0..H::SCALES {
                    let mut sums = [[[_mm256_setzero_si256(); PARTS]; P]; R];
                    for half in s..s + 2 / H::SCALES {
                        add_products(&mut sums, &(*w).codes, x, half * (PAIRS / 2));
                    }
                    for r in 0..R {
                        for p in 0..P {
                            let (scale, min) = ((*w).scales[s][p], (*w).mins[s][p]);
                            acc[r][p] = accumulate::<H>(acc[r][p], sums[r][p], scale, min, x[r], s);
                        }
                    }
                }
            }
            for (r, acc) in acc.into_iter().enumerate() {
                for (p, acc) in acc.into_iter().enumerate() {
                    store(acc, self.out(r, p));
                }
            }
        }
    }

    /// The 16 sums of a row and a panel.
    fn out(&self, row: usize, panel: usize) -> *mut f32 {
        self.out.wrapping_add(panel * self.out_stride + row * LANES)
    }
}

/// Adds to each row's sums its products with half a chunk: `PAIRS / 2` pairs of columns from `first` on.
///
/// Full tiles are assembly, because a compiler that unrolls them loads ahead until sums leave their registers. The first
/// pair is not: sums of zero need no addition.
///
/// # Safety
/// `x` must point to the rows' blocks of the chunk; AVX2.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_products<const R: usize, const P: usize>(
    sums: &mut [[[__m256i; PARTS]; P]; R],
    codes: &[[[__m256i; PARTS]; PANELS]; PAIRS],
    x: [*const Block; R],
    first: usize,
) {
    let in_assembly = R == ROWS && P == PANELS;
    let pairs = if in_assembly { 1 } else { PAIRS / 2 };
    for (i, codes) in codes.iter().enumerate().skip(first).take(pairs) {
        for (sums, x) in sums.iter_mut().zip(x) {
            // SAFETY: the caller's promise.
            unsafe {
                let q = pair(x, i);
                for (sums, codes) in sums.iter_mut().zip(codes) {
                    for (sum, &codes) in sums.iter_mut().zip(codes) {
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(codes, q));
                    }
                }
            }
        }
    }
    if in_assembly {
        let [s0, s1, s2, s3, s4, s5, s6, s7] = sums.as_flattened_mut().as_flattened_mut() else {
            unreachable!("{ROWS} rows of {PANELS} panels of {PARTS} parts")
        };
        macro_rules! pairs {
            ($($pair:literal)*) => {
                asm!(
                    $(
                        concat!("vpbroadcastd {q}, [{x0} + 4*", $pair, "]"),
                        concat!("vpbroadcastd {r}, [{x1} + 4*", $pair, "]"),
                        concat!("vmovdqa {w}, [{codes} + 128*", $pair, "]"),
                        "vpmaddwd {p}, {q}, {w}",
                        "vpmaddwd {w}, {r}, {w}",
                        "vpaddd {s0}, {s0}, {p}",
                        "vpaddd {s4}, {s4}, {w}",
                        concat!("vmovdqa {w}, [{codes} + 128*", $pair, " + 32]"),
                        "vpmaddwd {p}, {q}, {w}",
                        "vpmaddwd {w}, {r}, {w}",
                        "vpaddd {s1}, {s1}, {p}",
                        "vpaddd {s5}, {s5}, {w}",
                        concat!("vmovdqa {w}, [{codes} + 128*", $pair, " + 64]"),
                        "vpmaddwd {p}, {q}, {w}",
                        "vpmaddwd {w}, {r}, {w}",
                        "vpaddd {s2}, {s2}, {p}",
                        "vpaddd {s6}, {s6}, {w}",
                        concat!("vmovdqa {w}, [{codes} + 128*", $pair, " + 96]"),
                        "vpmaddwd {q}, {q}, {w}",
                        "vpmaddwd {r}, {r}, {w}",
                        "vpaddd {s3}, {s3}, {q}",
                        "vpaddd {s7}, {s7}, {r}",
                    )*
                    codes = in(reg) codes.as_ptr().add(first),
                    x0 = in(reg) x[0].cast::<i32>().add(first),
                    x1 = in(reg) x[1].cast::<i32>().add(first),
                    s0 = inout(ymm_reg) *s0,
                    s1 = inout(ymm_reg) *s1,
                    s2 = inout(ymm_reg) *s2,
                    s3 = inout(ymm_reg) *s3,
                    s4 = inout(ymm_reg) *s4,
                    s5 = inout(ymm_reg) *s5,
                    s6 = inout(ymm_reg) *s6,
                    s7 = inout(ymm_reg) *s7,
                    w = out(ymm_reg) _,
                    p = out(ymm_reg) _,
                    q = out(ymm_reg) _,
                    r = out(ymm_reg) _,
                    options(pure, readonly, nostack, preserves_flags),
                )
            };
        }
        // SAFETY: the caller's promise; the block reads the other seven pairs of codes and of each row.
        unsafe { pairs!(1 2 3 4 5 6 7) }
    }
}

/// # Safety
/// `out` has room for the lanes; AVX2.
#[inline(always)]
unsafe fn store(acc: [__m256; PARTS], out: *mut f32) {
    for (part, acc) in acc.into_iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_ps(out.add(part * PART), acc) }
    }
}

/// # Safety
/// `from` has the lanes; AVX2.
#[inline(always)]
unsafe fn load(from: *const f32) -> [__m256; PARTS] {
    // SAFETY: the caller's promise.
    core::array::from_fn(|part| unsafe { _mm256_loadu_ps(from.add(part * PART)) })
}

/// Pair `i` of a row's block in every lane.
///
/// # Safety
/// `x` must point to a block; AVX2.
#[inline(always)]
unsafe fn pair(x: *const Block, i: usize) -> __m256i {
    // SAFETY: the caller's promise; a block has `PAIRS` of them.
    unsafe { _mm256_set1_epi32((&raw const (*x).planes).cast::<i32>().add(i).read()) }
}

/// Adds a row's integer sums over the columns of scale `s` of a chunk to its accumulators: what [`super::driver`] does, with
/// the same roundings in the same order.
///
/// # Safety
/// `x` must point to the row's block of this chunk; AVX2 and FMA.
#[inline(always)]
unsafe fn accumulate<H: Shape>(
    mut acc: [__m256; PARTS],
    sums: [__m256i; PARTS],
    scale: [__m256; PARTS],
    min: [__m256; PARTS],
    x: *const Block,
    s: usize,
) -> [__m256; PARTS] {
    // SAFETY: the caller's promise.
    unsafe {
        let x_scale = _mm256_set1_ps((*x).scale);
        for part in 0..PARTS {
            let sum = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[part]), x_scale);
            acc[part] = _mm256_fmadd_ps(scale[part], sum, acc[part]);
        }
        if H::MIN {
            let sum = match H::SCALES {
                1 => (*x).scaled_sum,
                _ => (*x).scale * (*x).sums[s] as f32,
            };
            for part in 0..PARTS {
                acc[part] = _mm256_fmadd_ps(min[part], _mm256_set1_ps(sum), acc[part]);
            }
        }
    }
    acc
}
