//! Families: which GGUF architecture a folder's is, and its hyperparameters under GGUF's names.

use super::ImportError;
use super::class::{Class, Dimensions};
use super::config::Config;
use super::error::{short, unsupported, value};
use super::rope;
use crate::loader::{Array, Metadata, Value as Entry};
use serde_json::Value;

/// A kind of `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Llama,
    Mistral,
    /// Mistral whose layers differ.
    Ministral,
    Qwen2,
    Qwen3,
    SmolLm3,
    Gemma3,
}

/// Every layer's tensors are listed by name before any is looked for.
const LAYERS_MAX: u32 = 10_000;

/// What a folder's architecture is here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    /// The name in `config.json`.
    pub(super) name: &'static str,
    /// `general.architecture`.
    pub(super) architecture: &'static str,
    pub(super) kind: Kind,
    /// Of a folder that holds more than the text half that is run: that half's `model_type`.
    multimodal: Option<&'static str>,
}

const fn family(name: &'static str, architecture: &'static str, kind: Kind) -> Family {
    Family {
        name,
        architecture,
        kind,
        multimodal: None,
    }
}

const FAMILIES: &[Family] = &[
    family("LlamaForCausalLM", "llama", Kind::Llama),
    // As the first files spelt it.
    family("LLaMAForCausalLM", "llama", Kind::Llama),
    family("MistralForCausalLM", "llama", Kind::Mistral),
    family("MinistralForCausalLM", "llama", Kind::Ministral),
    Family {
        multimodal: Some("mistral"),
        ..family(
            "Mistral3ForConditionalGeneration",
            "mistral3",
            Kind::Mistral,
        )
    },
    family("Qwen2ForCausalLM", "qwen2", Kind::Qwen2),
    family("Qwen3ForCausalLM", "qwen3", Kind::Qwen3),
    family("SmolLM3ForCausalLM", "smollm3", Kind::SmolLm3),
    family("Gemma3ForCausalLM", "gemma3", Kind::Gemma3),
    Family {
        multimodal: Some("gemma3_text"),
        ..family("Gemma3ForConditionalGeneration", "gemma3", Kind::Gemma3)
    },
];

/// The numbers that tensors and tokens are checked with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) layers: u32,
    pub(super) embedding: u32,
    pub(super) heads: u32,
    pub(super) kv_heads: u32,
    pub(super) head_size: u32,
    pub(super) vocabulary: u32,
    /// Positions the model was trained for.
    pub(super) context: u32,
    /// Whether the head is the embedding.
    pub(super) tied: bool,
}

impl Family {
    /// The family that `architectures` names.
    pub(super) fn of(config: &Config) -> Result<Family, ImportError> {
        let Some(found) = config.get("architectures") else {
            return Err(ImportError::MissingKey {
                file: config.file().to_owned(),
                key: "architectures".into(),
                why: "it says what model it is",
            });
        };
        let names = found.as_array().map(Vec::as_slice).unwrap_or_default();
        let name = names.first().and_then(Value::as_str);
        let found = FAMILIES.iter().find(|family| Some(family.name) == name);
        found.copied().ok_or_else(|| {
            let found = config.get("architectures").map(short).unwrap_or_default();
            let supported: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
            unsupported(config.file(), "architectures", found, supported.join(", "))
        })
    }

    /// What a person should know.
    pub(super) fn notes(&self) -> Option<String> {
        self.multimodal.map(|_| {
            format!(
                "{}: only the text half is read, not the vision tower",
                self.name
            )
        })
    }

    /// Whether a tensor belongs to a half that is not run.
    pub(super) fn is_left_out(&self, tensor: &str) -> bool {
        let name = tensor.strip_prefix("model.").unwrap_or(tensor);
        self.multimodal.is_some()
            && (name.starts_with("vision_tower.") || name.starts_with("multi_modal_projector."))
    }

