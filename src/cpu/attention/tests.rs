//! Prompt and decode attention against the formula in f64, over caches whose unseen positions are NaN.

use super::*;
use crate::cpu::test_data::Random;
use half::f16;

struct Case {
    shape: AttentionShape,
    q: Vec<f32>,
    k: Vec<u16>,
    v: Vec<u16>,
    base: usize,
    rows: usize,
}

impl Case {
    /// A cache in which only positions that some row sees are finite.
    fn new(shape: AttentionShape, base: usize, rows: usize, random: &mut Random) -> Case {
        let seen = shape.first_seen(base)..base + rows;
        let mut cache = || {
            let mut cache = vec![f16::NAN.to_bits(); shape.cache.elements()];
            for g in 0..shape.cache.heads {
                for s in seen.clone() {
                    let at = shape.cache.row(g, s);
                    for (to, x) in cache[at..].iter_mut().zip(random.normal(shape.cache.head)) {
                        *to = f16::from_f32(x).to_bits();
                    }
                }
            }
            cache
        };
        let (k, v) = (cache(), cache());
        let q = random.normal(rows * shape.heads * shape.cache.head);
        Case {
            shape,
            q,
            k,
            v,
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
            f16::from_bits(cache[(g * shape.cache.capacity + s) * d + i]).to_f64()
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
                    self.k.as_ptr(),
                    self.v.as_ptr(),
                    self.base,
                    self.rows,
                    (out.as_mut_ptr(), stride),
                    (part, parts),
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
                    self.k.as_ptr(),
                    self.v.as_ptr(),
                    self.base,
                    partials.as_mut_ptr(),
                    (part, parts),
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
        },
        scale: 1.0 / (d as f32).sqrt(),
        window,
        split_len: 64,
    }
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
