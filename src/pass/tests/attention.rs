//! The passes over rotations, caches and attention.

use super::*;
use crate::graph::{Heads, Rope, RopeStyle, StateId};

/// q, k and v, a table, and the caches.
fn heads(toy: &mut Toy<'_>) -> ([ValueId; 4], [StateId; 2]) {
    let (q, k, v) = (toy.embed("q", 8), toy.embed("k", 4), toy.embed("v", 4));
    let angles = toy.angles("angles");
    ([q, k, v, angles], toy.caches())
}

#[test]
fn rope_append_fires() {
    fires(
        rope_append::fuse_rope_append,
        |toy| {
            let ([q, k, v, angles], caches) = heads(toy);
            let k = toy.rope("kr", k, angles, 1);
            let q = toy.rope("qr", q, angles, 2);
            toy.append(k, v, &caches);
            toy.attention("a", q, None, &caches)
        },
        "n0 layer 0: v0 q f32[1, 8] = embed(w0 q.table F32[16, 8])
         n1 layer 0: v1 k f32[1, 4] = embed(w1 k.table F32[16, 4])
         n2 layer 0: v2 v f32[1, 4] = embed(w2 v.table F32[16, 4])
         n3 layer 0: v3 angles f32[1, 4] = rope_table() dims=4 base=10000
         n4 layer 0: v4 kr f32[1, 4] = rope(v1, v3) heads=1 D=4 dims=4 half
         n5 layer 0: v5 qr f32[1, 8] = rope(v0, v3) heads=2 D=4 dims=4 half
         n6 layer 0: kv_append(v4, v2, s0, s1) G=1 D=4
         n7 layer 0: v6 a f32[1, 8] = attention(v5, s0, s1) H=2 G=1 D=4 scale=0.5
         result v6",
        "n0 layer 0: v0 q f32[1, 8] = embed(w0 q.table F32[16, 8])
         n1 layer 0: v1 k f32[1, 4] = embed(w1 k.table F32[16, 4])
         n2 layer 0: v2 v f32[1, 4] = embed(w2 v.table F32[16, 4])
         n3 layer 0: v3 angles f32[1, 4] = rope_table() dims=4 base=10000
         n4 layer 0: v5 qr f32[1, 8] = rope_append(v0, v1, v2, v3, s0, s1) H=2 G=1 D=4 dims=4 half
         n5 layer 0: v6 a f32[1, 8] = attention(v5, s0, s1) H=2 G=1 D=4 scale=0.5
         result v6",
        "fuse_rope_append: fired 1",
    );
}

#[test]
fn rope_append_stays() {
    let left = |make, why: &str| {
        let report = format!("fuse_rope_append: fired 0; left 1: {why}");
        stays(rope_append::fuse_rope_append, 1, make, &report);
    };
    left(
        |toy| {
            let ([q, k, v, angles], caches) = heads(toy);
            let q = toy.rope("qr", q, angles, 2);
            toy.append(k, v, &caches);
            toy.attention("a", q, None, &caches)
        },
        "k is not turned",
    );
    left(
        |toy| {
            let ([q, k, v, angles], caches) = heads(toy);
            let q = toy.rope("qr", q, angles, 2);
            let k = toy.rope("kr", k, angles, 1);
            toy.append(k, v, &caches);
            toy.attention("a", q, None, &caches);
            toy.gemm("y", F32, k, 8)
        },
        "the turned k is read elsewhere too",
    );
    let alone = "no query is turned beside it by the same table";
    left(
        |toy| {
            let ([q, k, v, angles], caches) = heads(toy);
            let other = toy.angles("other");
            let q = toy.rope("qr", q, other, 2);
            let k = toy.rope("kr", k, angles, 1);
            toy.append(k, v, &caches);
            toy.attention("a", q, None, &caches)
        },
        alone,
    );
    // The query is turned another way.
    left(
        |toy| {
            let ([q, k, v, angles], caches) = heads(toy);
            let op = Op::Rope {
                heads: 2,
                head_size: 4,
                dims: 4,
                style: RopeStyle::Interleaved,
            };
            let q = toy.alike("qr", op, &[q, angles], &[]);
            let k = toy.rope("kr", k, angles, 1);
            toy.append(k, v, &caches);
            toy.attention("a", q, None, &caches)
        },
        alone,
    );
    // The turned query is read before the append.
    left(
        |toy| {
            let ([q, k, v, angles], caches) = heads(toy);
            let q = toy.rope("qr", q, angles, 2);
            let q = toy.alike("qs", Op::Scale { by: 2.0 }, &[q], &[]);
            let k = toy.rope("kr", k, angles, 1);
            toy.append(k, v, &caches);
            toy.attention("a", q, None, &caches)
        },
        alone,
    );
    // What is turned beside k is v: taking it for a query would append a v that nobody wrote.
    left(
        |toy| {
            let ([q, k, v, angles], caches) = heads(toy);
            let v = toy.rope("vr", v, angles, 1);
            let k = toy.rope("kr", k, angles, 1);
            toy.append(k, v, &caches);
            toy.attention("a", q, None, &caches)
        },
        alone,
    );
}

