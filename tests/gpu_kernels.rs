//! Each GPU kernel by itself, at ragged sizes and for every type, against its formula in f64 or its CPU twin's bits.
//!
//! Every buffer ends where its value ends and outputs begin as NaN, so that on a strict device (the emulated one) a read
//! or write past an end is a fault, and here a value that was not written is a wrong one.

mod gpu_kernels {
    pub mod attention;
    pub mod bench;
    pub mod cache_q8;
    pub mod half;
    pub mod matrices;
    pub mod repack;
    pub mod rows;
    pub mod sample;
}
#[path = "gpu/runner.rs"]
mod runner;
mod support;

use gpu_kernels::bench::Bench;
use gpu_kernels::{attention, cache_q8, half, matrices, repack, rows, sample};
use std::process::ExitCode;

const TESTS: &[runner::Test<Bench>] = &[
    ("repack_gives_the_hosts_bits", repack::rows),
    ("gemv", matrices::gemv),
    ("gemv_in_every_shape_of_group", matrices::every_group),
    ("gemv_of_rows_longer_than_the_lds", matrices::long_rows),
    ("gemv_through_lds", matrices::streamed),
    ("gemv3", matrices::gemv3),
    ("gemv_after_a_norm", matrices::normed),
    ("gated_gemv", matrices::gated),
    ("gemm", matrices::gemm),
    ("half_gemm", half::gemm),
    ("half_rows_are_the_cpus", half::rows),
    ("half_attention", half::attention),
    ("quantize_gives_the_cpus_bits", rows::quantize),
    ("norms", rows::norms),
    ("element_by_element", rows::elementwise),
    ("rope", rows::rope),
    ("sample_as_the_twin", sample::twin),
    ("sample_of_great_vocabularies", sample::great),
    ("sample_of_what_is_no_distribution", sample::bad),
    ("sample_leads_to_the_next_step", sample::next),
    ("step_and_stream", rows::step_and_stream),
    ("attention_of_one_row", attention::split),
    ("attention_of_a_whole_step", attention::step),
    ("attention_of_many_rows", attention::rows),
    ("q8_0_append_gives_the_cpus_bits", cache_q8::append),
    ("q8_0_attention_of_one_row", cache_q8::split),
    ("q8_0_attention_of_many_rows", cache_q8::rows),
];

fn main() -> ExitCode {
    runner::run("GPU kernels", TESTS, |found| {
        let code = found.code_object().expect("checked by the runner");
        Bench::new(&found, code)
    })
}
