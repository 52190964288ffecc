//! Each pass on a graph where it fires, as text before and after, and on graphs that it must leave
//! alone, with the reason its report gives. That passes preserve meaning is `tests/passes.rs`.

use super::*;
use crate::dtype::DType::{F16, F32, Q4_0, Q8_0};
use crate::graph::toy::Toy;
use crate::graph::{Activation, Graph, Op, ValueId, text};
use bumpalo::Bump;

type Pass = for<'a> fn(Graph<'a>) -> (Graph<'a>, Report);
/// Makes a graph in a toy and says what its result is.
type Make = fn(&mut Toy<'_>) -> ValueId;

/// Runs one pass over a verified graph and verifies what comes out.
fn run(pass: Pass, rows: u32, make: Make) -> (String, String, String) {
    let arena = Bump::new();
    let mut toy = Toy::new(&arena, rows);
    let result = make(&mut toy);
    let graph = verify(toy.finish(result)).expect("the graph before the pass");
    let before = text(&graph);
    let (after, report) = pass(graph.into_inner());
    let after = verify(after).expect("the graph after the pass");
    (before, text(&after), report.to_string())
}

/// Lines without the indentation they have in a test.
fn lines(text: &str) -> String {
    let lines = text.trim().lines().map(|line| line.trim());
    lines.map(|line| line.to_string() + "\n").collect()
}

#[track_caller]
fn fires(pass: Pass, make: Make, before: &str, after: &str, report: &str) {
    let found = run(pass, 1, make);
    assert_eq!(found.0, lines(before), "before");
    assert_eq!(found.1, lines(after), "after");
    assert_eq!(found.2, report);
}

#[track_caller]
fn stays(pass: Pass, rows: u32, make: Make, report: &str) {
    let (before, after, found) = run(pass, rows, make);
    assert_eq!(found, report);
    assert_eq!(after, before, "a pass that fires nowhere changes nothing");
}

fn any_gate(graph: Graph<'_>) -> (Graph<'_>, Report) {
    gate::fuse_gates(graph, Gates::Any, None)
}

/// Products of four rows or more take 16-bit floats.
fn gate_of_one_type(graph: Graph<'_>) -> (Graph<'_>, Report) {
    gate::fuse_gates(graph, Gates::OneType, Some(4))
}

#[test]
fn gates_that_a_gpu_leaves() {
    let gated = |toy: &mut Toy<'_>| {
        let x = toy.embed("x", 8);
        let (gate, up) = (toy.gemm("gate", Q8_0, x, 8), toy.gemm("up", Q8_0, x, 8));
        toy.gated_mul("f", gate, up)
    };
    let (_, after, report) = run(gate_of_one_type, 1, gated);
    assert_eq!(report, "fuse_gates: fired 1");
    assert!(after.contains("gated_gemm"), "{after}");
    let (_, after, report) = run(gate_of_one_type, 4, gated);
    assert_eq!(report, "fuse_gates: fired 1");
    assert!(after.contains("gated_gemm"), "{after}");
    let report = "fuse_gates: fired 0; left 1: several rows";
    stays(gate_of_one_type, 2, gated, report);
    // Floats of 32 bits are not rounded to 16.
    let wide = |toy: &mut Toy<'_>| {
        let x = toy.embed("x", 8);
        let (gate, up) = (toy.gemm("gate", F32, x, 8), toy.gemm("up", F32, x, 8));
        toy.gated_mul("f", gate, up)
    };
    stays(gate_of_one_type, 4, wide, report);
    stays(
        gate_of_one_type,
        1,
        |toy| {
            let x = toy.embed("x", 8);
            let (gate, up) = (toy.gemm("gate", Q8_0, x, 8), toy.gemm("up", Q4_0, x, 8));
            toy.gated_mul("f", gate, up)
        },
        "fuse_gates: fired 0; left 1: gate and up have different types",
    );
}

