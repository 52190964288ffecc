//! Platform `nvidia`: HIP's operations mapped one to one onto the CUDA driver, as HIP's own NVIDIA headers do.
//!
//! Names, numbers and signatures are `cudarc`'s: the compiler compares each row with [`cudarc::driver::sys`]. The calls
//! do not go through cudarc's functions, because those panic when the library or a symbol is missing and return a
//! status as a Rust enum, which a newer driver can break.

use cudarc::driver::sys;
use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use super::driver::{Attributes, Dialect, Driver, Overlapping};
use super::error::HipError;
use super::module::Image;
use super::sys::{Handle, Library, Names, SHAPES, SUCCESS, Shape, Status, Symbol, same, shape};

/// The file names of the driver: the name every driver installs, and the link of the development package.
pub const FILE_NAMES: &[&str] = &["libcuda.so.1", "libcuda.so"];

/// Each row's name, after the compiler has compared the row's signature with cudarc's for that name. The underscores
/// say how many arguments there are.
macro_rules! column {
    ($($field:ident: $name:ident($($hole:tt)*),)*) => {
        /// The table's column for the CUDA driver.
        pub const NAMES: Names = Names { $($field: stringify!($name),)* };

        $(const _: () = assert!(
            same(SHAPES.$field, shape(sys::$name as unsafe fn($($hole)*) -> sys::CUresult)),
            concat!(stringify!($name), " has another signature than the table's row"),
        );)*
    };
}

column! {
    initialize: cuInit(_),
    driver_version: cuDriverGetVersion(_),
    device_count: cuDeviceGetCount(_),
    device_get: cuDeviceGet(_, _),
    device_name: cuDeviceGetName(_, _, _),
    device_memory: cuDeviceTotalMem_v2(_, _),
    device_attribute: cuDeviceGetAttribute(_, _, _),
    memory_info: cuMemGetInfo_v2(_, _),
    malloc: cuMemAlloc_v2(_, _),
    free: cuMemFree_v2(_),
    host_malloc: cuMemHostAlloc(_, _, _),
    host_free: cuMemFreeHost(_),
    host_address: cuMemHostGetDevicePointer_v2(_, _, _),
    copy_to_device: cuMemcpyHtoDAsync_v2(_, _, _, _),
    copy_to_host: cuMemcpyDtoHAsync_v2(_, _, _, _),
    fill: cuMemsetD8Async(_, _, _, _),
    stream_create: cuStreamCreate(_, _),
    stream_destroy: cuStreamDestroy_v2(_),
    stream_synchronize: cuStreamSynchronize(_),
    stream_query: cuStreamQuery(_),
    stream_wait: cuStreamWaitEvent(_, _, _),
    event_create: cuEventCreate(_, _),
    event_destroy: cuEventDestroy_v2(_),
    event_record: cuEventRecord(_, _),
    event_synchronize: cuEventSynchronize(_),
    event_elapsed: cuEventElapsedTime(_, _, _),
    module_load: cuModuleLoadData(_, _),
    module_unload: cuModuleUnload(_),
    module_function: cuModuleGetFunction(_, _, _),
    function_attribute: cuFuncGetAttribute(_, _, _),
    launch: cuLaunchKernel(_, _, _, _, _, _, _, _, _, _, _),
    capture_begin: cuStreamBeginCapture_v2(_, _),
    capture_end: cuStreamEndCapture(_, _),
    capture_status: cuStreamIsCapturing(_, _),
    graph_destroy: cuGraphDestroy(_),
    graph_nodes: cuGraphGetNodes(_, _, _),
    graph_edges: cuGraphGetEdges(_, _, _, _),
    node_kind: cuGraphNodeGetType(_, _),
    graph_dot: cuGraphDebugDotPrint(_, _, _),
    graph_instantiate: cuGraphInstantiateWithFlags(_, _, _),
    exec_destroy: cuGraphExecDestroy(_),
    exec_upload: cuGraphUpload(_, _),
    exec_launch: cuGraphLaunch(_, _),
}

macro_rules! own {
    ($($field:ident: $name:ident($($hole:tt)*) as $type:ty,)*) => {
        /// The functions that only the CUDA driver has, or has in another form.
        pub const OWN_NAMES: &[&str] = &[$(stringify!($name)),*];

        /// The CUDA driver's own functions.
        pub(super) struct Nvidia {
            $($field: Symbol<$type>,)*
            newer: Newer,
        }

        impl Nvidia {
            pub fn load(library: &Library) -> Result<Nvidia, HipError> {
                Ok(Nvidia {
                    // SAFETY: the assertions below compare each signature with cudarc's for that name.
                    $($field: unsafe { library.symbol(stringify!($name)) }?,)*
                    newer: Newer::load(library),
                })
            }
        }

        $(const _: () = assert!(
            same(<$type as Shape>::SHAPE, shape(sys::$name as unsafe fn($($hole)*) -> sys::CUresult)),
            concat!(stringify!($name), " has another signature than ours"),
        );)*
    };
}

