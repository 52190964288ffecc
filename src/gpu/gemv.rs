//! How the `gemv` kernels are launched: lanes a row, threads a block, blocks, and bytes that L2 is
//! asked for ahead; or, where weights come through LDS, the ring that they come through.
//!
//! The kernels' own limits (`kernels/gemv.hip`), which every choice here respects, whatever the tuning
//! table says:
//!
//! - A block is `[lanes, groups]` threads, whole waves and at most [`THREADS`]; `lanes` is a power of
//!   two from 8 to the wave. A group computes two rows at a time, of gate and up one each.
//! - There is something for every block: no more blocks than pairs of rows, or runs of [`RUN`] rows
//!   where those are rounded to integers together.
//! - Activations lie in LDS, [`STAGED_BYTES`] at a time; a row that is normalised has to fit.
//!
//! And of `kernels/gemv_stream.hip`: ten waves, of which [`STREAM_WAVES`] compute; all activations lie
//! in LDS; at most [`SLOTS`] slots, and two at least unless a block has one task alone.

#[cfg(test)]
mod tests;

use super::geometry::Geometry;
use super::hardware::Hardware;
use super::launch::RoomNeeds;
use super::pack::row_layout;
use super::tuning::{Choice, Class, Kind};
use crate::dtype::DType;

/// Threads of a block at most.
pub const THREADS: u32 = 256;
/// Rows of a gated product that one block of activations holds.
pub const RUN: u32 = 32;
/// Bytes of activations in LDS at a time.
pub const STAGED_BYTES: u32 = 40_960;
/// Lanes of a wave, and waves that compute, where weights come through LDS; and slots at most.
const WARP: u32 = 32;
const STREAM_WAVES: u32 = 8;
const SLOTS: u32 = 8;
/// Bytes of a block of 32 quantised activations.
const BLOCK_BYTES: u32 = 80;
/// Rows that a wave takes at a time of the `gemv_stream_few` kernels.
const FEW_ROWS: u32 = 2;
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
    /// Pairs of rows, or runs of 32 rows, that are dealt to the blocks.
    pub items: u32,
    /// Bytes from one row to the next.
    pub row_bytes: u32,
    /// Bytes of each of a group's rows that L2 is asked for ahead of the loads.
    pub hinted_bytes: u32,
    /// How weights come through LDS, if they do.
    pub ring: Option<Ring>,
    /// What the tuning table was asked for.
    pub key: (Kind, DType, Class),
}

impl GemvLaunch {
    /// The kernel that is launched: `gemv` or `gated_gemv`, and the type.
    pub fn kernel(&self) -> String {
        let (kind, dtype, _) = self.key;
        let product = match kind {
            Kind::Gated => "gated_gemv",
            Kind::Plain | Kind::Normed => "gemv",
        };
        let way = match self.ring {
            Some(ring) if ring.rows < ring.groups * streamed_rows(dtype) => "_stream_few",
            Some(_) => "_stream",
            None => "",
        };
        format!("{product}{way}_{}", dtype.name().to_ascii_lowercase())
    }

    /// The kernel's last arguments: how many items each block has, how many blocks have one
    /// more, and what L2 is asked for: whole pairs of rows ahead, or bytes of the first pair's rows.
    /// Where weights come through LDS, the last two are groups and slots. Divisions of runtime numbers
    /// are long on a GPU, and nothing could be loaded before them.
    pub fn deal_args(&self) -> [u32; 4] {
        let blocks = self.geometry.grid[0];
        let (each, more) = (self.items / blocks, self.items % blocks);
        if let Some(ring) = self.ring {
            return [each, more, ring.groups, ring.slots];
        }
        let pairs = self.hinted_bytes / self.row_bytes;
        // Requests are of whole 16 bytes.
        let bytes = if pairs == 0 {
            self.hinted_bytes & !15
        } else {
            0
        };
        [each, more, pairs, bytes]
    }

