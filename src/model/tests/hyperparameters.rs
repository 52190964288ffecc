//! Hyperparameters as metadata says them, and those that no model has.

use super::*;
use crate::graph::Yarn;
use crate::loader::{Array, Metadata, Value};

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
    assert_eq!(bytes(KvType::F32), 2 * 2 * (2 * 16 * 4));
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

/// YaRN's numbers by hand: of 16 elements of base 10,000, pair `8·ln(c / 2πn) / ln(10⁴)` turns n times
/// in c positions.
#[test]
fn yarn() {
    let read_yarn = |change: fn(&mut Metadata)| {
        let mut metadata = metadata();
        metadata.insert("toy.rope.scaling.type", "yarn");
        metadata.insert("toy.rope.scaling.factor", 4.0f32);
        metadata.insert("toy.rope.scaling.original_context_length", 4096u32);
        change(&mut metadata);
        let read = Hyperparameters::from_metadata(&metadata, &definition());
        read.expect("YaRN runs").rope()
    };
    let plain = read_yarn(|_| ());
    // 8 · ln(4096 / 64π) / ln(10⁴) = 2.62 and 8 · ln(4096 / 2π) / ln(10⁴) = 5.63; 0.1 · ln 4 + 1.
    let expected = Yarn {
        first: 2.0,
        last: 6.0,
        keep: 1.0,
        magnitude: 1.138_629_4,
    };
    assert_eq!((plain.position_scale, plain.yarn), (0.25, expected));
    let said = read_yarn(|m| {
        m.insert("toy.rope.scaling.yarn_beta_fast", 8.0f32);
        m.insert("toy.rope.scaling.yarn_beta_slow", 0.001f32);
        m.insert("toy.rope.scaling.yarn_ext_factor", 0.5f32);
        m.insert("toy.rope.scaling.yarn_attn_factor", 2.0f32);
        m.insert("toy.rope.scaling.attn_factor", 1.5f32);
    });
    let expected = Yarn {
        first: 3.0,
        last: 12.0,
        keep: 0.5,
        magnitude: 3.0,
    };
    assert_eq!(said.yarn, expected);
    let multiplied = read_yarn(|m| drop(m.insert("toy.rope.scaling.yarn_log_multiplier", 1f32)));
    assert_eq!(multiplied.yarn.magnitude, 1.0, "both magnitudes are one");
    for key in ["yarn_beta_fast", "yarn_beta_slow", "yarn_ext_factor"] {
        let mut metadata = metadata();
        metadata.insert("toy.rope.scaling.type", "yarn");
        metadata.insert("toy.rope.scaling.factor", 4.0f32);
        metadata.insert(format!("toy.rope.scaling.{key}"), f32::NAN);
        let read = Hyperparameters::from_metadata(&metadata, &definition());
        let error = read.expect_err("not a number").to_string();
        assert!(error.contains("NaN"), "{key}: {error}");
    }
}

#[test]
fn a_window_has_a_position() {
    let mut hyper = Hyperparameters::from_metadata(&metadata(), &definition()).expect("it runs");
    hyper.window = Some(0);
    let error = hyper.check("a.toml").expect_err("no position").to_string();
    assert!(error.contains("window is 0"), "{error}");
}

/// What Gemma's files leave out is in its Definition; what they say goes before it.
#[test]
fn defaults_of_a_family() {
    let gemma = Definition::built_in("gemma3", "").expect("built in");
    let read = |layers: u32, change: &dyn Fn(&mut Metadata)| {
        let mut renamed = Metadata::new("m.gguf");
        for (name, value) in metadata().iter() {
            renamed.insert(name.replace("toy.", "gemma3."), value.clone());
        }
        renamed.insert("general.architecture", "gemma3");
        renamed.insert("gemma3.block_count", layers);
        renamed.insert("gemma3.rope.freq_base", 1e6f32);
        renamed.insert("gemma3.attention.sliding_window", 8u32);
        change(&mut renamed);
        Hyperparameters::from_metadata(&renamed, &gemma).expect("a Gemma")
    };
    let small = read(13, &|_| ());
    assert_eq!(
        (small.embedding_scale, small.attention_scale()),
        (8.0, 0.25)
    );
    assert_eq!((small.rope().base, small.local_rope().base), (1e6, 1e4));
    let without: Vec<u32> = (0..13).filter(|&l| small.window_of(l).is_none()).collect();
    assert_eq!(without, [5, 11]);
    // 27B: 1 / √(E / H), which 64 and 4 make 1/4 as well; another width of heads tells them apart.
    let wide = |m: &mut Metadata| {
        m.insert("gemma3.attention.key_length", 64u32);
        m.insert("gemma3.attention.value_length", 64u32);
    };
    assert_eq!(read(61, &wide).attention_scale(), 0.125);
    assert_eq!(read(62, &wide).attention_scale(), 0.25);
    let said = read(62, &|m| {
        m.insert("gemma3.attention.scale", 0.5f32);
        m.insert("gemma3.attention.sliding_window_pattern", 2u32);
        m.insert("gemma3.rope.freq_base_swa", 500f32);
    });
    assert_eq!(
        (said.attention_scale(), said.local_rope().base),
        (0.5, 500.0)
    );
    assert_eq!(
        [0, 1, 2].map(|l| said.window_of(l)),
        [Some(8), None, Some(8)]
    );
    let whole = read(2, &|m| {
        drop(m.insert("gemma3.attention.sliding_window", 0u32))
    });
    assert_eq!(whole.window_of(0), None);
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
            |m| drop(m.insert("toy.rope.scaling.type", "longrope")),
            &["`toy.rope.scaling.type` is longrope; supported: none, linear, yarn"],
        ),
        (
            |m| drop(m.insert("toy.rope.scaling.type", "yarn")),
            &["metadata has no `toy.rope.scaling.factor`"],
        ),
        (
            |m| drop(m.insert("toy.attn_logit_softcapping", 50f32)),
            &["`toy.attn_logit_softcapping` is 50; supported: no soft-capping (0)"],
        ),
        (
            |m| drop(m.insert("toy.final_logit_softcapping", 30f32)),
            &["`toy.final_logit_softcapping` is 30; supported: no soft-capping"],
        ),
        (
            |m| drop(m.insert("toy.attention.causal", false)),
            &["`toy.attention.causal` is false; supported: causal attention"],
        ),
        (
            |m| drop(m.insert("toy.attention.key_length_swa", 8u32)),
            &["`toy.attention.key_length_swa` is 8; supported: heads of one size"],
        ),
        (
            |m| drop(m.insert("toy.attention.rope_pattern", 2u32)),
            &[
                "`toy.attention.rope_pattern` is for some layers only; supported: all layers turned, in definition `toy`",
            ],
        ),
        (
            |m| {
                let flags = Array::from(&[true, false, true][..]);
                m.insert("toy.attention.sliding_window_pattern", Value::Array(flags));
            },
            &["layers with a window is a list of 3, expected one entry for each of 2 layers"],
        ),
        (
            |m| {
                m.insert("toy.rope.scaling.type", "linear");
                m.insert("toy.rope.scaling.factor", -4f32);
            },
            &["RoPE position scale is -0.25"],
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
