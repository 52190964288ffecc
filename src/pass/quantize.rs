//! Rounds activations once for all their readers: to integers for quantised weights, or, where many
//! rows go to a GPU's matrix cores, to 16-bit floats for weights of any type but f32. In the producer
//! where it can do it on the way out, else in a `quantize` node of its own.

use super::{Options, Report};
use crate::dtype::DType;
use crate::graph::{Element, Graph, Node, Op, Value, ValueId};

pub(super) fn quantize_activations(mut graph: Graph<'_>, options: Options) -> (Graph<'_>, Report) {
    let mut report = Report::new("quantize_activations");
    let producers = graph.producers();
    let wanted: Vec<Option<Element>> = wants(&graph, options.half_rows);
    let uses = graph.use_counts();
    let mut quantized: Vec<Option<ValueId>> = vec![None; graph.values().len()];
    let mut folded = Vec::new();
    for index in 0..graph.values().len() {
        let value = ValueId::new(index);
        let Some((element, readers)) = rounded_readers(&graph, value, &wanted) else {
            continue;
        };
        let producer = producers[index].map(|id| graph.node(id).op);
        let able = match (producer, element) {
            (Some(Op::RmsNorm { groups: 1, .. }), _) => true,
            (Some(Op::AttentionCombine { .. }), Element::Q15A) => true,
            (Some(Op::GatedGemm(_) | Op::NormGatedGemm { .. }), Element::Q15A) => {
                options.gated_quantizes
            }
            // A KV head's columns are rounded by themselves.
            (Some(Op::AttentionStep { heads, .. }), Element::Q15A) => {
                (heads.query / heads.kv * heads.size).is_multiple_of(32)
            }
            (Some(Op::GatedMul(_)), Element::F16) => true,
            _ => false,
        };
        if able && readers == uses[index] {
            folded.push((value, element));
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
            element,
        });
        quantized[index] = Some(q);
    }
    for (value, element) in folded {
        graph.set_element(value, element);
    }

    let mut next = graph.without_nodes();
    for (index, node) in graph.nodes().iter().enumerate() {
        let mut inputs = node.inputs.to_vec();
        if wanted[index].is_some()
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

/// For every node, what its first input is to be rounded to, if anything.
fn wants(graph: &Graph<'_>, half_rows: Option<u32>) -> Vec<Option<Element>> {
    let wants = |n: &Node<'_>| {
        let dtypes = || n.weights.iter().map(|&w| graph.weight(w).dtype);
        let rows = || graph.value(n.inputs[0]).rows;
        let half = |n: &Node<'_>| {
            matches!(n.op, Op::Gemm { .. } | Op::GatedGemm(_))
                && half_rows.is_some_and(|least| rows() >= least)
                && dtypes().all(|dtype| dtype != DType::F32)
        };
        match n.op {
            Op::Gemm { .. } | Op::GatedGemm(_) if half(n) => Some(Element::F16),
            Op::Gemm { .. } | Op::GatedGemm(_) if dtypes().all(|d| !d.is_float()) => {
                Some(Element::Q15A)
            }
            _ => None,
        }
    };
    graph.nodes().iter().map(wants).collect()
}

/// What the readers that want a value rounded want, and how many they are. They agree, since they
/// have the same rows: all of them take 16-bit floats, or none does.
fn rounded_readers(
    graph: &Graph<'_>,
    value: ValueId,
    wanted: &[Option<Element>],
) -> Option<(Element, u32)> {
    let readers = graph.nodes().iter().zip(wanted);
    let mut readers = readers.filter_map(|(n, wanted)| wanted.filter(|_| n.inputs[0] == value));
    let first = readers.next()?;
    let same = readers.inspect(|element| assert_eq!(*element, first, "{value}"));
    Some((first, 1 + same.count() as u32))
}
