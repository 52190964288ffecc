//! Capturing a stream's launches into a graph, and replaying it.
//!
//! Between [`Stream::begin_capture`] and [`Stream::end_capture`] what is put on the stream is recorded instead of done.
//! [`Stream::capture`] is both around a closure. What came out is a [`Graph`], a template that can be asked what is in
//! it; [`GraphExec`] is what runs. A capture can be void without any call in it having failed, so its status is asked.

use std::ffi::CString;
use std::fmt;
use std::path::Path;
use std::ptr;

use super::error::HipError;
use super::sys::{self, Handle};
use super::{Device, Stream};

/// Whose calls a capture forbids that cannot be recorded, such as allocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CaptureMode {
    /// Those of every thread.
    Global = 0,
    /// Those of the capturing thread.
    ThreadLocal = 1,
    /// Nobody's.
    Relaxed = 2,
}

/// Where a stream is with capturing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureStatus {
    None,
    Active,
    /// Something was called that cannot be recorded; ending the capture gives no graph.
    Invalidated,
    /// A number newer than this program.
    Unknown(u32),
}

impl From<u32> for CaptureStatus {
    fn from(status: u32) -> Self {
        match status {
            0 => CaptureStatus::None,
            1 => CaptureStatus::Active,
            2 => CaptureStatus::Invalidated,
            unknown => CaptureStatus::Unknown(unknown),
        }
    }
}

impl fmt::Display for CaptureStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CaptureStatus::None => f.write_str("not capturing"),
            CaptureStatus::Active => f.write_str("active"),
            CaptureStatus::Invalidated => f.write_str("invalidated"),
            CaptureStatus::Unknown(status) => write!(f, "with status {status}"),
        }
    }
}

/// What a node of a graph does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeKind {
    Kernel,
    Copy,
    Fill,
    Host,
    Graph,
    Empty,
    Wait,
    Record,
    /// One that this program never makes, by the driver's number.
    Other(u32),
}

impl From<u32> for NodeKind {
    fn from(kind: u32) -> Self {
        match kind {
            0 => NodeKind::Kernel,
            1 => NodeKind::Copy,
            2 => NodeKind::Fill,
            3 => NodeKind::Host,
            4 => NodeKind::Graph,
            5 => NodeKind::Empty,
            6 => NodeKind::Wait,
            7 => NodeKind::Record,
            other => NodeKind::Other(other),
        }
    }
}

impl Stream {
    /// Records what is put on the stream from now on, until [`end_capture`](Stream::end_capture) on the same thread.
    pub fn begin_capture(&self, mode: CaptureMode) -> Result<(), HipError> {
        let device = self.device();
        let row = &device.bind()?.capture_begin;
        // SAFETY: the stream is a live handle, and the mode one of the three there are.
        let status = unsafe { (row.function)(self.handle, mode as u32) };
        device.check(status, row.name, || self.to_string())
    }

    /// Where the stream is with capturing.
    pub fn capture_status(&self) -> Result<CaptureStatus, HipError> {
        let device = self.device();
        let row = &device.bind()?.capture_status;
        let mut capture = 0;
        // SAFETY: the stream is a live handle, and there is a place for the number that is written.
        let status = unsafe { (row.function)(self.handle, &mut capture) };
        device.check(status, row.name, || self.to_string())?;
        Ok(CaptureStatus::from(capture))
    }

    /// Ends the capture. The stream is out of it afterwards, whether there is a graph or an error.
    pub fn end_capture(&self) -> Result<Graph, HipError> {
        let device = self.device();
        // Some drivers end a void capture without an error, so it is asked for before.
        let before = self.capture_status();
        // Not `bind`, whose error would leave the stream capturing.
        let row = &device.table_to_drop().capture_end;
        let mut handle = ptr::null_mut();
        // SAFETY: the stream is a live handle, and there is a place for the handle that is written.
        let status = unsafe { (row.function)(self.handle, &mut handle) };
        let graph = (!handle.is_null()).then(|| Graph {
            device: device.clone(),
            handle,
        });
        let void = |status| HipError::Capture {
            subject: self.to_string(),
            status,
        };
        match before? {
            CaptureStatus::Active => {}
            before => return Err(void(before)),
        }
        device.check(status, row.name, || self.to_string())?;
        graph.ok_or_else(|| void(CaptureStatus::Invalidated))
    }

