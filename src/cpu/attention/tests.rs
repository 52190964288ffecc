//! Prompt and decode attention against the formula in f64, over caches whose unseen positions are NaN.

use super::*;
use crate::cpu::kv::kv_append;
use crate::cpu::team::share;
use crate::cpu::test_data::Random;
use crate::graph::KvType;
use half::f16;

struct Case {
    shape: AttentionShape,
    q: Vec<f32>,
    k: Vec<u16>,
    v: Vec<u16>,
    base: usize,
    rows: usize,
}

/// One element of a cache, as stored.
fn element(shape: &CacheShape, cache: &[u16], at: usize) -> f64 {
    match shape.kv_type {
        KvType::F32 => {
            let halves = [cache[2 * at], cache[2 * at + 1]].map(u16::to_ne_bytes);
            let bytes = halves.as_flattened().try_into().expect("four bytes");
            f64::from(f32::from_ne_bytes(bytes))
        }
        KvType::F16 => f16::from_bits(cache[at]).to_f64(),
        KvType::Q8_0 => {
            let q = cache[at / 2].to_ne_bytes()[at % 2].cast_signed();
            let scale = cache[shape.elements() / 2 + at / 32];
            f64::from(q) * f16::from_bits(scale).to_f64()
        }
    }
}

/// A half that is NaN, and a float that is where two stand side by side.
const NAN: u16 = 0x7fc0;

/// A cache in which only the rows of `values [rows][G·D]`, from `first` on, are finite.
fn cache_of(shape: &CacheShape, values: &[f32], first: usize) -> Vec<u16> {
    let mut cache = vec![NAN; shape.bytes() / 2];
    let width = shape.heads * shape.head;
    let (to, rows) = (cache.as_mut_ptr().cast(), values.len() / width);
    // SAFETY: the cache has the bytes of its shape and the values are whole rows that it has room for.
    unsafe {
        let isa = Isa::Portable;
        kv_append(isa, values.as_ptr(), width, to, *shape, first, rows, (0, 1));
    }
    cache
}

impl Case {
    /// A cache in which only positions that some row sees are finite.
    fn new(shape: AttentionShape, base: usize, rows: usize, random: &mut Random) -> Case {
        let first = shape.first_seen(base);
        let len = (base + rows - first) * shape.cache.heads * shape.cache.head;
        let (k, v) = (random.normal(len), random.normal(len));
        Case {
            shape,
            q: random.normal(rows * shape.heads * shape.cache.head),
            k: cache_of(&shape.cache, &k, first),
            v: cache_of(&shape.cache, &v, first),
            base,
            rows,
        }
    }

