//! Stub until the kernels' own geometry arrives.

use crate::dtype::DType;
use crate::graph::Heads;

/// Grid, block and LDS.
pub struct Geometry {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub lds_bytes: u32,
}

fn of(x: u32, y: u32) -> Geometry {
    Geometry {
        grid: [x, y, 1],
        block: [256, 1, 1],
        lds_bytes: 0,
    }
}

pub fn step_fetch(_rows: u32) -> Geometry {
    of(1, 1)
}
pub fn rows(rows: u32, cols: u32, _wave: u32) -> Geometry {
    of(cols.div_ceil(256), rows)
}
pub fn norm(rows: u32, _cols: u32, _wave: u32) -> Geometry {
    of(rows, 1)
}
pub fn heads(rows: u32, heads: u32, _size: u32, _wave: u32) -> Geometry {
    of(heads, rows)
}
pub fn gemv(_dtype: DType, n: u32, _k: u32, _wave: u32) -> Geometry {
    of(n.div_ceil(4), 1)
}
pub fn gated_gemv(_dtype: DType, n: u32, _k: u32, _wave: u32) -> Geometry {
    of(n.div_ceil(4), 1)
}
pub fn gemm(_dtype: DType, rows: u32, n: u32, _k: u32, _wave: u32) -> Geometry {
    of(n.div_ceil(64), rows.div_ceil(64))
}
pub fn attention_rows(rows: u32, heads: Heads, _wave: u32) -> Geometry {
    of(heads.query, rows)
}
pub fn attention_split(heads: Heads, splits: u32, _wave: u32) -> Geometry {
    of(heads.kv, splits)
}
pub fn attention_combine(heads: Heads, _wave: u32) -> Geometry {
    of(heads.query, 1)
}
