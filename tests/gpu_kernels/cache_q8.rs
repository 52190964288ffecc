//! Caches of 8 bits: what is appended has the CPU's bits, and attention agrees with its formula in f64 over what the
//! cache holds, where the scales of unseen positions are NaN.

use super::bench::{Bench, assert_near, normal};
use crate::args;
use crate::support::rng::Rng;
use greta_infer::cpu::activation::{BLOCK_BYTES, quantise_row, row_bytes};
use greta_infer::cpu::isa::Isa;
use greta_infer::cpu::kv::{CacheShape, kv_append};
use greta_infer::cpu::rope::rope;
use greta_infer::gpu::geometry;
use greta_infer::graph::{KvType, RopeStyle};
use half::f16;

/// What a value may be off by, relative to Σ weight · |v|.
const BOUND: f64 = 4e-6;

#[derive(Clone, Copy, Debug)]
struct Shape {
    h: usize,
    g: usize,
    d: usize,
    s: usize,
    window: usize,
    position: usize,
    rows: usize,
}

struct Case {
    shape: Shape,
    q: Vec<f32>,
    /// As the device has them.
    k: Vec<u8>,
    v: Vec<u8>,
    scale: f32,
}

impl Shape {
    fn first_seen(self, position: usize) -> usize {
        if self.window == 0 {
            0
        } else {
            (position + 1).saturating_sub(self.window)
        }
    }
}

impl Case {
    /// A cache in which only positions that some row sees are finite.
    fn new(rng: &mut Rng, shape: Shape) -> Case {
        let Shape {
            h,
            g,
            d,
            s,
            position,
            rows,
            ..
        } = shape;
        let first = shape.first_seen(position);
        let cache_shape = CacheShape {
            heads: g,
            capacity: s,
            head: d,
            kv_type: KvType::Q8_0,
        };
        let mut cache = || -> Vec<u8> {
            let x = normal(rng, (position + rows - first) * g * d);
            let (rows, width) = (x.len() / (g * d), g * d);
            let mut cache = vec![f16::NAN.to_bits(); cache_shape.bytes() / 2];
            let (isa, to) = (Isa::Portable, cache.as_mut_ptr().cast());
            // SAFETY: the cache has the bytes of its shape, which has room for the rows.
            unsafe { kv_append(isa, x.as_ptr(), width, to, cache_shape, first, rows, (0, 1)) };
            cache.into_iter().flat_map(u16::to_le_bytes).collect()
        };
        let (k, v) = (cache(), cache());
        let q = normal(rng, rows * h * d);
        let scale = 1.0 / (d as f32).sqrt();
        Case {
            shape,
            q,
            k,
            v,
            scale,
        }
    }

    /// One element of a cache.
    fn element(&self, cache: &[u8], at: usize) -> f64 {
        let scales = self.shape.g * self.shape.s * self.shape.d;
        let scale = &cache[scales + at / 32 * 2..][..2];
        let scale = f16::from_le_bytes([scale[0], scale[1]]).to_f64();
        f64::from(cache[at].cast_signed()) * scale
    }

    fn expected(&self, r: usize) -> Vec<(f64, f64)> {
        let Shape {
            h,
            g,
            d,
            s,
            position,
            ..
        } = self.shape;
        let here = position + r;
        let mut out = Vec::new();
        for head in 0..h {
            let at = |cache: &[u8], p: usize, i: usize| {
                self.element(cache, (head / (h / g) * s + p) * d + i)
            };
            let q = &self.q[(r * h + head) * d..][..d];
            let first = self.shape.first_seen(here);
            let score = |p: usize| -> f64 {
                (0..d)
                    .map(|i| f64::from(q[i]) * at(&self.k, p, i))
                    .sum::<f64>()
                    * f64::from(self.scale)
            };
            let scores: Vec<f64> = (first..=here).map(score).collect();
            let peak = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - peak).exp()).collect();
            let total: f64 = weights.iter().sum();
            out.extend((0..d).map(|i| {
                let terms = weights
                    .iter()
                    .enumerate()
                    .map(|(p, w)| w / total * at(&self.v, first + p, i));
                terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()))
            }));
        }
        out
    }
}

