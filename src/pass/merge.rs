//! GEMMs that read the same value → one GEMM with an output for each: q, k and v in one launch.

use super::{Report, Slots};
use crate::graph::{Graph, Node, NodeId, Op};

pub(super) fn merge_gemms(graph: Graph<'_>) -> (Graph<'_>, Report) {
    let mut report = Report::new("merge_gemms");
    let mut slots = Slots::new(&graph);
    let mut merged = vec![false; graph.nodes().len()];
    let plain = |n: &Node<'_>| n.op == Op::Gemm { residual: false };
    for (first, node) in graph.nodes().iter().enumerate() {
        if merged[first] || !plain(node) {
            continue;
        }
        let float = |n: &Node<'_>| graph.weight(n.weights[0]).dtype.is_float();
        let (mut weights, mut outputs) = (node.weights.to_vec(), node.outputs.to_vec());
        for (index, other) in graph.nodes().iter().enumerate().skip(first + 1) {
            if merged[index] || !plain(other) || other.inputs != node.inputs {
                continue;
            }
            if float(other) != float(node) {
                report.skip("one is quantised, the other is not");
                continue;
            }
            weights.extend(other.weights);
            outputs.extend(other.outputs);
            merged[index] = true;
            slots.take(NodeId::new(index));
        }
        if weights.len() > 1 {
            let fused = Node {
                weights: &weights,
                outputs: &outputs,
                ..*node
            };
            slots.replace(&graph, NodeId::new(first), fused);
            report.fired += 1;
        }
    }
    (slots.finish(&graph), report)
}
