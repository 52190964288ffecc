//! The operations of a decode step, with everything that is fixed when the graph is built.
//!
//! Letters: `R` rows, `E` hidden, `H` query heads, `G` KV heads, `D` head size, `F` feed-forward,
//! `V` vocabulary, `S` context. What varies from step to step (tokens, position, live rows) is in
//! the step, never in an op.

use std::fmt;

/// Which elements of a head RoPE rotates together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RopeStyle {
    /// `(x[2i], x[2i+1])`: Llama weights as GGUF stores them.
    Interleaved,
    /// `(x[i], x[i + D/2])`: GPT-NeoX order, as Hugging Face stores most families.
    Half,
}

/// The non-linearity of a gated feed-forward, `y = act(gate) · up`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x · sigmoid(x)` (SwiGLU, arXiv:2002.05202).
    Silu,
    /// GELU's tanh approximation (GeGLU, arXiv:2002.05202).
    GeluTanh,
}

/// The geometry of a head-wise operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// `H` query heads.
    pub query: u32,
    /// `G` KV heads; divides `H`.
    pub kv: u32,
    /// `D`, elements a head.
    pub size: u32,
}

impl Heads {
    /// Elements of one partial result of attention: the weighted values padded to 16, then the
    /// maximum and the sum of their weights, padded to a cache line.
    pub fn partial_len(&self) -> u32 {
        self.size.next_multiple_of(16) + 16
    }

    /// Elements of `parts` partial results of every query head; `None` where that is more than a
    /// value's columns count.
    pub fn partials(&self, parts: u32) -> Option<u32> {
        let row = u64::from(self.query) * u64::from(self.partial_len());
        u32::try_from(row.checked_mul(parts.into())?).ok()
    }
}

/// How rotary position embedding turns a head (arXiv:2104.09864).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Elements of each head that are rotated; even, at most `D`.
    pub dims: u32,
    /// Base of the frequencies, `theta_i = base^(−2i/dims)`.
    pub base: f32,
    /// Positions are multiplied by this (linear scaling; 1 = none).
    pub position_scale: f32,
    /// Which frequencies the scale spares, and what it costs in magnitude.
    pub yarn: Yarn,
}

/// YaRN (arXiv:2309.00071): pairs that turn often are not scaled, those that turn seldom are, and
/// between pair `first` and pair `last` the scale fades in.
///
/// Pair `i` turns by `position · base^(−2i/dims) · (scale · (1 − m) + m)` with
/// `m = keep · (1 − (i − first) / (last − first))`, the fraction held within 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Yarn {
    pub first: f32,
    pub last: f32,
    /// How much of a spared frequency is spared: 1, or 0 for plain linear scaling.
    pub keep: f32,
    /// Cosines and sines are multiplied by this.
    pub magnitude: f32,
}

impl Yarn {
    /// Every frequency is scaled alike, and nothing else changes.
    pub const NONE: Yarn = Yarn {
        first: 0.0,
        last: 0.0,
        keep: 0.0,
        magnitude: 1.0,
    };

    /// The narrowest ramp, where `first` and `last` coincide.
    pub const NARROWEST: f64 = 0.001;

    /// How much of pair `i`'s frequency is spared by a scale, 0 to 1.
    pub fn kept(&self, i: u32) -> f64 {
        let (first, last) = (f64::from(self.first), f64::from(self.last));
        let ramp = (f64::from(i) - first) / (last - first).max(Self::NARROWEST);
        f64::from(self.keep) * (1.0 - ramp.clamp(0.0, 1.0))
    }
}

impl Default for Yarn {
    fn default() -> Self {
        Yarn::NONE
    }
}

