//! Rounding to other types, against what ggml itself gives.

use super::{copy, fixture, open, refusal, says, writer};
use greta_infer::dtype::DType;
use greta_infer::import::{requantize, type_for};
use greta_infer::loader::TensorInfo;
use serde_json::Value;

/// `make_encode.py` rounded these values with ggml's own `quantize_row_*_ref`.
#[test]
fn blocks_are_ggmls() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/encode.json");
    let json: Value =
        serde_json::from_str(&std::fs::read_to_string(path).expect("the fixture")).expect("JSON");
    let from_hex = |text: &str| -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
        (0..text.len()).step_by(2).map(digit).collect()
    };
    let bytes = from_hex(json["values"].as_str().expect("values"));
    let values: Vec<f32> = bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().expect("four")))
        .collect();
    let blocks = json["blocks"].as_object().expect("types");
    assert_eq!(blocks.len(), DType::RUNNABLE.len());
    for (name, expected) in blocks {
        let dtype: DType = name.parse().expect("a type");
        let expected = from_hex(expected.as_str().expect("bytes"));
        let mut found = vec![0; expected.len()];
        dtype.encode(&values, &mut found);
        let size = dtype.block_bytes();
        let wrong = (0..found.len())
            .step_by(size)
            .find(|&at| found[at..at + size] != expected[at..at + size]);
        if let Some(at) = wrong {
            panic!(
                "{dtype}: block {}: expected {:?}, found {:?}",
                at / size,
                &expected[at..at + size],
                &found[at..at + size]
            );
        }
    }
}

#[test]
fn which_tensors_change_and_to_what() {
    let matrix = |columns: usize, wanted: DType| {
        type_for("blk.0.ffn_up.weight", DType::F32, &[64, columns], wanted)
    };
    for (wanted, at_32, at_16) in [
        (DType::Q2_K, DType::Q4_0, DType::F16),
        (DType::Q3_K, DType::Q4_0, DType::F16),
        (DType::Q4_K, DType::Q5_0, DType::F16),
        (DType::Q5_K, DType::Q5_1, DType::F16),
        (DType::Q6_K, DType::Q8_0, DType::F16),
        (DType::Q8_0, DType::Q8_0, DType::F16),
        (DType::Q4_0, DType::Q4_0, DType::F16),
        (DType::BF16, DType::BF16, DType::BF16),
    ] {
        assert_eq!(matrix(256, wanted), wanted);
        assert_eq!(matrix(96, wanted), at_32);
        assert_eq!(matrix(48, wanted), at_16);
    }
    let kept =
        |name: &str, shape: &[usize]| type_for(name, DType::F32, shape, DType::Q8_0) == DType::F32;
    assert!(kept("blk.0.attn_norm.weight", &[64]));
    assert!(kept("blk.0.attn_norm.weight", &[64, 64]));
    assert!(kept("blk.0.attn_q.bias", &[64]));
    assert!(kept("row.weight", &[1, 64]));
    assert!(!kept("token_embd.weight", &[64, 64]) && !kept("output.weight", &[64, 64]));
}

/// Nothing is rounded twice or by another thread's share: any number of threads, the same bytes.
#[test]
fn threads_change_nothing() {
    let data = |threads: usize| -> Vec<Vec<u8>> {
        let checkpoint =
            requantize(open(&fixture("llama")), DType::Q8_0, None, threads).expect("Q8_0");
        let bytes = |tensor: &TensorInfo| tensor.fetch().expect("made").data.to_vec();
        checkpoint.tensors().map(bytes).collect()
    };
    let one = data(1);
    assert!(one.iter().map(Vec::len).sum::<usize>() > 30_000);
    for threads in [2, 3, 7] {
        assert!(data(threads) == one, "{threads} threads");
    }
}

#[test]
fn numbers_that_no_type_holds_are_named() {
    let check = |value: f32, wanted: DType, parts: &[&str]| {
        let folder = copy("llama");
        let mut tensors = writer::tensors(folder.path(), DType::F32);
        let up = tensors
            .iter_mut()
            .find(|t| t.name == "model.layers.1.mlp.up_proj.weight")
            .expect("a tensor");
        up.bytes[4 * 77..][..4].copy_from_slice(&value.to_le_bytes());
        std::fs::write(
            folder.path().join("model.safetensors"),
            writer::file(&tensors, 0),
        )
        .expect("written");
        let checkpoint = requantize(open(folder.path()), wanted, None, 2).expect("a type");
        assert!(checkpoint.tensor("blk.0.ffn_up.weight").is_some());
        assert!(checkpoint.failure().is_none());
        assert!(checkpoint.tensor("blk.1.ffn_up.weight").is_none());
        says(&checkpoint.failure().expect("a reason").to_string(), parts);
    };
    let place = "blk.1.ffn_up.weight: element 77 is";
    check(f32::NAN, DType::Q8_0, &[place, "NaN", "Q8_0 cannot hold"]);
    check(f32::INFINITY, DType::Q4_0, &[place, "inf"]);
    check(1e6, DType::F16, &[place, "1000000", "F16 cannot hold"]);
    check(
        1e9,
        DType::Q8_0,
        &["blk.1.ffn_up.weight", "Q8_0 cannot hold"],
    );
}

#[test]
fn a_type_that_does_not_run_cannot_be_rounded() {
    use super::support::gguf_writer::GgufWriter;
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("iq.gguf");
    GgufWriter::new()
        .tensor("blk.0.ffn_up.weight", DType::IQ4_NL, &[2, 32], vec![0; 36])
        .write(&path);
    let error = requantize(open(&path), DType::Q8_0, None, 1).expect_err("a refusal");
    says(
        &error.to_string(),
        &["blk.0.ffn_up.weight", "IQ4_NL does not run"],
    );
    says(&refusal(&path), &["architecture ``"]);
}
