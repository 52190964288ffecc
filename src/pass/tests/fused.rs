//! Norms in the products that read them, and a step's attention in one node.

use super::*;
use crate::graph::{Heads, Rope, RopeStyle, StateId};

fn norms(graph: Graph<'_>) -> (Graph<'_>, Report) {
    norm::fuse_norms(graph, 8)
}

fn steps(graph: Graph<'_>) -> (Graph<'_>, Report) {
    attend::fuse_attention_steps(graph, Some(4))
}

#[test]
fn norm_fires() {
    // Every product that reads it normalises for itself, whatever its weights are.
    fires(
        norms,
        |toy| {
            let x = toy.embed("x", 8);
            let h = toy.norm("h", x, 1);
            let (a, b) = (toy.gemm("a", Q8_0, h, 8), toy.gemm("b", F16, h, 8));
            toy.add("y", a, b)
        },
        "n0 layer 0: v0 x f32[1, 8] = embed(w0 x.table F32[16, 8])
         n1 layer 0: v1 h f32[1, 8] = rms_norm(v0, w1 h.w F32[8]) eps=1e-5
         n2 layer 0: v2 a f32[1, 8] = gemm(v1, w2 a.w Q8_0[8, 8])
         n3 layer 0: v3 b f32[1, 8] = gemm(v1, w3 b.w F16[8, 8])
         n4 layer 0: v4 y f32[1, 8] = add(v2, v3)
         result v4",
        "n0 layer 0: v0 x f32[1, 8] = embed(w0 x.table F32[16, 8])
         n1 layer 0: v2 a f32[1, 8] = norm_gemm(v0, w2 a.w Q8_0[8, 8], w1 h.w F32[8]) eps=1e-5
         n2 layer 0: v3 b f32[1, 8] = norm_gemm(v0, w3 b.w F16[8, 8], w1 h.w F32[8]) eps=1e-5
         n3 layer 0: v4 y f32[1, 8] = add(v2, v3)
         result v4",
        "fuse_norms: fired 1",
    );
    let (_, after, report) = run(norms, 1, |toy| {
        let x = toy.embed("x", 8);
        let h = toy.norm("h", x, 1);
        let gated = Op::GatedGemm(Activation::Silu);
        let weights = ["gate", "up"].map(|name| toy.graph.add_weight(name, Q8_0, &[8, 8]));
        toy.alike("f", gated, &[h], &weights)
    });
    assert_eq!(report, "fuse_norms: fired 1");
    let gated = "norm_gated_gemm(v0, w2 gate Q8_0[8, 8], w3 up Q8_0[8, 8], w1 h.w F32[8])";
    assert!(after.contains(gated), "{after}");
}

#[test]
fn norm_stays() {
    let left = |rows, make, why: &str| {
        let report = format!("fuse_norms: fired 0; left 1: {why}");
        stays(norms, rows, make, &report);
    };
    let plain: Make = |toy| {
        let x = toy.embed("x", 8);
        let h = toy.norm("h", x, 1);
        toy.gemm("y", Q8_0, h, 8)
    };
    left(2, plain, "several rows");
    left(
        1,
        |toy| {
            let x = toy.embed("x", 8);
            let h = toy.norm("h", x, 2);
            toy.gemm("y", Q8_0, h, 8)
        },
        "each of several groups has a norm",
    );
    left(
        1,
        |toy| {
            let x = toy.embed("x", 12);
            let h = toy.norm("h", x, 1);
            toy.gemm("y", Q8_0, h, 12)
        },
        "the row is too long, or the target keeps norms apart",
    );
    left(
        1,
        |toy| {
            let x = toy.embed("x", 8);
            let h = toy.norm("h", x, 1);
            let y = toy.gemm("y", Q8_0, h, 8);
            toy.add("z", y, h)
        },
        "something else than a product reads it",
    );
}

