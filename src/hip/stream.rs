//! Streams: the order in which a device does things.

use std::ffi::c_void;
use std::fmt;
use std::ptr;

use super::driver::Overlapping;
use super::error::HipError;
use super::sys::{self, Handle};
use super::{Device, DeviceBuffer, Event, Function, PinnedBuffer};

/// A queue of work that is done in order, and that does not wait for the default stream.
pub struct Stream {
    device: Device,
    pub(super) handle: Handle,
}

// SAFETY: a stream's handle is a name that drivers accept from any thread.
unsafe impl Send for Stream {}
// SAFETY: drivers put work of several threads on a stream one after the other.
unsafe impl Sync for Stream {}

impl Stream {
    /// A new stream on `device`.
    pub fn new(device: &Device) -> Result<Stream, HipError> {
        let row = &device.bind()?.stream_create;
        let mut handle = ptr::null_mut();
        // SAFETY: `handle` is a place for the handle that is written.
        let status = unsafe { (row.function)(&mut handle, sys::STREAM_NON_BLOCKING) };
        device.check(status, row.name, || device.to_string())?;
        let device = device.clone();
        Ok(Stream { device, handle })
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Puts a launch on the stream: `grid` blocks of `block` threads with `lds_bytes` of LDS beside what the code has.
    ///
    /// `arguments` are pointers to the argument values, which are copied before this returns.
    ///
    /// # Safety
    /// * There are as many arguments as the kernel takes, each a pointer to a value of the parameter's type.
    /// * Whatever the kernel does through them it may do: the memory they name is there until it has run, and nothing
    ///   else is at odds with its reads and writes. If the launch is being captured, this holds for every launch of
    ///   every [`GraphExec`](super::GraphExec) made of the capture, and the function's module lives as long.
    pub unsafe fn launch(
        &self,
        function: &Function,
        grid: [u32; 3],
        block: [u32; 3],
        lds_bytes: u32,
        arguments: &mut [*mut c_void],
    ) -> Result<(), HipError> {
        let row = &self.device.bind()?.launch;
        let ([gx, gy, gz], [bx, by, bz]) = (grid, block);
        let arguments = arguments.as_mut_ptr();
        let none = ptr::null_mut();
        // SAFETY: function and stream are live handles; the arguments are as the caller promises.
        let status = unsafe {
            let (call, function, stream) = (row.function, function.handle, self.handle);
            call(
                function, gx, gy, gz, bx, by, bz, lds_bytes, stream, arguments, none,
            )
        };
        self.device.check(status, row.name, || {
            let name = function.name();
            format!("{name}, grid {grid:?}, block {block:?}, {lds_bytes} bytes of LDS")
        })
    }

    /// Whether this platform's driver takes launches that begin before their predecessors have finished. That the
    /// device and the kernel do is for the caller to know.
    pub fn overlaps(&self) -> bool {
        self.device.driver().dialect.overlaps()
    }

    /// As [`launch`](Stream::launch), but the kernel may begin before what is on the stream has finished.
    ///
    /// # Safety
    /// As for [`launch`](Stream::launch); and before the kernel touches memory that anything before it on the stream
    /// writes, or writes any itself, each of its blocks that touches or writes waits for its predecessors.
    ///
    /// # Panics
    /// Where [`overlaps`](Stream::overlaps) is false.
    pub unsafe fn launch_overlapping(
        &self,
        function: &Function,
        grid: [u32; 3],
        block: [u32; 3],
        lds_bytes: u32,
        arguments: &mut [*mut c_void],
    ) -> Result<(), HipError> {
        self.device.bind()?;
        let dialect = &self.device.driver().dialect;
        let launch = Overlapping {
            function: function.handle,
            grid,
            block,
            lds_bytes,
            stream: self.handle,
            arguments: arguments.as_mut_ptr(),
        };
        // SAFETY: function and stream are live handles; the rest is the caller's promise.
        let status = unsafe { dialect.launch_overlapping(&launch) };
        self.device.check(status, dialect.overlapping_name(), || {
            let name = function.name();
            format!("{name}, grid {grid:?}, block {block:?}, {lds_bytes} bytes of LDS")
        })
    }

    /// Copies `from` to `offset` of `to`, and waits until all work on the stream is done.
    pub fn copy_to_device(
        &self,
        to: &DeviceBuffer,
        offset: usize,
        from: &[u8],
    ) -> Result<(), HipError> {
        // SAFETY: `from` is borrowed until the stream is done.
        let copied = unsafe { self.enqueue_to_device(to, offset, from.as_ptr(), from.len()) };
        copied.and_then(|()| self.synchronize())
    }

    /// Copies from `offset` of `from` to all of `to`, and waits until all work on the stream is done.
    pub fn copy_to_host(
        &self,
        from: &DeviceBuffer,
        offset: usize,
        to: &mut [u8],
    ) -> Result<(), HipError> {
        // SAFETY: `to` is borrowed until the stream is done.
        let copied = unsafe { self.enqueue_to_host(from, offset, to.as_mut_ptr(), to.len()) };
        copied.and_then(|()| self.synchronize())
    }

    /// Puts a copy of `length` bytes, from `from_offset` of pinned memory to `offset` of `to`, on the stream.
    ///
    /// # Safety
    /// Until the stream has done it, `from` is not dropped and those bytes are not written.
    pub unsafe fn copy_to_device_async(
        &self,
        to: &DeviceBuffer,
        offset: usize,
        from: &PinnedBuffer,
        from_offset: usize,
        length: usize,
    ) -> Result<(), HipError> {
        let from = from.slice(from_offset, length)?;
        // SAFETY: `slice` has checked that the bytes are there; the rest is the caller's promise.
        unsafe { self.enqueue_to_device(to, offset, from, length) }
    }

    /// Puts a copy of `length` bytes, from `offset` of `from` to `to_offset` of pinned memory, on the stream.
    ///
    /// # Safety
    /// Until the stream has done it, `to` is not dropped and those bytes are neither read nor written.
    pub unsafe fn copy_to_host_async(
        &self,
        from: &DeviceBuffer,
        offset: usize,
        to: &PinnedBuffer,
        to_offset: usize,
        length: usize,
    ) -> Result<(), HipError> {
        let to = to.slice(to_offset, length)?;
        // SAFETY: `slice` has checked that the bytes are there; the rest is the caller's promise.
        unsafe { self.enqueue_to_host(from, offset, to, length) }
    }

    /// # Safety
    /// `from` has `length` bytes that stay as they are until the stream has copied them.
    unsafe fn enqueue_to_device(
        &self,
        to: &DeviceBuffer,
        offset: usize,
        from: *const u8,
        length: usize,
    ) -> Result<(), HipError> {
        let to = to.slice(offset, length)?;
        if length == 0 {
            return Ok(());
        }
        let row = &self.device.bind()?.copy_to_device;
        // SAFETY: `to` has the bytes, by `slice`; `from` by the caller's promise.
        let status = unsafe { (row.function)(to, from.cast(), length, self.handle) };
        self.device
            .check(status, row.name, || format!("{length} bytes to {to:#x}"))
    }

    /// # Safety
    /// `to` has `length` bytes that are nobody else's until the stream has written them.
    unsafe fn enqueue_to_host(
        &self,
        from: &DeviceBuffer,
        offset: usize,
        to: *mut u8,
        length: usize,
    ) -> Result<(), HipError> {
        let from = from.slice(offset, length)?;
        if length == 0 {
            return Ok(());
        }
        let row = &self.device.bind()?.copy_to_host;
        // SAFETY: `from` has the bytes, by `slice`; `to` by the caller's promise.
        let status = unsafe { (row.function)(to.cast(), from, length, self.handle) };
        self.device.check(status, row.name, || {
            format!("{length} bytes from {from:#x}")
        })
    }

    /// Puts the filling of all of `buffer` with one byte on the stream. It is not waited for.
    pub fn fill(&self, buffer: &DeviceBuffer, value: u8) -> Result<(), HipError> {
        if buffer.bytes() == 0 {
            return Ok(());
        }
        let row = &self.device.bind()?.fill;
        let (address, bytes) = (buffer.address(), buffer.bytes());
        // SAFETY: the buffer has that many bytes; freeing it would wait for the work on them.
        let status = unsafe { (row.function)(address, value, bytes, self.handle) };
        self.device.check(status, row.name, || {
            format!("{bytes} bytes at {address:#x}")
        })
    }

    /// Waits until all work on the stream is done. What went wrong in it is this call's error.
    pub fn synchronize(&self) -> Result<(), HipError> {
        let row = &self.device.bind()?.stream_synchronize;
        // SAFETY: the stream is a live handle.
        let status = unsafe { (row.function)(self.handle) };
        self.device.check(status, row.name, || self.to_string())
    }

    /// Whether all work on the stream is done, without waiting for it.
    pub fn is_done(&self) -> Result<bool, HipError> {
        let row = &self.device.bind()?.stream_query;
        // SAFETY: the stream is a live handle.
        let status = unsafe { (row.function)(self.handle) };
        if status == sys::NOT_READY {
            return Ok(false);
        }
        self.device.check(status, row.name, || self.to_string())?;
        Ok(true)
    }

    /// Puts `event` on the stream: it happens when everything before it is done.
    pub fn record(&self, event: &Event) -> Result<(), HipError> {
        let row = &self.device.bind()?.event_record;
        // SAFETY: both are live handles.
        let status = unsafe { (row.function)(event.handle, self.handle) };
        self.device.check(status, row.name, || self.to_string())
    }

    /// Keeps what is put on the stream from now on until `event` has happened.
    pub fn wait(&self, event: &Event) -> Result<(), HipError> {
        let row = &self.device.bind()?.stream_wait;
        // SAFETY: both are live handles; 0 is the one value that is defined for the flags.
        let status = unsafe { (row.function)(self.handle, event.handle, 0) };
        self.device.check(status, row.name, || self.to_string())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let destroy = &self.device.table_to_drop().stream_destroy;
        // SAFETY: the handle came from `stream_create`, and this is its only owner. Work that is on it is still done.
        let _sticks = unsafe { (destroy.function)(self.handle) };
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {:p} of {}", self.handle, self.device)
    }
}
