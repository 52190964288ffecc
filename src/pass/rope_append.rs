//! `rope(q)`, `rope(k)`, `kv_append(k, v)` → one `rope_append`: k goes to the cache as it is turned.

use super::{Report, Slots};
use crate::graph::{Graph, Heads, Node, NodeId, Op};

pub(super) fn fuse_rope_append(graph: Graph<'_>) -> (Graph<'_>, Report) {
    let mut report = Report::new("fuse_rope_append");
    let (producers, uses) = (graph.producers(), graph.use_counts());
    let mut slots = Slots::new(&graph);
    for (index, node) in graph.nodes().iter().enumerate() {
        let Op::KvAppend {
            kv_heads,
            head_size,
        } = node.op
        else {
            continue;
        };
        let (k, v) = (node.inputs[0], node.inputs[1]);
        let Some(k_id) = producers[k.index()] else {
            continue;
        };
        let k_node = graph.node(k_id);
        let Op::Rope {
            heads: k_heads,
            head_size: k_size,
            dims,
            style,
        } = k_node.op
        else {
            report.skip("k is not turned");
            continue;
        };
        if (k_heads, k_size) != (kv_heads, head_size) {
            report.skip("k is turned in heads other than the cache's");
            continue;
        }
        if uses[k.index()] != 1 {
            report.skip("the turned k is read elsewhere too");
            continue;
        }
        // The query of the same section, turned before the append by the same table and not yet read.
        let query = (0..index).rev().find_map(|i| {
            let other = &graph.nodes()[i];
            let Op::Rope {
                heads,
                head_size: size,
                dims: d,
                style: s,
            } = other.op
            else {
                return None;
            };
            let alike =
                (size, d, s) == (head_size, dims, style) && other.inputs[1] == k_node.inputs[1];
            let unread = !graph.nodes()[..=index]
                .iter()
                .any(|n| n.inputs.contains(&other.outputs[0]));
            let beside = i != k_id.index() && other.section == node.section;
            (alike && unread && beside).then_some((NodeId::new(i), other, heads))
        });
        let Some((q_id, q_node, query_heads)) = query else {
            report.skip("no query is turned beside it by the same table");
            continue;
        };
        slots.take(q_id);
        slots.take(k_id);
        let heads = Heads {
            query: query_heads,
            kv: kv_heads,
            size: head_size,
        };
        let inputs = [q_node.inputs[0], k_node.inputs[0], v, k_node.inputs[1]];
        let op = Op::RopeAppend { heads, dims, style };
        let fused = Node {
            op,
            inputs: &inputs,
            outputs: q_node.outputs,
            ..*node
        };
        slots.replace(&graph, NodeId::new(index), fused);
        report.fired += 1;
    }
    (slots.finish(&graph), report)
}
