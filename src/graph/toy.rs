//! A small builder for the tests of every stage that takes a graph: one call a node, shapes
//! inferred where an op fixes them.

use super::{Activation, Element, Graph, Heads, KvType, Node, Op, Rope, RopeStyle, Section, Yarn};
use super::{State, StateId, StateKind, Value, ValueId, WeightId};
use crate::dtype::DType;
use bumpalo::Bump;

/// The heads of every toy that attends.
pub(crate) const HEADS: Heads = Heads {
    query: 2,
    kv: 1,
    size: 4,
};

/// A graph in the making.
pub(crate) struct Toy<'a> {
    pub(crate) graph: Graph<'a>,
    /// Row capacity of what [`Toy::embed`] and [`Toy::angles`] make.
    rows: u32,
}

impl<'a> Toy<'a> {
    pub(crate) fn new(arena: &'a Bump, rows: u32) -> Self {
        let graph = Graph::new(arena);
        Toy { graph, rows }
    }

    /// The graph, with `result` as what it is for.
    pub(crate) fn finish(mut self, result: ValueId) -> Graph<'a> {
        self.graph.set_result(result);
        self.graph
    }

    pub(crate) fn value(&mut self, name: &str, rows: u32, cols: u32) -> ValueId {
        self.graph.add_value(Value {
            name,
            rows,
            cols,
            element: Element::F32,
        })
    }

    pub(crate) fn quantised(&mut self, name: &str, rows: u32, cols: u32) -> ValueId {
        let id = self.value(name, rows, cols);
        self.graph.set_element(id, Element::Q15A);
        id
    }

    pub(crate) fn node(
        &mut self,
        op: Op,
        inputs: &[ValueId],
        weights: &[WeightId],
        states: &[StateId],
        outputs: &[ValueId],
    ) {
        self.graph.push(Node {
            op,
            section: Section::Layer(0),
            inputs,
            weights,
            states,
            outputs,
        });
    }

    /// A vector of F32.
    pub(crate) fn vector(&mut self, name: &str, len: usize) -> WeightId {
        self.graph.add_weight(name, DType::F32, &[len])
    }

    /// Rows of a table of 16 tokens.
    pub(crate) fn embed(&mut self, name: &str, cols: u32) -> ValueId {
        let table = format!("{name}.table");
        let weight = self
            .graph
            .add_weight(&table, DType::F32, &[16, cols as usize]);
        let out = self.value(name, self.rows, cols);
        self.node(Op::Embed { scale: 1.0 }, &[], &[weight], &[], &[out]);
        out
    }

    /// The table that turns whole heads of [`HEADS`].
    pub(crate) fn angles(&mut self, name: &str) -> ValueId {
        let rope = Rope {
            dims: HEADS.size,
            base: 1e4,
            position_scale: 1.0,
            yarn: Yarn::NONE,
        };
        let out = self.value(name, self.rows, HEADS.size);
        self.node(Op::RopeTable(rope), &[], &[], &[], &[out]);
        out
    }

    /// `name [R, n] = x · Wᵀ`
    pub(crate) fn gemm(&mut self, name: &str, dtype: DType, x: ValueId, n: u32) -> ValueId {
        let Value { rows, cols, .. } = *self.graph.value(x);
        let shape = [n as usize, cols as usize];
        let weight = self.graph.add_weight(&format!("{name}.w"), dtype, &shape);
        let out = self.value(name, rows, n);
        let op = Op::Gemm { residual: false };
        self.node(op, &[x], &[weight], &[], &[out]);
        out
    }

    pub(crate) fn norm(&mut self, name: &str, x: ValueId, groups: u32) -> ValueId {
        let len = (self.graph.value(x).cols / groups) as usize;
        let weight = self.vector(&format!("{name}.w"), len);
        self.alike(name, Op::RmsNorm { eps: 1e-5, groups }, &[x], &[weight])
    }

    /// A node whose output has the shape of its first input.
    pub(crate) fn alike(
        &mut self,
        name: &str,
        op: Op,
        inputs: &[ValueId],
        weights: &[WeightId],
    ) -> ValueId {
        let Value { rows, cols, .. } = *self.graph.value(inputs[0]);
        let out = self.value(name, rows, cols);
        self.node(op, inputs, weights, &[], &[out]);
        out
    }

    pub(crate) fn add(&mut self, name: &str, a: ValueId, b: ValueId) -> ValueId {
        self.alike(name, Op::Add, &[a, b], &[])
    }

    pub(crate) fn gated_mul(&mut self, name: &str, gate: ValueId, up: ValueId) -> ValueId {
        self.alike(name, Op::GatedMul(Activation::Silu), &[gate, up], &[])
    }

    /// Turns `heads` heads by a table.
    pub(crate) fn rope(&mut self, name: &str, x: ValueId, table: ValueId, heads: u32) -> ValueId {
        let op = Op::Rope {
            heads,
            head_size: HEADS.size,
            dims: HEADS.size,
            style: RopeStyle::Half,
        };
        self.alike(name, op, &[x, table], &[])
    }

    /// A layer's caches of ten positions.
    pub(crate) fn caches(&mut self) -> [StateId; 2] {
        self.caches_of(HEADS, 10)
    }

    /// A layer's caches for these heads.
    pub(crate) fn caches_of(&mut self, heads: Heads, positions: u32) -> [StateId; 2] {
        [StateKind::Keys, StateKind::Values].map(|kind| {
            self.graph.add_state(State {
                kind,
                layer: 0,
                kv_heads: heads.kv,
                positions,
                head_size: heads.size,
                kv_type: KvType::F16,
            })
        })
    }

    pub(crate) fn append(&mut self, k: ValueId, v: ValueId, caches: &[StateId]) {
        let op = Op::KvAppend {
            kv_heads: HEADS.kv,
            head_size: HEADS.size,
        };
        self.node(op, &[k, v], &[], caches, &[]);
    }

    pub(crate) fn attention(
        &mut self,
        name: &str,
        q: ValueId,
        window: Option<u32>,
        caches: &[StateId],
    ) -> ValueId {
        let Value { rows, cols, .. } = *self.graph.value(q);
        let out = self.value(name, rows, cols);
        let (heads, scale) = (HEADS, 0.5);
        let op = Op::Attention {
            heads,
            scale,
            window,
        };
        self.node(op, &[q], &[], caches, &[out]);
        out
    }
}
