//! Memory that kernels address: the device's, and pinned memory of the host.

use std::ffi::c_void;
use std::fmt;
use std::ptr::{self, NonNull};

use super::error::HipError;
use super::sys::{self, Address};
use super::{Device, Stream};

/// Bytes of a device's memory. Their address is at least 256-byte aligned.
pub struct DeviceBuffer {
    device: Device,
    address: Address,
    bytes: usize,
}

impl DeviceBuffer {
    /// `bytes` bytes that hold whatever was there.
    pub fn new(device: &Device, bytes: usize) -> Result<DeviceBuffer, HipError> {
        let row = &device.bind()?.malloc;
        let mut address = 0;
        // Drivers disagree on what nothing is, so there is always a byte.
        // SAFETY: `address` is a place for the address that is written.
        let status = unsafe { (row.function)(&mut address, bytes.max(1)) };
        device.check(status, row.name, || format!("{bytes} bytes on {device}"))?;
        let device = device.clone();
        Ok(DeviceBuffer {
            device,
            address,
            bytes,
        })
    }

    /// `bytes` zeros. Waits for the work on `stream`, where the zeros are written.
    pub fn zeroed(stream: &Stream, bytes: usize) -> Result<DeviceBuffer, HipError> {
        let buffer = DeviceBuffer::new(stream.device(), bytes)?;
        stream.fill(&buffer, 0)?;
        stream.synchronize()?;
        Ok(buffer)
    }

    /// The address, for kernels' arguments.
    pub fn address(&self) -> Address {
        self.address
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The address of `length` bytes from `offset`, if the buffer has them.
    pub fn slice(&self, offset: usize, length: usize) -> Result<Address, HipError> {
        within("device buffer", offset, length, self.bytes)?;
        Ok(self.address + offset as u64)
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        let free = &self.device.table_to_drop().free;
        // SAFETY: the address came from `malloc`, and this is its only owner. The driver waits for work that is under
        // way before it gives the memory to someone else.
        let _sticks = unsafe { (free.function)(self.address) };
    }
}

impl fmt::Debug for DeviceBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceBuffer({:#x}, {} bytes)", self.address, self.bytes)
    }
}

/// Bytes of the host's memory that never move and that kernels can address. Zeroed when made.
///
/// Kernels may read and write it at any time, so there are no references into it, only pointers: whoever reads or
/// writes through them orders that with the device's work, by synchronising or by volatile access to a flag.
pub struct PinnedBuffer {
    device: Device,
    host: NonNull<u8>,
    address: Address,
    bytes: usize,
}

// SAFETY: the memory belongs to the buffer alone, and drivers free it from any thread.
unsafe impl Send for PinnedBuffer {}
// SAFETY: `&PinnedBuffer` gives out addresses only; access through them is the business of whoever dereferences them.
unsafe impl Sync for PinnedBuffer {}

impl PinnedBuffer {
    /// `bytes` zeros that the host and `device` see at `host()` and `address()`.
    pub fn new(device: &Device, bytes: usize) -> Result<PinnedBuffer, HipError> {
        let table = device.bind()?;
        let flags = sys::HOST_MAPPED | sys::HOST_PORTABLE | device.driver().dialect.host_flags();
        let room = bytes.max(1);
        let subject = || format!("{bytes} pinned bytes for {device}");
        let row = &table.host_malloc;
        let mut host: *mut c_void = ptr::null_mut();
        // SAFETY: `host` is a place for the pointer that is written.
        let status = unsafe { (row.function)(&mut host, room, flags) };
        device.check(status, row.name, subject)?;
        let Some(host) = NonNull::new(host.cast::<u8>()) else {
            return Err(HipError::Unexpected {
                call: row.name,
                subject: subject(),
                what: "gave a null pointer".into(),
            });
        };
        let mut buffer = PinnedBuffer {
            device: device.clone(),
            host,
            address: 0,
            bytes,
        };
        // SAFETY: the driver gave `room` bytes at `host`, which nobody else knows of yet.
        unsafe { ptr::write_bytes(host.as_ptr(), 0, room) };
        let row = &table.host_address;
        // SAFETY: `address` is a place for what is written, and `host` is mapped pinned memory.
        let status = unsafe { (row.function)(&mut buffer.address, host.as_ptr().cast(), 0) };
        device.check(status, row.name, subject)?;
        Ok(buffer)
    }

    /// Where the host sees it. Aligned to a page.
    pub fn host(&self) -> *mut u8 {
        self.host.as_ptr()
    }

    /// Where kernels see it.
    pub fn address(&self) -> Address {
        self.address
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Where the host sees `length` bytes from `offset`, if the buffer has them.
    pub fn slice(&self, offset: usize, length: usize) -> Result<*mut u8, HipError> {
        within("pinned buffer", offset, length, self.bytes)?;
        // SAFETY: `offset` lies within the buffer or at its end.
        Ok(unsafe { self.host().add(offset) })
    }
}

impl Drop for PinnedBuffer {
    fn drop(&mut self) {
        let free = &self.device.table_to_drop().host_free;
        // SAFETY: the pointer came from `host_malloc`, and this is its only owner.
        let _sticks = unsafe { (free.function)(self.host.as_ptr().cast()) };
    }
}

impl fmt::Debug for PinnedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PinnedBuffer({:p}, {} bytes)", self.host, self.bytes)
    }
}

fn within(what: &'static str, offset: usize, length: usize, bytes: usize) -> Result<(), HipError> {
    match offset.checked_add(length) {
        Some(end) if end <= bytes => Ok(()),
        _ => Err(HipError::OutOfRange {
            what,
            offset,
            length,
            bytes,
        }),
    }
}
