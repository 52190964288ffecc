//! Kernels that work row by row.

use super::bench::{Bench, assert_near, normal};
use super::matrices::activated;
use crate::args;
use crate::support::rng::Rng;
use greta_infer::cpu::activation::{BLOCK_BYTES, quantise_row, row_bytes};
use greta_infer::cpu::isa::Isa;
use greta_infer::gpu::geometry;
use greta_infer::graph::Yarn;
use greta_infer::hip::DeviceBuffer;

/// A value [rows, cols] with rows padded to 64 bytes of NaN, as the arena has them; and its stride.
fn padded(rows: &[Vec<f32>]) -> (Vec<f32>, u32) {
    let len = rows[0].len().next_multiple_of(16);
    let mut all = vec![f32::NAN; len * rows.len()];
    for (to, row) in all.chunks_exact_mut(len).zip(rows) {
        to[..row.len()].copy_from_slice(row);
    }
    (all, 4 * len as u32)
}

fn quantised(x: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0u8; row_bytes(x.len())];
    // SAFETY: `bytes` is a row, four-byte aligned as allocations of this size are, and the path is portable.
    unsafe { quantise_row(Isa::Portable, x, bytes.as_mut_ptr()) };
    bytes.truncate(x.len().div_ceil(32) * BLOCK_BYTES);
    bytes
}

pub fn quantize(bench: &Bench) {
    let mut rng = Rng::new(3);
    for cols in [1usize, 31, 32, 33, 576, 1537, 5000] {
        let rows: Vec<Vec<f32>> = (0..12)
            .map(|r| {
                let scale = 10f64.powf(rng.uniform(-30.0, 30.0));
                let mut x: Vec<f32> = (0..cols).map(|_| (rng.normal() * scale) as f32).collect();
                let specials = [
                    f32::NAN,
                    f32::INFINITY,
                    f32::NEG_INFINITY,
                    0.0,
                    -0.0,
                    f32::MAX,
                    1e-45,
                    f32::MIN_POSITIVE,
                    7.7e-34,
                ];
                let at = rng.below(cols);
                match r {
                    0..9 => x[at] = specials[r],
                    // The factor is one: halves must round to even.
                    9 => (0..cols).for_each(|i| {
                        x[i] = if i % 32 == 0 {
                            16256.0
                        } else {
                            i as f32 % 40.0 - 15.5
                        }
                    }),
                    10 => x.fill(0.0),
                    _ => {}
                }
                x
            })
            .collect();
        let (x, x_stride) = padded(&rows);
        let stride = row_bytes(cols);
        let (step, x, y) = (
            bench.step(0, 12),
            bench.floats(&x),
            bench.nans(12 * stride / 4),
        );
        let args = args![&step, &x, x_stride, &y, stride as u32, cols as u32, 12u32];
        bench.launch("quantize", geometry::quantize(cols as u32, 12), args);
        for (r, (got, x)) in bench.read(&y).chunks_exact(stride).zip(&rows).enumerate() {
            let want = quantised(x);
            for (b, (got, want)) in got
                .chunks_exact(BLOCK_BYTES)
                .zip(want.chunks_exact(BLOCK_BYTES))
                .enumerate()
            {
                assert_eq!(got, want, "row {r} of {cols} columns, block {b}");
            }
        }
    }
}

/// The formula, and the size of its result.
fn norm(x: &[f32], w: &[f32], eps: f64) -> Vec<(f64, f64)> {
    let mean = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / x.len() as f64;
    let scale = 1.0 / (mean + eps).sqrt();
    let value = |(&x, &w): (&f32, &f32)| f64::from(x) * f64::from(w) * scale;
    x.iter().zip(w).map(value).map(|y| (y, y.abs())).collect()
}