    /// The room in which blocks share runs of rows, in a gated launch of `n` rows that rounds its results.
    pub fn run_room(&self, n: u32) -> RoomNeeds {
        match self.ring {
            Some(_) => RoomNeeds {
                tickets: n.div_ceil(RUN) as usize,
                sums_bytes: 4 * n as usize,
                expanded_bytes: 0,
            },
            None => RoomNeeds::default(),
        }
    }
}

/// `gemv_<type>`, or `gemv_stream_<type>`.
pub fn gemv(hardware: &Hardware, shape: GemvShape) -> GemvLaunch {
    let GemvShape {
        dtype,
        n,
        k,
        normed,
    } = shape;
    let products = Products {
        kind: if normed { Kind::Normed } else { Kind::Plain },
        dtype,
        pairs: n.iter().map(|n| n.div_ceil(2)).sum(),
        k,
        normed,
    };
    let pairs = products.pairs;
    products.launch(hardware, |way, most| match way {
        Way::Registers { groups } => (pairs, pairs.div_ceil(groups).min(most)),
        Way::Lds { rows } => {
            let tasks: u32 = n.iter().map(|n| n.div_ceil(rows)).sum();
            (tasks, tasks.min(most))
        }
    })
}

/// `gated_gemv_<type>`, or `gated_gemv_stream_<type>`.
pub fn gated_gemv(hardware: &Hardware, shape: GatedShape) -> GemvLaunch {
    let GatedShape {
        dtype,
        n,
        k,
        normed,
        quantizes,
    } = shape;
    let products = Products {
        kind: Kind::Gated,
        dtype,
        pairs: n,
        k,
        normed,
    };
    let runs = n.div_ceil(RUN);
    products.launch(hardware, |way, most| match way {
        // The device's scheduler evens out what is left over.
        Way::Registers { .. } if quantizes => (runs, runs),
        Way::Registers { groups } => (n, n.div_ceil(groups).min(most)),
        Way::Lds { rows } => {
            let tasks = n.div_ceil(rows / 2);
            // Blocks that share a run wait for one another at its end, which takes longer than a second task.
            let alone = quantizes && tasks <= most && tasks <= 2 * runs;
            (tasks, if alone { runs } else { tasks.min(most) })
        }
    })
}

/// Where the weights of a launch come to.
enum Way {
    /// A block has so many groups of lanes, each with a pair of rows at a time.
    Registers { groups: u32 },
    /// A block has so many rows at a time.
    Lds { rows: u32 },
}

/// What a launch computes: `pairs` pairs of rows.
struct Products {
    kind: Kind,
    dtype: DType,
    pairs: u32,
    k: u32,
    normed: bool,
}

