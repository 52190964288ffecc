//! Every kernel, at ragged sizes, against sums in f64.

use super::*;
use crate::cpu::panel::LANES;
use crate::cpu::test_data::Random;

/// `weights` in the bytes of `dtype`, at an odd address, and the values they stand for.
fn encode(dtype: DType, weights: &[f32]) -> (Vec<u8>, Vec<f64>) {
    let mut bytes = vec![0];
    let mut values = Vec::new();
    for &w in weights {
        match dtype {
            DType::F16 => {
                let h = half::f16::from_f32(w);
                bytes.extend(h.to_le_bytes());
                values.push(h.to_f64());
            }
            DType::BF16 => {
                let h = half::bf16::from_f32(w);
                bytes.extend(h.to_le_bytes());
                values.push(h.to_f64());
            }
            _ => {
                bytes.extend(w.to_le_bytes());
                values.push(f64::from(w));
            }
        }
    }
    (bytes, values)
}

fn check(isa: Isa, dtype: DType, k: usize, rows: usize, lanes: usize, random: &mut Random) {
    let what = format!("{isa} {dtype} k={k} rows={rows} lanes={lanes}");
    let (bytes, w) = encode(dtype, &random.normal(lanes * k));
    let stride = k + 5;
    let x = random.normal(rows * stride);
    let kernel = float_kernel(isa, dtype, k, rows).expect("a float type");
    let sums = lanes.div_ceil(LANES) * rows * LANES;
    let mut tile = vec![f32::NAN; sums + LANES];
    let mut scratch = vec![f32::NAN; kernel.scratch_bytes / 4 + LANES];
    // SAFETY: the buffers have the sizes the contract asks for; the tile and the scratch need alignment only for speed
    // here, and `isa` is available.
    unsafe {
        (kernel.func)(
            bytes.as_ptr().add(1),
            lanes,
            k,
            x.as_ptr().cast(),
            stride * 4,
            rows,
            tile.as_mut_ptr(),
            scratch.as_mut_ptr().cast(),
        );
    }
    assert!(
        tile[sums..].iter().all(|t| t.is_nan()),
        "{what}: wrote past the tile"
    );
    let past = &scratch[kernel.scratch_bytes / 4..];
    assert!(
        past.iter().all(|s| s.is_nan()),
        "{what}: wrote past the scratch"
    );
    for r in 0..rows {
        for j in 0..lanes.next_multiple_of(LANES) {
            let found = f64::from(tile[(j / LANES * rows + r) * LANES + j % LANES]);
            assert!(found.is_finite(), "{what} [{r}, {j}]");
            if j < lanes {
                let products = (0..k).map(|i| f64::from(x[r * stride + i]) * w[j * k + i]);
                let size: f64 = products.clone().map(f64::abs).sum();
                let expected: f64 = products.sum();
                assert!(
                    (found - expected).abs() <= 1e-6 * size,
                    "{what} [{r}, {j}]: expected {expected}, found {found}"
                );
            }
        }
    }
}

#[test]
fn panels_side_by_side_give_the_bits_of_one_after_the_other() {
    let mut random = Random::from_clock();
    for isa in Isa::available() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for k in [1, 17, 64, 385, 800] {
                let kernel = float_kernel(isa, dtype, k, 1).expect("a float type");
                let Some(streams) = kernel.streams else {
                    continue;
                };
                let (bytes, _) = encode(dtype, &random.normal(STREAMS * LANES * k));
                let panel_bytes = bytes.len() / STREAMS;
                let x = random.normal(k);
                let x = x.as_ptr().cast();
                let panels: [_; STREAMS] =
                    std::array::from_fn(|s| bytes[1 + s * panel_bytes..].as_ptr());
                for count in 2..=streams.most {
                    let mut tiles = [[f32::NAN; LANES]; STREAMS];
                    let out = tiles.each_mut().map(|tile| tile.as_mut_ptr());
                    // SAFETY: as in `check`; one row needs no scratch.
                    unsafe { (streams.func)(&panels[..count], k, x, &out[..count]) };
                    for (w, found) in panels[..count].iter().zip(tiles) {
                        let mut expected = [f32::NAN; LANES];
                        let (tile, none) = (expected.as_mut_ptr(), std::ptr::null_mut());
                        // SAFETY: as above.
                        unsafe { (kernel.func)(*w, LANES, k, x, 0, 1, tile, none) };
                        assert_eq!(found, expected, "{isa} {dtype} k={k} panels={count}");
                    }
                }
            }
        }
    }
}

#[test]
fn agree_with_sums_in_f64() {
    let mut random = Random::from_clock();
    for isa in Isa::available() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for k in [1, 7, 16, 17, 64, 255, 385, 800] {
                // Few rows, and each height of the register tile.
                for rows in [1, 7, 20, 47] {
                    for lanes in [1, 9, 16, 17, 32] {
                        check(isa, dtype, k, rows, lanes, &mut random);
                    }
                }
            }
        }
    }
}

#[test]
fn sums_do_not_depend_on_the_panels_of_a_call() {
    let mut random = Random::from_clock();
    for isa in Isa::available() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for (k, rows, lanes) in [(33, 5, 32), (401, 59, 32), (770, 23, 21)] {
                let (bytes, _) = encode(dtype, &random.normal(lanes * k));
                let x = random.normal(rows * k);
                let kernel = float_kernel(isa, dtype, k, rows).expect("a float type");
                let mut scratch = vec![0.0f32; kernel.scratch_bytes / 4];
                let mut run = |first: usize, lanes: usize, tile: &mut [f32]| {
                    // SAFETY: rows `first..first + lanes` are inside `bytes`, and the tile and the scratch are as long
                    // as the contract asks; alignment matters only for speed here, and `isa` is available.
                    unsafe {
                        (kernel.func)(
                            bytes.as_ptr().add(1 + first * k * dtype.block_bytes()),
                            lanes,
                            k,
                            x.as_ptr().cast(),
                            k * 4,
                            rows,
                            tile.as_mut_ptr(),
                            scratch.as_mut_ptr().cast(),
                        );
                    }
                };
                let mut pair = vec![f32::NAN; 2 * rows * LANES];
                let mut single = pair.clone();
                run(0, lanes, &mut pair);
                let (left, right) = single.split_at_mut(rows * LANES);
                run(0, LANES, left);
                run(LANES, lanes - LANES, right);
                let bits = |tile: &[f32]| tile.iter().map(|t| t.to_bits()).collect::<Vec<_>>();
                assert_eq!(
                    bits(&pair),
                    bits(&single),
                    "{isa} {dtype} k={k} rows={rows} lanes={lanes}"
                );
            }
        }
    }
}

#[test]
fn quantised_types_are_not_for_these_kernels() {
    for &dtype in DType::RUNNABLE {
        let found = float_kernel(Isa::Portable, dtype, 256, 4).is_some();
        assert_eq!(found, dtype.is_float());
    }
}
