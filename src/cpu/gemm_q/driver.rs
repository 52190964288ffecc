//! The two loops: one row against a panel, read once from memory; and many rows against a panel unpacked once.
//!
//! Both run the same [`accumulate`], chunk by chunk in column order with one f32 accumulator a row and lane, so that a row
//! gets the same bits alone and in company, and however panels are shared among threads.

use super::format::{CHUNK, Chunk, Format, GROUPS, Shape};
use super::simd::Simd;
use crate::cpu::activation::{BLOCK_BYTES, BLOCK_LEN, Block};
use crate::cpu::panel::{LANES, by_count};

const _: () = assert!(BLOCK_LEN == CHUNK);

/// The arguments of a [`crate::cpu::panel::PanelFn`].
pub(crate) struct Panel {
    pub w: *const u8,
    pub k: usize,
    pub x: *const u8,
    pub x_stride: usize,
    pub rows: usize,
    pub tile: *mut f32,
    pub scratch: *mut u8,
}

/// Some rows against part `part` of an unpacked panel.
pub(crate) struct Tile {
    /// The unpacked panel.
    pub w: *const u8,
    pub chunks: usize,
    pub part: usize,
    /// Subtracted from every code.
    pub offset: i32,
    pub x: *const u8,
    pub x_stride: usize,
    pub rows: usize,
    pub out: *mut f32,
}

/// Bytes of scratch for `k` columns.
pub(crate) const fn scratch_bytes<H: Shape>(k: usize) -> usize {
    k / CHUNK * H::UNPACKED_BYTES
}

/// How far ahead of its use a lone row's weights are fetched into the second-level cache.
///
/// The hardware's own prefetcher stops at page boundaries and keeps too little in flight: alone it reads half of what one
/// core can. GB/s of one Granite Rapids core over 96 MB of packed weights, small pages, medians of 9 interleaved rounds;
/// a plain loop of 64-byte loads reads 15:
///
/// | bytes ahead | none | 1024 | 2048 | 4096 | 8192 | 16384 | 32768 | 8192, into L1 |
/// |---|---|---|---|---|---|---|---|---|
/// | Q8_0 | 13.9 | 18.8 | 21.2 | 23.7 | 26.2 | 26.7 | 27.4 | 23.0 |
/// | Q4_1 | 12.0 | 14.8 | 17.2 | 21.2 | 24.4 | 25.6 | 26.2 | 19.6 |
/// | Q6_K | 11.2 | 12.8 | 15.2 | 18.7 | 21.6 | 23.7 | 24.7 | 17.1 |
///
/// What lies past a thread's last panel is fetched in vain, which speaks against more than 8192.
pub(crate) const PREFETCH_BYTES: usize = 8192;

/// Asks for the bytes of chunk `chunk` of the block at `block`, which need not exist.
///
/// # Safety
/// As [`Simd`] says.
#[inline(always)]
pub(super) unsafe fn prefetch_chunk<S: Simd, F: Format>(block: *const u8, chunk: usize) {
    let bytes = F::PANEL_BYTES * CHUNK / F::COLS;
    for line in 0..bytes.div_ceil(64) {
        // SAFETY: the caller's promise; a prefetch may name any address.
        unsafe { S::prefetch(block.wrapping_add(chunk * bytes + 64 * line)) };
    }
}

/// Σ of the activations that scale `s` of a chunk covers.
///
/// # Safety
/// `x` must point to a block.
#[inline(always)]
pub(super) unsafe fn total<H: Shape>(x: *const Block, s: usize) -> i32 {
    // SAFETY: the caller's promise.
    let sums = unsafe { (*x).sums };
    if H::SCALES == 1 {
        sums[0] + sums[1]
    } else {
        sums[s]
    }
}

