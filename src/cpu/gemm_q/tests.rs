//! Every type on every path at ragged sizes, against f64 sums over weights decoded by [`DType::decode`].

use super::*;
use crate::cpu::activation::{self, BLOCK_LEN, Block, Form};
use crate::cpu::pack::{pack_panel, packed_panel_bytes};
use crate::cpu::panel::STREAMS;
use half::f16;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::ops::{Deref, DerefMut};

const TYPES: [DType; 10] = [
    DType::Q4_0,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q5_1,
    DType::Q8_0,
    DType::Q2_K,
    DType::Q3_K,
    DType::Q4_K,
    DType::Q5_K,
    DType::Q6_K,
];

fn paths() -> Vec<Path> {
    let mut paths = vec![Path::Portable];
    #[cfg(target_arch = "x86_64")]
    {
        let available = Isa::available();
        if available.contains(&Isa::Avx2) {
            paths.push(Path::Avx2);
            if is_x86_feature_detected!("avxvnni") {
                paths.push(Path::AvxVnni);
            }
        }
        if available.contains(&Isa::Avx512) {
            paths.push(Path::Avx512);
        }
    }
    paths
}

/// What the activations of a path are.
fn form(path: Path) -> Form {
    match path {
        #[cfg(target_arch = "x86_64")]
        Path::Avx2 => Form::Whole,
        _ => Form::Planes,
    }
}

/// Where a block's half-precision fields are; every other bit pattern is a valid weight.
fn halves_at(dtype: DType) -> &'static [usize] {
    match dtype {
        DType::Q4_0 | DType::Q5_0 | DType::Q8_0 => &[0],
        DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K => &[0, 2],
        DType::Q2_K => &[80, 82],
        DType::Q3_K => &[108],
        DType::Q6_K => &[208],
        _ => unreachable!("{dtype}"),
    }
}

#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

/// Zeroed memory with the alignment kernels ask for.
struct Aligned(Vec<Line>);

fn aligned(bytes: usize) -> Aligned {
    // A cache line more, so that nothing asked for is ever at a dangling address.
    Aligned(vec![Line([0; 64]); bytes.div_ceil(64) + 1])
}

impl Deref for Aligned {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: lines are bytes without padding.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), size_of_val(&*self.0)) }
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), size_of_val(&*self.0)) }
    }
}

/// A panel and some activations, with the exact answer to each.
struct Case {
    dtype: DType,
    lanes: usize,
    k: usize,
    rows: usize,
    weights: Vec<f32>,
    x: Vec<f32>,
    packed: Aligned,
}

impl Case {
    /// `file` holds `lanes` rows; halves in it are overwritten with sane random values.
    fn new(
        dtype: DType,
        mut file: Vec<u8>,
        lanes: usize,
        k: usize,
        x: Vec<f32>,
        rng: &mut ChaCha8Rng,
    ) -> Case {
        for block in file.chunks_exact_mut(dtype.block_bytes()) {
            for at in halves_at(dtype) {
                let half = f16::from_f32(rng.random_range(-0.02..0.02f32));
                block[*at..][..2].copy_from_slice(&half.to_le_bytes());
            }
        }
        let mut weights = vec![0.0; lanes * k];
        dtype.decode(&file, &mut weights);
        let bytes = packed_panel_bytes(dtype, k);
        let mut packed = aligned(bytes);
        // Dirt that packing must not leave behind.
        packed.fill(0xa5);
        pack_panel(dtype, &file, lanes, k, &mut packed[..bytes]);
        let rows = x.len() / k;
        Case {
            dtype,
            lanes,
            k,
            rows,
            weights,
            x,
            packed,
        }
    }

