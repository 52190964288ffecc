//! Every invariant of the verifier's prose, broken in a graph that is otherwise correct.

use super::toy::{HEADS, Toy};
use super::*;
use bumpalo::Bump;

/// A step of three rows as a Definition says it: every op that passes start from.
fn built<'a>(arena: &'a Bump) -> Graph<'a> {
    let float = DType::F32;
    let mut toy = Toy::new(arena, 3);
    let x = toy.embed("x", 8); // n0 v0
    let angles = toy.angles("angles"); // n1 v1
    let h = toy.norm("h", x, 1); // n2 v2
    let q = toy.gemm("q", float, h, 8); // n3 v3
    let bias = toy.vector("bias", 8);
    let q = toy.alike("qb", Op::AddBias, &[q], &[bias]); // n4 v4
    let k = toy.gemm("k", float, h, 4); // n5 v5
    let v = toy.gemm("v", float, h, 4); // n6 v6
    let q = toy.norm("qn", q, 2); // n7 v7
    let q = toy.rope("qr", q, angles, 2); // n8 v8
    let k = toy.rope("kr", k, angles, 1); // n9 v9
    let caches = toy.caches();
    toy.append(k, v, &caches); // n10
    let a = toy.attention("a", q, Some(4), &caches); // n11 v10
    let o = toy.gemm("o", float, a, 8); // n12 v11
    let x = toy.add("x", x, o); // n13 v12
    let gate = toy.gemm("gate", float, x, 12); // n14 v13
    let up = toy.gemm("up", float, x, 12); // n15 v14
    let f = toy.gated_mul("f", gate, up); // n16 v15
    let o = toy.gemm("down", float, f, 8); // n17 v16
    let o = toy.alike("s", Op::Scale { by: 2.0 }, &[o], &[]); // n18 v17
    let x = toy.add("x", x, o); // n19 v18
    let last = toy.value("last", 1, 8);
    toy.node(Op::LastRow, &[x], &[], &[], &[last]); // n20 v19
    let logits = toy.gemm("logits", float, last, 16); // n21 v20
    toy.finish(logits)
}

/// A step of one row as the passes leave it: every op that only they make.
fn fused<'a>(arena: &'a Bump) -> Graph<'a> {
    let q8 = DType::Q8_0;
    let mut toy = Toy::new(arena, 1);
    let matrix = |toy: &mut Toy<'a>, name: &str, n, k| toy.graph.add_weight(name, q8, &[n, k]);
    let x = toy.embed("x", 8); // n0 v0
    let angles = toy.angles("angles"); // n1 v1
    let h = toy.norm("h", x, 1); // n2 v2
    toy.graph.set_element(h, Element::Q15A);
    let weights = [("q", 8), ("k", 4), ("v", 4)].map(|(name, n)| matrix(&mut toy, name, n, 8));
    let qkv = [8, 4, 4].map(|cols| toy.value("qkv", 1, cols)); // v3 v4 v5
    let plain = Op::Gemm { residual: false };
    toy.node(plain, &[h], &weights, &[], &qkv); // n3
    let (heads, style) = (HEADS, RopeStyle::Half);
    let dims = heads.size;
    let turned = toy.value("qr", 1, 8); // v6
    let caches = toy.caches();
    let op = Op::RopeAppend { heads, dims, style };
    let [q, k, v] = qkv;
    toy.node(op, &[q, k, v, angles], &[], &caches, &[turned]); // n4
    let (scale, window, split) = (0.5, None, 4);
    let partials = toy.value("partials", 1, 3 * 2 * 32); // v7: three splits of two heads
    let op = Op::AttentionSplit {
        heads,
        scale,
        window,
        split,
    };
    toy.node(op, &[turned], &[], &caches, &[partials]); // n5
    let a = toy.quantised("a", 1, 8); // v8
    let op = Op::AttentionCombine {
        heads,
        window,
        split,
    };
    toy.node(op, &[partials], &[], &[], &[a]); // n6
    let residual = Op::Gemm { residual: true };
    let o = matrix(&mut toy, "o", 8, 8);
    let y = toy.value("x", 1, 8); // v9
    toy.node(residual, &[a, x], &[o], &[], &[y]); // n7
    let rounded = toy.quantised("x", 1, 8); // v10
    toy.node(Op::Quantize, &[y], &[], &[], &[rounded]); // n8
    let gate = [("gate", 12), ("up", 12)].map(|(name, n)| matrix(&mut toy, name, n, 8));
    let f = toy.quantised("f", 1, 12); // v11
    toy.node(
        Op::GatedGemm(Activation::Silu),
        &[rounded],
        &gate,
        &[],
        &[f],
    ); // n9
    let down = matrix(&mut toy, "down", 8, 12);
    let z = toy.value("x", 1, 8); // v12
    toy.node(residual, &[f, y], &[down], &[], &[z]); // n10
    let logits = toy.gemm("logits", DType::F16, z, 16); // n11 v13
    toy.finish(logits)
}

