//! How the `gemm_half` kernels are launched: the tile of a block, and the blocks that share a tile's K.
//!
//! The kernels' own limits (`kernels/gemm_half.hip`), which every choice here respects, whatever the
//! tuning table says: a kind of machine has kernels for some tiles ([`half_tiles`]), and no block is
//! without a part of K.

use super::geometry::{Geometry, Machine};
use super::hardware::Hardware;
use super::tuning::{Cols, Depth, GemmKey, Rows};
use crate::dtype::DType;
use std::fmt;

/// Rows and columns of y that a block computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HalfTile {
    pub rows: u32,
    pub cols: u32,
}

/// `128x64`, as kernels and tuning tables spell it.
impl fmt::Display for HalfTile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.rows, self.cols)
    }
}

/// The tiles that a kind of machine has kernels for, the largest first.
pub fn half_tiles(machine: Machine) -> &'static [HalfTile] {
    const fn tile(rows: u32, cols: u32) -> HalfTile {
        HalfTile { rows, cols }
    }
    match machine {
        Machine::Cdna => const { &[tile(128, 128), tile(64, 128)] },
        Machine::Rdna => const { &[tile(128, 64), tile(64, 64)] },
        Machine::Nvidia | Machine::Hopper => {
            const { &[tile(128, 128), tile(128, 64), tile(64, 64)] }
        }
    }
}

/// Whether warp groups make a tile (`kernels/gemm_group.hip`), of f16 weights alone.
fn by_groups(machine: Machine, tile: HalfTile) -> bool {
    machine == Machine::Hopper && (tile.rows, tile.cols) == (128, 128)
}

/// Parts that the K of a tile is cut into at most.
pub const PARTS_AT_MOST: u32 = 16;

/// How a launch is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HalfChoice {
    pub tile: HalfTile,
    /// Blocks that share the K of a tile; as many as there is K for.
    pub parts: u32,
}

/// Up to three matrices of one type over rows of 16-bit floats.
#[derive(Clone, Copy, Debug)]
pub struct HalfShape {
    pub dtype: DType,
    /// Rows of each matrix; 0 for those that are not there.
    pub n: [u32; 3],
    pub k: u32,
    /// Rows of activations.
    pub rows: u32,
    /// Whether the first two are gate and up, of which one result is made.
    pub gated: bool,
}

/// A launch of a `gemm_half` kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HalfLaunch {
    pub geometry: Geometry,
    pub tile: HalfTile,
    /// Blocks that share the K of a tile, and columns of tiles along K that each has.
    pub parts: u32,
    pub part_tiles: u32,
    /// Whether the weights are brought to f16 by a launch before.
    pub expands: bool,
    /// What the tuning table was asked for.
    pub key: GemmKey,
}

impl HalfLaunch {
    /// `gemm_half_128x64_q4_0`, `gemm_half_128x128_expanded`
    pub fn kernel(&self, dtype: DType) -> String {
        let of = match self.expands {
            true => "expanded".into(),
            false => dtype.name().to_ascii_lowercase(),
        };
        format!("gemm_half_{}_{of}", self.tile)
    }

    /// Tiles of y, and tickets where blocks share their K.
    pub fn tiles(&self) -> usize {
        self.geometry.grid[0] as usize
    }

    /// Bytes of the sums that the blocks of tiles leave each other.
    pub fn sums_bytes(&self) -> usize {
        match self.parts {
            1 => 0,
            parts => {
                let sums = self.tile.rows as usize * self.tile.cols as usize;
                self.tiles() * parts as usize * sums * size_of::<f32>()
            }
        }
    }
}

/// `gemm_half_<tile>_<type>` as the tuning table has it, or else by a rule: the large tile, which does
/// twice the work for a load, unless it leaves more than a quarter of the device idle or its rows empty.
/// Where warp groups make the large tile, bringing weights to f16 has to pay as well.
pub fn gemm_half(hardware: &Hardware, shape: HalfShape) -> HalfLaunch {
    let machine = hardware.machine;
    let choice = hardware.tuning.gemm(key(&shape));
    half_launch(
        machine,
        shape,
        choice.unwrap_or_else(|| rule(machine, &shape)),
    )
}

/// What the tuning table is asked for.
fn key(shape: &HalfShape) -> GemmKey {
    GemmKey {
        dtype: shape.dtype,
        rows: Rows::of(shape.rows),
        cols: Cols::of(shape.n.iter().sum()),
        depth: Depth::of(shape.k),
    }
}

/// Rows from which on weights are brought to f16 for warp groups. The products of Llama-2-7B, Q4_0, on an
/// H100: at 512 rows 21 ms with that and 27 without; at 128 rows 9.4 without, and 13.7 with, by adding up
/// what f16 weights and bringing them there take.
const EXPANDED_ROWS: u32 = 256;

fn rule(machine: Machine, shape: &HalfShape) -> HalfChoice {
    let tiles = half_tiles(machine);
    let (large, small) = (tiles[0], tiles[tiles.len() - 1]);
    let units = machine.compute_units();
    if machine == Machine::Hopper {
        // As many parts as fill the device, of which four are worth their sums; two blocks of the large
        // tile and four of the small share a unit.
        let choice = |tile: HalfTile, resident: u32| HalfChoice {
            tile,
            parts: (resident * units / blocks(shape, tile).max(1)).clamp(1, 4),
        };
        let grouped = choice(large, 2);
        let busy = 4 * grouped.parts * blocks(shape, large) >= 3 * 2 * units;
        let pays = shape.dtype == DType::F16 || shape.rows >= EXPANDED_ROWS;
        return match shape.rows > small.rows && busy && pays {
            true => grouped,
            false => choice(small, 4),
        };
    }
    let busy = 4 * blocks(shape, large) >= 3 * units;
    HalfChoice {
        tile: match shape.rows > small.rows && busy {
            true => large,
            false => small,
        },
        parts: 1,
    }
}

