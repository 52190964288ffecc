//! How rows of a tensor, as files have them, become rows as kernels read them: which kernel of
//! `kernels/repack.hip`, and how it is launched.

use super::geometry::{self, Geometry};
use super::launch::size;
use super::lower::typed;
use super::pack::{BLOCK, PLANE_ALIGN, row_layout};
use crate::dtype::DType;

/// One launch, without its addresses: those of the rows in the file's form, aligned to 16 bytes, and
/// of the rows to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repack {
    pub kernel: String,
    pub geometry: Geometry,
    /// Bytes from one row to the next in the file and on the device, what the threads of a row share,
    /// and the rows.
    pub sizes: [u32; 4],
}

/// Whether rows of `cols` elements are repacked; otherwise the file's rows are the device's.
///
/// # Panics
/// When the type does not run, or `cols` are no whole blocks of it.
pub fn is_repacked(dtype: DType, cols: usize) -> bool {
    !dtype.is_float() || file_row_bytes(dtype, cols) != row_layout(dtype, cols).stride
}

/// What repacks `rows` rows of `cols` elements.
///
/// # Panics
/// As above.
pub fn repack(dtype: DType, cols: usize, rows: usize) -> Repack {
    let (from, to) = (file_row_bytes(dtype, cols), row_layout(dtype, cols).stride);
    let (kernel, units) = match dtype.is_float() {
        true => ("repack_rows".into(), to / PLANE_ALIGN),
        false => (typed("repack", dtype), cols / BLOCK),
    };
    Repack {
        kernel,
        geometry: geometry::repack(size(units), size(rows)),
        sizes: [from, to, units, rows].map(size),
    }
}

/// Bytes of a row of `cols` elements in the file.
///
/// # Panics
/// When `cols` are no whole blocks of the type.
pub fn file_row_bytes(dtype: DType, cols: usize) -> usize {
    let bytes = dtype.row_bytes(cols);
    bytes.expect("the model checked that rows are whole blocks")
}
