//! Definition + hyperparameters + the tensors at hand → Graph.
//!
//! The builder knows what fields each op takes and how values flow by name; what a family computes
//! is in its Definition. It asks for each tensor once and compares its shape with the letters.

mod op;

use super::definition::{Definition, LayerKind, NodeEntry, WeightEntry};
use super::{Hyperparameters, ModelError};
use crate::dtype::DType;
use crate::graph::{
    Element, Graph, KvType, Node, Op, Section, State, StateId, StateKind, Value, ValueId, WeightId,
};
use bumpalo::Bump;
use std::collections::HashMap;

/// Which rows the head is computed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    /// Only the last live row, from which the next token is chosen: what generation needs.
    Last,
    /// Every row: what perplexity needs.
    All,
}

/// What differs between the graphs of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// `R`, the row capacity of a step: 1 to decode, a chunk's length for a prompt.
    pub rows: u32,
    /// `S`, the positions the cache holds.
    pub context: u32,
    /// What the cache's elements are.
    pub kv_type: KvType,
    pub logits: Logits,
}

/// Where the builder looks a tensor up: its type and shape, or `None` if there is none.
pub type Lookup<'f> = dyn Fn(&str) -> Option<(DType, Vec<usize>)> + 'f;

/// Unrolls a Definition. `source` names the checkpoint in errors.
pub fn build<'a>(
    arena: &'a Bump,
    definition: &Definition,
    hyper: &Hyperparameters,
    extent: Extent,
    source: &str,
    lookup: &Lookup<'_>,
) -> Result<Graph<'a>, ModelError> {
    if !hyper.head_size.is_multiple_of(extent.kv_type.block_len()) {
        return Err(ModelError::KvBlocks {
            source_name: source.into(),
            head_size: hyper.head_size,
            kv_type: extent.kv_type,
        });
    }
    let mut graph = Graph::new(arena);
    let mut builder = Builder {
        definition,
        hyper,
        extent,
        source,
        lookup,
        graph: &mut graph,
        names: HashMap::new(),
        caches: None,
    };
    builder.section(&definition.prologue, Section::Prologue)?;
    for layer in 0..hyper.layers {
        builder.caches = None;
        builder.section(&definition.layer, Section::Layer(layer))?;
    }
    builder.section(&definition.epilogue, Section::Epilogue)?;
    let result = builder.names.get("logits").copied();
    let result = result.ok_or_else(|| definition.error("no node writes `logits`"))?;
    graph.set_result(result);
    if extent.logits == Logits::Last {
        // Not a matter of the family: any logits are sampled alike.
        graph.push(Node {
            op: Op::Sample,
            section: Section::Epilogue,
            inputs: &[result],
            weights: &[],
            states: &[],
            outputs: &[],
        });
    }
    Ok(graph)
}

struct Builder<'b, 'd, 'a> {
    definition: &'d Definition,
    hyper: &'d Hyperparameters,
    extent: Extent,
    source: &'d str,
    lookup: &'d Lookup<'d>,
    graph: &'b mut Graph<'a>,
    names: HashMap<&'d str, ValueId>,
    /// The caches of the layer being unrolled, once a node has asked for them.
    caches: Option<[StateId; 2]>,
}

impl<'d> Builder<'_, 'd, '_> {
    fn section(&mut self, nodes: &'d [NodeEntry], section: Section) -> Result<(), ModelError> {
        for node in nodes {
            if self.stands_in(node, section)? {
                self.node(node, section)?;
                self.bias(node, section)?;
            }
        }
        Ok(())
    }

    /// Whether the section has the node; only layers differ from one another.
    fn stands_in(&self, entry: &NodeEntry, section: Section) -> Result<bool, ModelError> {
        let hyper = self.hyper;
        match (entry.layers, section) {
            (None, _) => Ok(true),
            (Some(kind), Section::Layer(layer)) => Ok(match kind {
                LayerKind::Windowed => hyper.window_of(layer).is_some(),
                LayerKind::Full => hyper.window_of(layer).is_none(),
                LayerKind::Rotated => hyper.rotated_layers.holds(layer),
            }),
            (Some(_), _) => {
                Err(self.wrong(entry, "`layers` picks layers; this is outside of them"))
            }
        }
    }

    /// Adds what an entry's `bias` names to the product it made, where the checkpoint has it.
    fn bias(&mut self, entry: &'d NodeEntry, section: Section) -> Result<(), ModelError> {
        let Some(name) = &entry.bias else {
            return Ok(());
        };
        let Some(weight) = self.weight(entry, name, section)? else {
            return Ok(());
        };
        let name = self.out_name(entry)?;
        let product = self.names[name];
        let sum = self.graph.add_value(*self.graph.value(product));
        self.names.insert(name, sum);
        self.graph.push(Node {
            op: Op::AddBias,
            section,
            inputs: &[product],
            weights: &[weight],
            states: &[],
            outputs: &[sum],
        });
        Ok(())
    }

