//! Caches of 8 bits: what is appended has the CPU's bits, and attention agrees with its formula in f64 over what the
//! cache holds, where the scales of unseen positions are NaN.

use super::attention::{BOUND, Heads, ROWS, Shape, Stored, many_rows, one_row};
use super::bench::{Bench, normal};
use crate::args;
use crate::support::rng::Rng;
use greta_infer::cpu::isa::Isa;
use greta_infer::cpu::kv::{CacheShape, kv_append};
use greta_infer::cpu::rope::rope;
use greta_infer::gpu::geometry;
use greta_infer::graph::{KvType, RopeStyle};
use greta_infer::hip::DeviceBuffer;
use half::f16;
use std::ops::Range;

/// An int8 of a cache, or a byte of its scales, which follow.
#[derive(Clone, Copy)]
struct Q8(u8);

impl Stored for Q8 {
    const SUFFIX: &'static str = "_q8";

    fn cache(rng: &mut Rng, shape: Shape, seen: Range<usize>) -> Vec<Q8> {
        let Shape { g, d, s, .. } = shape;
        let cache_shape = CacheShape {
            heads: g,
            capacity: s,
            head: d,
            kv_type: KvType::Q8_0,
        };
        let (rows, width) = (seen.len(), g * d);
        let x = normal(rng, rows * width);
        let mut cache = vec![f16::NAN.to_bits(); cache_shape.bytes() / 2];
        let (isa, to) = (Isa::Portable, cache.as_mut_ptr().cast());
        let first = seen.start;
        // SAFETY: the cache has the bytes of its shape, which has room for the rows.
        unsafe { kv_append(isa, x.as_ptr(), width, to, cache_shape, first, rows, (0, 1)) };
        cache
            .into_iter()
            .flat_map(u16::to_le_bytes)
            .map(Q8)
            .collect()
    }

    fn element(cache: &[Q8], shape: Shape, at: usize) -> f64 {
        let scales = shape.g * shape.s * shape.d;
        let [low, high] = [0, 1].map(|byte| cache[scales + at / 32 * 2 + byte].0);
        f64::from(cache[at].0.cast_signed()) * f16::from_le_bytes([low, high]).to_f64()
    }

    fn upload(bench: &Bench, cache: &[Q8]) -> DeviceBuffer {
        bench.bytes(&cache.iter().map(|byte| byte.0).collect::<Vec<_>>())
    }
}

const HEADS: &[Heads] = &[
    (9, 3, 64),
    (5, 1, 128),
    (8, 1, 256),
    (3, 3, 128),
    (6, 2, 96),
    (2, 1, 32),
];

pub fn split(bench: &Bench) {
    one_row::<Q8>(bench, HEADS);
}

pub fn rows(bench: &Bench) {
    many_rows::<Q8>(bench, HEADS, ROWS, BOUND, &|[h, g, _, rows]| {
        let geometry = geometry::attention_rows(h, g, rows);
        ("attention_rows".into(), geometry)
    });
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
