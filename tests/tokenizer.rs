//! The tokenizer at its boundary: llama.cpp's answers, text that comes in pieces, and vocabularies that must be refused.
//!
//! Expected ids are llama.cpp's (`llama_tokenize`), kept in `fixtures/tokenizer`: `byte_level.json` is SmolLM2's
//! vocabulary cut to its first 900 merges, under every family of pre-tokenizers; `scored.json` is Llama 2's cut to some
//! 1,500 pieces. Both judge and judged were given exactly the vocabulary in the file. `smollm2.json` has the answers for
//! the whole vocabulary, which the test reads from the real model, where there is one.

use greta_infer::loader::{Array, Checkpoint, Metadata, Value};
use greta_infer::tokenizer::{Encode, NFC, Tokenizer, TokenizerError};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

#[path = "support/skip.rs"]
mod skip;

#[path = "tokenizer/hugging_face.rs"]
mod hugging_face;
#[path = "tokenizer/malformed.rs"]
mod malformed;
#[path = "tokenizer/streaming.rs"]
mod streaming;

const PROMPT: Encode = Encode {
    special: true,
    bos: true,
};
const PLAIN: Encode = Encode {
    special: false,
    bos: false,
};
const PARSED: Encode = Encode {
    special: true,
    bos: false,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    /// Whose answers these are.
    judge: String,
    /// Empty if the vocabulary is that of a model file.
    #[serde(default)]
    model: String,
    #[serde(default)]
    tokens: Vec<String>,
    /// Those other than 1, normal.
    #[serde(default)]
    types: Vec<(usize, i32)>,
    merges: Option<Vec<String>>,
    scores: Option<Vec<f32>>,
    strings: Vec<String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    pre: Option<String>,
    #[serde(default)]
    flags: BTreeMap<String, bool>,
    #[serde(default)]
    ids: BTreeMap<String, u32>,
    end_of_generation: Vec<u32>,
    /// Ids of each string, separated by spaces.
    prompt: Vec<String>,
    plain: Option<Vec<String>>,
}

impl Fixture {
    fn read(name: &str) -> Fixture {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer");
        let text = std::fs::read_to_string(folder.join(name)).expect("the fixture is committed");
        serde_json::from_str(&text).expect("the fixture is well formed")
    }

    /// The metadata llama.cpp was given for one case.
    fn metadata(&self, case: &Case) -> Metadata {
        let mut types = vec![1i32; self.tokens.len()];
        for &(index, kind) in &self.types {
            types[index] = kind;
        }
        let mut metadata = Metadata::new("toy.gguf");
        // llama.cpp composes no text, where Hugging Face does.
        if self.judge.starts_with("llama.cpp") {
            metadata.insert(NFC, Value::Bool(false));
        }
        let mut insert = |key: &str, value: Value| {
            metadata.insert(format!("tokenizer.ggml.{key}"), value);
        };
        insert("model", Value::from(self.model.as_str()));
        insert("tokens", Value::Array(Array::strings(&self.tokens)));
        insert("token_type", Value::Array(Array::from(&types[..])));
        if let Some(merges) = &self.merges {
            insert("merges", Value::Array(Array::strings(merges)));
        }
        if let Some(scores) = &self.scores {
            insert("scores", Value::Array(Array::from(&scores[..])));
        }
        if let Some(pre) = &case.pre {
            insert("pre", Value::from(pre.as_str()));
        }
        for (key, &flag) in &case.flags {
            insert(key, Value::Bool(flag));
        }
        for (key, &id) in &case.ids {
            insert(key, Value::U32(id));
        }
        metadata
    }
}

/// The byte-level toy under one pre-tokenizer, or the scored toy.
fn toy(name: &str, case: usize) -> Tokenizer {
    let fixture = Fixture::read(name);
    let metadata = fixture.metadata(&fixture.cases[case]);
    Tokenizer::from_metadata(&metadata).expect("the fixture's vocabulary is sound")
}

fn parse(ids: &str) -> Vec<u32> {
    let parse = |id: &str| id.parse().expect("the fixture holds numbers");
    ids.split_whitespace().map(parse).collect()
}

