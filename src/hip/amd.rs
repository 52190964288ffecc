//! Platform `amd`: `libamdhip64.so`.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use super::driver::{Attributes, Dialect, Driver};
use super::error::HipError;
use super::module::Image;
use super::sys::{Handle, Library, Names, Status, Symbol};

/// The file names of the runtime, the development link first and then the versions from new to old.
pub const FILE_NAMES: &[&str] = &[
    "libamdhip64.so",
    "libamdhip64.so.7",
    "libamdhip64.so.6",
    "libamdhip64.so.5",
];

/// The table's column for HIP.
pub const NAMES: Names = Names {
    initialize: "hipInit",
    driver_version: "hipDriverGetVersion",
    device_count: "hipGetDeviceCount",
    device_get: "hipDeviceGet",
    device_name: "hipDeviceGetName",
    device_memory: "hipDeviceTotalMem",
    device_attribute: "hipDeviceGetAttribute",
    memory_info: "hipMemGetInfo",
    malloc: "hipMalloc",
    free: "hipFree",
    host_malloc: "hipHostMalloc",
    host_free: "hipHostFree",
    host_address: "hipHostGetDevicePointer",
    copy_to_device: "hipMemcpyHtoDAsync",
    copy_to_host: "hipMemcpyDtoHAsync",
    fill: "hipMemsetD8Async",
    stream_create: "hipStreamCreateWithFlags",
    stream_destroy: "hipStreamDestroy",
    stream_synchronize: "hipStreamSynchronize",
    stream_query: "hipStreamQuery",
    stream_wait: "hipStreamWaitEvent",
    event_create: "hipEventCreateWithFlags",
    event_destroy: "hipEventDestroy",
    event_record: "hipEventRecord",
    event_synchronize: "hipEventSynchronize",
    event_elapsed: "hipEventElapsedTime",
    module_load: "hipModuleLoadData",
    module_unload: "hipModuleUnload",
    module_function: "hipModuleGetFunction",
    function_attribute: "hipFuncGetAttribute",
    launch: "hipModuleLaunchKernel",
    capture_begin: "hipStreamBeginCapture",
    capture_end: "hipStreamEndCapture",
    capture_status: "hipStreamIsCapturing",
    graph_destroy: "hipGraphDestroy",
    graph_nodes: "hipGraphGetNodes",
    graph_edges: "hipGraphGetEdges",
    node_kind: "hipGraphNodeGetType",
    graph_dot: "hipGraphDebugDotPrint",
    graph_instantiate: "hipGraphInstantiateWithFlags",
    exec_destroy: "hipGraphExecDestroy",
    exec_upload: "hipGraphUpload",
    exec_launch: "hipGraphLaunch",
};

/// The functions that only HIP has, or has in another form.
pub const OWN_NAMES: &[&str] = &["hipGetErrorName", "hipSetDevice", PROPERTIES];

/// The properties with the layout that HIP 6 fixed, in which [`ARCH_OFFSET`] is where the architecture's name is.
const PROPERTIES: &str = "hipGetDevicePropertiesR0600";
pub const ARCH_OFFSET: usize = 1160;
/// The name without a version is a macro for the one above in new headers and the layout of HIP 5 in every library.
/// So it is asked for only in a library that has no other.
const OLD_PROPERTIES: &str = "hipGetDeviceProperties";
pub const OLD_ARCH_OFFSET: usize = 396;
const ARCH_BYTES: usize = 256;
/// Room for the properties, which have 1,472 bytes, and for a library that thinks they have more.
const PROPERTIES_BYTES: usize = 16384;

/// Pinned memory of which the device sees every write of the host, and the host every write of the device, without a
/// flush in between.
pub const HOST_COHERENT: u32 = 0x4000_0000;

pub const ATTRIBUTE_WAVE: i32 = 87;
pub const ATTRIBUTE_COMPUTE_UNITS: i32 = 63;
pub const ATTRIBUTE_LDS_BYTES: i32 = 74;

/// HIP's own functions.
pub(super) struct Amd {
    error_name: Symbol<unsafe extern "C" fn(Status) -> *const c_char>,
    set_device: Symbol<unsafe extern "C" fn(i32) -> Status>,
    properties: Symbol<unsafe extern "C" fn(*mut c_void, i32) -> Status>,
    arch_offset: usize,
}