    fn node(&mut self, entry: &'d NodeEntry, section: Section) -> Result<(), ModelError> {
        let op_name = entry.op.get_ref().as_str();
        let every_row = self.extent.logits == Logits::All || self.extent.rows == 1;
        if op_name == "last_row" && every_row {
            self.expect_fields(entry, op_name)?;
            let (input, out) = (self.input(entry, 0)?, self.out_name(entry)?);
            self.names.insert(out, input);
            return Ok(());
        }
        let inputs: Vec<ValueId> = (0..entry.inputs.len())
            .map(|i| self.input(entry, i))
            .collect::<Result<_, _>>()?;
        let weight = match &entry.weight {
            Some(name) => self.weight(entry, name, section)?,
            None => None,
        };
        if weight.is_none() && matches!(op_name, "embed" | "rms_norm" | "add_bias") {
            return Err(self.wrong(entry, "needs `weight`, and a tensor for it"));
        }
        let (op, shape) = self.op(entry, section, inputs.first().copied(), weight)?;
        let caches = match op {
            Op::KvAppend { .. } | Op::Attention { .. } => Some(self.layer_caches(entry, section)?),
            _ => None,
        };
        self.expect_fields(entry, op_name)?;
        let output = match shape {
            None => None,
            Some((rows, cols)) => {
                let name = self.out_name(entry)?;
                let element = Element::F32;
                let id = self.graph.add_value(Value {
                    name,
                    rows,
                    cols,
                    element,
                });
                self.names.insert(name, id);
                Some(id)
            }
        };
        self.graph.push(Node {
            op,
            section,
            inputs: &inputs,
            weights: weight.as_slice(),
            states: caches.as_ref().map_or(&[], |caches| &caches[..]),
            outputs: output.as_slice(),
        });
        Ok(())
    }

    fn wrong(&self, entry: &NodeEntry, message: &str) -> ModelError {
        self.definition.error_at(entry, message).into()
    }

    fn out_name(&self, entry: &'d NodeEntry) -> Result<&'d str, ModelError> {
        entry
            .out
            .as_deref()
            .ok_or_else(|| self.wrong(entry, "needs `out`"))
    }

    fn input(&self, entry: &NodeEntry, index: usize) -> Result<ValueId, ModelError> {
        let name = entry
            .inputs
            .get(index)
            .ok_or_else(|| self.wrong(entry, "needs `in`"))?;
        let id = self.names.get(name.as_str()).copied();
        id.ok_or_else(|| {
            self.wrong(
                entry,
                &format!("reads `{name}`, which no earlier node writes"),
            )
        })
    }

    fn layer_caches(
        &mut self,
        entry: &NodeEntry,
        section: Section,
    ) -> Result<[StateId; 2], ModelError> {
        let Section::Layer(layer) = section else {
            return Err(self.wrong(entry, "only a layer has a cache"));
        };
        let (graph, hyper, positions) = (&mut *self.graph, self.hyper, self.extent.context);
        let kv_type = self.extent.kv_type;
        let mut add = |kind| {
            let (kv_heads, head_size) = (hyper.kv_heads, hyper.head_size);
            graph.add_state(State {
                kind,
                layer,
                kv_heads,
                positions,
                head_size,
                kv_type,
            })
        };
        let caches = &mut self.caches;
        Ok(*caches.get_or_insert_with(|| [add(StateKind::Keys), add(StateKind::Values)]))
    }

    /// The weight that an entry names `name`: found, or tied, or absent if it may be; never of another
    /// shape.
    fn weight(
        &mut self,
        entry: &NodeEntry,
        mut name: &'d str,
        section: Section,
    ) -> Result<Option<WeightId>, ModelError> {
        let asked = self.weight_entry(entry, name)?;
        let mut found = self.find(asked, section);
        let mut used = asked;
        if let (None, Some(tied)) = (&found, &asked.tied) {
            name = tied;
            used = self.weight_entry(entry, name)?;
            found = self.find(used, section);
        }
        let tensor_name = placed(&used.gguf, section);
        let Some((dtype, shape)) = found else {
            if asked.optional {
                return Ok(None);
            }
            return Err(ModelError::MissingTensor {
                source_name: self.source.into(),
                tensor: placed(&asked.gguf, section),
                shape: self.shape(entry, asked)?,
            });
        };
        let expected = self.shape(entry, used)?;
        if shape != expected {
            return Err(ModelError::Shape {
                source_name: self.source.into(),
                tensor: tensor_name,
                expected,
                found: shape,
            });
        }
        if !dtype.is_runnable() {
            return Err(ModelError::Type {
                source_name: self.source.into(),
                tensor: tensor_name,
                found: dtype,
            });
        }
        if shape.len() == 1 && !dtype.is_float() {
            return Err(ModelError::VectorType {
                source_name: self.source.into(),
                tensor: tensor_name,
                found: dtype,
            });
        }
        Ok(Some(self.graph.add_weight(&tensor_name, dtype, &shape)))
    }

    fn weight_entry(&self, entry: &NodeEntry, name: &str) -> Result<&'d WeightEntry, ModelError> {
        let found = self.definition.weights.get(name);
        found.ok_or_else(|| self.wrong(entry, &format!("names no weight of the list: `{name}`")))
    }

    fn find(&self, entry: &WeightEntry, section: Section) -> Option<(DType, Vec<usize>)> {
        (self.lookup)(&placed(&entry.gguf, section))
    }

    fn shape(&self, node: &NodeEntry, entry: &WeightEntry) -> Result<Vec<usize>, ModelError> {
        let length = |letter: &String| match self.hyper.dimension(letter) {
            Some(length) => Ok(length as usize),
            None => Err(self.wrong(node, &format!("`{letter}` is no dimension"))),
        };
        entry.shape.iter().map(length).collect()
    }
}

/// A weight's name with the layer in place of `{layer}`.
pub(super) fn placed(name: &str, section: Section) -> String {
    match section {
        Section::Layer(layer) => name.replace("{layer}", &layer.to_string()),
        Section::Prologue | Section::Epilogue => name.to_string(),
    }
}
