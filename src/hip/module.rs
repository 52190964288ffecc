//! Modules of device code and the functions in them.

use std::ffi::{CString, c_void};
use std::ptr;
use std::sync::Arc;

use super::Device;
use super::error::HipError;
use super::sys::{self, Handle};

/// A copy of a code object, aligned as an ELF file has to be and followed by a zero, with which PTX has to end.
pub(super) struct Image {
    words: Box<[u64]>,
}

impl Image {
    fn new(bytes: &[u8]) -> Image {
        let mut words = vec![0u64; bytes.len() / 8 + 1];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
            let mut whole = [0; 8];
            whole[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_ne_bytes(whole);
        }
        let words = words.into_boxed_slice();
        Image { words }
    }

    pub fn as_ptr(&self) -> *const c_void {
        self.words.as_ptr().cast()
    }
}

/// Device code on a device. Clones are the same module; functions keep it loaded.
#[derive(Clone)]
pub struct Module {
    loaded: Arc<Loaded>,
}

struct Loaded {
    device: Device,
    handle: Handle,
    /// HIP may read it for as long as the module is loaded.
    _image: Image,
}

// SAFETY: a module's handle is a name that drivers accept from any thread; nobody writes the image.
unsafe impl Send for Loaded {}
// SAFETY: as above; looking up functions does not change a module.
unsafe impl Sync for Loaded {}

impl Module {
    /// Loads a code object for `device`'s architecture: an AMDGPU ELF file, a cubin, or PTX as text.
    ///
    /// # Safety
    /// `image` is the whole of such a file, as a compiler wrote it: drivers believe the sizes in its headers.
    pub unsafe fn load(device: &Device, image: &[u8]) -> Result<Module, HipError> {
        device.bind()?;
        let copy = Image::new(image);
        let subject = || format!("{} bytes of code on {device}", image.len());
        let driver = device.driver();
        let handle = driver.dialect.load_module(driver, &copy, &subject)?;
        let device = device.clone();
        Ok(Module {
            loaded: Arc::new(Loaded {
                device,
                handle,
                _image: copy,
            }),
        })
    }

    /// The kernel called `name`.
    pub fn function(&self, name: &str) -> Result<Function, HipError> {
        let Loaded { device, handle, .. } = &*self.loaded;
        let row = &device.bind()?.module_function;
        let c_name = CString::new(name).map_err(|_| HipError::ZeroByte { text: name.into() })?;
        let mut function = ptr::null_mut();
        // SAFETY: `function` is a place for a handle, the module is a live one, and the name ends in a zero.
        let status = unsafe { (row.function)(&mut function, *handle, c_name.as_ptr()) };
        device.check(status, row.name, || format!("kernel {name}"))?;
        Ok(Function {
            module: self.clone(),
            handle: function,
            name: name.into(),
        })
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        let unload = &self.device.table_to_drop().module_unload;
        // SAFETY: the handle came from `load_module`, this is its only owner, and no function of it is left.
        let _sticks = unsafe { (unload.function)(self.handle) };
    }
}

/// A kernel. It keeps its module loaded; the driver owns the handle.
#[derive(Clone)]
pub struct Function {
    module: Module,
    pub(super) handle: Handle,
    name: Arc<str>,
}

// SAFETY: a function's handle is a name that drivers accept from any thread.
unsafe impl Send for Function {}
// SAFETY: as above; `allow_lds` changes it inside the driver, which synchronises.
unsafe impl Sync for Function {}

impl Function {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lets launches ask for `bytes` of LDS. NVIDIA has to be told if they are more than 48 KiB; AMD does not.
    pub fn allow_lds(&self, bytes: u32) -> Result<(), HipError> {
        let device = &self.module.loaded.device;
        device.bind()?;
        let subject = || format!("{} with {bytes} bytes of LDS", self.name);
        let driver = device.driver();
        driver
            .dialect
            .allow_lds(driver, self.handle, bytes, &subject)
    }

    /// Asks for as much of a compute unit's memory as LDS, not as cache, as there can be. Where the two share it (NVIDIA),
    /// kernels that ask for different shares cannot be on one unit at the same time. A hint.
    pub fn prefer_lds(&self) -> Result<(), HipError> {
        let device = &self.module.loaded.device;
        device.bind()?;
        let driver = device.driver();
        driver
            .dialect
            .prefer_lds(driver, self.handle, &|| self.name.to_string())
    }

    /// The most threads that a block of it can have.
    pub fn max_threads(&self) -> Result<u32, HipError> {
        self.attribute(sys::FUNCTION_MAX_THREADS)
    }

    /// Bytes of memory a thread for what did not fit into registers.
    pub fn spill_bytes(&self) -> Result<u32, HipError> {
        self.attribute(sys::FUNCTION_LOCAL_BYTES)
    }

    fn attribute(&self, attribute: i32) -> Result<u32, HipError> {
        let device = &self.module.loaded.device;
        let row = &device.bind()?.function_attribute;
        let subject = || format!("attribute {attribute} of {}", self.name);
        let mut value = 0;
        // SAFETY: `value` is a place for the `int` that is written, and the function is a live handle.
        let status = unsafe { (row.function)(&mut value, attribute, self.handle) };
        device.check(status, row.name, subject)?;
        u32::try_from(value).map_err(|_| HipError::Unexpected {
            call: row.name,
            subject: subject(),
            what: format!("gave {value}"),
        })
    }
}
