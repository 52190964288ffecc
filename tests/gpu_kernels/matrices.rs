//! GEMV and GEMM of every type against dot products in f64.

use super::bench::{Bench, assert_near, normal};
use crate::args;
use crate::support::planes::{halves, pack_rows};
use crate::support::rng::Rng;
use greta_infer::cpu::activation::{BLOCK_BYTES, quantise_row, row_bytes};
use greta_infer::cpu::isa::Isa;
use greta_infer::dtype::DType;
use greta_infer::gpu::geometry::{self, GatedShape, GemvLaunch, GemvShape};
use greta_infer::gpu::hardware::Hardware;
use greta_infer::gpu::pack::row_layout;
use greta_infer::gpu::tuning::{Choice, Tuning};
use greta_infer::hip::DeviceBuffer;
use half::f16;

/// What a product may be off by, relative to Σ |w · x|: f32 sums.
const BOUND: f64 = 1e-6;

/// A matrix in the file's layout and the device's, with its values.
pub struct Matrix {
    pub dtype: DType,
    k: usize,
    pub packed: Vec<u8>,
    values: Vec<f32>,
}

impl Matrix {
    pub fn new(rng: &mut Rng, dtype: DType, n: usize, k: usize) -> Matrix {
        let mut file: Vec<u8> = (0..n * dtype.row_bytes(k).unwrap())
            .map(|_| rng.byte())
            .collect();
        for block in file.chunks_exact_mut(dtype.block_bytes()) {
            for &at in halves(dtype) {
                block[at..at + 2]
                    .copy_from_slice(&f16::from_f64(rng.normal() * 0.01).to_le_bytes());
            }
            let value = rng.normal() as f32;
            match dtype {
                DType::F32 => block.copy_from_slice(&value.to_le_bytes()),
                DType::F16 => block.copy_from_slice(&f16::from_f32(value).to_le_bytes()),
                DType::BF16 => block.copy_from_slice(&half::bf16::from_f32(value).to_le_bytes()),
                _ => {}
            }
        }
        let mut values = vec![0.0; n * k];
        dtype.decode(&file, &mut values);
        let mut packed = vec![0; n * row_layout(dtype, k).stride];
        pack_rows(dtype, k, &file, &mut packed);
        Matrix {
            dtype,
            k,
            packed,
            values,
        }
    }

    pub fn stride(&self) -> u32 {
        row_layout(self.dtype, self.k).stride as u32
    }

    /// Row `n`.
    pub fn row(&self, n: usize) -> &[f32] {
        &self.values[n * self.k..][..self.k]
    }

    /// Row `n` times `x`: the product and the sum of its terms' magnitudes.
    fn dot(&self, n: usize, x: &[f64]) -> (f64, f64) {
        let row = self.row(n);
        let terms = row.iter().zip(x).map(|(&w, x)| f64::from(w) * x);
        terms.fold((0.0, 0.0), |(sum, size), term| {
            (sum + term, size + term.abs())
        })
    }
}

/// A row of activations as the kernels of a type take them, and what they stand for.
fn activations(rng: &mut Rng, dtype: DType, k: usize) -> (Vec<u8>, Vec<f64>) {
    let x: Vec<f32> = normal(rng, k).iter().map(|v| v * 3.0).collect();
    if dtype.is_float() {
        let mut bytes: Vec<u8> = x.iter().flat_map(|v| v.to_le_bytes()).collect();
        // A row's padding may hold anything.
        bytes.resize(bytes.len().next_multiple_of(64), 0xff);
        return (bytes, x.iter().map(|&v| f64::from(v)).collect());
    }
    let mut bytes = vec![0xff; row_bytes(k)];
    // SAFETY: `bytes` is a row, four-byte aligned as allocations of this size are, and the path is portable.
    unsafe { quantise_row(Isa::Portable, &x, bytes.as_mut_ptr()) };
    let value = |i: usize| {
        let block = &bytes[i / 32 * BLOCK_BYTES..][..BLOCK_BYTES];
        let q = 128 * i32::from(block[i % 32] as i8) + i32::from(block[32 + i % 32] as i8);
        f64::from(f32::from_le_bytes(block[64..68].try_into().unwrap())) * f64::from(q)
    };
    let values = (0..k).map(value).collect();
    (bytes, values)
}

