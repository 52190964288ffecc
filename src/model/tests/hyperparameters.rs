//! Hyperparameters as metadata says them, and those that no model has.

use super::*;
use crate::loader::Metadata;

/// The metadata of a model that can run.
fn metadata() -> Metadata {
    let mut metadata = Metadata::new("m.gguf");
    metadata.insert("general.architecture", "toy");
    for (key, value) in [
        ("toy.block_count", 2u32),
        ("toy.embedding_length", 64),
        ("toy.feed_forward_length", 96),
        ("toy.attention.head_count", 4),
        ("toy.attention.head_count_kv", 2),
        ("toy.context_length", 32),
        ("toy.vocab_size", 128),
    ] {
        metadata.insert(key, value);
    }
    metadata.insert("toy.attention.layer_norm_rms_epsilon", 1e-5f32);
    metadata
}

/// A family with windows, all of whose layers are turned.
fn definition() -> Definition {
    let attention = "[[layer]]\nop = \"attention\"\nin = [\"x\"]\nwindow = \"W\"\nout = \"x\"\n";
    Definition::parse("toy.toml", &format!("{HEAD}{attention}")).expect("it parses")
}

/// The metadata above, less the keys not given, more or other the ones that are.
fn read(change: fn(&mut Metadata)) -> Result<Hyperparameters, ModelError> {
    let mut metadata = metadata();
    change(&mut metadata);
    Hyperparameters::from_metadata(&metadata, &definition())
}

fn without(key: &str) -> Metadata {
    let mut rest = Metadata::new("m.gguf");
    for (name, value) in metadata().iter().filter(|(name, _)| *name != key) {
        rest.insert(name, value.clone());
    }
    rest
}

#[test]
fn hyperparameters() {
    let read_plain = read(|_| ()).expect("a model that can run");
    assert_eq!(
        read_plain,
        Hyperparameters {
            layers: 2,
            window: None,
            ..hyper()
        }
    );
    let scaled = read(|m| {
        m.insert("toy.rope.scaling.type", "linear");
        m.insert("toy.rope.scaling.factor", 4.0f32);
        m.insert("toy.rope.dimension_count", 8u32);
        m.insert("toy.attention.sliding_window", 0u32);
    });
    let scaled = scaled.expect("linear scaling runs");
    assert_eq!((scaled.rope_position_scale, scaled.rope().dims), (0.25, 8));
    assert_eq!(scaled.window, None, "a window of 0 is none");
    let bytes = |kv_type| read_plain.kv_bytes_per_position(kv_type);
    assert_eq!(bytes(KvType::F16), 2 * 2 * (2 * 16 * 2));
    // Of 32 elements each, 32 bytes and a scale of two.
    assert_eq!(bytes(KvType::Q8_0), 2 * 2 * (32 + 2));

    for key in [
        "general.architecture",
        "toy.block_count",
        "toy.embedding_length",
        "toy.feed_forward_length",
        "toy.attention.head_count",
        "toy.context_length",
        "toy.vocab_size",
        "toy.attention.layer_norm_rms_epsilon",
    ] {
        let error = Hyperparameters::from_metadata(&without(key), &definition()).expect_err(key);
        says(&error.to_string(), &["m.gguf: metadata has no `", key, "`"]);
    }
    // Without a count of KV heads, every head has its own.
    let rest = without("toy.attention.head_count_kv");
    let plain = Hyperparameters::from_metadata(&rest, &definition());
    assert_eq!(plain.expect("multi-head attention").kv_heads, 4);
}

#[test]
fn hyperparameters_that_no_model_has() {
    type Change = fn(&mut Metadata);
    let cases: &[(Change, &[&str])] = &[
        (
            |m| drop(m.insert("toy.block_count", 0u32)),
            &["layers is 0", "expected 1 to 16777216"],
        ),
        (
            |m| drop(m.insert("toy.block_count", 1u32 << 30)),
            &["layers is 1073741824"],
        ),
        (
            |m| drop(m.insert("toy.block_count", "two")),
            &["toy.block_count", "string", "u32"],
        ),
        (
            |m| drop(m.insert("toy.block_count", 1u64 << 40)),
            &["toy.block_count", "1099511627776"],
        ),
        (
            |m| drop(m.insert("toy.attention.head_count", 0u32)),
            &["head count is 0"],
        ),
        (
            |m| drop(m.insert("toy.attention.head_count_kv", 3u32)),
            &["KV head count is 3, expected a divisor of the head count 4"],
        ),
        (
            |m| drop(m.insert("toy.attention.key_length", 12u32)),
            &["head size is 12, expected a multiple of 8, at most 256"],
        ),
        (
            |m| drop(m.insert("toy.attention.key_length", 264u32)),
            &["head size is 264"],
        ),
        (
            |m| drop(m.insert("toy.attention.value_length", 8u32)),
            &["`toy.attention.value_length` is 8; supported: values as long as keys"],
        ),
        (
            |m| drop(m.insert("toy.rope.dimension_count", 7u32)),
            &["rotated elements", "is 7, expected even, 2 to 16"],
        ),
        (
            |m| drop(m.insert("toy.rope.dimension_count", 18u32)),
            &["is 18, expected even"],
        ),
        (
            |m| drop(m.insert("toy.rope.freq_base", f32::NAN)),
            &["RoPE base is NaN"],
        ),
        (
            |m| drop(m.insert("toy.attention.layer_norm_rms_epsilon", 0f32)),
            &["RMSNorm epsilon is 0, expected a positive finite number"],
        ),
        (
            |m| drop(m.insert("toy.rope.scaling.type", "yarn")),
            &["`toy.rope.scaling.type` is yarn; supported: none, linear"],
        ),
        (
            |m| {
                m.insert("toy.rope.scaling.type", "linear");
                m.insert("toy.rope.scaling.factor", 0f32);
            },
            &["RoPE position scale is inf"],
        ),
        (
            |m| drop(m.insert("toy.expert_count", 8u32)),
            &["`toy.expert_count` is 8; supported: dense models"],
        ),
        // Each within bounds, but H·D is not: the product must not wrap around.
        (
            |m| {
                m.insert("toy.attention.head_count", 1u32 << 24);
                m.insert("toy.attention.head_count_kv", 1u32 << 24);
                m.insert("toy.attention.key_length", 256u32);
            },
            &[
                "width of all heads",
                "is 4294967296, expected 1 to 16777216",
            ],
        ),
    ];
    for (change, parts) in cases {
        let error = read(*change).expect_err(parts[0]).to_string();
        says(&error, &["m.gguf"]);
        says(&error, parts);
    }
}