/// Adds one chunk's products to the accumulators of `R` rows: the whole arithmetic of a quantised product.
///
/// # Safety
/// `x[r]` must point to the rows' activation blocks of this chunk; otherwise as [`Simd`] says.
#[inline(always)]
unsafe fn accumulate<S: Simd, H: Shape, const R: usize>(
    mut acc: [S::F; R],
    q: impl Fn(usize) -> S::I,
    scale: impl Fn(usize) -> S::F,
    min: impl Fn(usize) -> S::F,
    offset: i32,
    x: [*const Block; R],
) -> [S::F; R] {
    // SAFETY: the caller's promise.
    unsafe {
        for s in 0..H::SCALES {
            let groups = GROUPS / H::SCALES;
            let planes: [[*const u8; R]; 2] = core::array::from_fn(|plane| {
                core::array::from_fn(|r| {
                    let plane = (&raw const (*x[r]).planes[plane]).cast::<u8>();
                    plane.add(H::SCALED * s)
                })
            });
            let [high, low] = planes;
            let mut sums = S::dots::<R>([S::zero(); R], groups, |i| q(s * groups + i), high);
            for r in 0..R {
                sums[r] = S::shift_sums(sums[r]);
                if !H::MIN {
                    sums[r] = S::subtract(sums[r], offset * total::<H>(x[r], s));
                }
            }
            let sums = S::dots::<R>(sums, groups, |i| q(s * groups + i), low);
            let scale = scale(s);
            for r in 0..R {
                let sum = S::mul(S::to_f(sums[r]), S::splat((*x[r]).scale));
                acc[r] = S::fma(scale, sum, acc[r]);
            }
            if H::MIN {
                let min = min(s);
                for r in 0..R {
                    let sum = if H::SCALES == 1 {
                        (*x[r]).scaled_sum
                    } else {
                        (*x[r]).scale * (*x[r]).sums[s] as f32
                    };
                    acc[r] = S::fma(min, S::splat(sum), acc[r]);
                }
            }
        }
        acc
    }
}

/// A whole panel: every row of `panel.x` against it.
///
/// # Safety
/// What [`crate::cpu::panel::PanelFn`] demands; otherwise as [`Simd`] says.
#[inline(always)]
pub(crate) unsafe fn panel<S: Simd, F: Format>(panel: &Panel) {
    // SAFETY: the caller's promise.
    unsafe {
        for part in 0..LANES / S::LANES {
            if panel.rows == 1 {
                one_row::<S, F>(panel, part);
            } else {
                unpack::<S, F>(panel, part);
            }
        }
        if panel.rows == 1 {
            return;
        }
        // As even tiles as possible: 13 rows are 7 and 6, not 12 and a lonely 1.
        let tiles = panel.rows.div_ceil(S::ROWS);
        let mut row = 0;
        for t in 0..tiles {
            let rows = (panel.rows - row) / (tiles - t);
            for part in 0..LANES / S::LANES {
                S::tiles::<F::Shape>(&Tile {
                    w: panel.scratch,
                    chunks: panel.k / CHUNK,
                    part,
                    offset: F::OFFSET,
                    x: panel.x.add(row * panel.x_stride),
                    x_stride: panel.x_stride,
                    rows,
                    out: panel.tile.add(row * LANES),
                });
            }
            row += rows;
        }
    }
}

/// One activation row, straight from the packed panel.
///
/// # Safety
/// As [`panel`].
#[inline(always)]
unsafe fn one_row<S: Simd, F: Format>(panel: &Panel, part: usize) {
    // SAFETY: the blocks of `k` columns lie one after another in the panel, as do those of the activation row.
    unsafe {
        let mut acc = S::splat(0.0);
        let mut x = panel.x;
        for b in 0..panel.k / F::COLS {
            let block = panel.w.add(b * F::PANEL_BYTES);
            for c in 0..F::COLS / CHUNK {
                acc = add_chunk::<S, F>(acc, block, (c, part), x);
                x = x.add(BLOCK_BYTES);
            }
        }
        S::store_f(panel.tile.add(S::LANES * part), acc);
    }
}

/// Adds the products of a packed panel's chunk with the activations at `x`, and asks for the one that comes
/// [`PREFETCH_BYTES`] later. `at` is the chunk of the block, and the part of its lanes.
///
/// # Safety
/// As [`panel`].
#[inline(always)]
unsafe fn add_chunk<S: Simd, F: Format>(
    acc: S::F,
    block: *const u8,
    at: (usize, usize),
    x: *const u8,
) -> S::F {
    // SAFETY: the caller's promise.
    unsafe {
        prefetch_chunk::<S, F>(block.wrapping_add(PREFETCH_BYTES), at.0);
        let Chunk { q, scale, min } = F::unpack::<S>(block, at.0, at.1);
        let [acc] = accumulate::<S, F::Shape, 1>(
            [acc],
            |i| q[i],
            |s| scale[s],
            |s| min[s],
            F::OFFSET,
            [x.cast()],
        );
        acc
    }
}

/// One activation row against several packed panels, in turns of a chunk.
///
/// # Safety
/// What [`crate::cpu::panel::StreamsFn`] demands; otherwise as [`Simd`] says.
#[inline(always)]
pub(super) unsafe fn streams<S: Simd, F: Format>(
    w: &[*const u8],
    k: usize,
    x: *const u8,
    tiles: &[*mut f32],
) {
    // SAFETY: the caller's promise.
    unsafe { by_count!(w, tiles, N => side_by_side::<S, F, N>(w, k, x, tiles)) }
}

