//! From a file to weights that can be multiplied: opening a generated GGUF of tens of megabytes,
//! checking it as a model, and packing its matrices, in bytes of the file a second. Before timing,
//! every tensor read must be the tensor written, and a step must give the same logits as a model
//! that never was a file.

#[path = "../tests/support/gguf_writer.rs"]
mod gguf_writer;

use bumpalo::Bump;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gguf_writer::GgufWriter;
use greta_infer::cpu::isa::Isa;
use greta_infer::cpu::{Cpu, Setup};
use greta_infer::dtype::DType;
use greta_infer::graph::KvType;
use greta_infer::loader::Checkpoint;
use greta_infer::model::{Extent, Hyperparameters, Logits, Model};
use greta_infer::program::{Program, Target};
use greta_infer::runtime::{Session, SessionOptions, compile};
use std::hint::black_box;
use std::path::Path;

const EXTENT: Extent = Extent {
    kv_type: KvType::F16,
    rows: 1,
    context: 64,
    logits: Logits::Last,
};

fn shape() -> Hyperparameters {
    Hyperparameters {
        architecture: "llama".into(),
        layers: 12,
        embedding: 768,
        feed_forward: 2048,
        heads: 12,
        kv_heads: 4,
        head_size: 64,
        vocabulary: 16_384,
        context: 64,
        rms_eps: 1e-5,
        rope_base: 10_000.0,
        ..Hyperparameters::default()
    }
}

/// Writes `model` as a GGUF file.
fn write(model: &Model, path: &Path) {
    let hyper = model.hyperparameters();
    let sizes = [
        ("llama.block_count", hyper.layers),
        ("llama.context_length", hyper.context),
        ("llama.embedding_length", hyper.embedding),
        ("llama.feed_forward_length", hyper.feed_forward),
        ("llama.attention.head_count", hyper.heads),
        ("llama.attention.head_count_kv", hyper.kv_heads),
        ("llama.attention.key_length", hyper.head_size),
        ("llama.attention.value_length", hyper.head_size),
        ("llama.vocab_size", hyper.vocabulary),
    ];
    let mut file = GgufWriter::new()
        .meta_str("general.architecture", &hyper.architecture)
        .meta_f32("llama.attention.layer_norm_rms_epsilon", hyper.rms_eps)
        .meta_f32("llama.rope.freq_base", hyper.rope_base);
    for (key, size) in sizes {
        file = file.meta_u32(key, size);
    }
    let arena = Bump::new();
    let graph = model.graph(&arena, EXTENT).expect("a valid Definition");
    for weight in graph.weights() {
        let tensor = model.tensor(weight.name).expect("the graph's own weight");
        file = file.tensor(weight.name, tensor.dtype, &tensor.shape, &*tensor.data);
    }
    file.write(path);
}

fn logits(model: &Model) -> Vec<f32> {
    let options = SessionOptions {
        context: EXTENT.context,
        ..SessionOptions::default()
    };
    let mut session = Session::build(model, &options, &|_, _| ()).expect("a session");
    session.step(7).expect("a step").to_vec()
}

fn open(path: &Path) -> Model {
    let checkpoint = Checkpoint::open(path).expect("a valid file");
    Model::from_checkpoint(checkpoint, None).expect("a valid model")
}

fn pack(model: &Model, program: &Program, threads: usize) -> Cpu {
    let setup = Setup {
        threads,
        isa: Isa::detect(),
        poison: false,
    };
    let fetch = |name: &str| model.tensor(name);
    Cpu::new(setup, &[program], &fetch, &|_, _| ()).expect("memory for the weights")
}

fn load(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for dtype in [DType::Q4_1, DType::Q8_0, DType::Q4_K, DType::Q6_K] {
        let written = Model::random(shape(), None, dtype, 1).expect("a valid shape");
        let path = directory.path().join(format!("{dtype}.gguf"));
        write(&written, &path);
        let read = open(&path);
        let checkpoint = read.checkpoint().expect("a model from a file");
        for tensor in checkpoint.tensors() {
            let expected = written.tensor(&tensor.name).expect("as written");
            assert_eq!(tensor.dtype, expected.dtype, "{}", tensor.name);
            let found = tensor.fetch().expect("a mapped tensor");
            assert!(*found.data == *expected.data, "bytes of {}", tensor.name);
        }
        let bits = |logits: Vec<f32>| logits.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(logits(&read)), bits(logits(&written)), "{dtype}");

        let (file_bytes, tensors) = (checkpoint.file_bytes(), checkpoint.tensors().len() as u64);
        let arena = Bump::new();
        let compiled = compile(&read, &arena, EXTENT, Target::Cpu).expect("a program");
        let mut group = criterion.benchmark_group(format!("load/{dtype}"));
        group.sample_size(10);
        // Opening reads no tensor data: its measure is tensors, not bytes.
        group.throughput(Throughput::Elements(tensors));
        group.bench_function("open", |bencher| {
            bencher.iter(|| Checkpoint::open(black_box(&path)).expect("as above"));
        });
        group.bench_function("open and check as a model", |bencher| {
            bencher.iter(|| open(black_box(&path)));
        });
        group.throughput(Throughput::Bytes(file_bytes));
        for threads in [1, 2] {
            group.bench_function(format!("pack, {threads} threads"), |bencher| {
                bencher.iter(|| pack(&read, &compiled.program, threads));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, load);
criterion_main!(benches);