    /// softmax(scale · q Kᵀ) V for row `r` and query head `h`, in f64, and Σ weight · |v|, which errors are relative to.
    fn expected(&self, r: usize, h: usize) -> Vec<(f64, f64)> {
        let (d, shape) = (self.shape.cache.head, &self.shape);
        let position = self.base + r;
        let first = shape.window.map_or(0, |w| (position + 1).saturating_sub(w));
        let g = h / (shape.heads / shape.cache.heads);
        let at = |cache: &[u16], s: usize, i: usize| {
            element(&shape.cache, cache, shape.cache.row(g, s) + i)
        };
        let q = &self.q[(r * shape.heads + h) * d..][..d];
        let scores: Vec<f64> = (first..=position)
            .map(|s| {
                let dot: f64 = (0..d).map(|i| f64::from(q[i]) * at(&self.k, s, i)).sum();
                dot * f64::from(shape.scale)
            })
            .collect();
        let peak = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - peak).exp()).collect();
        let total: f64 = weights.iter().sum();
        (0..d)
            .map(|i| {
                let terms = weights
                    .iter()
                    .enumerate()
                    .map(|(s, w)| w / total * at(&self.v, first + s, i));
                (terms.clone().sum(), terms.map(f64::abs).sum())
            })
            .collect()
    }

    /// [`Case::expected`] of every row and head, as the output lies.
    fn expected_output(&self) -> Vec<(f64, f64)> {
        (0..self.rows)
            .flat_map(|r| (0..self.shape.heads).flat_map(move |h| self.expected(r, h)))
            .collect()
    }

    fn assert_output(&self, out: &[f32], all: &[(f64, f64)], what: &str) {
        let d = self.shape.cache.head;
        for r in 0..self.rows {
            for h in 0..self.shape.heads {
                for i in 0..d {
                    let at = (r * self.shape.heads + h) * d + i;
                    let ((expected, size), found) = (all[at], f64::from(out[at]));
                    assert!(
                        (found - expected).abs() <= 3e-6 * size,
                        "{what} [{r}, {h}, {i}]: expected {expected}, found {found}"
                    );
                }
            }
        }
    }

    fn prompt(&self, isa: Isa, parts: usize) -> Vec<f32> {
        let stride = self.shape.heads * self.shape.cache.head;
        let mut out = vec![f32::NAN; self.rows * stride];
        for part in 0..parts {
            let mut scratch = vec![f32::NAN; self.shape.scratch_bytes() / 4];
            // SAFETY: every buffer has the size its shape says and `isa` is available.
            unsafe {
                attention_prompt(
                    isa,
                    &self.shape,
                    (self.q.as_ptr(), stride),
                    self.k.as_ptr().cast(),
                    self.v.as_ptr().cast(),
                    self.base,
                    self.rows,
                    (out.as_mut_ptr(), stride),
                    share(self.shape.prompt_units(self.rows), part, parts),
                    scratch.as_mut_ptr().cast(),
                );
            }
        }
        out
    }

    fn decode(&self, isa: Isa, parts: usize) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.shape.heads * self.shape.cache.head];
        let mut partials = vec![f32::NAN; self.shape.partials_len()];
        // SAFETY: as for `prompt`; every part is done before the first is combined.
        unsafe {
            for part in 0..parts {
                let mut scratch = vec![f32::NAN; self.shape.scratch_bytes() / 4];
                attention_decode(
                    isa,
                    &self.shape,
                    self.q.as_ptr(),
                    self.k.as_ptr().cast(),
                    self.v.as_ptr().cast(),
                    self.base,
                    partials.as_mut_ptr(),
                    share(self.shape.decode_units(self.base), part, parts),
                    scratch.as_mut_ptr().cast(),
                );
            }
            for part in 0..parts {
                attention_combine(
                    isa,
                    &self.shape,
                    partials.as_ptr(),
                    self.base,
                    out.as_mut_ptr(),
                    (part, parts),
                );
            }
        }
        out
    }
}

fn shape(heads: usize, kv_heads: usize, d: usize, window: Option<usize>) -> AttentionShape {
    AttentionShape {
        heads,
        cache: CacheShape {
            heads: kv_heads,
            capacity: 211,
            head: d,
            kv_type: KvType::F16,
        },
        scale: 1.0 / (d as f32).sqrt(),
        window,
        split_len: 64,
    }
}

fn kept_in(kv_type: KvType, mut shape: AttentionShape) -> AttentionShape {
    shape.cache.kv_type = kv_type;
    shape
}

fn shapes() -> Vec<AttentionShape> {
    let mut shapes = Vec::new();
    let heads = [
        (1, 1, 8),
        (9, 3, 64),
        (4, 1, 72),
        (16, 2, 8),
        (7, 1, 80),
        (9, 1, 64),
    ];
    for (heads, kv_heads, d) in heads {
        for window in [None, Some(1), Some(40)] {
            shapes.push(shape(heads, kv_heads, d, window));
        }
    }
    for d in [96, 128, 256] {
        shapes.push(shape(4, 2, d, None));
    }
    let in_f16 = shapes.clone();
    for kv_type in [KvType::F32, KvType::Q8_0] {
        let of_blocks = in_f16
            .iter()
            .filter(|s| (s.cache.head as u32).is_multiple_of(kv_type.block_len()));
        shapes.extend(of_blocks.map(|&s| kept_in(kv_type, s)));
        shapes.push(kept_in(kv_type, shape(14, 2, 32, Some(70))));
    }
    shapes
}

#[test]
fn prompts_agree_with_the_formula() {
    let mut random = Random::from_clock();
    for shape in shapes() {
        for (base, rows) in [(0, 1), (0, 5), (3, 40), (190, 20)] {
            let case = Case::new(shape, base, rows, &mut random);
            let expected = case.expected_output();
            for isa in Isa::available() {
                let what = format!("{isa} {shape:?} base={base} rows={rows}");
                let out = case.prompt(isa, 1);
                case.assert_output(&out, &expected, &what);
                assert_eq!(
                    out,
                    case.prompt(isa, 3),
                    "{what}: threads change the result"
                );
            }
        }
    }
}

#[test]
fn decode_agrees_with_the_formula() {
    let mut random = Random::from_clock();
    for shape in shapes() {
        for position in [0, 15, 63, 64, 127, 210] {
            let case = Case::new(shape, position, 1, &mut random);
            let expected = case.expected_output();
            for isa in Isa::available() {
                let what = format!("{isa} {shape:?} position={position}");
                let out = case.decode(isa, 1);
                case.assert_output(&out, &expected, &what);
                assert_eq!(
                    out,
                    case.decode(isa, 4),
                    "{what}: threads change the result"
                );
            }
        }
    }
}

