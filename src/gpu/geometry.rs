//! How each kernel is launched: pure functions of its sizes and the device's wave width.
//!
//! Kernels read their block's shape from the launch, so every choice below can be made here, once,
//! when a program is lowered. The kernels' own limits, which these functions respect:
//!
//! - `gemv` and `gemm_half` kernels: see `gemv.rs` and `half.rs`.
//! - Blocks are whole waves, since shuffles name every lane.
//! - The first dimension of a grid may be huge; the others stay below 65,536.

pub use super::gemv::{GatedShape, GemvLaunch, GemvShape, STAGED_BYTES, gated_gemv, gemv};
pub use super::half::{
    HalfChoice, HalfLaunch, HalfShape, HalfTile, gemm_half, half_launch, half_tiles,
};
use crate::hip::{DeviceInfo, Platform};

/// A launch, without its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Dynamic LDS (shared memory) of a block.
    pub lds_bytes: u32,
}

/// Rows and columns of y that a `gemm` block computes.
pub const GEMM_TILE: u32 = 64;
/// Queries, that is pairs of row and head, an `attention_rows` block serves.
pub const ATTENTION_QUERIES: u32 = 4;
/// The longest head the attention kernels hold in registers; heads are multiples of 8.
pub const ATTENTION_MAX_HEAD: u32 = 256;

/// Threads of most blocks.
const THREADS: u32 = 256;
/// What kernels that are more than their sizes are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// AMD with waves of 64.
    Cdna,
    /// AMD with waves of 32.
    Rdna,
    Nvidia,
    /// NVIDIA's sm_90 itself, whose warp groups multiply (`kernels/gemm_group.hip`).
    Hopper,
}

impl Machine {
    pub const ALL: [Machine; 4] = [
        Machine::Cdna,
        Machine::Rdna,
        Machine::Nvidia,
        Machine::Hopper,
    ];

    /// The kind of a device.
    pub fn of(info: &DeviceInfo) -> Machine {
        match (info.platform, info.wave) {
            (Platform::Nvidia, _) if info.arch == "sm_90" => Machine::Hopper,
            (Platform::Nvidia, _) => Machine::Nvidia,
            (Platform::Amd, 64) => Machine::Cdna,
            (Platform::Amd, _) => Machine::Rdna,
        }
    }

    /// Lanes of a wave.
    pub fn wave(self) -> u32 {
        match self {
            Machine::Cdna => 64,
            Machine::Rdna | Machine::Nvidia | Machine::Hopper => 32,
        }
    }

    /// Whether it has the kernels for NVIDIA.
    pub fn is_nvidia(self) -> bool {
        matches!(self, Machine::Nvidia | Machine::Hopper)
    }

    /// Compute units of the largest device of the kind: MI300X, RX 7900 XTX, A100, H100.
    pub(super) fn compute_units(self) -> u32 {
        match self {
            Machine::Cdna => 304,
            Machine::Rdna => 96,
            Machine::Nvidia => 108,
            Machine::Hopper => 132,
        }
    }
}

/// The likeliest machine with waves of so many lanes.
impl From<u32> for Machine {
    fn from(wave: u32) -> Machine {
        match wave {
            64 => Machine::Cdna,
            _ => Machine::Hopper,
        }
    }
}

fn along(x: u32, y: u32, threads: u32) -> Geometry {
    Geometry {
        grid: [x.max(1), y.max(1), 1],
        block: [threads, 1, 1],
        lds_bytes: 0,
    }
}

/// `step_set` and `rule_set`: one thread would do.
pub fn step_set() -> Geometry {
    along(1, 1, 64)
}

/// `step_fetch`: one block, whatever the rows.
pub fn step_fetch() -> Geometry {
    along(1, 1, 64)
}

/// `embed_<type>`: a thread an element of `[rows, cols]`.
pub fn embed(cols: u32, rows: u32) -> Geometry {
    along(cols.div_ceil(THREADS), rows, THREADS)
}

/// `rope_table`: a thread a pair of `[rows, dims / 2]`.
pub fn rope_table(dims: u32, rows: u32) -> Geometry {
    along((dims / 2).div_ceil(64), rows, 64)
}

/// Threads for a row of `n` elements, four at a time: a power of two, at least a wave.
fn norm_threads(n: u32) -> u32 {
    n.div_ceil(4).next_power_of_two().clamp(64, 1024)
}

/// `rms_norm`: a block a group of a row.
pub fn rms_norm(cols: u32, groups: u32, rows: u32) -> Geometry {
    along(groups, rows, norm_threads(cols / groups))
}

