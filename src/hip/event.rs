//! Events: moments in a stream's work.

use std::ptr;

use super::Device;
use super::error::HipError;
use super::sys::{self, Handle};

/// A moment that [`Stream::record`](super::Stream::record) puts into a stream, with a time stamp.
pub struct Event {
    device: Device,
    pub(super) handle: Handle,
}

// SAFETY: an event's handle is a name that drivers accept from any thread.
unsafe impl Send for Event {}
// SAFETY: drivers synchronise what threads do to one event.
unsafe impl Sync for Event {}

impl Event {
    /// An event that has not been recorded.
    pub fn new(device: &Device) -> Result<Event, HipError> {
        let row = &device.bind()?.event_create;
        let mut handle = ptr::null_mut();
        // No flags, so that it has a time.
        // SAFETY: `handle` is a place for the handle that is written.
        let status = unsafe { (row.function)(&mut handle, 0) };
        device.check(status, row.name, || device.to_string())?;
        let device = device.clone();
        Ok(Event { device, handle })
    }

    /// Waits until the event has happened.
    pub fn synchronize(&self) -> Result<(), HipError> {
        let row = &self.device.bind()?.event_synchronize;
        // SAFETY: the event is a live handle.
        let status = unsafe { (row.function)(self.handle) };
        self.device.check(status, row.name, || self.to_string())
    }

    /// Milliseconds from `start` to this event, if both have happened. The clock's step is about half a microsecond.
    pub fn milliseconds_since(&self, start: &Event) -> Result<Option<f32>, HipError> {
        let row = &self.device.bind()?.event_elapsed;
        let mut milliseconds = 0.0;
        // SAFETY: both are live handles, and there is a place for the `float` that is written.
        let status = unsafe { (row.function)(&mut milliseconds, start.handle, self.handle) };
        if status == sys::NOT_READY {
            return Ok(None);
        }
        self.device.check(status, row.name, || self.to_string())?;
        Ok(Some(milliseconds))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let destroy = &self.device.table_to_drop().event_destroy;
        // SAFETY: the handle came from `event_create`, and this is its only owner.
        let _sticks = unsafe { (destroy.function)(self.handle) };
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "event {:p} of {}", self.handle, self.device)
    }
}