pub fn name(kernel: &str, dtype: DType) -> String {
    format!("{kernel}_{}", dtype.name().to_lowercase())
}

/// Widths worth trying.
pub fn widths(dtype: DType) -> &'static [usize] {
    match dtype.block_len() {
        1 => &[1, 7, 33, 64, 577, 1536],
        32 => &[32, 64, 576, 1056],
        _ => &[256, 768],
    }
}

/// Three matrices of `n` rows: the launch's buffers and what it gives.
struct Products {
    w: [Matrix; 3],
    n: [usize; 3],
    packed: [DeviceBuffer; 3],
    y: [DeviceBuffer; 3],
}

impl Products {
    fn new(bench: &Bench, rng: &mut Rng, dtype: DType, n: [usize; 3], k: usize) -> Products {
        let w = n.map(|n| Matrix::new(rng, dtype, n, k));
        let packed = [0, 1, 2].map(|i| bench.bytes(&w[i].packed));
        let y = n.map(|n| bench.nans(n));
        Products { w, n, packed, y }
    }

    fn launch(
        &self,
        bench: &Bench,
        (x, norm): (&DeviceBuffer, Option<&DeviceBuffer>),
        residual: Option<&DeviceBuffer>,
        launch: GemvLaunch,
    ) {
        let (step, k) = (bench.step(3, 1), self.w[0].k as u32);
        let n = self.n.map(|n| n as u32);
        let ([w0, w1, w2], [y0, y1, y2]) = (&self.packed, &self.y);
        let stride = self.w[0].stride();
        let [each, more, pairs, bytes] = launch.deal_args();
        let args = args![
            &step, x, norm, EPS, k, w0, y0, n[0], w1, y1, n[1], w2, y2, n[2], stride, residual,
            each, more, pairs, bytes
        ];
        bench.launch(&launch.kernel(), launch.geometry, args);
    }
}

const EPS: f32 = 1e-5;

fn check_gemv(bench: &Bench, dtype: DType, n: usize, k: usize, launch: GemvLaunch, residual: bool) {
    let mut rng = Rng::new((n * 10_000 + k) as u64);
    let products = Products::new(bench, &mut rng, dtype, [n, 0, 0], k);
    let (x, exact) = activations(&mut rng, dtype, k);
    let added = normal(&mut rng, n);
    let (x, addend) = (bench.bytes(&x), bench.floats(&added));
    products.launch(bench, (&x, None), residual.then_some(&addend), launch);
    let want: Vec<_> = (0..n)
        .map(|i| {
            let (sum, size) = products.w[0].dot(i, &exact);
            let added = if residual { f64::from(added[i]) } else { 0.0 };
            (sum + added, size + added.abs())
        })
        .collect();
    let place = format!("gemv {dtype} [{n}, {k}] {:?}", launch.geometry);
    assert_near(&bench.read_floats(&products.y[0]), &want, BOUND, &place);
}

fn shape(dtype: DType, n: usize, k: usize, normed: bool) -> GemvShape {
    let n = [n as u32, 0, 0];
    let k = k as u32;
    GemvShape {
        dtype,
        n,
        k,
        normed,
    }
}

/// The device, with a table that gives blocks so much LDS for their weights.
fn tuned(bench: &Bench, lds_kib: u32) -> Hardware {
    let choice = Choice {
        lanes: 0,
        threads: 256,
        blocks: 1,
        hint_kib: 0,
        lds_kib,
    };
    Hardware {
        tuning: Tuning::uniform(choice),
        ..bench.hardware.clone()
    }
}

