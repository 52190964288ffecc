//! Quantised activations, dead nodes, and all passes together.

use super::*;
use crate::graph::Element;

const OPTIONS: Options = Options {
    attention_split: 4,
    gates: Gates::Any,
    gated_quantizes: true,
    norm_cols: 0,
    attention_blocks: None,
    half_rows: None,
};

#[test]
fn quantize() {
    let pass: Pass = |graph| quantize::quantize_activations(graph, OPTIONS);
    // In the producer, where it can; the float GEMM's activation stays as it is.
    fires(
        pass,
        |toy| {
            let x = toy.embed("x", 8);
            let h = toy.norm("h", x, 1);
            let (a, b) = (toy.gemm("a", Q8_0, h, 8), toy.gemm("b", Q4_0, h, 8));
            let y = toy.add("y", a, b);
            toy.gemm("z", F16, y, 8)
        },
        "n0 layer 0: v0 x f32[1, 8] = embed(w0 x.table F32[16, 8])
         n1 layer 0: v1 h f32[1, 8] = rms_norm(v0, w1 h.w F32[8]) eps=1e-5
         n2 layer 0: v2 a f32[1, 8] = gemm(v1, w2 a.w Q8_0[8, 8])
         n3 layer 0: v3 b f32[1, 8] = gemm(v1, w3 b.w Q4_0[8, 8])
         n4 layer 0: v4 y f32[1, 8] = add(v2, v3)
         n5 layer 0: v5 z f32[1, 8] = gemm(v4, w4 z.w F16[8, 8])
         result v5",
        "n0 layer 0: v0 x f32[1, 8] = embed(w0 x.table F32[16, 8])
         n1 layer 0: v1 h q15a[1, 8] = rms_norm(v0, w1 h.w F32[8]) eps=1e-5
         n2 layer 0: v2 a f32[1, 8] = gemm(v1, w2 a.w Q8_0[8, 8])
         n3 layer 0: v3 b f32[1, 8] = gemm(v1, w3 b.w Q4_0[8, 8])
         n4 layer 0: v4 y f32[1, 8] = add(v2, v3)
         n5 layer 0: v5 z f32[1, 8] = gemm(v4, w4 z.w F16[8, 8])
         result v5",
        "quantize_activations: fired 1",
    );
    stays(
        pass,
        1,
        |toy| {
            let x = toy.embed("x", 8);
            let h = toy.norm("h", x, 1);
            toy.gemm("y", F16, h, 8)
        },
        "quantize_activations: fired 0",
    );
}

/// A value that is read as f32 too is rounded beside itself, once for all who want it rounded.
#[test]
fn quantize_beside() {
    let pass: Pass = |graph| quantize::quantize_activations(graph, OPTIONS);
    fires(
        pass,
        |toy| {
            let x = toy.embed("x", 8);
            let h = toy.norm("h", x, 1);
            let a = toy.gemm("a", Q8_0, h, 8);
            let y = toy.add("y", h, a);
            toy.gemm("z", Q8_0, y, 8)
        },
        "n0 layer 0: v0 x f32[1, 8] = embed(w0 x.table F32[16, 8])
         n1 layer 0: v1 h f32[1, 8] = rms_norm(v0, w1 h.w F32[8]) eps=1e-5
         n2 layer 0: v2 a f32[1, 8] = gemm(v1, w2 a.w Q8_0[8, 8])
         n3 layer 0: v3 y f32[1, 8] = add(v1, v2)
         n4 layer 0: v4 z f32[1, 8] = gemm(v3, w3 z.w Q8_0[8, 8])
         result v4",
        "n0 layer 0: v0 x f32[1, 8] = embed(w0 x.table F32[16, 8])
         n1 layer 0: v1 h f32[1, 8] = rms_norm(v0, w1 h.w F32[8]) eps=1e-5
         n2 layer 0: v5 h q15a[1, 8] = quantize(v1)
         n3 layer 0: v2 a f32[1, 8] = gemm(v5, w2 a.w Q8_0[8, 8])
         n4 layer 0: v3 y f32[1, 8] = add(v1, v2)
         n5 layer 0: v6 y q15a[1, 8] = quantize(v3)
         n6 layer 0: v4 z f32[1, 8] = gemm(v6, w3 z.w Q8_0[8, 8])
         result v4",
        "quantize_activations: fired 0; left 1: the value is read as f32 too; \
         left 1: add leaves it to a quantize node",
    );
    // A value that is the result stays f32, and so does the residual of a GEMM that rounds it.
    let (_, after, report) = run(pass, 1, |toy| {
        let x = toy.embed("x", 8);
        let h = toy.norm("h", x, 1);
        let w = toy.graph.add_weight("o", Q8_0, &[8, 8]);
        let op = Op::Gemm { residual: true };
        toy.alike("y", op, &[h, h], &[w]);
        h
    });
    assert!(after.contains("= gemm(v3, v1, w2"), "{after}");
    assert!(report.ends_with("left 1: the value is read as f32 too"));
    // Norms over groups cannot round on the way out.
    let (_, after, report) = run(pass, 1, |toy| {
        let x = toy.embed("x", 8);
        let h = toy.norm("h", x, 2);
        toy.gemm("y", Q8_0, h, 8)
    });
    assert!(after.contains("v3 h q15a[1, 8] = quantize(v1)"), "{after}");
    assert!(report.ends_with("left 1: rms_norm leaves it to a quantize node"));
}

