//! Matrix kernels over float weights (F32, F16, BF16) exactly as the file holds them: row-major, unaligned.
//!
//! y [R, N] = x [R, K] · Wᵀ, W [N, K], one or two [panels](super::panel) of 16 weight rows a call, activations f32.
//!
//! - One row is bound by memory: dot products of rows that lie far apart, a row of each of several panels, so that the
//!   core's prefetchers follow several streams. Few rows: of one row after the other.
//! - More rows are bound by arithmetic: each panel is transposed to f32 `[k][16]`, a block of columns at a time, so that
//!   each weight is converted once a call, and both are multiplied by a tile of registers together, sharing its loads of
//!   activations.
//!
//! `vdpbf16ps` does 32 products where an f32 multiply-add does 16, but an f16 weight is two bfloat16 and an activation of
//! 16 bits another two: three products for what counts, 10.7 of 32. It was not written. On Zen 4, where a multiply-add of
//! 16 lanes takes a cycle, 256 rows of f16 at K = 576 reach 57 GMAC/s, 15.4 a cycle.

mod gemv;
mod panels;
#[cfg(test)]
mod tests;

use super::isa::Isa;
use super::panel::{PanelFn, PanelKernel, STREAMS, Streams, StreamsFn};
use super::simd::{ElementBf16, ElementF16, ElementF32, entry};
use crate::dtype::DType;

entry! {
    fn f32_panel(w: *const u8, lanes: usize, k: usize, x: *const u8, x_stride: usize, rows: usize, tile: *mut f32, scratch: *mut u8)
        = panels::panel::<L, ElementF32>
}
entry! {
    fn f16_panel(w: *const u8, lanes: usize, k: usize, x: *const u8, x_stride: usize, rows: usize, tile: *mut f32, scratch: *mut u8)
        = panels::panel::<L, ElementF16>
}
entry! {
    fn bf16_panel(w: *const u8, lanes: usize, k: usize, x: *const u8, x_stride: usize, rows: usize, tile: *mut f32, scratch: *mut u8)
        = panels::panel::<L, ElementBf16>
}

entry! {
    fn f32_streams(w: &[*const u8], k: usize, x: *const u8, tiles: &[*mut f32])
        = gemv::streams::<L, ElementF32>
}
entry! {
    fn f16_streams(w: &[*const u8], k: usize, x: *const u8, tiles: &[*mut f32])
        = gemv::streams::<L, ElementF16>
}
entry! {
    fn bf16_streams(w: &[*const u8], k: usize, x: *const u8, tiles: &[*mut f32])
        = gemv::streams::<L, ElementBf16>
}

/// The kernel for weights of a float type over `k` columns and at most `rows_max` activation rows; `None` for other
/// types.
///
/// Rows whose distance is a multiple of 4 KiB compete for the same sets of the first-level cache: at K = 4096 and 128 rows,
/// 64 bytes of padding between rows raise 46 GMAC/s to 61.
///
/// Activation rows are `k` f32, `x_stride` bytes apart (a multiple of 4). The panels of a call are `lanes` file rows,
/// contiguous. Lanes past `lanes` receive 0 or a copy of another lane's sum. The sums of one row depend on
/// `rows` only in whether there are few of them.
pub fn float_kernel(isa: Isa, dtype: DType, k: usize, rows_max: usize) -> Option<PanelKernel> {
    let (func, streams): (PanelFn, StreamsFn) = match dtype {
        DType::F32 => (f32_panel(isa), f32_streams(isa)),
        DType::F16 => (f16_panel(isa), f16_streams(isa)),
        DType::BF16 => (bf16_panel(isa), bf16_streams(isa)),
        _ => return None,
    };
    Some(PanelKernel {
        func,
        streams: matches!(isa, Isa::Avx2 | Isa::Avx512).then_some(Streams {
            func: streams,
            most: STREAMS,
        }),
        panels: panels::PANELS,
        scratch_bytes: if rows_max > gemv::FEW {
            panels::scratch_bytes(k)
        } else {
            0
        },
        name: isa.name(),
    })
}
