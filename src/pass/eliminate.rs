//! Removes nodes that nothing depends on. Appending to a cache and choosing a token are effects and
//! always stay.

use super::{Report, Slots};
use crate::graph::{Graph, NodeId};

pub(super) fn eliminate_dead(graph: Graph<'_>) -> (Graph<'_>, Report) {
    let mut report = Report::new("eliminate_dead");
    let mut live = vec![false; graph.values().len()];
    if let Some(result) = graph.result() {
        live[result.index()] = true;
    }
    let mut slots = Slots::new(&graph);
    for (index, node) in graph.nodes().iter().enumerate().rev() {
        if node.op.has_effect() || node.outputs.iter().any(|v| live[v.index()]) {
            node.inputs.iter().for_each(|v| live[v.index()] = true);
        } else {
            slots.take(NodeId::new(index));
            report.fired += 1;
        }
    }
    (slots.finish(&graph), report)
}