/// Weights in registers and, where they can come through LDS, with as much of it as leaves two slots to most types,
/// and to all.
fn ways(bench: &Bench) -> Vec<Hardware> {
    let mut ways = vec![tuned(bench, 0)];
    if bench.copies_in_bulk() {
        ways.extend([tuned(bench, 60), tuned(bench, ALL_LDS_KIB)]);
        // On which tasks are never few, so that waves take as many rows as they can.
        ways.push(Hardware {
            compute_units: 1,
            ..tuned(bench, ALL_LDS_KIB)
        });
    }
    ways
}

/// Room for two slots of the longest rows here.
const ALL_LDS_KIB: u32 = 216;

/// Rows that come through slots several times around.
pub fn streamed(bench: &Bench) {
    if !bench.copies_in_bulk() {
        eprintln!("SKIPPED: weights do not come through LDS on this device");
        return;
    }
    for (index, hardware) in ways(bench).iter().enumerate().skip(1) {
        for &dtype in DType::RUNNABLE {
            for k in [4864, 11_008] {
                for (n, blocks) in [(1, 1), (67, 3), (400, 2)] {
                    let mut launch = geometry::gemv(hardware, shape(dtype, n, k, false));
                    launch.geometry.grid[0] = blocks;
                    assert!(index == 1 || launch.ring.is_some(), "{launch:?}");
                    check_gemv(bench, dtype, n, k, launch, n != 400);
                }
            }
        }
    }
}

pub fn gemv(bench: &Bench) {
    for hardware in ways(bench) {
        for &dtype in DType::RUNNABLE {
            for &k in widths(dtype) {
                for n in [1, 2, 67] {
                    let launch = geometry::gemv(&hardware, shape(dtype, n, k, false));
                    check_gemv(bench, dtype, n, k, launch, n != 2);
                }
            }
        }
    }
}

/// Shapes that the geometry would not choose at these sizes: few blocks that walk many rows each, and as
/// many as there are pairs.
pub fn every_group(bench: &Bench) {
    let hardware = tuned(bench, 0);
    for &dtype in DType::RUNNABLE {
        let (n, k) = (71, if dtype.block_len() == 1 { 577 } else { 768 });
        for lanes in [8, 16, 32, 64]
            .into_iter()
            .filter(|&lanes| lanes <= bench.wave)
        {
            for (threads, blocks) in [(64, 36), (256, 1), (256, 3)] {
                let mut launch = geometry::gemv(&hardware, shape(dtype, n, k, false));
                launch.geometry.block = [lanes, threads / lanes, 1];
                launch.geometry.grid = [blocks, 1, 1];
                launch.hinted_bytes = 3000 * blocks;
                check_gemv(bench, dtype, n, k, launch, false);
            }
        }
    }
}

pub fn long_rows(bench: &Bench) {
    let k = 256 * 129;
    assert!(k * 80 / 32 > 2 * geometry::STAGED_BYTES as usize);
    for &dtype in DType::RUNNABLE {
        let mut launch = geometry::gemv(&bench.hardware, shape(dtype, 5, k, false));
        launch.geometry.grid[0] = 1;
        check_gemv(bench, dtype, 5, k, launch, false);
    }
}

pub fn gemv3(bench: &Bench) {
    for hardware in &ways(bench) {
        for &dtype in DType::RUNNABLE {
            for n in [[5usize, 3, 4], [64, 33, 0], [1, 1, 1], [37, 0, 20]] {
                let (k, mut rng) = (if dtype.block_len() == 1 { 72 } else { 256 }, Rng::new(7));
                let products = Products::new(bench, &mut rng, dtype, n, k);
                let (x, exact) = activations(&mut rng, dtype, k);
                let x = bench.bytes(&x);
                let shape = GemvShape {
                    n: n.map(|n| n as u32),
                    ..shape(dtype, 0, k, false)
                };
                products.launch(bench, (&x, None), None, geometry::gemv(hardware, shape));
                for i in 0..3 {
                    let want: Vec<_> = (0..n[i])
                        .map(|row| products.w[i].dot(row, &exact))
                        .collect();
                    let place = format!("gemv3 {dtype} {n:?} matrix {i}");
                    assert_near(&bench.read_floats(&products.y[i]), &want, BOUND, &place);
                }
            }
        }
    }
}

