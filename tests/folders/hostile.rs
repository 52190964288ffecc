//! Folders that lie: each refusal is one line that names the file and both sides.

use super::support::command::Bench;
use super::writer::{self, Written};
use super::{copy, edit, fixture, refusal, says};
use greta_infer::dtype::DType;
use greta_infer::loader::write_gguf;
use serde_json::{Value, json};
use std::path::Path;

fn with_header(header: &str, data: usize) -> String {
    let folder = copy("llama");
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, writer::raw(header, &vec![0; data])).expect("written");
    let message = refusal(folder.path());
    says(&message, &["model.safetensors: "]);
    message
}

fn with_bytes(bytes: &[u8]) -> String {
    let folder = copy("llama");
    std::fs::write(folder.path().join("model.safetensors"), bytes).expect("written");
    refusal(folder.path())
}

#[test]
fn headers_are_not_trusted() {
    let whole = std::fs::read(fixture("llama").join("model.safetensors")).expect("the fixture");
    says(
        &with_bytes(&whole[..5]),
        &["has 5 bytes", "8 bytes of a length"],
    );
    says(
        &with_bytes(&whole[..100]),
        &["announces a header of", "has 92 left"],
    );
    says(
        &with_bytes(&whole[..whole.len() - 1]),
        &["bytes of data, but the file has", "cut short"],
    );
    let mut long = whole.clone();
    long.push(0);
    says(&with_bytes(&long), &["describes 144", "the file has 144"]);
    for length in [1u64 << 63, u64::MAX, (16 << 20) + 1] {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend_from_slice(b"{}");
        says(
            &with_bytes(&bytes),
            &[&format!("a header of {length} bytes"), "at most 16777216"],
        );
    }
    let check = |header: &str, parts: &[&str]| says(&with_header(header, 64), parts);
    check("not JSON", &["the header cannot be used", "line 1"]);
    check("\u{0}\u{0}", &["the header cannot be used"]);
    check(&"[".repeat(1 << 16), &["the header cannot be used"]);
    check(
        &format!("{{\"a\":{}", "{\"a\":".repeat(1 << 16)),
        &["recursion limit"],
    );
    check("[]", &["the header cannot be used"]);
    check("{\"t\": 3}", &["t: ", "invalid type"]);
    let tensor = |dtype: &str, shape: Value, begin: u64, end: u64| json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]});
    let header = |tensors: &[(&str, Value)]| {
        let map: serde_json::Map<String, Value> = tensors
            .iter()
            .map(|(name, value)| (name.to_string(), value.clone()))
            .collect();
        Value::Object(map).to_string()
    };
    let one = |dtype: &str, shape: Value, begin, end| {
        header(&[("t.weight", tensor(dtype, shape, begin, end))])
    };
    check(
        &one("F8_E4M3", json!([8, 8]), 0, 64),
        &["t.weight", "F8_E4M3", "supported: F32, F16, BF16"],
    );
    check(
        &one("F8", json!([8, 8]), 0, 64),
        &["t.weight", "\"F8\" is unknown", "supported: F32, F16, BF16"],
    );
    check(
        &one("I64", json!([8]), 0, 64),
        &["t.weight", "I64", "supported: F32, F16, BF16"],
    );
    check(
        &one("F32", json!([4, 8]), 0, 64),
        &["t.weight", "takes 128 bytes", "gives it 64"],
    );
    check(
        &one("F32", json!([4, 4]), 4, 68),
        &["t.weight", "bytes 4 to 68", "begins at byte 0"],
    );
    check(
        &one("F32", json!([4, 4]), 64, 0),
        &["t.weight", "bytes 64 to 0"],
    );
    check(
        &one("F32", json!([1u64 << 62, 4]), 0, 64),
        &["t.weight", "more elements than can be addressed"],
    );
    check(
        &one("F32", json!([u64::MAX, 4]), 0, u64::MAX),
        &["t.weight"],
    );
    check(
        &one("F32", json!([-4, -4]), 0, 64),
        &["t.weight", "invalid value"],
    );
    check(
        &one("F32", json!([4, 2]), 0, 32),
        &["describes 32 bytes", "has 64"],
    );
    check(&one("F32", json!([]), 0, 4), &["describes 4 bytes"]);
    check(
        &one("F32", json!([1, 1, 1, 4, 4]), 0, 64),
        &["t.weight", "1 to 4 dimensions"],
    );
    let overlapping = header(&[
        ("a", tensor("F32", json!([12]), 0, 48)),
        ("b", tensor("F32", json!([12]), 16, 64)),
    ]);
    check(
        &overlapping,
        &["b: ", "bytes 16 to 64", "a ends at byte 48"],
    );
    let gap = header(&[
        ("a", tensor("F32", json!([4]), 0, 16)),
        ("b", tensor("F32", json!([4]), 48, 64)),
    ]);
    check(&gap, &["b: ", "bytes 48 to 64", "a ends at byte 16"]);
    let twice = r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":{"dtype":"F32","shape":[4],"data_offsets":[48,64]}}"#;
    check(twice, &["a: ", "bytes 48 to 64"]);
    let controls = header(&[("a\u{7}", tensor("F32", json!([16]), 0, 64))]);
    check(&controls, &["printable"]);
}

