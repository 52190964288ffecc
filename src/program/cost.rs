//! What a launch moves and computes: the numbers every report of GB/s and FLOP/s is made of.

use crate::graph::{Graph, KvType, Node, Op};
use serde::Serialize;
use std::iter::Sum;
use std::ops::Add;

/// Bytes and floating-point operations of one launch, at full rows. What grows with the context is
/// kept apart, per position in the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Weights read.
    pub weight_bytes: u64,
    /// Values read and written.
    pub value_bytes: u64,
    /// Cache written, whatever the position.
    pub cache_write_bytes: u64,
    /// Cache read for each position that is seen.
    pub cache_read_bytes_per_position: u64,
    /// Operations, a multiply-add counting as two.
    pub flops: u64,
    /// Operations for each position that is seen.
    pub flops_per_position: u64,
    /// Positions attention sees at most (its window), 0 for no bound.
    pub window: u64,
}

impl Cost {
    /// Bytes moved when `positions` are in the cache, the step's own included.
    pub fn bytes_at(&self, positions: u64) -> u64 {
        let seen = self.seen(positions);
        let fixed = self.weight_bytes + self.value_bytes + self.cache_write_bytes;
        fixed + seen * self.cache_read_bytes_per_position
    }

    /// Operations when `positions` are in the cache.
    pub fn flops_at(&self, positions: u64) -> u64 {
        self.flops + self.seen(positions) * self.flops_per_position
    }

    fn seen(&self, positions: u64) -> u64 {
        if self.window == 0 {
            positions
        } else {
            positions.min(self.window)
        }
    }
}

impl Add for Cost {
    type Output = Cost;

