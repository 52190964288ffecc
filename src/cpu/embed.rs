//! The embedding of a token: one row of a tensor in the file's own layout.

use crate::dtype::DType;

/// Decodes row `token` of `table [V, E]`, `E = y.len()`, times `scale`.
///
/// A token costs one row of one matrix, so this is the plain decoder, and the tensor needs no second layout even
/// where the output head, tied to it, has been packed.
///
/// # Panics
/// When rows of `dtype` cannot have `E` elements or the table does not hold the row: both are checked when the model
/// is built, the token when it is accepted.
pub fn embed(dtype: DType, table: &[u8], token: usize, scale: f32, y: &mut [f32]) {
    let row_bytes = dtype
        .row_bytes(y.len())
        .expect("an embedding's width is whole blocks");
    let row = &table[token * row_bytes..][..row_bytes];
    dtype.decode(row, y);
    if scale != 1.0 {
        for y in y {
            *y *= scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_one_row_and_scales_it() {
        let table: Vec<u8> = (0..12u16)
            .flat_map(|i| half::bf16::from_f32(f32::from(i)).to_le_bytes())
            .collect();
        let mut y = [0.0; 4];
        embed(DType::BF16, &table, 2, 1.0, &mut y);
        assert_eq!(y, [8.0, 9.0, 10.0, 11.0]);
        embed(DType::BF16, &table, 1, 0.5, &mut y);
        assert_eq!(y, [2.0, 2.5, 3.0, 3.5]);
    }
}