own! {
    error_name: cuGetErrorName(_, _) as unsafe extern "C" fn(Status, *mut *const c_char) -> Status,
    retain: cuDevicePrimaryCtxRetain(_, _) as unsafe extern "C" fn(*mut Handle, i32) -> Status,
    release: cuDevicePrimaryCtxRelease_v2(_) as unsafe extern "C" fn(i32) -> Status,
    set_current: cuCtxSetCurrent(_) as unsafe extern "C" fn(Handle) -> Status,
    module_load: cuModuleLoadDataEx(_, _, _, _, _)
        as unsafe extern "C" fn(*mut Handle, *const c_void, u32, *mut u32, *mut *mut c_void) -> Status,
    set_attribute: cuFuncSetAttribute(_, _, _) as unsafe extern "C" fn(Handle, i32, i32) -> Status,
}

type LaunchEx =
    unsafe extern "C" fn(*const c_void, Handle, *mut *mut c_void, *mut *mut c_void) -> Status;
type Edges =
    unsafe extern "C" fn(Handle, *mut Handle, *mut Handle, *mut EdgeData, *mut usize) -> Status;

/// What an edge of a graph says beside its ends (`CUgraphEdgeData`): eight bytes, of which nothing is asked here.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct EdgeData([u8; 8]);

/// Functions that only drivers since CUDA 11.8 and 12.3 have, and that are done without on others.
struct Newer {
    launch: Option<Symbol<LaunchEx>>,
    edges: Option<Symbol<Edges>>,
}

const LAUNCH_EX: &str = "cuLaunchKernelEx";
const _: () = assert!(
    same(
        <LaunchEx as Shape>::SHAPE,
        shape(sys::cuLaunchKernelEx as unsafe fn(_, _, _, _) -> sys::CUresult)
    ),
    "cuLaunchKernelEx has another signature than ours",
);

impl Newer {
    fn load(library: &Library) -> Self {
        // SAFETY: the assertion above compares the first with cudarc's. cudarc has the second for newer drivers only
        // than it is built for here: graph, three arrays that may be null, and their length (`cuda.h`, 12.3).
        unsafe {
            Newer {
                launch: library.symbol(LAUNCH_EX).ok(),
                edges: library.symbol("cuGraphGetEdges_v2").ok(),
            }
        }
    }
}

use sys::CUdevice_attribute_enum as Attribute;
use sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as MAX_DYNAMIC_LDS;
use sys::CUjit_option_enum::{CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};

use sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT as LDS_SHARE;

/// All that can be LDS.
const LDS_SHARE_PERCENT: i32 = 100;

/// Room for what the driver's compiler has to say of a program it refuses.
const LOG_BYTES: usize = 4096;

impl Dialect for Nvidia {
    fn error_name(&self, status: Status) -> Option<String> {
        let mut name = ptr::null();
        // SAFETY: any number may be asked about; `name` is a place for the answer, null for a number it does not know.
        let known = unsafe { (self.error_name.function)(status, &mut name) };
        // SAFETY: not null, so a string constant that lives as long as the library, which is for ever.
        let text = || {
            unsafe { CStr::from_ptr(name) }
                .to_string_lossy()
                .into_owned()
        };
        (known == SUCCESS && !name.is_null()).then(text)
    }

