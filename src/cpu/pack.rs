//! Quantised weights as the kernels want them: rows regrouped into panels of 16, a panel at a time.
//!
//! Packing moves bits and changes no value. It is a pure function of a panel's rows, so that threads may share the panels
//! of a tensor, write them anywhere, and release the file's pages behind them.

use super::gemm_q::format::Format;
use super::gemm_q::with_format;
use super::panel::LANES;
use crate::dtype::DType;

/// Bytes of a packed panel of 16 rows of `k` columns, a multiple of 64.
///
/// For the 32-wide types these are the file's bytes of 16 rows (rounded up to 64).
///
/// # Panics
/// If the type is not packed (floats) or `k` is no multiple of its block.
pub fn packed_panel_bytes(dtype: DType, k: usize) -> usize {
    fn of<F: Format>(k: usize) -> usize {
        assert!(
            k.is_multiple_of(F::COLS),
            "{k} columns in blocks of {}",
            F::COLS
        );
        F::panel_stride(k)
    }
    with_format!(dtype, F => of::<F>(k)).unwrap_or_else(|| panic!("{dtype} is not packed"))
}

/// Packs `lanes` rows of `k` columns, contiguous in `rows` as the file has them, as one panel.
///
/// Missing lanes become zeros.
///
/// # Panics
/// If the type is not packed, or `lanes`, `k` and the two lengths disagree.
pub fn pack_panel(dtype: DType, rows: &[u8], lanes: usize, k: usize, out: &mut [u8]) {
    assert!((1..=LANES).contains(&lanes), "a panel of {lanes} rows");
    assert_eq!(
        out.len(),
        packed_panel_bytes(dtype, k),
        "the packed panel's length"
    );
    let packed = with_format!(dtype, F => pack_rows::<F>(rows, lanes, k, out));
    assert!(packed.is_some());
}

fn pack_rows<F: Format>(rows: &[u8], lanes: usize, k: usize, out: &mut [u8]) {
    let blocks = k / F::COLS;
    let row_bytes = blocks * F::FILE_BYTES;
    assert_eq!(rows.len(), lanes * row_bytes, "the file rows' length");
    if lanes < LANES {
        out.fill(0);
    } else {
        out[blocks * F::PANEL_BYTES..].fill(0);
    }
    for (b, out) in out
        .chunks_exact_mut(F::PANEL_BYTES)
        .take(blocks)
        .enumerate()
    {
        for lane in 0..lanes {
            let file = &rows[lane * row_bytes + b * F::FILE_BYTES..][..F::FILE_BYTES];
            F::pack(lane, file, out);
        }
    }
}