#[test]
fn gate() {
    fires(
        any_gate,
        |toy| {
            let x = toy.embed("x", 8);
            let up = toy.gemm("up", Q8_0, x, 12);
            let gate = toy.gemm("gate", Q4_0, x, 12);
            toy.gated_mul("f", gate, up)
        },
        "n0 layer 0: v0 x f32[1, 8] = embed(w0 x.table F32[16, 8])
         n1 layer 0: v1 up f32[1, 12] = gemm(v0, w1 up.w Q8_0[12, 8])
         n2 layer 0: v2 gate f32[1, 12] = gemm(v0, w2 gate.w Q4_0[12, 8])
         n3 layer 0: v3 f f32[1, 12] = gated_mul(v2, v1) silu
         result v3",
        "n0 layer 0: v0 x f32[1, 8] = embed(w0 x.table F32[16, 8])
         n1 layer 0: v3 f f32[1, 12] = gated_gemm(v0, w2 gate.w Q4_0[12, 8], w1 up.w Q8_0[12, 8]) silu
         result v3",
        "fuse_gates: fired 1",
    );
    let left = |make, why: &str| {
        let report = format!("fuse_gates: fired 0; left 1: {why}");
        stays(any_gate, 1, make, &report);
    };
    left(
        |toy| {
            let x = toy.embed("x", 8);
            let gate = toy.gemm("gate", F32, x, 8);
            toy.gated_mul("f", gate, x)
        },
        "gate or up is not a GEMM",
    );
    left(
        |toy| {
            let (x, y) = (toy.embed("x", 8), toy.embed("y", 8));
            let (gate, up) = (toy.gemm("gate", F32, x, 8), toy.gemm("up", F32, y, 8));
            toy.gated_mul("f", gate, up)
        },
        "gate and up read different values",
    );
    left(
        |toy| {
            let x = toy.embed("x", 8);
            let (gate, up) = (toy.gemm("gate", F32, x, 8), toy.gemm("up", F32, x, 8));
            let f = toy.gated_mul("f", gate, up);
            toy.add("y", f, up)
        },
        "gate or up is read elsewhere too",
    );
    left(
        |toy| {
            let x = toy.embed("x", 8);
            let gate = toy.gemm("gate", F32, x, 8);
            toy.gated_mul("f", gate, gate)
        },
        "gate or up is read elsewhere too",
    );
    left(
        |toy| {
            let x = toy.embed("x", 8);
            let (gate, up) = (toy.gemm("gate", F16, x, 8), toy.gemm("up", Q8_0, x, 8));
            toy.gated_mul("f", gate, up)
        },
        "one of gate and up is quantised, the other is not",
    );
}

#[test]
fn merge() {
    fires(
        merge::merge_gemms,
        |toy| {
            let x = toy.embed("x", 8);
            let q = toy.gemm("q", Q8_0, x, 8);
            let k = toy.gemm("k", F32, x, 8);
            let v = toy.gemm("v", Q4_0, x, 8);
            let y = toy.add("y", k, v);
            toy.add("z", y, q)
        },
        "n0 layer 0: v0 x f32[1, 8] = embed(w0 x.table F32[16, 8])
         n1 layer 0: v1 q f32[1, 8] = gemm(v0, w1 q.w Q8_0[8, 8])
         n2 layer 0: v2 k f32[1, 8] = gemm(v0, w2 k.w F32[8, 8])
         n3 layer 0: v3 v f32[1, 8] = gemm(v0, w3 v.w Q4_0[8, 8])
         n4 layer 0: v4 y f32[1, 8] = add(v2, v3)
         n5 layer 0: v5 z f32[1, 8] = add(v4, v1)
         result v5",
        "n0 layer 0: v0 x f32[1, 8] = embed(w0 x.table F32[16, 8])
         n1 layer 0: v1 q f32[1, 8], v3 v f32[1, 8] = gemm(v0, w1 q.w Q8_0[8, 8], w3 v.w Q4_0[8, 8])
         n2 layer 0: v2 k f32[1, 8] = gemm(v0, w2 k.w F32[8, 8])
         n3 layer 0: v4 y f32[1, 8] = add(v2, v3)
         n4 layer 0: v5 z f32[1, 8] = add(v4, v1)
         result v5",
        "merge_gemms: fired 1; left 1: one is quantised, the other is not",
    );
    stays(
        merge::merge_gemms,
        1,
        |toy| {
            let x = toy.embed("x", 8);
            let q = toy.gemm("q", F16, x, 8);
            let k = toy.gemm("k", Q8_0, x, 8);
            toy.add("y", q, k)
        },
        "merge_gemms: fired 0; left 1: one is quantised, the other is not",
    );
    // GEMMs of different values are nothing that looks right.
    stays(
        merge::merge_gemms,
        1,
        |toy| {
            let (x, y) = (toy.embed("x", 8), toy.embed("y", 8));
            let (q, k) = (toy.gemm("q", F32, x, 8), toy.gemm("k", F32, y, 8));
            toy.add("z", q, k)
        },
        "merge_gemms: fired 0",
    );
}

