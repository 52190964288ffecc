//! `add(x, gemm(…))` → the GEMM's epilogue adds `x`.

use super::{Report, Slots};
use crate::graph::{Graph, Node, NodeId, Op};

pub(super) fn fuse_residuals(graph: Graph<'_>) -> (Graph<'_>, Report) {
    let mut report = Report::new("fuse_residuals");
    let (producers, uses) = (graph.producers(), graph.use_counts());
    let mut slots = Slots::new(&graph);
    for (index, node) in graph.nodes().iter().enumerate() {
        if node.op != Op::Add {
            continue;
        }
        // The sum is symmetric: either side may be the product, best one that only the sum reads.
        let candidates = [
            (node.inputs[1], node.inputs[0]),
            (node.inputs[0], node.inputs[1]),
        ];
        let products = candidates.into_iter().filter_map(|(product, other)| {
            let id = producers[product.index()]?;
            let gemm = graph.node(id);
            let plain = gemm.op == Op::Gemm { residual: false } && gemm.outputs.len() == 1;
            let alone = uses[product.index()] == 1;
            (plain && product != other).then_some((alone, id, gemm, other))
        });
        let Some((alone, id, gemm, other)) = products.min_by_key(|(alone, ..)| !alone) else {
            report.skip("neither side is a GEMM of its own");
            continue;
        };
        if !alone {
            report.skip("the product is read elsewhere too");
            continue;
        }
        slots.take(id);
        let inputs = [gemm.inputs[0], other];
        let op = Op::Gemm { residual: true };
        let fused = Node {
            op,
            inputs: &inputs,
            weights: gemm.weights,
            ..*node
        };
        slots.replace(&graph, NodeId::new(index), fused);
        report.fired += 1;
    }
    (slots.finish(&graph), report)
}
