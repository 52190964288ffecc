//! Attention against its formula in f64, over caches whose unseen positions are NaN.

use super::bench::{Bench, assert_near, normal};
use crate::args;
use crate::support::rng::Rng;
use greta_infer::cpu::activation::{BLOCK_BYTES, quantise_row, row_bytes};
use greta_infer::cpu::isa::Isa;
use greta_infer::cpu::rope::{rope, rope_table};
use greta_infer::gpu::geometry::{self, Geometry};
use greta_infer::graph::{Rope, RopeStyle, Yarn};
use greta_infer::hip::DeviceBuffer;
use half::f16;
use std::ops::Range;

/// What a value may be off by, relative to Σ weight · |v|.
pub const BOUND: f64 = 4e-6;

#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub h: usize,
    pub g: usize,
    pub d: usize,
    pub s: usize,
    pub window: usize,
    pub position: usize,
    pub rows: usize,
}

/// What a cache's elements are, and which kernels read them.
pub trait Stored: Copy {
    /// What the kernels' names end with.
    const SUFFIX: &'static str;

    /// A cache of normal values at the positions `seen`, and of what gives NaN elsewhere.
    fn cache(rng: &mut Rng, shape: Shape, seen: Range<usize>) -> Vec<Self>;

    /// Element `at` of [G, S, D].
    fn element(cache: &[Self], shape: Shape, at: usize) -> f64;

    fn upload(bench: &Bench, cache: &[Self]) -> DeviceBuffer;
}

impl Stored for f16 {
    const SUFFIX: &'static str = "";

    fn cache(rng: &mut Rng, shape: Shape, seen: Range<usize>) -> Vec<f16> {
        let Shape { g, d, s, .. } = shape;
        let value = |i: usize| match seen.contains(&(i / d % s)) {
            true => f16::from_f64(rng.normal()),
            false => f16::NAN,
        };
        (0..g * s * d).map(value).collect()
    }

    fn element(cache: &[f16], _: Shape, at: usize) -> f64 {
        cache[at].to_f64()
    }

    fn upload(bench: &Bench, cache: &[f16]) -> DeviceBuffer {
        let bytes = cache.iter().flat_map(|v| v.to_le_bytes());
        bench.bytes(&bytes.collect::<Vec<_>>())
    }
}

pub struct Case<E> {
    shape: Shape,
    q: Vec<f32>,
    k: Vec<E>,
    v: Vec<E>,
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

impl<E: Stored> Case<E> {
    fn new(rng: &mut Rng, shape: Shape) -> Self {
        let Shape { h, d, rows, .. } = shape;
        let seen = shape.first_seen(shape.position)..shape.position + rows;
        let (k, v) = (
            E::cache(rng, shape, seen.clone()),
            E::cache(rng, shape, seen),
        );
        Case {
            shape,
            q: normal(rng, rows * h * d),
            k,
            v,
            scale: 1.0 / (d as f32).sqrt(),
        }
    }

    fn upload(&self, bench: &Bench) -> (DeviceBuffer, DeviceBuffer) {
        (E::upload(bench, &self.k), E::upload(bench, &self.v))
    }

