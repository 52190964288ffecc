//! Every launch of every shape within the kernels' limits, on every machine.

use super::*;
use crate::gpu::geometry::Machine;
use crate::gpu::tuning::Tuning;

/// A device on which blocks have so much LDS for their weights.
fn tuned(machine: impl Into<Machine>, lds_kib: u32) -> Hardware {
    let choice = Choice {
        lanes: 0,
        threads: 256,
        blocks: 2,
        hint_kib: 0,
        lds_kib,
    };
    Hardware {
        tuning: Tuning::uniform(choice),
        ..Hardware::typical(machine)
    }
}

/// What an SM of sm_90 gives a block, less what the kernels declare.
const MOST_LDS: u32 = 225 << 10;

#[test]
fn rings_fit_and_every_block_has_a_task() {
    let mut streaming = 0;
    for lds_kib in [64, 110, 224] {
        let hardware = tuned(Machine::Hopper, lds_kib);
        for &dtype in DType::RUNNABLE {
            for k in [256, 576, 4096, 11_008, 28_672] {
                for n in [1, 33, 4096, 128_256] {
                    let plain = GemvShape {
                        dtype,
                        n: [n, n / 2, 0],
                        k,
                        normed: false,
                    };
                    let gated = GatedShape {
                        dtype,
                        n,
                        k,
                        normed: false,
                        quantizes: true,
                    };
                    for launch in [gemv(&hardware, plain), gated_gemv(&hardware, gated)] {
                        let place = format!("{dtype} {n} {k} {lds_kib}: {launch:?}");
                        let Some(ring) = launch.ring else { continue };
                        streaming += 1;
                        let blocks = launch.geometry.grid[0];
                        let [each, more, groups, slots] = launch.deal_args();
                        assert_eq!(each * blocks + more, launch.items, "{place}");
                        assert!(each >= 1, "{place}");
                        assert!(slots >= 2 || each + u32::from(more > 0) == 1, "{place}");
                        assert!(slots <= SLOTS, "{place}");
                        assert!(groups.is_power_of_two() && groups <= 8, "{place}");
                        // A gated run of 32 is whole tasks, and a wave has a lane a row.
                        assert!(ring.rows <= 32 && ring.rows >= 2, "{place}");
                        assert!(launch.geometry.lds_bytes <= lds_kib << 10, "{place}");
                        assert!(launch.geometry.lds_bytes <= MOST_LDS, "{place}");
                    }
                }
            }
        }
    }
    assert!(streaming > 100, "{streaming}");
}

#[test]
fn small_gates_round_whole_runs() {
    let hardware = tuned(Machine::Hopper, 64);
    for n in [1536, 1537, 1520] {
        let launch = gated_gemv(
            &hardware,
            GatedShape {
                dtype: DType::Q4_1,
                n,
                k: 576,
                normed: true,
                quantizes: true,
            },
        );
        let ring = launch.ring.expect("rows of 576 come through LDS");
        let [each, more, ..] = launch.deal_args();
        let per_run = RUN / (ring.rows / 2);
        // All blocks but the last have a run of their own.
        assert_eq!(each + u32::from(more > 0), per_run, "{launch:?}");
        assert!(
            more == 0 || more == launch.geometry.grid[0] - 1,
            "{launch:?}"
        );
    }
}

#[test]
fn every_block_has_work_and_is_whole_waves() {
    for wave in [32, 64] {
        let hardware = tuned(wave, 0);
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
                        let [each, more, pairs, bytes] = launch.deal_args();
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
    let hardware = tuned(32, 0);
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
    // The same where weights come through LDS: two rows a wave, so that there are 36 blocks and not 18.
    let streaming = tuned(Machine::Hopper, 64);
    let launch = gemv(&streaming, shape(DType::Q4_1, 576, 576));
    assert_eq!(launch.kernel(), "gemv_stream_few_q4_1");
    assert_eq!(launch.geometry.grid[0], 36);
    let launch = gemv(&streaming, shape(DType::Q4_1, 49_152, 576));
    assert_eq!(launch.kernel(), "gemv_stream_q4_1");
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
