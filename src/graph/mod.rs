//! The IR: one step of a model as typed nodes over `[rows, cols]` values.
//!
//! A [`Graph`] is pure data in static single assignment: every [`Value`] is written by exactly one
//! node, nodes stand in an order in which they can run, and a node reads only what earlier nodes
//! wrote. Four things flow through it. *Values* are temporaries that the planner places in the
//! arena. *Weights* are constants named as the checkpoint names them. *States* outlive a step (the
//! K and V caches). And the *step* itself (tokens, position, live rows), which only `embed`,
//! `rope_table`, the cache and attention ops and `last_row` read, and which `sample` writes for the
//! step that follows.
//!
//! What is deliberately absent: files, kernels, devices, offsets, and any control flow. A graph is
//! built by `model`, rewritten by `pass`, and believed only after [`verify()`], which hands out the
//! [`Verified`] that the planner asks for.
//!
//! Everything lives in one [`bumpalo::Bump`], so a graph of thousands of nodes is a few large
//! allocations and is dropped at once; passes copy ids and slices, never trees.

pub mod dot;
mod id;
mod kv_type;
mod op;
#[cfg(test)]
mod tests;
mod text;
#[cfg(test)]
pub(crate) mod toy;
mod verify;

pub use id::{NodeId, StateId, ValueId, WeightId};
pub use kv_type::{KvType, UnknownKvType};
pub use op::{Activation, Heads, Op, Rope, RopeStyle, Yarn};
pub use text::text;
pub use verify::{Verified, VerifyError, verify};

use crate::dtype::DType;
use bumpalo::Bump;
use std::fmt;

/// What a value's elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// 32-bit float.
    F32,
    /// Activations rounded to integers of 15 bits for integer dot products, in blocks of 32: two
    /// planes of signed bytes, or 16 bits each where the machine has no dot products of bytes, their
    /// scale, and the sums that the constant terms of asymmetric weights multiply (80 bytes).
    Q15A,
    /// Activations rounded to 16-bit floats for matrix cores, each row times a power of two: the
    /// columns, zeros to a multiple of 64, then the f32 that undoes the power. What long prompts
    /// multiply with on a GPU.
    F16,
}

impl Element {
    /// Bytes from one row of `cols` elements to the next: a multiple of 64, so that rows start on
    /// cache lines, and never of 4096, which would put a column of many rows in one cache set.
    pub fn row_bytes(self, cols: u32) -> usize {
        let cols = cols as usize;
        let bytes = match self {
            Element::F32 => cols * 4,
            Element::Q15A => cols.div_ceil(32) * 80,
            Element::F16 => cols.next_multiple_of(64) * 2 + 64,
        };
        let bytes = bytes.next_multiple_of(64);
        bytes + if bytes.is_multiple_of(4096) { 64 } else { 0 }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Element::F32 => "f32",
            Element::Q15A => "q15a",
            Element::F16 => "f16",
        })
    }
}

/// A temporary `[rows, cols]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value<'a> {
    /// The name its Definition gave it; several values may share one (`x` before and after a layer).
    pub name: &'a str,
    /// Row capacity `R`; a step may fill fewer.
    pub rows: u32,
    pub cols: u32,
    pub element: Element,
}

impl Value<'_> {
    /// Bytes of all rows.
    pub fn bytes(&self) -> usize {
        self.rows as usize * self.element.row_bytes(self.cols)
    }
}

/// A constant tensor, by the name under which the checkpoint holds it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weight<'a> {
    pub name: &'a str,
    pub dtype: DType,
    /// Outermost dimension first: a matrix is `[N, K]`.
    pub shape: &'a [usize],
}

impl Weight<'_> {
    /// Columns of a matrix, elements of a vector.
    pub fn cols(&self) -> usize {
        *self
            .shape
            .last()
            .expect("a weight has at least one dimension")
    }

    /// Rows of a matrix, 1 for a vector.
    pub fn rows(&self) -> usize {
        self.shape[..self.shape.len() - 1].iter().product()
    }

    /// Bytes as the checkpoint stores them.
    pub fn bytes(&self) -> usize {
        let row = self.dtype.row_bytes(self.cols());
        self.rows() * row.expect("weights are made of whole blocks")
    }
}

/// Which half of a layer's cache a state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateKind {
    Keys,
    Values,
}

/// A layer's K or V cache, `[G, S, D]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    pub kind: StateKind,
    pub layer: u32,
    pub kv_heads: u32,
    pub positions: u32,
    pub head_size: u32,
    pub kv_type: KvType,
}

impl State {
    /// Bytes of the whole cache.
    pub fn bytes(&self) -> usize {
        let elements =
            u64::from(self.kv_heads) * u64::from(self.positions) * u64::from(self.head_size);
        self.kv_type.bytes(elements) as usize
    }
}

/// Where in the step a node stands; dumps draw a layer as a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Prologue,
    Layer(u32),
    Epilogue,
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Section::Prologue => f.write_str("prologue"),
            Section::Layer(i) => write!(f, "layer {i}"),
            Section::Epilogue => f.write_str("epilogue"),
        }
    }
}

