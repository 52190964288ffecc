//! Our reading against others': PyPI `gguf` through committed fixtures, the `gguf` crate on the same bytes.

use crate::gguf_writer::GgufWriter;
use greta_infer::dtype::DType;
use greta_infer::loader::{Checkpoint, LoadError, Metadata, Value};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// Takes the next `count` bytes.
fn next<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (head, tail) = bytes.split_at(count);
    *bytes = tail;
    head
}

fn next_u32(bytes: &mut &[u8]) -> u32 {
    u32::from_le_bytes(next(bytes, 4).try_into().expect("four bytes"))
}

#[test]
fn decoding_equals_numpy_bit_for_bit() {
    let path = std::env::var_os("GRETA_DECODE_FIXTURE").map(PathBuf::from);
    let file = std::fs::read(path.unwrap_or_else(|| fixture("decode.bin"))).expect("the fixture");
    let mut bytes = &file[..];
    let mut seen = Vec::new();
    while !bytes.is_empty() {
        let dtype = DType::from_ggml(next_u32(&mut bytes)).expect("a type");
        let count = next_u32(&mut bytes) as usize;
        let blocks = next(&mut bytes, count * dtype.block_bytes());
        let mut decoded = vec![f32::NAN; count * dtype.block_len()];
        dtype.decode(blocks, &mut decoded);
        for (index, found) in decoded.iter().enumerate() {
            let expected = next_u32(&mut bytes);
            assert_eq!(
                found.to_bits(),
                expected,
                "{dtype}: element {index} is {found}"
            );
        }
        seen.push(dtype);
    }
    assert!(
        DType::RUNNABLE.iter().all(|dtype| seen.contains(dtype)),
        "{seen:?}"
    );
}

/// A metadata value as the Python fixture writes it.
fn as_json(value: &Value) -> Json {
    match value {
        Value::Bool(value) => Json::from(*value),
        Value::F32(value) => Json::from(f64::from(*value)),
        Value::F64(value) => Json::from(*value),
        Value::U64(value) => Json::from(*value),
        Value::String(text) => Json::from(text.to_str().expect("the fixture is UTF-8")),
        Value::Array(array) => array.iter().map(|item| as_json(&item)).collect(),
        integer => {
            let value = integer.as_integer().expect("nothing else is left");
            Json::from(i64::try_from(value).expect("u64 is handled above"))
        }
    }
}

#[test]
fn pypi_gguf_reads_the_same() {
    let text = std::fs::read_to_string(fixture("toy.json")).expect("the fixture");
    let expected: Json = serde_json::from_str(&text).expect("JSON");
    check_against_json(&fixture("toy.gguf"), &expected);
}

/// Compares everything in the file at `path` with what `make_loader_fixtures.py` says PyPI `gguf` found in it.
pub fn check_against_json(path: &Path, expected: &Json) {
    let file = Checkpoint::open(path).expect("it opens");
    let bytes = std::fs::read(path).expect("it can be read");

    let fields = expected["metadata"].as_object().expect("an object");
    assert_eq!(file.metadata().len(), fields.len());
    for (key, field) in fields {
        let value = file
            .metadata()
            .get(key)
            .unwrap_or_else(|| panic!("no {key}"));
        assert_eq!(as_json(value), field["value"], "{key}");
        let mut types = vec![value.value_type().gguf_id()];
        if let Value::Array(array) = value {
            types.push(array.item_type().gguf_id());
        }
        assert_eq!(Json::from(types), field["types"], "{key}");
    }
    let tensors = expected["tensors"].as_array().expect("an array");
    assert_eq!(file.tensors().len(), tensors.len());
    for (info, expected) in file.tensors().zip(tensors) {
        let tensor = info.fetch().expect("a mapped tensor");
        assert_eq!(info.bytes(), tensor.data.len() as u64);
        assert_eq!(expected["name"], tensor.name);
        assert_eq!(expected["type"], tensor.dtype.name(), "{}", tensor.name);
        assert_eq!(
            expected["shape"],
            Json::from(tensor.shape.clone()),
            "{}",
            tensor.name
        );
        assert_eq!(expected["bytes"], tensor.data.len(), "{}", tensor.name);
        let hash: String = Sha256::digest(&*tensor.data)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(expected["sha256"], hash, "{}", tensor.name);
        let offset = expected["file_offset"].as_u64().expect("a number") as usize;
        assert_eq!(bytes[offset..][..tensor.data.len()], *tensor.data);
        assert!(
            file.tensor(&tensor.name)
                .is_some_and(|found| found.shape == tensor.shape)
        );
    }
    assert!(file.tensor("absent").is_none());
    assert_eq!(file.file_bytes(), bytes.len() as u64);
}