#[test]
fn random_damage_never_crashes() {
    let whole = std::fs::read(fixture("llama").join("model.safetensors")).expect("the fixture");
    let head = 8 + u64::from_le_bytes(whole[..8].try_into().expect("eight")) as usize;
    let mut rng = super::support::rng::Rng::new(20_261_127);
    let folder = copy("llama");
    for round in 0..300 {
        let mut bad = whole.clone();
        for _ in 0..=rng.below(3) {
            let at = rng.below(head);
            bad[at] = rng.byte();
        }
        std::fs::write(folder.path().join("model.safetensors"), &bad).expect("written");
        if let Err(error) = greta_infer::import::open(folder.path(), None) {
            let message = greta_infer::cli::error::chain(&error);
            assert!(
                message.contains(&folder.path().display().to_string()),
                "round {round}: {message}"
            );
        }
    }
}

#[test]
fn shards_and_their_index_agree() {
    let check = |change: &dyn Fn(&Path, &mut Value), parts: &[&str]| {
        let folder = copy("sharded");
        let path = folder.path().join("model.safetensors.index.json");
        let mut index: Value =
            serde_json::from_str(&std::fs::read_to_string(&path).expect("an index")).expect("JSON");
        change(folder.path(), &mut index);
        if !index.is_null() {
            std::fs::write(&path, index.to_string()).expect("written");
        }
        says(&refusal(folder.path()), parts);
    };
    let (first, second, third) = (
        writer::shard_name(0, 3),
        writer::shard_name(1, 3),
        writer::shard_name(2, 3),
    );
    check(
        &|folder, _| std::fs::remove_file(folder.join(&second)).expect("removed"),
        &[
            "index.json",
            "names 3 files",
            "one is not in the folder",
            &second,
        ],
    );
    check(
        &|_, index| index["weight_map"]["nothing.weight"] = first.as_str().into(),
        &["nothing.weight", &format!("expected in {first}"), "in none"],
    );
    let norm = "model.norm.weight";
    check(
        &|_, index| {
            drop(
                index["weight_map"]
                    .as_object_mut()
                    .expect("a map")
                    .remove(norm),
            )
        },
        &[norm, "not listed"],
    );
    check(
        &|_, index| index["weight_map"]["model.embed_tokens.weight"] = third.as_str().into(),
        &["model.embed_tokens.weight", "expected in", "found in"],
    );
    check(
        &|_, index| index["weight_map"]["model.norm.weight"] = "../model.safetensors".into(),
        &[norm, "of this folder", "../model.safetensors"],
    );
    check(
        &|_, index| index["weight_map"] = json!({}),
        &["weight_map is empty"],
    );
    check(
        &|_, index| drop(index.as_object_mut().expect("a map").remove("weight_map")),
        &["missing field `weight_map`"],
    );
    check(
        &|folder, index| {
            std::fs::remove_file(folder.join("model.safetensors.index.json")).expect("removed");
            *index = Value::Null;
        },
        &[
            "has 3 SafeTensors files",
            &first,
            "neither model.safetensors nor model.safetensors.index.json",
        ],
    );
    // The same tensor in two files.
    check(
        &|folder, _| {
            let extra = Written {
                name: norm.into(),
                dtype: "BF16",
                shape: vec![32],
                bytes: vec![0; 64],
            };
            let mut all: Vec<Written> = writer::tensors(folder, DType::BF16);
            all.retain(|tensor| tensor.name != norm);
            let (some, rest) = all.split_at(2);
            std::fs::write(
                folder.join(&first),
                writer::file(&[some, std::slice::from_ref(&extra)].concat(), 0),
            )
            .expect("written");
            std::fs::write(
                folder.join(&second),
                writer::file(&[rest, &[extra]].concat(), 0),
            )
            .expect("written");
            std::fs::write(folder.join(&third), writer::file(&[], 0)).expect("written");
        },
        &[norm, "is in", &first, &second],
    );
}