/// `rms_norm_quantize`: a block a row.
pub fn rms_norm_quantize(cols: u32, rows: u32) -> Geometry {
    along(1, rows, norm_threads(cols))
}

/// `quantize`: a thread four columns of `[rows, cols]`, padded to whole blocks of 32.
pub fn quantize(cols: u32, rows: u32) -> Geometry {
    along((cols.div_ceil(32) * 8).div_ceil(THREADS), rows, THREADS)
}

/// `add_bias`, `add`, `scale`, `gated_mul`: a thread four columns of `[rows, cols]`.
pub fn elementwise(cols: u32, rows: u32) -> Geometry {
    along(cols.div_ceil(4).div_ceil(THREADS), rows, THREADS)
}

/// `last_row`: a thread a column.
pub fn last_row(cols: u32) -> Geometry {
    along(cols.div_ceil(THREADS), 1, THREADS)
}

/// `rope`: a thread a pair of `[rows, heads · head_size / 2]`.
pub fn rope(heads: u32, head_size: u32, rows: u32) -> Geometry {
    along((heads * head_size / 2).div_ceil(THREADS), rows, THREADS)
}

/// `kv_append`: a thread a pair of keys or of values.
pub fn kv_append(kv_heads: u32, head_size: u32, rows: u32) -> Geometry {
    rope(2 * kv_heads, head_size, rows)
}

/// `kv_append_q8` and `rope_append_q8`: a thread four columns of `[rows, heads · head_size]`.
pub fn append_q8(heads: u32, head_size: u32, rows: u32) -> Geometry {
    along((heads * head_size / 4).div_ceil(THREADS), rows, THREADS)
}

/// `rope_append`: a thread a pair of queries, keys or values.
pub fn rope_append(heads: u32, kv_heads: u32, head_size: u32, rows: u32) -> Geometry {
    rope(heads + 2 * kv_heads, head_size, rows)
}

/// `gemm_<type>`: y `[rows, n]`, a block a tile.
pub fn gemm(n: u32, rows: u32) -> Geometry {
    along(n.div_ceil(GEMM_TILE), rows.div_ceil(GEMM_TILE), THREADS)
}

/// `round_rows`, `rms_norm_half` and `gated_mul_half`: a block a row.
pub fn half_rows(cols: u32, rows: u32) -> Geometry {
    along(1, rows, norm_threads(cols))
}

/// Columns of the heads that an `attention_flash` kernel holds, the least that do for `head_size`.
pub fn flash_columns(head_size: u32) -> Option<u32> {
    [64, 128].into_iter().find(|&columns| head_size <= columns)
}

/// `attention_flash_<columns>`: a block a K/V head and 64 of its rows and heads.
pub fn attention_flash(
    heads: u32,
    kv_heads: u32,
    columns: u32,
    rows: u32,
    machine: Machine,
) -> Geometry {
    let queries = rows * (heads / kv_heads);
    let lds_bytes = match machine {
        // Two tiles of 64 keys and of values.
        Machine::Nvidia | Machine::Hopper => 2 * 2 * (64 * columns * 2),
        // A tile of keys, one of values transposed, and the waves' weights, rows padded by 8.
        Machine::Cdna => flash_lds(64, columns),
        Machine::Rdna => flash_lds(32, columns),
    };
    Geometry {
        grid: [queries.div_ceil(64).max(1), kv_heads, 1],
        block: [4 * machine.wave(), 1, 1],
        lds_bytes,
    }
}

fn flash_lds(keys: u32, columns: u32) -> u32 {
    2 * (keys * (columns + 8) + (columns + 4 * 16) * (keys + 8))
}

/// Whether the attention kernels take heads of this size.
pub fn attention_takes(head_size: u32) -> bool {
    head_size.is_multiple_of(8) && (8..=ATTENTION_MAX_HEAD).contains(&head_size)
}

/// `attention_split`: a block a K/V head and a split of the capacity.
pub fn attention_split(kv_heads: u32, positions: u32, split: u32) -> Geometry {
    along(positions.div_ceil(split), kv_heads, THREADS)
}

