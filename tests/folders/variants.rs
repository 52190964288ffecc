//! What a `config.json` can ask for, as people's files have it: each of `make_variants.py`'s is computed as Hugging Face
//! `transformers` does, or refused.

use super::support::command::Bench;
use super::support::compare::{SLACK, assert_same_bits, widest_apart};
use super::support::family;
use super::writer::{self, Written};
use super::{edit, fixture, open, refusal, says};
use greta_infer::dtype::DType;
use greta_infer::graph::KvType;
use greta_infer::import::{requantize, vectors_to};
use greta_infer::loader::{Checkpoint, TensorInfo, write_gguf};
use greta_infer::model::{Logits, Model};
use greta_infer::runtime::{Session, SessionOptions};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use tempfile::TempDir;

/// One of `variants.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variant {
    name: String,
    config: Value,
    /// Shapes by SafeTensors name.
    tensors: BTreeMap<String, Vec<usize>>,
    tokens: Vec<u32>,
    /// The tokens after which logits are known, and the first of those logits.
    shown: Vec<usize>,
    logits: Vec<Vec<f64>>,
}

fn variants() -> Vec<Variant> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/variants.json");
    let text = std::fs::read_to_string(path).expect("the variants");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}"))
}

fn variant(name: &str) -> Variant {
    let found = variants().into_iter().find(|variant| variant.name == name);
    found.unwrap_or_else(|| panic!("no variant {name}"))
}

impl Variant {
    /// Its folder, with a tokenizer of as many tokens.
    fn folder(&self) -> TempDir {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("config.json"), self.config.to_string()).expect("written");
        let tokenizer = fixture("llama").join("tokenizer.json");
        std::fs::copy(tokenizer, path("tokenizer.json")).expect("copied");
        let gemma = self.config["architectures"][0]
            .as_str()
            .expect("a name")
            .starts_with("Gemma");
        let write = |(name, shape): (&String, &Vec<usize>)| Written {
            name: name.clone(),
            dtype: "F32",
            shape: shape.clone(),
            bytes: values(name, shape, gemma)
                .iter()
                .flat_map(|x| x.to_le_bytes())
                .collect(),
        };
        let tensors: Vec<Written> = self.tensors.iter().map(write).collect();
        std::fs::write(path("model.safetensors"), writer::file(&tensors, 0)).expect("written");
        folder
    }

    /// How far logits are from the judge's, of their size.
    fn apart(&self, rows: &[Vec<f32>]) -> f64 {
        let judge = |(&index, right): (&usize, &Vec<f64>)| {
            widest_apart(&rows[index][..right.len()], right, &self.name)
        };
        self.shown
            .iter()
            .zip(&self.logits)
            .map(judge)
            .fold(0.0, f64::max)
    }
}

/// As in `make_variants.py`: Gemma adds 1 to its norms.
fn values(name: &str, shape: &[usize], gemma: bool) -> Vec<f32> {
    let mut values = family::values(name, shape);
    if gemma && name.ends_with("norm.weight") {
        values.iter_mut().for_each(|x| *x -= 1.0);
    }
    values
}

/// The logits after each of `tokens`.
fn every_row(checkpoint: Checkpoint, tokens: &[u32]) -> Vec<Vec<f32>> {
    let model = Model::from_checkpoint(checkpoint, None).unwrap_or_else(|error| panic!("{error}"));
    let options = SessionOptions {
        context: 64,
        kv_type: KvType::F32,
        chunk_rows: 16,
        poison: true,
        logits: Logits::All,
        ..SessionOptions::default()
    };
    let mut session =
        Session::build(&model, &options, &|_, _| {}).unwrap_or_else(|error| panic!("{error}"));
    let mut rows = Vec::new();
    let each = &mut |_, logits: &[f32]| rows.push(logits.to_vec());
    session.prefill_each(tokens, each).expect("they fit");
    rows
}