    /// Sums everything; a window survives only if both sides have the same, since the sum of
    /// launches is asked for at one position.
    fn add(self, other: Cost) -> Cost {
        let attends = |c: &Cost| c.cache_read_bytes_per_position > 0;
        let window = match (attends(&self), attends(&other)) {
            (false, _) => other.window,
            (_, false) => self.window,
            _ if self.window == other.window => self.window,
            _ => 0,
        };
        Cost {
            weight_bytes: self.weight_bytes + other.weight_bytes,
            value_bytes: self.value_bytes + other.value_bytes,
            cache_write_bytes: self.cache_write_bytes + other.cache_write_bytes,
            cache_read_bytes_per_position: self.cache_read_bytes_per_position
                + other.cache_read_bytes_per_position,
            flops: self.flops + other.flops,
            flops_per_position: self.flops_per_position + other.flops_per_position,
            window,
        }
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Cost>>(iter: I) -> Cost {
        iter.fold(Cost::default(), Add::add)
    }
}

/// The cost of one node.
pub fn cost(graph: &Graph<'_>, node: &Node<'_>) -> Cost {
    let value_bytes = |ids: &[crate::graph::ValueId]| -> u64 {
        ids.iter().map(|&v| graph.value(v).bytes() as u64).sum()
    };
    let rows = node.outputs.iter().chain(node.inputs).next();
    let rows = rows.map_or(1, |&v| u64::from(graph.value(v).rows));
    let elements = |ids: &[crate::graph::ValueId]| -> u64 {
        ids.iter()
            .map(|&v| u64::from(graph.value(v).rows) * u64::from(graph.value(v).cols))
            .sum()
    };
    let mut cost = Cost {
        weight_bytes: node
            .weights
            .iter()
            .map(|&w| graph.weight(w).bytes() as u64)
            .sum(),
        value_bytes: value_bytes(node.inputs) + value_bytes(node.outputs),
        ..Cost::default()
    };
    match node.op {
        Op::Embed { .. } => {
            let table = graph.weight(node.weights[0]);
            cost.weight_bytes = rows * (table.bytes() / table.rows().max(1)) as u64;
        }
        Op::RopeTable(rope) => cost.flops = rows * u64::from(rope.dims) * 8,
        Op::RmsNorm { .. } => cost.flops = 4 * elements(node.outputs),
        Op::Gemm { residual } => {
            let macs = gemm_macs(graph, node);
            cost.flops = 2 * macs + if residual { elements(node.outputs) } else { 0 };
        }
        Op::GatedGemm(_) => cost.flops = 2 * gemm_macs(graph, node) + 6 * elements(node.outputs),
        Op::NormGemm { .. } => {
            cost.flops = 2 * gemm_macs(graph, node) + 4 * elements(node.inputs);
        }
        Op::NormGatedGemm { .. } => {
            cost.flops =
                2 * gemm_macs(graph, node) + 4 * elements(node.inputs) + 6 * elements(node.outputs);
        }
        Op::Rope { heads, dims, .. } => {
            cost.flops = 3 * rows * u64::from(heads) * u64::from(dims);
        }
        Op::KvAppend { .. } => {
            cost.cache_write_bytes = kv_type(graph, node).bytes(elements(node.inputs));
        }
        Op::RopeAppend { heads, dims, .. } => {
            let turned = u64::from(heads.query + heads.kv) * u64::from(dims);
            cost.flops = 3 * rows * turned;
            let elements = 2 * rows * u64::from(heads.kv * heads.size);
            cost.cache_write_bytes = kv_type(graph, node).bytes(elements);
        }
        Op::Attention { heads, window, .. } | Op::AttentionSplit { heads, window, .. } => {
            let elements = 2 * u64::from(heads.kv * heads.size);
            cost.cache_read_bytes_per_position = kv_type(graph, node).bytes(elements);
            cost.flops_per_position = rows * 4 * u64::from(heads.query * heads.size);
            cost.window = window.map_or(0, u64::from);
            if let Op::AttentionSplit { .. } = node.op {
                // Only the splits that hold positions are written; count one per head.
                cost.value_bytes = value_bytes(node.inputs)
                    + u64::from(heads.query) * 4 * u64::from(heads.partial_len());
            }
        }
        Op::AttentionStep {
            heads,
            dims,
            window,
            ..
        } => {
            let (query, kv, size) = (heads.query, heads.kv, heads.size);
            let cached = kv_type(graph, node).bytes(2 * u64::from(kv * size));
            cost.cache_read_bytes_per_position = cached;
            cost.flops_per_position = 4 * u64::from(query * size);
            cost.window = window.map_or(0, u64::from);
            cost.flops = 3 * u64::from(query + kv) * u64::from(dims);
            cost.cache_write_bytes = cached;
            // Only the blocks that hold positions write partial results; count one a head, read once.
            let partials = 2 * u64::from(query) * 4 * u64::from(heads.partial_len());
            cost.value_bytes =
                value_bytes(node.inputs) + value_bytes(&node.outputs[..1]) + partials;
        }
        Op::AttentionCombine { heads, .. } => {
            let partial = u64::from(heads.query) * 4 * u64::from(heads.partial_len());
            cost.value_bytes = partial + value_bytes(node.outputs);
            cost.flops = 2 * elements(node.outputs);
        }
        Op::GatedMul(_) => cost.flops = 6 * elements(node.outputs),
        Op::Quantize => cost.flops = 2 * elements(node.outputs),
        Op::AddBias | Op::Add | Op::Scale { .. } => cost.flops = elements(node.outputs),
        Op::LastRow => cost.value_bytes = 2 * value_bytes(node.outputs),
        // What taking the likeliest token needs; other settings look again at a part.
        Op::Sample => cost.flops = elements(node.inputs),
    }
    cost
}

/// The type of the caches that a node touches.
fn kv_type(graph: &Graph<'_>, node: &Node<'_>) -> KvType {
    graph.state(node.states[0]).kv_type
}

fn gemm_macs(graph: &Graph<'_>, node: &Node<'_>) -> u64 {
    let rows = u64::from(graph.value(node.inputs[0]).rows);
    let matrix = |&w: &crate::graph::WeightId| {
        let weight = graph.weight(w);
        weight.rows() as u64 * weight.cols() as u64
    };
    // The vector of a norm multiplies nothing here.
    let matrices = node
        .weights
        .iter()
        .filter(|&&w| graph.weight(w).shape.len() > 1);
    rows * matrices.map(matrix).sum::<u64>()
}
