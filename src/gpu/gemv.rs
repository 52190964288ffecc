//! How the `gemv` kernels are launched: lanes a row, threads a block, blocks, and bytes that L2 is
//! asked for ahead.
//!
//! The kernels' own limits (`kernels/gemv.hip`), which every choice here respects, whatever the tuning
//! table says:
//!
//! - A block is `[lanes, groups]` threads, whole waves and at most [`THREADS`]; `lanes` is a power of
//!   two from 8 to the wave. A group computes two rows at a time, of gate and up one each.
//! - There is something for every block: no more blocks than pairs of rows, or runs of [`RUN`] rows
//!   where those are rounded to integers together.
//! - Activations lie in LDS, [`STAGED_BYTES`] at a time; a row that is normalised has to fit.

use super::geometry::{Geometry, Machine};
use super::hardware::Hardware;
use super::pack::row_layout;
use super::tuning::{Class, Kind};
use crate::dtype::DType;

/// Threads of a block at most.
pub const THREADS: u32 = 256;
/// Rows of a gated product that one block of activations holds.
pub const RUN: u32 = 32;
/// Bytes of activations in LDS at a time.
pub const STAGED_BYTES: u32 = 40_960;
/// Bytes of a block of 32 quantised activations.
const BLOCK_BYTES: u32 = 80;
/// Threads of a compute unit that are work enough for it.
const ENOUGH_THREADS: u32 = 1024;

/// Up to three matrices of one type and width over one row.
#[derive(Clone, Copy, Debug)]
pub struct GemvShape {
    pub dtype: DType,
    /// Rows of each; 0 for those that are not there.
    pub n: [u32; 3],
    pub k: u32,
    /// Whether the row is normalised on the way.
    pub normed: bool,
}

/// Gate and up, `[n, k]` each.
#[derive(Clone, Copy, Debug)]
pub struct GatedShape {
    pub dtype: DType,
    pub n: u32,
    pub k: u32,
    /// Whether the row is normalised on the way.
    pub normed: bool,
    /// Whether the results are rounded to integers.
    pub quantizes: bool,
}

/// A launch of a `gemv` kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GemvLaunch {
    pub geometry: Geometry,
    /// Pairs of rows, or runs of 32 rows, that the blocks share.
    pub shared: u32,
    /// Bytes from one row to the next.
    pub row_bytes: u32,
    /// Bytes of each of a group's rows that L2 is asked for ahead of the loads.
    pub hinted_bytes: u32,
    /// What the tuning table was asked for.
    pub key: (Kind, DType, Class),
}

impl GemvLaunch {
    /// The kernel's last arguments: how many of what is shared each block has, how many blocks have one
    /// more, and what L2 is asked for: whole pairs of rows ahead, or bytes of the first pair's rows.
    /// Divisions of runtime numbers are long on a GPU, and nothing could be loaded before them.
    pub fn shares(&self) -> [u32; 4] {
        let blocks = self.geometry.grid[0];
        let pairs = self.hinted_bytes / self.row_bytes;
        // Requests are of whole 16 bytes.
        let bytes = if pairs == 0 {
            self.hinted_bytes & !15
        } else {
            0
        };
        [self.shared / blocks, self.shared % blocks, pairs, bytes]
    }
}

/// `gemv_<type>`.
pub fn gemv(hardware: &Hardware, shape: GemvShape) -> GemvLaunch {
    let GemvShape {
        dtype,
        n,
        k,
        normed,
    } = shape;
    let kind = if normed { Kind::Normed } else { Kind::Plain };
    let pairs: u32 = n.iter().map(|n| n.div_ceil(2)).sum();
    let products = Products {
        kind,
        dtype,
        pairs,
        k,
        normed,
        shared: pairs,
    };
    launch(hardware, products, |groups, most| {
        pairs.div_ceil(groups).min(most).max(1)
    })
}

/// `gated_gemv_<type>`: a run a block where results are rounded, so that the device's scheduler evens
/// out what is left over.
pub fn gated_gemv(hardware: &Hardware, shape: GatedShape) -> GemvLaunch {
    let GatedShape {
        dtype,
        n,
        k,
        normed,
        quantizes,
    } = shape;
    let shared = if quantizes { n.div_ceil(RUN) } else { n };
    let products = Products {
        kind: Kind::Gated,
        dtype,
        pairs: n,
        k,
        normed,
        shared,
    };
    launch(hardware, products, |groups, most| {
        match quantizes {
            true => shared,
            false => n.div_ceil(groups).min(most),
        }
        .max(1)
    })
}

/// What a launch computes: `pairs` pairs of rows, dealt to blocks as `shared` things.
struct Products {
    kind: Kind,
    dtype: DType,
    pairs: u32,
    k: u32,
    normed: bool,
    shared: u32,
}