    /// The tile `[rows][16]` that `path` computes for rows `from..`.
    fn run(&self, path: Path, from: usize, rows: usize) -> (Vec<f32>, Vec<u8>) {
        let stride = activation::row_bytes(self.k);
        let mut x = aligned(stride * rows);
        for r in 0..rows {
            let row = &self.x[(from + r) * self.k..][..self.k];
            // SAFETY: `x` has room for the row, and portable code runs anywhere.
            unsafe {
                activation::quantise_row_as(
                    form(path),
                    Isa::Portable,
                    row,
                    x.as_mut_ptr().cast::<u8>().add(r * stride),
                )
            };
        }
        let kernel = with_format!(self.dtype, F => kernel_of::<F>(path, self.k, rows))
            .flatten()
            .expect("a kernel");
        let mut tile = aligned(rows * LANES * 4);
        let mut scratch = aligned(kernel.scratch_bytes);
        // SAFETY: `path` is one this machine runs; the buffers are as long and aligned as the kernel says.
        unsafe {
            (kernel.func)(
                self.packed.as_ptr().cast(),
                self.lanes,
                self.k,
                x.as_ptr().cast(),
                stride,
                rows,
                tile.as_mut_ptr().cast(),
                scratch.as_mut_ptr().cast(),
            );
        }
        let bytes = &tile[..rows * LANES * 4];
        if let (Some(streams), 1) = (kernel.streams, rows) {
            // Beside panels of zeros, and at every place among them.
            let zeros = aligned(self.packed.len());
            for (count, place) in (2..=streams.most).flat_map(|n| (0..n).map(move |at| (n, at))) {
                let mut panels = [zeros.as_ptr(); STREAMS];
                panels[place] = self.packed.as_ptr();
                let mut tiles = [[f32::NAN; LANES]; STREAMS];
                let out = tiles.each_mut().map(|tile| tile.as_mut_ptr());
                // SAFETY: as above.
                unsafe { (streams.func)(&panels[..count], self.k, x.as_ptr(), &out[..count]) };
                for (at, tile) in tiles[..count].iter().enumerate() {
                    let tile = tile.map(f32::to_ne_bytes);
                    match at == place {
                        true => assert_eq!(tile.as_flattened(), bytes, "{}", self.dtype),
                        false => assert_eq!(tile.map(f32::from_ne_bytes), [0.0; LANES]),
                    }
                }
            }
        }
        assert!(
            tile[rows * LANES * 4..].iter().all(|b| *b == 0),
            "past the tile"
        );
        let floats = bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect();
        (floats, x.to_vec())
    }

    fn check(&self, path: Path) {
        let Case {
            dtype,
            lanes,
            k,
            rows,
            ..
        } = *self;
        let what = format!("{dtype} {path:?} lanes {lanes} k {k} rows {rows}");
        let (tile, x) = self.run(path, 0, rows);
        for r in 0..rows {
            let row = &x[r * activation::row_bytes(k)..];
            for j in 0..LANES {
                let got = f64::from(tile[r * LANES + j]);
                assert!(got.is_finite(), "{what}: row {r} lane {j} is {got}");
                if j >= lanes {
                    continue;
                }
                let (mut quantised, mut exact, mut magnitude, mut slack) = (0.0, 0.0, 0.0, 0.0);
                for b in 0..k / BLOCK_LEN {
                    // SAFETY: every bit pattern is a `Block`; the slice holds this one.
                    let block: Block = unsafe {
                        row[b * activation::BLOCK_BYTES..]
                            .as_ptr()
                            .cast::<Block>()
                            .read_unaligned()
                    };
                    let w = &self.weights[j * k + b * BLOCK_LEN..][..BLOCK_LEN];
                    let x = &self.x[r * k + b * BLOCK_LEN..][..BLOCK_LEN];
                    let largest = w.iter().fold(0f64, |m, w| m.max(f64::from(w.abs())));
                    for c in 0..BLOCK_LEN {
                        let w = f64::from(w[c]);
                        let rounded = f64::from(block.scale) * f64::from(block.q(form(path), c));
                        quantised += w * rounded;
                        exact += w * f64::from(x[c]);
                        magnitude += largest * rounded.abs();
                        slack += w.abs() * f64::from(block.scale) * 0.503;
                    }
                }
                let error = (got - quantised).abs();
                assert!(
                    error <= 1e-6 * magnitude,
                    "{what}: row {r} lane {j}: {got}, exactly {quantised}, error {error:e} of {magnitude}"
                );
                let error = (got - exact).abs();
                assert!(
                    error <= slack + 1e-6 * magnitude,
                    "{what}: row {r} lane {j}: {got}, unquantised {exact}, error {error:e}, allowed {slack:e}"
                );
            }
        }
        // A row alone, and in other company, gives the same bits.
        for (from, count) in [(rows - 1, 1), (rows / 2, (rows - rows / 2).min(5))] {
            let (part, _) = self.run(path, from, count);
            let whole = &tile[from * LANES..][..count * LANES];
            assert!(
                part.iter()
                    .zip(whole)
                    .all(|(a, b)| a.to_bits() == b.to_bits()),
                "{what}: rows {from}+{count}"
            );
        }
    }
}

fn widths(dtype: DType) -> &'static [usize] {
    if dtype.block_len() == 32 {
        &[32, 96, 576, 1536]
    } else {
        &[256, 768, 1536]
    }
}

#[test]
fn every_type_on_every_path() {
    let seed = 0x9e3779b97f4a7c15;
    println!("seed {seed:#x}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for dtype in TYPES {
        for &k in widths(dtype) {
            for (lanes, rows) in [(16, 1), (1, 2), (7, 3), (16, 5), (15, 8), (16, 13), (9, 64)] {
                let bytes = lanes * dtype.row_bytes(k).expect("whole blocks");
                let file = (0..bytes).map(|_| rng.random()).collect();
                let scale = 10f32.powi(rng.random_range(-3..4));
                let x = (0..rows * k)
                    .map(|_| rng.random_range(-scale..scale))
                    .collect();
                let case = Case::new(dtype, file, lanes, k, x, &mut rng);
                paths().into_iter().for_each(|path| case.check(path));
            }
        }
    }
}

