//! Rounds the activations that quantised weights multiply to integers, once for all their readers:
//! in the producer where it can do it on the way out, else in a `quantize` node of its own.

use super::Report;
use crate::graph::{Element, Graph, Node, Op, Value, ValueId};

pub(super) fn quantize_activations(
    mut graph: Graph<'_>,
    gated_quantizes: bool,
) -> (Graph<'_>, Report) {
    let mut report = Report::new("quantize_activations");
    let producers = graph.producers();
    let wanted: Vec<bool> = wants(&graph);
    let uses = graph.use_counts();
    let mut quantized: Vec<Option<ValueId>> = vec![None; graph.values().len()];
    let mut folded = Vec::new();
    for index in 0..graph.values().len() {
        let value = ValueId::new(index);
        let readers = quantised_readers(&graph, value, &wanted);
        if readers == 0 {
            continue;
        }
        let producer = producers[index].map(|id| graph.node(id).op);
        let able = match producer {
            Some(Op::RmsNorm { groups: 1, .. } | Op::AttentionCombine { .. }) => true,
            Some(Op::GatedGemm(_) | Op::NormGatedGemm { .. }) => gated_quantizes,
            // A KV head's columns are rounded by themselves.
            Some(Op::AttentionStep { heads, .. }) => {
                (heads.query / heads.kv * heads.size).is_multiple_of(32)
            }
            _ => false,
        };
        if able && readers == uses[index] {
            folded.push(value);
            report.fired += 1;
            continue;
        }
        report.skip(match producer {
            _ if able => "the value is read as f32 too".to_string(),
            Some(op) => format!("{} leaves it to a quantize node", op.name()),
            None => "nobody writes the value".to_string(),
        });
        let Value {
            name, rows, cols, ..
        } = *graph.value(value);
        let q = graph.add_value(Value {
            name,
            rows,
            cols,
            element: Element::Q15A,
        });
        quantized[index] = Some(q);
    }
    for value in folded {
        graph.set_element(value, Element::Q15A);
    }

    let mut next = graph.without_nodes();
    for (index, node) in graph.nodes().iter().enumerate() {
        let mut inputs = node.inputs.to_vec();
        if wanted[index]
            && let Some(q) = quantized[inputs[0].index()]
        {
            inputs[0] = q;
        }
        next.push(Node {
            inputs: &inputs,
            ..*node
        });
        for &output in node.outputs {
            if let Some(q) = quantized[output.index()] {
                let (inputs, outputs) = (&[output][..], &[q][..]);
                let (weights, states) = (&[][..], &[][..]);
                let section = node.section;
                next.push(Node {
                    op: Op::Quantize,
                    section,
                    inputs,
                    weights,
                    states,
                    outputs,
                });
            }
        }
    }
    (next, report)
}

/// For every node, whether its first input is multiplied by quantised weights.
fn wants(graph: &Graph<'_>) -> Vec<bool> {
    let wants = |n: &Node<'_>| {
        matches!(n.op, Op::Gemm { .. } | Op::GatedGemm(_))
            && n.weights.iter().all(|&w| !graph.weight(w).dtype.is_float())
    };
    graph.nodes().iter().map(wants).collect()
}

fn quantised_readers(graph: &Graph<'_>, value: ValueId, wanted: &[bool]) -> u32 {
    let readers = graph.nodes().iter().zip(wanted);
    readers
        .filter(|(n, wanted)| **wanted && n.inputs[0] == value)
        .count() as u32
}
