//! Folders compute what Hugging Face computes, however they are stored.

use super::support::compare::{SLACK, assert_close, assert_same_bits, widest_apart};
use super::{copy, edit, expected, fixture, floats, ids, logits, open, writer};
use greta_infer::dtype::DType;
use greta_infer::import::requantize;
use serde_json::json;

#[test]
fn toys_agree_with_transformers() {
    let expected = expected();
    let prompt = ids(&expected["prompt"]);
    let names = expected["logits"].as_object().expect("models").keys();
    for name in names {
        let checkpoint = open(&fixture(name));
        let checkpoint = requantize(checkpoint, DType::F32, None, 1).expect("F32");
        let right = floats(&expected["logits"][name]);
        let apart = widest_apart(&logits(checkpoint, &prompt), &right, name);
        println!("{name:<8} within {apart:.1e} of transformers");
        assert!(
            apart <= SLACK,
            "{name}: the logits are {apart:.1e} from transformers'"
        );
    }
}

/// One file or several, and a header whose length aligns nothing: the same bits. F16 and BF16: what their rounding says.
#[test]
fn how_it_is_stored_changes_nothing() {
    let prompt = ids(&expected()["prompt"]);
    let whole = logits(open(&fixture("llama")), &prompt);
    for (dtype, tolerance) in [(DType::F32, 0.0), (DType::F16, 2e-3), (DType::BF16, 2e-2)] {
        let tensors = writer::tensors(&fixture("llama"), dtype);
        let one = copy("llama");
        std::fs::write(
            one.path().join("model.safetensors"),
            writer::file(&tensors, 3),
        )
        .expect("written");
        let found = logits(open(one.path()), &prompt);
        assert_close(&found, &whole, tolerance, dtype.name());
        writer::shards(one.path(), &tensors, 3);
        let sharded = logits(open(one.path()), &prompt);
        assert_same_bits(&sharded, &found, dtype.name());
        // Any of the files stands for the folder.
        let by_file = open(&one.path().join(writer::shard_name(1, 3)));
        assert_same_bits(&logits(by_file, &prompt), &found, dtype.name());
    }
}

/// What version 4 of `transformers` wrote means the same.
#[test]
fn older_configs_mean_the_same() {
    let prompt = ids(&expected()["prompt"]);
    let whole = logits(open(&fixture("sharded")), &prompt);
    let folder = copy("sharded");
    let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64});
    let changes = json!({"rope_parameters": null, "rope_theta": 500000.0, "rope_scaling": scaling, "head_dim": null});
    edit(folder.path(), "config.json", &changes);
    assert_same_bits(&logits(open(folder.path()), &prompt), &whole, "version 4");
}

#[test]
fn metadata_is_that_of_a_gguf_file() {
    let checkpoint = open(&fixture("sharded"));
    let metadata = checkpoint.metadata();
    let number = |key: &str| metadata.u32(key).expect(key);
    for (key, value) in [
        ("llama.block_count", 2),
        ("llama.context_length", 256),
        ("llama.embedding_length", 32),
        ("llama.feed_forward_length", 48),
        ("llama.attention.head_count", 4),
        ("llama.attention.head_count_kv", 2),
        ("llama.rope.dimension_count", 8),
        ("llama.vocab_size", 320),
    ] {
        assert_eq!(number(key), Some(value), "{key}");
    }
    let text = |key: &str| metadata.str(key).expect(key);
    assert_eq!(text("general.architecture"), Some("llama"));
    assert_eq!(text("tokenizer.ggml.pre"), Some("llama-bpe"));
    assert_eq!(
        text("tokenizer.chat_template"),
        Some("{{ messages[0]['content'] }}")
    );
    assert_eq!(
        metadata.f32("llama.rope.freq_base").expect("a base"),
        Some(500_000.0)
    );
    assert_eq!(
        metadata
            .bool("tokenizer.ggml.add_bos_token")
            .expect("a flag"),
        Some(true)
    );
    let factors = checkpoint
        .tensor("rope_freqs.weight")
        .expect("Llama 3's factors");
    assert_eq!((factors.dtype, &factors.shape[..]), (DType::F32, &[4][..]));
    assert_eq!(checkpoint.notes(), &[] as &[String]);
    assert_eq!(checkpoint.format(), "SafeTensors, 3 files");
    // Three ends: by tokenizer_config.json, by generation_config.json, and by name.
    let tokenizer =
        greta_infer::tokenizer::Tokenizer::from_metadata(metadata).expect("a tokenizer");
    let ends: Vec<_> = tokenizer
        .end_of_generation()
        .iter()
        .map(|&id| tokenizer.piece_str(id))
        .collect();
    assert_eq!(ends, ["</s>", "<|end|>"]);
}

/// Opening reads no tensor data: a file whose data is a hole of 64 GB opens at once.
#[test]
#[cfg(unix)]
fn opening_reads_no_tensor_data() {
    let folder = copy("llama");
    let rows = 1usize << 29;
    let bytes = rows * 32 * 4;
    let header = json!({"huge": {"dtype": "F32", "shape": [rows, 32], "data_offsets": [0, bytes]}})
        .to_string();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, writer::raw(&header, &[])).expect("written");
    let file = std::fs::File::options()
        .write(true)
        .open(&path)
        .expect("opened");
    file.set_len((8 + header.len() + bytes) as u64)
        .expect("a sparse file");
    let begin = std::time::Instant::now();
    let folder = greta_infer::loader::Folder::open(folder.path()).expect("it opens");
    assert_eq!(folder.tensors()[0].data.len(), bytes);
    assert!(begin.elapsed().as_secs() < 5, "{:?}", begin.elapsed());
}

#[test]
fn unknown_keys_are_named() {
    let folder = copy("llama");
    edit(
        folder.path(),
        "config.json",
        &json!({"frobnicate": 3, "use_cache": false}),
    );
    let checkpoint = open(folder.path());
    super::says(
        &checkpoint.notes().join("; "),
        &["config.json", "frobnicate"],
    );
    assert!(!checkpoint.notes().join("").contains("use_cache"));
}
