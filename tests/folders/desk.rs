//! Comparisons with what is too large for the repository: real models, and tokenizers from package registries.

use super::support::compare::assert_same_bits;
use super::{logits, open, tokens};
use greta_infer::dtype::DType;
use greta_infer::import::requantize;
use greta_infer::tokenizer::Tokenizer;
use serde_json::Value;
use std::path::PathBuf;

fn path(variable: &str) -> PathBuf {
    std::env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} is set"))
        .into()
}

/// `make_smollm2_folder.py MODEL.gguf FOLDER` makes the folder: F32, names and row order as Hugging Face has them.
#[test]
#[ignore = "needs a real model in GRETA_TEST_MODEL and the same one as an F32 folder in GRETA_TEST_FOLDER"]
fn a_gguf_file_and_its_folder_give_the_same_bits() {
    let (file, folder) = (path("GRETA_TEST_MODEL"), path("GRETA_TEST_FOLDER"));
    let f32s = || requantize(open(&file), DType::F32, None, 2).expect("F32");
    let (right, found) = (f32s(), open(&folder));
    let text =
        "Once upon a time, in 1984, there was a naïve 'engineer' <|im_end|>\n  who said: it's 3.14";
    let tokenize = |metadata| {
        let tokenizer = Tokenizer::from_metadata(metadata).expect("a tokenizer");
        tokenizer.encode(text, Default::default()).expect("tokens")
    };
    let prompt = tokenize(right.metadata());
    assert_eq!(tokenize(found.metadata()), prompt);
    assert_same_bits(
        &logits(found, &prompt[..20]),
        &logits(right, &prompt[..20]),
        "F32",
    );
}

/// `judge_folder_tokenizers.py FOLDER …` writes each folder's `judged.json`: a thousand texts and Hugging Face's tokens.
#[test]
#[ignore = "needs folders with tokenizer.json and judged.json, separated by colons, in GRETA_TEST_TOKENIZERS"]
fn real_tokenizers_agree_on_a_thousand_texts() {
    let folders = path("GRETA_TEST_TOKENIZERS");
    let mut wrong = 0;
    for folder in std::env::split_paths(&folders) {
        let judged = std::fs::read_to_string(folder.join("judged.json")).expect("judged.json");
        let judged: Value = serde_json::from_str(&judged).expect("JSON");
        let rows = judged["rows"].as_u64().expect("rows") as usize;
        let toy = tokens::with_tokenizer(&folder.join("tokenizer.json"), rows);
        let checkpoint = tokens::import(toy.path())
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let tokenizer = Tokenizer::from_metadata(checkpoint.metadata())
            .unwrap_or_else(|error| panic!("{error}"));
        let (texts, tokens) = (
            judged["texts"].as_array().expect("texts"),
            judged["tokens"].as_array().expect("tokens"),
        );
        let found = tokens::differences(&tokenizer, texts, tokens);
        println!(
            "{}: {} of {} texts differ",
            folder.display(),
            found.len(),
            texts.len()
        );
        found.iter().take(10).for_each(|line| println!("  {line}"));
        wrong += found.len();
    }
    assert_eq!(wrong, 0);
}