/// `attention_step_<size>x<queries>`, by head size and queries served at a time: `blocks` blocks a
/// K/V head, whose turned queries and own K and V rows are in LDS.
pub fn attention_step(
    heads: u32,
    kv_heads: u32,
    head_size: u32,
    blocks: u32,
) -> (&'static str, Geometry) {
    let queries = heads / kv_heads;
    let (kernel, threads) = match (head_size, queries) {
        (..=64, 1) => ("attention_step_64x1", 256),
        (..=64, 3) => ("attention_step_64x3", 512),
        (..=64, _) => ("attention_step_64x4", 512),
        (..=128, 1) => ("attention_step_128x1", 256),
        (..=128, _) => ("attention_step_128x4", 512),
        (_, 1) => ("attention_step_256x1", 256),
        _ => ("attention_step_256x2", 512),
    };
    let mut geometry = along(blocks, kv_heads, threads);
    geometry.lds_bytes = (4 * queries + 2 * 2) * head_size;
    (kernel, geometry)
}

/// `attention_combine` and `attention_combine_quantize`: a block 32 columns of `[heads · head_size]`.
pub fn attention_combine(heads: u32, head_size: u32) -> Geometry {
    Geometry {
        grid: [(heads * head_size).div_ceil(32), 1, 1],
        block: [8, 32, 1],
        lds_bytes: 0,
    }
}

/// `attention_rows`: a block a K/V head and [`ATTENTION_QUERIES`] of its rows and heads.
pub fn attention_rows(heads: u32, kv_heads: u32, rows: u32) -> Geometry {
    let queries = rows * (heads / kv_heads);
    along(queries.div_ceil(ATTENTION_QUERIES), kv_heads, THREADS)
}

/// Parts of a row of `n` logits that `sample_scan` looks at, one a wave: four logits a lane.
pub fn sample_chunks(n: u32, wave: u32) -> u32 {
    n.div_ceil(4 * wave)
}

/// `sample_scan`: a thread four logits.
pub fn sample_scan(n: u32) -> Geometry {
    along(n.div_ceil(4 * THREADS), 1, THREADS)
}

/// `sample_choose`: one block.
pub fn sample_choose() -> Geometry {
    along(1, 1, 1024)
}

/// `repack_<type>`: a thread a unit of a row, which is a block of 32 elements of a quantised type and
/// 16 bytes of floats. Whole runs of 64 units, of which those past the row's end write its padding.
pub fn repack(units: u32, rows: u32) -> Geometry {
    Geometry {
        grid: [rows.div_ceil(4).max(1), units.div_ceil(64).max(1), 1],
        block: [64, 4, 1],
        lds_bytes: 0,
    }
}

/// `expand_<type>`: a thread 16 columns of `[rows, cols]`.
pub fn expand(rows: u32, cols: u32) -> Geometry {
    Geometry {
        grid: [rows.div_ceil(4).max(1), cols.div_ceil(16 * 64).max(1), 1],
        block: [64, 4, 1],
        lds_bytes: 0,
    }
}

/// `stream_read`: a few blocks a compute unit, which walk the buffer together.
pub fn stream_read(compute_units: u32) -> Geometry {
    along(8 * compute_units, 1, THREADS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads(g: Geometry) -> u32 {
        g.block.iter().product()
    }

    #[test]
    fn blocks_of_other_kernels_are_whole_waves() {
        let all = [
            step_fetch(),
            embed(576, 3),
            rope_table(64, 1),
            rms_norm(64, 4, 2),
            rms_norm_quantize(4096, 1),
            quantize(40, 7),
            elementwise(10, 1),
            rope_append(9, 3, 64, 1),
            append_q8(15, 64, 1),
            gemm(65, 65),
            attention_split(3, 2048, 64),
            attention_step(9, 3, 64, 32).1,
            attention_combine(9, 64),
            attention_rows(9, 3, 5),
            sample_scan(1000),
            sample_choose(),
            step_set(),
            repack(18, 5),
            stream_read(304),
            expand(70, 4096),
        ];
        for g in all {
            assert!(threads(g).is_multiple_of(64) && threads(g) <= 1024, "{g:?}");
            assert!(g.grid.iter().all(|&n| n > 0), "{g:?}");
        }
        assert_eq!(gemm(65, 65).grid, [2, 2, 1]);
    }

    /// The passes fuse a step's attention up to so many queries (`pass/attend.rs`). The kernels' own LDS is at most
    /// what `kernels/resources.toml` has for it.
    #[test]
    fn attention_steps_that_are_fused_fit_every_device() {
        let own = 33_296;
        for (queries, size) in [(61, 128), (123, 64), (30, 256)] {
            let (kernel, geometry) = attention_step(queries, 1, size, 4);
            assert!(
                own + geometry.lds_bytes <= 64 << 10,
                "{kernel}: {geometry:?}"
            );
        }
    }
}
