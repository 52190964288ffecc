//! Definitions and random models that are refused, by what their messages must say.

use super::*;
use crate::graph::{KvType, Op, text};

/// Asserts that a message has every part, in order.
#[track_caller]
fn says(message: &str, parts: &[&str]) {
    let mut rest = message;
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => panic!("`{message}` does not say `{part}`, or not in this order"),
        }
    }
}

fn hyper() -> Hyperparameters {
    Hyperparameters {
        architecture: "toy".into(),
        layers: 1,
        embedding: 64,
        feed_forward: 96,
        heads: 4,
        kv_heads: 2,
        head_size: 16,
        vocabulary: 128,
        context: 32,
        rms_eps: 1e-5,
        rope_base: 1e4,
        window: Some(8),
        ..Hyperparameters::default()
    }
}

const HEAD: &str = r#"
family = "toy"
architectures = ["toy"]
[weights]
table = { gguf = "table", shape = ["V", "E"] }
norm = { gguf = "{layer}.norm", shape = ["E"] }
q = { gguf = "{layer}.q", shape = ["HD", "E"] }
odd = { gguf = "odd", shape = ["X", "E"] }
head = { gguf = "head", shape = ["V", "E"], tied = "table" }
lost = { gguf = "lost", shape = ["V", "E"], tied = "nowhere" }
maybe = { gguf = "maybe", shape = ["E"], optional = true }
[[prologue]]
op = "embed"
weight = "table"
out = "x"
[[epilogue]]
op = "gemm"
in = ["x"]
weight = "head"
out = "logits"
"#;

/// Builds the toy with one more node in its layer.
fn with_node(node: &str) -> Result<String, ModelError> {
    let source = format!("{HEAD}\n[[layer]]\n{node}\n");
    let definition = Definition::parse("toy.toml", &source)?;
    let lookup = |name: &str| {
        let shape: &[usize] = match name {
            "table" => &[128, 64],
            "0.norm" => &[64],
            "0.q" => &[64, 64],
            _ => return None,
        };
        Some((DType::F32, shape.to_vec()))
    };
    let extent = Extent {
        kv_type: KvType::F16,
        rows: 1,
        context: 32,
        logits: Logits::Last,
    };
    let arena = Bump::new();
    let graph = build(&arena, &definition, &hyper(), extent, "toy.gguf", &lookup)?;
    Ok(text(&graph))
}

#[test]
fn syntax_errors_have_a_place() {
    let check = |text: &str, parts: &[&str]| {
        let error = Definition::parse("toy.toml", text).expect_err(text);
        says(&error.to_string(), parts);
    };
    check(
        "family = \"toy\"\narch = 3\n",
        &["toy.toml:2:1: ", "unknown field `arch`"],
    );
    check("family = \"é\" é\n", &["toy.toml:1:14: "]);
    check(
        "\n\n  family = 3\n",
        &["toy.toml:3:12: ", "invalid type", "string"],
    );
    check(
        "family = \"toy\"\n",
        &["toy.toml:1:1: ", "missing field `architectures`"],
    );
    check("family = \"unclosed", &["toy.toml:1:"]);
    let with = |node: &str| format!("{HEAD}[[layer]]\n{node}\n");
    let line = HEAD.lines().count() + 2;
    let at = |column: usize| format!("toy.toml:{line}:{column}: ");
    check(&with("op = \"rope\"; style"), &[&at(12)]);
    check(
        &with("style = \"whole\""),
        &[&at(9), "unknown variant `whole`", "`half`"],
    );
    check(
        &with("activation = \"relu\""),
        &[&at(14), "unknown variant `relu`", "`silu`"],
    );
    check(
        &with("colour = 1"),
        &[&at(1), "unknown field `colour`", "`window`"],
    );
    let flat = HEAD.replace("[\"X\", \"E\"]", "[]");
    check(
        &flat,
        &["toy.toml:8:", "a shape needs at least one dimension"],
    );
    let twice = format!("{HEAD}[[layer]]\nop = \"add\"\nop = \"add\"\n");
    check(
        &twice,
        &[&format!("toy.toml:{}:1: ", line + 1), "duplicate key"],
    );
}

/// A Definition cut anywhere, or with any byte replaced, is refused or means something; it never
/// panics, and a place is always given.
#[test]
fn damaged_definitions() {
    let text = include_str!("../../graphs/llama.toml");
    for cut in (0..text.len())
        .step_by(7)
        .filter(|&i| text.is_char_boundary(i))
    {
        for damaged in [text[..cut].to_string(), format!("{}é", &text[..cut])] {
            if let Err(error) = Definition::parse("f", &damaged) {
                let DefinitionError::Syntax { line, column, .. } = error else {
                    panic!("{error}");
                };
                assert!(line >= 1 && column >= 1);
                assert!(
                    line <= damaged.lines().count() + 1,
                    "line {line} at cut {cut}"
                );
            }
        }
    }
}