/// A launch; `blocks(groups, most)` says how many blocks.
fn launch(hardware: &Hardware, products: Products, blocks: impl Fn(u32, u32) -> u32) -> GemvLaunch {
    let Products {
        kind,
        dtype,
        pairs,
        k,
        normed,
        shared,
    } = products;
    let row_bytes = row_layout(dtype, k as usize).stride as u64;
    let class = Class::of_bytes(2 * u64::from(pairs) * row_bytes);
    let choice = hardware.tuning.choice(kind, dtype, class);
    let (unit_len, unit_bytes) = match dtype {
        DType::F32 => (4, 16),
        DType::F16 | DType::BF16 => (8, 32),
        _ => (32, BLOCK_BYTES),
    };
    let units = k.div_ceil(unit_len);
    let enough = hardware.compute_units.saturating_mul(ENOUGH_THREADS);
    let lanes = match choice.lanes {
        0 => lanes_per_row(units, pairs, hardware.machine.wave(), enough),
        lanes => lanes.min(hardware.machine.wave()),
    };
    let groups = choice.threads / lanes;
    let most = hardware.compute_units.saturating_mul(choice.blocks);
    let blocks = blocks(groups, most);
    // Every group has as much of what L2 is to hold; it asks for two rows.
    let share = u64::from(choice.hint_kib) * 1024 / (2 * u64::from(blocks * groups));
    let turns = u64::from(pairs.div_ceil(blocks).div_ceil(groups));
    // NVIDIA's kernels copy a row that they normalise, and the norm's weights, to LDS first.
    let copies = match (normed, hardware.machine) {
        (true, Machine::Nvidia) => 2 * 16 * k.div_ceil(4),
        _ => 0,
    };
    GemvLaunch {
        geometry: Geometry {
            grid: [blocks, 1, 1],
            block: [lanes, groups, 1],
            lds_bytes: units.saturating_mul(unit_bytes).min(STAGED_BYTES) + copies,
        },
        shared,
        row_bytes: row_bytes as u32,
        hinted_bytes: share.min(turns * row_bytes) as u32,
        key: (kind, dtype, class),
    }
}

/// Lanes to a row of `units` units. When the launch cannot fill the device anyway, as many as shorten
/// a lane's work; otherwise the most that leave at most a quarter of the loads empty.
fn lanes_per_row(units: u32, pairs: u32, wave: u32, enough: u32) -> u32 {
    let choices = || [64, 32, 16, 8].into_iter().filter(|&lanes| lanes <= wave);
    let longest = units.next_power_of_two().clamp(8, wave);
    if pairs.saturating_mul(longest) <= enough {
        return longest;
    }
    let waste = |lanes: u32| f64::from(units.next_multiple_of(lanes)) / f64::from(units);
    choices()
        .find(|&lanes| waste(lanes) <= 4.0 / 3.0)
        .unwrap_or(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_has_work_and_is_whole_waves() {
        for wave in [32, 64] {
            let hardware = Hardware::typical(wave);
            for &dtype in DType::RUNNABLE {
                for k in [32, 64, 256, 576, 1536, 4096, 11_008, 28_672] {
                    for n in [1, 3, 64, 576, 1537, 4096, 32_000, 128_256] {
                        let plain = GemvShape {
                            dtype,
                            n: [n, n / 2, 0],
                            k,
                            normed: k <= 8192,
                        };
                        let pairs = n.div_ceil(2) + (n / 2).div_ceil(2);
                        let gated = |quantizes| GatedShape {
                            dtype,
                            n,
                            k,
                            normed: k <= 8192,
                            quantizes,
                        };
                        for (things, launch) in [
                            (pairs, gemv(&hardware, plain)),
                            (n, gated_gemv(&hardware, gated(false))),
                            (n.div_ceil(RUN), gated_gemv(&hardware, gated(true))),
                        ] {
                            let place = format!("{dtype} {n} {k} {wave}: {launch:?}");
                            let [lanes, groups, _] = launch.geometry.block;
                            let blocks = launch.geometry.grid[0];
                            assert!((1..=things).contains(&blocks), "{place}");
                            assert!(lanes.is_power_of_two(), "{place}");
                            assert!((8..=wave).contains(&lanes), "{place}");
                            assert!((lanes * groups).is_multiple_of(wave), "{place}");
                            assert!(lanes * groups <= THREADS, "{place}");
                            let copies = if k <= 8192 && wave == 32 { 8 * k } else { 0 };
                            assert!(
                                launch.geometry.lds_bytes <= STAGED_BYTES + copies,
                                "{place}"
                            );
                            let [each, more, pairs, bytes] = launch.shares();
                            assert_eq!(each * blocks + more, things, "{place}");
                            assert!(pairs == 0 || bytes == 0, "{place}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn shapes_we_know() {
        let hardware = Hardware::typical(32);
        let shape = |dtype, n, k| GemvShape {
            dtype,
            n: [n, 0, 0],
            k,
            normed: false,
        };
        // Llama-2-7B's output projection of attention: a warp a row pair, all blocks at once.
        let g = gemv(&hardware, shape(DType::Q4_0, 4096, 4096)).geometry;
        assert_eq!((g.grid[0], g.block, g.lds_bytes), (256, [32, 8, 1], 10_240));
        // SmolLM2's head: 18 blocks a row leave a warp mostly idle, groups of 8 lanes not.
        let g = gemv(&hardware, shape(DType::Q8_0, 49_152, 576)).geometry;
        assert_eq!((g.grid[0], g.block), (264, [8, 32, 1]));
        // One of its small matrices: too few rows to fill a device, so lanes shorten the work.
        let g = gemv(&hardware, shape(DType::Q4_1, 576, 576)).geometry;
        assert_eq!((g.grid[0], g.block), (36, [32, 8, 1]));
        // Llama-2-7B's gate and up: a run of 32 rows a block.
        let gated = GatedShape {
            dtype: DType::Q4_K,
            n: 11_008,
            k: 4096,
            normed: true,
            quantizes: true,
        };
        assert_eq!(gated_gemv(&hardware, gated).geometry.grid[0], 344);
    }
}
