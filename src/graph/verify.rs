//! The verifier: nothing downstream looks at a graph that has not passed it.
//!
//! Invariants:
//! 1. Ids are in range; every value has at most one producer, and a node reads only values that an
//!    earlier node wrote.
//! 2. Every node has the inputs, weights, states and outputs of its op, in number and in shape.
//! 3. Elements fit: a quantised value ([`Element::Q15A`]) is read only by GEMMs whose weights are
//!    quantised, 16-bit floats ([`Element::F16`]) only by GEMMs of several rows without f32 weights,
//!    and a GEMM reads one kind of activation for all of its weights.
//! 4. `H` is a multiple of `G`; RoPE turns an even number of elements, at most `D`.
//! 5. Each cache is appended to by exactly one node, before any node attends to it; a layer's keys
//!    and values are of one type, and a head is whole blocks of it.
//! 6. The result is an `f32` value somebody writes.
//! 7. At most one node samples, from one row, and it is the last: it changes the step that all others
//!    read.

use super::{Element, Graph, Heads, Node, NodeId, Op, StateKind, Value, ValueId, Weight};
use crate::dtype::DType;
use std::ops::Deref;
use thiserror::Error;

/// A graph that has passed [`verify`]; the only kind the planner takes.
#[derive(Clone)]
pub struct Verified<'a>(Graph<'a>);

impl<'a> Verified<'a> {
    /// The graph itself, to rewrite it (it must be verified again).
    pub fn into_inner(self) -> Graph<'a> {
        self.0
    }
}

impl<'a> Deref for Verified<'a> {
    type Target = Graph<'a>;

    fn deref(&self) -> &Graph<'a> {
        &self.0
    }
}

/// Why a graph is not one: the node, what was expected and what was found.
#[derive(Debug, Error, PartialEq)]
pub enum VerifyError {
    #[error("{node} {op}: {what}: expected {expected}, found {found}")]
    Mismatch {
        node: NodeId,
        op: &'static str,
        what: String,
        expected: String,
        found: String,
    },
    #[error("{node} {op}: reads {value} before any node writes it")]
    Undefined {
        node: NodeId,
        op: &'static str,
        value: ValueId,
    },
    #[error("{node} {op}: writes {value}, which {first} already writes")]
    Redefined {
        node: NodeId,
        op: &'static str,
        value: ValueId,
        first: NodeId,
    },
    #[error("the graph has no result")]
    NoResult,
    #[error("the result {value} is not an f32 value that a node writes")]
    BadResult { value: ValueId },
}

