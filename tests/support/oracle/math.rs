//! The operations of a Llama step in f64, each a direct transcription of its formula.

/// How the two coordinates of a rotated pair lie in a head of `D` elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rope {
    /// Pair `i` is elements `2i` and `2i + 1` (Llama GGUF files).
    Interleaved,
    /// Pair `i` is elements `i` and `i + rotary / 2` (Hugging Face's `rotate_half`).
    Halves,
}

/// `y [R, N] = x / sqrt(mean(x²) + eps) · weight`, row by row; `weight [N]`.
pub fn rms_norm(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    x.chunks_exact(weight.len())
        .flat_map(|row| {
            let mean = row.iter().map(|v| v * v).sum::<f64>() / row.len() as f64;
            let scale = 1.0 / (mean + eps).sqrt();
            row.iter().zip(weight).map(move |(v, w)| v * scale * w)
        })
        .collect()
}

/// `exp(x - max) / Σ exp(x - max)`. Minus infinity becomes exactly zero.
pub fn softmax(x: &[f64]) -> Vec<f64> {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exponentials: Vec<f64> = x.iter().map(|v| (v - max).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.iter().map(|e| e / sum).collect()
}

/// `y [R, N] = x [R, K] · Wᵀ`, `W [N, K]`.
pub fn gemm(x: &[f64], weight: &[f64], k: usize) -> Vec<f64> {
    x.chunks_exact(k)
        .flat_map(|row| {
            weight
                .chunks_exact(k)
                .map(move |w| row.iter().zip(w).map(|(a, b)| a * b).sum())
        })
        .collect()
}

/// The most that `y` of [`gemm`] can differ, element by element, when each 32 consecutive activations are rounded to
/// integers with scale `max|x| / levels`: `Σ over blocks of scale / 2 · Σ|w|`. Add a tolerance for f32 accumulation.
pub fn gemm_rounding_bound(x: &[f64], weight: &[f64], k: usize, levels: f64) -> Vec<f64> {
    x.chunks_exact(k)
        .flat_map(|row| {
            weight.chunks_exact(k).map(move |w| {
                row.chunks(32)
                    .zip(w.chunks(32))
                    .map(|(a, b)| {
                        let scale = a.iter().fold(0.0, |m: f64, v| m.max(v.abs())) / levels;
                        scale / 2.0 * b.iter().map(|v| v.abs()).sum::<f64>()
                    })
                    .sum()
            })
        })
        .collect()
}

/// `silu(gate) · up`, element by element, `silu(g) = g / (1 + exp(-g))`.
pub fn swiglu(gate: &[f64], up: &[f64]) -> Vec<f64> {
    gate.iter()
        .zip(up)
        .map(|(g, u)| g / (1.0 + (-g).exp()) * u)
        .collect()
}

/// What decides a rotation besides the position.
#[derive(Clone, Debug)]
pub struct RopeTable {
    /// Where pairs lie.
    pub style: Rope,
    /// Angle of pair `i` per position, before the factors: `theta^(-2i / rotary)`; one entry a pair.
    pub frequencies: Vec<f64>,
}

impl RopeTable {
    /// Pairs of the first `rotary` elements of a head. `factors [rotary / 2]` divide the frequencies (Llama 3.1's
    /// `rope_freqs.weight`).
    pub fn new(style: Rope, rotary: usize, theta: f64, factors: Option<&[f64]>) -> RopeTable {
        let frequencies = (0..rotary / 2)
            .map(|i| {
                let plain = theta.powf(-2.0 * i as f64 / rotary as f64);
                plain / factors.map_or(1.0, |f| f[i])
            })
            .collect();
        RopeTable { style, frequencies }
    }

    /// Rotate every head of `head_size` elements in `x` by `position`, in place. Elements past `rotary` stay.
    pub fn rotate(&self, x: &mut [f64], head_size: usize, position: usize) {
        let pairs = self.frequencies.len();
        for head in x.chunks_exact_mut(head_size) {
            for (i, frequency) in self.frequencies.iter().enumerate() {
                let (a, b) = match self.style {
                    Rope::Interleaved => (2 * i, 2 * i + 1),
                    Rope::Halves => (i, i + pairs),
                };
                let (sin, cos) = (position as f64 * frequency).sin_cos();
                let (x0, x1) = (head[a], head[b]);
                head[a] = x0 * cos - x1 * sin;
                head[b] = x0 * sin + x1 * cos;
            }
        }
    }
}

/// The shape of an attention call.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// `H`: query heads.
    pub heads: usize,
    /// `G`: key and value heads; query head `h` reads head `h / (H / G)`.
    pub kv_heads: usize,
    /// `D`: elements in a head.
    pub head_size: usize,
    /// How many positions a query sees, its own included; `None` for all before it.
    pub window: Option<usize>,
    /// Multiplies the scores; `1 / sqrt(D)` for Llama.
    pub scale: f64,
}

impl Attention {
    /// Llama's attention: causal over everything, scaled by `1 / sqrt(D)`.
    pub fn causal(heads: usize, kv_heads: usize, head_size: usize) -> Attention {
        Attention {
            heads,
            kv_heads,
            head_size,
            window: None,
            scale: 1.0 / (head_size as f64).sqrt(),
        }
    }

    /// `y [R, H, D]` of `q [R, H, D]` at positions `start ..`, over `k` and `v [S, G, D]`, of which row `r` sees the
    /// positions `≤ start + r` and inside the window. Scores are materialised: this is the definition, not a kernel.
    pub fn run(&self, q: &[f64], k: &[f64], v: &[f64], start: usize) -> Vec<f64> {
        let (d, row) = (self.head_size, self.kv_heads * self.head_size);
        let group = self.heads / self.kv_heads;
        let mut y = Vec::with_capacity(q.len());
        for (r, q_row) in q.chunks_exact(self.heads * d).enumerate() {
            let end = start + r + 1;
            let begin = self.window.map_or(0, |w| end.saturating_sub(w));
            for (h, q_head) in q_row.chunks_exact(d).enumerate() {
                let at = |s: usize| s * row + h / group * d;
                let scores: Vec<f64> = (begin..end)
                    .map(|s| {
                        let key = &k[at(s)..][..d];
                        self.scale * q_head.iter().zip(key).map(|(a, b)| a * b).sum::<f64>()
                    })
                    .collect();
                let weights = softmax(&scores);
                y.extend((0..d).map(|e| {
                    (begin..end)
                        .zip(&weights)
                        .map(|(s, w)| w * v[at(s) + e])
                        .sum::<f64>()
                }));
            }
        }
        y
    }
}