/// Heads, K/V heads, and their size.
const HEADS: &[(usize, usize, usize)] = &[
    (9, 3, 64),
    (5, 1, 128),
    (8, 1, 256),
    (3, 3, 128),
    (6, 2, 96),
    (2, 1, 32),
];

pub fn split(bench: &Bench) {
    let mut rng = Rng::new(21);
    for &(h, g, d) in HEADS {
        for (s, position, window, split) in [
            (64, 0, 0, 64),
            (200, 150, 0, 64),
            (200, 199, 0, 16),
            (700, 650, 90, 16),
            (700, 600, 0, 16),
            (700, 650, 0, 256),
            (700, 699, 555, 512),
        ] {
            let shape = Shape {
                h,
                g,
                d,
                s,
                window,
                position,
                rows: 1,
            };
            let case = Case::new(&mut rng, shape);
            let (step, q) = (bench.step(position as u32, 1), bench.floats(&case.q));
            let (k, v) = (bench.bytes(&case.k), bench.bytes(&case.v));
            let splits = s.div_ceil(split);
            let partials = bench.nans(h * splits * (d.next_multiple_of(16) + 16));
            let [h_, g_, d_, s_, split_, window_] = [h, g, d, s, split, window].map(|n| n as u32);
            let geometry = geometry::attention_split(g_, s_, split_);
            let args = args![
                &step, &q, &k, &v, &partials, h_, g_, d_, s_, split_, window_, case.scale
            ];
            bench.launch("attention_split_q8", geometry, args);
            let (y, geometry) = (bench.nans(h * d), geometry::attention_combine(h_, d_));
            let args = args![&step, &partials, &y, h_, d_, s_, split_, window_];
            bench.launch("attention_combine", geometry, args);
            let got = bench.read_floats(&y);
            assert_near(
                &got,
                &case.expected(0),
                BOUND,
                &format!("{shape:?} split {split}"),
            );
            let mut want = vec![0u8; row_bytes(h * d)];
            // SAFETY: `want` is a row, four-byte aligned as allocations of this size are, and the path is portable.
            unsafe { quantise_row(Isa::Portable, &got, want.as_mut_ptr()) };
            let blocks = (h * d).div_ceil(32) * BLOCK_BYTES;
            let y = bench.nans(blocks / 4);
            let args = args![&step, &partials, &y, h_, d_, s_, split_, window_];
            bench.launch("attention_combine_quantize", geometry, args);
            assert_eq!(bench.read(&y), want[..blocks], "{shape:?} quantised");
        }
    }
}

pub fn rows(bench: &Bench) {
    let mut rng = Rng::new(22);
    for &(h, g, d) in HEADS {
        for (s, position, window, rows, live) in
            [(32, 0, 0, 7, 7), (96, 60, 0, 5, 3), (300, 250, 33, 6, 6)]
        {
            let shape = Shape {
                h,
                g,
                d,
                s,
                window,
                position,
                rows,
            };
            // Rows that are not live have no keys either.
            let case = Case::new(
                &mut rng,
                Shape {
                    rows: live,
                    ..shape
                },
            );
            let mut q = case.q.clone();
            q.resize(rows * h * d, f32::NAN);
            let (step, q) = (bench.step(position as u32, live as u32), bench.floats(&q));
            let (k, v) = (bench.bytes(&case.k), bench.bytes(&case.v));
            let (y, stride) = (bench.nans(rows * h * d), (4 * h * d) as u32);
            let [h_, g_, d_, s_, window_, rows_] = [h, g, d, s, window, rows].map(|n| n as u32);
            let args = args![
                &step, &q, stride, &k, &v, &y, stride, h_, g_, d_, s_, window_, case.scale, rows_
            ];
            bench.launch(
                "attention_rows_q8",
                geometry::attention_rows(h_, g_, rows_),
                args,
            );
            let got = bench.read_floats(&y);
            for (r, got) in got.chunks_exact(h * d).enumerate() {
                if r < live {
                    assert_near(got, &case.expected(r), BOUND, &format!("{shape:?} row {r}"));
                } else {
                    assert!(got.iter().all(|v| v.is_nan()), "row {r} is not live");
                }
            }
        }
    }
}