/// A norm in the prologue gives the bits that the norm's own kernel and the product give one after the other.
pub fn normed(bench: &Bench) {
    for hardware in &ways(bench) {
        for &dtype in DType::RUNNABLE {
            let widths: &[usize] = match dtype.block_len() {
                1 => &[1, 7, 577, 1024, 8192],
                32 => &[32, 576, 4096],
                _ => &[256, 1280],
            };
            for &k in widths {
                let mut rng = Rng::new(k as u64);
                let (x, weight) = (normal(&mut rng, k), normal(&mut rng, k));
                let mut padded = x.clone();
                // A row's padding may hold anything.
                padded.resize(k.next_multiple_of(16), f32::NAN);
                let (x, norm) = (bench.floats(&padded), bench.floats(&weight));
                let step = bench.step(0, 1);
                let k_ = k as u32;
                let stride = row_bytes(k) as u32;
                let between = match dtype.is_float() {
                    true => {
                        let y = bench.nans(k.next_multiple_of(16));
                        let args = args![&step, &x, 0u32, &norm, EPS, &y, 0u32, k_, 1u32, 1u32];
                        bench.launch("rms_norm", geometry::rms_norm(k_, 1, 1), args);
                        y
                    }
                    false => {
                        let y = bench.nans(row_bytes(k) / 4);
                        let args = args![&step, &x, 0u32, &norm, EPS, &y, stride, k_, 1u32];
                        bench.launch(
                            "rms_norm_quantize",
                            geometry::rms_norm_quantize(k_, 1),
                            args,
                        );
                        y
                    }
                };
                let products = Products::new(bench, &mut rng, dtype, [9, 0, 0], k);
                let launch = geometry::gemv(hardware, shape(dtype, 9, k, true));
                products.launch(bench, (&between, None), None, launch);
                let want = bench.read(&products.y[0]);
                let again = Products {
                    y: [9, 0, 0].map(|n| bench.nans(n)),
                    ..products
                };
                again.launch(bench, (&x, Some(&norm)), None, launch);
                assert_eq!(
                    bench.read(&again.y[0]),
                    want,
                    "normed gemv {dtype} [9, {k}]"
                );
            }
        }
    }
}

pub fn activated(x: f64, kind: u32) -> f64 {
    if kind == 0 {
        x / (1.0 + (-x).exp())
    } else {
        let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
        0.5 * x * (1.0 + u.tanh())
    }
}