/// The largest sums: what would saturate 16 bits, or overflow anything, does so here.
#[test]
fn extremes_do_not_saturate() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for dtype in TYPES {
        let k = 256;
        for byte in [0xffu8, 0x80, 0x7f, 0x00, 0x0f, 0xf0] {
            let file = vec![byte; LANES * dtype.row_bytes(k).expect("whole blocks")];
            let x = (0..3 * k).map(|i| {
                if i < k {
                    1.0
                } else if i < 2 * k {
                    -1.0
                } else {
                    [1.0, -1.0][i % 2]
                }
            });
            let case = Case::new(dtype, file, LANES, k, x.collect(), &mut rng);
            paths().into_iter().for_each(|path| case.check(path));
        }
    }
}

#[test]
fn nan_and_infinity_reach_the_sums() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for dtype in TYPES {
        let k = 512;
        for bad in [f32::NAN, f32::INFINITY] {
            let file = vec![0x35; LANES * dtype.row_bytes(k).expect("whole blocks")];
            let mut x = vec![0.5; 3 * k];
            x[k + 300] = bad;
            let case = Case::new(dtype, file, LANES, k, x, &mut rng);
            for path in paths() {
                let (tile, _) = case.run(path, 0, 3);
                for (r, row) in tile.chunks(LANES).enumerate() {
                    assert!(
                        row.iter().all(|y| y.is_nan() == (r == 1)),
                        "{dtype} {path:?} row {r}: {row:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn panels_of_32_wide_types_keep_the_files_bytes() {
    for dtype in TYPES {
        for &k in widths(dtype) {
            let file = LANES * dtype.row_bytes(k).expect("whole blocks");
            let packed = packed_panel_bytes(dtype, k);
            let bound = if dtype.block_len() == 32 {
                file.next_multiple_of(64)
            } else {
                (file * 104 / 100).next_multiple_of(64)
            };
            assert!(packed <= bound, "{dtype}: {packed} bytes for {file}");
        }
        for isa in Isa::available() {
            assert!(
                quantised_kernel(isa, dtype, 33, 1).is_none(),
                "{dtype}: 33 columns"
            );
            assert!(quantised_kernel(isa, dtype, 256, 1).is_some_and(|k| k.scratch_bytes == 0));
        }
    }
    assert!(quantised_kernel(Isa::detect(), DType::F16, 256, 1).is_none());
}

/// Panels of one call are computed as each alone, also where a panel does not fill its last cache line.
#[test]
fn sums_do_not_depend_on_the_panels_of_a_call() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let rows = 5;
    for dtype in TYPES {
        let k = 3 * dtype.block_len();
        let x: Vec<f32> = (0..rows * k).map(|_| rng.random_range(-1.0..1.0)).collect();
        let mut panel = |lanes: usize| {
            let bytes = lanes * dtype.row_bytes(k).expect("whole blocks");
            let file = (0..bytes).map(|_| rng.random()).collect();
            Case::new(dtype, file, lanes, k, x.clone(), &mut rng)
        };
        let cases = [panel(LANES), panel(7)];
        let bytes = packed_panel_bytes(dtype, k);
        let mut packed = aligned(2 * bytes);
        for (case, packed) in cases.iter().zip(packed.chunks_exact_mut(bytes)) {
            packed.copy_from_slice(&case.packed[..bytes]);
        }
        for path in paths() {
            let kernel = with_format!(dtype, F => kernel_of::<F>(path, k, rows))
                .flatten()
                .expect("a kernel");
            if kernel.panels < 2 {
                continue;
            }
            let alone = cases.each_ref().map(|case| case.run(path, 0, rows));
            let mut tile = aligned(2 * rows * LANES * 4);
            let mut scratch = aligned(kernel.scratch_bytes);
            // SAFETY: as in `Case::run`, with two panels.
            unsafe {
                (kernel.func)(
                    packed.as_ptr(),
                    LANES + 7,
                    k,
                    alone[0].1.as_ptr(),
                    activation::row_bytes(k),
                    rows,
                    tile.as_mut_ptr().cast(),
                    scratch.as_mut_ptr(),
                );
            }
            let together = tile
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b));
            let apart = alone.iter().flat_map(|(tile, _)| tile);
            for (index, (got, want)) in together.zip(apart).enumerate() {
                let (lane, second) = (index % LANES, index >= rows * LANES);
                if !second || lane < 7 {
                    assert_eq!(got.to_bits(), want.to_bits(), "{dtype} {path:?} {index}");
                }
            }
        }
    }
}
