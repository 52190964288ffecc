//! The metadata keys of a model's architecture that are read, or that are known to change nothing.

use crate::loader::{LoadError, Metadata};

/// What `keys` asks for, without the architecture in front.
#[rustfmt::skip]
const READ: &[&str] = &[
    "attention.causal", "attention.clamp_kqv", "attention.head_count", "attention.head_count_kv", "attention.key_length",
    "attention.key_length_swa", "attention.layer_norm_rms_epsilon", "attention.max_alibi_bias", "attention.output_scale",
    "attention.rope_pattern", "attention.scale", "attention.sliding_window", "attention.sliding_window_pattern",
    "attention.temperature_scale", "attention.value_length", "attention.value_length_swa", "attention.value_scale",
    "attn_logit_softcapping", "block_count", "context_length", "embedding_length", "embedding_scale", "expert_count",
    "feed_forward_length", "final_logit_softcapping", "logit_scale", "nextn_predict_layers", "residual_scale",
    "rope.dimension_count", "rope.dimension_count_swa", "rope.dimension_sections", "rope.freq_base", "rope.freq_base_swa",
    "rope.scale_linear", "rope.scaling.alpha", "rope.scaling.attn_factor", "rope.scaling.factor",
    "rope.scaling.original_context_length", "rope.scaling.type", "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow", "rope.scaling.yarn_ext_factor",
    "rope.scaling.yarn_log_multiplier", "use_parallel_residual", "vocab_size",
];

/// What says nothing about a step of a dense model: how it was trained or laid out, experts that it does not have, and
/// what is done with embeddings.
#[rustfmt::skip]
const HARMLESS: &[&str] = &[
    "attention.layer_norm_epsilon", "classifier.output_labels", "classifier.pooling_type", "decoder_start_token_id",
    "embedding_length_out", "expert_feed_forward_length", "expert_gating_func", "expert_group_count",
    "expert_group_used_count", "expert_shared_count", "expert_shared_feed_forward_length", "expert_used_count",
    "expert_weights_norm", "expert_weights_scale", "interleave_moe_layer_step", "leading_dense_block_count", "pooling_type",
    "rope.scaling.finetuned", "tensor_data_layout",
];

/// A sentence about the keys of the model's architecture that nothing here knows.
///
/// # Errors
/// As [`Metadata::str`], of the architecture.
pub fn unknown_keys(metadata: &Metadata) -> Result<Option<String>, LoadError> {
    let Some(architecture) = metadata.str("general.architecture")? else {
        return Ok(None);
    };
    let own = metadata.iter().filter_map(|(key, _)| {
        let name = key.strip_prefix(architecture)?.strip_prefix('.')?;
        (!READ.contains(&name) && !HARMLESS.contains(&name)).then_some(key)
    });
    let unknown: Vec<&str> = own.collect();
    Ok((!unknown.is_empty()).then(|| {
        let file = metadata.file().display();
        format!(
            "{file}: nothing here knows what is meant by {}; it is assumed to change nothing",
            unknown.join(", ")
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loader::{Array, Value};
    use crate::model::{Definition, Hyperparameters};

    fn metadata() -> Metadata {
        let mut metadata = Metadata::new("m.gguf");
        metadata.insert("general.architecture", "llama");
        for (key, value) in [
            ("block_count", 2u32),
            ("embedding_length", 64),
            ("feed_forward_length", 96),
            ("attention.head_count", 4),
            ("context_length", 32),
            ("vocab_size", 128),
        ] {
            metadata.insert(format!("llama.{key}"), value);
        }
        metadata.insert("llama.attention.layer_norm_rms_epsilon", 1e-5f32);
        metadata
    }

    /// A value that no key takes makes each of them fail, with a factor or without one.
    #[test]
    fn what_is_listed_as_read_is_read() {
        let definition = Definition::built_in("llama", "m.gguf").expect("a family");
        let fails = |mut metadata: Metadata, name: &str| {
            let texts = Array::strings(&["wrong".to_owned()]);
            metadata.insert(format!("llama.{name}"), Value::from(texts));
            Hyperparameters::from_metadata(&metadata, &definition).is_err()
        };
        let mut scaled = metadata();
        scaled.insert("llama.rope.scaling.type", "yarn");
        scaled.insert("llama.rope.scaling.factor", 4.0f32);
        for name in READ {
            assert!(
                fails(metadata(), name) || fails(scaled.clone(), name),
                "{name}"
            );
        }
        for name in HARMLESS {
            assert!(!fails(metadata(), name), "{name}");
        }
    }

    #[test]
    fn unknown_keys_are_named() {
        let mut metadata = metadata();
        metadata.insert("llama.expert_used_count", 0u32);
        metadata.insert("general.name", "llama.");
        metadata.insert("llamas.legs", 4u32);
        assert_eq!(unknown_keys(&metadata).expect("text"), None);
        metadata.insert("llama.num_loops", 2u32);
        metadata.insert("llama.ple.layers", 1u32);
        let said = unknown_keys(&metadata).expect("text").expect("two keys");
        assert!(
            said.contains("m.gguf") && said.contains("llama.num_loops, llama.ple.layers"),
            "{said}"
        );
    }
}