pub fn norms(bench: &Bench) {
    let mut rng = Rng::new(5);
    let eps = 1e-5f32;
    for (cols, groups) in [
        (1usize, 1usize),
        (7, 1),
        (576, 1),
        (576, 9),
        (4096, 1),
        (5003, 1),
        (16_384, 2),
    ] {
        let rows: Vec<Vec<f32>> = (0..3).map(|_| normal(&mut rng, cols)).collect();
        let n = cols / groups;
        let w = normal(&mut rng, n);
        let (x, stride) = padded(&rows);
        // Only two rows are live.
        let (step, x, weights) = (
            bench.step(0, 2),
            bench.floats(&x),
            bench.floats(&padded(std::slice::from_ref(&w)).0),
        );
        let y = bench.nans(3 * stride as usize / 4);
        let (c, g) = (cols as u32, groups as u32);
        let args = args![&step, &x, stride, &weights, eps, &y, stride, c, g, 3u32];
        bench.launch("rms_norm", geometry::rms_norm(c, g, 3), args);
        let got = bench.read_floats(&y);
        let got: Vec<&[f32]> = got.chunks_exact(stride as usize / 4).collect();
        for r in 0..2 {
            let want: Vec<_> = rows[r]
                .chunks_exact(n)
                .flat_map(|x| norm(x, &w, f64::from(eps)))
                .collect();
            assert_near(
                &got[r][..cols],
                &want,
                3e-7,
                &format!("rms_norm {cols} / {groups} row {r}"),
            );
        }
        assert!(got[2].iter().all(|v| v.is_nan()), "row 2 is not live");
        if groups > 1 {
            continue;
        }
        let y_stride = row_bytes(cols) as u32;
        let y = bench.nans(3 * y_stride as usize / 4);
        let args = args![&step, &x, stride, &weights, eps, &y, y_stride, c, 3u32];
        bench.launch("rms_norm_quantize", geometry::rms_norm_quantize(c, 3), args);
        for (r, bytes) in bench
            .read(&y)
            .chunks_exact(y_stride as usize)
            .enumerate()
            .take(2)
        {
            // What rms_norm gives, rounded: the same code makes both.
            assert_eq!(
                &bytes[..cols.div_ceil(32) * BLOCK_BYTES],
                quantised(&got[r][..cols]),
                "{cols} columns"
            );
        }
    }
}

pub fn elementwise(bench: &Bench) {
    let mut rng = Rng::new(6);
    for cols in [1usize, 3, 64, 577, 1026] {
        let mut rows = || -> Vec<Vec<f32>> {
            (0..3)
                .map(|_| normal(&mut rng, cols).iter().map(|v| v * 4.0).collect())
                .collect()
        };
        let (a, b) = (rows(), rows());
        let ((x, stride), (z, _)) = (padded(&a), padded(&b));
        let (step, x, z) = (bench.step(0, 2), bench.floats(&x), bench.floats(&z));
        let (c, geometry) = (cols as u32, geometry::elementwise(cols as u32, 3));
        let run = |kernel: &str, args: &dyn Fn(&greta_infer::hip::DeviceBuffer)| {
            let y = bench.nans(3 * stride as usize / 4);
            args(&y);
            let got = bench.read_floats(&y);
            let rows: Vec<Vec<f32>> = got
                .chunks_exact(stride as usize / 4)
                .map(<[f32]>::to_vec)
                .collect();
            assert!(
                rows[2].iter().all(|v| v.is_nan()),
                "{kernel}: row 2 is not live"
            );
            rows
        };
        let check = |kernel: &str, got: Vec<Vec<f32>>, want: &dyn Fn(f32, f32) -> f32| {
            for r in 0..2 {
                let want: Vec<f32> = a[r].iter().zip(&b[r]).map(|(&a, &b)| want(a, b)).collect();
                assert_eq!(&got[r][..cols], want, "{kernel}");
            }
        };
        let got = run("add", &|y| {
            bench.launch(
                "add",
                geometry,
                args![&step, &x, stride, &z, stride, y, stride, c, 3u32],
            );
        });
        check("add", got, &|a, b| a + b);
        let got = run("scale", &|y| {
            bench.launch(
                "scale",
                geometry,
                args![&step, &x, stride, 24.0f32, y, stride, c, 3u32],
            );
        });
        check("scale", got, &|a, _| a * 24.0);
        let got = run("add_bias", &|y| {
            bench.launch(
                "add_bias",
                geometry,
                args![&step, &x, stride, &z, y, stride, c, 3u32],
            );
        });
        for r in 0..2 {
            assert!(
                (0..cols).all(|i| got[r][i] == a[r][i] + b[0][i]),
                "add_bias"
            );
        }
        for kind in [0, 1] {
            let got = run("gated_mul", &|y| {
                let args = args![&step, &x, stride, &z, stride, y, stride, c, kind, 3u32];
                bench.launch("gated_mul", geometry, args);
            });
            for r in 0..2 {
                let value = |i: usize| activated(f64::from(a[r][i]), kind) * f64::from(b[r][i]);
                let want: Vec<_> = (0..cols)
                    .map(|i| (value(i), value(i).abs() + 1e-2))
                    .collect();
                assert_near(&got[r][..cols], &want, 2e-6, "gated_mul");
            }
        }
        let y = bench.nans(cols);
        bench.launch(
            "last_row",
            geometry::last_row(c),
            args![&step, &x, stride, &y, c, 3u32],
        );
        assert_eq!(bench.read_floats(&y), a[1], "last_row");
    }
}