/// Encodes all strings as the judge did, and decodes them again both ways.
fn check(name: &str, fixture: &Fixture, case: &Case, tokenizer: &Tokenizer) {
    assert_eq!(
        tokenizer.end_of_generation(),
        case.end_of_generation,
        "{name}: end of generation"
    );
    let ways = [(PROMPT, Some(&case.prompt)), (PLAIN, case.plain.as_ref())];
    for (how, answers) in ways {
        let Some(answers) = answers else { continue };
        assert_eq!(answers.len(), fixture.strings.len(), "{name}");
        for (text, answer) in fixture.strings.iter().zip(answers) {
            let ids = tokenizer.encode(text, how).expect("every text has tokens");
            let judge = &fixture.judge;
            assert_eq!(
                ids,
                parse(answer),
                "{name}: {text:?} ({how:?}); judge: {judge}"
            );
        }
    }
    for text in &fixture.strings {
        let ids = tokenizer
            .encode(text, PARSED)
            .expect("every text has tokens");
        let decoded = tokenizer.decode(&ids, true);
        let mut stream = tokenizer.detokenizer().print_special(true).at_text_start();
        let mut streamed = String::new();
        ids.iter().for_each(|&id| streamed += stream.push(id));
        streamed += stream.finish();
        assert_eq!(streamed, decoded, "{name}: {text:?} in pieces");
        // `▁` means a space, and a space is added after tokens recognised as a whole, so SentencePiece text may come
        // back changed. Two spaces are such a token in the toy.
        let exact = match fixture.scores {
            Some(_) => {
                let changed = ["▁", "  ", "<user>"].iter().any(|part| text.contains(part));
                !changed && !ids.iter().any(|&id| tokenizer.is_special(id))
            }
            None => tokenizer.unspellable(text).is_none(),
        };
        if exact {
            assert_eq!(decoded, *text, "{name}: there and back");
        }
    }
}

#[test]
fn byte_level_vocabularies_agree_with_llama_cpp_under_every_pre_tokenizer() {
    let fixture = Fixture::read("byte_level.json");
    for case in &fixture.cases {
        let tokenizer = Tokenizer::from_metadata(&fixture.metadata(case)).unwrap();
        let name = case.pre.as_deref().expect("each case names one");
        check(name, &fixture, case, &tokenizer);
        assert_eq!(tokenizer.vocab_size(), fixture.tokens.len());
    }
}

#[test]
fn scored_vocabularies_agree_with_llama_cpp() {
    let fixture = Fixture::read("scored.json");
    for (number, case) in fixture.cases.iter().enumerate() {
        let tokenizer = Tokenizer::from_metadata(&fixture.metadata(case)).unwrap();
        check(&format!("case {number}"), &fixture, case, &tokenizer);
    }
}

#[test]
fn smollm2_agrees_with_llama_cpp() {
    let Some(path) = skip::real_model() else {
        return;
    };
    let file = Checkpoint::open(&path).expect("a model file");
    let pre = file.metadata().str("tokenizer.ggml.pre").unwrap();
    if pre != Some("smollm") {
        return skip::skip("GRETA_TEST_MODEL is not SmolLM2");
    }
    let start = std::time::Instant::now();
    let tokenizer = Tokenizer::from_metadata(file.metadata()).unwrap();
    println!("built in {:?}", start.elapsed());
    assert_eq!(tokenizer.vocab_size(), 49152);
    let fixture = Fixture::read("smollm2.json");
    for case in &fixture.cases {
        check("SmolLM2", &fixture, case, &tokenizer);
    }
}

#[test]
fn special_tokens_are_parsed_printed_and_named_on_request() {
    let tokenizer = toy("byte_level.json", 0);
    let end = tokenizer.token("<|im_end|>").unwrap();
    let made = tokenizer.token("<|user_made|>").unwrap();
    let text = "a<|im_end|>b<|user_made|>";
    let parsed = tokenizer.encode(text, PARSED).unwrap();
    assert!(parsed.contains(&end) && parsed.contains(&made));
    let plain = tokenizer.encode(text, PLAIN).unwrap();
    assert!(
        !plain.contains(&end) && plain.contains(&made),
        "user-defined tokens are always parsed"
    );
    assert_eq!(tokenizer.decode(&parsed, true), text);
    assert_eq!(tokenizer.decode(&parsed, false), "ab<|user_made|>");
    assert_eq!(tokenizer.decode(&plain, false), text);
    assert!(tokenizer.is_end_of_generation(end) && !tokenizer.is_end_of_generation(made));
    assert!(tokenizer.is_special(end) && !tokenizer.is_special(made));
    assert_eq!(tokenizer.token("no such token"), None);
    assert_eq!(tokenizer.piece(u32::MAX), b"");
}

#[test]
fn bos_and_eos_follow_the_file_and_the_empty_text_has_no_others() {
    let check = |name, case, expected: &[u32]| {
        let tokenizer = toy(name, case);
        assert_eq!(
            tokenizer.encode("", PROMPT).unwrap(),
            expected,
            "{name} {case}"
        );
        let plain = tokenizer.encode("", PLAIN).unwrap();
        assert!(plain.is_empty(), "{name} {case}");
        assert_eq!(tokenizer.decode(&[], true), "");
    };
    check("byte_level.json", 0, &[]);
    check("byte_level.json", 2, &[1, 2]);
    check("byte_level.json", 3, &[1]);
    check("scored.json", 0, &[1]);
    check("scored.json", 2, &[2]);
}
