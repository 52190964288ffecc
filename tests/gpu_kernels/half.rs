//! The kernels of long prompts, which round to 16-bit floats, against formulas in f64.
//!
//! Bounds follow from eleven bits on both sides. A product's error is relative to Σ |x| · the largest |w| of the block of
//! 32 that shares scales, since a weight between two extremes is rounded in steps of theirs.

use super::attention::many_rows;
use super::bench::{Bench, assert_near, normal};
use super::matrices::{Matrix, activated, name, widths};
use crate::args;
use crate::support::rng::Rng;
use greta_infer::cpu::half_rows::{round_row, widen_row};
use greta_infer::dtype::DType;
use greta_infer::gpu::geometry::{self, HalfChoice, HalfShape};
use greta_infer::gpu::pack::row_layout;
use greta_infer::graph::Element;
use greta_infer::hip::DeviceBuffer;

/// Half a unit in the last of eleven bits: of scale and minimum, and of their combination.
const ELEVEN_BITS: f64 = 1.0 / 2048.0;

/// Types that the kernels take.
fn types() -> impl Iterator<Item = DType> {
    let all = DType::RUNNABLE.iter().copied();
    all.filter(|&dtype| dtype != DType::F32)
}

/// Rows [rows, cols] as the kernels take them, and what each stands for.
fn rounded(x: &[f32], cols: usize) -> (Vec<u8>, Vec<Vec<f64>>) {
    let stride = Element::F16.row_bytes(cols as u32);
    let mut bytes = vec![0xff; x.len() / cols * stride];
    let mut exact = Vec::new();
    for (x, row) in x.chunks_exact(cols).zip(bytes.chunks_exact_mut(stride)) {
        round_row(x, row);
        let mut back = vec![0.0; cols];
        widen_row(row, &mut back);
        exact.push(back.iter().map(|&x| f64::from(x)).collect());
    }
    (bytes, exact)
}

/// Row `n` of a matrix times `x`, and what its error is relative to.
fn dot(w: &Matrix, n: usize, x: &[f64]) -> (f64, f64) {
    let (mut sum, mut size) = (0.0, 0.0);
    for (w, x) in w.row(n).chunks(32).zip(x.chunks(32)) {
        let widest = w.iter().fold(0.0, |m: f32, w| m.max(w.abs()));
        for (w, x) in w.iter().zip(x) {
            sum += f64::from(*w) * x;
            size += f64::from(widest) * x.abs();
        }
    }
    (sum, size)
}

/// What a product may be off by: only what the weights lose, and f32 sums.
fn bound(dtype: DType) -> f64 {
    match dtype {
        // All of a weight's bits are kept.
        DType::F16 | DType::BF16 => 1e-6,
        _ => ELEVEN_BITS,
    }
}

/// Rows, live ones among them, columns of each matrix, K, and whether the first two are gate and up, with which activation.
#[derive(Clone, Copy, Debug)]
struct Product {
    rows: usize,
    live: usize,
    n: [usize; 3],
    k: usize,
    gate: Option<u32>,
}

impl Product {
    /// What column `c` of matrix `i` is to be for a row of x, and what it may be off relative to.
    fn want(&self, w: &[Matrix; 3], x: &[f64], i: usize, c: usize) -> (f64, f64) {
        let Some(kind) = self.gate else {
            return dot(&w[i], c, x);
        };
        let ((gate, gate_size), (up, up_size)) = (dot(&w[0], c, x), dot(&w[1], c, x));
        let gated = activated(gate, kind);
        // No activation is steeper than 1.13.
        (
            gated * up,
            1.13 * gate_size * up.abs() + gated.abs() * up_size,
        )
    }
}