/// A row's result must not change, to the last bit, with what later rows of its chunk hold.
#[test]
fn later_positions_do_not_leak() {
    let mut random = Random::from_clock();
    let mut case = Case::new(shape(6, 2, 64, None), 30, 50, &mut random);
    for isa in Isa::available() {
        let before = case.prompt(isa, 1);
        for g in 0..2 {
            let at = case.shape.cache.row(g, 60);
            for x in &mut case.k[at..at + 20 * 64] {
                *x = f16::from_f32(1000.0).to_bits();
            }
            for x in &mut case.v[at..at + 20 * 64] {
                *x = f16::from_f32(-999.0).to_bits();
            }
        }
        let after = case.prompt(isa, 1);
        let row = 6 * 64;
        assert_eq!(before[..30 * row], after[..30 * row], "{isa}");
        assert_ne!(before[30 * row..], after[30 * row..], "{isa}");
        case = Case::new(case.shape, 30, 50, &mut random);
    }
}

#[test]
fn extreme_scores_stay_finite() {
    let mut random = Random::from_clock();
    let mut case = Case::new(shape(3, 1, 64, None), 100, 30, &mut random);
    case.q.iter_mut().for_each(|q| *q *= 300.0);
    for isa in Isa::available() {
        let out = case.prompt(isa, 1);
        assert!(out.iter().all(|x| x.is_finite()));
        case.q.truncate(3 * 64);
        assert!(case.decode(isa, 2).iter().all(|x| x.is_finite()));
        case.q = random
            .normal(30 * 3 * 64)
            .iter()
            .map(|q| q * 300.0)
            .collect();
    }
}

/// The same keys and values in both types: the difference stays below what rounding to 8 bits can do. A key is off by at
/// most 1/254 of its block's greatest magnitude, and half an f16 unit of the scale, so a score is off by at most δ; each
/// weight then changes by a factor of at most e^(2δ), and each value by as much as a key.
#[test]
fn eight_bits_stay_near_sixteen() {
    let mut random = Random::from_clock();
    for (heads, kv_heads, d) in [(9, 3, 64), (4, 2, 128), (8, 8, 32)] {
        let half = shape(heads, kv_heads, d, None);
        let (base, rows) = (170, 17);
        let width = kv_heads * d;
        let (keys, values) = (
            random.normal((base + rows) * width),
            random.normal((base + rows) * width),
        );
        let q = random.normal(rows * heads * d);
        let case = |shape: AttentionShape| Case {
            shape,
            q: q.clone(),
            k: cache_of(&shape.cache, &keys, 0),
            v: cache_of(&shape.cache, &values, 0),
            base,
            rows,
        };
        let (exact, rounded) = (case(half), case(kept_in(KvType::Q8_0, half)));
        let error = |row: &[f32], i: usize| {
            let block = &row[i / 32 * 32..][..32];
            let greatest = block.iter().fold(0f32, |m, v| m.max(v.abs()));
            f64::from(greatest) * (1.0 / 254.0 + 1.0 / 1024.0)
        };
        for isa in Isa::available() {
            let (a, b) = (exact.prompt(isa, 1), rounded.prompt(isa, 1));
            for at in (0..a.len()).step_by(d) {
                let (r, h) = (at / (heads * d), at / d % heads);
                let g = h / (heads / kv_heads);
                let row = |all: &'_ [f32], s: usize| all[s * width + g * d..][..d].to_vec();
                let seen = 0..base + r + 1;
                let delta = seen.clone().map(|s| {
                    let key = row(&keys, s);
                    let terms = (0..d).map(|i| f64::from(q[at + i].abs()) * error(&key, i));
                    terms.sum::<f64>() * f64::from(half.scale)
                });
                let factor = (2.0 * delta.fold(0.0, f64::max)).exp();
                let expected = exact.expected(r, h);
                for i in 0..d {
                    let worst = seen.clone().map(|s| error(&row(&values, s), i));
                    let bound =
                        (factor - 1.0) * expected[i].1 + factor * worst.fold(0.0, f64::max) + 1e-5;
                    let apart = f64::from((a[at + i] - b[at + i]).abs());
                    assert!(apart <= bound, "{isa} [{r}, {h}, {i}]: {apart} > {bound}");
                }
            }
            assert_ne!(a, b, "{isa}: one of them is not in its type");
        }
    }
}