#[test]
fn tensors_are_those_of_the_family() {
    let with = |change: &dyn Fn(&mut Vec<Written>), config: Value, parts: &[&str]| {
        let folder = copy("llama");
        let mut tensors = writer::tensors(folder.path(), DType::F32);
        change(&mut tensors);
        std::fs::write(
            folder.path().join("model.safetensors"),
            writer::file(&tensors, 0),
        )
        .expect("written");
        edit(folder.path(), "config.json", &config);
        says(&refusal(folder.path()), parts);
    };
    let none = || json!({});
    with(
        &|tensors| tensors.retain(|t| t.name != "model.layers.1.mlp.up_proj.weight"),
        none(),
        &[
            "model.layers.1.mlp.up_proj.weight: expected",
            "none of the 1 file",
        ],
    );
    with(
        &|tensors| tensors.retain(|t| t.name != "lm_head.weight"),
        none(),
        &["lm_head.weight", "does not tie the head"],
    );
    with(
        &|tensors| {
            tensors.push(Written {
                name: "model.layers.0.self_attn.q_norm.weight".into(),
                dtype: "F32",
                shape: vec![32],
                bytes: vec![0; 128],
            })
        },
        none(),
        &[
            "model.layers.0.self_attn.q_norm.weight",
            "has no place in definition `llama`",
        ],
    );
    let bias = |tensors: &mut Vec<Written>| {
        tensors.push(Written {
            name: "model.layers.0.self_attn.q_proj.bias".into(),
            dtype: "F32",
            shape: vec![32],
            bytes: vec![0; 128],
        });
    };
    with(
        &bias,
        none(),
        &[
            "model.layers.0.self_attn.q_proj.bias",
            "expected no bias",
            "attention_bias false",
        ],
    );
    with(
        &bias,
        json!({"attention_bias": true}),
        &[
            "model.layers.0.self_attn.k_proj.bias",
            "attention_bias true",
            "found in no file",
        ],
    );
    with(
        &|_| {},
        json!({"mlp_bias": true}),
        &[
            "model.layers.0.mlp.down_proj.bias",
            "mlp_bias true",
            "found in no file",
        ],
    );
    with(
        &|_| {},
        json!({"num_hidden_layers": 1}),
        &["model.layers.1.", "has no place"],
    );
    with(
        &|_| {},
        json!({"num_attention_heads": 2, "head_dim": 8}),
        &[
            "blk.0.attn_q.weight",
            "expected shape [16, 32]",
            "found [32, 32]",
        ],
    );
    with(
        &|_| {},
        json!({"num_attention_heads": 3, "head_dim": 8}),
        &["head count"],
    );
}

