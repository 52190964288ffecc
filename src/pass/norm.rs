//! `rms_norm` whose readers are GEMMs → each of them normalises x itself, in its prologue. A norm of
//! one row is short beside the matrix that waits for it, and a launch of its own would idle the
//! memory meanwhile.

use super::{Report, Slots};
use crate::graph::{Graph, Node, NodeId, Op};

/// Norms of at most `cols` columns; 0 leaves all.
pub(super) fn fuse_norms(graph: Graph<'_>, cols: u32) -> (Graph<'_>, Report) {
    let mut report = Report::new("fuse_norms");
    let uses = graph.use_counts();
    let mut slots = Slots::new(&graph);
    for (index, norm) in graph.nodes().iter().enumerate() {
        let Op::RmsNorm { eps, groups } = norm.op else {
            continue;
        };
        let (x, y) = (norm.inputs[0], norm.outputs[0]);
        let readers: Vec<(NodeId, &Node<'_>, Op)> = (index + 1..graph.nodes().len())
            .map(NodeId::new)
            .filter_map(|id| {
                let node = graph.node(id);
                let op = match node.op {
                    Op::Gemm { residual: false } => Op::NormGemm { eps },
                    Op::GatedGemm(activation) => Op::NormGatedGemm { eps, activation },
                    _ => return None,
                };
                (node.inputs[0] == y).then_some((id, node, op))
            })
            .collect();
        let reason = if readers.is_empty() || readers.len() as u32 != uses[y.index()] {
            Some("something else than a product reads it")
        } else if groups != 1 {
            Some("each of several groups has a norm")
        } else if graph.value(y).rows > 1 {
            Some("several rows")
        } else if graph.value(y).cols > cols {
            Some("the row is too long, or the target keeps norms apart")
        } else {
            None
        };
        if let Some(reason) = reason {
            report.skip(reason);
            continue;
        }
        slots.take(NodeId::new(index));
        for (id, node, op) in readers {
            let mut weights = node.weights.to_vec();
            weights.extend(norm.weights);
            let fused = Node {
                op,
                inputs: &[x],
                weights: &weights,
                ..*node
            };
            slots.replace(&graph, id, fused);
        }
        report.fired += 1;
    }
    (slots.finish(&graph), report)
}
