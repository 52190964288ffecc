//! `gated_mul(x·W_gᵀ, x·W_uᵀ)` → one `gated_gemm`: the two products never reach memory.

use super::{Gates, Report, Slots};
use crate::dtype::DType;
use crate::graph::{Graph, Node, NodeId, Op};

/// From `half_rows` rows on products take 16-bit floats.
pub(super) fn fuse_gates(
    graph: Graph<'_>,
    gates: Gates,
    half_rows: Option<u32>,
) -> (Graph<'_>, Report) {
    let mut report = Report::new("fuse_gates");
    let (producers, uses) = (graph.producers(), graph.use_counts());
    let mut slots = Slots::new(&graph);
    for (index, node) in graph.nodes().iter().enumerate() {
        let Op::GatedMul(activation) = node.op else {
            continue;
        };
        let made_by: Option<Vec<(NodeId, &Node<'_>)>> = node
            .inputs
            .iter()
            .map(|v| producers[v.index()].map(|id| (id, graph.node(id))))
            .collect();
        let Some([(gate_id, gate), (up_id, up)]) = made_by.as_deref() else {
            continue;
        };
        let plain = |n: &Node<'_>| n.op == Op::Gemm { residual: false } && n.outputs.len() == 1;
        if !(plain(gate) && plain(up)) {
            report.skip("gate or up is not a GEMM");
            continue;
        }
        if gate.inputs != up.inputs {
            report.skip("gate and up read different values");
            continue;
        }
        if node.inputs.iter().any(|v| uses[v.index()] != 1) {
            report.skip("gate or up is read elsewhere too");
            continue;
        }
        let types = [gate, up].map(|n| graph.weight(n.weights[0]).dtype);
        if types[0].is_float() != types[1].is_float() {
            report.skip("one of gate and up is quantised, the other is not");
            continue;
        }
        if gates == Gates::OneType {
            let rows = graph.value(node.outputs[0]).rows;
            let half = half_rows.is_some_and(|least| rows >= least) && types[0] != DType::F32;
            if rows > 1 && !half {
                report.skip("several rows");
                continue;
            }
            if types[0] != types[1] {
                report.skip("gate and up have different types");
                continue;
            }
        }
        slots.take(*gate_id);
        slots.take(*up_id);
        let weights = [gate.weights[0], up.weights[0]];
        let fused = Node {
            op: Op::GatedGemm(activation),
            inputs: gate.inputs,
            weights: &weights,
            ..*node
        };
        slots.replace(&graph, NodeId::new(index), fused);
        report.fired += 1;
    }
    (slots.finish(&graph), report)
}