pub fn rope(bench: &Bench) {
    let mut rng = Rng::new(8);
    let (position, rows, capacity) = (40u32, 3usize, 64usize);
    let yarn = |first, last, keep, magnitude| Yarn {
        first,
        last,
        keep,
        magnitude,
    };
    for (heads, kv, d, dims, style, yarn) in [
        (3usize, 1usize, 8usize, 8usize, 0u32, Yarn::NONE),
        (9, 3, 64, 64, 1, yarn(5.0, 20.0, 1.0, 1.25)),
        (4, 2, 80, 32, 1, yarn(3.0, 3.0, 0.5, 1.0)),
        (2, 2, 128, 96, 0, Yarn::NONE),
    ] {
        let (step, pairs) = (bench.step(position, rows as u32), dims / 2);
        let t_stride = 4 * dims.next_multiple_of(16);
        let factors: Vec<f32> = (0..pairs).map(|_| rng.uniform(0.5, 8.0) as f32).collect();
        let (factors_at, table) = (bench.floats(&factors), bench.nans(rows * t_stride / 4));
        let (base, stretch) = (500_000.0f64, 0.25f64);
        let geometry = geometry::rope_table(dims as u32, rows as u32);
        let args = args![
            &step,
            &factors_at,
            &table,
            t_stride as u32,
            dims as u32,
            base,
            stretch,
            f64::from(yarn.first),
            f64::from(yarn.last),
            f64::from(yarn.keep),
            yarn.magnitude,
            rows as u32
        ];
        bench.launch("rope_table", geometry, args);
        let angles = bench.read_floats(&table);
        for r in 0..rows {
            for (i, &factor) in factors.iter().enumerate() {
                let frequency = base.powf(-2.0 * i as f64 / dims as f64) / f64::from(factor);
                let kept = yarn.kept(i as u32);
                let stretch = stretch * (1.0 - kept) + kept;
                let angle = (f64::from(position) + r as f64) * stretch * frequency;
                let at = r * t_stride / 4 + 2 * i;
                let turned = [angle.cos(), angle.sin()].map(|x| x as f32 * yarn.magnitude);
                assert_eq!(angles[at..at + 2], turned, "row {r} pair {i}");
            }
        }
        // Turned on the host with the same table, each operation rounded on its own.
        let turned = |row: &[f32], r: usize| -> Vec<f32> {
            let mut out = row.to_vec();
            for head in out.chunks_exact_mut(d) {
                for i in 0..pairs {
                    let (a, b) = if style == 1 {
                        (i, i + pairs)
                    } else {
                        (2 * i, 2 * i + 1)
                    };
                    let (cos, sin) = (
                        angles[r * t_stride / 4 + 2 * i],
                        angles[r * t_stride / 4 + 2 * i + 1],
                    );
                    (head[a], head[b]) =
                        (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
                }
            }
            out
        };
        let mut make = |heads: usize| -> Vec<Vec<f32>> {
            (0..rows).map(|_| normal(&mut rng, heads * d)).collect()
        };
        let (q, k, v) = (make(heads), make(kv), make(kv));
        let ((qs, q_stride), (ks, k_stride), (vs, v_stride)) = (padded(&q), padded(&k), padded(&v));
        let (qs, ks, vs) = (bench.floats(&qs), bench.floats(&ks), bench.floats(&vs));
        let (h, g, s) = (heads as u32, kv as u32, capacity as u32);
        let (d_, dims_, r_, t) = (d as u32, dims as u32, rows as u32, t_stride as u32);
        let caches = || [(); 2].map(|()| bench.bytes(&vec![0xff; 2 * kv * capacity * d]));
        let check_cache = |buffer, rows: &[Vec<f32>], what: &str| {
            let cache = bench.read(buffer);
            for (i, got) in cache.as_chunks::<2>().0.iter().enumerate() {
                let (at, head, place) = (i % d, i / d / capacity, i / d % capacity);
                let row = place
                    .checked_sub(position as usize)
                    .filter(|&r| r < rows.len());
                let want = row.map_or([0xff; 2], |r| {
                    half::f16::from_f32(rows[r][head * d + at]).to_le_bytes()
                });
                let values = [*got, want].map(|b| half::f16::from_le_bytes(b).to_f32());
                // One rounding of f16 apart at most; where nothing was appended, not a bit.
                let near = (values[0] - values[1]).abs() <= values[1].abs() * 1e-3 + 1e-6;
                let good = if row.is_some() { near } else { *got == want };
                assert!(
                    good,
                    "{what} head {head} position {place} [{at}]: {values:?}"
                );
            }
        };
        let check_rows = |buffer, what: &str| {
            let y = bench.read_floats(buffer);
            for (r, (got, q)) in y.chunks_exact(q_stride as usize / 4).zip(&q).enumerate() {
                // Compilers fuse the two products of a turn differently, which moves the last bit.
                for (at, (got, want)) in got[..heads * d].iter().zip(turned(q, r)).enumerate() {
                    let near = (got - want).abs() <= 2e-6 * (1.0 + want.abs());
                    assert!(near, "{what} row {r} [{at}]: {got}, expected {want}");
                }
            }
        };
        let (y, c) = (bench.nans(rows * q_stride as usize / 4), caches());
        let args = args![
            &step, &qs, q_stride, &ks, k_stride, &vs, v_stride, &table, t, &y, q_stride, &c[0],
            &c[1], h, g, d_, dims_, style, s, r_
        ];
        bench.launch("rope_append", geometry::rope_append(h, g, d_, r_), args);
        let turned_keys: Vec<_> = k.iter().enumerate().map(|(r, k)| turned(k, r)).collect();
        check_rows(&y, "rope_append");
        check_cache(&c[0], &turned_keys, "keys");
        check_cache(&c[1], &v, "values");
        let (y, c) = (bench.nans(rows * q_stride as usize / 4), caches());
        let args = args![
            &step, &qs, q_stride, &table, t, &y, q_stride, h, d_, dims_, style, r_
        ];
        bench.launch("rope", geometry::rope(h, d_, r_), args);
        check_rows(&y, "rope");
        let args = args![
            &step, &ks, k_stride, &vs, v_stride, &c[0], &c[1], g, d_, s, r_
        ];
        bench.launch("kv_append", geometry::kv_append(g, d_, r_), args);
        check_cache(&c[0], &k, "appended keys");
        check_cache(&c[1], &v, "appended values");
    }
}

pub fn step_and_stream(bench: &Bench) {
    let words = |buffer: &DeviceBuffer| -> Vec<u32> {
        let bytes = bench.read(buffer);
        bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| u32::from_le_bytes(*b))
            .collect()
    };
    // 66 of 70 rows are live.
    let mut step: Vec<u32> = vec![17, 66, 0, 0];
    step.extend((0..70).map(|r| 500 + r));
    let bytes: Vec<u8> = step.iter().flat_map(|w| w.to_le_bytes()).collect();
    let (from, to, history) = (bench.bytes(&bytes), bench.nans(74), bench.nans(17 + 66 + 3));
    bench.launch(
        "step_fetch",
        geometry::step_fetch(),
        args![&from, &to, 70u32, &history],
    );
    assert_eq!(words(&to), step);
    let noted = words(&history);
    assert_eq!(noted[17..83], step[4..70]);
    assert!(
        noted[..17]
            .iter()
            .chain(&noted[83..])
            .all(|&w| w == u32::MAX)
    );
    let (step, history) = (bench.nans(5), bench.nans(9));
    let args = args![&step, 7u32, 4321u32, &history];
    bench.launch("step_set", geometry::step_set(), args);
    assert_eq!(words(&step), [7, 1, u32::MAX, u32::MAX, 4321]);
    assert_eq!(words(&history)[6..], [u32::MAX, 4321, u32::MAX]);
    let mut rng = Rng::new(10);
    for bytes in [16usize, 4096, 16 * 30_001] {
        let data: Vec<u8> = (0..bytes).map(|_| rng.byte()).collect();
        let (data, sink) = (bench.bytes(&data), bench.nans(1));
        let geometry = geometry::stream_read(bench.compute_units.min(8));
        bench.launch("stream_read", geometry, args![&data, bytes as u64, &sink]);
        assert_eq!(bench.read(&sink), [0xff; 4], "nothing is written");
    }
}
