//! Random Definitions of the kinds that families are made of: biases on q, k and v, norms over
//! heads, norms after a block, GeGLU, windows, either rotation, parallel blocks, tensors of several
//! types.

use crate::support::rng::Rng;
use bumpalo::Bump;
use greta_infer::dtype::DType;
use greta_infer::graph::{Graph, KvType};
use greta_infer::model::{Definition, Extent, Hyperparameters, Logits, build};
use std::fmt::Write;

/// `V` of every toy.
pub const VOCABULARY: usize = 11;

const HEAD: &str = r#"
family = "toy"
architectures = ["toy"]

[weights]
table = { gguf = "table", shape = ["V", "E"] }
freqs = { gguf = "freqs", shape = ["ROT2"], optional = true }
norm = { gguf = "{layer}.norm", shape = ["E"] }
post = { gguf = "{layer}.post", shape = ["E"] }
q = { gguf = "{layer}.q", shape = ["HD", "E"] }
k = { gguf = "{layer}.k", shape = ["GD", "E"] }
v = { gguf = "{layer}.v", shape = ["GD", "E"] }
q_bias = { gguf = "{layer}.q_bias", shape = ["HD"] }
k_bias = { gguf = "{layer}.k_bias", shape = ["GD"] }
v_bias = { gguf = "{layer}.v_bias", shape = ["GD"] }
q_norm = { gguf = "{layer}.q_norm", shape = ["D"] }
k_norm = { gguf = "{layer}.k_norm", shape = ["D"] }
o = { gguf = "{layer}.o", shape = ["E", "HD"] }
ffn_norm = { gguf = "{layer}.ffn_norm", shape = ["E"] }
ffn_post = { gguf = "{layer}.ffn_post", shape = ["E"] }
gate = { gguf = "{layer}.gate", shape = ["F", "E"] }
up = { gguf = "{layer}.up", shape = ["F", "E"] }
down = { gguf = "{layer}.down", shape = ["E", "F"] }
out_norm = { gguf = "out_norm", shape = ["E"] }
"#;

/// A Definition with what fills its gaps.
pub struct Toy {
    pub text: String,
    pub extent: Extent,
    hyper: Hyperparameters,
    /// Decides the tensors' types and which optional ones there are.
    types: u64,
}