#[test]
fn eliminate() {
    fires(
        eliminate::eliminate_dead,
        |toy| {
            let x = toy.embed("x", 8);
            let (k, v) = (toy.embed("k", 4), toy.embed("v", 4));
            let y = toy.alike("dead", Op::Scale { by: 2.0 }, &[x], &[]);
            toy.norm("dead", y, 1);
            let caches = toy.caches();
            toy.append(k, v, &caches);
            toy.norm("h", x, 1)
        },
        "n0 layer 0: v0 x f32[1, 8] = embed(w0 x.table F32[16, 8])
         n1 layer 0: v1 k f32[1, 4] = embed(w1 k.table F32[16, 4])
         n2 layer 0: v2 v f32[1, 4] = embed(w2 v.table F32[16, 4])
         n3 layer 0: v3 dead f32[1, 8] = scale(v0) by=2
         n4 layer 0: v4 dead f32[1, 8] = rms_norm(v3, w3 dead.w F32[8]) eps=1e-5
         n5 layer 0: kv_append(v1, v2, s0, s1) G=1 D=4
         n6 layer 0: v5 h f32[1, 8] = rms_norm(v0, w4 h.w F32[8]) eps=1e-5
         result v5",
        "n0 layer 0: v0 x f32[1, 8] = embed(w0 x.table F32[16, 8])
         n1 layer 0: v1 k f32[1, 4] = embed(w1 k.table F32[16, 4])
         n2 layer 0: v2 v f32[1, 4] = embed(w2 v.table F32[16, 4])
         n3 layer 0: kv_append(v1, v2, s0, s1) G=1 D=4
         n4 layer 0: v5 h f32[1, 8] = rms_norm(v0, w4 h.w F32[8]) eps=1e-5
         result v5",
        "eliminate_dead: fired 2",
    );
    stays(
        eliminate::eliminate_dead,
        1,
        |toy| {
            let x = toy.embed("x", 8);
            toy.norm("h", x, 1)
        },
        "eliminate_dead: fired 0",
    );
}

/// A norm, gate and up, down, and what they are added to.
fn feed_forward(toy: &mut Toy<'_>) -> ValueId {
    let x = toy.embed("x", 8);
    let h = toy.norm("h", x, 1);
    let (gate, up) = (toy.gemm("gate", Q8_0, h, 8), toy.gemm("up", Q8_0, h, 8));
    let f = toy.gated_mul("f", gate, up);
    let o = toy.gemm("down", Q8_0, f, 8);
    toy.add("y", x, o)
}

/// The order in `optimise`: pairs that feed a gate are not merged away from it.
#[test]
fn all_in_order() {
    let arena = Bump::new();
    let mut toy = Toy::new(&arena, 1);
    let y = feed_forward(&mut toy);
    let made = toy.finish(y);
    let (graph, reports) = optimise(made.clone(), OPTIONS).expect("a correct graph");
    let names: Vec<&str> = graph.nodes().iter().map(|n| n.op.name()).collect();
    assert_eq!(names, ["embed", "rms_norm", "gated_gemm", "gemm"]);
    let fired = |r: &Report| (r.pass, r.fired);
    assert_eq!(
        reports.iter().map(fired).collect::<Vec<_>>(),
        [
            ("fuse_gates", 1),
            ("merge_gemms", 0),
            ("fuse_residuals", 1),
            ("fuse_norms", 0),
            ("fuse_rope_append", 0),
            ("fuse_attention_steps", 0),
            ("split_attention", 0),
            ("quantize_activations", 2),
            ("eliminate_dead", 0),
        ]
    );
    assert_eq!(
        graph.node(NodeId::new(2)).op,
        Op::GatedGemm(Activation::Silu)
    );

    let options = Options {
        gated_quantizes: false,
        half_rows: None,
        ..OPTIONS
    };
    let (graph, reports) = optimise(made, options).expect("a correct graph");
    let names: Vec<&str> = graph.nodes().iter().map(|n| n.op.name()).collect();
    assert_eq!(
        names,
        ["embed", "rms_norm", "gated_gemm", "quantize", "gemm"]
    );
    let left = "quantize_activations: fired 1; left 1: gated_gemm leaves it to a quantize node";
    assert_eq!(reports[7].to_string(), left);
}

/// Rows that go to matrix cores: the gate is one with its products, and its row is rounded behind it.
#[test]
fn optimise_many_rows() {
    let arena = Bump::new();
    let mut toy = Toy::new(&arena, 4);
    let y = feed_forward(&mut toy);
    let options = Options {
        gates: Gates::OneType,
        half_rows: Some(4),
        ..OPTIONS
    };
    let (graph, _) = optimise(toy.finish(y), options).expect("a correct graph");
    let names: Vec<&str> = graph.nodes().iter().map(|n| n.op.name()).collect();
    assert_eq!(
        names,
        ["embed", "rms_norm", "gated_gemm", "quantize", "gemm"]
    );
    let input = |node: usize| graph.value(graph.node(NodeId::new(node)).inputs[0]).element;
    assert_eq!(
        [2, 3, 4].map(input),
        [Element::F16, Element::F32, Element::F16]
    );
}

/// A graph that is none is refused before any pass looks at it.
#[test]
fn optimise_verifies_first() {
    let arena = Bump::new();
    let graph = Graph::new(&arena);
    let error = optimise(graph, OPTIONS).err();
    assert_eq!(error, Some(VerifyError::NoResult));
}
