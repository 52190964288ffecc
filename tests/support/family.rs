//! Toy checkpoints of every family and what Hugging Face `transformers` says of them, from
//! `tests/fixtures/families`, which `make_families.py` wrote. Weights follow from their names.

use super::compare::{SLACK, widest_apart};
use super::gguf_writer::GgufWriter;
use greta_infer::dtype::DType;
use greta_infer::graph::KvType;
use greta_infer::loader::Checkpoint;
use greta_infer::model::Model;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

macro_rules! fixtures {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../fixtures/families/", $name, ".json")))),*]
    };
}

/// Compiled in, so that a test executable needs nothing beside it.
const FIXTURES: &[(&str, &str)] = fixtures![
    "llama2",
    "llama3",
    "llama-linear",
    "llama-yarn",
    "llama-biases",
    "mistral",
    "qwen2",
    "qwen2-yarn",
    "qwen3",
    "gemma3",
    "smollm3",
];

/// One toy.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Family {
    #[serde(skip)]
    pub name: &'static str,
    pub architecture: String,
    /// By key, without the architecture in front.
    metadata: BTreeMap<String, Value>,
    /// Shapes by name.
    tensors: BTreeMap<String, Vec<usize>>,
    /// Tensors that do not follow from their names.
    given: BTreeMap<String, Vec<f32>>,
    pub tokens: Vec<u32>,
    /// The tokens after which logits are known.
    pub shown: Vec<usize>,
    logits: Vec<Vec<f64>>,
    /// Those where keys and values are rounded to f16.
    rounded: Vec<Vec<f64>>,
}

/// All of them.
pub fn families() -> Vec<Family> {
    let read = |(name, text): &(&'static str, &str)| {
        let family: Family = serde_json::from_str(text).unwrap_or_else(|e| panic!("{name}: {e}"));
        Family { name, ..family }
    };
    FIXTURES.iter().map(read).collect()
}

impl Family {
    /// The checkpoint, its matrices of type `matrices` (F32 or F16).
    pub fn gguf(&self, matrices: DType) -> Vec<u8> {
        let architecture = &self.architecture;
        let mut file = GgufWriter::new().meta_str("general.architecture", architecture);
        for (key, value) in &self.metadata {
            let key = &format!("{architecture}.{key}");
            file = match value {
                Value::Number(n) if n.is_u64() => {
                    file.meta_u32(key, n.as_u64().expect("as asked") as u32)
                }
                Value::Number(n) => file.meta_f32(key, n.as_f64().expect("a number") as f32),
                Value::String(text) => file.meta_str(key, text),
                Value::Array(list) => {
                    let flag = |v: &Value| v.as_bool().expect("lists hold flags");
                    file.meta_bools(key, &list.iter().map(flag).collect::<Vec<_>>())
                }
                other => panic!("{key}: {other}"),
            };
        }
        for (name, shape) in &self.tensors {
            let dtype = if shape.len() == 1 {
                DType::F32
            } else {
                matrices
            };
            let bytes: Vec<u8> = match dtype {
                DType::F32 => values(name, shape)
                    .iter()
                    .flat_map(|x| x.to_le_bytes())
                    .collect(),
                DType::F16 => values(name, shape)
                    .iter()
                    .flat_map(|&x| half::f16::from_f32(x).to_le_bytes())
                    .collect(),
                other => panic!("{other}: toys are written in F32 or F16"),
            };
            file = file.tensor(name, dtype, shape, bytes);
        }
        for (name, given) in &self.given {
            let bytes: Vec<u8> = given.iter().flat_map(|x| x.to_le_bytes()).collect();
            file = file.tensor(name, DType::F32, &[given.len()], bytes);
        }
        file.to_bytes()
    }

    /// The model that is read from those bytes.
    pub fn model(&self, matrices: DType) -> Model {
        let checkpoint = Checkpoint::from_bytes(Path::new(self.name), self.gguf(matrices));
        let checkpoint = checkpoint.unwrap_or_else(|e| panic!("{e}"));
        Model::from_checkpoint(checkpoint, None).unwrap_or_else(|e| panic!("{e}"))
    }

    /// The metadata's keys, without the architecture.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.metadata.keys().map(String::as_str)
    }

    /// Gives a key another value: numbers a half more, flags the other way round.
    pub fn disturb(&mut self, key: &str) {
        let value = self.metadata.get_mut(key).expect("a key of the fixture");
        *value = match &*value {
            Value::Number(n) if n.is_u64() => (n.as_u64().expect("as asked") * 3 / 2).into(),
            Value::Number(n) => (n.as_f64().expect("a number") * 1.5).into(),
            Value::Array(list) => list.iter().map(|v| v.as_bool() != Some(true)).collect(),
            other => panic!("{key}: {other}"),
        };
    }

    /// How far the logits after token `index` are from the judge's with such a cache, of their size; 0
    /// where they are not known.
    pub fn apart(&self, kv_type: KvType, index: usize, logits: &[f32]) -> f64 {
        let Some(at) = self.shown.iter().position(|&shown| shown == index) else {
            return 0.0;
        };
        let want = match kv_type {
            KvType::F32 => &self.logits[at],
            KvType::F16 => &self.rounded[at],
            KvType::Q8_0 => panic!("nobody judges a cache of {kv_type}"),
        };
        widest_apart(logits, want, self.name)
    }

    /// Refuses logits that are further from the judge's than f32's own error, which may put a key or a
    /// value on the other side of a boundary of f16; returns how far they are.
    pub fn judge(&self, kv_type: KvType, index: usize, logits: &[f32], how: &str) -> f64 {
        let apart = self.apart(kv_type, index, logits);
        let name = self.name;
        let near = match kv_type {
            KvType::F32 => SLACK,
            _ => 1e-4,
        };
        assert!(
            apart <= near,
            "{name}, {kv_type} cache, {how}: after token {index} the logits are {apart:.1e} from transformers'"
        );
        apart
    }
}

/// `count` numbers in [0, 1), by SplitMix64 from FNV-1a of the name.
fn uniform(name: &str, count: usize) -> Vec<f64> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let one = |i: u64| {
        let mut z = seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 11) as f64 * 2f64.powi(-53)
    };
    (1..=count as u64).map(one).collect()
}

/// The tensor that follows from a name, GGUF's or Hugging Face's, as in `fixtures/toys.py`.
pub fn values(name: &str, shape: &[usize]) -> Vec<f32> {
    let usual = (3.0 / shape[shape.len() - 1] as f64).sqrt();
    let is = |parts: [&str; 2]| parts.iter().any(|part| name.contains(part));
    let width = match name {
        _ if is(["token_embd", "embed_tokens"]) => 1.0,
        _ if is(["attn_output", "o_proj"]) => usual * 0.1,
        _ => usual,
    };
    let value = |u: f64| match name {
        _ if name.ends_with("norm.weight") => ((0.5 + u) * 4096.0).floor() / 4096.0,
        _ if name.ends_with("bias") => u - 0.5,
        _ => (2.0 * u - 1.0) * width,
    };
    let count = shape.iter().product();
    uniform(name, count)
        .into_iter()
        .map(|u| value(u) as f32)
        .collect()
}
