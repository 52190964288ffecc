//! Vocabularies that contradict themselves: each is an error that names the key and both sides.

use super::{Array, Encode, Metadata, Tokenizer, TokenizerError, Value};

const KEY: &str = "tokenizer.ggml.";

fn strings(items: &[&str]) -> Value {
    Value::Array(Array::strings(items))
}

/// A sound byte-level vocabulary of six tokens.
fn byte_level() -> Metadata {
    let mut metadata = Metadata::new("toy.gguf");
    let mut insert = |key: &str, value| metadata.insert(format!("{KEY}{key}"), value);
    insert("model", Value::from("gpt2"));
    insert("pre", Value::from("gpt-2"));
    insert(
        "tokens",
        strings(&["a", "b", "c", "ab", "abc", "<|endoftext|>"]),
    );
    insert(
        "token_type",
        Value::Array(Array::from(&[1i32, 1, 1, 1, 1, 3][..])),
    );
    insert("merges", strings(&["a b", "ab c"]));
    insert("eos_token_id", Value::U32(5));
    metadata
}

/// A sound scored vocabulary of six tokens, without bytes.
fn scored() -> Metadata {
    let mut metadata = Metadata::new("toy.gguf");
    let mut insert = |key: &str, value| metadata.insert(format!("{KEY}{key}"), value);
    insert("model", Value::from("llama"));
    insert("tokens", strings(&["<unk>", "<s>", "</s>", "▁", "a", "▁a"]));
    insert(
        "token_type",
        Value::Array(Array::from(&[2i32, 3, 3, 1, 1, 1][..])),
    );
    insert(
        "scores",
        Value::Array(Array::from(&[0f32, 0.0, 0.0, -1.0, -2.0, -3.0][..])),
    );
    metadata
}

/// Replaces one entry, or leaves it out, and compares the error's text.
fn check(mut metadata: Metadata, key: &str, value: Option<Value>, expected: &str) {
    let name = format!("{KEY}{key}");
    let built = match value {
        Some(value) => {
            metadata.insert(name, value);
            Tokenizer::from_metadata(&metadata)
        }
        None => {
            let mut rest = Metadata::new("toy.gguf");
            for (other, value) in metadata.iter().filter(|(other, _)| *other != name) {
                rest.insert(other, value.clone());
            }
            Tokenizer::from_metadata(&rest)
        }
    };
    let error = built.err().expect("the vocabulary is refused").to_string();
    assert!(
        error.contains(expected),
        "{key}:\n   error: {error}\nexpected: {expected}"
    );
    assert!(error.contains("toy.gguf"), "{error}");
}

#[test]
fn the_toys_are_sound() {
    let tokenizer = Tokenizer::from_metadata(&byte_level()).unwrap();
    assert_eq!(
        tokenizer.encode("abcab", Encode::default()).unwrap(),
        [4, 3]
    );
    let tokenizer = Tokenizer::from_metadata(&scored()).unwrap();
    assert_eq!(
        tokenizer.encode("aa", Encode::default()).unwrap(),
        [1, 5, 4]
    );
    assert_eq!(
        tokenizer.encode("ß", Encode::default()).unwrap(),
        [1, 3, 0],
        "one unknown token for a character that has no bytes"
    );
}

