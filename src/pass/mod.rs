//! Passes: Graph → Graph, one file each, every one a free function that reports how often it fired
//! and why it did not where it might have.
//!
//! The order matters and is fixed in [`optimise`]: pairs that feed a gate are taken before equal
//! inputs are merged, norms join the products that are then left, attention is fused or split before
//! its output is quantised, and quantisation comes last because by then it is known which nodes read
//! what. The graph is verified after each.

mod attend;
mod eliminate;
mod gate;
mod merge;
mod norm;
mod quantize;
mod residual;
mod rope_append;
mod split;
#[cfg(test)]
mod tests;

use crate::graph::{Graph, Node, NodeId, Verified, VerifyError, verify};
use std::fmt;

/// What a pass did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub pass: &'static str,
    /// Rewrites made.
    pub fired: usize,
    /// Places that looked right and were left alone: the reason, and how often it applied.
    pub skipped: Vec<(String, usize)>,
}

impl Report {
    fn new(pass: &'static str) -> Self {
        Report {
            pass,
            fired: 0,
            skipped: Vec::new(),
        }
    }

    fn skip(&mut self, reason: impl Into<String>) {
        let reason = reason.into();
        match self.skipped.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => self.skipped.push((reason, 1)),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: fired {}", self.pass, self.fired)?;
        for (reason, count) in &self.skipped {
            write!(f, "; left {count}: {reason}")?;
        }
        Ok(())
    }
}

/// What the passes may assume of the machine that will run the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Positions of the cache that one unit of single-row attention reads. Part of the graph, so
    /// that the order of summation, and with it every token, depends on nothing else.
    pub attention_split: u32,
    /// Which gates become one node with their two products.
    pub gates: Gates,
    /// Whether that node can round what it makes to integers on the way out; else a quantize node
    /// does.
    pub gated_quantizes: bool,
    /// Columns up to which a norm of one row is left to the products that read it; 0 leaves none.
    pub norm_cols: u32,
    /// Blocks over all KV heads that share one row's attention, when rope, append and attention are
    /// one node; `None` keeps them apart.
    pub attention_blocks: Option<u32>,
    /// From how many rows on products take activations of 16-bit floats; `None`: never.
    pub half_rows: Option<u32>,
}

/// Which gated feed-forwards are fused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gates {
    /// All.
    Any,
    /// Those whose two matrices have one type, over one row, or over as many as take 16-bit floats:
    /// other products gain nothing from reading both side by side.
    OneType,
}

/// Runs every pass and verifies after each.
pub fn optimise(
    graph: Graph<'_>,
    options: Options,
) -> Result<(Verified<'_>, Vec<Report>), VerifyError> {
    let mut reports = Vec::new();
    let mut graph = verify(graph)?;
    macro_rules! run {
        ($($pass:path $(, $argument:expr)*;)*) => {$(
            let (next, report) = $pass(graph.into_inner() $(, $argument)*);
            graph = verify(next)?;
            reports.push(report);
        )*};
    }
    run!(
        gate::fuse_gates, options.gates, options.half_rows;
        merge::merge_gemms;
        residual::fuse_residuals;
        norm::fuse_norms, options.norm_cols;
        rope_append::fuse_rope_append;
        attend::fuse_attention_steps, options.attention_blocks;
        split::split_attention, options.attention_split;
        quantize::quantize_activations, options;
        eliminate::eliminate_dead;
    );
    Ok((graph, reports))
}

/// The nodes of a graph under rewriting: slots that can be emptied or replaced in place.
struct Slots<'a> {
    nodes: Vec<Option<Node<'a>>>,
}

impl<'a> Slots<'a> {
    fn new(graph: &Graph<'a>) -> Self {
        Slots {
            nodes: graph.nodes().iter().copied().map(Some).collect(),
        }
    }

    fn take(&mut self, id: NodeId) {
        self.nodes[id.index()] = None;
    }

    /// Puts `node` in the slot of `id`; its slices move to the graph's arena.
    fn replace(&mut self, graph: &Graph<'a>, id: NodeId, node: Node<'_>) {
        self.nodes[id.index()] = Some(graph.adopt(node));
    }

    /// Fills the graph's node list with what is left, in order.
    fn finish(self, graph: &Graph<'a>) -> Graph<'a> {
        let mut next = graph.without_nodes();
        for node in self.nodes.into_iter().flatten() {
            next.push(node);
        }
        next
    }
}
