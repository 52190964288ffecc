//! Checkpoints that are no model of their family: each refused by a message that names the file,
//! the tensor or key, and both sides of the mismatch.

mod support;

use greta_infer::dtype::DType;
use greta_infer::loader::Checkpoint;
use greta_infer::model::{Hyperparameters, Model, ModelError};
use std::path::Path;
use support::gguf_writer::GgufWriter;

/// A tensor of the toy: its name, type and shape. Its bytes are zeros.
type Entry = (String, DType, Vec<usize>);

/// Every tensor of one layer of 256 wide, two heads over one of 128, without an `output.weight`.
fn tensors() -> Vec<Entry> {
    let matrix = |name: &str, n, k| (name.to_string(), DType::Q8_0, vec![n, k]);
    let vector = |name: &str| (name.to_string(), DType::F32, vec![256]);
    vec![
        matrix("token_embd.weight", 40, 256),
        vector("blk.0.attn_norm.weight"),
        matrix("blk.0.attn_q.weight", 256, 256),
        matrix("blk.0.attn_k.weight", 128, 256),
        matrix("blk.0.attn_v.weight", 128, 256),
        matrix("blk.0.attn_output.weight", 256, 256),
        vector("blk.0.ffn_norm.weight"),
        matrix("blk.0.ffn_gate.weight", 512, 256),
        matrix("blk.0.ffn_up.weight", 512, 256),
        matrix("blk.0.ffn_down.weight", 256, 512),
        vector("output_norm.weight"),
    ]
}

fn header(architecture: &str) -> GgufWriter {
    GgufWriter::new()
        .meta_str("general.architecture", architecture)
        .meta_u32("llama.block_count", 1)
        .meta_u32("llama.embedding_length", 256)
        .meta_u64("llama.feed_forward_length", 512)
        .meta_u32("llama.attention.head_count", 2)
        .meta_u32("llama.attention.head_count_kv", 1)
        .meta_u32("llama.context_length", 64)
        .meta_f32("llama.attention.layer_norm_rms_epsilon", 1e-5)
}

/// Reads `header` with the toy's tensors after `change`.
fn read(header: GgufWriter, change: impl Fn(&mut Vec<Entry>)) -> Result<Model, ModelError> {
    let mut tensors = tensors();
    change(&mut tensors);
    let mut file = header;
    for (name, dtype, shape) in tensors {
        let (cols, rows) = shape.split_last().expect("a dimension");
        let row_bytes = dtype.row_bytes(*cols).expect("whole blocks");
        let bytes = vec![0; rows.iter().product::<usize>() * row_bytes];
        file = file.tensor(&name, dtype, &shape, bytes);
    }
    let checkpoint = Checkpoint::from_bytes(Path::new("toy.gguf"), file.to_bytes())?;
    Model::from_checkpoint(checkpoint, None)
}

fn sized() -> GgufWriter {
    header("llama").meta_u32("llama.vocab_size", 40)
}

/// Asserts that the model is refused and that the message has every part, in order.
#[track_caller]
fn refused(model: Result<Model, ModelError>, parts: &[&str]) {
    let error = model.err().expect("a refusal").to_string();
    let mut rest = error.as_str();
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => panic!("`{error}` does not say `{part}`, or not in this order"),
        }
    }
    assert!(!error.contains('\n'), "one line: {error}");
}

fn find<'t>(tensors: &'t mut [Entry], name: &str) -> &'t mut Entry {
    let found = tensors.iter_mut().find(|t| t.0 == name);
    found.expect("a tensor of the toy")
}

#[test]
fn a_whole_model() {
    let model = read(sized(), |_| ()).expect("a model with tied embeddings");
    let hyper = model.hyperparameters();
    assert_eq!((hyper.head_size, hyper.vocabulary), (128, 40));
    assert_eq!(model.source(), "toy.gguf");
    // Tensors the Definition names but does not need: an untied output, RoPE's divisors.
    let more = |tensors: &mut Vec<Entry>| {
        tensors.push(("output.weight".into(), DType::Q6_K, vec![40, 256]));
        tensors.push(("rope_freqs.weight".into(), DType::F32, vec![64]));
    };
    read(sized(), more).expect("a model with both");
    // The vocabulary's size may be said by the tokens.
    let tokens: Vec<String> = (0..40).map(|i| i.to_string()).collect();
    let file = header("llama").meta_strings("tokenizer.ggml.tokens", &tokens);
    let model = read(file, |_| ()).expect("a model with a tokenizer");
    assert_eq!(model.hyperparameters().vocabulary, 40);
}

#[test]
fn each_tensor_is_needed() {
    for (name, _, shape) in tensors() {
        let without = |tensors: &mut Vec<Entry>| tensors.retain(|t| t.0 != name);
        let shape = format!("{shape:?}");
        // Without the embedding, the first to be missed is the embedding and not its tied twin.
        let parts = [
            "toy.gguf: ",
            &name,
            "expected shape ",
            &shape,
            "no such tensor",
        ];
        refused(read(sized(), without), &parts);
    }
}