/// Gate and up: as f32 against f64, and as blocks against the f32 rounded by the CPU.
pub fn gated(bench: &Bench) {
    for hardware in &ways(bench) {
        for &dtype in DType::RUNNABLE {
            for (n, kind, blocks) in [(1usize, 0u32, 1), (35, 1, 2), (160, 0, 3), (200, 0, 7)] {
                // Of the last, tasks are a few rows each, and some runs have rows in three blocks.
                let k = match dtype.block_len() {
                    _ if n == 200 => 4096,
                    1 => 130,
                    _ => 512,
                };
                let mut rng = Rng::new(11);
                let w = [(); 2].map(|()| Matrix::new(&mut rng, dtype, n, k));
                let (x, exact) = activations(&mut rng, dtype, k);
                let (step, x) = (bench.step(0, 1), bench.bytes(&x));
                let packed = [0, 1].map(|i| bench.bytes(&w[i].packed));
                let (shared, tickets) = (bench.nans(n), bench.bytes(&vec![0; 4 * n.div_ceil(32)]));
                let run = |y: &DeviceBuffer, quantizes: bool| {
                    let shape = GatedShape {
                        dtype,
                        n: n as u32,
                        k: k as u32,
                        normed: false,
                        quantizes,
                    };
                    let mut launch = geometry::gated_gemv(hardware, shape);
                    if quantizes {
                        // Some blocks have several runs, and some more than others.
                        launch.geometry.grid[0] = blocks;
                    }
                    let [each, more, pairs, bytes] = launch.deal_args();
                    let mut args = args![
                        &step,
                        &x,
                        None::<&DeviceBuffer>,
                        EPS,
                        k as u32,
                        &packed[0],
                        &packed[1],
                        w[0].stride(),
                        y,
                        n as u32,
                        kind,
                        u32::from(quantizes),
                        each,
                        more,
                        pairs,
                        bytes
                    ]
                    .to_vec();
                    if launch.ring.is_some() {
                        args.extend_from_slice(args![&shared, &tickets]);
                    }
                    bench.launch(&launch.kernel(), launch.geometry, &args);
                };
                let y = bench.nans(n);
                run(&y, false);
                let want: Vec<_> = (0..n)
                    .map(|row| {
                        let ((gate, gate_size), (up, up_size)) =
                            (w[0].dot(row, &exact), w[1].dot(row, &exact));
                        let active = activated(gate, kind);
                        // An error of the gate passes with a slope of at most 1.13, and e^x has one of its own.
                        (
                            active * up,
                            active.abs() * up_size + 2.0 * gate_size * up.abs(),
                        )
                    })
                    .collect();
                let got = bench.read_floats(&y);
                assert_near(&got, &want, 2e-6, &format!("gated {dtype} [{n}, {k}]"));

                let blocks_bytes = n.div_ceil(32) * BLOCK_BYTES;
                let y = bench.nans(blocks_bytes / 4);
                run(&y, true);
                let mut rounded = vec![0u8; row_bytes(n)];
                // SAFETY: a row, four-byte aligned as allocations of this size are, and the path is portable.
                unsafe { quantise_row(Isa::Portable, &got, rounded.as_mut_ptr()) };
                assert!(
                    bench.read(&y) == rounded[..blocks_bytes],
                    "gated {dtype} [{n}, {k}] quantised"
                );
                let left = bench.read(&tickets);
                assert!(left.iter().all(|&b| b == 0), "tickets are put back");
            }
        }
    }
}

pub fn gemm(bench: &Bench) {
    for &dtype in DType::RUNNABLE {
        let wide = widths(dtype)[widths(dtype).len() - 2];
        for (rows, live, n, k) in [
            (2, 2, 3, widths(dtype)[0]),
            (70, 66, 130, wide),
            (65, 64, 64, wide),
        ] {
            let mut rng = Rng::new((rows + n + k) as u64);
            let w = Matrix::new(&mut rng, dtype, n, k);
            let inputs: Vec<_> = (0..rows).map(|_| activations(&mut rng, dtype, k)).collect();
            let x_stride = inputs[0].0.len() as u32;
            let mut x: Vec<u8> = inputs.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
            // Rows that are not live hold NaN.
            x[live * x_stride as usize..].fill(0xff);
            let added = normal(&mut rng, rows * n);
            let (step, x, packed) = (
                bench.step(0, live as u32),
                bench.bytes(&x),
                bench.bytes(&w.packed),
            );
            let (addend, y) = (bench.floats(&added), bench.nans(rows * n));
            let residual = n == 130;
            let (n_, k_, stride) = (n as u32, k as u32, 4 * n as u32);
            let args = args![
                &step,
                &x,
                x_stride,
                &packed,
                w.stride(),
                residual.then_some(&addend),
                stride,
                &y,
                stride,
                n_,
                k_,
                rows as u32
            ];
            bench.launch(&name("gemm", dtype), geometry::gemm(n_, rows as u32), args);
            let got = bench.read_floats(&y);
            for (r, got) in got.chunks_exact(n).enumerate() {
                if r >= live {
                    assert!(
                        got.iter().all(|v| v.is_nan()),
                        "gemm {dtype}: row {r} is not live"
                    );
                    continue;
                }
                let want: Vec<_> = (0..n)
                    .map(|i| {
                        let (sum, size) = w.dot(i, &inputs[r].1);
                        let added = if residual {
                            f64::from(added[r * n + i])
                        } else {
                            0.0
                        };
                        (sum + added, size + added.abs())
                    })
                    .collect();
                assert_near(
                    got,
                    &want,
                    BOUND,
                    &format!("gemm {dtype} [{rows}, {n}, {k}] row {r}"),
                );
            }
        }
    }
}