    /// Row `r` of the output, and Σ weight · |v| of each element.
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
            let at = |cache: &[E], p: usize, i: usize| {
                E::element(cache, self.shape, (head / (h / g) * s + p) * d + i)
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
pub type Heads = (usize, usize, usize);

const HEADS: &[Heads] = &[
    (2, 2, 8),
    (9, 3, 64),
    (4, 1, 80),
    (5, 1, 128),
    (8, 1, 256),
    (3, 3, 128),
    (2, 1, 24),
];

/// Capacity, position, window, rows, and live ones.
pub type Rows = (usize, usize, usize, usize, usize);

pub const ROWS: &[Rows] = &[(32, 0, 0, 7, 7), (96, 60, 0, 5, 3), (300, 250, 33, 6, 6)];

pub fn split(bench: &Bench) {
    one_row::<f16>(bench, HEADS);
}

pub fn rows(bench: &Bench) {
    many_rows::<f16>(bench, HEADS, ROWS, BOUND, &|[h, g, _, rows]| {
        let geometry = geometry::attention_rows(h, g, rows);
        ("attention_rows".into(), geometry)
    });
}

/// One row in splits and their combination, rounded and not.
pub fn one_row<E: Stored>(bench: &Bench, heads: &[Heads]) {
    let mut rng = Rng::new(21);
    for &(h, g, d) in heads {
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
            let case = Case::<E>::new(&mut rng, shape);
            let (step, q) = (bench.step(position as u32, 1), bench.floats(&case.q));
            let (k, v) = case.upload(bench);
            let splits = s.div_ceil(split);
            let partials = bench.nans(h * splits * (d.next_multiple_of(16) + 16));
            let [h_, g_, d_, s_, split_, window_] = [h, g, d, s, split, window].map(|n| n as u32);
            let geometry = geometry::attention_split(g_, s_, split_);
            let args = args![
                &step, &q, &k, &v, &partials, h_, g_, d_, s_, split_, window_, case.scale
            ];
            bench.launch(&format!("attention_split{}", E::SUFFIX), geometry, args);
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

/// Several rows at once, of which the first are live. `kernel` gives the name for H, G, D and rows.
pub fn many_rows<E: Stored>(
    bench: &Bench,
    heads: &[Heads],
    rows: &[Rows],
    bound: f64,
    kernel: &dyn Fn([u32; 4]) -> (String, Geometry),
) {
    let mut rng = Rng::new(22);
    for &(h, g, d) in heads {
        for &(s, position, window, rows, live) in rows {
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
            let case = Case::<E>::new(
                &mut rng,
                Shape {
                    rows: live,
                    ..shape
                },
            );
            let mut q = case.q.clone();
            q.resize(rows * h * d, f32::NAN);
            let (step, q) = (bench.step(position as u32, live as u32), bench.floats(&q));
            let (k, v) = case.upload(bench);
            let (y, stride) = (bench.nans(rows * h * d), (4 * h * d) as u32);
            let [h_, g_, d_, s_, window_, rows_] = [h, g, d, s, window, rows].map(|n| n as u32);
            let args = args![
                &step, &q, stride, &k, &v, &y, stride, h_, g_, d_, s_, window_, case.scale, rows_
            ];
            let (kernel, geometry) = kernel([h_, g_, d_, rows_]);
            bench.launch(&format!("{kernel}{}", E::SUFFIX), geometry, args);
            let got = bench.read_floats(&y);
            for (r, got) in got.chunks_exact(h * d).enumerate() {
                if r < live {
                    assert_near(got, &case.expected(r), bound, &format!("{shape:?} row {r}"));
                } else {
                    assert!(got.iter().all(|v| v.is_nan()), "row {r} is not live");
                }
            }
        }
    }
}

/// Bits of f16 of k and v turned and not, as the CPU computes them.
fn own_row(row: &[f32], angles: &[f32], d: usize, dims: usize, style: RopeStyle) -> Vec<f16> {
    let mut out = vec![0.0; row.len()];
    let (x, y) = (row.as_ptr(), out.as_mut_ptr());
    // SAFETY: both are whole heads, the table has all pairs, and the path is portable.
    unsafe {
        rope(
            Isa::Portable,
            x,
            y,
            row.len() / d,
            d,
            angles.as_ptr(),
            style,
            dims,
        )
    };
    out.into_iter().map(f16::from_f32).collect()
}

/// From q, k and v as the products leave them to the output and the caches, with one block and with several, whose last
/// one merges: twice over the same tickets.
pub fn step(bench: &Bench) {
    let mut rng = Rng::new(23);
    for &(h, g, d) in HEADS {
        for (s, position, window, blocks, style, whole) in [
            (64, 0, 0, 1, RopeStyle::Half, true),
            (200, 63, 0, 4, RopeStyle::Interleaved, true),
            (200, 64, 0, 4, RopeStyle::Half, false),
            (700, 699, 0, 4, RopeStyle::Interleaved, true),
            (700, 650, 90, 3, RopeStyle::Half, true),
            (700, 600, 0, 8, RopeStyle::Half, false),
            (700, 255, 0, 11, RopeStyle::Interleaved, true),
            (700, 256, 0, 9, RopeStyle::Half, true),
            (700, 511, 100, 11, RopeStyle::Half, true),
            (700, 512, 0, 5, RopeStyle::Interleaved, false),
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
            let mut case = Case::<f16>::new(&mut rng, shape);
            let dims = if whole { d } else { d / 2 };
            let mut angles = vec![0.0; dims];
            let rope_of = Rope {
                dims: dims as u32,
                base: 10_000.0,
                position_scale: 1.0,
                yarn: Yarn::NONE,
            };
            rope_table(position, &rope_of, None, &mut angles);
            let (k, v) = (normal(&mut rng, g * d), normal(&mut rng, g * d));
            let (k_row, v_row) = (
                own_row(&k, &angles, d, dims, style),
                v.iter().map(|&v| f16::from_f32(v)).collect::<Vec<_>>(),
            );
            let mut before = [case.k.clone(), case.v.clone()];
            for (which, row) in [&k_row, &v_row].into_iter().enumerate() {
                for head in 0..g {
                    let at = (head * s + position) * d;
                    // What the step itself appends is not there before.
                    before[which][at..at + d].fill(f16::NAN);
                    let cache = if which == 0 { &mut case.k } else { &mut case.v };
                    cache[at..at + d].copy_from_slice(&row[head * d..][..d]);
                }
            }
            let mut turned = vec![0.0; h * d];
            let (x, y) = (case.q.as_ptr(), turned.as_mut_ptr());
            // SAFETY: both are whole heads, the table has all pairs, and the path is portable.
            unsafe { rope(Isa::Portable, x, y, h, d, angles.as_ptr(), style, dims) };
            let q = bench.floats(&case.q);
            case.q = turned;

            let step = bench.step(position as u32, 1);
            let [h_, g_, d_, s_, window_, dims_] = [h, g, d, s, window, dims].map(|n| n as u32);
            let style_ = u32::from(style == RopeStyle::Half);
            let (k, v, table) = (bench.floats(&k), bench.floats(&v), bench.floats(&angles));
            let partials = bench.nans(h * blocks * (d.next_multiple_of(16) + 16));
            let tickets = bench.bytes(&vec![0; 4 * h]);
            let (kernel, geometry) = geometry::attention_step(h_, g_, d_, blocks as u32);
            let place = format!("{shape:?} blocks {blocks} {style} {dims}");
            let run = |y: &DeviceBuffer, quantize: u32| {
                let caches = [0, 1].map(|i| f16::upload(bench, &before[i]));
                let args = args![
                    &step, &q, &k, &v, &table, &caches[0], &caches[1], &partials, &tickets, y, h_,
                    g_, d_, dims_, style_, s_, window_, case.scale, quantize
                ];
                bench.launch(kernel, geometry, args);
                for (which, want) in [&case.k, &case.v].into_iter().enumerate() {
                    let want: Vec<u8> = want.iter().flat_map(|v| v.to_le_bytes()).collect();
                    assert!(bench.read(&caches[which]) == want, "{place}: cache {which}");
                }
                assert!(
                    bench.read(&tickets).iter().all(|&b| b == 0),
                    "{place}: tickets"
                );
            };
            let y = bench.nans(h * d);
            run(&y, 0);
            let got = bench.read_floats(&y);
            assert_near(&got, &case.expected(0), BOUND, &place);
            if (h / g * d).is_multiple_of(32) {
                let mut want = vec![0u8; row_bytes(h * d)];
                // SAFETY: as in `split`.
                unsafe { quantise_row(Isa::Portable, &got, want.as_mut_ptr()) };
                let bytes = h * d / 32 * BLOCK_BYTES;
                let y = bench.nans(bytes / 4);
                run(&y, 1);
                assert!(bench.read(&y) == want[..bytes], "{place} quantised");
            }
        }
    }
}
