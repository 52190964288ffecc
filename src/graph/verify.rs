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

mod attention;
mod products;
mod shapes;
mod states;

use super::{Element, Graph, Heads, Node, NodeId, Op, Value, ValueId, Weight};
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

    /// `size` elements of each of `count` heads, counted in more bits than columns have.
    fn width(&self, what: &str, count: u32, size: u32, value: &Value<'_>) -> Verdict {
        let cols = u64::from(count) * u64::from(size);
        self.same(what, cols, value.cols.into())
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

    fn last_if_sample(&self) -> Verdict {
        let last = self.id.index() + 1 == self.graph.nodes().len();
        let placed = last || self.node.op != Op::Sample;
        self.holds("place", "the end of the graph", "a node after it", placed)
    }
}