#[test]
fn a_byte_level_vocabulary_names_what_is_wrong() {
    let check = |key: &str, value: Option<Value>, expected: &str| {
        check(byte_level(), key, value, expected);
    };
    check("model", None, "tokenizer.ggml.model: missing");
    check(
        "model",
        Some(Value::from("rwkv")),
        "tokenizer.ggml.model: \"rwkv\" is not supported; supported: gpt2, llama",
    );
    check("model", Some(Value::U32(1)), "tokenizer.ggml.model");
    check(
        "pre",
        Some(Value::from("klingon")),
        "tokenizer.ggml.pre: \"klingon\" is not supported; supported: default, gpt-2, ",
    );
    check("tokens", None, "tokenizer.ggml.tokens: missing");
    check(
        "tokens",
        Some(strings(&[])),
        "tokenizer.ggml.tokens: missing; the list of tokens is empty",
    );
    check("tokens", Some(Value::U32(1)), "tokenizer.ggml.tokens");
    check(
        "tokens",
        Some(strings(&["a", "b", "c", "ab", "abc", "b"])),
        "tokenizer.ggml.tokens[5]: \"b\" is already token 1",
    );
    check(
        "merges",
        None,
        "tokenizer.ggml.merges: missing; byte-pair encoding needs the list of merges",
    );
    check(
        "merges",
        Some(strings(&["a b", "ab d"])),
        "tokenizer.ggml.merges[1]: the merge \"ab d\" names \"d\", which is not among the tokens",
    );
    check(
        "merges",
        Some(strings(&["b c"])),
        "tokenizer.ggml.merges[0]: the merge \"b c\" names \"bc\", which is not among the tokens",
    );
    for bad in ["ab", "a ", "", " "] {
        let expected = format!(
            "tokenizer.ggml.merges[1]: expected two pieces separated by a space, found {bad:?}"
        );
        check("merges", Some(strings(&["a b", bad])), &expected);
    }
    check(
        "merges",
        Some(strings(&["a b", "ab c", "a b"])),
        "tokenizer.ggml.merges[2]: the merge \"a b\" is listed twice",
    );
    let types = |items: &[i32]| Some(Value::Array(Array::from(items)));
    check(
        "token_type",
        types(&[1, 1, 1]),
        "tokenizer.ggml.token_type: expected 6 entries, one for each of tokenizer.ggml.tokens, found 3",
    );
    check(
        "token_type",
        types(&[1, 1, 1, 9, 1, 1]),
        "tokenizer.ggml.token_type[3]: expected 1 to 6, found 9",
    );
    check(
        "token_type",
        types(&[1, 6, 1, 1, 1, 1]),
        "tokenizer.ggml.tokens[1]: expected a byte token such as <0x0A>, found \"b\"",
    );
    for key in ["bos", "eos", "eot", "eom", "unknown", "fim_pad"] {
        let key = format!("{key}_token_id");
        let expected =
            format!("tokenizer.ggml.{key}: token 6 does not exist; the vocabulary has 6 tokens");
        check(&key, Some(Value::U32(6)), &expected);
    }
    check(
        "add_bos_token",
        Some(Value::Bool(true)),
        "tokenizer.ggml.bos_token_id: missing; texts of this vocabulary begin with the BOS token",
    );
    check(
        "add_bos_token",
        Some(Value::from("yes")),
        "tokenizer.ggml.add_bos_token",
    );
}

#[test]
fn a_padding_token_that_does_not_exist_is_a_note() {
    for (id, padding, notes) in [
        (Value::U32(5), Some(5), 0),
        (Value::U32(6), None, 1),
        (Value::I32(-1), None, 1),
    ] {
        let mut metadata = byte_level();
        metadata.insert("tokenizer.ggml.padding_token_id", id);
        let tokenizer = Tokenizer::from_metadata(&metadata).unwrap();
        assert_eq!(tokenizer.padding(), padding);
        assert_eq!(tokenizer.notes().len(), notes, "{:?}", tokenizer.notes());
        for note in tokenizer.notes() {
            assert!(note.contains("padding_token_id"), "{note}");
        }
    }
}

#[test]
fn a_scored_vocabulary_names_what_is_wrong() {
    let check = |key: &str, value: Option<Value>, expected: &str| {
        check(scored(), key, value, expected);
    };
    let scores = |items: &[f32]| Some(Value::Array(Array::from(items)));
    check(
        "scores",
        None,
        "tokenizer.ggml.scores: missing; merging needs the pieces' scores",
    );
    check(
        "scores",
        scores(&[0.0]),
        "tokenizer.ggml.scores: expected 6 entries, one for each of tokenizer.ggml.tokens, found 1",
    );
    check(
        "scores",
        scores(&[0.0, 0.0, f32::NAN, 0.0, 0.0, 0.0]),
        "tokenizer.ggml.scores[2]: expected a number, found NaN",
    );
    check("scores", Some(strings(&["a"])), "tokenizer.ggml.scores");
    check(
        "tokens",
        Some(strings(&["a", "a", "b", "c", "d", "e"])),
        "tokenizer.ggml.tokens[1]: \"a\" is already token 0",
    );
}

#[test]
fn a_character_without_any_token_is_an_error() {
    let mut metadata = scored();
    let types = Value::Array(Array::from(&[1i32, 3, 3, 1, 1, 1][..]));
    metadata.insert("tokenizer.ggml.token_type", types);
    let tokenizer = Tokenizer::from_metadata(&metadata).unwrap();
    let error = tokenizer.encode("aß", Encode::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "toy.gguf: the vocabulary has no token for \"ß\": no piece, no byte token and no unknown token"
    );
    metadata.insert("tokenizer.ggml.unknown_token_id", Value::U32(4));
    let tokenizer = Tokenizer::from_metadata(&metadata).unwrap();
    assert_eq!(tokenizer.encode("ß", Encode::default()).unwrap(), [1, 3, 4]);
}

#[test]
fn empty_tokens_are_named_after_their_place() {
    let mut metadata = byte_level();
    metadata.insert(
        "tokenizer.ggml.tokens",
        strings(&["a", "b", "c", "ab", "abc", ""]),
    );
    let tokenizer = Tokenizer::from_metadata(&metadata).unwrap();
    assert_eq!(tokenizer.token("[EMPTY_5]"), Some(5));
}

#[test]
fn errors_are_values() {
    fn is_error<E: std::error::Error + Send + Sync + 'static>() {}
    is_error::<TokenizerError>();
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Tokenizer>();
}
