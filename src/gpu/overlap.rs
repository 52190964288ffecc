//! Which kernels wait for their predecessors themselves, and so may begin before those have finished
//! (programmatic dependent launch, on NVIDIA from sm_90 on).
//!
//! The contract is at the top of `kernels/common.h`'s part on launches that overlap. A kernel that is
//! not in the list is launched as ever, after everything before it has finished; the two kinds mix.
//! `tests/kernel_overlap.rs` looks for the wait in the compiled code of every kernel that is listed.

/// Kernels by name, or for every weight type by the name up to the type.
const WAIT: &[&str] = &[
    "add",
    "add_bias",
    "attention_combine",
    "attention_combine_quantize",
    "attention_split",
    "attention_split_q8",
    "attention_step_128x1",
    "attention_step_128x4",
    "attention_step_256x1",
    "attention_step_256x2",
    "attention_step_64x1",
    "attention_step_64x3",
    "attention_step_64x4",
    "embed_",
    "expand_",
    "gated_gemv_",
    "gated_mul",
    "gemv_",
    "kv_append",
    "kv_append_q8",
    "quantize",
    "rms_norm",
    "rms_norm_quantize",
    "rope",
    "rope_append",
    "rope_append_q8",
    "rope_table",
    "sample_choose",
    "sample_scan",
    "scale",
    "step_fetch",
];

/// Whether a kernel waits for its predecessors itself.
pub fn waits(kernel: &str) -> bool {
    WAIT.iter().any(|name| match name.strip_suffix('_') {
        Some(_) => kernel.starts_with(name),
        None => kernel == *name,
    })
}