/// A step that ends by choosing the token after it, from n21's logits [1, 16].
fn sampled<'a>(arena: &'a Bump) -> Graph<'a> {
    let mut graph = built(arena);
    graph.push(Node {
        op: Op::Sample,
        section: Section::Epilogue,
        inputs: &[v(20)],
        weights: &[],
        states: &[],
        outputs: &[],
    }); // n22
    graph
}

fn v(index: usize) -> ValueId {
    ValueId::new(index)
}

impl<'a> Graph<'a> {
    fn inputs(&mut self, node: usize, inputs: &[usize]) {
        let ids: Vec<ValueId> = inputs.iter().map(|&i| v(i)).collect();
        self.nodes[node].inputs = self.arena.alloc_slice_copy(&ids);
    }

    fn outputs(&mut self, node: usize, outputs: &[usize]) {
        let ids: Vec<ValueId> = outputs.iter().map(|&i| v(i)).collect();
        self.nodes[node].outputs = self.arena.alloc_slice_copy(&ids);
    }

    fn takes(&mut self, node: usize, weights: &[usize]) {
        let ids: Vec<WeightId> = weights.iter().map(|&i| WeightId::new(i)).collect();
        self.nodes[node].weights = self.arena.alloc_slice_copy(&ids);
    }

    fn touches(&mut self, node: usize, states: &[usize]) {
        let ids: Vec<StateId> = states.iter().map(|&i| StateId::new(i)).collect();
        self.nodes[node].states = self.arena.alloc_slice_copy(&ids);
    }

    /// The weight called `name` gets another shape.
    fn reshape(&mut self, name: &str, shape: &[usize]) {
        let weight = self.weights.iter_mut().find(|w| w.name == name);
        weight.expect("the toy has it").shape = self.arena.alloc_slice_copy(shape);
    }

    fn retype(&mut self, name: &str, dtype: DType) {
        let weight = self.weights.iter_mut().find(|w| w.name == name);
        weight.expect("the toy has it").dtype = dtype;
    }
}

