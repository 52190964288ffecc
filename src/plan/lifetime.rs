//! How long each value lives.

use super::ALIGNMENT;
use crate::graph::{ValueId, Verified};

/// A value's bytes and the nodes (by position) between which they must not be touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    pub value: ValueId,
    /// Rounded up to [`ALIGNMENT`].
    pub bytes: usize,
    /// The node that writes it.
    pub first: usize,
    /// The last node that reads it; one past the last node for the result.
    pub last: usize,
}

/// One interval for every value that a node writes, in the order of the writes.
///
/// Both ends are inclusive, so that a node's outputs never lie on its inputs: kernels may read
/// their inputs again after their first write.
pub fn lifetimes(graph: &Verified<'_>) -> Vec<Interval> {
    let mut last = vec![0; graph.values().len()];
    for (index, node) in graph.nodes().iter().enumerate() {
        for value in node.inputs.iter().chain(node.outputs) {
            last[value.index()] = index;
        }
    }
    if let Some(result) = graph.result() {
        last[result.index()] = graph.nodes().len();
    }
    let mut intervals = Vec::new();
    for (first, node) in graph.nodes().iter().enumerate() {
        for &value in node.outputs {
            let bytes = graph.value(value).bytes().next_multiple_of(ALIGNMENT);
            intervals.push(Interval {
                value,
                bytes,
                first,
                last: last[value.index()],
            });
        }
    }
    intervals
}
