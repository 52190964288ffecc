//! The host's side of packed weights: what it makes reads back as what the file says, by the description in
//! `greta_infer::gpu::pack` alone. The kernels that repack are compared with it bit for bit (`gpu_kernels`).

mod support;

use greta_infer::dtype::DType;
use greta_infer::gpu::pack::row_layout;
use half::f16;
use support::planes::{halves, pack_rows};

/// Bytes that repeat late, with the f16 fields set to ordinary numbers.
fn random_rows(dtype: DType, cols: usize, rows: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let bytes = rows * dtype.row_bytes(cols).expect("whole blocks");
    let mut file: Vec<u8> = (0..bytes).map(|_| (next() >> 24) as u8).collect();
    for block in file.chunks_exact_mut(dtype.block_bytes()) {
        for &at in halves(dtype) {
            let value = ((next() >> 40) as f32 / (1u64 << 24) as f32 - 0.5) / 16.0;
            block[at..at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
        }
    }
    file
}

/// Reads one packed row by the description alone: sizes of planes are worked out here again, and
/// every element is looked up by itself.
fn read_row(dtype: DType, row: &[u8], cols: usize) -> Vec<f32> {
    let blocks = cols / 32;
    let pad = |bytes: usize| bytes.div_ceil(16) * 16;
    let k_type = dtype.block_len() == 256;
    let ds = if k_type { cols / 256 * 2 } else { blocks * 2 };
    let (code_bytes, high_bytes, has_m, sub, offset) = match dtype {
        DType::Q4_0 => (16, 0, false, 0, 8),
        DType::Q4_1 => (16, 0, true, 0, 0),
        DType::Q5_0 => (16, 4, false, 0, 16),
        DType::Q5_1 => (16, 4, true, 0, 0),
        DType::Q8_0 => (32, 0, false, 0, 0),
        DType::Q2_K => (8, 0, true, 16, 0),
        DType::Q3_K => (8, 4, false, 16, 4),
        DType::Q4_K => (16, 0, true, 32, 0),
        DType::Q5_K => (16, 4, true, 32, 0),
        DType::Q6_K => (16, 8, false, 16, 32),
        _ => unreachable!(),
    };
    let high_at = pad(code_bytes * blocks);
    let d_at = high_at + pad(high_bytes * blocks);
    let m_at = d_at + pad(ds);
    let scales_at = m_at + if has_m { pad(ds) } else { 0 };
    let sub_blocks = cols.checked_div(sub).unwrap_or(0);
    let mins_at = scales_at + pad(sub_blocks);
    let end = mins_at + if has_m { pad(sub_blocks) } else { 0 };
    assert_eq!(row.len(), end, "{dtype} × {cols}");

    let half = |at: usize| f16::from_le_bytes([row[at], row[at + 1]]).to_f32();
    let value = |e: usize| {
        let (block, i) = (e / 32, e % 32);
        let low = match code_bytes {
            16 => row[block * 16 + i % 16] >> (i / 16 * 4) & 15,
            8 => row[block * 8 + i % 8] >> (i / 8 * 2) & 3,
            _ => row[block * 32 + i],
        };
        let high = &row[high_at..];
        let top = match high_bytes {
            4 => high[block * 4 + i / 8] >> (i % 8) & 1,
            8 => high[block * 8 + i % 8] >> (i / 8 * 2) & 3,
            _ => 0,
        };
        let width = if code_bytes == 8 { 2 } else { 4 };
        let code = if dtype == DType::Q8_0 {
            i32::from(low as i8)
        } else {
            i32::from(low | top << width) - offset
        };
        let d_index = if k_type { e / 256 } else { block };
        let d = half(d_at + 2 * d_index);
        let m = if has_m { half(m_at + 2 * d_index) } else { 0.0 };
        if !k_type {
            return if has_m {
                d * code as f32 + m
            } else {
                d * code as f32
            };
        }
        let byte = row[scales_at + e / sub];
        let signed = matches!(dtype, DType::Q3_K | DType::Q6_K);
        let scale = if signed {
            f32::from(byte as i8)
        } else {
            f32::from(byte)
        };
        if has_m {
            d * scale * code as f32 - m * f32::from(row[mins_at + e / sub])
        } else {
            d * scale * code as f32
        }
    };
    (0..cols).map(value).collect()
}

#[test]
fn packed_rows_read_back_exactly() {
    for &dtype in DType::RUNNABLE.iter().filter(|d| !d.is_float()) {
        let widths: &[usize] = match dtype.block_len() {
            32 => &[32, 96, 160, 256, 576, 2048],
            _ => &[256, 512, 768, 1536],
        };
        for &cols in widths {
            for rows in [1, 3, 7] {
                let file = random_rows(dtype, cols, rows, (cols * rows) as u64);
                let layout = row_layout(dtype, cols);
                assert_eq!(layout.stride % 16, 0);
                let mut packed = vec![0xff; rows * layout.stride];
                pack_rows(dtype, cols, &file, &mut packed);
                let mut want = vec![0.0; rows * cols];
                dtype.decode(&file, &mut want);
                let read = packed
                    .chunks_exact(layout.stride)
                    .flat_map(|row| read_row(dtype, row, cols));
                for (i, (got, want)) in read.zip(&want).enumerate() {
                    assert_eq!(
                        got.to_bits(),
                        want.to_bits(),
                        "{dtype} {rows} × {cols} [{i}]: {got} {want}"
                    );
                }
            }
        }
    }
}

#[test]
fn padding_is_zero_and_floats_are_only_padded() {
    let mut packed = vec![0xff; 2 * row_layout(DType::Q4_0, 32).stride];
    let file = random_rows(DType::Q4_0, 32, 2, 5);
    pack_rows(DType::Q4_0, 32, &file, &mut packed);
    assert_eq!(packed.len(), 64);
    assert!(packed[18..32].iter().chain(&packed[50..]).all(|&b| b == 0));

    for (dtype, size) in [(DType::F32, 4), (DType::F16, 2), (DType::BF16, 2)] {
        for cols in [1usize, 5, 8, 33] {
            let row_bytes = cols * size;
            let stride = row_bytes.div_ceil(16) * 16;
            assert_eq!(row_layout(dtype, cols).stride, stride);
            let file: Vec<u8> = (0..3 * row_bytes).map(|i| i as u8 | 1).collect();
            let mut packed = vec![0xff; 3 * stride];
            pack_rows(dtype, cols, &file, &mut packed);
            for (row, out) in file.chunks(row_bytes).zip(packed.chunks(stride)) {
                assert_eq!(&out[..row_bytes], row);
                assert!(out[row_bytes..].iter().all(|&b| b == 0));
            }
        }
    }
}