/// The matrices as rows of f16, one after the other and the bytes of a row.
fn expanded(
    bench: &Bench,
    dtype: DType,
    packed: &[DeviceBuffer; 3],
    n: [u32; 3],
    k: u32,
    stride: u32,
) -> (DeviceBuffer, u32) {
    let to_stride = row_layout(DType::F16, k as usize).stride as u32;
    let rows: u32 = n.iter().sum();
    let to = bench.nans((rows * to_stride) as usize / 4);
    let args = args![
        0u64, &packed[0], n[0], &packed[1], n[1], &packed[2], n[2], stride, k, &to, to_stride
    ];
    bench.launch(&name("expand", dtype), geometry::expand(rows, k), args);
    (to, to_stride)
}

/// One launch of up to three matrices over the same rows; the live rows of its results.
fn check_gemm(bench: &Bench, dtype: DType, product: Product, choice: HalfChoice) -> Vec<f32> {
    let Product {
        rows,
        live,
        n,
        k,
        gate,
    } = product;
    let place = format!("{dtype} {product:?} {choice:?}");
    let mut rng = Rng::new((rows + n[0] + k) as u64);
    let w = n.map(|n| Matrix::new(&mut rng, dtype, n, k));
    let x: Vec<f32> = normal(&mut rng, rows * k).iter().map(|v| v * 3.0).collect();
    let (mut x, exact) = rounded(&x, k);
    let x_stride = x.len() / rows;
    // Rows that are not live hold NaN.
    x[live * x_stride..].fill(0xff);
    let added = normal(&mut rng, rows * n[0]);
    let residual = n[1] == 0;
    let (step, x) = (bench.step(0, live as u32), bench.bytes(&x));
    let packed = [0, 1, 2].map(|i| bench.bytes(&w[i].packed));
    // What is not stored: up has no result of its own.
    let stored = [0, 1, 2].map(|i| if gate.is_some() && i > 0 { 0 } else { n[i] });
    // Rows of y and of what is added begin at 16 bytes, since four columns are stored at once.
    let strides = stored.map(|n| n.next_multiple_of(4));
    let y = strides.map(|stride| bench.nans(rows * stride));
    let (n_, k_) = (n.map(|n| n as u32), k as u32);
    let stride = |i: usize| 4 * strides[i] as u32;
    let mut padded = vec![0.0; rows * strides[0]];
    for (to, from) in padded
        .chunks_exact_mut(strides[0])
        .zip(added.chunks_exact(n[0]))
    {
        to[..n[0]].copy_from_slice(from);
    }
    let padded = bench.floats(&padded);
    let shape = HalfShape {
        dtype,
        n: n_,
        k: k_,
        rows: rows as u32,
        gated: gate.is_some(),
    };
    let launch = geometry::half_launch(bench.machine, shape, choice);
    let rounded = launch
        .expands
        .then(|| expanded(bench, dtype, &packed, n_, k_, w[0].stride()));
    let (weights, w_stride) = match &rounded {
        Some((to, stride)) => {
            let before = [0, n_[0], n_[0] + n_[1]];
            let at = before.map(|rows| to.address() + u64::from(rows * stride));
            (at, *stride)
        }
        None => (packed.each_ref().map(DeviceBuffer::address), w[0].stride()),
    };
    let sums = bench.nans(launch.sums_bytes() / 4);
    let tickets = bench.bytes(&vec![0; 4 * launch.tiles()]);
    let shared = launch.parts > 1;
    let args = args![
        &step,
        &x,
        x_stride as u32,
        weights[0],
        &y[0],
        stride(0),
        n_[0],
        weights[1],
        &y[1],
        stride(1),
        n_[1],
        weights[2],
        &y[2],
        stride(2),
        n_[2],
        w_stride,
        residual.then_some(&padded),
        stride(0),
        k_,
        rows as u32,
        gate.map_or(0, |kind| 1 + kind),
        shared.then_some(&sums),
        shared.then_some(&tickets),
        launch.parts,
        launch.part_tiles
    ];
    bench.launch(&launch.kernel(dtype), launch.geometry, args);
    assert!(
        bench.read(&tickets).iter().all(|&b| b == 0),
        "{place}: tickets are put back"
    );
    let mut results = Vec::new();
    for i in 0..3 {
        let got = bench.read_floats(&y[i]);
        for (r, got) in got.chunks_exact(strides[i].max(1)).enumerate() {
            if r >= live {
                assert!(
                    got.iter().all(|v| v.is_nan()),
                    "{place}: row {r} is not live"
                );
                continue;
            }
            let want: Vec<_> = (0..stored[i])
                .map(|c| {
                    let (value, size) = product.want(&w, &exact[r], i, c);
                    let added = if residual {
                        f64::from(added[r * n[0] + c])
                    } else {
                        0.0
                    };
                    (value + added, size + added.abs() * 1e-3)
                })
                .collect();
            assert_near(
                &got[..stored[i]],
                &want,
                bound(dtype),
                &format!("{place}: matrix {i} row {r}"),
            );
            assert!(
                got[stored[i]..].iter().all(|v| v.is_nan()),
                "{place}: past row {r}"
            );
            results.extend_from_slice(&got[..stored[i]]);
        }
    }
    results
}

