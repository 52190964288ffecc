//! Offsets: greedy by size (arXiv:2001.03288, "Efficient Memory Management for Deep Neural Net
//! Inference", algorithm 3). The largest value is placed first; each next one goes into the
//! smallest gap between the values it overlaps in time, or above them all.

use super::Interval;

/// An offset for each interval, in their order, and the arena they need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    pub offsets: Vec<usize>,
    /// Bytes from 0 to the end of the highest value.
    pub arena_bytes: usize,
}

/// Places every interval. Sizes that are multiples of [`super::ALIGNMENT`] give such offsets.
pub fn assign(intervals: &[Interval]) -> Placement {
    let mut order: Vec<usize> = (0..intervals.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(intervals[i].bytes), intervals[i].first, i));

    let mut offsets = vec![0; intervals.len()];
    let mut arena_bytes = 0;
    let mut placed: Vec<usize> = Vec::new(); // by offset
    for index in order {
        let interval = &intervals[index];
        let alive = |i: &&usize| {
            let other = &intervals[**i];
            other.first <= interval.last && interval.first <= other.last
        };
        let (mut best, mut best_gap) = (None, usize::MAX);
        let mut free_from = 0;
        for &other in placed.iter().filter(alive) {
            let offset = offsets[other];
            if offset >= free_from {
                let gap = offset - free_from;
                if gap >= interval.bytes && gap < best_gap {
                    (best, best_gap) = (Some(free_from), gap);
                }
            }
            free_from = free_from.max(offset + intervals[other].bytes);
        }
        let offset = best.unwrap_or(free_from);
        offsets[index] = offset;
        arena_bytes = arena_bytes.max(offset + interval.bytes);
        let at = placed.partition_point(|&i| offsets[i] <= offset);
        placed.insert(at, index);
    }
    Placement {
        offsets,
        arena_bytes,
    }
}