/// q, k and v turned and appended; what attends to them.
fn turned(toy: &mut Toy<'_>) -> (ValueId, [StateId; 2]) {
    let (q, k, v) = (toy.embed("q", 8), toy.embed("k", 4), toy.embed("v", 4));
    let angles = toy.angles("angles");
    let caches = toy.caches();
    let k = toy.rope("kr", k, angles, 1);
    let q = toy.rope("qr", q, angles, 2);
    toy.append(k, v, &caches);
    (q, caches)
}

fn appended_and(graph: Graph<'_>) -> (Graph<'_>, Report) {
    steps(rope_append::fuse_rope_append(graph).0)
}

#[test]
fn attention_step() {
    let (_, after, report) = run(appended_and, 1, |toy| {
        let (q, caches) = turned(toy);
        toy.attention("a", q, Some(3), &caches)
    });
    assert_eq!(report, "fuse_attention_steps: fired 1");
    // Ten positions are one chunk, and so one block, whose partial results are 2 heads of 32.
    let node = "n4 layer 0: v6 a f32[1, 8], v7 partials f32[1, 64] = attention_step(v0, v1, v2, v3, s0, s1) \
                H=2 G=1 D=4 dims=4 half scale=0.5 window=3 blocks=1";
    assert!(after.contains(node), "{after}");
    assert!(!after.contains("rope_append"), "{after}");

    let left = |pass: Pass, rows, make: Make, why: &str| {
        let (_, _, report) = run(pass, rows, make);
        assert_eq!(
            report,
            format!("fuse_attention_steps: fired 0; left 1: {why}")
        );
    };
    let plain: Make = |toy| {
        let (q, caches) = turned(toy);
        toy.attention("a", q, None, &caches)
    };
    left(appended_and, 2, plain, "several rows");
    left(steps, 1, plain, "q is not turned with k as it is appended");
    let none: Pass =
        |graph| attend::fuse_attention_steps(rope_append::fuse_rope_append(graph).0, None);
    left(none, 1, plain, "the target keeps them apart");
    left(
        appended_and,
        1,
        |toy| {
            let (q, caches) = turned(toy);
            let a = toy.attention("a", q, None, &caches);
            toy.add("y", a, q)
        },
        "the turned q is read elsewhere too",
    );
}

/// Queries of a KV head are together on the chip, and what a block has there is bounded.
#[test]
fn attention_step_of_many_queries() {
    fn many(toy: &mut Toy<'_>, queries: u32) -> ValueId {
        let heads = Heads {
            query: queries,
            kv: 1,
            size: 128,
        };
        let widths = [("q", heads.query), ("k", 1), ("v", 1)];
        let [q, k, v] = widths.map(|(name, count)| toy.embed(name, count * heads.size));
        let rope = Rope {
            dims: heads.size,
            base: 1e4,
            position_scale: 1.0,
            yarn: crate::graph::Yarn::NONE,
        };
        let angles = toy.value("angles", 1, heads.size);
        toy.node(Op::RopeTable(rope), &[], &[], &[], &[angles]);
        let caches = toy.caches_of(heads, 10);
        let [turned, a] = ["qr", "a"].map(|name| toy.value(name, 1, heads.query * heads.size));
        let (dims, style) = (heads.size, RopeStyle::Half);
        let append = Op::RopeAppend { heads, dims, style };
        toy.node(append, &[q, k, v, angles], &[], &caches, &[turned]);
        let attention = Op::Attention {
            heads,
            scale: 0.5,
            window: None,
        };
        toy.node(attention, &[turned], &[], &caches, &[a]);
        a
    }
    // 61 queries of 128 floats and a key and a value are 31 KiB, with which a compute unit of AMD's is full.
    let (_, _, report) = run(steps, 1, |toy| many(toy, 61));
    assert_eq!(report, "fuse_attention_steps: fired 1");
    stays(
        steps,
        1,
        |toy| many(toy, 62),
        "fuse_attention_steps: fired 0; left 1: the queries of a KV head need more than the 31 KiB of a block's \
         on-chip memory",
    );
}