#[test]
fn nodes_that_do_not_fit() {
    let check = |node: &str, parts: &[&str]| {
        let error = with_node(node).expect_err(node).to_string();
        // The op's own place: the line after `[[layer]]`, behind `op = `.
        says(
            &error,
            &[&format!("toy.toml:{}:", HEAD.lines().count() + 3)],
        );
        says(&error, parts);
    };
    check(
        "op = \"conv\"\nin = [\"x\"]\nout = \"x\"",
        &["op `conv`: unknown op `conv`; known: embed, ", "last_row"],
    );
    let norm = |rest: &str| format!("op = \"rms_norm\"\nin = [\"x\"]\nweight = \"norm\"\n{rest}");
    check(&norm(""), &["op `rms_norm`: needs `out`"]);
    check(
        &norm("out = \"x\"\nstyle = \"half\""),
        &["takes no `style`"],
    );
    check(&norm("out = \"x\"\nwindow = \"W\""), &["takes no `window`"]);
    check(
        &norm("out = \"x\"\nactivation = \"silu\""),
        &["takes no `activation`"],
    );
    check(
        &norm("out = \"x\"\nheads = \"K\""),
        &["needs `heads`, \"H\" or \"G\""],
    );
    let on_x = |op: &str| format!("op = \"{op}\"\nin = [\"x\"]\nout = \"y\"\n");
    let weighted = |op: &str, weight: &str| format!("{}weight = \"{weight}\"", on_x(op));
    check(
        &weighted("scale", "norm"),
        &["op `scale`: takes no `weight`"],
    );
    check(
        &(on_x("scale") + "heads = \"H\""),
        &["op `scale`: takes no `heads`"],
    );
    check(&on_x("gemm"), &["op `gemm`: needs `weight`"]);
    check(&weighted("gemm", "maybe"), &["op `gemm`: needs `weight`"]);
    check(
        &weighted("gemm", "nothing"),
        &["names no weight of the list: `nothing`"],
    );
    check(
        &weighted("gemm", "lost"),
        &["names no weight of the list: `nowhere`"],
    );
    check(
        &weighted("gemm", "odd"),
        &["op `gemm`: `X` is no dimension"],
    );
    check(&on_x("rope"), &["op `rope`: needs `style`"]);
    check(&on_x("gated_mul"), &["needs `activation`"]);
    check(
        &(on_x("attention") + "window = \"S\""),
        &["`window` can only be \"W\""],
    );
    check(
        "op = \"scale\"\nin = [\"z\"]\nout = \"y\"",
        &["reads `z`, which no earlier node writes"],
    );
    check(
        "op = \"kv_append\"\nin = [\"x\", \"x\"]\nout = \"y\"",
        &["op `kv_append`: takes no `out`"],
    );
    let sum = "op = \"add\"\nin = [\"x\"]\nout = \"y\"";
    check(sum, &["op `add`: needs 2 names in `in`, found 1"]);
    let last = "op = \"last_row\"\nout = \"y\"";
    check(last, &["op `last_row`: needs 1 names in `in`, found 0"]);
    let table = "op = \"rope_table\"\nin = [\"x\"]\nout = \"y\"";
    check(table, &["op `rope_table`: needs 0 names in `in`, found 1"]);
    check(&on_x("add_bias"), &["op `add_bias`: needs `weight`"]);
    check(
        &(on_x("scale") + "bias = \"maybe\""),
        &["op `scale`: takes no `bias`"],
    );
    check(
        &(on_x("scale") + "rope = \"local\""),
        &["op `scale`: takes no `rope`"],
    );
    check(
        &(weighted("gemm", "q") + "\nbias = \"nothing\""),
        &["names no weight of the list: `nothing`"],
    );
    check(
        &weighted("rms_norm", "maybe"),
        &["op `rms_norm`: needs `weight`, and a tensor for it"],
    );

    let outside = HEAD.replace(
        "op = \"gemm\"\nin = [\"x\"]",
        "op = \"attention\"\nin = [\"x\"]",
    );
    let outside = outside.replace("weight = \"head\"\n", "");
    let silent = HEAD.replace("out = \"logits\"", "out = \"y\"");
    let picked = HEAD.replace("op = \"gemm\"\n", "op = \"gemm\"\nlayers = \"full\"\n");
    for (source, part) in [
        (picked, "op `gemm`: `layers` picks layers"),
        (outside, "op `attention`: only a layer has a cache"),
        (silent, "no node writes `logits`"),
    ] {
        let source = format!("layer = []\n{source}");
        let definition = Definition::parse("toy.toml", &source).expect("it parses");
        let error = Model::random(hyper(), Some(definition), DType::F32, 1).err();
        says(&error.expect(part).to_string(), &["toy.toml:", ": ", part]);
    }
}