#[test]
fn configs_are_read_as_transformers_reads_them() {
    for variant in variants() {
        let folder = variant.folder();
        let rows = every_row(open(folder.path()), &variant.tokens);
        let apart = variant.apart(&rows);
        println!("{:<18} within {apart:.1e} of transformers", variant.name);
        let name = &variant.name;
        assert!(
            apart <= SLACK,
            "{name}: the logits are {apart:.1e} from transformers'"
        );
        // And so is the GGUF file that is made of it.
        let checkpoint = vectors_to(open(folder.path()), DType::F32, 1).expect("F32");
        let tensors: Vec<TensorInfo> = checkpoint.tensors().cloned().collect();
        let mut bytes = Vec::new();
        write_gguf(&mut bytes, checkpoint.metadata(), &tensors, &|_| true).expect("written");
        let read = Checkpoint::from_bytes(Path::new("written.gguf"), bytes);
        let read = read.unwrap_or_else(|error| panic!("{name}: {error}"));
        for (found, right) in every_row(read, &variant.tokens).iter().zip(&rows) {
            assert_same_bits(found, right, name);
        }
    }
}

/// What a variant is for shows: without it the logits are others'. So a key that nobody read could not have passed.
#[test]
fn every_special_key_matters() {
    let check = |name: &str, changes: Value| {
        let variant = variant(name);
        let folder = variant.folder();
        edit(folder.path(), "config.json", &changes);
        let apart = variant.apart(&every_row(open(folder.path()), &variant.tokens));
        println!("{name} with {changes}: {apart:.1e}");
        assert!(apart > 1000.0 * SLACK, "{name} with {changes}: {apart:.1e}");
    };
    check("qwen2-window", json!({"use_sliding_window": false}));
    check("qwen2-window", json!({"max_window_layers": 0}));
    check("qwen2-window", json!({"max_window_layers": 2}));
    check("qwen2-defaults", json!({"rope_scaling": null}));
    check(
        "qwen3-types",
        json!({"layer_types": null, "max_window_layers": 2}),
    );
    check("smollm3-interval", json!({"no_rope_layer_interval": null}));
    check("smollm3-interval", json!({"no_rope_layers": [1, 1, 1, 1]}));
    check("smollm3-list", json!({"no_rope_layers": [1, 0, 0, 0, 1]}));
    check("smollm3-list", json!({"use_sliding_window": false}));
    check(
        "smollm3-list",
        json!({"layer_types": ["full_attention", "sliding_attention", "full_attention",
        "full_attention", "full_attention"]}),
    );
    check("gemma3-scale", json!({"query_pre_attn_scalar": 32}));
    check("gemma3-scale", json!({"sliding_window_pattern": null}));
    check("gemma3-scale", json!({"rope_local_base_freq": null}));
    check("ministral", json!({"layer_types": null}));
    check("ministral", json!({"sliding_window": 12}));
}

/// Only the text half of a multimodal folder is run, and one line says so.
#[test]
fn vision_is_left_out_and_named() {
    for name in ["gemma3-4b", "mistral3"] {
        let variant = variant(name);
        let vision = variant
            .tensors
            .keys()
            .filter(|tensor| tensor.contains("vision_tower"));
        assert!(vision.count() > 0, "{name} has no vision");
        let checkpoint = open(variant.folder().path());
        let architecture = variant.config["architectures"][0].as_str().expect("a name");
        says(
            &checkpoint.notes().join("; "),
            &[architecture, "only the text half"],
        );
        assert_eq!(checkpoint.notes().len(), 1, "{:?}", checkpoint.notes());
    }
}

