//! The kernels of caches that are not f16: they take the arguments of those that are.

use super::LowerError;
use crate::gpu::geometry::{self, Geometry};
use crate::gpu::launch::KernelLaunch;
use crate::gpu::overlap;
use crate::graph::{KvType, Op};
use crate::program::{Launch, Program};

/// Replaces the kernels that a launch was lowered to by those of its caches' type; an error where there is none.
pub(super) fn of_its_caches(
    program: &Program,
    launch: &Launch,
    kernels: &mut [KernelLaunch],
) -> Result<(), LowerError> {
    let kv_type = launch
        .states
        .first()
        .map(|s| program.states[s.index()].kv_type);
    let Some(kv_type) = kv_type.filter(|&t| t != KvType::F16) else {
        return Ok(());
    };
    for kernel in kernels {
        let geometry = match (kv_type, kernel.kernel.as_str(), launch.op) {
            (KvType::Q8_0, "attention_split" | "attention_rows", _) => None,
            (
                KvType::Q8_0,
                "kv_append",
                Op::KvAppend {
                    kv_heads,
                    head_size,
                },
            ) => {
                let rows = launch.inputs[0].rows;
                Some(geometry::append_q8(2 * kv_heads, head_size, rows))
            }
            (KvType::Q8_0, "rope_append", Op::RopeAppend { heads, .. }) => {
                let (all, rows) = (heads.query + 2 * heads.kv, launch.inputs[0].rows);
                Some(geometry::append_q8(all, heads.size, rows))
            }
            _ => {
                return Err(LowerError::KvType {
                    section: launch.section,
                    op: launch.op.name(),
                    kernel: kernel.kernel.clone(),
                    kv_type,
                });
            }
        };
        kernel.kernel += "_q8";
        kernel.overlaps = overlap::waits(&kernel.kernel);
        if let Some(Geometry {
            grid,
            block,
            lds_bytes,
        }) = geometry
        {
            (kernel.grid, kernel.block, kernel.lds_bytes) = (grid, block, lds_bytes);
        }
    }
    Ok(())
}