#[test]
fn a_type_that_does_not_run_is_read_and_reported() {
    let file = Checkpoint::open(&fixture("toy.gguf")).expect("the fixture opens");
    let tensor = file.info("not_runnable.weight").expect("it is there");
    assert_eq!(tensor.dtype, DType::IQ4_XS);
    assert!(!tensor.dtype.is_runnable());
    let error = LoadError::unsupported_type(file.path(), tensor).to_string();
    for part in [
        "toy.gguf",
        "not_runnable.weight",
        "IQ4_XS",
        "Q4_K",
        "llama-quantize",
    ] {
        assert!(error.contains(part), "{error}");
    }
    let runs = file.info("token_embd.weight").expect("it is there");
    assert!(runs.dtype.is_runnable());
}

/// The `gguf` crate knows neither BF16 nor the IQ types, so it gets a file of ours without them.
#[test]
fn the_gguf_crate_reads_the_same() {
    for version in [2, 3] {
        let bytes = GgufWriter::new()
            .version(version)
            .alignment(64)
            .meta_str("general.architecture", "llama")
            .meta_strings("tokenizer.ggml.tokens", &["<s>", "▁a", ""])
            .meta_f32s("tokenizer.ggml.scores", &[0.0, -1.0, -2.0])
            .meta_i32s("tokenizer.ggml.token_type", &[3, 1, 1])
            .tensor("a.weight", DType::F16, &[3, 5], vec![1; 30])
            .tensor("b.weight", DType::Q4_K, &[2, 256], vec![2; 288])
            .to_bytes();
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ours.gguf");
        std::fs::write(&path, &bytes).expect("written");
        let ours = Checkpoint::open(&path).expect("it opens");
        let theirs = gguf::GGUFFile::read(&bytes)
            .expect("parsed")
            .expect("complete");

        assert_eq!(ours.metadata().len(), theirs.header.metadata.len());
        for ((key, value), entry) in ours.metadata().iter().zip(&theirs.header.metadata) {
            assert_eq!(key, entry.key);
            assert_eq!(
                value.value_type().gguf_id(),
                entry.value_type as u32,
                "{key}"
            );
        }
        assert_eq!(ours.tensors().len(), theirs.tensors.len());
        for (our, their) in ours.tensors().zip(&theirs.tensors) {
            let shape: Vec<u64> = our.shape.iter().rev().map(|&size| size as u64).collect();
            assert_eq!((&our.name, shape), (&their.name, their.dimensions.clone()));
            assert_eq!(our.dtype.ggml_id(), their.tensor_type as u32);
        }
        assert_eq!(&*ours.tensor("b.weight").expect("b").data, &[2; 288]);
        assert_eq!(ours.format(), format!("GGUF v{version}"));
    }
}

fn open(writer: &GgufWriter) -> Result<Checkpoint, LoadError> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("test.gguf");
    writer.write(&path);
    Checkpoint::open(&path) // On Unix the mapping outlives the file's name.
}