/// What one node computes. Shapes are those of its values: every value is `[rows, cols]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// `x [R, E] = scale · W[token[r]]`, `W [V, E]`.
    Embed { scale: f32 },
    /// `t [R, dims]`: cosine and sine of every rotated pair at every row's position, interleaved,
    /// times YaRN's magnitude.
    /// The optional weight `[dims/2]` divides the frequencies (Llama 3.1's `rope_freqs`).
    RopeTable(Rope),
    /// `y = x / rms(x) · w`, over whole rows or over each of `groups` equal slices of a row
    /// (arXiv:1910.07467).
    RmsNorm { eps: f32, groups: u32 },
    /// `y_i [R, N_i] = x [R, K] · W_iᵀ`, `W_i [N_i, K]`; one output a weight.
    /// With `residual` the last input is added to the only output.
    Gemm { residual: bool },
    /// `y [R, F] = act(x · W_gᵀ) · (x · W_uᵀ)`: two GEMMs and the gate in one pass.
    GatedGemm(Activation),
    /// `Gemm` of the RMS-normalised `x [R, K]`, over whole rows; the norm's weight `[K]` comes last.
    NormGemm { eps: f32 },
    /// `GatedGemm` of the RMS-normalised `x`, likewise.
    NormGatedGemm { eps: f32, activation: Activation },
    /// `y [R, N] = x + b`, `b [N]` a weight.
    AddBias,
    /// Rotates every head of `x [R, heads·D]` by the table.
    Rope {
        heads: u32,
        head_size: u32,
        dims: u32,
        style: RopeStyle,
    },
    /// Writes `k, v [R, G·D]` in the caches' type into the caches `[G, S, D]` at the rows' positions.
    KvAppend { kv_heads: u32, head_size: u32 },
    /// `Rope` of q and k, then `KvAppend`, in one pass. Inputs q, k, v, table; output q.
    RopeAppend {
        heads: Heads,
        dims: u32,
        style: RopeStyle,
    },
    /// `o [R, H·D] = softmax(scale · q·Kᵀ)·V`, causal, grouped heads; `window` positions at most.
    Attention {
        heads: Heads,
        scale: f32,
        window: Option<u32>,
    },
    /// The first half of `Attention` for one row: each split of `split` positions by itself, its
    /// maximum, sum and weighted values kept apart.
    AttentionSplit {
        heads: Heads,
        scale: f32,
        window: Option<u32>,
        split: u32,
    },
    /// The second half: merges the splits in their order.
    AttentionCombine {
        heads: Heads,
        window: Option<u32>,
        split: u32,
    },
    /// `RopeAppend` and `Attention` of one row in one pass. Inputs q, k, v, table; outputs the
    /// attention's, and room for the partial results of `blocks` blocks a KV head, which deal out
    /// the positions among themselves: nobody reads it afterwards, or may know what is in it.
    AttentionStep {
        heads: Heads,
        dims: u32,
        style: RopeStyle,
        scale: f32,
        window: Option<u32>,
        blocks: u32,
    },
    /// `y = act(gate) · up`.
    GatedMul(Activation),
    /// `y = a + b`.
    Add,
    /// `y = by · x`.
    Scale { by: f32 },
    /// Rounds rows to integers, 32 elements a scale ([`super::Element::Q15A`]), or to 16-bit floats
    /// ([`super::Element::F16`]).
    Quantize,
    /// `y [1, N]`: the last live row of `x [R, N]`.
    LastRow,
    /// Chooses the token that follows the step from `logits [1, V]`, and makes it the next step's. An
    /// effect without an output; by which settings is, like the step, not in the graph.
    Sample,
}