    /// Captures what `record` puts on this stream. Ends the capture whether `record` succeeds, fails or panics.
    pub fn capture<E: From<HipError>>(
        &self,
        mode: CaptureMode,
        record: impl FnOnce(&Stream) -> Result<(), E>,
    ) -> Result<Graph, E> {
        struct Capturing<'a>(&'a Stream);
        impl Drop for Capturing<'_> {
            fn drop(&mut self) {
                // There is an error or a panic on its way already, which says more than this could.
                let _abandoned = self.0.end_capture();
            }
        }
        self.begin_capture(mode)?;
        let capturing = Capturing(self);
        record(self)?;
        std::mem::forget(capturing);
        Ok(self.end_capture()?)
    }
}

/// A captured graph: what a [`GraphExec`] is made of.
pub struct Graph {
    device: Device,
    handle: Handle,
}

// SAFETY: drivers let one thread at a time use a graph, whichever it is. It is not `Sync`: not several at once.
unsafe impl Send for Graph {}

impl Graph {
    /// What each node does, in the driver's order, which for captures has been the order of the launches.
    pub fn nodes(&self) -> Result<Vec<NodeKind>, HipError> {
        let row = &self.device.bind()?.node_kind;
        let kind = |node| {
            let mut kind = 0;
            // SAFETY: the node is one of this graph's, and there is a place for the number that is written.
            let status = unsafe { (row.function)(node, &mut kind) };
            self.device.check(status, row.name, || self.to_string())?;
            Ok(NodeKind::from(kind))
        };
        self.node_handles()?.into_iter().map(kind).collect()
    }

    /// Which node waits for which, as `(before, after)` indices into [`nodes`](Graph::nodes).
    pub fn edges(&self) -> Result<Vec<(usize, usize)>, HipError> {
        let nodes = self.node_handles()?;
        let row = &self.device.bind()?.graph_edges;
        let dialect = &self.device.driver().dialect;
        let ask = |from: *mut Handle, to: *mut Handle, count: &mut usize| {
            // SAFETY: the graph is a live handle; the arrays are null or have room for `count` handles, by both callers
            // below.
            unsafe {
                let answer = dialect.edges(self.handle, from, to, count);
                answer.unwrap_or_else(|| (row.function)(self.handle, from, to, count))
            }
        };
        let mut count = 0;
        let null = ptr::null_mut();
        // Without places for nodes only the count is written.
        let status = ask(null, null, &mut count);
        self.device.check(status, row.name, || self.to_string())?;
        let (mut from, mut to) = (vec![null.cast(); count], vec![null.cast(); count]);
        if count > 0 {
            let (from, to) = (from.as_mut_ptr(), to.as_mut_ptr());
            let status = ask(from, to, &mut count);
            self.device.check(status, row.name, || self.to_string())?;
        }
        let place = |node: Handle| {
            let place = nodes.iter().position(|&n| n == node);
            place.ok_or_else(|| HipError::Unexpected {
                call: row.name,
                subject: self.to_string(),
                what: "gave a node that is not in the graph".into(),
            })
        };
        let pairs = from.into_iter().zip(to).take(count);
        pairs
            .map(|(from, to)| Ok((place(from)?, place(to)?)))
            .collect()
    }