/// [`streams`] of `N` panels.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn side_by_side<S: Simd, F: Format, const N: usize>(
    w: [*const u8; N],
    k: usize,
    x: *const u8,
    tiles: [*mut f32; N],
) {
    // SAFETY: the blocks of `k` columns lie one after another in each panel, as do those of the activation row.
    unsafe {
        for part in 0..LANES / S::LANES {
            let mut accs = [S::splat(0.0); N];
            let mut x = x;
            for b in 0..k / F::COLS {
                for c in 0..F::COLS / CHUNK {
                    for (w, acc) in w.iter().zip(&mut accs) {
                        let block = w.add(b * F::PANEL_BYTES);
                        *acc = add_chunk::<S, F>(*acc, block, (c, part), x);
                    }
                    x = x.add(BLOCK_BYTES);
                }
            }
            for (acc, tile) in accs.into_iter().zip(tiles) {
                S::store_f(tile.add(S::LANES * part), acc);
            }
        }
    }
}

/// Writes the panel to scratch in the form [`tile`] reads: per chunk the codes as bytes, the scales, the minima.
///
/// # Safety
/// As [`panel`].
#[inline(always)]
unsafe fn unpack<S: Simd, F: Format>(panel: &Panel, part: usize) {
    // SAFETY: as `one_row`; scratch holds `UNPACKED_BYTES` for every chunk.
    unsafe {
        let mut out = panel.scratch.add(4 * S::LANES * part);
        // The next panel travels while this one is multiplied.
        let ahead = (panel.k / F::COLS * F::PANEL_BYTES).max(PREFETCH_BYTES);
        for b in 0..panel.k / F::COLS {
            let block = panel.w.add(b * F::PANEL_BYTES);
            for c in 0..F::COLS / CHUNK {
                prefetch_chunk::<S, F>(block.wrapping_add(ahead), c);
                let chunk = F::unpack::<S>(block, c, part);
                for i in 0..GROUPS {
                    S::store(out.add(64 * i), chunk.q[i]);
                }
                for s in 0..F::Shape::SCALES {
                    S::store_f(out.add(64 * (GROUPS + s)).cast(), chunk.scale[s]);
                    if F::Shape::MIN {
                        let at = out.add(64 * (GROUPS + F::Shape::SCALES + s));
                        S::store_f(at.cast(), chunk.min[s]);
                    }
                }
                out = out.add(F::Shape::UNPACKED_BYTES);
            }
        }
    }
}

/// The same address, in a register of its own: of what the compiler knows it would make a base and an index, and a
/// product whose operand is `[base + index]` takes two of the slots that an Intel core renames in, where `[base]` takes
/// one. When two threads share a core there are three a cycle for each.
#[inline(always)]
fn in_a_register(at: *const Block) -> *const Block {
    #[cfg(target_arch = "x86_64")]
    {
        let mut at = at;
        // SAFETY: no instructions.
        unsafe {
            core::arch::asm!("/* {} */", inout(reg) at, options(pure, readonly, nostack, preserves_flags));
        }
        at
    }
    #[cfg(not(target_arch = "x86_64"))]
    at
}

/// `R` rows against part of an unpacked panel, sums in registers.
///
/// # Safety
/// What [`Tile`] points to must be as long as it says; otherwise as [`Simd`] says.
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, H: Shape, const R: usize>(tile: &Tile) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut acc = [S::splat(0.0); R];
        let mut w = tile.w.add(4 * S::LANES * tile.part);
        let mut rows = [tile.x.cast::<Block>(); R];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = row.byte_add(r * tile.x_stride);
        }
        for _ in 0..tile.chunks {
            for row in &mut rows {
                *row = in_a_register(*row);
            }
            acc = accumulate::<S, H, R>(
                acc,
                |i| S::load(w.add(64 * i)),
                |s| S::load_f(w.add(64 * (GROUPS + s)).cast()),
                |s| S::load_f(w.add(64 * (GROUPS + H::SCALES + s)).cast()),
                tile.offset,
                rows,
            );
            w = w.add(H::UNPACKED_BYTES);
            for row in &mut rows {
                *row = row.add(1);
            }
        }
        for (r, acc) in acc.into_iter().enumerate() {
            S::store_f(tile.out.add(r * LANES + S::LANES * tile.part), acc);
        }
    }
}

/// `match`es `tile.rows` to the constant of [`tile`].
macro_rules! tile_by_rows {
    ($of:ident, $shape:ty, $tile:expr, $($rows:literal)*) => {
        match $tile.rows {
            $($rows => $of::<$shape, $rows>($tile),)*
            rows => unreachable!("a tile of {rows} rows"),
        }
    };
}
pub(crate) use tile_by_rows;
