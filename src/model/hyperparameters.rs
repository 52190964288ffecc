//! The numbers of a model: what a Definition leaves open.

use super::ModelError;
use crate::graph::{Heads, KvType, Rope};
use crate::loader::Metadata;
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
    /// RoPE positions are multiplied by this (linear scaling).
    #[serde(default = "one")]
    pub rope_position_scale: f32,
    /// What the embedding is multiplied by.
    #[serde(default = "one")]
    pub embedding_scale: f32,
    /// Positions a sliding-window layer sees.
    #[serde(default)]
    pub window: Option<u32>,
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
    /// Reads `{arch}.block_count`, `{arch}.attention.head_count`, … as the GGUF specification
    /// names them. Errors name the key and what was found.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, ModelError> {
        let file = &metadata.file().display().to_string();
        let missing = |key: &str| ModelError::MissingKey {
            file: file.into(),
            key: key.into(),
        };
        let architecture = metadata
            .str("general.architecture")?
            .ok_or_else(|| missing("general.architecture"))?
            .to_string();
        let name = |key: &str| format!("{architecture}.{key}");
        let u32_at = |key: &str| metadata.u32(&name(key));
        let need = |key: &str| u32_at(key)?.ok_or_else(|| missing(&name(key)));
        let refuse =
            |key: &str, found: String, supported: &'static str| ModelError::UnsupportedKey {
                file: file.into(),
                key: name(key),
                found,
                supported,
            };

        if let Some(experts) = u32_at("expert_count")?.filter(|&n| n > 0) {
            return Err(refuse(
                "expert_count",
                experts.to_string(),
                "dense models (0 experts)",
            ));
        }
        let mut position_scale = 1.0;
        match metadata.str(&name("rope.scaling.type"))? {
            None | Some("none") => {}
            Some("linear") => {
                let factor = metadata.f32(&name("rope.scaling.factor"))?.unwrap_or(1.0);
                position_scale = 1.0 / factor;
            }
            Some(other) => {
                let supported = "none, linear, and Llama 3.1's rope_freqs.weight";
                return Err(refuse("rope.scaling.type", other.into(), supported));
            }
        }

        let heads = need("attention.head_count")?;
        let embedding = need("embedding_length")?;
        let key_length = u32_at("attention.key_length")?;
        let head_size = key_length.unwrap_or_else(|| embedding.checked_div(heads).unwrap_or(0));
        if let Some(value_length) = u32_at("attention.value_length")?.filter(|&n| n != head_size) {
            let supported = "values as long as keys";
            return Err(refuse(
                "attention.value_length",
                value_length.to_string(),
                supported,
            ));
        }
        let vocabulary = match u32_at("vocab_size")? {
            Some(size) => size,
            None => {
                let tokens = metadata.strings("tokenizer.ggml.tokens")?;
                let len = tokens.ok_or_else(|| missing(&name("vocab_size")))?.len();
                u32::try_from(len).unwrap_or(u32::MAX)
            }
        };
        let hyper = Hyperparameters {
            layers: need("block_count")?,
            embedding,
            feed_forward: need("feed_forward_length")?,
            heads,
            kv_heads: u32_at("attention.head_count_kv")?.unwrap_or(heads),
            head_size,
            vocabulary,
            context: need("context_length")?,
            rms_eps: metadata
                .f32(&name("attention.layer_norm_rms_epsilon"))?
                .ok_or_else(|| missing(&name("attention.layer_norm_rms_epsilon")))?,
            rope_base: metadata
                .f32(&name("rope.freq_base"))?
                .unwrap_or(default_rope_base()),
            rope_dims: u32_at("rope.dimension_count")?,
            rope_position_scale: position_scale,
            embedding_scale: 1.0,
            window: u32_at("attention.sliding_window")?.filter(|&n| n > 0),
            architecture,
        };
        hyper.check(file)?;
        Ok(hyper)
    }

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

    /// The rotary embedding.
    pub fn rope(&self) -> Rope {
        Rope {
            dims: self.rope_dims.unwrap_or(self.head_size),
            base: self.rope_base,
            position_scale: self.rope_position_scale,
        }
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