pub fn random(rng: &mut Rng) -> Toy {
    let mut flag = || rng.below(2) == 0;
    let (bias, head_norm, post_norm, scaled) = (flag(), flag(), flag(), flag());
    let (window, half, gelu, parallel, swapped) = (flag(), flag(), flag(), flag(), flag());
    let dead = flag();
    let mut text = HEAD.to_string();
    let mut add = |section: &str, rest: String| {
        writeln!(text, "[[{section}]]\n{rest}").expect("writing to a string");
    };
    let node = |op: &str, inputs: &str, weight: &str, out: &str| {
        let mut text = format!("op = \"{op}\"\nin = [{inputs}]\nout = \"{out}\"\n");
        if !weight.is_empty() {
            text += &format!("weight = \"{weight}\"\n");
        }
        text
    };
    add("prologue", node("embed", "", "table", "x"));
    add("prologue", node("rope_table", "", "freqs", "angles"));
    if scaled {
        add("prologue", node("scale", "'x'", "", "x"));
    }
    add("layer", node("rms_norm", "'x'", "norm", "h"));
    let style = if half { "half" } else { "interleaved" };
    for (name, letter) in [("v", "G"), ("k", "G"), ("q", "H")] {
        let quoted = format!("'{name}'");
        add("layer", node("gemm", "'h'", name, name));
        if bias {
            let weight = format!("{name}_bias");
            add("layer", node("add_bias", &quoted, &weight, name));
        }
        let heads = format!("heads = \"{letter}\"\n");
        if head_norm && name != "v" {
            let norm = node("rms_norm", &quoted, &format!("{name}_norm"), name);
            add("layer", norm + &heads);
        }
        if name != "v" {
            let rope = node("rope", &format!("{quoted}, 'angles'"), "", name);
            add("layer", format!("{rope}{heads}style = \"{style}\"\n"));
        }
    }
    add("layer", "op = \"kv_append\"\nin = ['k', 'v']\n".into());
    let seen = if window { "window = \"W\"\n" } else { "" };
    add("layer", node("attention", "'q'", "", "a") + seen);
    add("layer", node("gemm", "'a'", "o", "o"));
    if post_norm {
        add("layer", node("rms_norm", "'o'", "post", "o"));
    }
    let sum = if swapped { "'o', 'x'" } else { "'x', 'o'" };
    // In a parallel block the feed-forward reads what attention read.
    let fed = if parallel { "x" } else { "y" };
    add("layer", node("add", sum, "", "y"));
    add(
        "layer",
        node("rms_norm", &format!("'{fed}'"), "ffn_norm", "h"),
    );
    add("layer", node("gemm", "'h'", "gate", "gate"));
    add("layer", node("gemm", "'h'", "up", "up"));
    let activation = if gelu { "gelu_tanh" } else { "silu" };
    let gated = node("gated_mul", "'gate', 'up'", "", "f");
    add("layer", format!("{gated}activation = \"{activation}\"\n"));
    if dead {
        add("layer", node("scale", "'f'", "", "nobody"));
    }
    add("layer", node("gemm", "'f'", "down", "o"));
    if post_norm {
        add("layer", node("rms_norm", "'o'", "ffn_post", "o"));
    }
    add("layer", node("add", "'y', 'o'", "", "x"));
    add("epilogue", node("last_row", "'x'", "", "x"));
    add("epilogue", node("rms_norm", "'x'", "out_norm", "h"));
    add("epilogue", node("gemm", "'h'", "table", "logits"));

    let kv_heads = 1 + rng.below(2) as u32;
    let hyper = Hyperparameters {
        architecture: "toy".into(),
        layers: 1 + rng.below(2) as u32,
        embedding: 12,
        feed_forward: 20,
        heads: kv_heads * (1 + rng.below(3) as u32),
        kv_heads,
        head_size: 8,
        vocabulary: VOCABULARY as u32,
        context: 12,
        rms_eps: 1e-5,
        rope_base: 100.0,
        rope_dims: Some([4, 8][rng.below(2)]),
        rope_position_scale: 0.5,
        embedding_scale: 1.5,
        window: Some(1 + rng.below(6) as u32),
        ..Hyperparameters::default()
    };
    let extent = Extent {
        kv_type: KvType::F16,
        rows: [1, 1, 4][rng.below(3)],
        context: 12,
        logits: [Logits::Last, Logits::All][rng.below(2)],
    };
    let types = rng.bits();
    Toy {
        text,
        extent,
        hyper,
        types,
    }
}

impl Toy {
    pub fn graph<'a>(&self, arena: &'a Bump) -> Graph<'a> {
        let definition = Definition::parse("toy.toml", &self.text).expect("it parses");
        let lookup = |name: &str| self.tensor(&definition, name);
        let (hyper, extent) = (&self.hyper, self.extent);
        build(arena, &definition, hyper, extent, "toy", &lookup)
            .unwrap_or_else(|error| panic!("{error}\n{}", self.describe()))
    }

    /// Any tensor of the list, of a type that its name and the toy decide.
    fn tensor(&self, definition: &Definition, name: &str) -> Option<(DType, Vec<usize>)> {
        let plain = name.trim_start_matches(|c: char| c.is_ascii_digit());
        let plain = plain.trim_start_matches('.');
        let found = definition.weights.iter().find(|(key, _)| *key == plain);
        let (_, entry) = found?;
        let mut rng = Rng::new(self.types ^ name.bytes().fold(7, |h, b| h * 31 + u64::from(b)));
        if entry.optional && rng.below(2) == 0 {
            return None;
        }
        let length = |letter: &String| self.hyper.dimension(letter).expect("a letter") as usize;
        let shape: Vec<usize> = entry.shape.iter().map(length).collect();
        let types = [DType::Q8_0, DType::Q8_0, DType::Q4_1, DType::F16];
        let dtype = match shape.len() {
            1 => DType::F32,
            _ => types[rng.below(4)],
        };
        Some((dtype, shape))
    }

    pub fn describe(&self) -> String {
        let (hyper, extent) = (&self.hyper, self.extent);
        format!("{hyper:?} {extent:?}\n{}", self.text)
    }
}
