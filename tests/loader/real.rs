//! Checks on a real model, for whoever has one: `GRETA_TEST_MODEL=FILE cargo test --release -- --ignored real::`.

use greta_infer::loader::Checkpoint;
use serde_json::Value as Json;
use std::path::PathBuf;
use std::time::Instant;

fn model() -> PathBuf {
    let path = std::env::var_os("GRETA_TEST_MODEL");
    path.expect("GRETA_TEST_MODEL names a GGUF file").into()
}

#[test]
#[ignore = "needs a real model in GRETA_TEST_MODEL"]
fn truncation_of_a_real_model_is_an_error() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("cut.gguf");
    let bytes = std::fs::copy(model(), &path).expect("copied");
    let file = std::fs::File::options()
        .write(true)
        .open(&path)
        .expect("opened");
    Checkpoint::open(&path).expect("the whole file opens");
    for part in (0..64).rev() {
        // Nothing has the file mapped here: the checkpoint above is gone, and the ones below are errors.
        file.set_len(bytes * part / 64).expect("cut");
        let error = Checkpoint::open(&path).expect_err("cut short");
        println!("{part}/64: {error}");
    }
}

#[test]
#[ignore = "needs a real model in GRETA_TEST_MODEL"]
fn opening_a_real_model_is_fast() {
    let path = model();
    let mut best_ms = f64::INFINITY;
    let mut strings_ms = f64::INFINITY;
    for _ in 0..20 {
        let start = Instant::now();
        let file = Checkpoint::open(&path).expect("it opens");
        best_ms = best_ms.min(start.elapsed().as_secs_f64() * 1e3);
        let start = Instant::now();
        let tokens = file.metadata().strings("tokenizer.ggml.tokens");
        assert!(tokens.expect("UTF-8").is_some());
        strings_ms = strings_ms.min(start.elapsed().as_secs_f64() * 1e3);
    }
    println!("open {best_ms:.3} ms, tokens as text {strings_ms:.3} ms (best of 20)");
    assert!(best_ms < 5.0, "{best_ms} ms");
}

/// `make_loader_fixtures.py describe FILE > EXPECTED.json` makes what `GRETA_TEST_MODEL_JSON` names.
#[test]
#[ignore = "needs a real model in GRETA_TEST_MODEL and PyPI gguf's reading of it in GRETA_TEST_MODEL_JSON"]
fn pypi_gguf_reads_a_real_model_the_same() {
    let path = model();
    let json = std::env::var_os("GRETA_TEST_MODEL_JSON").expect("GRETA_TEST_MODEL_JSON is set");
    let text = std::fs::read_to_string(json).expect("the expectation");
    let expected: Json = serde_json::from_str(&text).expect("JSON");
    crate::peers::check_against_json(&path, &expected);
}