#[test]
fn each_shape_is_checked() {
    for (name, _, shape) in tensors() {
        for grown in 0..shape.len() {
            let mut other = shape.clone();
            other[grown] *= 2;
            let change = |tensors: &mut Vec<Entry>| find(tensors, &name).2 = other.clone();
            let (expected, found) = (format!("expected shape {shape:?}"), format!("{other:?}"));
            refused(
                read(sized(), change),
                &["toy.gguf: ", &name, &expected, "found ", &found],
            );
        }
        let deep: Vec<usize> = [&[1], &shape[..]].concat();
        let change = |tensors: &mut Vec<Entry>| find(tensors, &name).2 = deep.clone();
        refused(
            read(sized(), change),
            &["toy.gguf: ", &name, &format!("found {deep:?}")],
        );
    }
    let freqs = ("rope_freqs.weight".to_string(), DType::F32, vec![63]);
    let change = |tensors: &mut Vec<Entry>| tensors.push(freqs.clone());
    refused(
        read(sized(), change),
        &["rope_freqs.weight", "expected shape [64], found [63]"],
    );
    let output = ("output.weight".to_string(), DType::F32, vec![41, 256]);
    let change = |tensors: &mut Vec<Entry>| tensors.push(output.clone());
    refused(
        read(sized(), change),
        &["output.weight", "expected shape [40, 256], found [41, 256]"],
    );
}

#[test]
fn types() {
    for &dtype in DType::ALL.iter().filter(|t| 256 % t.block_len() == 0) {
        let name = "blk.0.ffn_down.weight";
        let change = |tensors: &mut Vec<Entry>| find(tensors, name).1 = dtype;
        let model = read(sized(), change);
        if dtype.is_runnable() {
            model.unwrap_or_else(|error| panic!("{dtype}: {error}"));
            continue;
        }
        let found = format!("type {dtype} cannot be computed with; supported: F32, F16, ");
        refused(model, &["toy.gguf: ", name, &found, "Q6_K"]);
    }
    for dtype in [DType::F16, DType::BF16, DType::Q8_0, DType::Q4_K] {
        let name = "blk.0.attn_norm.weight";
        let change = |tensors: &mut Vec<Entry>| find(tensors, name).1 = dtype;
        let model = read(sized(), change);
        if dtype.is_float() {
            model.unwrap_or_else(|error| panic!("{dtype}: {error}"));
            continue;
        }
        let found = format!("a vector of type {dtype}; supported: F32, F16, BF16");
        refused(model, &["toy.gguf: ", name, &found]);
    }
}

#[test]
fn tensors_without_a_place() {
    for name in [
        "blk.0.attn_sinks.weight",
        "blk.1.attn_q.weight",
        "blk.0.attn_q_norm.weight",
    ] {
        let extra = (name.to_string(), DType::F32, vec![256]);
        let change = |tensors: &mut Vec<Entry>| tensors.push(extra.clone());
        refused(
            read(sized(), change),
            &["toy.gguf: ", name, "no place", "`llama`"],
        );
    }
}

#[test]
fn families_and_keys() {
    let mamba = header("mamba").meta_u32("llama.vocab_size", 40);
    let parts = [
        "toy.gguf: ",
        "`mamba` is not supported; supported: ",
        "llama",
    ];
    refused(read(mamba, |_| ()), &parts);
    let nameless = GgufWriter::new().meta_u32("llama.block_count", 1);
    refused(
        read(nameless, |_| ()),
        &["toy.gguf: ", "architecture", "not supported"],
    );
    let parts = ["toy.gguf: ", "no `llama.vocab_size`"];
    refused(read(header("llama"), |_| ()), &parts);
    let text = header("llama").meta_str("llama.vocab_size", "40");
    refused(
        read(text, |_| ()),
        &["toy.gguf", "llama.vocab_size", "string"],
    );
    let negative = header("llama").meta_i32("llama.vocab_size", -1);
    refused(
        read(negative, |_| ()),
        &["toy.gguf", "llama.vocab_size", "-1", "u32"],
    );
    let longer = sized().meta_u32("llama.attention.key_length", 64);
    refused(
        read(longer, |_| ()),
        &[
            "blk.0.attn_q.weight",
            "expected shape [128, 256], found [256, 256]",
        ],
    );
    let experts = sized().meta_u32("llama.expert_count", 4);
    refused(
        read(experts, |_| ()),
        &["toy.gguf: ", "`llama.expert_count` is 4; supported: dense"],
    );
}

/// Numbers that each pass alone and whose product would not fit are refused before they are used.
#[test]
fn absurd_heads() {
    let absurd = Hyperparameters {
        architecture: "llama".into(),
        layers: 1,
        embedding: 8,
        feed_forward: 8,
        heads: 1 << 24,
        kv_heads: 1,
        head_size: 256,
        vocabulary: 8,
        context: 8,
        rms_eps: 1e-5,
        rope_base: 1e4,
        ..Hyperparameters::default()
    };
    let model = Model::random(absurd, None, DType::F32, 1);
    refused(
        model,
        &["random F32 weights: width of all heads", "4294967296"],
    );
}