impl Products {
    /// A launch; `deal` says how many things blocks share and how many blocks there are, for as many as
    /// can be resident at most.
    fn launch(&self, hardware: &Hardware, deal: impl Fn(Way, u32) -> (u32, u32)) -> GemvLaunch {
        let &Products {
            kind,
            dtype,
            pairs,
            k,
            normed,
        } = self;
        let row_bytes = row_layout(dtype, k as usize).stride as u32;
        let class = Class::of_bytes(2 * u64::from(pairs) * u64::from(row_bytes));
        let choice = hardware.tuning.choice(kind, dtype, class);
        let most = hardware.compute_units.saturating_mul(choice.blocks);
        // Where tasks are few, smaller ones are more, for compute units that were idle. Those of a gate share runs.
        let few = match kind {
            Kind::Gated => 0,
            Kind::Plain | Kind::Normed => hardware.compute_units,
        };
        let are_few = |rows| (2 * pairs).div_ceil(rows) <= few;
        if let Some(mut ring) = Ring::new(dtype, k, row_bytes, choice, are_few) {
            let (items, blocks) = deal(Way::Lds { rows: ring.rows }, most);
            let blocks = blocks.max(1);
            // LDS that a launch has no use for is room for the next one's.
            ring.slots = ring.slots.min(items.div_ceil(blocks)).max(1);
            let slot_bytes = ring.rows * row_bytes;
            return GemvLaunch {
                geometry: Geometry {
                    grid: [blocks, 1, 1],
                    block: [WARP, STREAM_WAVES + 2, 1],
                    lds_bytes: ring_offset(activations(dtype, k).1) + ring.slots * slot_bytes,
                },
                items,
                row_bytes,
                hinted_bytes: 0,
                ring: Some(ring),
                key: (kind, dtype, class),
            };
        }
        let (units, staged) = activations(dtype, k);
        let enough = hardware.compute_units.saturating_mul(ENOUGH_THREADS);
        let lanes = match choice.lanes {
            0 => lanes_per_row(units, pairs, hardware.machine.wave(), enough),
            lanes => lanes.min(hardware.machine.wave()),
        };
        let groups = choice.threads / lanes;
        let (items, blocks) = deal(Way::Registers { groups }, most);
        let blocks = blocks.max(1);
        // Every group has as much of what L2 is to hold; it asks for two rows.
        let share = u64::from(choice.hint_kib) * 1024 / (2 * u64::from(blocks * groups));
        let turns = u64::from(pairs.div_ceil(blocks).div_ceil(groups));
        // NVIDIA's kernels copy a row that they normalise, and the norm's weights, to LDS first.
        let copies = match normed && hardware.machine.is_nvidia() {
            true => 2 * 16 * k.div_ceil(4),
            false => 0,
        };
        GemvLaunch {
            geometry: Geometry {
                grid: [blocks, 1, 1],
                block: [lanes, groups, 1],
                lds_bytes: staged.min(STAGED_BYTES) + copies,
            },
            items,
            row_bytes,
            hinted_bytes: share.min(turns * u64::from(row_bytes)) as u32,
            ring: None,
            key: (kind, dtype, class),
        }
    }
}

/// Units of a row, and bytes of activations for them.
fn activations(dtype: DType, k: u32) -> (u32, u32) {
    let (len, bytes) = match dtype {
        DType::F32 => (4, 16),
        DType::F16 | DType::BF16 => (8, 32),
        _ => (32, BLOCK_BYTES),
    };
    let units = k.div_ceil(len);
    (units, units.saturating_mul(bytes))
}

/// Where the ring begins behind so many bytes of activations: copies to other addresses are slow.
fn ring_offset(staged: u32) -> u32 {
    staged.next_multiple_of(128)
}

/// How the weights of a block come through LDS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Groups of waves, each with rows of its own.
    pub groups: u32,
    /// Rows of a slot.
    pub rows: u32,
    pub slots: u32,
}

impl Ring {
    /// As many slots as the tuning table leaves room for beside the activations; none where fewer than
    /// two would fit. Waves take two rows at a time, not four, where tasks of so many rows `are_few`.
    fn new(
        dtype: DType,
        k: u32,
        row_bytes: u32,
        choice: Choice,
        are_few: impl Fn(u32) -> bool,
    ) -> Option<Ring> {
        let (units, staged) = activations(dtype, k);
        let waves = units.div_ceil(WARP).next_power_of_two().min(STREAM_WAVES);
        let groups = STREAM_WAVES / waves;
        let mut rows = groups * streamed_rows(dtype);
        if rows == 4 * groups && are_few(rows) {
            rows = FEW_ROWS * groups;
        }
        let room = (choice.lds_kib * 1024).checked_sub(ring_offset(staged))?;
        let slots = (room / rows.checked_mul(row_bytes)?).min(SLOTS);
        (slots >= 2).then_some(Ring {
            groups,
            rows,
            slots,
        })
    }
}

/// Rows that a wave takes at a time: `STREAMED_ROWS` of `kernels/layout.h`.
fn streamed_rows(dtype: DType) -> u32 {
    match dtype {
        DType::Q8_0 => 2,
        _ if dtype.is_float() => 2,
        _ => 4,
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