#[test]
fn configs_are_refused_by_name() {
    let check = |config: Value, parts: &[&str]| {
        let folder = copy("llama");
        edit(folder.path(), "config.json", &config);
        let message = refusal(folder.path());
        says(&message, parts);
        says(&message, &["config.json: "]);
    };
    check(
        json!({"architectures": ["MambaForCausalLM"]}),
        &["MambaForCausalLM", "LlamaForCausalLM", "Gemma3ForCausalLM"],
    );
    check(json!({"architectures": []}), &["architectures"]);
    check(json!({"architectures": null}), &["architectures: missing"]);
    check(
        json!({"hidden_act": "gelu"}),
        &["hidden_act: \"gelu\"", "supported: \"silu\""],
    );
    check(
        json!({"quantization_config": {"quant_method": "gptq"}}),
        &["quantization_config", "gptq"],
    );
    check(json!({"num_local_experts": 8}), &["num_local_experts: 8"]);
    check(json!({"sliding_window": 64}), &["sliding_window: 64"]);
    check(
        json!({"partial_rotary_factor": 0.5}),
        &["partial_rotary_factor: 0.5"],
    );
    check(
        json!({"layer_types": ["full_attention", "sliding_attention"]}),
        &["layer_types", "full_attention in every layer"],
    );
    check(
        json!({"layer_types": ["full_attention"]}),
        &["layer_types", "each of the 2 layers", "1 entries"],
    );
    check(
        json!({"layer_types": ["linear_attention", "full_attention"]}),
        &["layer_types", "linear_attention"],
    );
    check(
        json!({"hidden_size": "wide"}),
        &["hidden_size", "whole number", "\"wide\""],
    );
    check(json!({"hidden_size": 0}), &["hidden_size", "at least 1"]);
    check(
        json!({"num_hidden_layers": 1 << 24}),
        &["num_hidden_layers: 16777216", "at most 10000"],
    );
    check(
        json!({"vocab_size": u32::MAX}),
        &["vocab_size", "at most 16777216", "4294967295"],
    );
    check(
        json!({"vocab_size": 1u64 << 40}),
        &["vocab_size", "whole number"],
    );
    check(json!({"hidden_size": null}), &["hidden_size: missing"]);
    check(json!({"rms_norm_eps": -1.0}), &["rms_norm_eps", "positive"]);
    let rope = |value: Value| json!({"rope_parameters": null, "rope_scaling": value});
    check(
        rope(json!({"type": "dynamic", "factor": 2.0})),
        &[
            "rope_scaling.rope_type: dynamic",
            "default, linear, llama3, yarn",
        ],
    );
    check(
        rope(json!({"rope_type": "longrope"})),
        &["rope_scaling.rope_type: longrope"],
    );
    check(
        rope(json!({"type": "linear"})),
        &["rope_scaling.factor: missing"],
    );
    check(
        rope(json!({"type": "linear", "factor": 2.0, "twist": 1})),
        &["rope_scaling.twist: 1", "factor"],
    );
    check(
        rope(json!({"rope_type": "yarn", "factor": 4.0, "mscale": "wide"})),
        &["rope_scaling.mscale", "a positive number", "wide"],
    );
    check(rope(json!(7)), &["rope_scaling", "an object"]);
    let folder = copy("llama");
    let bomb = "{\"a\":".repeat(100_000);
    std::fs::write(folder.path().join("config.json"), bomb).expect("written");
    says(
        &refusal(folder.path()),
        &["config.json: ", "recursion limit"],
    );
    std::fs::write(folder.path().join("config.json"), b"\xff\xfe").expect("written");
    says(
        &refusal(folder.path()),
        &["config.json: ", "not UTF-8 from byte 0"],
    );
    std::fs::write(
        folder.path().join("config.json"),
        vec![b' '; (16 << 20) + 1],
    )
    .expect("written");
    says(
        &refusal(folder.path()),
        &["config.json: ", "more than 16777216 bytes"],
    );
}

/// Keys and values that move a terminal's cursor are shown escaped.
#[test]
fn what_a_file_says_is_printed_without_control_characters() {
    let bench = Bench::new();
    let folder = copy("llama");
    let key = json!({"\u{1b}[2J": 1});
    edit(folder.path(), "config.json", &key);
    let model = folder.path().display().to_string();
    let mut metadata = super::open(folder.path()).metadata().clone();
    metadata.insert("llama.name", "\u{9b}2J");
    let mut file = Vec::new();
    write_gguf(&mut file, &metadata, &[], &|_| true).expect("written");
    bench.write("named.gguf", file);
    for (args, shown) in [
        (["tokenize", "a", "--model", &model], "\\u{1b}[2J"),
        (["info", "named.gguf", "--format", "text"], "\\u{9b}2J"),
    ] {
        let ran = bench.run(&args);
        let all = format!("{}{}", ran.expect(0, &[]).stdout, ran.stderr);
        assert!(all.contains(shown), "no {shown} in {all}");
        let raw = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
        assert!(!all.contains(raw), "{all:?}");
    }
}

#[test]
fn files_that_are_missing_are_named() {
    let check = |file: &str, parts: &[&str]| {
        let folder = copy("llama");
        std::fs::remove_file(folder.path().join(file)).expect("removed");
        says(&refusal(folder.path()), parts);
    };
    check("config.json", &["has no config.json"]);
    check("tokenizer.json", &["has no tokenizer.json"]);
    check("model.safetensors", &["a directory", "SafeTensors files"]);
    let folder = copy("llama");
    let stray = folder.path().join("other.safetensors");
    std::fs::write(&stray, writer::file(&[], 0)).expect("written");
    says(
        &refusal(&stray),
        &[
            "other.safetensors",
            "not among the files",
            "model.safetensors",
        ],
    );
}
