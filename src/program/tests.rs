//! Costs, units and kernel names of known shapes, worked out by hand.

use super::*;
use crate::graph::toy::Toy;
use crate::graph::{Activation, Graph, ValueId, verify};
use crate::plan::plan;
use bumpalo::Bump;

/// What a launch must say about itself.
struct Expected {
    kernel: &'static str,
    units: u32,
    cost: Cost,
}

const FREE: Cost = Cost {
    weight_bytes: 0,
    value_bytes: 0,
    cache_write_bytes: 0,
    cache_read_bytes_per_position: 0,
    flops: 0,
    flops_per_position: 0,
    window: 0,
};

fn program(graph: Graph<'_>, context: u32) -> Program {
    let graph = verify(graph).expect("a correct graph");
    let plan = plan(&graph).expect("a plan that holds");
    lower(&graph, &plan, Target::Cpu, context)
}

/// Lowers what `make` builds and compares its last launch.
#[track_caller]
fn check(rows: u32, make: fn(&mut Toy<'_>) -> ValueId, expected: Expected) {
    let arena = Bump::new();
    let mut toy = Toy::new(&arena, rows);
    let result = make(&mut toy);
    // A result must be f32; launches that round are followed by their reader, a GEMM.
    let program = program(toy.finish(result), 10);
    let launch = &program
        .launches
        .iter()
        .find(|l| l.kernel == expected.kernel);
    let names: Vec<&str> = program.launches.iter().map(|l| l.kernel.as_str()).collect();
    let launch = launch.unwrap_or_else(|| panic!("{} in {names:?}", expected.kernel));
    assert_eq!(launch.cost, expected.cost, "{}", expected.kernel);
    assert_eq!(launch.units, expected.units, "{}", expected.kernel);
}

#[test]
fn tables_norms_and_sums() {
    // Three rows of 40 f32 take 192 bytes each, since rows start on cache lines.
    let row = 192;
    check(
        3,
        |toy| toy.embed("x", 40),
        Expected {
            kernel: "embed_f32",
            units: 3,
            cost: Cost {
                weight_bytes: 3 * 160, // three rows of the table, not all sixteen
                value_bytes: 3 * row,
                ..FREE
            },
        },
    );
    check(
        3,
        |toy| toy.angles("angles"),
        Expected {
            kernel: "rope_table",
            units: 3,
            cost: Cost {
                value_bytes: 3 * 64,
                flops: 3 * 4 * 8,
                ..FREE
            },
        },
    );
    check(
        3,
        |toy| {
            let x = toy.embed("x", 40);
            toy.norm("h", x, 2)
        },
        Expected {
            kernel: "rms_norm",
            units: 3,
            cost: Cost {
                weight_bytes: 20 * 4,
                value_bytes: 2 * 3 * row,
                flops: 3 * 40 * 4,
                ..FREE
            },
        },
    );
    check(
        3,
        |toy| {
            let x = toy.embed("x", 40);
            toy.add("y", x, x)
        },
        Expected {
            kernel: "add",
            units: 3,
            cost: Cost {
                value_bytes: 3 * 3 * row,
                flops: 3 * 40,
                ..FREE
            },
        },
    );
    check(
        3,
        |toy| {
            let x = toy.embed("x", 40);
            let last = toy.value("last", 1, 40);
            toy.node(Op::LastRow, &[x], &[], &[], &[last]);
            last
        },
        Expected {
            kernel: "last_row",
            units: 1,
            cost: Cost {
                value_bytes: 2 * row, // one row of the three
                ..FREE
            },
        },
    );
}

#[test]
fn a_choice_reads_a_row_and_is_kept() {
    check(
        1,
        |toy| {
            let x = toy.embed("x", 40);
            toy.node(Op::Sample, &[x], &[], &[], &[]);
            x
        },
        Expected {
            kernel: "sample",
            units: 1,
            cost: Cost {
                value_bytes: 192,
                flops: 40,
                ..FREE
            },
        },
    );
    let arena = Bump::new();
    let mut toy = Toy::new(&arena, 1);
    let x = toy.embed("x", 40);
    toy.node(Op::Sample, &[x], &[], &[], &[]);
    let options = crate::pass::Options {
        attention_split: 64,
        gates: crate::pass::Gates::Any,
        gated_quantizes: true,
        norm_cols: 0,
        attention_blocks: None,
        half_rows: None,
    };
    let (graph, _) = crate::pass::optimise(toy.finish(x), options).expect("a correct graph");
    let ops: Vec<&str> = graph.nodes().iter().map(|n| n.op.name()).collect();
    assert_eq!(ops, ["embed", "sample"], "no pass takes an effect away");
}

#[test]
fn products() {
    // Three rows of 64 × 96 in blocks of 34 bytes for 32; a unit computes 32 columns.
    check(
        3,
        |toy| {
            let x = toy.embed("x", 64);
            let q = toy.quantised("xq", 3, 64);
            toy.node(Op::Quantize, &[x], &[], &[], &[q]);
            toy.gemm("y", DType::Q8_0, q, 96)
        },
        Expected {
            kernel: "gemm_q8_0",
            units: 3,
            cost: Cost {
                weight_bytes: 96 * 2 * 34,
                value_bytes: 3 * 192 + 3 * 384, // 160 bytes round up to 192; 96 · 4 = 384
                flops: 2 * 3 * 64 * 96,
                ..FREE
            },
        },
    );
    // Outputs of 100 and 33 columns in one launch: 4 + 2 units; the types are named once each.
    let merged: fn(&mut Toy<'_>) -> ValueId = |toy| {
        let x = toy.embed("x", 64);
        let names = [("a", DType::F16, 100), ("b", DType::F16, 33)];
        let weights = names.map(|(name, t, n)| toy.graph.add_weight(name, t, &[n, 64]));
        let [a, b] = [100, 33].map(|n| toy.value("y", 1, n));
        let op = Op::Gemm { residual: false };
        toy.node(op, &[x], &weights, &[], &[a, b]);
        b
    };
    check(
        1,
        merged,
        Expected {
            kernel: "gemm_f16",
            units: 4 + 2,
            cost: Cost {
                weight_bytes: 133 * 64 * 2,
                value_bytes: 256 + 448 + 192,
                flops: 2 * 133 * 64,
                ..FREE
            },
        },
    );
    // The residual is read, and added once an element; the other type is in the name.
    check(
        2,
        |toy| {
            let x = toy.embed("x", 64);
            let w = toy.graph.add_weight("w", DType::BF16, &[64, 64]);
            toy.alike("y", Op::Gemm { residual: true }, &[x, x], &[w])
        },
        Expected {
            kernel: "gemm_bf16",
            units: 2,
            cost: Cost {
                weight_bytes: 64 * 64 * 2,
                value_bytes: 3 * 2 * 256,
                flops: 2 * 2 * 64 * 64 + 2 * 64,
                ..FREE
            },
        },
    );
    check(
        1,
        |toy| {
            let x = toy.quantised("x", 1, 256);
            let e = toy.embed("e", 256);
            toy.node(Op::Quantize, &[e], &[], &[], &[x]);
            let gate = [("g", DType::Q4_K), ("u", DType::Q6_K)];
            let gate = gate.map(|(name, t)| toy.graph.add_weight(name, t, &[64, 256]));
            let f = toy.quantised("f", 1, 64);
            toy.node(Op::GatedGemm(Activation::Silu), &[x], &gate, &[], &[f]);
            toy.gemm("y", DType::Q8_0, f, 8)
        },
        Expected {
            kernel: "gated_gemm_q4_k_q6_k_quantize",
            units: 2,
            cost: Cost {
                weight_bytes: 64 * (144 + 210),
                value_bytes: 640 + 192, // eight blocks of 80, two of 80
                flops: 2 * 2 * 64 * 256 + 6 * 64,
                ..FREE
            },
        },
    );
}

/// Two layers of attention, one within a window: a step is summed launch by launch.
#[test]
fn a_step_of_unlike_layers() {
    let arena = Bump::new();
    let mut toy = Toy::new(&arena, 1);
    let (q, caches) = attention::append(&mut toy);
    let a = toy.attention("a", q, Some(4), &caches);
    let b = toy.attention("b", a, None, &caches);
    let program = program(toy.finish(b), 10);
    let fixed = program.bytes_at(0);
    assert_eq!(program.bytes_at(3), fixed + 2 * 3 * 16);
    assert_eq!(program.bytes_at(9), fixed + (4 + 9) * 16);
    assert_eq!(program.flops_at(9), (4 + 9) * 32);
    assert_eq!(program.state_bytes(), 2 * 10 * 4 * 2);
    assert_eq!((program.rows, program.context), (1, 10));
    assert_eq!(program.result.value, b);
    assert_eq!(program.cost().bytes_at(0), fixed);
    // A sum keeps a window that all its attention shares, and drops one that only some has.
    let windows: Vec<u64> = program.launches.iter().map(|l| l.cost.window).collect();
    let attending = windows.len() - 2;
    let up_to_first: Cost = program.launches[..=attending].iter().map(|l| l.cost).sum();
    assert_eq!((up_to_first.window, program.cost().window), (4, 0));
}

mod attention;