/// Tiles of y.
fn blocks(shape: &HalfShape, tile: HalfTile) -> u32 {
    let across: u32 = match shape.gated {
        // Half a tile's columns are the gate's.
        true => shape.n[0].div_ceil(tile.cols / 2),
        false => shape.n.iter().map(|n| n.div_ceil(tile.cols)).sum(),
    };
    across * shape.rows.div_ceil(tile.rows)
}

/// The same as chosen.
pub fn half_launch(machine: Machine, shape: HalfShape, choice: HalfChoice) -> HalfLaunch {
    let HalfTile { rows, cols } = choice.tile;
    let groups = by_groups(machine, choice.tile);
    let expands = groups && shape.dtype != DType::F16;
    // Columns of a tile in LDS, and tiles of x and of the weights there: where f16 weights are copied as
    // they are, they have as many tiles as x.
    let (depth, x_tiles) = match machine.is_nvidia() {
        true => (64, 3),
        false => (32, 2),
    };
    let copied = machine.is_nvidia() && (shape.dtype == DType::F16 || expands);
    let w_tiles = if copied { x_tiles } else { 2 };
    let operands = 2 * depth * (x_tiles * rows + w_tiles * cols);
    let waves = if groups { 8 } else { 4 };
    // Then sums take their place: all rows at once, or on AMD half of them where a wave has several
    // products, in rows that are padded.
    let sums = match machine {
        Machine::Nvidia | Machine::Hopper => 4 * rows * (cols + 8),
        Machine::Cdna => 4 * rows.min(64) * cols,
        Machine::Rdna => 4 * rows / 2 * (cols + 16),
    };
    let deep = shape.k.div_ceil(depth).max(1);
    let part_tiles = deep.div_ceil(choice.parts.clamp(1, PARTS_AT_MOST));
    let parts = deep.div_ceil(part_tiles);
    HalfLaunch {
        geometry: Geometry {
            grid: [blocks(&shape, choice.tile).max(1), parts, 1],
            block: [waves * machine.wave(), 1, 1],
            lds_bytes: operands.max(sums),
        },
        tile: choice.tile,
        parts,
        part_tiles,
        expands,
        key: key(&shape),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(n: [u32; 3], k: u32, rows: u32, gated: bool) -> HalfShape {
        HalfShape {
            dtype: DType::Q4_0,
            n,
            k,
            rows,
            gated,
        }
    }

    #[test]
    fn every_part_has_some_of_k() {
        for machine in Machine::ALL {
            for &tile in half_tiles(machine) {
                for k in [32, 64, 100, 576, 4096, 11_008] {
                    for parts in [0, 1, 2, 3, 4, 7, 16, 99] {
                        let shape = shape([70, 0, 5], k, 130, false);
                        let launch = half_launch(machine, shape, HalfChoice { tile, parts });
                        let depth = if machine.is_nvidia() { 64 } else { 32 };
                        let deep = k.div_ceil(depth);
                        let place = format!("{launch:?} of {k}");
                        assert!((launch.parts - 1) * launch.part_tiles < deep, "{place}");
                        assert!(launch.parts * launch.part_tiles >= deep, "{place}");
                        assert!(launch.parts <= parts.clamp(1, PARTS_AT_MOST), "{place}");
                        assert_eq!(launch.sums_bytes() == 0, launch.parts == 1, "{place}");
                        // What AMD has, and what two blocks of an SM may have.
                        let most = if machine.is_nvidia() { 116_000 } else { 65_536 };
                        assert!(launch.geometry.lds_bytes <= most, "{place}");
                    }
                }
            }
        }
    }

    #[test]
    fn without_a_row_large_tiles_fill_a_device_or_small_ones_are_taken() {
        let tile = |machine: Machine, n, rows, gated| {
            let mut hardware = Hardware::typical(machine);
            hardware.tuning = hardware.tuning.with_gemm(Vec::new());
            let launch = gemm_half(&hardware, shape(n, 4096, rows, gated));
            (launch.tile.to_string(), launch.tiles())
        };
        // Llama-2-7B's q, k and v, o, and gate and up.
        let (qkv, o, gate) = ([4096; 3], [4096, 0, 0], [11_008, 11_008, 0]);
        let large = |tiles| ("128x128".to_string(), tiles);
        assert_eq!(tile(Machine::Hopper, qkv, 512, false), large(384));
        assert_eq!(tile(Machine::Hopper, o, 512, false), large(128));
        assert_eq!(tile(Machine::Hopper, gate, 512, false), large(688));
        assert_eq!(tile(Machine::Hopper, gate, 512, true), large(688));
        let small = |name: &str, tiles| (name.to_string(), tiles);
        assert_eq!(tile(Machine::Hopper, o, 64, false), small("64x64", 64));
        assert_eq!(tile(Machine::Cdna, o, 512, false), small("64x128", 256));
        assert_eq!(tile(Machine::Rdna, o, 512, false), small("128x64", 256));
    }
}
