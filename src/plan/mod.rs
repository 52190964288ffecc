//! The plan: a static place in one arena for every temporary of a graph.
//!
//! Three steps with nothing in common but numbers. [`lifetimes`] says from which node to which each
//! value must keep its bytes; [`assign`] finds offsets; [`check`](fn@check) proves by brute force that no two
//! values alive at once share a byte. Only a [`Plan`] that passed can reach a program: `check` is
//! what makes one.

mod assign;
mod check;
mod lifetime;
#[cfg(test)]
mod tests;
mod text;

pub use assign::{Placement, assign};
pub use check::{Plan, PlanError, check};
pub use lifetime::{Interval, lifetimes};
pub use text::text;

/// Every offset and every size in the arena is a multiple of this many bytes: a GPU's widest
/// coalesced access, four cache lines of a CPU.
pub const ALIGNMENT: usize = 256;

/// Lifetimes, offsets, proof: the plan of a verified graph.
pub fn plan(graph: &crate::graph::Verified<'_>) -> Result<Plan, PlanError> {
    let intervals = lifetimes(graph);
    let placement = assign(&intervals);
    check(intervals, placement)
}
