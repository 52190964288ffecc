//! `config.json`, read key by key: what is never asked for can be told at the end.

use super::ImportError;
use super::error::{short, unsupported, value};
use crate::loader::Folder;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Keys that say nothing about the computation of a step: how a model was trained, saved or is called.
#[rustfmt::skip]
const HARMLESS: &[&str] = &[
    "_attn_implementation", "_attn_implementation_autoset", "_commit_hash", "add_cross_attention", "architectures",
    "attention_dropout", "attn_implementation", "bad_words_ids", "begin_suppress_tokens", "cache_implementation",
    "chunk_size_feed_forward", "cross_attention_hidden_size", "decoder_start_token_id", "diversity_penalty", "do_sample",
    "dtype", "early_stopping", "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "finetuning_task",
    "forced_bos_token_id", "forced_eos_token_id", "hidden_dropout", "id2label", "initializer_range", "is_decoder",
    "is_encoder_decoder", "is_llama_config", "label2id", "length_penalty", "max_length", "max_window_layers", "min_length",
    "model_type", "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences", "output_attentions",
    "output_hidden_states", "output_scores", "pad_token_id", "prefix", "pretraining_tp", "problem_type", "pruned_heads",
    "remove_invalid_values", "repetition_penalty", "resid_pdrop", "return_dict", "return_dict_in_generate", "sep_token_id",
    "suppress_tokens", "task_specific_params", "temperature", "tf_legacy_loss", "tie_encoder_decoder", "tokenizer_class",
    "top_k", "top_p", "torch_dtype", "torchscript", "transformers.js_config", "transformers_version", "typical_p",
    "unsloth_fixed", "unsloth_version", "use_bfloat16", "use_cache",
    // Saved beside `layer_types`, which decides.
    "_sliding_window_pattern",
    // Of multimodal models whose text half is run.
    "boi_token_index", "eoi_token_index", "image_token_index", "mm_tokens_per_image", "multimodal_projector_bias", "processor_class",
    "projector_hidden_act", "spatial_merge_size", "text_config", "text_config.model_type", "vision_config",
    "vision_feature_layer",
];

/// Far above every dimension of a model; what is larger must not reserve memory.
const COUNT_MAX: u32 = 1 << 24;

/// The keys of `config.json`; `null` is the same as absent.
pub(super) struct Config {
    file: PathBuf,
    map: Map<String, Value>,
    nulls: HashSet<String>,
    asked: RefCell<HashSet<String>>,
}

impl Config {
    /// Reads the folder's `config.json`; the keys of its `text_config`, if it has one, go before its own.
    pub(super) fn read(folder: &Folder) -> Result<Config, ImportError> {
        let Some(json) = folder.json("config.json")? else {
            return Err(ImportError::MissingFile {
                folder: folder.path().to_owned(),
                file: "config.json",
                why: "which says what model it is",
            });
        };
        Ok(Config::new(json.path(), json.parse()?))
    }

    pub(super) fn new(file: &Path, mut map: Map<String, Value>) -> Config {
        let text = map.get("text_config").and_then(Value::as_object).cloned();
        for (key, value) in text.unwrap_or_default() {
            let _replaced = match key.as_str() {
                // The head belongs to the whole model, and so does what is said of it.
                "architectures" | "tie_word_embeddings" => None,
                "model_type" => map.insert("text_config.model_type".into(), value),
                _ => map.insert(key, value),
            };
        }
        let nulls = map
            .iter()
            .filter(|(_, value)| value.is_null())
            .map(|(key, _)| key.clone())
            .collect();
        map.retain(|_, value| !value.is_null());
        Config {
            file: file.to_owned(),
            map,
            nulls,
            asked: RefCell::default(),
        }
    }