impl Amd {
    pub fn load(library: &Library) -> Result<Amd, HipError> {
        // SAFETY: the signatures are those of HIP's headers; `tests/hip_declarations.rs` compares them with `cubecl-hip-sys`. Both
        // names for the properties have the same one.
        unsafe {
            let (properties, arch_offset) = match library.symbol(PROPERTIES) {
                Ok(properties) => (properties, ARCH_OFFSET),
                Err(missing) => match library.symbol(OLD_PROPERTIES) {
                    Ok(properties) => (properties, OLD_ARCH_OFFSET),
                    Err(_) => return Err(missing),
                },
            };
            Ok(Amd {
                error_name: library.symbol(OWN_NAMES[0])?,
                set_device: library.symbol(OWN_NAMES[1])?,
                properties,
                arch_offset,
            })
        }
    }
}

impl Dialect for Amd {
    fn error_name(&self, status: Status) -> Option<String> {
        // SAFETY: any number may be asked about, and the answer is null or a string constant of the library.
        let name = unsafe { (self.error_name.function)(status) };
        // SAFETY: not null, so a constant that ends in a zero and lives as long as the library, which is for ever.
        (!name.is_null()).then(|| {
            unsafe { CStr::from_ptr(name) }
                .to_string_lossy()
                .into_owned()
        })
    }

    fn attributes(&self) -> &'static Attributes {
        &Attributes {
            wave: ATTRIBUTE_WAVE,
            compute_units: ATTRIBUTE_COMPUTE_UNITS,
            lds_bytes: ATTRIBUTE_LDS_BYTES,
        }
    }

    fn host_flags(&self) -> u32 {
        HOST_COHERENT
    }

    fn arch(&self, driver: &Driver, device: i32) -> Result<String, HipError> {
        let subject = || format!("device {device}");
        // The name is in no attribute. Two compute capabilities are no substitute: gfx908 and gfx90a share one.
        let mut properties = vec![0u64; PROPERTIES_BYTES / 8];
        let call = self.properties.name;
        // SAFETY: the room is ten times what either layout needs, and aligned for its widest field.
        let status = unsafe { (self.properties.function)(properties.as_mut_ptr().cast(), device) };
        driver.check(status, call, subject)?;
        let bytes: Vec<u8> = properties
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        let name = &bytes[self.arch_offset..][..ARCH_BYTES];
        let full = CStr::from_bytes_until_nul(name).unwrap_or_default();
        let full = full.to_string_lossy();
        // What follows the colon is a feature (`sramecc+`, `xnack-`); our code objects run with any.
        let arch = full.split(':').next().unwrap_or_default();
        let plausible = arch.len() > 3 && arch.starts_with("gfx");
        if plausible && arch.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            Ok(arch.to_string())
        } else {
            Err(HipError::Unexpected {
                call,
                subject: subject(),
                what: format!("the architecture reads {full:?}, not gfx and a number"),
            })
        }
    }

    fn version(&self, number: i32) -> String {
        let (major, minor, patch) = (
            number / 10_000_000,
            number / 100_000 % 100,
            number % 100_000,
        );
        format!("HIP {major}.{minor}.{patch}")
    }

    fn retain(&self, _driver: &Driver, _device: i32) -> Result<Handle, HipError> {
        Ok(ptr::null_mut())
    }

    fn release(&self, _device: i32) {}

    fn bind(&self, driver: &Driver, device: i32, _context: Handle) -> Result<(), HipError> {
        // SAFETY: a plain call; it changes what later calls of this thread mean and nothing else.
        let status = unsafe { (self.set_device.function)(device) };
        driver.check(status, self.set_device.name, || format!("device {device}"))
    }

    fn load_module(
        &self,
        driver: &Driver,
        image: &Image,
        subject: &dyn Fn() -> String,
    ) -> Result<Handle, HipError> {
        let row = &driver.table.module_load;
        let mut module = ptr::null_mut();
        // SAFETY: `module` is a place for a handle. The image is aligned as an ELF file has to be and outlives the
        // module, whose code the runtime may not have copied; that it is a whole one is for `Module::load`'s caller.
        let status = unsafe { (row.function)(&mut module, image.as_ptr().cast()) };
        driver.check(status, row.name, subject)?;
        Ok(module)
    }

    /// Nothing to do: what a block may have at most is what every launch may ask for.
    fn allow_lds(
        &self,
        _driver: &Driver,
        _function: Handle,
        _bytes: u32,
        _subject: &dyn Fn() -> String,
    ) -> Result<(), HipError> {
        Ok(())
    }
}