    /// Has the driver write a drawing of the graph, in the DOT language, to a file.
    pub fn debug_dot(&self, path: &Path) -> Result<(), HipError> {
        let row = &self.device.bind()?.graph_dot;
        let text = path.as_os_str().as_encoded_bytes();
        let c_path = CString::new(text).map_err(|_| HipError::ZeroByte {
            text: path.display().to_string(),
        })?;
        // SAFETY: the graph is a live handle, and the path ends in a zero.
        let status = unsafe { (row.function)(self.handle, c_path.as_ptr(), sys::DOT_VERBOSE) };
        let subject = || format!("{self} to {}", path.display());
        self.device.check(status, row.name, subject)
    }

    fn node_handles(&self) -> Result<Vec<Handle>, HipError> {
        let row = &self.device.bind()?.graph_nodes;
        let mut count = 0;
        // SAFETY: without a place for nodes only the count is written.
        let status = unsafe { (row.function)(self.handle, ptr::null_mut(), &mut count) };
        self.device.check(status, row.name, || self.to_string())?;
        let mut nodes = vec![ptr::null_mut(); count];
        if count > 0 {
            // SAFETY: there is room for the `count` handles that the call is told of.
            let status = unsafe { (row.function)(self.handle, nodes.as_mut_ptr(), &mut count) };
            self.device.check(status, row.name, || self.to_string())?;
            nodes.truncate(count);
        }
        Ok(nodes)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let destroy = &self.device.table_to_drop().graph_destroy;
        // SAFETY: the handle came from `capture_end`, and this is its only owner. Executables made of it are copies.
        let _sticks = unsafe { (destroy.function)(self.handle) };
    }
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "graph {:p} of {}", self.handle, self.device)
    }
}

/// A graph made ready to run, which does not need the [`Graph`] any more.
///
/// What its kernels use is promised at [`Stream::launch`], where they were captured: it has to be there for as long as
/// this is launched.
pub struct GraphExec {
    device: Device,
    handle: Handle,
    node_count: usize,
}

// SAFETY: drivers let one thread at a time use an executable graph, whichever it is. It is not `Sync`.
unsafe impl Send for GraphExec {}

impl GraphExec {
    /// Makes `graph` ready to run.
    pub fn instantiate(graph: &Graph) -> Result<GraphExec, HipError> {
        let device = &graph.device;
        let node_count = graph.node_handles()?.len();
        let row = &device.bind()?.graph_instantiate;
        let mut handle = ptr::null_mut();
        // SAFETY: the graph is a live handle, and there is a place for the handle that is written.
        let status = unsafe { (row.function)(&mut handle, graph.handle, 0) };
        device.check(status, row.name, || graph.to_string())?;
        let device = device.clone();
        Ok(GraphExec {
            device,
            handle,
            node_count,
        })
    }

    /// How many nodes the driver recorded.
    pub fn node_count(&self) -> usize {
        self.node_count
    }

    /// Brings to the device what the first launch would, on `stream`.
    pub fn upload(&self, stream: &Stream) -> Result<(), HipError> {
        let row = &self.device.bind()?.exec_upload;
        // SAFETY: both are live handles.
        let status = unsafe { (row.function)(self.handle, stream.handle) };
        self.device.check(status, row.name, || self.to_string())
    }

    /// Puts a run of the whole graph on `stream`.
    pub fn launch(&self, stream: &Stream) -> Result<(), HipError> {
        let row = &self.device.bind()?.exec_launch;
        // SAFETY: both are live handles. What the kernels use is there: whoever captured them has promised it.
        let status = unsafe { (row.function)(self.handle, stream.handle) };
        self.device.check(status, row.name, || self.to_string())
    }
}

impl Drop for GraphExec {
    fn drop(&mut self) {
        let destroy = &self.device.table_to_drop().exec_destroy;
        // SAFETY: the handle came from `graph_instantiate`, and this is its only owner. A run under way goes on.
        let _sticks = unsafe { (destroy.function)(self.handle) };
    }
}

impl fmt::Display for GraphExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "executable graph {:p} of {}", self.handle, self.device)
    }
}