type Break = fn(&mut Graph<'_>);

/// Breaks a correct graph in each way and compares what the verifier says, all of it.
#[track_caller]
fn check(base: for<'a> fn(&'a Bump) -> Graph<'a>, cases: &[(Break, &str)]) {
    let mut wrong = Vec::new();
    for (change, expected) in cases {
        let arena = Bump::new();
        let mut graph = base(&arena);
        change(&mut graph);
        let found = match verify(graph) {
            Ok(_) => "passed".to_string(),
            Err(error) => error.to_string(),
        };
        if found != *expected {
            wrong.push(format!("expected {expected}\n   found {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// One way of breaking the graph a line, and what the verifier says to it.
macro_rules! broken {
    ($base:ident: $(|$g:ident| $change:expr => $expected:literal;)*) => {
        check($base, &[$((|$g| { $change; }, $expected)),*])
    };
}

#[test]
fn correct_graphs_pass() {
    let arena = Bump::new();
    for graph in [built(&arena), fused(&arena)] {
        let before = text(&graph);
        let verified = verify(graph).expect("a correct graph");
        assert_eq!(text(&verified), before, "the verifier changes nothing");
    }
}

/// Invariant 1: ids, single assignment, order. And 6: the result.
#[test]
fn order_and_ids() {
    broken! { built:
        |g| g.inputs(2, &[3]) => "n2 rms_norm: reads v3 before any node writes it";
        |g| g.inputs(2, &[2]) => "n2 rms_norm: reads v2 before any node writes it";
        |g| g.nodes.swap(2, 3) => "n2 gemm: reads v2 before any node writes it";
        |g| g.outputs(2, &[0]) => "n2 rms_norm: writes v0, which n0 already writes";
        |g| g.inputs(2, &[99]) =>
            "n2 rms_norm: ids: expected ids of this graph, found one out of range";
        |g| g.outputs(2, &[99]) =>
            "n2 rms_norm: ids: expected ids of this graph, found one out of range";
        |g| g.takes(2, &[99]) =>
            "n2 rms_norm: ids: expected ids of this graph, found one out of range";
        |g| g.touches(10, &[0, 99]) =>
            "n10 kv_append: ids: expected ids of this graph, found one out of range";
        |g| g.result = None => "the graph has no result";
        |g| g.result = Some(v(99)) => "the result v99 is not an f32 value that a node writes";
        |g| { g.nodes.pop(); } => "the result v20 is not an f32 value that a node writes";
    }
    broken! { fused:
        |g| g.result = Some(v(8)) => "the result v8 is not an f32 value that a node writes";
        |g| g.outputs(3, &[3, 4, 4]) => "n3 gemm: writes v4, which n3 already writes";
    }
}

/// Invariant 7: the choice of a token comes last, from one row.
#[test]
fn a_token_is_chosen_last_and_once() {
    let arena = Bump::new();
    verify(sampled(&arena)).expect("a correct graph");
    broken! { sampled:
        |g| { let again = *g.nodes.last().expect("a node"); g.nodes.push(again); } =>
            "n22 sample: place: expected the end of the graph, found a node after it";
        |g| g.inputs(22, &[18]) => "n22 sample: rows: expected 1, found 3";
        |g| g.inputs(22, &[20, 20]) => "n22 sample: inputs: expected 1, found 2";
        |g| g.outputs(22, &[20]) => "n22 sample: outputs: expected 0, found 1";
        |g| g.touches(22, &[0]) => "n22 sample: states: expected 0, found 1";
    }
}

/// Invariant 2: what ops take, in number and shape, before any pass.
#[test]
fn operands_of_a_built_step() {
    broken! { built:
        |g| g.inputs(0, &[0]) => "n0 embed: reads v0 before any node writes it";
        |g| g.takes(0, &[]) => "n0 embed: weights: expected 1, found 0";
        |g| g.reshape("x.table", &[8]) => "n0 embed: dimensions of the table: expected 2, found 1";
        |g| g.reshape("x.table", &[16, 9]) => "n0 embed: columns: expected 9, found 8";
        |g| g.values[0].element = Element::Q15A => "n0 embed: output: expected f32, found q15a";
        |g| g.takes(1, &[1, 1]) => "n1 rope_table: weights: expected 0 or 1, found 2";
        |g| g.takes(1, &[1]) => "n1 rope_table: h.w: expected [2], found [8]";
        |g| g.values[1].cols = 6 => "n1 rope_table: angles: expected 4, found 6";
        |g| g.inputs(2, &[0, 1]) => "n2 rms_norm: inputs: expected 1, found 2";
        |g| g.values[2].rows = 2 => "n2 rms_norm: rows: expected 3, found 2";
        |g| g.values[2].cols = 9 => "n2 rms_norm: columns: expected 8, found 9";
        |g| g.reshape("h.w", &[9]) => "n2 rms_norm: h.w: expected [8], found [9]";
        |g| { g.nodes[7].op = Op::RmsNorm { eps: 1e-5, groups: 3 } } =>
            "n7 rms_norm: groups: expected a divisor of 8, found 3";
        |g| { g.nodes[7].op = Op::RmsNorm { eps: 1e-5, groups: 0 } } =>
            "n7 rms_norm: groups: expected a divisor of 8, found 0";
        |g| { g.nodes[7].op = Op::RmsNorm { eps: 1e-5, groups: 4 } } =>
            "n7 rms_norm: qn.w: expected [2], found [4]";
        |g| g.outputs(3, &[]) => "n3 gemm: outputs: expected at least 1, found 0";
        |g| g.inputs(3, &[2, 2]) => "n3 gemm: inputs: expected 1, found 2";
        |g| g.takes(3, &[2, 2]) => "n3 gemm: weights: expected 1, found 2";
        |g| g.reshape("q.w", &[8, 9]) => "n3 gemm: q.w: expected [8, 8], found [8, 9]";
        |g| g.values[3].rows = 2 => "n3 gemm: rows: expected 3, found 2";
        |g| g.reshape("bias", &[4]) => "n4 add_bias: bias: expected [8], found [4]";
        |g| g.values[4].cols = 4 => "n4 add_bias: qb: expected 8, found 4";
        |g| g.inputs(8, &[7]) => "n8 rope: inputs: expected 2, found 1";
        |g| g.inputs(8, &[5, 1]) => "n8 rope: columns: expected 8, found 4";
        |g| g.inputs(8, &[7, 0]) => "n8 rope: columns of the table: expected 4, found 8";
        |g| g.values[1].rows = 2 => "n8 rope: rows of the table: expected 3, found 2";
        |g| g.touches(8, &[0, 1]) => "n8 rope: states: expected 0, found 2";
        |g| g.inputs(10, &[9]) => "n10 kv_append: inputs: expected 2, found 1";
        |g| g.inputs(10, &[9, 8]) => "n10 kv_append: columns: expected 4, found 8";
        |g| g.touches(10, &[0]) => "n10 kv_append: states: expected 2, found 1";
        |g| g.values[10].rows = 1 => "n11 attention: rows: expected 3, found 1";
        |g| g.values[10].cols = 4 => "n11 attention: columns of the output: expected 8, found 4";
        |g| g.inputs(13, &[0]) => "n13 add: inputs: expected 2, found 1";
        |g| g.inputs(13, &[0, 6]) => "n13 add: v: expected 8, found 4";
        |g| g.inputs(16, &[13, 12]) => "n16 gated_mul: x: expected 12, found 8";
        |g| g.values[17].rows = 1 => "n18 scale: rows: expected 1, found 3";
        |g| g.values[19].rows = 2 => "n20 last_row: rows: expected 1, found 2";
        |g| g.values[19].cols = 4 => "n20 last_row: columns: expected 8, found 4";
    }
}

/// Invariant 2 for the ops that passes make.
#[test]
fn operands_of_a_fused_step() {
    broken! { fused:
        |g| g.takes(3, &[2, 3]) => "n3 gemm: weights: expected 3, found 2";
        |g| g.values[4].cols = 5 => "n3 gemm: k: expected [5, 8], found [4, 8]";
        |g| g.inputs(4, &[3, 4, 5]) => "n4 rope_append: inputs: expected 4, found 3";
        |g| g.inputs(4, &[3, 3, 5, 1]) => "n4 rope_append: columns: expected 4, found 8";
        |g| g.inputs(4, &[3, 4, 5, 0]) =>
            "n4 rope_append: columns of the table: expected 4, found 8";
        |g| g.values[1].rows = 2 => "n4 rope_append: rows of the table: expected 1, found 2";
        |g| g.touches(4, &[]) => "n4 rope_append: states: expected 2, found 0";
        |g| g.values[6].rows = 2 => "n4 rope_append: rows: expected 1, found 2";
        |g| g.values[7].cols = 100 =>
            "n5 attention_split: partials: expected a multiple of 64, found 100";
        |g| g.values[7].cols = 128 =>
            "n5 attention_split: columns of the partials: expected 192, found 128";
        // 2^26 + 1 splits: 64 columns if they were counted in 32 bits.
        |g| { g.states.iter_mut().for_each(|s| s.positions = (1 << 28) + 4); g.values[7].cols = 64; } =>
            "n5 attention_split: columns of the partials: expected 4294967360, found 64";
        |g| g.values[7].rows = 2 => "n5 attention_split: rows of the partials: expected 1, found 2";
        |g| g.values[8].rows = 2 => "n6 attention_combine: rows: expected 1, found 2";
        |g| g.values[8].cols = 4 => "n6 attention_combine: columns: expected 8, found 4";
        |g| g.touches(6, &[0, 1]) => "n6 attention_combine: states: expected 0, found 2";
        |g| g.inputs(7, &[8]) => "n7 gemm: inputs: expected 2, found 1";
        |g| g.inputs(7, &[8, 7]) => "n7 gemm: columns of the residual: expected 8, found 192";
        |g| g.inputs(7, &[8, 8]) => "n7 gemm: residual: expected f32, found q15a";
        |g| g.values[10].element = Element::F32 => "n8 quantize: output: expected q15a or f16, found f32";
        |g| g.inputs(8, &[8]) => "n8 quantize: input: expected f32, found q15a";
        |g| g.takes(9, &[6]) => "n9 gated_gemm: weights: expected 2, found 1";
        |g| g.reshape("up", &[10, 8]) => "n9 gated_gemm: up: expected [12, 8], found [10, 8]";
    }
}

/// Invariant 3: who may read and write quantised values.
#[test]
fn elements() {
    broken! { built:
        |g| g.values[2].element = Element::Q15A =>
            "n3 gemm: q.w: expected f32 or f16 activations for a float weight, found q15a";
        |g| g.values[3].element = Element::Q15A => "n3 gemm: output: expected f32, found q15a";
        |g| g.values[7].element = Element::Q15A =>
            "n7 rms_norm: output of several groups: expected f32, found q15a";
        |g| g.values[10].element = Element::Q15A =>
            "n11 attention: output: expected f32, found q15a";
        |g| g.values[12].element = Element::Q15A => "n13 add: x: expected f32, found q15a";
    }
    broken! { fused:
        |g| g.retype("k", DType::F16) =>
            "n3 gemm: k: expected f32 or f16 activations for a float weight, found q15a";
        |g| { g.retype("k", DType::F16); g.set_element(v(2), Element::F32); } =>
            "n3 gemm: weights: expected quantised, found float";
        |g| { g.retype("up", DType::F16); g.inputs(9, &[9]); } =>
            "n9 gated_gemm: weights: expected quantised, found float";
        |g| g.values[7].element = Element::Q15A =>
            "n5 attention_split: partials: expected f32, found q15a";
        |g| g.values[9].element = Element::Q15A => "n7 gemm: output: expected f32, found q15a";
        |g| g.inputs(11, &[8]) =>
            "n11 gemm: logits.w: expected f32 or f16 activations for a float weight, found q15a";
    }
}

/// Invariant 4: heads and rotations. Invariant 5: caches.
#[test]
fn heads_and_caches() {
    fn heads(query: u32, kv: u32, size: u32) -> Op {
        Op::Attention {
            heads: Heads { query, kv, size },
            scale: 0.5,
            window: None,
        }
    }
    fn rope(dims: u32) -> Op {
        Op::Rope {
            heads: 2,
            head_size: 4,
            dims,
            style: RopeStyle::Half,
        }
    }
    broken! { built:
        |g| g.nodes[11].op = heads(3, 2, 4) =>
            "n11 attention: heads: expected H a multiple of G, found H=3 G=2 D=4";
        |g| g.nodes[11].op = heads(2, 0, 4) =>
            "n11 attention: heads: expected H a multiple of G, found H=2 G=0 D=4";
        |g| g.nodes[11].op = heads(2, 2, 4) =>
            "n11 attention: KV heads of the cache: expected 2, found 1";
        |g| g.nodes[11].op = heads(1, 1, 8) =>
            "n11 attention: head size of the cache: expected 8, found 4";
        |g| g.nodes[8].op = rope(3) => "n8 rope: rotated elements: expected even, 2 to 4, found 3";
        |g| g.nodes[8].op = rope(0) => "n8 rope: rotated elements: expected even, 2 to 4, found 0";
        |g| g.nodes[8].op = rope(6) => "n8 rope: rotated elements: expected even, 2 to 4, found 6";
        |g| g.nodes[8].op = rope(2) => "n8 rope: columns of the table: expected 2, found 4";
        |g| g.touches(10, &[1, 0]) => "n10 kv_append: cache: expected Keys, found Values";
        |g| g.states[0].kv_heads = 2 => "n10 kv_append: KV heads of the cache: expected 1, found 2";
        |g| g.states[1].head_size = 8 =>
            "n10 kv_append: head size of the cache: expected 4, found 8";
        |g| g.states[1].positions = 9 =>
            "n10 kv_append: positions of the value cache: expected 10, found 9";
        |g| g.states[1].layer = 1 => "n10 kv_append: layer of the value cache: expected 0, found 1";
        |g| g.states[1].kv_type = KvType::Q8_0 =>
            "n10 kv_append: type of the value cache: expected f16, found q8_0";
        |g| g.states.iter_mut().for_each(|s| s.kv_type = KvType::Q8_0) =>
            "n10 kv_append: head size of a q8_0 cache: expected a multiple of 32, found 4";
        |g| g.nodes.swap(10, 11) =>
            "n10 attention: cache s0: expected appended to before it is read, found a read before";
        |g| g.nodes.insert(11, g.nodes[10]) =>
            "n11 kv_append: cache s0: expected appended to once, found a second append";
    }
    broken! { fused:
        |g| g.nodes.swap(4, 5) => "n4 attention_split: reads v6 before any node writes it";
        |g| { g.inputs(5, &[3]); g.nodes.swap(4, 5); } =>
            "n4 attention_split: cache s0: expected appended to before it is read, found a read before";
        |g| { let (heads, window) = (HEADS, None); g.nodes[6].op = Op::AttentionCombine { heads, window, split: 0 }; } =>
            "n6 attention_combine: split: expected at least 1, found 0";
    }
}