/// k is turned as one head of eight but kept as two of four: one pass cannot do both.
#[test]
fn rope_append_keeps_other_heads_apart() {
    stays(
        rope_append::fuse_rope_append,
        1,
        |toy| {
            let (q, k, v) = (toy.embed("q", 8), toy.embed("k", 8), toy.embed("v", 8));
            let (dims, style) = (4, RopeStyle::Half);
            let rope = Rope {
                dims,
                base: 1e4,
                position_scale: 1.0,
                yarn: crate::graph::Yarn::NONE,
            };
            let angles = toy.value("angles", 1, dims);
            toy.node(Op::RopeTable(rope), &[], &[], &[], &[angles]);
            let turn = |heads, head_size| Op::Rope {
                heads,
                head_size,
                dims,
                style,
            };
            let q = toy.alike("qr", turn(2, 4), &[q, angles], &[]);
            let k = toy.alike("kr", turn(1, 8), &[k, angles], &[]);
            let heads = Heads {
                query: 2,
                kv: 2,
                size: 4,
            };
            let caches = toy.caches_of(heads, 10);
            let append = Op::KvAppend {
                kv_heads: 2,
                head_size: 4,
            };
            toy.node(append, &[k, v], &[], &caches, &[]);
            let (scale, window) = (0.5, None);
            let attention = Op::Attention {
                heads,
                scale,
                window,
            };
            let a = toy.value("a", 1, 8);
            toy.node(attention, &[q], &[], &caches, &[a]);
            a
        },
        "fuse_rope_append: fired 0; left 1: k is turned in heads other than the cache's",
    );
}

fn attend(toy: &mut Toy<'_>) -> ValueId {
    let ([q, k, v, _], caches) = heads(toy);
    toy.append(k, v, &caches);
    toy.attention("a", q, Some(3), &caches)
}

#[test]
fn split() {
    fires(
        |graph| split::split_attention(graph, 4),
        attend,
        "n0 layer 0: v0 q f32[1, 8] = embed(w0 q.table F32[16, 8])
         n1 layer 0: v1 k f32[1, 4] = embed(w1 k.table F32[16, 4])
         n2 layer 0: v2 v f32[1, 4] = embed(w2 v.table F32[16, 4])
         n3 layer 0: v3 angles f32[1, 4] = rope_table() dims=4 base=10000
         n4 layer 0: kv_append(v1, v2, s0, s1) G=1 D=4
         n5 layer 0: v4 a f32[1, 8] = attention(v0, s0, s1) H=2 G=1 D=4 scale=0.5 window=3
         result v4",
        // Ten positions in splits of four: three, each 2 heads of 16 + 16 elements.
        "n0 layer 0: v0 q f32[1, 8] = embed(w0 q.table F32[16, 8])
         n1 layer 0: v1 k f32[1, 4] = embed(w1 k.table F32[16, 4])
         n2 layer 0: v2 v f32[1, 4] = embed(w2 v.table F32[16, 4])
         n3 layer 0: v3 angles f32[1, 4] = rope_table() dims=4 base=10000
         n4 layer 0: kv_append(v1, v2, s0, s1) G=1 D=4
         n5 layer 0: v5 partials f32[1, 192] = attention_split(v0, s0, s1) H=2 G=1 D=4 scale=0.5 window=3 split=4
         n6 layer 0: v4 a f32[1, 8] = attention_combine(v5) H=2 G=1 D=4 window=3 split=4
         result v4",
        "split_attention: fired 1",
    );
    stays(
        |graph| split::split_attention(graph, 4),
        2,
        attend,
        "split_attention: fired 0; left 1: several rows already spread the work",
    );
}

/// 196 splits for 2^20 heads of 32 floats each are more than 32 bits count, and wrapped would be room for half.
#[test]
fn split_of_more_than_columns_count() {
    let wide = |toy: &mut Toy<'_>| {
        let heads = Heads {
            query: 1 << 20,
            kv: 512,
            size: 8,
        };
        let q = toy.embed("q", heads.query * heads.size);
        let (caches, y) = (toy.caches_of(heads, 100_000), toy.value("y", 1, 1 << 23));
        let [k, v] = ["k", "v"].map(|name| toy.embed(name, heads.kv * heads.size));
        let append = Op::KvAppend {
            kv_heads: heads.kv,
            head_size: heads.size,
        };
        toy.node(append, &[k, v], &[], &caches, &[]);
        let attention = Op::Attention {
            heads,
            scale: 0.5,
            window: None,
        };
        toy.node(attention, &[q], &[], &caches, &[y]);
        y
    };
    stays(
        |graph| split::split_attention(graph, 512),
        1,
        wide,
        "split_attention: fired 0; left 1: 196 splits for H=1048576 G=512 D=8 are more partial results than the \
         4294967295 columns of a value",
    );
}
