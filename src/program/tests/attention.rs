//! Costs of rotations, caches and attention.

use super::*;
use crate::graph::toy::HEADS;
use crate::graph::{Heads, KvType, RopeStyle, State, StateKind};

/// q, k and v of [`HEADS`] (two query heads over one of four elements), appended.
pub(super) fn append(toy: &mut Toy<'_>) -> (ValueId, [StateId; 2]) {
    let (q, k, v) = (toy.embed("q", 8), toy.embed("k", 4), toy.embed("v", 4));
    let caches = toy.caches();
    toy.append(k, v, &caches);
    (q, caches)
}

/// In Q8_0 a head of 32 is 34 bytes, and the kernels say that they take it.
#[test]
fn caches_of_eight_bits() {
    let arena = Bump::new();
    let mut toy = Toy::new(&arena, 3);
    let heads = Heads {
        query: 4,
        kv: 2,
        size: 32,
    };
    let [q, k, v] = [("q", 128), ("k", 64), ("v", 64)].map(|(name, cols)| toy.embed(name, cols));
    let caches = [StateKind::Keys, StateKind::Values].map(|kind| {
        toy.graph.add_state(State {
            kind,
            layer: 0,
            kv_heads: 2,
            positions: 10,
            head_size: 32,
            kv_type: KvType::Q8_0,
        })
    });
    let append = Op::KvAppend {
        kv_heads: 2,
        head_size: 32,
    };
    toy.node(append, &[k, v], &[], &caches, &[]);
    let a = toy.value("a", 3, 128);
    let attention = Op::Attention {
        heads,
        scale: 0.5,
        window: None,
    };
    toy.node(attention, &[q], &[], &caches, &[a]);
    let program = program(toy.finish(a), 10);
    let of = |kernel: &str| {
        let found = program.launches.iter().find(|l| l.kernel == kernel);
        found.unwrap_or_else(|| panic!("no {kernel}")).cost
    };
    assert_eq!(of("kv_append_q8_0").cache_write_bytes, 3 * 2 * 2 * 34);
    let read = of("attention_q8_0").cache_read_bytes_per_position;
    assert_eq!(read, 2 * 2 * 34);
    assert_eq!(program.state_bytes(), 2 * 10 * 2 * 34);
}

#[test]
fn attention() {
    check(
        3,
        |toy| append(toy).0,
        Expected {
            kernel: "kv_append",
            units: 3,
            cost: Cost {
                value_bytes: 2 * 3 * 64,
                cache_write_bytes: 3 * 2 * 4 * 2, // k and v, four halves a row
                ..FREE
            },
        },
    );
    // Each position is 4 halves of K and of V; 2·4 multiply-adds a query head for q·k and for p·v.
    let windowed: fn(&mut Toy<'_>) -> ValueId = |toy| {
        let (q, caches) = append(toy);
        toy.attention("a", q, Some(4), &caches)
    };
    let several = Cost {
        value_bytes: 2 * 3 * 64,
        cache_read_bytes_per_position: 2 * 4 * 2,
        flops_per_position: 3 * (2 * 2 * 4 + 2 * 2 * 4),
        window: 4,
        ..FREE
    };
    let kernel = "attention";
    // 48 queries a unit, two a row: 24 rows; three rows are one unit, 49 are three.
    let expected = |units, cost| Expected {
        kernel,
        units,
        cost,
    };
    check(3, windowed, expected(1, several));
    let rows = Cost {
        value_bytes: 2 * 49 * 64,
        flops_per_position: 49 * 32,
        ..several
    };
    check(49, windowed, expected(3, rows));
    // The window bounds what is seen, and nothing else is per position.
    assert_eq!(several.bytes_at(0), 384);
    assert_eq!(several.bytes_at(3), 384 + 3 * 16);
    assert_eq!(several.bytes_at(100), 384 + 4 * 16);
    assert_eq!(several.flops_at(2), 2 * 96);
    assert_eq!(several.flops_at(100), 4 * 96);
}

#[test]
fn attention_in_splits() {
    let split: fn(&mut Toy<'_>) -> ValueId = |toy| {
        let (q, caches) = append(toy);
        let (heads, scale, window, split) = (HEADS, 0.5, None, 4);
        let partials = toy.value("partials", 1, 3 * 2 * 32);
        let op = Op::AttentionSplit {
            heads,
            scale,
            window,
            split,
        };
        toy.node(op, &[q], &[], &caches, &[partials]);
        let a = toy.value("a", 1, 8);
        let op = Op::AttentionCombine {
            heads,
            window,
            split,
        };
        toy.node(op, &[partials], &[], &[], &[a]);
        a
    };
    check(
        1,
        split,
        Expected {
            kernel: "attention_split",
            units: 3, // ten positions in splits of four, one KV head
            cost: Cost {
                value_bytes: 64 + 2 * 32 * 4, // q, and a partial of each head
                cache_read_bytes_per_position: 16,
                flops_per_position: 32,
                ..FREE
            },
        },
    );
    check(
        1,
        split,
        Expected {
            kernel: "attention_combine",
            units: 1,
            cost: Cost {
                value_bytes: 2 * 32 * 4 + 64,
                flops: 2 * 8,
                ..FREE
            },
        },
    );
}

#[test]
fn turning() {
    check(
        3,
        |toy| {
            let (q, angles) = (toy.embed("q", 8), toy.angles("angles"));
            toy.rope("r", q, angles, 2)
        },
        Expected {
            kernel: "rope",
            units: 3,
            cost: Cost {
                value_bytes: 3 * 3 * 64,
                flops: 3 * 3 * 2 * 4,
                ..FREE
            },
        },
    );
    check(
        3,
        |toy| {
            let (q, k, v) = (toy.embed("q", 8), toy.embed("k", 4), toy.embed("v", 4));
            let (angles, caches) = (toy.angles("angles"), toy.caches());
            let (heads, dims, style) = (HEADS, 4, RopeStyle::Half);
            let op = Op::RopeAppend { heads, dims, style };
            let out = toy.value("qr", 3, 8);
            toy.node(op, &[q, k, v, angles], &[], &caches, &[out]);
            out
        },
        Expected {
            kernel: "rope_append",
            units: 3,
            cost: Cost {
                value_bytes: 5 * 3 * 64,
                cache_write_bytes: 3 * 2 * 4 * 2,
                flops: 3 * 3 * (2 + 1) * 4,
                ..FREE
            },
        },
    );
}
