//! Launches → the driver's graph, and proof that it holds them.

use super::GpuError;
use super::launch::KernelLaunch;
use super::resolve::Resolved;
use crate::hip::{CaptureMode, Graph, GraphExec, NodeKind, Stream};
use std::path::Path;

/// A captured graph, for looking at it; nothing runs it.
pub struct Captured {
    graph: Graph,
    /// What the driver says its nodes are, in the order of their creation.
    pub kinds: Vec<NodeKind>,
    /// Pairs of indices into `kinds`: from, to.
    pub edges: Vec<(usize, usize)>,
    /// The kernel of each launch, in order.
    pub kernels: Vec<String>,
    /// The program's launch that each is a part of.
    pub launches: Vec<Option<usize>>,
}

impl Captured {
    pub(super) fn new(
        stream: &Stream,
        resolved: &mut [Resolved],
        launches: &[KernelLaunch],
    ) -> Result<Self, GpuError> {
        let graph = capture(stream, resolved, 1)?;
        Ok(Captured {
            kinds: graph.nodes()?,
            edges: graph.edges()?,
            graph,
            kernels: launches.iter().map(|l| l.kernel.clone()).collect(),
            launches: launches.iter().map(|l| l.launch).collect(),
        })
    }

    /// Has the driver write its own drawing of the graph to a file.
    pub fn write_dot(&self, path: &Path) -> Result<(), GpuError> {
        Ok(self.graph.debug_dot(path)?)
    }
}

/// Captures `steps` times everything, checks, instantiates and uploads; the template is dropped. `Err`
/// says why this driver cannot be trusted with a recording.
pub fn instantiate(
    stream: &Stream,
    resolved: &mut [Resolved],
    steps: u32,
) -> Result<GraphExec, String> {
    let say = |error: &dyn std::error::Error| error.to_string();
    let graph = capture(stream, resolved, steps).map_err(|e| say(&e))?;
    let kinds = graph.nodes().map_err(|e| say(&e))?;
    let (nodes, kernels) = (kinds.len(), steps as usize * resolved.len());
    if nodes != kernels {
        return Err(format!(
            "the driver recorded {nodes} nodes for {kernels} kernels"
        ));
    }
    if let Some(kind) = kinds.iter().find(|&&kind| kind != NodeKind::Kernel) {
        return Err(format!(
            "the driver recorded a {kind:?} node among the kernels"
        ));
    }
    let exec = GraphExec::instantiate(&graph).map_err(|e| say(&e))?;
    exec.upload(stream).map_err(|e| say(&e))?;
    stream.synchronize().map_err(|e| say(&e))?;
    Ok(exec)
}

/// Launches everything on the capturing stream, which is asked for its status before it is believed.
fn capture(stream: &Stream, resolved: &mut [Resolved], steps: u32) -> Result<Graph, GpuError> {
    let graph = stream.capture(CaptureMode::ThreadLocal, |stream| {
        (0..steps).try_for_each(|_| {
            resolved.iter_mut().try_for_each(|resolved| {
                // SAFETY: while capturing nothing runs, and who captures has the stream alone
                // (`Shared::stream`). Graphs made of this are launched only by the recording that keeps
                // the buffers alive.
                unsafe { resolved.launch(stream) }
            })
        })
    })?;
    Ok(graph)
}
