//! The GPU backend on a device: every launch beside its CPU twin, sessions beside the oracle, replay
//! beside eager, poison, and memory that stays.
//!
//! One executable that needs nothing beside it: models are generated, kernels embedded.
//! `GRETA_GPU_STEPS` sets how many steps the memory test makes (1,000 unless said).

mod gpu {
    pub mod judge;
    pub mod model;
    pub mod runner;
    pub mod sessions;
    pub mod twins;
    pub mod weights;
}
mod support;

use greta_infer::gpu::Found;
use std::process::ExitCode;

const TESTS: &[gpu::runner::Test<Found>] = &[
    ("weights_arrive_as_the_host_packs_them", gpu::weights::toys),
    ("weights_arrive_in_several_turns", gpu::weights::turns),
    ("every_launch_of_a_step_agrees", gpu::twins::steps),
    ("every_launch_of_a_chunk_agrees", gpu::twins::chunks),
    (
        "products_whose_k_is_shared_agree",
        gpu::twins::shared_products,
    ),
    ("every_launch_of_a_family_agrees", gpu::twins::families),
    (
        "logits_of_families_are_those_of_transformers",
        gpu::sessions::families,
    ),
    ("what_was_captured_is_the_program", gpu::twins::captured),
    ("logits_agree_with_the_oracle", gpu::sessions::oracle),
    (
        "q8_0_cache_agrees_with_the_oracle",
        gpu::sessions::q8_0_cache,
    ),
    (
        "replay_is_eager_bit_for_bit",
        gpu::sessions::replay_is_eager,
    ),
    ("decoding_is_stepping", gpu::sessions::decoding_is_stepping),
    ("long_prompts_are_near_steps", gpu::sessions::long_prompts),
    ("memory_stays", gpu::sessions::memory_stays),
    ("bandwidth_is_measured", gpu::sessions::bandwidth),
];

fn main() -> ExitCode {
    gpu::runner::run("the GPU backend", TESTS, |found| found)
}