/// Every tile of the machine, whose bits are the same, with K whole and shared.
pub fn gemm(bench: &Bench) {
    for dtype in types() {
        let widths = widths(dtype);
        let (wide, widest) = (widths[widths.len() - 2], widths[widths.len() - 1]);
        for (rows, live, n, k, gate, parts) in [
            (3, 2, [5, 0, 0], widths[0], None, 1),
            (130, 129, [131, 0, 0], wide, None, 2),
            (65, 65, [64, 3, 130], widest, None, 1),
            (66, 66, [67, 2, 1], widest, None, 3),
            (34, 33, [70, 70, 0], wide, Some(0), 1),
            (130, 129, [5, 5, 0], widest, Some(1), 2),
        ] {
            let product = Product {
                rows,
                live,
                n,
                k,
                gate,
            };
            let tiles = geometry::half_tiles(bench.machine).iter();
            let results = tiles.map(|&tile| {
                let bits = |v: f32| v.to_bits();
                let got = check_gemm(bench, dtype, product, HalfChoice { tile, parts });
                (tile, got.into_iter().map(bits).collect::<Vec<_>>())
            });
            let results: Vec<_> = results.collect();
            for (tile, bits) in &results[1..] {
                assert!(
                    *bits == results[0].1,
                    "{dtype} {product:?}: the bits of {tile}"
                );
            }
        }
    }
}

/// Rows with all that may stand in them, and one that is not live.
fn rows_of(rng: &mut Rng, cols: usize) -> Vec<Vec<f32>> {
    let specials = [f32::NAN, f32::INFINITY, 0.0, -0.0, f32::MAX, 1e-45, 7.7e-34];
    (0..12)
        .map(|r| {
            let scale = 10f64.powf(rng.uniform(-30.0, 30.0));
            let mut x: Vec<f32> = (0..cols).map(|_| (rng.normal() * scale) as f32).collect();
            match r {
                0..7 => x[rng.below(cols)] = specials[r],
                7 => x.fill(0.0),
                _ => {}
            }
            x
        })
        .collect()
}