    /// The name that a tensor of the text half has in a text model's folder.
    pub(super) fn plain_name(&self, tensor: &str) -> Option<String> {
        self.multimodal?;
        match tensor.strip_prefix("language_model.") {
            Some(rest) => Some(rest.to_owned()),
            None => Some(format!(
                "model.{}",
                tensor.strip_prefix("model.language_model.")?
            )),
        }
    }

    /// Refuses what would change the computation, and writes the hyperparameters as GGUF has them.
    pub(super) fn translate(
        &self,
        config: &Config,
        name: String,
        to: &mut Metadata,
    ) -> Result<Shape, ImportError> {
        self.refuse(config)?;
        let shape = self.shape(config)?;
        let (arch, embedding) = (self.architecture, shape.embedding);
        to.insert("general.architecture", arch);
        to.insert("general.type", "model");
        to.insert("general.name", name);
        let mut put = |key: &str, value: Entry| {
            to.insert(format!("{arch}.{key}"), value);
        };
        let feed_forward = self.need(config, "intermediate_size", |usual| usual.feed_forward)?;
        let eps = config.number("rms_norm_eps")?.unwrap_or(1e-6);
        put("block_count", shape.layers.into());
        put("context_length", shape.context.into());
        put("embedding_length", embedding.into());
        put("feed_forward_length", feed_forward.into());
        put("attention.head_count", shape.heads.into());
        put("attention.head_count_kv", shape.kv_heads.into());
        put("attention.layer_norm_rms_epsilon", eps.into());
        put("vocab_size", shape.vocabulary.into());
        let head_size = shape.head_size;
        if config.count("head_dim")?.is_some() || head_size * shape.heads != embedding {
            put("attention.key_length", head_size.into());
            put("attention.value_length", head_size.into());
        }
        if ["llama", "mistral3", "smollm3"].contains(&arch) {
            put("rope.dimension_count", head_size.into());
        }
        self.window(config, &shape, &mut put)?;
        match self.kind {
            Kind::Gemma3 => scale(config, &shape, &mut put)?,
            Kind::SmolLm3 => {
                let turned = turned_layers(config, &shape)?;
                // llama.cpp knows every fourth only, and has the key for another family.
                let usual = (1..=shape.layers).map(|n| n % 4 != 0);
                if !turned.iter().copied().eq(usual) {
                    put("attention.rope_pattern", Array::from(&turned[..]).into());
                }
            }
            _ => {}
        }
        rope::translate(config, self, &shape, &mut put)?;
        Ok(shape)
    }

    /// A number that must be there, except in a multimodal model's file, which leaves out what its class says.
    fn need(
        &self,
        config: &Config,
        key: &str,
        of: fn(Dimensions) -> u32,
    ) -> Result<u32, ImportError> {
        let usual = self.multimodal.and_then(|_| Dimensions::of(self.kind));
        match (config.count(key)?, usual) {
            (None, Some(usual)) => Ok(of(usual)),
            _ => config.need_count(key),
        }
    }

    /// The dimensions, as the class would find them.
    fn shape(&self, config: &Config) -> Result<Shape, ImportError> {
        let class = Class::of(self.kind);
        let layers = self.need(config, "num_hidden_layers", |usual| usual.layers)?;
        if layers > LAYERS_MAX {
            let (key, found) = ("num_hidden_layers", layers.to_string());
            let supported = format!("at most {LAYERS_MAX}");
            return Err(unsupported(config.file(), key, found, supported));
        }
        let embedding = self.need(config, "hidden_size", |usual| usual.embedding)?;
        let heads = self.need(config, "num_attention_heads", |usual| usual.heads)?;
        let head_dim = config.count("head_dim")?;
        if head_dim.is_none() && !embedding.is_multiple_of(heads) {
            let key = "num_attention_heads";
            let expected = format!("a divisor of hidden_size {embedding}, or a head_dim");
            return Err(value(config.file(), key, expected, &heads.into()));
        }
        // Absent is not null: the class has a default.
        let kv_default = match config.is_null("num_key_value_heads") {
            true => heads,
            false => class.kv_heads.unwrap_or(heads),
        };
        Ok(Shape {
            layers,
            embedding,
            heads,
            kv_heads: config.count("num_key_value_heads")?.unwrap_or(kv_default),
            head_size: head_dim.or(class.head_size).unwrap_or(embedding / heads),
            vocabulary: self.need(config, "vocab_size", |usual| usual.vocabulary)?,
            context: self.need(config, "max_position_embeddings", |usual| usual.context)?,
            tied: config
                .flag("tie_word_embeddings")?
                .unwrap_or(class.tied || self.multimodal.is_some()),
        })
    }

