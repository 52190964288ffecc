//! Safe HIP: devices, memory, streams, modules and captured graphs on AMD and NVIDIA GPUs. It knows no model.
//!
//! [`Hip::load`] loads a platform's driver at run time; [`Device::open`] takes a device; the rest are owners of driver
//! objects on it, which keep the device and release what they own when dropped.
//!
//! | file | what |
//! |---|---|
//! | [`sys`] | the table of driver functions, and how a library is found |
//! | [`amd`], [`nvidia`] | the table's two columns, and what only one platform does |
//! | `driver` | a loaded table; statuses made into errors |
//! | `device`, `memory`, `stream`, `event`, `module`, `capture` | the owners |
//!
//! # What holds everywhere
//! * A status is an integer, and every failed call is a [`HipError`] with the call, its subject and the status.
//! * A handle is wrapped in its owner on the line after it was acquired, so that no error in between loses it.
//! * Operations on a device first make it the calling thread's, so owners can be used from any thread.
//! * What a drop cannot report is lost by design: a driver's errors stick, and the next call reports them.
//! * The safe functions cannot touch the host's memory behind Rust's back. What kernels do is promised once, at
//!   [`Stream::launch`]; a replay repeats what was promised when it was captured.

pub mod amd;
mod capture;
mod device;
mod driver;
mod error;
mod event;
mod memory;
mod module;
pub mod nvidia;
mod stream;
pub mod sys;

pub use capture::{CaptureMode, CaptureStatus, Graph, GraphExec, NodeKind};
pub use device::{Device, DeviceInfo};
pub use error::HipError;
pub use event::Event;
pub use memory::{DeviceBuffer, PinnedBuffer};
pub use module::{Function, Module};
pub use stream::Stream;

use driver::Driver;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Whose GPUs a driver drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Platform {
    Amd,
    Nvidia,
}

impl Platform {
    /// Every platform, in the order in which `auto` tries them.
    pub const ALL: [Platform; 2] = [Platform::Amd, Platform::Nvidia];
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Platform::Amd => "AMD",
            Platform::Nvidia => "NVIDIA",
        })
    }
}

/// Where libraries are looked for before the system is asked, in this order.
#[derive(Clone, Debug, Default)]
pub struct Search {
    pub directories: Vec<PathBuf>,
}

/// A platform's driver, loaded and initialised. Clones are the same driver.
#[derive(Clone)]
pub struct Hip {
    driver: Arc<Driver>,
}

impl Hip {
    /// Loads the driver of `platform`.
    ///
    /// No library, a library without one of the functions, or a driver without a device are errors of their own.
    pub fn load(platform: Platform, search: &Search) -> Result<Hip, HipError> {
        let driver = Arc::new(Driver::load(platform, search)?);
        Ok(Hip { driver })
    }

    /// What [`load`](Hip::load) says for every platform.
    pub fn find(search: &Search) -> Vec<Result<Hip, HipError>> {
        Platform::ALL
            .into_iter()
            .map(|platform| Hip::load(platform, search))
            .collect()
    }

    /// Whose devices these are.
    pub fn platform(&self) -> Platform {
        self.driver.platform
    }

    /// The library, or its bare name if the system found it.
    pub fn library(&self) -> &Path {
        self.driver.library.path()
    }

    /// How many devices there are: at least one, or it is an error.
    pub fn device_count(&self) -> Result<usize, HipError> {
        let row = &self.driver.table.device_count;
        let mut count = 0;
        // SAFETY: `count` is a place for the `int` that is written.
        let status = unsafe { (row.function)(&mut count) };
        if status == sys::NO_DEVICE {
            return Err(self.driver.no_device());
        }
        self.driver
            .check(status, row.name, || "all devices".into())?;
        match usize::try_from(count) {
            Ok(count) if count > 0 => Ok(count),
            _ => Err(self.driver.no_device()),
        }
    }

    /// What the driver says of device `index`.
    pub fn device(&self, index: usize) -> Result<DeviceInfo, HipError> {
        device::describe(self, index)
    }
}

impl fmt::Debug for Hip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hip({}, {})", self.platform(), self.library().display())
    }
}
