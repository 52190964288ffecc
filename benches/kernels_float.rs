//! The float kernels and the team, in bytes or elements a second. Each bench asserts its answer before it is timed.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use greta_infer::cpu::attention::{
    AttentionShape, attention_combine, attention_decode, attention_prompt,
};
use greta_infer::cpu::gemm_f::float_kernel;
use greta_infer::cpu::isa::Isa;
use greta_infer::cpu::kv::{CacheShape, kv_append};
use greta_infer::cpu::norm::rms_norm;
use greta_infer::cpu::panel::LANES;
use greta_infer::cpu::silu::silu_mul;
use greta_infer::cpu::team::Team;
use greta_infer::dtype::DType;
use greta_infer::graph::KvType;
use half::f16;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

/// One `run` holding 1,000 barriers, and one holding none.
fn team(criterion: &mut Criterion) {
    for threads in [1, 2] {
        let team = Team::new(threads).expect("the threads start");
        let total = AtomicU64::new(0);
        team.run(&|worker| {
            worker.barrier();
            total.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(total.load(Ordering::Relaxed), threads as u64);
        criterion.bench_function(&format!("team/1000 barriers/{threads}"), |bencher| {
            bencher.iter(|| {
                team.run(&|worker| {
                    for _ in 0..1000 {
                        worker.barrier();
                    }
                })
            });
        });
        criterion.bench_function(&format!("team/run/{threads}"), |bencher| {
            bencher.iter(|| {
                team.run(&|worker| {
                    black_box(worker.index);
                })
            });
        });
        criterion.bench_function(&format!("team/wake after 1 ms/{threads}"), |bencher| {
            bencher.iter_custom(|rounds| {
                (0..rounds)
                    .map(|_| {
                        std::thread::sleep(std::time::Duration::from_millis(1));
                        let start = std::time::Instant::now();
                        team.run(&|worker| {
                            black_box(worker.index);
                        });
                        start.elapsed()
                    })
                    .sum()
            });
        });
    }
}

/// Small numbers in a fixed pattern, exact in f16 and without structure a kernel could profit from.
fn pattern(n: usize, salt: u32) -> Vec<f32> {
    (0..n as u32)
        .map(|i| {
            let hash = (i ^ salt).wrapping_mul(0x9e37_79b9).rotate_left(15);
            (hash.wrapping_mul(0x85eb_ca6b) >> 24) as f32 / 128.0 - 1.0
        })
        .collect()
}

fn halves(x: &[f32]) -> Vec<u16> {
    x.iter().map(|&x| f16::from_f32(x).to_bits()).collect()
}

fn assert_close(found: f32, expected: f64, size: f64) {
    let error = (f64::from(found) - expected).abs();
    assert!(error <= 1e-5 * size, "expected {expected}, found {found}");
}

/// A cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([f32; 16]);

/// At least `n` f32, 64-byte aligned.
fn aligned(n: usize) -> Vec<Line> {
    vec![Line([0.0; 16]); n.div_ceil(16)]
}

/// Decode: panels of one matrix after another, more than the caches hold. Bytes are the weights'.
fn gemv(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gemv");
    const BYTES: usize = 256 << 20;
    for isa in Isa::available() {
        for dtype in [DType::F16, DType::F32] {
            for k in [576, 1536] {
                let row_bytes = dtype.row_bytes(k).expect("whole rows");
                let rows = BYTES / row_bytes / LANES * LANES;
                let w = pattern(rows * row_bytes / dtype.block_bytes(), 1);
                let bytes: Vec<u8> = match dtype {
                    DType::F16 => halves(&w).iter().flat_map(|h| h.to_ne_bytes()).collect(),
                    _ => w.iter().flat_map(|w| w.to_ne_bytes()).collect(),
                };
                let x = pattern(k, 2);
                let kernel = float_kernel(isa, dtype, k, 1).expect("a float type");
                let mut tile = aligned(LANES);
                let mut run = |panel: usize| {
                    // SAFETY: the panel is inside `bytes`, one row needs no scratch, and the tile holds 16 f32.
                    unsafe {
                        (kernel.func)(
                            bytes.as_ptr().add(panel * LANES * row_bytes),
                            LANES,
                            k,
                            x.as_ptr().cast(),
                            k * 4,
                            1,
                            tile.as_mut_ptr().cast(),
                            std::ptr::null_mut(),
                        );
                    }
                    tile[0].0
                };
                let sums = run(3);
                for j in 0..LANES {
                    let products =
                        (0..k).map(|i| f64::from(x[i]) * f64::from(w[(3 * LANES + j) * k + i]));
                    assert_close(
                        sums[j],
                        products.clone().sum(),
                        products.map(f64::abs).sum(),
                    );
                }
                // A step's worth of panels at a time, walking on through the whole buffer.
                let panels = rows / LANES;
                let batch = panels.min((8 << 20) / (LANES * row_bytes));
                let mut next = 0;
                group.throughput(Throughput::Bytes((batch * LANES * row_bytes) as u64));
                group.bench_function(format!("{isa}/{dtype}/K={k}"), |bencher| {
                    bencher.iter(|| {
                        for _ in 0..batch {
                            black_box(run(next));
                            next = (next + 1) % panels;
                        }
                    });
                });
            }
        }
    }
}

/// Prompt: 128 activation rows by 36 panels. Elements are multiply-adds.
fn gemm(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gemm");
    let (rows, panels) = (128, 36);
    for isa in Isa::available() {
        for dtype in [DType::F16, DType::F32] {
            for k in [576, 1536] {
                let w = pattern(panels * LANES * k, 1);
                let bytes: Vec<u8> = match dtype {
                    DType::F16 => halves(&w).iter().flat_map(|h| h.to_ne_bytes()).collect(),
                    _ => w.iter().flat_map(|w| w.to_ne_bytes()).collect(),
                };
                let x = pattern(rows * k, 2);
                let kernel = float_kernel(isa, dtype, k, rows).expect("a float type");
                let mut scratch = aligned(kernel.scratch_bytes / 4);
                let mut tile = aligned(kernel.panels * rows * LANES);
                let panel_bytes = LANES * k * dtype.block_bytes();
                let mut run = |panel: usize| {
                    // SAFETY: the panels are inside `bytes`, their number being even; the other buffers have the sizes the kernel asks for.
                    unsafe {
                        (kernel.func)(
                            bytes.as_ptr().add(panel * panel_bytes),
                            kernel.panels * LANES,
                            k,
                            x.as_ptr().cast(),
                            k * 4,
                            rows,
                            tile.as_mut_ptr().cast(),
                            scratch.as_mut_ptr().cast(),
                        );
                    }
                    tile[rows - 1].0
                };
                let sums = run(2);
                for j in 0..LANES {
                    let products = (0..k).map(|i| {
                        f64::from(x[(rows - 1) * k + i]) * f64::from(w[(2 * LANES + j) * k + i])
                    });
                    assert_close(
                        sums[j],
                        products.clone().sum(),
                        products.map(f64::abs).sum(),
                    );
                }
                group.throughput(Throughput::Elements((rows * panels * LANES * k) as u64));
                group.bench_function(format!("{isa}/{dtype}/K={k}"), |bencher| {
                    bencher.iter(|| {
                        for panel in (0..panels).step_by(kernel.panels) {
                            black_box(run(panel));
                        }
                    });
                });
            }
        }
    }
}

/// A cache full of a pattern, and the values it holds.
fn stored(shape: CacheShape, seed: u32) -> (Vec<u16>, Vec<f32>) {
    let width = shape.heads * shape.head;
    let x = pattern(shape.elements(), seed);
    let mut cache = vec![0u16; shape.bytes() / 2];
    let to = cache.as_mut_ptr().cast();
    // SAFETY: the cache has the bytes of its shape and x a row a position.
    unsafe {
        let isa = Isa::Portable;
        kv_append(isa, x.as_ptr(), width, to, shape, 0, shape.capacity, (0, 1));
    }
    let bytes: Vec<u8> = cache.iter().flat_map(|h| h.to_ne_bytes()).collect();
    let float = |at: usize| f32::from_ne_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
    let half = |at: usize| f16::from_ne_bytes([bytes[at], bytes[at + 1]]).to_f32();
    let value = |at: usize| match shape.kv_type {
        KvType::F32 => float(4 * at),
        KvType::F16 => half(2 * at),
        KvType::Q8_0 => f32::from(bytes[at].cast_signed()) * half(shape.elements() + at / 32 * 2),
    };
    let values = (0..shape.elements()).map(value).collect();
    (cache, values)
}

/// Attention of SmolLM2-135M's and Llama-2-7B's heads. Prompt in multiply-adds over what is seen, decode in bytes of the
/// cache.
fn attention(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("attention");
    let types = KvType::ALL.into_iter();
    let isas = types.flat_map(|t| Isa::available().into_iter().map(move |isa| (isa, t)));
    for (isa, kv_type) in isas {
        for (heads, kv_heads, head) in [(9, 3, 64), (4, 4, 128), (8, 2, 128)] {
            for context in [512, 4096] {
                let cache = CacheShape {
                    heads: kv_heads,
                    capacity: context,
                    head,
                    kv_type,
                };
                let shape = AttentionShape {
                    heads,
                    cache,
                    scale: 1.0 / (head as f32).sqrt(),
                    window: None,
                    split_len: 64,
                };
                let rows = 128;
                let base = context - rows;
                let (k_stored, k) = stored(cache, 3);
                let (v_stored, v) = stored(cache, 4);
                let width = heads * head;
                let q = pattern(rows * width, 5);
                let mut out = vec![0.0f32; rows * width];
                let mut partials = aligned(shape.partials_len());
                let mut scratch = aligned(shape.scratch_bytes() / 4);
                let last = (rows - 1) * width;
                let expected: Vec<(f64, f64)> = {
                    let scores: Vec<f64> = (0..context)
                        .map(|s| {
                            let dot: f64 = (0..head)
                                .map(|i| f64::from(q[last + i]) * f64::from(k[s * head + i]))
                                .sum();
                            (dot / (head as f64).sqrt()).exp()
                        })
                        .collect();
                    let total: f64 = scores.iter().sum();
                    (0..head)
                        .map(|i| {
                            let terms = (0..context)
                                .map(|s| scores[s] / total * f64::from(v[s * head + i]));
                            (terms.clone().sum(), terms.map(f64::abs).sum())
                        })
                        .collect()
                };
                let name = format!("{isa}/{kv_type}/H={heads} G={kv_heads} D={head}/{context}");
                let mut prompt = |out: &mut [f32]| {
                    // SAFETY: every buffer has the size its shape says.
                    unsafe {
                        attention_prompt(
                            isa,
                            &shape,
                            (q.as_ptr(), width),
                            k_stored.as_ptr().cast(),
                            v_stored.as_ptr().cast(),
                            base,
                            rows,
                            (out.as_mut_ptr(), width),
                            0..shape.prompt_units(rows),
                            scratch.as_mut_ptr().cast(),
                        );
                    }
                };
                prompt(&mut out);
                for (i, &(expected, size)) in expected.iter().enumerate() {
                    assert_close(out[last + i], expected, size);
                }
                let seen: usize = (base + 1..=context).sum();
                group.throughput(Throughput::Elements((2 * seen * width) as u64));
                group.bench_function(format!("prompt/{name}"), |bencher| {
                    bencher.iter(|| prompt(black_box(&mut out)));
                });
                let mut decode = |out: &mut [f32]| {
                    // SAFETY: as above.
                    unsafe {
                        attention_decode(
                            isa,
                            &shape,
                            q[last..].as_ptr(),
                            k_stored.as_ptr().cast(),
                            v_stored.as_ptr().cast(),
                            context - 1,
                            partials.as_mut_ptr().cast(),
                            0..shape.decode_units(context - 1),
                            scratch.as_mut_ptr().cast(),
                        );
                        attention_combine(
                            isa,
                            &shape,
                            partials.as_ptr().cast(),
                            context - 1,
                            out.as_mut_ptr(),
                            (0, 1),
                        );
                    }
                };
                decode(&mut out);
                for (i, &(expected, size)) in expected.iter().enumerate() {
                    assert_close(out[i], expected, size);
                }
                group.throughput(Throughput::Bytes((2 * cache.bytes()) as u64));
                group.bench_function(format!("decode/{name}"), |bencher| {
                    bencher.iter(|| decode(black_box(&mut out)));
                });
            }
        }
    }
}

/// Rows in the first-level cache, as a step finds them. Elements are the row's.
fn rows(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rows");
    for isa in Isa::available() {
        for n in [576, 1536] {
            let (x, w) = (pattern(n, 6), pattern(n, 7));
            let mut y = vec![0.0f32; n];
            let norm = |y: &mut [f32]| {
                // SAFETY: the three hold `n` elements.
                unsafe { rms_norm(isa, x.as_ptr(), w.as_ptr(), 1e-5, y.as_mut_ptr(), n) }
            };
            norm(&mut y);
            let mean = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n as f64;
            let expected = f64::from(x[0]) * f64::from(w[0]) / (mean + 1e-5).sqrt();
            assert_close(y[0], expected, expected.abs());
            group.throughput(Throughput::Elements(n as u64));
            group.bench_function(format!("rms_norm/{isa}/{n}"), |bencher| {
                bencher.iter(|| norm(black_box(&mut y)));
            });
            let silu = |y: &mut [f32]| {
                // SAFETY: the three hold `n` elements.
                unsafe { silu_mul(isa, x.as_ptr(), w.as_ptr(), y.as_mut_ptr(), n) }
            };
            silu(&mut y);
            let gate = f64::from(x[0]);
            let expected = gate / (1.0 + (-gate).exp()) * f64::from(w[0]);
            assert_close(y[0], expected, expected.abs());
            group.bench_function(format!("silu_mul/{isa}/{n}"), |bencher| {
                bencher.iter(|| silu(black_box(&mut y)));
            });
        }
    }
}

criterion_group!(benches, team, gemv, gemm, attention, rows);
criterion_main!(benches);
