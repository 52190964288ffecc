//! Folders' tokenizers give Hugging Face's tokens.

use super::{copy, expected, fixture, ids, says};
use greta_infer::import;
use greta_infer::loader::{Checkpoint, Folder};
use greta_infer::tokenizer::{Encode, Tokenizer};
use serde_json::{Value, json};
use std::path::Path;

/// The checkpoint of a tokenizer alone: the toy's model with another `tokenizer.json`, its vocabulary made large enough.
pub fn with_tokenizer(file: &Path, rows: usize) -> tempfile::TempDir {
    let folder = copy("llama");
    std::fs::copy(file, folder.path().join("tokenizer.json")).expect("copied");
    std::fs::remove_file(folder.path().join("tokenizer_config.json")).expect("removed");
    super::edit(folder.path(), "config.json", &json!({"vocab_size": rows}));
    folder
}

pub fn import(folder: &Path) -> Result<Checkpoint, import::ImportError> {
    import::checkpoint(&Folder::open(folder)?, None)
}

/// Texts that `tokenizer` encodes otherwise than expected, as text, expected and found.
pub fn differences(tokenizer: &Tokenizer, texts: &[Value], tokens: &[Value]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (text, expected) in texts.iter().zip(tokens) {
        let text = text.as_str().expect("a text");
        let found = tokenizer.encode(text, Encode::default()).expect("tokens");
        if found != ids(expected) {
            wrong.push(format!("{text:?}: expected {expected}, found {found:?}"));
        }
    }
    wrong
}

#[test]
fn tokens_are_hugging_faces() {
    let expected = expected();
    let texts = expected["texts"].as_array().expect("texts");
    for (name, tokens) in expected["tokens"].as_object().expect("tokenizers") {
        let folder = with_tokenizer(&fixture(name).join("tokenizer.json"), 700);
        let checkpoint = import(folder.path()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let tokenizer = Tokenizer::from_metadata(checkpoint.metadata())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            tokenizer.vocab_size(),
            700,
            "places without a token are filled up"
        );
        let wrong = differences(&tokenizer, texts, tokens.as_array().expect("lists"));
        assert!(
            wrong.is_empty(),
            "{name}: {} of {} differ:\n{}",
            wrong.len(),
            texts.len(),
            wrong.join("\n")
        );
    }
}

/// Nothing is computed with it, and some files say -1.
#[test]
fn a_padding_id_that_is_no_token_is_a_note() {
    for (id, noted) in [(json!(-1), true), (json!(320), true), (json!(5), false)] {
        let folder = copy("llama");
        let change = json!({"pad_token_id": id});
        super::edit(folder.path(), "config.json", &change);
        let checkpoint = import(folder.path()).unwrap_or_else(|error| panic!("{error}"));
        let notes = checkpoint.notes().join("; ");
        assert_eq!(notes.contains("pad_token_id"), noted, "{id}: {notes}");
        let key = "tokenizer.ggml.padding_token_id";
        assert_eq!(checkpoint.metadata().get(key).is_none(), noted, "{id}");
    }
}

#[test]
fn what_cannot_be_translated_is_refused() {
    let check = |name: &str, change: &dyn Fn(&mut Value), parts: &[&str]| {
        let folder = with_tokenizer(&fixture(name).join("tokenizer.json"), 700);
        let path = folder.path().join("tokenizer.json");
        let mut json: Value =
            serde_json::from_str(&std::fs::read_to_string(&path).expect("a file")).expect("JSON");
        change(&mut json);
        std::fs::write(&path, json.to_string()).expect("written");
        let error = import(folder.path())
            .err()
            .unwrap_or_else(|| panic!("{parts:?} is accepted"));
        says(&error.to_string(), parts);
        says(&error.to_string(), &["tokenizer.json: "]);
    };
    check(
        "llama",
        &|json| json["model"]["type"] = "Unigram".into(),
        &["model.type: Unigram", "supported: BPE"],
    );
    check(
        "llama",
        &|json| json["model"]["dropout"] = 0.1.into(),
        &["model.dropout: 0.1", "supported: null"],
    );
    check(
        "llama",
        &|json| json["model"]["end_of_word_suffix"] = "</w>".into(),
        &["end_of_word_suffix", "</w>"],
    );
    check(
        "llama",
        &|json| json["normalizer"] = json!({"type": "Lowercase"}),
        &["normalizer", "Lowercase", "supported: none, NFC"],
    );
    check(
        "llama",
        &|json| json["pre_tokenizer"] = json!({"type": "Whitespace"}),
        &["pre_tokenizer", "Whitespace", "llama-bpe"],
    );
    check(
        "sharded",
        &|json| json["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\p{L}+".into(),
        &[r"\\p{L}+", "qwen2"],
    );
    check(
        "sharded",
        &|json| json["added_tokens"][0]["lstrip"] = true.into(),
        &["added_tokens", "lstrip of \"<s>\""],
    );
    check(
        "sharded",
        &|json| json["post_processor"] = json!({"type": "BertProcessing"}),
        &["post_processor", "BertProcessing"],
    );
    check(
        "sharded",
        &|json| json["model"]["vocab"]["Q"] = 0.into(),
        &["model.vocab", "token 0"],
    );
    check(
        "sharded",
        &|json| json["model"]["vocab"]["nowhere"] = 4_000_000_000u32.into(),
        &["token 4000000000", "700"],
    );
    check(
        "scored-prepend",
        &|json| json["normalizer"] = Value::Null,
        &["normalizer and pre_tokenizer", "Metaspace"],
    );
    check(
        "scored-first",
        &|json| json["pre_tokenizer"]["split"] = true.into(),
        &["Metaspace"],
    );
    check(
        "scored-never",
        &|json| json["model"]["merges"][0] = json!(["qq", "x"]),
        &["model.merges[0]", "\"qq\""],
    );
    check(
        "scored-never",
        &|json| {
            let merges = json["model"]["merges"].as_array_mut().expect("merges");
            let late = merges.remove(0);
            let again = merges[30].clone();
            merges.insert(10, again);
            merges.push(late);
        },
        &["model.merges[", "listed together"],
    );
}

#[test]
fn merges_may_be_written_either_way() {
    let folder = with_tokenizer(&fixture("llama").join("tokenizer.json"), 700);
    let whole = import(folder.path()).expect("pairs");
    let path = folder.path().join("tokenizer.json");
    let mut json: Value =
        serde_json::from_str(&std::fs::read_to_string(&path).expect("a file")).expect("JSON");
    for merge in json["model"]["merges"].as_array_mut().expect("merges") {
        let sides: Vec<&str> = merge
            .as_array()
            .expect("a pair")
            .iter()
            .map(|side| side.as_str().expect("text"))
            .collect();
        *merge = sides.join(" ").into();
    }
    std::fs::write(&path, json.to_string()).expect("written");
    let lines = import(folder.path()).expect("lines");
    let merges =
        |checkpoint: &Checkpoint| checkpoint.metadata().get("tokenizer.ggml.merges").cloned();
    assert_eq!(merges(&lines), merges(&whole));
    assert!(merges(&lines).is_some());
}
