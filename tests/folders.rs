//! Hugging Face folders, split files, other types and `convert`: what a model came as changes nothing.

mod support;

#[path = "folders/convert.rs"]
mod convert;
#[path = "folders/desk.rs"]
mod desk;
#[path = "folders/hostile.rs"]
mod hostile;
#[path = "folders/logits.rs"]
mod logits;
#[path = "folders/quantize.rs"]
mod quantize;
#[path = "folders/split.rs"]
mod split;
#[path = "folders/tokens.rs"]
mod tokens;
#[path = "folders/variants.rs"]
mod variants;
#[path = "folders/writer.rs"]
mod writer;

use greta_infer::graph::KvType;
use greta_infer::loader::Checkpoint;
use greta_infer::model::{Logits, Model};
use greta_infer::runtime::{Session, SessionOptions};
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// A folder that `make_folders.py` made.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/folders")
        .join(name)
}

/// What Hugging Face says about them.
fn expected() -> Value {
    let text = std::fs::read_to_string(fixture("expected.json")).expect("the expectations");
    serde_json::from_str(&text).expect("JSON")
}

fn floats(value: &Value) -> Vec<f64> {
    let list = value.as_array().expect("a list");
    list.iter()
        .map(|number| number.as_f64().expect("a number"))
        .collect()
}

fn ids(value: &Value) -> Vec<u32> {
    let list = value.as_array().expect("a list");
    list.iter()
        .map(|number| number.as_u64().expect("an id") as u32)
        .collect()
}

/// The logits after `tokens`, on one thread of the CPU, keys and values as they are.
fn logits(checkpoint: Checkpoint, tokens: &[u32]) -> Vec<f32> {
    let model = Model::from_checkpoint(checkpoint, None).unwrap_or_else(|error| panic!("{error}"));
    let options = SessionOptions {
        context: 64,
        kv_type: KvType::F32,
        chunk_rows: 32,
        logits: Logits::Last,
        ..SessionOptions::default()
    };
    let mut session =
        Session::build(&model, &options, &|_, _| {}).unwrap_or_else(|error| panic!("{error}"));
    let logits = session.prefill(tokens, &mut |_| ControlFlow::Continue(()));
    logits.unwrap_or_else(|error| panic!("{error}")).to_vec()
}

/// Opens a model, whatever it is.
fn open(path: &Path) -> Checkpoint {
    greta_infer::import::open(path, None).unwrap_or_else(|error| panic!("{error}"))
}

/// The one-line error that a path gives.
fn refusal(path: &Path) -> String {
    match greta_infer::import::open(path, None)
        .map(|checkpoint| Model::from_checkpoint(checkpoint, None).map(|_| ()))
    {
        Ok(Ok(())) => panic!("{} opens", path.display()),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    }
}

/// A copy of a fixture that may be changed.
fn copy(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for entry in std::fs::read_dir(fixture(name)).expect("the fixture") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, folder.path().join(path.file_name().expect("a name")))
            .expect("copied");
    }
    folder
}

/// Replaces keys of a JSON file; `null` removes one.
fn edit(folder: &Path, file: &str, changes: &Value) {
    let path = folder.join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|_| "{}".into());
    let mut json: Value = serde_json::from_str(&text).expect("JSON");
    for (key, value) in changes.as_object().expect("an object") {
        let map = json.as_object_mut().expect("an object");
        match value {
            Value::Null => map.remove(key),
            value => map.insert(key.clone(), value.clone()),
        };
    }
    std::fs::write(path, json.to_string()).expect("written");
}

/// Asserts that a message is one line and says all of `parts`.
fn says(message: &str, parts: &[&str]) {
    assert!(!message.contains('\n'), "{message:?}");
    for part in parts {
        assert!(message.contains(part), "no {part:?} in {message:?}");
    }
}