#[test]
fn metadata_is_read_by_type() {
    let file = open(
        &GgufWriter::new()
            .meta_u32("count", 7)
            .meta_u64("large", 1 << 40)
            .meta_i32("negative", -1)
            .meta_f32("eps", 1e-5)
            .meta_raw("eps64", 12, &1e-6f64.to_le_bytes())
            .meta_bool("flag", true)
            .meta_str("text", "ünï")
            .meta_bytes("latin1", b"caf\xe9!")
            .meta_strings("pieces", &["", "▁the", "🦀"])
            .meta_strings::<&[u8]>("broken", &[b"fine", b"\xf0\x9f", b"fine"])
            // Together these are `aé`, which is UTF-8; by themselves the last two are not.
            .meta_strings::<&[u8]>("halves", &[b"a", b"\xc3", b"\xa9"])
            .meta_strings::<&str>("none", &[])
            .meta_f32s("scores", &[0.5, -1e9])
            .meta_i32s("kinds", &[1, -6])
            .meta_u32s("ids", &[0, u32::MAX])
            .meta_bools("flags", &[true, false]),
    )
    .expect("it opens");
    let data = file.metadata();

    assert_eq!(data.u32("count").expect("u32"), Some(7));
    assert_eq!(data.usize("count").expect("usize"), Some(7));
    assert_eq!(data.u64("large").expect("u64"), Some(1 << 40));
    assert_eq!(data.i32("negative").expect("i32"), Some(-1));
    assert_eq!(data.f32("eps").expect("f32"), Some(1e-5));
    assert_eq!(data.f32("eps64").expect("f32"), Some(1e-6));
    assert_eq!(data.bool("flag").expect("bool"), Some(true));
    assert_eq!(data.str("text").expect("text"), Some("ünï"));
    assert_eq!(data.f32s("scores").expect("f32s"), Some(vec![0.5, -1e9]));
    assert_eq!(data.i32s("kinds").expect("i32s"), Some(vec![1, -6]));
    assert_eq!(data.u32s("ids").expect("u32s"), Some(vec![0, u32::MAX]));
    assert_eq!(data.bools("flags").expect("bools"), Some(vec![true, false]));
    assert_eq!(data.u32("absent").expect("absent is no error"), None);
    assert!(
        data.strings("absent")
            .expect("absent is no error")
            .is_none()
    );

    let pieces = data.strings("pieces").expect("UTF-8").expect("present");
    assert_eq!(pieces.iter().collect::<Vec<_>>(), ["", "▁the", "🦀"]);
    assert_eq!(
        (pieces.len(), pieces.get(1), pieces.get(3)),
        (3, Some("▁the"), None)
    );
    assert!(
        data.strings("none")
            .expect("strings")
            .is_some_and(|none| none.is_empty())
    );
    let broken = data.array("broken").expect("an array").expect("present");
    assert_eq!(broken.string_bytes(1), Some(&b"\xf0\x9f"[..]));
    assert_eq!(broken.string_bytes(3), None);

    let refused: &[(Result<(), LoadError>, &str)] = &[
        (data.u32("text").map(drop), "text is string, expected u32"),
        (
            data.u32("large").map(drop),
            "large is 1099511627776, which does not fit u32",
        ),
        (
            data.usize("negative").map(drop),
            "negative is -1, which does not fit usize",
        ),
        (
            data.u32s("kinds").map(drop),
            "kinds[1] is -6, which does not fit u32",
        ),
        (
            data.i32s("ids").map(drop),
            "ids[1] is 4294967295, which does not fit i32",
        ),
        (data.f32("count").map(drop), "count is u32, expected f32"),
        (
            data.str("pieces").map(drop),
            "pieces is array of string, expected string",
        ),
        (
            data.strings("ids").map(drop),
            "ids is array of u32, expected array of strings",
        ),
        (data.bool("eps").map(drop), "eps is f32, expected bool"),
        (
            data.str("latin1").map(drop),
            r"latin1 is not UTF-8: at byte 3 it goes on with `\xe9!`",
        ),
        (
            data.strings("halves").map(drop),
            "halves[1] is not UTF-8: at byte 0",
        ),
        (
            data.strings("broken").map(drop),
            "broken[1] is not UTF-8: at byte 0",
        ),
    ];
    for (result, expected) in refused {
        let error = result.as_ref().expect_err(expected).to_string();
        assert!(
            error.contains("test.gguf: ") && error.contains(expected),
            "{error}"
        );
    }
}

#[test]
fn metadata_can_be_made_in_memory() {
    use greta_infer::loader::Array;
    let mut data = Metadata::new("random weights");
    data.insert("count", 3u32);
    data.insert("name", "toy");
    data.insert("pieces", Array::strings(["a", "", "ccc"]));
    data.insert("scores", Array::from(&[1.0f32, 2.0][..]));
    assert_eq!(data.insert("count", 4u64), Some(Value::U32(3)));
    assert_eq!(data.usize("count").expect("usize"), Some(4));
    let pieces = data.strings("pieces").expect("strings").expect("present");
    assert_eq!(pieces.iter().collect::<Vec<_>>(), ["a", "", "ccc"]);
    assert_eq!(data.f32s("scores").expect("f32s"), Some(vec![1.0, 2.0]));
    let shown: Vec<String> = data
        .iter()
        .map(|(key, value)| format!("{key} = {value}"))
        .collect();
    let expected = [
        "count = 4",
        "name = \"toy\"",
        "pieces = [\"a\", \"\", \"ccc\"]",
        "scores = [1.0, 2.0]",
    ];
    assert_eq!(shown, expected);
    let error = data.str("count").expect_err("a number").to_string();
    assert_eq!(error, "random weights: count is u64, expected string");
}