    fn attributes(&self) -> &'static Attributes {
        &Attributes {
            wave: Attribute::CU_DEVICE_ATTRIBUTE_WARP_SIZE as i32,
            compute_units: Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT as i32,
            lds_bytes: Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN as i32,
        }
    }

    fn host_flags(&self) -> u32 {
        0
    }

    fn arch(&self, driver: &Driver, device: i32) -> Result<String, HipError> {
        let number = |attribute: Attribute| driver.attribute(device, attribute as i32);
        let major = number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        Ok(format!("sm_{major}{minor}"))
    }

    fn version(&self, number: i32) -> String {
        format!("CUDA {}.{}", number / 1000, number % 1000 / 10)
    }

    fn retain(&self, driver: &Driver, device: i32) -> Result<Handle, HipError> {
        let mut context = ptr::null_mut();
        // SAFETY: `context` is a place for a handle.
        let status = unsafe { (self.retain.function)(&mut context, device) };
        driver.check(status, self.retain.name, || format!("device {device}"))?;
        Ok(context)
    }

    fn release(&self, device: i32) {
        // SAFETY: called once for a `retain` that succeeded, when nothing made in the context is left.
        let _nobody_left_to_tell = unsafe { (self.release.function)(device) };
    }

    fn bind(&self, driver: &Driver, device: i32, context: Handle) -> Result<(), HipError> {
        // SAFETY: `context` is retained until the device is dropped, and whoever binds holds the device.
        let status = unsafe { (self.set_current.function)(context) };
        let subject = || format!("the context of device {device}");
        driver.check(status, self.set_current.name, subject)
    }

    fn load_module(
        &self,
        driver: &Driver,
        image: &Image,
        subject: &dyn Fn() -> String,
    ) -> Result<Handle, HipError> {
        let mut log = vec![0u8; LOG_BYTES];
        let mut options = [
            CU_JIT_ERROR_LOG_BUFFER as u32,
            CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES as u32,
        ];
        // The second value is a number in a pointer's clothes.
        let mut values = [
            log.as_mut_ptr().cast(),
            ptr::without_provenance_mut(LOG_BYTES),
        ];
        let mut module = ptr::null_mut();
        // SAFETY: the image is followed by a zero, which ends it if it is text; if not, its header says how long it is.
        // Options and values are two each, and the buffer they name has the size they say.
        let status = unsafe {
            let (options, values) = (options.as_mut_ptr(), values.as_mut_ptr());
            (self.module_load.function)(&mut module, image.as_ptr().cast(), 2, options, values)
        };
        if status == SUCCESS {
            return Ok(module);
        }
        let log = CStr::from_bytes_until_nul(&log).unwrap_or_default();
        let log = log.to_string_lossy().trim().replace('\n', "; ");
        let detail = (!log.is_empty()).then_some(log);
        Err(driver.failure(status, self.module_load.name, subject(), detail))
    }

    fn prefer_lds(
        &self,
        driver: &Driver,
        function: Handle,
        subject: &dyn Fn() -> String,
    ) -> Result<(), HipError> {
        // SAFETY: `function` is a live handle, by whoever holds the `Function`.
        let status =
            unsafe { (self.set_attribute.function)(function, LDS_SHARE as i32, LDS_SHARE_PERCENT) };
        driver.check(status, self.set_attribute.name, subject)
    }

    fn overlaps(&self) -> bool {
        self.newer.launch.is_some()
    }

    unsafe fn launch_overlapping(&self, launch: &Overlapping) -> Status {
        let ([gx, gy, gz], [bx, by, bz]) = (launch.grid, launch.block);
        let mut attribute = sys::CUlaunchAttribute {
            id:
                sys::CUlaunchAttributeID_enum::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue {
                programmaticStreamSerializationAllowed: 1,
            },
        };
        let config = sys::CUlaunchConfig {
            gridDimX: gx,
            gridDimY: gy,
            gridDimZ: gz,
            blockDimX: bx,
            blockDimY: by,
            blockDimZ: bz,
            sharedMemBytes: launch.lds_bytes,
            hStream: launch.stream.cast(),
            attrs: &mut attribute,
            numAttrs: 1,
        };
        let call = self.newer.launch.as_ref().expect("asked for by `overlaps`");
        let (config, none) = (ptr::from_ref(&config).cast(), ptr::null_mut());
        // SAFETY: the configuration and its one attribute live through the call, which copies them; the rest is the
        // caller's promise.
        unsafe { (call.function)(config, launch.function, launch.arguments, none) }
    }

    fn overlapping_name(&self) -> &'static str {
        LAUNCH_EX
    }

    unsafe fn edges(
        &self,
        graph: Handle,
        from: *mut Handle,
        to: *mut Handle,
        count: *mut usize,
    ) -> Option<Status> {
        let call = self.newer.edges.as_ref()?;
        // SAFETY: `count` is a number, by the caller's promise.
        let mut data = vec![EdgeData::default(); unsafe { *count }];
        // Without it, a driver refuses to tell of an edge that is not a plain one.
        let data = if from.is_null() {
            ptr::null_mut()
        } else {
            data.as_mut_ptr()
        };
        // SAFETY: every array has `count` places or is null, as the caller promises of two and the line above makes
        // sure of the third.
        Some(unsafe { (call.function)(graph, from, to, data, count) })
    }

    fn allow_lds(
        &self,
        driver: &Driver,
        function: Handle,
        bytes: u32,
        subject: &dyn Fn() -> String,
    ) -> Result<(), HipError> {
        // The setting is the function's, not the launch's: asking for less would take away what a larger launch of the
        // same function was promised. At first it is 48 KiB less what the function declares.
        let row = &driver.table.function_attribute;
        let mut allowed = 0;
        // SAFETY: `allowed` is a place for the `int` that is written; `function` is a live handle, by whoever holds the
        // `Function`.
        let status = unsafe { (row.function)(&mut allowed, MAX_DYNAMIC_LDS as i32, function) };
        driver.check(status, row.name, subject)?;
        if i64::from(bytes) <= i64::from(allowed) {
            return Ok(());
        }
        // More than the type holds is more than any device has, which the driver is left to say.
        let value = i32::try_from(bytes).unwrap_or(i32::MAX);
        // SAFETY: `function` is a live handle, by whoever holds the `Function`.
        let status =
            unsafe { (self.set_attribute.function)(function, MAX_DYNAMIC_LDS as i32, value) };
        driver.check(status, self.set_attribute.name, subject)
    }
}
