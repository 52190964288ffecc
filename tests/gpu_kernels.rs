//! Each GPU kernel by itself, at ragged sizes and for every type, against its formula in f64 or its CPU twin's bits.
//!
//! Every buffer ends where its value ends and outputs begin as NaN, so that on a strict device (the emulated one) a read
//! or write past an end is a fault, and here a value that was not written is a wrong one. Without a device the tests say
//! so and pass. Arguments name the tests to run. No harness: drivers tie state to the thread that first came.

mod gpu_kernels {
    pub mod attention;
    pub mod bench;
    pub mod matrices;
    pub mod rows;
}
mod support;

use gpu_kernels::bench::Bench;
use gpu_kernels::{attention, matrices, rows};
use greta_infer::gpu::select;
use greta_infer::hip::Search;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

type Test = fn(&Bench);

const TESTS: &[(&str, Test)] = &[
    ("gemv", matrices::gemv),
    ("gemv_in_every_shape_of_group", matrices::every_group),
    ("gemv_of_rows_longer_than_the_lds", matrices::long_rows),
    ("gemv3", matrices::gemv3),
    ("gated_gemv", matrices::gated),
    ("gemm", matrices::gemm),
    ("quantize_gives_the_cpus_bits", rows::quantize),
    ("norms", rows::norms),
    ("element_by_element", rows::elementwise),
    ("rope", rows::rope),
    ("argmax", rows::argmax),
    ("step_and_stream", rows::step_and_stream),
    ("attention_of_one_row", attention::split),
    ("attention_of_many_rows", attention::rows),
];

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let homes = ["ROCM_PATH", "HIP_PATH"]
        .into_iter()
        .filter_map(std::env::var_os);
    let homes = homes
        .map(std::path::PathBuf::from)
        .chain(["/opt/rocm".into()]);
    let search = Search {
        directories: homes.map(|home| home.join("lib")).collect(),
    };
    let bench =
        match select(&search, None).and_then(|f| f.code_object().map(|code| (f.clone(), code))) {
            Ok((found, code)) => Bench::new(&found, code),
            Err(error) => {
                println!("SKIPPED: every test of GPU kernels, because {error}");
                return ExitCode::SUCCESS;
            }
        };
    let mut failed = Vec::new();
    for (name, test) in TESTS {
        if !wanted.is_empty() && !wanted.iter().any(|w| name.contains(w.as_str())) {
            continue;
        }
        let start = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| test(&bench)));
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
