//! `attention` over one row → `attention_split` + `attention_combine`, so that one row's work
//! spreads over the cache and not only over the heads (Flash-Decoding).

use super::Report;
use crate::graph::{Element, Graph, Node, Op, Value};

pub(super) fn split_attention(graph: Graph<'_>, split: u32) -> (Graph<'_>, Report) {
    let mut report = Report::new("split_attention");
    let mut next = graph.without_nodes();
    for node in graph.nodes() {
        let Op::Attention {
            heads,
            scale,
            window,
        } = node.op
        else {
            next.push(*node);
            continue;
        };
        if graph.value(node.inputs[0]).rows > 1 {
            report.skip("several rows already spread the work");
            next.push(*node);
            continue;
        }
        let splits = graph.state(node.states[0]).positions.div_ceil(split);
        // The attention of one row is right without being split, only slower.
        let Some(cols) = heads.partials(splits) else {
            report.skip(format!(
                "{splits} splits for {heads} are more partial results than the {} columns of a value",
                u32::MAX
            ));
            next.push(*node);
            continue;
        };
        let element = Element::F32;
        let partials = next.add_value(Value {
            name: "partials",
            rows: 1,
            cols,
            element,
        });
        let op = Op::AttentionSplit {
            heads,
            scale,
            window,
            split,
        };
        next.push(Node {
            op,
            outputs: &[partials],
            ..*node
        });
        let op = Op::AttentionCombine {
            heads,
            window,
            split,
        };
        next.push(Node {
            op,
            inputs: &[partials],
            states: &[],
            ..*node
        });
        report.fired += 1;
    }
    (next, report)
}