#[test]
fn residual() {
    let after = "n0 layer 0: v0 x f32[1, 8] = embed(w0 x.table F32[16, 8])
         n1 layer 0: v2 y f32[1, 8] = gemm(v0, v0, w1 o.w F32[8, 8]) residual
         result v2";
    let before = |sum: &str| {
        format!(
            "n0 layer 0: v0 x f32[1, 8] = embed(w0 x.table F32[16, 8])
             n1 layer 0: v1 o f32[1, 8] = gemm(v0, w1 o.w F32[8, 8])
             n2 layer 0: v2 y f32[1, 8] = add({sum})
             result v2"
        )
    };
    let orders: [(Make, &str); 2] = [
        (
            |toy| {
                let x = toy.embed("x", 8);
                let o = toy.gemm("o", F32, x, 8);
                toy.add("y", x, o)
            },
            "v0, v1",
        ),
        (
            |toy| {
                let x = toy.embed("x", 8);
                let o = toy.gemm("o", F32, x, 8);
                toy.add("y", o, x)
            },
            "v1, v0",
        ),
    ];
    let pass = residual::fuse_residuals;
    for (make, sum) in orders {
        fires(pass, make, &before(sum), after, "fuse_residuals: fired 1");
    }
    // Of two products, the one that is read only here.
    fires(
        pass,
        |toy| {
            let x = toy.embed("x", 8);
            let (a, b) = (toy.gemm("a", F32, x, 8), toy.gemm("b", F32, x, 8));
            let y = toy.add("y", a, b);
            toy.gated_mul("z", y, b)
        },
        "n0 layer 0: v0 x f32[1, 8] = embed(w0 x.table F32[16, 8])
         n1 layer 0: v1 a f32[1, 8] = gemm(v0, w1 a.w F32[8, 8])
         n2 layer 0: v2 b f32[1, 8] = gemm(v0, w2 b.w F32[8, 8])
         n3 layer 0: v3 y f32[1, 8] = add(v1, v2)
         n4 layer 0: v4 z f32[1, 8] = gated_mul(v3, v2) silu
         result v4",
        "n0 layer 0: v0 x f32[1, 8] = embed(w0 x.table F32[16, 8])
         n1 layer 0: v2 b f32[1, 8] = gemm(v0, w2 b.w F32[8, 8])
         n2 layer 0: v3 y f32[1, 8] = gemm(v0, v2, w1 a.w F32[8, 8]) residual
         n3 layer 0: v4 z f32[1, 8] = gated_mul(v3, v2) silu
         result v4",
        "fuse_residuals: fired 1",
    );
    let left = |make, why: &str| {
        let report = format!("fuse_residuals: fired 0; left 1: {why}");
        stays(pass, 1, make, &report);
    };
    left(
        |toy| {
            let x = toy.embed("x", 8);
            let o = toy.gemm("o", F32, x, 8);
            let y = toy.add("y", x, o);
            toy.gated_mul("z", y, o)
        },
        "the product is read elsewhere too",
    );
    left(
        |toy| {
            let x = toy.embed("x", 8);
            let o = toy.gemm("o", F32, x, 8);
            toy.add("y", x, o);
            o
        },
        "the product is read elsewhere too",
    );
    left(
        |toy| {
            let x = toy.embed("x", 8);
            let o = toy.gemm("o", F32, x, 8);
            toy.add("y", o, o)
        },
        "neither side is a GEMM of its own",
    );
    left(
        |toy| {
            let (x, y) = (toy.embed("x", 8), toy.embed("y", 8));
            toy.add("z", x, y)
        },
        "neither side is a GEMM of its own",
    );
}

mod attention;
mod fused;
mod numbers;
