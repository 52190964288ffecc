//! The compiled step of a two-layer toy, as files: `graphs/golden/<family>.*`.
//!
//! `UPDATE_GOLDEN=1 cargo test --test golden` rewrites them; read the difference before it is
//! committed.

use bumpalo::Bump;
use greta_infer::dtype::DType;
use greta_infer::gpu;
use greta_infer::graph::KvType;
use greta_infer::graph::dot::{Notes, dot};
use greta_infer::loader::Metadata;
use greta_infer::model::{Definition, Extent, Hyperparameters, Logits, Model};
use greta_infer::plan;
use greta_infer::program::Target;
use greta_infer::runtime::{Format, Stage, compile, dump};
use std::path::PathBuf;

/// A toy of a family, as its Definition completes what little a file says.
fn toy(architecture: &str, layers: u32) -> Model {
    let mut metadata = Metadata::new("toy");
    metadata.insert("general.architecture", architecture);
    for (key, value) in [
        ("block_count", layers),
        ("embedding_length", 64),
        ("feed_forward_length", 96),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
        ("vocab_size", 128),
        ("context_length", 256),
    ] {
        metadata.insert(format!("{architecture}.{key}"), value);
    }
    let eps = format!("{architecture}.attention.layer_norm_rms_epsilon");
    metadata.insert(eps, 1e-5f32);
    if architecture == "gemma3" {
        metadata.insert("gemma3.attention.sliding_window", 32u32);
        metadata.insert("gemma3.rope.freq_base", 1e6f32);
    }
    let definition = Definition::built_in(architecture, "toy").expect("a built-in family");
    let hyper = Hyperparameters::from_metadata(&metadata, &definition);
    let hyper = hyper.expect("the toy's metadata is sound");
    Model::random(hyper, Some(definition), DType::Q8_0, 1).expect("the toy is a valid model")
}

fn compare(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("graphs/golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).expect("graphs/golden can be written");
        return;
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    let difference = golden.lines().zip(text.lines()).position(|(a, b)| a != b);
    let line = difference.unwrap_or(golden.lines().count().min(text.lines().count())) + 1;
    assert!(
        golden == text,
        "{name} differs from line {line}; UPDATE_GOLDEN=1 cargo test --test golden rewrites it"
    );
}

fn check(family: &str, layers: u32) {
    let model = toy(family, layers);
    let arena = Bump::new();
    let extent = Extent {
        kv_type: KvType::F16,
        rows: 1,
        context: 256,
        logits: Logits::Last,
    };
    let step = compile(&model, &arena, extent, Target::Cpu).expect("the toy compiles");
    compare(
        &format!("{family}.built.dot"),
        &dot(&step.built, &Notes::NONE),
    );
    compare(
        &format!("{family}.final.dot"),
        &dump(&step, Stage::Planned, Format::Dot),
    );
    compare(
        &format!("{family}.plan.txt"),
        &plan::text(&step.fused, &step.plan),
    );
    compare(&format!("{family}.program.txt"), &step.program.text());
    let chunk = Extent { rows: 32, ..extent };
    let chunk = compile(&model, &arena, chunk, Target::Cpu).expect("the toy compiles");
    compare(
        &format!("{family}.prompt.program.txt"),
        &chunk.program.text(),
    );
}

/// As many layers as it takes to see every kind that a family has.
#[test]
fn families() {
    check("llama", 2);
    check("qwen2", 1);
    check("qwen3", 1);
    check("gemma3", 6);
    check("smollm3", 4);
}

#[test]
fn llama_on_a_gpu() {
    let model = toy("llama", 2);
    for (kind, rows) in [("gpu", 1), ("gpu.prompt", 32), ("gpu.prompt.fast", 64)] {
        let arena = Bump::new();
        let extent = Extent {
            kv_type: KvType::F16,
            rows,
            context: 256,
            logits: Logits::Last,
        };
        let wave = 64;
        let step = compile(&model, &arena, extent, Target::Gpu { wave }).expect("the toy compiles");
        let launches =
            gpu::lower(&step.program, &gpu::Hardware::typical(wave)).expect("heads of 16");
        let text = format!("{}\n{}", step.program.text(), gpu::text(&launches));
        compare(&format!("llama.{kind}.program.txt"), &text);
        // Kernels read before their wait what earlier steps have left: the first one has to wait for these.
        let overlaps: Vec<bool> = launches.iter().map(|l| l.overlaps).collect();
        assert!(!overlaps[0] && overlaps[1..].contains(&true), "{kind}");
    }
}
