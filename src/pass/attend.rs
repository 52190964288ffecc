//! `rope_append` and the `attention` that reads its query → one `attention_step` over one row: what
//! each needs of the other is on the chip anyway.

use super::{Report, Slots};
use crate::graph::{Element, Graph, Heads, KvType, Node, NodeId, Op, Value};

/// Positions that a block of attention takes at a time, and so the least that are worth a block.
const CHUNK: u32 = 64;

/// What a block may hold of its KV head, in bytes of on-chip memory: the smallest devices have 64 KiB, and the
/// kernels take up to 33 of them besides. One bound for all, so that tokens do not depend on the device.
const HELD_BYTES: u64 = 31 << 10;

/// Bytes that a block holds: the turned queries as f32, and the step's own keys and values as f16.
fn held_bytes(heads: Heads) -> u64 {
    let queries = u64::from(heads.query / heads.kv);
    (4 * queries + 2 * 2) * u64::from(heads.size)
}

/// Shares the positions of each KV head among so many blocks that all heads have `blocks`, as far as
/// there are positions; `None` fuses nothing.
pub(super) fn fuse_attention_steps(
    mut graph: Graph<'_>,
    blocks: Option<u32>,
) -> (Graph<'_>, Report) {
    let mut report = Report::new("fuse_attention_steps");
    let (producers, uses) = (graph.producers(), graph.use_counts());
    let mut slots = Slots::new(&graph);
    for index in 0..graph.nodes().len() {
        let node = *graph.node(NodeId::new(index));
        let Op::Attention {
            heads,
            scale,
            window,
        } = node.op
        else {
            continue;
        };
        let q = node.inputs[0];
        let Some(before) = producers[q.index()] else {
            continue;
        };
        let turned = *graph.node(before);
        let Op::RopeAppend {
            heads: turned_heads,
            dims,
            style,
        } = turned.op
        else {
            report.skip("q is not turned with k as it is appended");
            continue;
        };
        let reason = if uses[q.index()] != 1 {
            Some("the turned q is read elsewhere too")
        } else if turned_heads != heads || turned.states != node.states {
            Some("it attends to another cache than the one appended to")
        } else if graph
            .nodes()
            .iter()
            .filter(|n| n.states == node.states)
            .count()
            != 2
        {
            Some("the cache is read elsewhere too")
        } else if graph.value(q).rows > 1 {
            Some("several rows")
        } else if graph.state(node.states[0]).kv_type != KvType::F16 {
            Some("the cache is not f16")
        } else if held_bytes(heads) > HELD_BYTES {
            Some("the queries of a KV head need more than the 31 KiB of a block's on-chip memory")
        } else if blocks.is_none() {
            Some("the target keeps them apart")
        } else {
            None
        };
        if let Some(reason) = reason {
            report.skip(reason);
            continue;
        }
        let positions = graph.state(node.states[0]).positions;
        // Blocks that serve several heads take twice the room.
        let shared = blocks.unwrap_or(1) / (heads.kv * if heads.query > heads.kv { 2 } else { 1 });
        let blocks = shared.clamp(4, 64).min(positions.div_ceil(CHUNK));
        let Some(cols) = heads.partials(blocks) else {
            report.skip(format!(
                "{blocks} blocks for {heads} are more partial results than the {} columns of a value",
                u32::MAX
            ));
            continue;
        };
        let partials = graph.add_value(Value {
            name: "partials",
            rows: 1,
            cols,
            element: Element::F32,
        });
        let op = Op::AttentionStep {
            heads,
            dims,
            style,
            scale,
            window,
            blocks,
        };
        slots.take(before);
        let fused = Node {
            op,
            inputs: turned.inputs,
            outputs: &[node.outputs[0], partials],
            ..node
        };
        slots.replace(&graph, NodeId::new(index), fused);
        report.fired += 1;
    }
    (slots.finish(&graph), report)
}
