//! The numbers of a model: what a Definition leaves open.

use super::ModelError;
use crate::graph::{Heads, KvType, Rope, Yarn};
use serde::Deserialize;

/// Everything the graph needs to know that no tensor says.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hyperparameters {
    /// `general.architecture`: which Definition applies.
    pub architecture: String,
    /// Number of layers.
    pub layers: u32,
    /// `E`, the hidden width.
    pub embedding: u32,
    /// `F`, the feed-forward width.
    pub feed_forward: u32,
    /// `H`, query heads.
    pub heads: u32,
    /// `G`, KV heads.
    pub kv_heads: u32,
    /// `D`, elements a head.
    pub head_size: u32,
    /// `V`, vocabulary.
    pub vocabulary: u32,
    /// Positions the model was trained for.
    pub context: u32,
    /// `eps` of every RMSNorm.
    pub rms_eps: f32,
    /// Base of RoPE's frequencies.
    #[serde(default = "default_rope_base")]
    pub rope_base: f32,
    /// Elements of a head that RoPE turns; all of them unless said.
    #[serde(default)]
    pub rope_dims: Option<u32>,
    /// RoPE positions are multiplied by this (linear scaling, YaRN).
    #[serde(default = "one")]
    pub rope_position_scale: f32,
    /// What YaRN spares of that scale.
    #[serde(default)]
    pub rope_yarn: Yarn,
    /// Base of RoPE's frequencies in layers with a window, where the family has two.
    #[serde(default = "default_rope_base")]
    pub rope_base_local: f32,
    /// The layers whose queries and keys RoPE turns.
    #[serde(default)]
    pub rotated_layers: LayerPattern,
    /// What the embedding is multiplied by.
    #[serde(default = "one")]
    pub embedding_scale: f32,
    /// What attention's scores are multiplied by; 1/√D unless said.
    #[serde(default)]
    pub attention_scale: Option<f32>,
    /// Positions a sliding-window layer sees.
    #[serde(default)]
    pub window: Option<u32>,
    /// The layers with that window.
    #[serde(default)]
    pub windowed_layers: LayerPattern,
}

impl Default for Hyperparameters {
    /// Every number that may be left open as a plain Llama has it. The dimensions are zero, which no
    /// model has and [`Hyperparameters::check`] refuses.
    fn default() -> Self {
        Hyperparameters {
            architecture: String::new(),
            layers: 0,
            embedding: 0,
            feed_forward: 0,
            heads: 0,
            kv_heads: 0,
            head_size: 0,
            vocabulary: 0,
            context: 0,
            rms_eps: 0.0,
            rope_base: default_rope_base(),
            rope_dims: None,
            rope_position_scale: one(),
            rope_yarn: Yarn::NONE,
            rope_base_local: default_rope_base(),
            rotated_layers: LayerPattern::default(),
            embedding_scale: one(),
            attention_scale: None,
            window: None,
            windowed_layers: LayerPattern::default(),
        }
    }
}

/// The layers that something holds for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum LayerPattern {
    /// All but the last of every so many; all for 0.
    AllButEvery(u32),
    /// Said of each.
    Each(Vec<bool>),
}

impl Default for LayerPattern {
    /// Every layer.
    fn default() -> Self {
        LayerPattern::AllButEvery(0)
    }
}

impl LayerPattern {
    /// Whether it holds for a layer.
    pub fn holds(&self, layer: u32) -> bool {
        match self {
            LayerPattern::AllButEvery(0) => true,
            LayerPattern::AllButEvery(n) => layer % n < n - 1,
            LayerPattern::Each(list) => list.get(layer as usize).copied().unwrap_or(false),
        }
    }
}

fn default_rope_base() -> f32 {
    10_000.0
}

fn one() -> f32 {
    1.0
}

/// No dimension of a supported model comes near this; it keeps every product
/// of two within 64 bits; heads times head size is held to it too.
const DIMENSION_LIMIT: u32 = 1 << 24;