pub fn rows(bench: &Bench) {
    let mut rng = Rng::new(31);
    for cols in [1usize, 31, 64, 576, 1537, 5000, 20_000] {
        let all = rows_of(&mut rng, cols);
        let live = all.len() - 1;
        let len = cols.next_multiple_of(4);
        let mut x = vec![f32::NAN; all.len() * len];
        for (to, row) in x.chunks_exact_mut(len).zip(&all) {
            to[..cols].copy_from_slice(row);
        }
        let stride = Element::F16.row_bytes(cols as u32);
        let (step, x) = (bench.step(0, live as u32), bench.floats(&x));
        let (c, rows, x_stride) = (cols as u32, all.len() as u32, 4 * len as u32);
        let launch = |kernel: &str, args: &[super::bench::Arg]| {
            bench.launch(kernel, geometry::half_rows(c, rows), args);
        };
        let used = 2 * cols.next_multiple_of(64) + 4;
        let y = bench.nans(all.len() * stride / 4);
        launch(
            "round_rows",
            args![&step, &x, x_stride, &y, stride as u32, c, rows],
        );
        for (r, got) in bench.read(&y).chunks_exact(stride).enumerate() {
            let mut want = vec![0xff; stride];
            if r < live {
                round_row(&all[r], &mut want);
            }
            assert_eq!(got[..used], want[..used], "row {r} of {cols}");
            assert!(
                got[used..].iter().all(|&b| b == 0xff),
                "past row {r} of {cols}"
            );
        }

        let w = normal(&mut rng, len);
        let gate: Vec<f32> = normal(&mut rng, all.len() * len);
        let (weights, gates) = (bench.floats(&w), bench.floats(&gate));
        let eps = 1e-5f32;
        let near =
            |y: &greta_infer::hip::DeviceBuffer, want: &dyn Fn(usize) -> Vec<f64>, what: &str| {
                for (r, got) in bench.read(y).chunks_exact(stride).enumerate().take(live) {
                    let mut back = vec![0.0; cols];
                    widen_row(got, &mut back);
                    let want = want(r);
                    let peak = want.iter().fold(0.0, |m: f64, w| m.max(w.abs()));
                    if want.iter().any(|w| !w.is_finite()) || peak > 1e37 {
                        continue;
                    }
                    let want: Vec<_> = want
                        .iter()
                        .map(|&w| (w, w.abs() + peak / 2f64.powi(25)))
                        .collect();
                    assert_near(
                        &back,
                        &want,
                        ELEVEN_BITS,
                        &format!("{what} row {r} of {cols}"),
                    );
                }
            };
        let y = bench.nans(all.len() * stride / 4);
        launch(
            "rms_norm_half",
            args![
                &step,
                &x,
                x_stride,
                &weights,
                eps,
                &y,
                stride as u32,
                c,
                rows
            ],
        );
        let normed = |r: usize| -> Vec<f64> {
            let x = &all[r];
            let mean = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / cols as f64;
            let scale = 1.0 / (mean + f64::from(eps)).sqrt();
            x.iter()
                .zip(&w)
                .map(|(&x, &w)| f64::from(x) * f64::from(w) * scale)
                .collect()
        };
        near(&y, &normed, "norm");
        for kind in [0u32, 1] {
            let y = bench.nans(all.len() * stride / 4);
            // Any numbers are gated, by gates as there are.
            let args = args![
                &step,
                &gates,
                x_stride,
                &x,
                x_stride,
                &y,
                stride as u32,
                c,
                kind,
                rows
            ];
            launch("gated_mul_half", args);
            let gated = |r: usize| -> Vec<f64> {
                let pairs = gate[r * len..].iter().zip(&all[r]);
                let gate = |(&g, &u): (&f32, &f32)| activated(f64::from(g), kind) * f64::from(u);
                pairs.map(gate).collect()
            };
            near(&y, &gated, "gate");
        }
    }
}

/// What attention may be off by, relative to Σ weight · |v|: the weights are rounded to eleven bits, and so is q, whose
/// scores of a few units then move a weight by as many of the last bit.
const ATTENTION_BOUND: f64 = 4.0 * ELEVEN_BITS;

pub fn attention(bench: &Bench) {
    let heads = [
        (2, 2, 8),
        (9, 3, 64),
        (4, 1, 80),
        (5, 1, 128),
        (3, 3, 128),
        (2, 1, 24),
    ];
    let rows = [
        (32, 0, 0, 7, 7),
        (160, 60, 0, 40, 38),
        (300, 250, 33, 6, 6),
        (300, 70, 50, 100, 97),
        (200, 0, 0, 130, 130),
    ];
    let kernel = |[h, g, d, rows]: [u32; 4]| {
        let columns = geometry::flash_columns(d).expect("heads of up to 128");
        let geometry = geometry::attention_flash(h, g, columns, rows, bench.machine);
        (format!("attention_flash_{columns}"), geometry)
    };
    many_rows::<::half::f16>(bench, &heads, &rows, ATTENTION_BOUND, &kernel);
}