/// What the toy's Definition says when nothing is wrong: the tied head, a per-head norm, a window.
#[test]
fn nodes_that_fit() {
    let graph = with_node(
        "op = \"gemm\"\nin = [\"x\"]\nweight = \"q\"\nout = \"q\"\n[[layer]]\nop = \"attention\"\n\
         in = [\"q\"]\nwindow = \"W\"\nout = \"a\"",
    );
    let graph = graph.expect("a Definition that fits");
    says(
        &graph,
        &[
            "v0 x f32[1, 64] = embed(w0 table F32[128, 64])",
            "n1 layer 0: v1 q f32[1, 64] = gemm(v0, w1 0.q F32[64, 64])",
            "attention(v1, s0, s1) H=4 G=2 D=16 scale=0.25 window=8",
            "n3 epilogue: v3 logits f32[1, 128] = gemm(v0, w0 table F32[128, 64])",
            "result v3",
        ],
    );
}

/// A bias that the checkpoint has is added, one that it lacks is not; nodes of layers that this is not
/// are left out.
#[test]
fn biases_and_kinds_of_layers() {
    let product = "op = \"gemm\"\nin = [\"x\"]\nweight = \"q\"\nout = \"q\"\n";
    let biased = |name: &str| with_node(&format!("{product}bias = \"{name}\"")).expect("it fits");
    assert!(!biased("maybe").contains("add_bias"));
    says(
        &biased("norm"),
        &[
            "v1 q f32[1, 64] = gemm(v0, w1 0.q F32[64, 64])",
            "v2 q f32[1, 64] = add_bias(v1, w2 0.norm F32[64])",
        ],
    );
    // The toy's window is that of every layer.
    let kinds = |kind: &str| with_node(&format!("{product}layers = \"{kind}\"")).expect("it fits");
    assert!(kinds("windowed").contains("0.q") && kinds("rotated").contains("0.q"));
    assert!(!kinds("full").contains("0.q"));
}

#[test]
fn unknown_architectures() {
    let error = Definition::built_in("mamba", "m.gguf").expect_err("no such family");
    let parts = [
        "m.gguf: ",
        "`mamba` is not supported; supported: llama, mistral3, qwen2, qwen3, gemma3, smollm3",
        "--graph FILE",
    ];
    says(&error.to_string(), &parts);
}

#[test]
fn heads_that_are_no_blocks_of_the_cache() {
    let refused = |head_size: u32, kv_type: KvType| {
        let hyper = Hyperparameters {
            architecture: "llama".into(),
            head_size,
            ..hyper()
        };
        let model = Model::random(hyper, None, DType::F32, 1).expect("a valid shape");
        let extent = Extent {
            kv_type,
            rows: 1,
            context: 32,
            logits: Logits::Last,
        };
        let arena = Bump::new();
        model.graph(&arena, extent).err().map(|e| e.to_string())
    };
    assert_eq!(refused(80, KvType::F16), None);
    assert_eq!(refused(96, KvType::Q8_0), None);
    let error = refused(80, KvType::Q8_0).expect("80 is no multiple of 32");
    says(
        &error,
        &["80 elements", "q8_0", "multiples of 32", "--kv-type f16"],
    );
}

#[test]
fn random_weights_follow_the_definition() {
    let llama = || Hyperparameters {
        architecture: "llama".into(),
        ..hyper()
    };
    let model = Model::random(llama(), None, DType::Q8_0, 1).expect("a valid shape");
    let arena = Bump::new();
    let extent = Extent {
        kv_type: KvType::F16,
        rows: 4,
        context: 32,
        logits: Logits::All,
    };
    let graph = model.graph(&arena, extent).expect("a graph");
    let result = graph.value(graph.result().expect("logits"));
    assert_eq!((result.rows, result.cols), (4, 128), "every row's logits");
    assert!(graph.nodes().iter().all(|n| n.op != Op::LastRow));
    for weight in graph.weights() {
        let tensor = model.tensor(weight.name).expect("a weight of the graph");
        assert_eq!(
            (tensor.dtype, &tensor.shape[..]),
            (weight.dtype, weight.shape)
        );
        assert_eq!(tensor.data.len(), weight.bytes());
        let again = model.tensor(weight.name).expect("as before");
        assert!(
            *again.data == *tensor.data,
            "{} is the same twice",
            weight.name
        );
        let mut decoded = vec![0.0; tensor.element_count()];
        tensor.dtype.decode(&tensor.data, &mut decoded);
        assert!(decoded.iter().all(|x| x.is_finite() && x.abs() < 2.0));
    }
    assert!(
        model.tensor("blk.1.attn_q.weight").is_none(),
        "one layer only"
    );
    for (dtype, parts) in [
        (
            DType::Q4_K,
            [
                "type of blk.{layer}.attn_k.weight is Q4_K for rows of 64",
                "blocks of 256",
            ],
        ),
        (
            DType::IQ4_XS,
            [
                "type of blk.{layer}.attn_k.weight is IQ4_XS",
                "a type that runs",
            ],
        ),
    ] {
        let error = Model::random(llama(), None, dtype, 1).err();
        says(&error.expect("no such model").to_string(), &parts);
    }
}

mod hyperparameters;