impl Hyperparameters {
    /// Refuses numbers no model has: zero or absurd dimensions, heads that do not divide, a
    /// non-finite eps. `source` names the file or config in the error.
    pub fn check(&self, source: &str) -> Result<(), ModelError> {
        let bad = |what: &str, found: String, wanted: String| ModelError::BadHyperparameter {
            source_name: source.into(),
            what: what.into(),
            found,
            wanted,
        };
        for (what, value) in [
            ("layers", self.layers),
            ("embedding length", self.embedding),
            ("feed-forward length", self.feed_forward),
            ("head count", self.heads),
            ("KV head count", self.kv_heads),
            ("head size", self.head_size),
            ("vocabulary size", self.vocabulary),
            ("context length", self.context),
        ] {
            if value == 0 || value > DIMENSION_LIMIT {
                return Err(bad(
                    what,
                    value.to_string(),
                    format!("1 to {DIMENSION_LIMIT}"),
                ));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            let wanted = format!("a divisor of the head count {}", self.heads);
            return Err(bad("KV head count", self.kv_heads.to_string(), wanted));
        }
        if !self.head_size.is_multiple_of(8) || self.head_size > 256 {
            let wanted = "a multiple of 8, at most 256".to_string();
            return Err(bad("head size", self.head_size.to_string(), wanted));
        }
        let width = u64::from(self.heads) * u64::from(self.head_size);
        if width > u64::from(DIMENSION_LIMIT) {
            let wanted = format!("1 to {DIMENSION_LIMIT}");
            let what = "width of all heads (head count times head size)";
            return Err(bad(what, width.to_string(), wanted));
        }
        let rotated = self.rope().dims;
        if rotated == 0 || !rotated.is_multiple_of(2) || rotated > self.head_size {
            let wanted = format!("even, 2 to {}", self.head_size);
            return Err(bad(
                "rotated elements (rope dimension count)",
                rotated.to_string(),
                wanted,
            ));
        }
        for (what, value) in [
            ("RMSNorm epsilon", self.rms_eps),
            ("RoPE base", self.rope_base),
            ("RoPE position scale", self.rope_position_scale),
            ("RoPE base of layers with a window", self.rope_base_local),
            ("YaRN's magnitude", self.rope_yarn.magnitude),
            ("attention scale", self.attention_scale()),
            ("embedding scale", self.embedding_scale),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(bad(
                    what,
                    value.to_string(),
                    "a positive finite number".into(),
                ));
            }
        }
        for (what, value) in [
            ("YaRN's first pair", self.rope_yarn.first),
            ("YaRN's last pair", self.rope_yarn.last),
            ("YaRN's part of spared frequencies", self.rope_yarn.keep),
        ] {
            if !value.is_finite() {
                return Err(bad(what, value.to_string(), "a finite number".into()));
            }
        }
        if self.window == Some(0) {
            return Err(bad("window", "0".into(), "at least one position".into()));
        }
        for (what, pattern) in [
            ("layers with a window", &self.windowed_layers),
            ("layers that RoPE turns", &self.rotated_layers),
        ] {
            if let LayerPattern::Each(list) = pattern
                && list.len() != self.layers as usize
            {
                let found = format!("a list of {}", list.len());
                return Err(bad(
                    what,
                    found,
                    format!("one entry for each of {} layers", self.layers),
                ));
            }
        }
        Ok(())
    }

    /// The attention geometry.
    pub fn attention_heads(&self) -> Heads {
        Heads {
            query: self.heads,
            kv: self.kv_heads,
            size: self.head_size,
        }
    }

    /// The rotary embedding of layers that see everything.
    pub fn rope(&self) -> Rope {
        Rope {
            dims: self.rope_dims.unwrap_or(self.head_size),
            base: self.rope_base,
            position_scale: self.rope_position_scale,
            yarn: self.rope_yarn,
        }
    }

    /// The rotary embedding of layers with a window, in families that have one for them: it is not
    /// scaled.
    pub fn local_rope(&self) -> Rope {
        Rope {
            base: self.rope_base_local,
            position_scale: 1.0,
            yarn: Yarn::NONE,
            ..self.rope()
        }
    }

    /// What attention's scores are multiplied by.
    pub fn attention_scale(&self) -> f32 {
        let usual = || f64::from(self.head_size).powf(-0.5) as f32;
        self.attention_scale.unwrap_or_else(usual)
    }

    /// The window of a layer, if it has one.
    pub fn window_of(&self, layer: u32) -> Option<u32> {
        self.window.filter(|_| self.windowed_layers.holds(layer))
    }

    /// The length a Definition's dimension letter stands for.
    pub fn dimension(&self, letter: &str) -> Option<u32> {
        Some(match letter {
            "E" => self.embedding,
            "F" => self.feed_forward,
            "V" => self.vocabulary,
            "D" => self.head_size,
            "HD" => self.heads * self.head_size,
            "GD" => self.kv_heads * self.head_size,
            "ROT2" => self.rope().dims / 2,
            _ => return None,
        })
    }

    /// Bytes that K and V of one position take over all layers.
    pub fn kv_bytes_per_position(&self, kv_type: KvType) -> u64 {
        let row = u64::from(self.kv_heads) * u64::from(self.head_size);
        kv_type.bytes(2 * row * u64::from(self.layers))
    }
}
