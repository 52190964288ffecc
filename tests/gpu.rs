//! The GPU backend on a device: every launch beside its CPU twin, sessions beside the oracle, replay
//! beside eager, poison, and memory that stays.
//!
//! One executable that needs nothing beside it: models are generated, kernels embedded. Without a
//! device it says so and passes. Arguments name the tests to run (any that contain one of them).
//! `GRETA_GPU_STEPS` sets how many steps the memory test makes (1,000 unless said).
//!
//! It has no harness, so that everything happens on the main thread: drivers tie state to the thread
//! that first came.

mod gpu {
    pub mod judge;
    pub mod model;
    pub mod sessions;
    pub mod twins;
}
mod support;

use greta_infer::gpu::{Found, select};
use greta_infer::hip::Search;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

type Test = fn(&Found);

const TESTS: &[(&str, Test)] = &[
    ("every_launch_of_a_step_agrees", gpu::twins::steps),
    ("every_launch_of_a_chunk_agrees", gpu::twins::chunks),
    ("what_was_captured_is_the_program", gpu::twins::captured),
    ("logits_agree_with_the_oracle", gpu::sessions::oracle),
    (
        "replay_is_eager_bit_for_bit",
        gpu::sessions::replay_is_eager,
    ),
    ("memory_stays", gpu::sessions::memory_stays),
    ("bandwidth_is_measured", gpu::sessions::bandwidth),
];

/// Where drivers are looked for first, as the command line does.
pub fn search() -> Search {
    let homes = ["ROCM_PATH", "HIP_PATH"].into_iter();
    let homes = homes.filter_map(std::env::var_os).map(Into::into);
    let homes = homes.chain(["/opt/rocm".into()]);
    let directories = homes.map(|home: std::path::PathBuf| home.join("lib"));
    Search {
        directories: directories.collect(),
    }
}

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let found = match select(&search(), None).and_then(|f| f.code_object().map(|_| f.clone())) {
        Ok(found) => found,
        Err(error) => {
            println!("SKIPPED: every test of the GPU backend, because {error}");
            return ExitCode::SUCCESS;
        }
    };
    println!("on {}, {}", found.describe(), found.info.driver);
    let mut failed = Vec::new();
    for (name, test) in TESTS {
        if !wanted.is_empty() && !wanted.iter().any(|w| name.contains(w.as_str())) {
            continue;
        }
        let start = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| test(&found)));
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        println!(
            "test {name} ... {verdict} ({:.1} s)",
            start.elapsed().as_secs_f64()
        );
        if result.is_err() {
            failed.push(*name);
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {}", failed.join(", "));
    ExitCode::FAILURE
}
