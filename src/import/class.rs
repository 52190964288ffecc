//! What Hugging Face's own configuration classes take where a file does not say.

use super::family::Kind;

/// The defaults of a class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class {
    /// `num_key_value_heads`, where the key is absent; where it is `null`, there are as many as query heads.
    pub(super) kv_heads: Option<u32>,
    /// `head_dim`; `hidden_size / num_attention_heads` if the class does not say either.
    pub(super) head_size: Option<u32>,
    pub(super) tied: bool,
    pub(super) rope_base: f32,
    /// The keys of `attention_bias` and `mlp_bias` that the class has: others are not read.
    pub(super) biases: &'static [&'static str],
}

/// The dimensions of a class. A file leaves them out if it is that of a multimodal model, whose `text_config` lists only
/// what differs from them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dimensions {
    pub(super) layers: u32,
    pub(super) embedding: u32,
    pub(super) feed_forward: u32,
    pub(super) heads: u32,
    pub(super) vocabulary: u32,
    pub(super) context: u32,
}

impl Class {
    pub(super) fn of(kind: Kind) -> Class {
        let plain = Class {
            kv_heads: None,
            head_size: None,
            tied: false,
            rope_base: 1e4,
            biases: &[],
        };
        match kind {
            Kind::Llama => Class {
                biases: &["attention_bias", "mlp_bias"],
                ..plain
            },
            Kind::Mistral | Kind::Ministral => Class {
                kv_heads: Some(8),
                ..plain
            },
            Kind::Qwen2 => Class {
                kv_heads: Some(32),
                ..plain
            },
            Kind::Qwen3 => Class {
                kv_heads: Some(32),
                head_size: Some(128),
                biases: &["attention_bias"],
                ..plain
            },
            Kind::SmolLm3 => Class {
                kv_heads: Some(4),
                tied: true,
                rope_base: 2e6,
                biases: &["attention_bias", "mlp_bias"],
                ..plain
            },
            Kind::Gemma3 => Class {
                kv_heads: Some(4),
                head_size: Some(256),
                tied: true,
                rope_base: 1e6,
                biases: &["attention_bias"],
            },
        }
    }
}

impl Dimensions {
    /// Those of the classes that stand in multimodal models.
    pub(super) fn of(kind: Kind) -> Option<Dimensions> {
        match kind {
            Kind::Gemma3 => Some(Dimensions {
                layers: 26,
                embedding: 2304,
                feed_forward: 9216,
                heads: 8,
                vocabulary: 262_208,
                context: 131_072,
            }),
            Kind::Mistral => Some(Dimensions {
                layers: 32,
                embedding: 4096,
                feed_forward: 14_336,
                heads: 32,
                vocabulary: 32_000,
                context: 131_072,
            }),
            _ => None,
        }
    }
}
