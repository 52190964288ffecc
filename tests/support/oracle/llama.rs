//! A whole Llama forward pass in f64 over named tensors.

use super::blocks::Format;
use super::math::{Attention, Rope, RopeTable, gemm, rms_norm, swiglu};
use half::f16;
use std::collections::BTreeMap;

/// A tensor as a file holds it.
#[derive(Clone, Debug)]
pub struct RawTensor {
    /// Its name in a GGUF file, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// Its ggml type id.
    pub ggml_id: u32,
    /// Its shape, outermost first: `[N, K]` or `[N]`.
    pub shape: Vec<usize>,
    /// Its blocks.
    pub bytes: Vec<u8>,
}

/// The numbers that a Llama model's metadata holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hyper {
    /// Transformer layers.
    pub layers: usize,
    /// `H`.
    pub heads: usize,
    /// `G`.
    pub kv_heads: usize,
    /// `D`.
    pub head_size: usize,
    /// RMSNorm's epsilon.
    pub eps: f64,
    /// RoPE's base.
    pub theta: f64,
    /// Where rotated pairs lie.
    pub rope: Rope,
}

/// Which of the runtime's documented roundings the oracle imitates.
///
/// `EXACT` is the truth. The others say how far from it a correct implementation is expected to be, so that a test's
/// tolerance is derived and not guessed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rounding {
    /// Round activations to integers of at most this magnitude, with one scale in 32, before a GEMM by quantised weights.
    pub activation_levels: Option<f64>,
    /// Keep keys and values as f16, or as Q8_0.
    pub kv: Kv,
}

/// How the oracle keeps keys and values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kv {
    Exact,
    F16,
    Q8,
}

impl Rounding {
    /// No rounding at all.
    pub const EXACT: Rounding = Rounding {
        activation_levels: None,
        kv: Kv::Exact,
    };
    /// What the runtime does.
    pub const RUNTIME: Rounding = Rounding {
        activation_levels: Some(ACTIVATION_LEVELS),
        kv: Kv::F16,
    };
}

/// The largest integer that the runtime rounds an activation to: 127 in the high one of two planes of 7 bits each.
pub const ACTIVATION_LEVELS: f64 = 16_256.0;

struct Matrix {
    values: Vec<f64>,
    columns: usize,
    quantised: bool,
}

/// A model, all weights dequantised to f64.
pub struct Llama {
    hyper: Hyper,
    tensors: BTreeMap<String, Matrix>,
}

impl Llama {
    /// Dequantise `tensors`. Panics if a tensor's bytes do not fit its shape.
    pub fn new<'a>(hyper: Hyper, tensors: impl IntoIterator<Item = &'a RawTensor>) -> Llama {
        let tensors = tensors
            .into_iter()
            .map(|t| {
                let format = Format::by_id(t.ggml_id);
                let values = format.dequantise(&t.bytes);
                assert_eq!(
                    values.len(),
                    t.shape.iter().product::<usize>(),
                    "{}: bytes and shape disagree",
                    t.name
                );
                let matrix = Matrix {
                    values,
                    columns: t.shape[t.shape.len() - 1],
                    quantised: !format.is_float(),
                };
                (t.name.clone(), matrix)
            })
            .collect();
        Llama { hyper, tensors }
    }

    /// Logits `[T, V]` of every position of `tokens`, from an empty cache.
    pub fn logits(&self, tokens: &[u32], rounding: Rounding) -> Vec<f64> {
        let Hyper { eps, theta, .. } = self.hyper;
        let (heads, kv_heads) = (self.hyper.heads, self.hyper.kv_heads);
        let head_size = self.hyper.head_size;
        let factors = self.tensors.get("rope_freqs.weight");
        let rope = RopeTable::new(
            self.hyper.rope,
            head_size,
            theta,
            factors.map(|f| f.values.as_slice()),
        );
        let attention = Attention::causal(heads, kv_heads, head_size);
        let embedding = self.tensor("token_embd.weight");
        let mut x: Vec<f64> = tokens
            .iter()
            .flat_map(|&t| &embedding.values[t as usize * embedding.columns..][..embedding.columns])
            .copied()
            .collect();
        for layer in 0..self.hyper.layers {
            let name = |part: &str| format!("blk.{layer}.{part}.weight");
            let multiply = |part: &str, x: &[f64]| self.multiply(&name(part), x, rounding);
            let norm = |part: &str, x: &[f64]| rms_norm(x, &self.tensor(&name(part)).values, eps);

            let h = norm("attn_norm", &x);
            let mut q = multiply("attn_q", &h);
            let mut k = multiply("attn_k", &h);
            let mut v = multiply("attn_v", &h);
            for position in 0..tokens.len() {
                let row =
                    |heads: usize| position * heads * head_size..(position + 1) * heads * head_size;
                rope.rotate(&mut q[row(heads)], head_size, position);
                rope.rotate(&mut k[row(kv_heads)], head_size, position);
            }
            for rows in [&mut k, &mut v] {
                keep(rows, rounding.kv);
            }
            let y = attention.run(&q, &k, &v, 0);
            add(&mut x, &multiply("attn_output", &y));

            let h = norm("ffn_norm", &x);
            let y = swiglu(&multiply("ffn_gate", &h), &multiply("ffn_up", &h));
            add(&mut x, &multiply("ffn_down", &y));
        }
        let h = rms_norm(&x, &self.tensor("output_norm.weight").values, eps);
        let output = if self.tensors.contains_key("output.weight") {
            "output.weight"
        } else {
            "token_embd.weight"
        };
        self.multiply(output, &h, rounding)
    }

    fn tensor(&self, name: &str) -> &Matrix {
        self.tensors
            .get(name)
            .unwrap_or_else(|| panic!("{name}: not among the oracle's tensors"))
    }

    fn multiply(&self, name: &str, x: &[f64], rounding: Rounding) -> Vec<f64> {
        let weight = self.tensor(name);
        match rounding.activation_levels.filter(|_| weight.quantised) {
            Some(levels) => {
                let rounded: Vec<f64> = x
                    .chunks_exact(weight.columns)
                    .flat_map(|row| row.chunks(32).flat_map(|block| round(block, levels)))
                    .collect();
                gemm(&rounded, &weight.values, weight.columns)
            }
            None => gemm(x, &weight.values, weight.columns),
        }
    }
}

/// The values that `block` has after rounding to integers with scale `max|x| / levels`.
fn round(block: &[f64], levels: f64) -> Vec<f64> {
    let scale = block.iter().fold(0.0, |m: f64, v| m.max(v.abs())) / levels;
    let round = |v: &f64| {
        if scale == 0.0 {
            0.0
        } else {
            (v / scale).round_ties_even() * scale
        }
    };
    block.iter().map(round).collect()
}

/// Rounds rows of keys or values, whole heads one after the other, as the cache does.
fn keep(rows: &mut [f64], kv: Kv) {
    match kv {
        Kv::Exact => {}
        Kv::F16 => rows
            .iter_mut()
            .for_each(|e| *e = f16::from_f64(*e).to_f64()),
        // ggml's Q8_0: integers by the exact scale, which is then kept as f16.
        Kv::Q8 => {
            for block in rows.chunks_exact_mut(32) {
                let scale = block.iter().fold(0.0, |m: f64, v| m.max(v.abs())) / 127.0;
                let kept = f16::from_f64(scale).to_f64();
                for v in block.iter_mut().filter(|_| scale > 0.0) {
                    *v = (*v / scale).round() * kept;
                }
            }
        }
    }
}

fn add(x: &mut [f64], y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(a, b)| *a += b);
}
