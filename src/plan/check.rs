//! The proof of a placement, which shares no code and no idea with the assigner: it sweeps the
//! nodes in order, keeps the set of live values, and looks at every pair in it.

use super::{ALIGNMENT, Interval, Placement};
use crate::graph::ValueId;
use std::collections::HashMap;
use thiserror::Error;

/// A placement that has been proved, ready for a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    intervals: Vec<Interval>,
    offsets: HashMap<ValueId, usize>,
    arena_bytes: usize,
    peak_live_bytes: usize,
}

impl Plan {
    /// The arena offset of a value; `None` if no node writes it.
    pub fn offset(&self, value: ValueId) -> Option<usize> {
        self.offsets.get(&value).copied()
    }

    /// Bytes of the arena.
    pub fn arena_bytes(&self) -> usize {
        self.arena_bytes
    }

    /// The most bytes alive at any node: what no placement can go below.
    pub fn peak_live_bytes(&self) -> usize {
        self.peak_live_bytes
    }

    /// Bytes that values of their own would take without sharing.
    pub fn unshared_bytes(&self) -> usize {
        self.intervals.iter().map(|i| i.bytes).sum()
    }

    /// The intervals, in the order of their writes.
    pub fn intervals(&self) -> &[Interval] {
        &self.intervals
    }
}

/// Two values that would overwrite each other, or a place that is none.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    #[error("{a} at {a_at} and {b} at {b_at} share bytes and are both alive at node {node}")]
    Overlap {
        a: ValueId,
        a_at: usize,
        b: ValueId,
        b_at: usize,
        node: usize,
    },
    #[error("{value} at {offset}: expected an offset and a size in multiples of {ALIGNMENT}")]
    Misaligned { value: ValueId, offset: usize },
    #[error("{value} ends at {end}, past the arena's {arena_bytes} bytes")]
    Outside {
        value: ValueId,
        end: usize,
        arena_bytes: usize,
    },
    #[error("{value} is placed twice")]
    Twice { value: ValueId },
    #[error("{intervals} values but {offsets} offsets")]
    Count { intervals: usize, offsets: usize },
}

/// Proves `placement` for `intervals`, or says which bytes two values would fight over.
pub fn check(intervals: Vec<Interval>, placement: Placement) -> Result<Plan, PlanError> {
    let Placement {
        offsets,
        arena_bytes,
    } = placement;
    if intervals.len() != offsets.len() {
        let (intervals, offsets) = (intervals.len(), offsets.len());
        return Err(PlanError::Count { intervals, offsets });
    }
    let mut by_value = HashMap::new();
    for (interval, &offset) in intervals.iter().zip(&offsets) {
        let value = interval.value;
        if offset % ALIGNMENT != 0 || interval.bytes % ALIGNMENT != 0 {
            return Err(PlanError::Misaligned { value, offset });
        }
        let end = offset.saturating_add(interval.bytes);
        if end > arena_bytes {
            return Err(PlanError::Outside {
                value,
                end,
                arena_bytes,
            });
        }
        if by_value.insert(value, offset).is_some() {
            return Err(PlanError::Twice { value });
        }
    }

    let end = intervals.iter().map(|i| i.last + 1).max().unwrap_or(0);
    let mut peak_live_bytes = 0;
    let mut live: Vec<(Interval, usize)> = Vec::new();
    for node in 0..end {
        live.retain(|(interval, _)| interval.last >= node);
        for (interval, &offset) in intervals
            .iter()
            .zip(&offsets)
            .filter(|(i, _)| i.first == node)
        {
            for (other, other_offset) in &live {
                let (start, stop) = (offset, offset + interval.bytes);
                let (other_start, other_stop) = (*other_offset, other_offset + other.bytes);
                if start < other_stop && other_start < stop {
                    let (a, a_at, b, b_at) = (other.value, *other_offset, interval.value, offset);
                    return Err(PlanError::Overlap {
                        a,
                        a_at,
                        b,
                        b_at,
                        node,
                    });
                }
            }
            live.push((*interval, offset));
        }
        peak_live_bytes = peak_live_bytes.max(live.iter().map(|(i, _)| i.bytes).sum());
    }
    Ok(Plan {
        intervals,
        offsets: by_value,
        arena_bytes,
        peak_live_bytes,
    })
}