/// Checks every invariant of the module's prose, node by node, and stops at the first broken one.
pub fn verify(graph: Graph<'_>) -> Result<Verified<'_>, VerifyError> {
    let mut written: Vec<Option<NodeId>> = vec![None; graph.values().len()];
    let mut appended = vec![false; graph.states().len()];
    for (index, node) in graph.nodes().iter().enumerate() {
        let check = Check {
            graph: &graph,
            node,
            id: NodeId::new(index),
        };
        check.ids()?;
        for &value in node.inputs {
            if written[value.index()].is_none() {
                return Err(VerifyError::Undefined {
                    node: check.id,
                    op: node.op.name(),
                    value,
                });
            }
        }
        check.shapes()?;
        check.last_if_sample()?;
        check.states(&mut appended)?;
        for &value in node.outputs {
            if let Some(first) = written[value.index()].replace(check.id) {
                let op = node.op.name();
                return Err(VerifyError::Redefined {
                    node: check.id,
                    op,
                    value,
                    first,
                });
            }
        }
    }
    let result = graph.result().ok_or(VerifyError::NoResult)?;
    let good = result.index() < graph.values().len()
        && written[result.index()].is_some()
        && graph.value(result).element == Element::F32;
    if !good {
        return Err(VerifyError::BadResult { value: result });
    }
    Ok(Verified(graph))
}

type Verdict = Result<(), VerifyError>;

struct Check<'g, 'a> {
    graph: &'g Graph<'a>,
    node: &'g Node<'a>,
    id: NodeId,
}

impl<'g, 'a> Check<'g, 'a> {
    fn same<T: PartialEq + ToString>(&self, what: &str, expected: T, found: T) -> Verdict {
        if expected == found {
            return Ok(());
        }
        Err(VerifyError::Mismatch {
            node: self.id,
            op: self.node.op.name(),
            what: what.into(),
            expected: expected.to_string(),
            found: found.to_string(),
        })
    }

    fn holds(&self, what: &str, expected: &str, found: impl ToString, holds: bool) -> Verdict {
        if holds {
            Ok(())
        } else {
            self.same(what, expected.to_string(), found.to_string())
        }
    }

    fn ids(&self) -> Verdict {
        let Node {
            inputs,
            outputs,
            weights,
            states,
            ..
        } = self.node;
        let values = self.graph.values().len();
        let in_range = inputs.iter().chain(*outputs).all(|v| v.index() < values)
            && weights
                .iter()
                .all(|w| w.index() < self.graph.weights().len())
            && states.iter().all(|s| s.index() < self.graph.states().len());
        self.holds("ids", "ids of this graph", "one out of range", in_range)
    }

    fn arity(&self, inputs: usize, weights: usize, outputs: usize) -> Verdict {
        self.same("inputs", inputs, self.node.inputs.len())?;
        self.same("weights", weights, self.node.weights.len())?;
        self.same("outputs", outputs, self.node.outputs.len())
    }

    fn input(&self, index: usize) -> &'g Value<'a> {
        self.graph.value(self.node.inputs[index])
    }

    fn output(&self, index: usize) -> &'g Value<'a> {
        self.graph.value(self.node.outputs[index])
    }

    fn weight(&self, index: usize) -> &'g Weight<'a> {
        self.graph.weight(self.node.weights[index])
    }

    fn cols(&self, what: &str, value: &Value<'_>, cols: usize) -> Verdict {
        self.same(what, cols, value.cols as usize)
    }

    fn float(&self, what: &str, value: &Value<'_>) -> Verdict {
        self.same(what, Element::F32, value.element)
    }

    fn vector(&self, index: usize, len: usize) -> Verdict {
        let weight = self.weight(index);
        self.same(
            weight.name,
            format!("[{len}]"),
            format!("{:?}", weight.shape),
        )
    }

    /// All inputs and outputs are f32, with `cols` columns and the same rows.
    fn uniform(&self, cols: usize) -> Verdict {
        let rows = self.output(0).rows;
        let (inputs, outputs) = (self.node.inputs.iter(), self.node.outputs);
        for &id in inputs.chain(outputs) {
            let value = self.graph.value(id);
            self.float(value.name, value)?;
            self.cols(value.name, value, cols)?;
            self.same("rows", rows, value.rows)?;
        }
        Ok(())
    }

    fn heads(&self, heads: Heads) -> Verdict {
        let divides = heads.kv > 0 && heads.size > 0 && heads.query.is_multiple_of(heads.kv);
        self.holds("heads", "H a multiple of G", heads, divides)
    }

    fn rotated(&self, dims: u32, head_size: u32) -> Verdict {
        let good = dims > 0 && dims.is_multiple_of(2) && dims <= head_size;
        self.holds(
            "rotated elements",
            &format!("even, 2 to {head_size}"),
            dims,
            good,
        )
    }

    fn shapes(&self) -> Verdict {
        match self.node.op {
            Op::Embed { .. } => {
                self.arity(0, 1, 1)?;
                self.same("dimensions of the table", 2, self.weight(0).shape.len())?;
                self.float("output", self.output(0))?;
                self.cols("columns", self.output(0), self.weight(0).cols())
            }
            Op::RopeTable(rope) => {
                let weights = self.node.weights.len();
                self.holds("weights", "0 or 1", weights, weights <= 1)?;
                self.arity(0, weights, 1)?;
                self.rotated(rope.dims, rope.dims)?;
                if weights == 1 {
                    self.vector(0, rope.dims as usize / 2)?;
                }
                self.uniform(rope.dims as usize)
            }
            Op::RmsNorm { groups, .. } => {
                self.arity(1, 1, 1)?;
                let (x, y) = (self.input(0), self.output(0));
                self.float("input", x)?;
                self.same("rows", x.rows, y.rows)?;
                self.same("columns", x.cols, y.cols)?;
                let divides = groups > 0 && x.cols.is_multiple_of(groups);
                self.holds(
                    "groups",
                    &format!("a divisor of {}", x.cols),
                    groups,
                    divides,
                )?;
                let whole = y.element == Element::F32 || groups == 1;
                self.holds("output of several groups", "f32", y.element, whole)?;
                self.vector(0, (x.cols / groups) as usize)
            }
            Op::Gemm { residual } => self.gemm(residual),
            Op::GatedGemm(_) => {
                self.arity(1, 2, 1)?;
                self.matrix(0, self.input(0), self.output(0))?;
                self.matrix(1, self.input(0), self.output(0))?;
                self.one_kind()
            }
            Op::NormGemm { .. } => {
                let outputs = self.node.outputs.len();
                self.holds("outputs", "at least 1", outputs, outputs > 0)?;
                self.arity(1, outputs + 1, outputs)?;
                for index in 0..outputs {
                    self.matrix(index, self.input(0), self.output(index))?;
                }
                self.normed(outputs)
            }
            Op::NormGatedGemm { .. } => {
                self.arity(1, 3, 1)?;
                self.matrix(0, self.input(0), self.output(0))?;
                self.matrix(1, self.input(0), self.output(0))?;
                self.normed(2)
            }
            Op::AddBias => {
                self.arity(1, 1, 1)?;
                self.uniform(self.input(0).cols as usize)?;
                self.vector(0, self.input(0).cols as usize)
            }
            Op::Rope {
                heads,
                head_size,
                dims,
                ..
            } => {
                self.arity(2, 0, 1)?;
                self.rotated(dims, head_size)?;
                self.turned(0, 0, heads * head_size)?;
                self.table(1, dims)
            }
            Op::KvAppend {
                kv_heads,
                head_size,
            } => {
                self.arity(2, 0, 0)?;
                for index in 0..2 {
                    self.float("input", self.input(index))?;
                    self.same("columns", kv_heads * head_size, self.input(index).cols)?;
                }
                self.same("rows", self.input(0).rows, self.input(1).rows)
            }
            Op::RopeAppend { heads, dims, .. } => {
                self.arity(4, 0, 1)?;
                self.heads(heads)?;
                self.rotated(dims, heads.size)?;
                self.turned(0, 0, heads.query * heads.size)?;
                for index in 1..3 {
                    self.float("input", self.input(index))?;
                    self.same("columns", heads.kv * heads.size, self.input(index).cols)?;
                    self.same("rows", self.input(0).rows, self.input(index).rows)?;
                }
                self.table(3, dims)
            }
            Op::Attention { heads, .. } => {
                self.arity(1, 0, 1)?;
                self.heads(heads)?;
                self.turned(0, 0, heads.query * heads.size)
            }
            Op::AttentionSplit {
                heads,
                window,
                split,
                ..
            } => {
                self.arity(1, 0, 1)?;
                self.heads(heads)?;
                self.same("rows", 1, self.input(0).rows)?;
                self.same("columns", heads.query * heads.size, self.input(0).cols)?;
                self.float("input", self.input(0))?;
                self.partials(self.output(0), heads, window, split)
            }
            Op::AttentionCombine {
                heads,
                window,
                split,
            } => {
                self.arity(1, 0, 1)?;
                self.heads(heads)?;
                self.same("rows", 1, self.output(0).rows)?;
                self.same("columns", heads.query * heads.size, self.output(0).cols)?;
                self.partials(self.input(0), heads, window, split)
            }
            Op::AttentionStep {
                heads,
                dims,
                blocks,
                ..
            } => {
                self.arity(4, 0, 2)?;
                self.heads(heads)?;
                self.rotated(dims, heads.size)?;
                self.same("rows", 1, self.input(0).rows)?;
                for (index, count) in [(0, heads.query), (1, heads.kv), (2, heads.kv)] {
                    self.float("input", self.input(index))?;
                    self.same("columns", count * heads.size, self.input(index).cols)?;
                    self.same("rows", 1, self.input(index).rows)?;
                }
                self.table(3, dims)?;
                let y = self.output(0);
                self.same("columns of the output", heads.query * heads.size, y.cols)?;
                self.same("rows", 1, y.rows)?;
                // A KV head's columns are rounded by themselves.
                let whole = (heads.query / heads.kv * heads.size).is_multiple_of(32);
                let fits = y.element == Element::F32 || whole;
                self.holds("output", "f32, or whole blocks a KV head", y.element, fits)?;
                self.holds("blocks", "at least 1", blocks, blocks > 0)?;
                self.partials(self.output(1), heads, None, 1)?;
                let room = blocks * heads.query * heads.partial_len();
                self.same("columns of the partials", room, self.output(1).cols)
            }
            Op::GatedMul(_) if self.output(0).element == Element::F16 => {
                self.arity(2, 0, 1)?;
                for index in 0..2 {
                    self.float("input", self.input(index))?;
                    self.same("columns", self.output(0).cols, self.input(index).cols)?;
                    self.same("rows", self.output(0).rows, self.input(index).rows)?;
                }
                Ok(())
            }
            Op::GatedMul(_) | Op::Add => {
                self.arity(2, 0, 1)?;
                self.uniform(self.output(0).cols as usize)
            }
            Op::Scale { .. } => {
                self.arity(1, 0, 1)?;
                self.uniform(self.output(0).cols as usize)
            }
            Op::Quantize => {
                self.arity(1, 0, 1)?;
                let (x, y) = (self.input(0), self.output(0));
                self.float("input", x)?;
                let rounded = y.element != Element::F32;
                self.holds("output", "q15a or f16", y.element, rounded)?;
                self.same("rows", x.rows, y.rows)?;
                self.same("columns", x.cols, y.cols)
            }
            Op::LastRow => {
                self.arity(1, 0, 1)?;
                self.float("input", self.input(0))?;
                self.float("output", self.output(0))?;
                self.same("rows", 1, self.output(0).rows)?;
                self.same("columns", self.input(0).cols, self.output(0).cols)
            }
            Op::Sample => {
                self.arity(1, 0, 0)?;
                self.float("logits", self.input(0))?;
                self.same("rows", 1, self.input(0).rows)
            }
        }
    }

    fn last_if_sample(&self) -> Verdict {
        let last = self.id.index() + 1 == self.graph.nodes().len();
        let placed = last || self.node.op != Op::Sample;
        self.holds("place", "the end of the graph", "a node after it", placed)
    }

    fn gemm(&self, residual: bool) -> Verdict {
        let outputs = if residual { 1 } else { self.node.outputs.len() };
        self.holds("outputs", "at least 1", outputs, outputs > 0)?;
        self.arity(1 + usize::from(residual), outputs, outputs)?;
        for index in 0..outputs {
            self.matrix(index, self.input(0), self.output(index))?;
        }
        self.one_kind()?;
        if residual {
            let (added, y) = (self.input(1), self.output(0));
            self.float("residual", added)?;
            self.same("columns of the residual", y.cols, added.cols)?;
            self.same("rows of the residual", y.rows, added.rows)?;
        }
        Ok(())
    }

    /// `y [R, N] = x [R, K] · Wᵀ` with the weight at `index`.
    fn matrix(&self, index: usize, x: &Value<'_>, y: &Value<'_>) -> Verdict {
        let weight = self.weight(index);
        let expected = format!("[{}, {}]", y.cols, x.cols);
        self.same(weight.name, expected, format!("{:?}", weight.shape))?;
        self.same("rows", x.rows, y.rows)?;
        let (fits, wanted) = match x.element {
            Element::F32 => (true, ""),
            Element::Q15A => (
                !weight.dtype.is_float(),
                "f32 or f16 activations for a float weight",
            ),
            Element::F16 => {
                let product =
                    matches!(self.node.op, Op::Gemm { .. } | Op::GatedGemm(_)) && x.rows > 1;
                let fits = product && weight.dtype != DType::F32;
                (fits, "f16 activations for several rows and no f32 weight")
            }
        };
        self.holds(weight.name, wanted, x.element, fits)?;
        let gated = matches!(self.node.op, Op::GatedGemm(_) | Op::NormGatedGemm { .. });
        let y_fits = y.element == Element::F32 || gated;
        self.holds("output", "f32", y.element, y_fits)
    }

    /// All weights float or all quantised, since they share one activation, unless that suits both.
    fn one_kind(&self) -> Verdict {
        if self.input(0).element == Element::F16 {
            return Ok(());
        }
        self.kinds(self.node.weights.len())
    }

    /// The first `matrices` weights.
    fn kinds(&self, matrices: usize) -> Verdict {
        let kind = |index: usize| match self.weight(index).dtype.is_float() {
            true => "float",
            false => "quantised",
        };
        (1..matrices).try_for_each(|i| self.same("weights", kind(0), kind(i)))
    }

    /// `matrices` matrices of an f32 input that is normalised by the weight after them.
    fn normed(&self, matrices: usize) -> Verdict {
        self.float("input", self.input(0))?;
        self.vector(matrices, self.input(0).cols as usize)?;
        self.kinds(matrices)
    }

    /// Input and output alike, f32 or (the output) quantised, `cols` wide.
    fn turned(&self, input: usize, output: usize, cols: u32) -> Verdict {
        let (x, y) = (self.input(input), self.output(output));
        self.float("input", x)?;
        self.same("columns", cols, x.cols)?;
        self.same("columns of the output", cols, y.cols)?;
        self.float("output", y)?;
        self.same("rows", x.rows, y.rows)
    }

    fn table(&self, index: usize, dims: u32) -> Verdict {
        self.float("table", self.input(index))?;
        self.same(
            "rows of the table",
            self.input(0).rows,
            self.input(index).rows,
        )?;
        self.same("columns of the table", dims, self.input(index).cols)
    }

    /// Partial results: one a query head and split of the cache.
    fn partials(
        &self,
        value: &Value<'_>,
        heads: Heads,
        window: Option<u32>,
        split: u32,
    ) -> Verdict {
        let found = value.cols;
        self.float("partials", value)?;
        self.same("rows of the partials", 1, value.rows)?;
        self.holds("split", "at least 1", split, split > 0)?;
        let row = heads.query * heads.partial_len();
        let whole = found > 0 && found.is_multiple_of(row);
        let span = window.map_or(String::new(), |w| format!(" within a window of {w}"));
        self.holds(
            "partials",
            &format!("a multiple of {row}{span}"),
            found,
            whole,
        )
    }

    fn states(&self, appended: &mut [bool]) -> Verdict {
        let (geometry, appends) = match self.node.op {
            Op::KvAppend {
                kv_heads,
                head_size,
            } => ((kv_heads, head_size), true),
            Op::RopeAppend { heads, .. } | Op::AttentionStep { heads, .. } => {
                ((heads.kv, heads.size), true)
            }
            Op::Attention { heads, .. } | Op::AttentionSplit { heads, .. } => {
                ((heads.kv, heads.size), false)
            }
            _ => return self.same("states", 0, self.node.states.len()),
        };
        self.same("states", 2, self.node.states.len())?;
        for (id, kind) in self
            .node
            .states
            .iter()
            .zip([StateKind::Keys, StateKind::Values])
        {
            let state = self.graph.state(*id);
            self.holds(
                "cache",
                &format!("{kind:?}"),
                format!("{:?}", state.kind),
                state.kind == kind,
            )?;
            self.same("KV heads of the cache", geometry.0, state.kv_heads)?;
            self.same("head size of the cache", geometry.1, state.head_size)?;
            let seen = std::mem::replace(&mut appended[id.index()], true);
            let (wanted, found) = if appends {
                ("appended to once", "a second append")
            } else {
                ("appended to before it is read", "a read before")
            };
            self.holds(&format!("cache {id}"), wanted, found, seen != appends)?;
        }
        let [keys, values] = [0, 1].map(|i| self.graph.state(self.node.states[i]));
        self.same("layer of the value cache", keys.layer, values.layer)?;
        self.same(
            "positions of the value cache",
            keys.positions,
            values.positions,
        )?;
        self.same("type of the value cache", keys.kv_type, values.kv_type)?;
        let block = keys.kv_type.block_len();
        self.holds(
            &format!("head size of a {} cache", keys.kv_type),
            &format!("a multiple of {block}"),
            keys.head_size,
            keys.head_size.is_multiple_of(block),
        )?;
        if let Op::AttentionSplit { heads, split, .. } = self.node.op {
            let splits = keys.positions.div_ceil(split);
            let cols = splits * heads.query * heads.partial_len();
            self.same("columns of the partials", cols, self.output(0).cols)?;
        }
        Ok(())
    }
}
