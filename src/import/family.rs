//! Families: which GGUF architecture a folder's is, and its hyperparameters under GGUF's names.

use super::ImportError;
use super::config::Config;
use super::error::{short, unsupported, value};
use super::rope;
use crate::loader::Metadata;
use serde_json::Value;

/// A kind of `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Llama,
    Mistral,
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
    /// Whether the folder holds more than the text half that is run.
    multimodal: bool,
}

const fn family(name: &'static str, architecture: &'static str, kind: Kind) -> Family {
    Family {
        name,
        architecture,
        kind,
        multimodal: false,
    }
}

const FAMILIES: &[Family] = &[
    family("LlamaForCausalLM", "llama", Kind::Llama),
    family("MistralForCausalLM", "llama", Kind::Mistral),
    family("Qwen2ForCausalLM", "qwen2", Kind::Qwen2),
    family("Qwen3ForCausalLM", "qwen3", Kind::Qwen3),
    family("SmolLM3ForCausalLM", "smollm3", Kind::SmolLm3),
    family("Gemma3ForCausalLM", "gemma3", Kind::Gemma3),
    Family {
        multimodal: true,
        ..family("Gemma3ForConditionalGeneration", "gemma3", Kind::Gemma3)
    },
];

/// The numbers that tensors and tokens are checked with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) layers: u32,
    pub(super) heads: u32,
    pub(super) kv_heads: u32,
    pub(super) head_size: u32,
    pub(super) vocabulary: u32,
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
        self.multimodal.then(|| {
            format!(
                "{}: only the text half is read, not the vision tower",
                self.name
            )
        })
    }

    /// Whether a tensor belongs to a half that is not run.
    pub(super) fn is_left_out(&self, tensor: &str) -> bool {
        let name = tensor.strip_prefix("model.").unwrap_or(tensor);
        self.multimodal
            && (name.starts_with("vision_tower.") || name.starts_with("multi_modal_projector."))
    }

    /// The name that a tensor of the text half has in a text model's folder.
    pub(super) fn plain_name(&self, tensor: &str) -> Option<String> {
        if !self.multimodal {
            return None;
        }
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
        let layers = config.need_count("num_hidden_layers")?;
        if layers > LAYERS_MAX {
            let supported = format!("at most {LAYERS_MAX}");
            return Err(unsupported(
                config.file(),
                "num_hidden_layers",
                layers.to_string(),
                supported,
            ));
        }
        let embedding = config.need_count("hidden_size")?;
        let heads = config.need_count("num_attention_heads")?;
        let head_dim = config.count("head_dim")?;
        if head_dim.is_none() && !embedding.is_multiple_of(heads) {
            let found = config
                .get("num_attention_heads")
                .cloned()
                .unwrap_or_default();
            let expected = format!("a divisor of hidden_size {embedding}, or a head_dim");
            return Err(value(
                config.file(),
                "num_attention_heads",
                expected,
                &found,
            ));
        }
        // What Hugging Face's own classes take where a file does not say.
        let (kv_default, tied_default, base_default, head_default) = match self.kind {
            Kind::Llama => (heads, false, 1e4, embedding / heads),
            Kind::Mistral => (8, false, 1e4, embedding / heads),
            Kind::Qwen2 => (heads, false, 1e4, embedding / heads),
            Kind::Qwen3 => (heads, false, 1e4, 128),
            Kind::SmolLm3 => (4, true, 2e6, embedding / heads),
            Kind::Gemma3 => (4, true, 1e6, 256),
        };
        let shape = Shape {
            layers,
            heads,
            kv_heads: config.count("num_key_value_heads")?.unwrap_or(kv_default),
            head_size: head_dim.unwrap_or(head_default),
            vocabulary: config.need_count("vocab_size")?,
            tied: config.flag("tie_word_embeddings")?.unwrap_or(tied_default),
        };
        let arch = self.architecture;
        to.insert("general.architecture", arch);
        to.insert("general.type", "model");
        to.insert("general.name", name);
        let mut put = |key: &str, value: crate::loader::Value| {
            to.insert(format!("{arch}.{key}"), value);
        };
        put("block_count", shape.layers.into());
        put(
            "context_length",
            config.need_count("max_position_embeddings")?.into(),
        );
        put("embedding_length", embedding.into());
        put(
            "feed_forward_length",
            config.need_count("intermediate_size")?.into(),
        );
        put("attention.head_count", heads.into());
        put("attention.head_count_kv", shape.kv_heads.into());
        put(
            "attention.layer_norm_rms_epsilon",
            config.number("rms_norm_eps")?.unwrap_or(1e-6).into(),
        );
        put("vocab_size", shape.vocabulary.into());
        let head_size = shape.head_size;
        if head_dim.is_some() || head_size * heads != embedding {
            put("attention.key_length", head_size.into());
            put("attention.value_length", head_size.into());
        }
        if arch == "llama" || arch == "smollm3" {
            put("rope.dimension_count", head_size.into());
        }
        self.window(config, &shape, &mut put)?;
        self.scale(config, embedding, &shape)?;
        rope::translate(config, base_default, self.kind == Kind::Gemma3, &mut put)?;
        Ok(shape)
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
        if self.kind == Kind::SmolLm3 {
            self.refuse_other_rope_layers(config)?;
        }
        Ok(())
    }

    /// SmolLM3 leaves out RoPE in every fourth layer; GGUF has no key for another pattern.
    fn refuse_other_rope_layers(&self, config: &Config) -> Result<(), ImportError> {
        config.only("no_rope_layer_interval", &[4.into()])?;
        let Some(found) = config.get("no_rope_layers") else {
            return Ok(());
        };
        let layers = found.as_array().map(Vec::as_slice).unwrap_or_default();
        let regular = layers.iter().enumerate().all(|(layer, rotates)| {
            let expected = u64::from((layer + 1) % 4 != 0);
            rotates.as_u64() == Some(expected)
        });
        let count = config.need_count("num_hidden_layers")? as usize;
        if regular && layers.len() == count {
            return Ok(());
        }
        let supported = format!(
            "one entry for each of the {count} layers, 0 for every fourth and 1 for the others"
        );
        Err(unsupported(
            config.file(),
            "no_rope_layers",
            short(found),
            supported,
        ))
    }

    /// Gemma's attention scale, for which GGUF has no key: the head size's, but by the largest model's number of layers the
    /// width's.
    fn scale(&self, config: &Config, embedding: u32, shape: &Shape) -> Result<(), ImportError> {
        if self.kind != Kind::Gemma3 {
            return Ok(());
        }
        const LAYERS_OF_27B: u32 = 62;
        let expected = match shape.layers {
            LAYERS_OF_27B => embedding / shape.heads,
            _ => shape.head_size,
        };
        let found = config.number("query_pre_attn_scalar")?.unwrap_or(256.0);
        if found == expected as f32 {
            return Ok(());
        }
        let supported = format!(
            "{expected} for {} layers and a head of {}",
            shape.layers, shape.head_size
        );
        Err(unsupported(
            config.file(),
            "query_pre_attn_scalar",
            found.to_string(),
            supported,
        ))
    }
}