    /// The file's path.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// The value of `key`.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.asked.borrow_mut().insert(key.to_owned());
        self.map.get(key)
    }

    /// Whether `key` is there and `null`, where that says something else than an absent key.
    pub(super) fn is_null(&self, key: &str) -> bool {
        self.nulls.contains(key)
    }

    /// The number `key`, at least 1 and at most [`COUNT_MAX`].
    pub(super) fn count(&self, key: &str) -> Result<Option<u32>, ImportError> {
        let Some(found) = self.get(key) else {
            return Ok(None);
        };
        let number = found.as_u64().and_then(|number| u32::try_from(number).ok());
        match number.filter(|number| (1..=COUNT_MAX).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(value(
                &self.file,
                key,
                format!("a whole number of at least 1 and at most {COUNT_MAX}"),
                found,
            )),
        }
    }

    /// [`Config::count`] where 0 means something.
    pub(super) fn count_or_zero(&self, key: &str) -> Result<Option<u32>, ImportError> {
        match self.get(key).and_then(Value::as_u64) {
            Some(0) => Ok(Some(0)),
            _ => self.count(key),
        }
    }

    /// [`Config::count`] of a key that must be there.
    pub(super) fn need_count(&self, key: &str) -> Result<u32, ImportError> {
        self.count(key)?.ok_or_else(|| ImportError::MissingKey {
            file: self.file.clone(),
            key: key.to_owned(),
            why: "a model needs it",
        })
    }

    /// The positive finite number `key`.
    pub(super) fn number(&self, key: &str) -> Result<Option<f32>, ImportError> {
        self.get(key)
            .map(|found| number(&self.file, key, found))
            .transpose()
    }

    /// The bool `key`.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, ImportError> {
        let Some(found) = self.get(key) else {
            return Ok(None);
        };
        let flag = found.as_bool();
        flag.map(Some)
            .ok_or_else(|| value(&self.file, key, "true or false", found))
    }

    /// The text `key`.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, ImportError> {
        let Some(found) = self.get(key) else {
            return Ok(None);
        };
        let text = found.as_str();
        text.map(Some)
            .ok_or_else(|| value(&self.file, key, "a text", found))
    }

    /// Token ids: one number, or a list of them.
    pub(super) fn tokens(&self, key: &str) -> Result<Vec<u32>, ImportError> {
        self.get(key)
            .map_or(Ok(Vec::new()), |found| tokens(&self.file, key, found))
    }

    /// Refuses `key` unless it is absent or one of `accepted`.
    pub(super) fn only(&self, key: &str, accepted: &[Value]) -> Result<(), ImportError> {
        match self.get(key) {
            None => Ok(()),
            Some(found) if accepted.contains(found) => Ok(()),
            Some(found) => {
                let supported: Vec<String> = accepted.iter().map(short).collect();
                let supported = match supported.is_empty() {
                    true => "a folder without it".to_owned(),
                    false => supported.join(", "),
                };
                Err(unsupported(&self.file, key, short(found), supported))
            }
        }
    }

    /// A sentence about the keys that nothing has asked for and that are not known to be harmless.
    pub(super) fn unknown(&self) -> Option<String> {
        let asked = self.asked.borrow();
        let known = |key: &str| HARMLESS.contains(&key) || asked.contains(key);
        let unknown: Vec<&str> = self
            .map
            .keys()
            .map(String::as_str)
            .filter(|key| !known(key))
            .collect();
        if unknown.is_empty() {
            return None;
        }
        let file = self.file.display();
        Some(format!(
            "{file}: nothing here knows what is meant by {}; it is assumed to change nothing",
            unknown.join(", ")
        ))
    }
}

/// A positive finite number.
pub(super) fn number(file: &Path, key: &str, found: &Value) -> Result<f32, ImportError> {
    let number = found.as_f64().map(|number| number as f32);
    match number.filter(|number| number.is_finite() && *number > 0.0) {
        Some(number) => Ok(number),
        None => Err(value(file, key, "a positive number", found)),
    }
}

/// Token ids: one number, or a list of them.
pub(super) fn tokens(file: &Path, key: &str, found: &Value) -> Result<Vec<u32>, ImportError> {
    let one = |found: &Value| {
        let id = found.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| value(file, key, "token ids", found))
    };
    match found {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => list.iter().map(one).collect(),
        single => Ok(vec![one(single)?]),
    }
}