/// One operation with what it reads and writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Node<'a> {
    pub op: Op,
    pub section: Section,
    pub inputs: &'a [ValueId],
    pub weights: &'a [WeightId],
    /// Keys then values, for the ops that touch the cache.
    pub states: &'a [StateId],
    pub outputs: &'a [ValueId],
}

/// One step of a model. See the module's prose for the invariants.
#[derive(Clone)]
pub struct Graph<'a> {
    arena: &'a Bump,
    nodes: Vec<Node<'a>>,
    values: Vec<Value<'a>>,
    weights: Vec<Weight<'a>>,
    states: Vec<State>,
    result: Option<ValueId>,
}

impl<'a> Graph<'a> {
    /// An empty graph whose slices and names will live in `arena`.
    pub fn new(arena: &'a Bump) -> Self {
        Graph {
            arena,
            nodes: Vec::new(),
            values: Vec::new(),
            weights: Vec::new(),
            states: Vec::new(),
            result: None,
        }
    }

    /// A graph with this one's values, weights and states but no nodes: what a pass fills.
    pub fn without_nodes(&self) -> Self {
        Graph {
            nodes: Vec::with_capacity(self.nodes.len()),
            ..self.clone()
        }
    }

    /// The nodes, in an order in which they can run.
    pub fn nodes(&self) -> &[Node<'a>] {
        &self.nodes
    }

    /// The node with this id.
    ///
    /// # Panics
    /// Here and below: when the graph has no such id.
    pub fn node(&self, id: NodeId) -> &Node<'a> {
        &self.nodes[id.index()]
    }

    /// All values, those that no node writes any more included.
    pub fn values(&self) -> &[Value<'a>] {
        &self.values
    }

    /// The value with this id.
    pub fn value(&self, id: ValueId) -> &Value<'a> {
        &self.values[id.index()]
    }

    /// All weights, each once.
    pub fn weights(&self) -> &[Weight<'a>] {
        &self.weights
    }

    /// The weight with this id.
    pub fn weight(&self, id: WeightId) -> &Weight<'a> {
        &self.weights[id.index()]
    }

    /// All caches.
    pub fn states(&self) -> &[State] {
        &self.states
    }

    /// The cache with this id.
    pub fn state(&self, id: StateId) -> &State {
        &self.states[id.index()]
    }

    /// The value the step is for (the logits), once set.
    pub fn result(&self) -> Option<ValueId> {
        self.result
    }

    /// Makes `value` what the step is for.
    pub fn set_result(&mut self, value: ValueId) {
        self.result = Some(value);
    }

    /// A new value, which no node writes yet; its name is copied into the arena.
    pub fn add_value(&mut self, value: Value<'_>) -> ValueId {
        let name = self.arena.alloc_str(value.name);
        self.values.push(Value { name, ..value });
        ValueId::new(self.values.len() - 1)
    }

    /// The id of the weight called `name`, added if it is new.
    pub fn add_weight(&mut self, name: &str, dtype: DType, shape: &[usize]) -> WeightId {
        if let Some(index) = self.weights.iter().position(|w| w.name == name) {
            return WeightId::new(index);
        }
        self.weights.push(Weight {
            name: self.arena.alloc_str(name),
            dtype,
            shape: self.arena.alloc_slice_copy(shape),
        });
        WeightId::new(self.weights.len() - 1)
    }

    /// A new cache.
    pub fn add_state(&mut self, state: State) -> StateId {
        self.states.push(state);
        StateId::new(self.states.len() - 1)
    }

    /// Appends a node; its slices are copied into the arena.
    pub fn push(&mut self, node: Node<'_>) -> NodeId {
        let node = self.adopt(node);
        self.nodes.push(node);
        NodeId::new(self.nodes.len() - 1)
    }

    /// The same node with its slices in this graph's arena.
    pub fn adopt(&self, node: Node<'_>) -> Node<'a> {
        Node {
            op: node.op,
            section: node.section,
            inputs: self.arena.alloc_slice_copy(node.inputs),
            weights: self.arena.alloc_slice_copy(node.weights),
            states: self.arena.alloc_slice_copy(node.states),
            outputs: self.arena.alloc_slice_copy(node.outputs),
        }
    }

    /// Replaces what a value is made of (a pass that changes a producer's output format).
    pub fn set_element(&mut self, value: ValueId, element: Element) {
        self.values[value.index()].element = element;
    }

    /// For every value, the node that writes it (`None`: nobody, which [`verify()`] refuses if it
    /// is read).
    pub fn producers(&self) -> Vec<Option<NodeId>> {
        let mut producers = vec![None; self.values.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            for output in node.outputs {
                producers[output.index()] = Some(NodeId::new(index));
            }
        }
        producers
    }

    /// For every value, how many times nodes read it, plus one if it is the result.
    pub fn use_counts(&self) -> Vec<u32> {
        let mut uses = vec![0; self.values.len()];
        for input in self.nodes.iter().flat_map(|n| n.inputs) {
            uses[input.index()] += 1;
        }
        if let Some(result) = self.result {
            uses[result.index()] += 1;
        }
        uses
    }
}
