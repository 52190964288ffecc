//! A graph as text, one node a line, for `graph --format text` and for reading goldens.

use super::{Graph, NodeId, ValueId};
use std::fmt::Write;

/// `n3 layer 0  v5 q f32[1, 576] = gemm(v4; w3 blk.0.attn_q.weight Q4_1[576, 576])`, a node a line.
pub fn text(graph: &Graph<'_>) -> String {
    let mut out = String::new();
    for (index, node) in graph.nodes().iter().enumerate() {
        let outputs: Vec<String> = node.outputs.iter().map(|&v| value_text(graph, v)).collect();
        let mut operands: Vec<String> = node.inputs.iter().map(|v| v.to_string()).collect();
        operands.extend(node.weights.iter().map(|&w| {
            let weight = graph.weight(w);
            format!(
                "{w} {} {}{:?}",
                weight.name,
                weight.dtype.name(),
                weight.shape
            )
        }));
        operands.extend(node.states.iter().map(|s| s.to_string()));
        let id = NodeId::new(index);
        let attributes = node.op.attributes();
        let pad = if attributes.is_empty() { "" } else { " " };
        let result = if outputs.is_empty() {
            String::new()
        } else {
            outputs.join(", ") + " = "
        };
        let call = format!("{}({})", node.op.name(), operands.join(", "));
        writeln!(
            out,
            "{id} {}: {result}{call}{pad}{attributes}",
            node.section
        )
        .expect("writing to a string");
    }
    if let Some(result) = graph.result() {
        writeln!(out, "result {result}").expect("writing to a string");
    }
    out
}

fn value_text(graph: &Graph<'_>, id: ValueId) -> String {
    let value = graph.value(id);
    format!(
        "{id} {} {}[{}, {}]",
        value.name, value.element, value.rows, value.cols
    )
}
