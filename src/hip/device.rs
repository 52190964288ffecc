//! Devices: what they are, and holding one.

use std::ffi::{CStr, c_char};
use std::fmt;
use std::sync::Arc;

use super::driver::Driver;
use super::error::HipError;
use super::sys::{Handle, Table};
use super::{Hip, Platform};

/// What a driver says of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    pub platform: Platform,
    /// Counted from 0 within the platform.
    pub index: usize,
    /// The product's name.
    pub name: String,
    /// What code objects are compiled for: `gfx942`, `sm_90`.
    pub arch: String,
    pub memory_bytes: u64,
    /// Lanes of a wave (a warp): 64 or 32.
    pub wave: u32,
    pub compute_units: u32,
    /// The most LDS (shared memory) that a block can have.
    pub lds_bytes: u32,
    /// The driver and its version.
    pub driver: String,
}

/// Asks the driver of `hip` about device `index`.
pub(super) fn describe(hip: &Hip, index: usize) -> Result<DeviceInfo, HipError> {
    let count = hip.device_count()?;
    let platform = hip.platform();
    let missing = || HipError::NoSuchDevice {
        platform,
        index,
        count,
    };
    if index >= count {
        return Err(missing());
    }
    let ordinal = i32::try_from(index).map_err(|_| missing())?;
    let (driver, table) = (&*hip.driver, &hip.driver.table);
    let subject = || format!("{platform} device {index}");

    let mut device = 0;
    // SAFETY: `device` is a place for the `int` that is written.
    let status = unsafe { (table.device_get.function)(&mut device, ordinal) };
    driver.check(status, table.device_get.name, subject)?;

    let mut name = [0 as c_char; 256];
    // SAFETY: `name` has the 256 bytes that the call is told of.
    let status = unsafe { (table.device_name.function)(name.as_mut_ptr(), 256, device) };
    driver.check(status, table.device_name.name, subject)?;
    let name = name.map(|byte| byte as u8);
    let name = CStr::from_bytes_until_nul(&name).unwrap_or_default();

    let mut memory_bytes = 0;
    // SAFETY: `memory_bytes` is a place for the size that is written.
    let status = unsafe { (table.device_memory.function)(&mut memory_bytes, device) };
    driver.check(status, table.device_memory.name, subject)?;

    let mut version = 0;
    // SAFETY: `version` is a place for the `int` that is written.
    let status = unsafe { (table.driver_version.function)(&mut version) };
    driver.check(status, table.driver_version.name, subject)?;

    let attributes = driver.dialect.attributes();
    Ok(DeviceInfo {
        platform,
        index,
        name: name.to_string_lossy().into_owned(),
        arch: driver.dialect.arch(driver, device)?,
        memory_bytes: memory_bytes as u64,
        wave: driver.attribute(device, attributes.wave)?,
        compute_units: driver.attribute(device, attributes.compute_units)?,
        lds_bytes: driver.attribute(device, attributes.lds_bytes)?,
        driver: driver.dialect.version(version),
    })
}

/// A device in use. Clones are the same device, which is let go of with the last of them and of what lives on it.
#[derive(Clone)]
pub struct Device {
    held: Arc<Held>,
}

struct Held {
    hip: Hip,
    info: DeviceInfo,
    /// The driver's number for it.
    number: i32,
    /// The primary context; null on AMD, which has none.
    context: Handle,
}

// SAFETY: the context is a name that drivers accept from any thread; nothing here reads through it.
unsafe impl Send for Held {}
// SAFETY: as above; nothing in it changes.
unsafe impl Sync for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        self.hip.driver.dialect.release(self.number);
    }
}

impl Device {
    /// Takes hold of device `index`.
    pub fn open(hip: &Hip, index: usize) -> Result<Device, HipError> {
        let info = describe(hip, index)?;
        let number = i32::try_from(index).expect("a device that was found has a small index");
        let context = hip.driver.dialect.retain(&hip.driver, number)?;
        let device = Device {
            held: Arc::new(Held {
                hip: hip.clone(),
                info,
                number,
                context,
            }),
        };
        device.bind()?;
        Ok(device)
    }

    /// What the driver says of it.
    pub fn info(&self) -> &DeviceInfo {
        &self.held.info
    }

    /// The driver it belongs to.
    pub fn hip(&self) -> &Hip {
        &self.held.hip
    }

    /// Free and total bytes of its memory at this moment.
    pub fn memory(&self) -> Result<(u64, u64), HipError> {
        let row = &self.bind()?.memory_info;
        let (mut free, mut total) = (0, 0);
        // SAFETY: both are places for the sizes that are written.
        let status = unsafe { (row.function)(&mut free, &mut total) };
        self.check(status, row.name, || self.to_string())?;
        Ok((free as u64, total as u64))
    }

    /// Makes this the calling thread's device, as nearly every operation needs, and gives the operations.
    pub(super) fn bind(&self) -> Result<&Table, HipError> {
        let Held {
            hip,
            number,
            context,
            ..
        } = &*self.held;
        hip.driver.dialect.bind(&hip.driver, *number, *context)?;
        Ok(&hip.driver.table)
    }

    /// The operations, for drops and what else has to be tried, after making this the thread's device as well as can
    /// be.
    pub(super) fn table_to_drop(&self) -> &Table {
        match self.bind() {
            Ok(table) => table,
            // The driver is failing; the release that follows fails as well or works without.
            Err(_) => &self.held.hip.driver.table,
        }
    }

    pub(super) fn driver(&self) -> &Driver {
        &self.held.hip.driver
    }

    /// Makes an error of a status that is not success.
    pub(super) fn check(
        &self,
        status: i32,
        call: &'static str,
        subject: impl FnOnce() -> String,
    ) -> Result<(), HipError> {
        self.driver().check(status, call, subject)
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = self.info();
        write!(f, "{} device {}, {}", info.platform, info.index, info.name)
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({self})")
    }
}
