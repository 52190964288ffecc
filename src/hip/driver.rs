//! A loaded driver: the table, the platform's dialect, and statuses made into errors.

use super::error::HipError;
use super::module::Image;
use super::sys::{self, Handle, Library, Status, Table};
use super::{Platform, Search, amd, nvidia};

/// What the two platforms do differently.
pub(super) trait Dialect: Send + Sync {
    /// The driver's name for a status, if it has one.
    fn error_name(&self, status: Status) -> Option<String>;

    /// Device attributes by the platform's numbers.
    fn attributes(&self) -> &'static Attributes;

    /// What else than mapped and portable pinned memory has to be.
    fn host_flags(&self) -> u32;

    /// `gfx942`, `sm_90`: what code objects are compiled for.
    fn arch(&self, driver: &Driver, device: i32) -> Result<String, HipError>;

    /// The driver's version as people write it.
    fn version(&self, number: i32) -> String;

    /// Takes hold of the device's primary context; null where the platform has none.
    fn retain(&self, driver: &Driver, device: i32) -> Result<Handle, HipError>;

    /// Lets go of what [`retain`](Dialect::retain) took.
    fn release(&self, device: i32);

    /// Makes the device the calling thread's.
    fn bind(&self, driver: &Driver, device: i32, context: Handle) -> Result<(), HipError>;

    /// Loads a code object for the device that is bound. The handle is the caller's to unload, and the image has to
    /// outlive it.
    fn load_module(
        &self,
        driver: &Driver,
        image: &Image,
        subject: &dyn Fn() -> String,
    ) -> Result<Handle, HipError>;

    /// Has `function` prefer LDS to cache, where they share memory.
    fn prefer_lds(
        &self,
        _driver: &Driver,
        _function: Handle,
        _subject: &dyn Fn() -> String,
    ) -> Result<(), HipError> {
        Ok(())
    }

    /// Whether the driver takes launches that [`Dialect::launch_overlapping`] makes.
    fn overlaps(&self) -> bool {
        false
    }

    /// Puts a launch on a stream that may begin before what is on the stream has finished: programmatic dependent
    /// launch. Called only where [`Dialect::overlaps`].
    ///
    /// # Safety
    /// As [`Stream::launch`](super::Stream::launch), and the kernel itself waits for its predecessors before it
    /// touches what they touch.
    unsafe fn launch_overlapping(&self, _launch: &Overlapping) -> Status {
        unreachable!("only asked of a platform whose launches overlap")
    }

    /// What to call [`Dialect::launch_overlapping`] in errors.
    fn overlapping_name(&self) -> &'static str {
        "launch"
    }

    /// Which edges a graph has, for drivers whose edges can say more than the table's call can answer; `None` for all
    /// others. As the table's row.
    ///
    /// # Safety
    /// `graph` is live; `from` and `to` are null, or have room for `count` handles, as `count` says.
    unsafe fn edges(
        &self,
        _graph: Handle,
        _from: *mut Handle,
        _to: *mut Handle,
        _count: *mut usize,
    ) -> Option<Status> {
        None
    }

    /// Lets launches of `function` ask for `bytes` of LDS.
    fn allow_lds(
        &self,
        driver: &Driver,
        function: Handle,
        bytes: u32,
        subject: &dyn Fn() -> String,
    ) -> Result<(), HipError>;
}

/// A launch, as drivers take it.
pub(super) struct Overlapping {
    pub function: Handle,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub lds_bytes: u32,
    pub stream: Handle,
    pub arguments: *mut *mut std::ffi::c_void,
}

/// The platform's numbers for attributes of a device.
pub(super) struct Attributes {
    pub wave: i32,
    pub compute_units: i32,
    /// The most LDS that a block can have.
    pub lds_bytes: i32,
}

/// A driver that is loaded and initialised.
pub(super) struct Driver {
    pub platform: Platform,
    pub library: Library,
    pub table: Table,
    pub dialect: Box<dyn Dialect>,
}

impl Driver {
    /// Loads and initialises the platform's driver.
    pub fn load(platform: Platform, search: &Search) -> Result<Driver, HipError> {
        let (file_names, names) = match platform {
            Platform::Amd => (amd::FILE_NAMES, &amd::NAMES),
            Platform::Nvidia => (nvidia::FILE_NAMES, &nvidia::NAMES),
        };
        let library = Library::open(platform, file_names, search)?;
        // SAFETY: each column names functions whose signatures are the rows': `nvidia` has the compiler compare them
        // with cudarc's declarations, and `tests/hip_declarations.rs` compares `amd`'s with `cubecl-hip-sys`'s.
        let table = unsafe { Table::load(&library, names) }?;
        let dialect: Box<dyn Dialect> = match platform {
            Platform::Amd => Box::new(amd::Amd::load(&library)?),
            Platform::Nvidia => Box::new(nvidia::Nvidia::load(&library)?),
        };
        let driver = Driver {
            platform,
            library,
            table,
            dialect,
        };
        let initialize = &driver.table.initialize;
        // SAFETY: a plain call; 0 is the one value that is defined for the flags.
        let status = unsafe { (initialize.function)(0) };
        if [sys::NO_DEVICE, sys::INVALID_DEVICE].contains(&status) {
            return Err(driver.no_device());
        }
        driver.check(status, initialize.name, || "no flags".into())?;
        Ok(driver)
    }

    /// The error for a driver without a device.
    pub fn no_device(&self) -> HipError {
        HipError::NoDevice {
            platform: self.platform,
            library: self.library.path().to_path_buf(),
        }
    }

    /// Makes an error of a status that is not success.
    pub fn check(
        &self,
        status: Status,
        call: &'static str,
        subject: impl FnOnce() -> String,
    ) -> Result<(), HipError> {
        if status == sys::SUCCESS {
            Ok(())
        } else {
            Err(self.failure(status, call, subject(), None))
        }
    }

    /// The error for a failed call.
    pub fn failure(
        &self,
        status: Status,
        call: &'static str,
        subject: String,
        detail: Option<String>,
    ) -> HipError {
        let name = self.dialect.error_name(status);
        HipError::Call {
            call,
            subject,
            name: name.unwrap_or_else(|| "a status without a name".into()),
            status,
            detail,
        }
    }

    /// An attribute of a device, by the platform's number.
    pub fn attribute(&self, device: i32, attribute: i32) -> Result<u32, HipError> {
        let row = &self.table.device_attribute;
        let subject = || format!("attribute {attribute} of device {device}");
        let mut value = 0;
        // SAFETY: `value` is a place for the `int` that is written.
        let status = unsafe { (row.function)(&mut value, attribute, device) };
        self.check(status, row.name, subject)?;
        u32::try_from(value).map_err(|_| HipError::Unexpected {
            call: row.name,
            subject: subject(),
            what: format!("gave {value}"),
        })
    }
}