/// A GGUF file says some things by keys that llama.cpp does not read for the family, and the user is told.
#[test]
fn convert_names_what_llama_cpp_would_pass_over() {
    let bench = Bench::new();
    for (name, keys) in [
        ("qwen2-window", &["qwen2.attention.sliding_window"][..]),
        ("smollm3-interval", &["smollm3.attention.rope_pattern"]),
        ("gemma3-scale", &["gemma3.attention.scale"]),
        (
            "mistral-yarn",
            &["llama.rope.scaling.yarn_attn_factor", "yarn_beta_fast"],
        ),
        ("gemma3-4b", &[]),
        ("mistral3", &[]),
    ] {
        let folder = variant(name).folder();
        let path = folder.path().display().to_string();
        let ran = bench.run(&["convert", &path, "-o", &format!("{name}.gguf")]);
        ran.expect(0, keys);
        let told = ran.stderr.contains("llama.cpp does not read");
        assert_eq!(told, !keys.is_empty(), "{ran:?}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let check = |name: &str, changes: Value, parts: &[&str]| {
        let folder = variant(name).folder();
        edit(folder.path(), "config.json", &changes);
        let message = refusal(folder.path());
        says(&message, parts);
        says(&message, &["config.json: "]);
    };
    let slides = json!(["sliding_attention", "full_attention", "full_attention"]);
    check(
        "qwen2-window",
        json!({"use_sliding_window": false, "layer_types": slides}),
        &[
            "layer_types",
            "full_attention in every layer",
            "no sliding_window in use",
        ],
    );
    check(
        "qwen2-window",
        json!({"layer_types": "all"}),
        &["layer_types", "each of the 3 layers"],
    );
    check(
        "qwen2-window",
        json!({"layer_types": ["full_attention"]}),
        &["layer_types", "1 entries"],
    );
    check(
        "qwen2-window",
        json!({"max_window_layers": -1}),
        &["max_window_layers", "-1"],
    );
    check(
        "smollm3-list",
        json!({"no_rope_layers": [1, 0]}),
        &["no_rope_layers", "each of the 5 layers", "[1,0]"],
    );
    check(
        "smollm3-list",
        json!({"no_rope_layers": [1, 0, 2, 1, 1]}),
        &["no_rope_layers", "0 or 1"],
    );
    check(
        "smollm3-interval",
        json!({"no_rope_layer_interval": 0}),
        &["no_rope_layer_interval", "at least 1"],
    );
    check(
        "mistral-yarn",
        json!({"attention_bias": true}),
        &["attention_bias", "supported: false"],
    );
    check(
        "mistral-yarn",
        json!({"sliding_window": 8, "use_sliding_window": false}),
        &["use_sliding_window", "null"],
    );
    check(
        "mistral-yarn",
        json!({"sliding_window": 8, "layer_types": ["full_attention", "sliding_attention"]}),
        &["layer_types", "sliding_attention in every layer"],
    );
    check(
        "mistral-yarn",
        json!({"rope_scaling": {"type": "linear", "factor": 2.0}}),
        &["rope_scaling", "not two that differ"],
    );
    check(
        "mistral3",
        json!({"text_config": {"model_type": "ministral3"}}),
        &["text_config.model_type", "ministral3", "mistral"],
    );
    check(
        "gemma3-types",
        json!({"sliding_window_pattern": 0}),
        &["sliding_window_pattern", "at least 1"],
    );
    let flat = json!({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}});
    check(
        "gemma3-types",
        flat,
        &["rope_parameters", "full_attention and sliding_attention"],
    );
    let local =
        json!({"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}});
    check(
        "gemma3-types",
        local,
        &["sliding_attention.rope_type: linear", "default"],
    );
    check(
        "ministral",
        json!({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}),
        &["one set of values"],
    );
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "truncate": false});
    check(
        "llama-yarn",
        json!({"rope_parameters": yarn}),
        &["truncate: false", "true"],
    );
}

/// A window that holds the whole context is none, whatever the layers are called.
#[test]
fn a_window_of_the_whole_context_is_none() {
    let variant = variant("mistral-yarn");
    let folder = variant.folder();
    let changes =
        json!({"sliding_window": 256, "layer_types": ["full_attention", "sliding_attention"]});
    edit(folder.path(), "config.json", &changes);
    let checkpoint = open(folder.path());
    let window = checkpoint.metadata().u32("llama.attention.sliding_window");
    assert_eq!(window.expect("a number"), None);
    let apart = variant.apart(&every_row(checkpoint, &variant.tokens));
    assert!(apart <= SLACK, "{apart:.1e}");
}

/// Gemma 3's text models come with the tokenizer of their multimodal siblings, which has a token more than they have rows.
#[test]
fn added_tokens_without_a_row_are_left_out() {
    let folder = super::copy("llama");
    let path = folder.path().join("tokenizer.json");
    let text = std::fs::read_to_string(&path).expect("the tokenizer");
    let mut tokenizer: Value = serde_json::from_str(&text).expect("JSON");
    let more = json!({"id": 320, "content": "<image_soft_token>", "special": true});
    tokenizer["added_tokens"]
        .as_array_mut()
        .expect("a list")
        .push(more);
    std::fs::write(&path, tokenizer.to_string()).expect("written");
    let checkpoint = open(folder.path());
    says(
        &checkpoint.notes().join("; "),
        &["320", "<image_soft_token>", "left out"],
    );
    let checkpoint = requantize(checkpoint, DType::F32, None, 1).expect("F32");
    let tokenizer = greta_infer::tokenizer::Tokenizer::from_metadata(checkpoint.metadata());
    assert_eq!(tokenizer.expect("a tokenizer").vocab_size(), 320);
}