    /// Values that mean a computation no Definition here describes.
    fn refuse(&self, config: &Config) -> Result<(), ImportError> {
        match self.kind {
            // `hidden_act` is of an older class and not read by this one.
            Kind::Gemma3 => {
                config.get("hidden_act");
                config.only("hidden_activation", &["gelu_pytorch_tanh".into()])?;
            }
            _ => config.only("hidden_act", &["silu".into(), "swish".into()])?,
        }
        for key in [
            "rope_interleaved",
            "use_mrope",
            "use_bidirectional_attention",
            "use_qk_norm",
            "parallel_attn",
        ] {
            config.only(key, &[false.into()])?;
        }
        for key in [
            "quantization_config",
            "compression_config",
            "attn_logit_softcapping",
            "final_logit_softcapping",
            "auto_map",
        ] {
            config.only(key, &[])?;
        }
        for key in ["num_local_experts", "num_experts", "n_routed_experts"] {
            config.only(key, &[0.into(), 1.into()])?;
        }
        for key in [
            "embedding_multiplier",
            "residual_multiplier",
            "attention_multiplier",
            "logits_scaling",
            "logit_scale",
            "partial_rotary_factor",
        ] {
            config.only(key, &[1.into(), 1.0.into()])?;
        }
        // Keys of other classes, which these do not read. Qwen2 has its biases whatever a file says.
        for key in ["attention_bias", "mlp_bias"] {
            if self.kind != Kind::Qwen2 && !Class::of(self.kind).biases.contains(&key) {
                config.only(key, &[false.into()])?;
            }
        }
        let Some(text) = self.multimodal else {
            return Ok(());
        };
        config.only("text_config.model_type", &[text.into()])
    }
}

/// SmolLM3's layers with positions: all but every fourth, unless the file says otherwise.
pub(super) fn turned_layers(config: &Config, shape: &Shape) -> Result<Vec<bool>, ImportError> {
    // Asked for even where the list decides, so that it does not count as unknown.
    let interval = config.count("no_rope_layer_interval")?.unwrap_or(4);
    let Some(found) = config.get("no_rope_layers") else {
        return Ok((1..=shape.layers)
            .map(|n| !n.is_multiple_of(interval))
            .collect());
    };
    let turned = |layer: &Value| match layer.as_u64() {
        Some(0) => Some(false),
        Some(1) => Some(true),
        _ => None,
    };
    // A longer list is one of a model that was cut.
    let list = found.as_array().and_then(|list| {
        let list = list.get(..shape.layers as usize)?;
        list.iter().map(turned).collect::<Option<Vec<bool>>>()
    });
    list.ok_or_else(|| {
        let expected = format!("0 or 1 for each of the {} layers", shape.layers);
        value(config.file(), "no_rope_layers", expected, found)
    })
}

/// Gemma's attention scale. llama.cpp takes it from the head size, but by the largest model's number of layers from the
/// width, and a Definition does the same; another one gets a key.
fn scale(
    config: &Config,
    shape: &Shape,
    put: &mut impl FnMut(&str, Entry),
) -> Result<(), ImportError> {
    const LAYERS_OF_27B: u32 = 62;
    let usual = match shape.layers {
        LAYERS_OF_27B => shape.embedding / shape.heads,
        _ => shape.head_size,
    };
    let found = config.number("query_pre_attn_scalar")?.unwrap_or(256.0);
    if found != usual as f32 {
        put(
            "attention.scale",
            (f64::from(found).powf(-0.5) as f32).into(),
        );
    }
    Ok(())
}