/// Rows appended in 8 bits have the CPU's bits, turned ones too, and nothing else is written.
pub fn append(bench: &Bench) {
    let mut rng = Rng::new(23);
    for (h, g, d, dims, style, position, rows, live) in [
        (9, 3, 64, 64, 0u32, 5, 1, 1),
        (9, 3, 64, 64, 1, 0, 7, 5),
        (2, 1, 32, 20, 1, 3, 3, 3),
        (4, 4, 96, 64, 0, 30, 2, 2),
        (2, 2, 256, 256, 1, 1, 2, 1),
    ] {
        let s = 32usize;
        let q = normal(&mut rng, rows * h * d);
        let [k, v] = [(); 2].map(|()| normal(&mut rng, rows * g * d));
        let table: Vec<f32> = (0..rows * dims / 2)
            .flat_map(|_| {
                let (sin, cos) = rng.uniform(-3.0, 3.0).sin_cos();
                [cos as f32, sin as f32]
            })
            .collect();
        let turned = |x: &[f32], heads: usize| -> Vec<f32> {
            let mut y = vec![0f32; x.len()];
            let style = match style {
                0 => RopeStyle::Interleaved,
                _ => RopeStyle::Half,
            };
            for r in 0..rows {
                let (at, table) = (r * heads * d, table[r * dims..].as_ptr());
                let (x, y) = (x[at..].as_ptr(), y[at..].as_mut_ptr());
                // SAFETY: row r has heads · d elements, its table `dims`; the portable path runs everywhere.
                unsafe { rope(Isa::Portable, x, y, heads, d, table, style, dims) };
            }
            y
        };
        let shape = CacheShape {
            heads: g,
            capacity: s,
            head: d,
            kv_type: KvType::Q8_0,
        };
        let appended = |x: &[f32]| -> Vec<u8> {
            let mut cache = vec![0xffffu16; shape.bytes() / 2];
            let (to, width, part) = (cache.as_mut_ptr().cast(), g * d, (0, 1));
            let isa = Isa::Portable;
            // SAFETY: the cache has the bytes of its shape, which has room for the rows.
            unsafe { kv_append(isa, x.as_ptr(), width, to, shape, position, live, part) };
            cache.into_iter().flat_map(u16::to_le_bytes).collect()
        };
        let step = bench.step(position as u32, live as u32);
        let buffers = [&q, &k, &v, &table].map(|x| bench.floats(x));
        let [qs, ks, vs, ts] = &buffers;
        let (q_stride, kv_stride, t_stride) = (4 * h * d, 4 * g * d, 4 * dims);
        let [q_, kv_, t_] = [q_stride, kv_stride, t_stride].map(|n| n as u32);
        let [h_, g_, d_, s_, rows_, dims_] = [h, g, d, s, rows, dims].map(|n| n as u32);
        let empty = || [(); 2].map(|()| bench.bytes(&vec![0xff; shape.bytes()]));
        let what = format!("H={h} G={g} D={d} dims={dims} style={style} rows={rows}");

        let [kc, vc] = &empty();
        let args = args![&step, ks, kv_, vs, kv_, kc, vc, g_, d_, s_, rows_];
        let geometry = geometry::append_q8(2 * g_, d_, rows_);
        bench.launch("kv_append_q8", geometry, args);
        assert_eq!(bench.read(kc), appended(&k), "{what}: keys");
        assert_eq!(bench.read(vc), appended(&v), "{what}: values");

        let [kc, vc] = &empty();
        let y = bench.nans(rows * h * d);
        let args = args![
            &step, qs, q_, ks, kv_, vs, kv_, ts, t_, &y, q_, kc, vc, h_, g_, d_, dims_, style, s_,
            rows_
        ];
        let geometry = geometry::append_q8(h_ + 2 * g_, d_, rows_);
        bench.launch("rope_append_q8", geometry, args);
        assert_eq!(
            bench.read(kc),
            appended(&turned(&k, g)),
            "{what}: turned keys"
        );
        assert_eq!(bench.read(vc), appended(&v), "{what}: values beside them");
        let (got, want) = (bench.read_floats(&y), turned(&q, h));
        assert_eq!(got[..live * h * d], want[..live * h * d], "{what}: queries");
        assert!(got[live * h * d..].iter().all(|v| v.is_nan()), "{what}");
    }
}