impl Op {
    /// The op's name, as Definitions, dumps and reports spell it.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Embed { .. } => "embed",
            Op::RopeTable(_) => "rope_table",
            Op::RmsNorm { .. } => "rms_norm",
            Op::Gemm { .. } => "gemm",
            Op::GatedGemm(_) => "gated_gemm",
            Op::NormGemm { .. } => "norm_gemm",
            Op::NormGatedGemm { .. } => "norm_gated_gemm",
            Op::AddBias => "add_bias",
            Op::Rope { .. } => "rope",
            Op::KvAppend { .. } => "kv_append",
            Op::RopeAppend { .. } => "rope_append",
            Op::Attention { .. } => "attention",
            Op::AttentionSplit { .. } => "attention_split",
            Op::AttentionCombine { .. } => "attention_combine",
            Op::AttentionStep { .. } => "attention_step",
            Op::GatedMul(_) => "gated_mul",
            Op::Add => "add",
            Op::Scale { .. } => "scale",
            Op::Quantize => "quantize",
            Op::LastRow => "last_row",
            Op::Sample => "sample",
        }
    }

    /// Whether it changes what outlives the step, and so stays even if nobody reads what it writes.
    pub fn has_effect(&self) -> bool {
        match self {
            Op::KvAppend { .. } | Op::RopeAppend { .. } | Op::AttentionStep { .. } | Op::Sample => {
                true
            }
            Op::Embed { .. }
            | Op::RopeTable(_)
            | Op::RmsNorm { .. }
            | Op::Gemm { .. }
            | Op::GatedGemm(_)
            | Op::NormGemm { .. }
            | Op::NormGatedGemm { .. }
            | Op::AddBias
            | Op::Rope { .. }
            | Op::Attention { .. }
            | Op::AttentionSplit { .. }
            | Op::AttentionCombine { .. }
            | Op::GatedMul(_)
            | Op::Add
            | Op::Scale { .. }
            | Op::Quantize
            | Op::LastRow => false,
        }
    }

    /// The attributes that the name does not say, as dumps print them (`eps=1e-5 groups=9`).
    pub fn attributes(&self) -> String {
        match *self {
            Op::Embed { scale: 1.0 } => String::new(),
            Op::Embed { scale } => format!("scale={scale}"),
            Op::RopeTable(r) => {
                let mut text = format!("dims={} base={}", r.dims, r.base);
                if r.position_scale != 1.0 {
                    text += &format!(" position_scale={}", r.position_scale);
                }
                if r.yarn != Yarn::NONE {
                    let y = r.yarn;
                    text += &format!(" keep={} to {}..{}", y.keep, y.first, y.last);
                    text += &format!(" magnitude={}", y.magnitude);
                }
                text
            }
            Op::RmsNorm { eps, groups: 1 } => format!("eps={eps:e}"),
            Op::RmsNorm { eps, groups } => format!("eps={eps:e} groups={groups}"),
            Op::Gemm { residual: true } => "residual".into(),
            Op::GatedGemm(a) | Op::GatedMul(a) => a.to_string(),
            Op::NormGemm { eps } => format!("eps={eps:e}"),
            Op::NormGatedGemm { eps, activation } => format!("eps={eps:e} {activation}"),
            Op::Rope {
                heads,
                head_size,
                dims,
                style,
            } => {
                format!("heads={heads} D={head_size} dims={dims} {style}")
            }
            Op::KvAppend {
                kv_heads,
                head_size,
            } => format!("G={kv_heads} D={head_size}"),
            Op::RopeAppend { heads, dims, style } => format!("{heads} dims={dims} {style}"),
            Op::Attention {
                heads,
                scale,
                window,
            } => {
                format!("{heads} scale={scale}{}", WindowText(window))
            }
            Op::AttentionSplit {
                heads,
                scale,
                window,
                split,
            } => {
                format!("{heads} scale={scale}{} split={split}", WindowText(window))
            }
            Op::AttentionCombine {
                heads,
                window,
                split,
            } => {
                format!("{heads}{} split={split}", WindowText(window))
            }
            Op::AttentionStep {
                heads,
                dims,
                style,
                scale,
                window,
                blocks,
            } => {
                let window = WindowText(window);
                format!("{heads} dims={dims} {style} scale={scale}{window} blocks={blocks}")
            }
            Op::Scale { by } => format!("by={by}"),
            Op::Gemm { residual: false }
            | Op::AddBias
            | Op::Add
            | Op::Quantize
            | Op::LastRow
            | Op::Sample => String::new(),
        }
    }
}

struct WindowText(Option<u32>);

impl fmt::Display for WindowText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(window) => write!(f, " window={window}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Heads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "H={} G={} D={}", self.query, self.kv, self.size)
    }
}

impl fmt::Display for RopeStyle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RopeStyle::Interleaved => "interleaved",
            RopeStyle::Half => "half",
        })
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Activation::Silu => "silu",
            Activation::GeluTanh => "gelu_tanh",
        })
    }
}
