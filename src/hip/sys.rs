//! The table of driver functions: one row an operation, one signature for both platforms.
//!
//! HIP was made in the CUDA driver's image, and operation for operation the two have the same arguments with the same
//! binary layout and, where we use them, the same numbers (`tests/hip_declarations.rs` compares both). So there is one [`Table`],
//! filled at run time from either library; [`amd::NAMES`](super::amd::NAMES) and
//! [`nvidia::NAMES`](super::nvidia::NAMES) are its two columns. What the platforms do differently is
//! theirs to say, too.
//!
//! A status is an integer. A driver newer than this program may return one we have never heard of, and a Rust `enum`
//! that holds an unknown value is undefined behaviour.

use std::ffi::{c_char, c_void};
use std::path::{Path, PathBuf};

use super::error::HipError;
use super::{Platform, Search};

/// What every driver function returns.
pub type Status = i32;
/// A driver's object: stream, event, module, function, graph, node, context.
pub type Handle = *mut c_void;
/// An address in the device's memory. HIP has a pointer and CUDA a 64-bit number in its place; a number cannot be
/// dereferenced by mistake.
pub type Address = u64;

#[cfg(not(target_pointer_width = "64"))]
compile_error!(
    "a device address is a pointer to HIP and 64 bits to CUDA: only 64-bit targets can have both"
);

pub const SUCCESS: Status = 0;
/// `hipErrorNoDevice`, `CUDA_ERROR_NO_DEVICE`.
pub const NO_DEVICE: Status = 100;
/// `hipErrorInvalidDevice`: what some HIP releases answer to `hipInit` where there is no device.
pub const INVALID_DEVICE: Status = 101;
/// `hipErrorNotReady`, `CUDA_ERROR_NOT_READY`.
pub const NOT_READY: Status = 600;

/// A stream that does not wait for the legacy default stream.
pub const STREAM_NON_BLOCKING: u32 = 1;
/// Pinned memory that every context may use.
pub const HOST_PORTABLE: u32 = 1;
/// Pinned memory that kernels may address.
pub const HOST_MAPPED: u32 = 2;
/// Function attributes: the largest block, spilled bytes a thread.
pub const FUNCTION_MAX_THREADS: i32 = 0;
pub const FUNCTION_LOCAL_BYTES: i32 = 3;
/// A drawing of a graph with everything the driver knows of each node.
pub const DOT_VERBOSE: u32 = 1;

/// A function of the library and its name there, for errors.
pub struct Symbol<F> {
    pub name: &'static str,
    pub function: F,
}

/// Bytes of a function's result and of each argument: what has to agree for a call to be sound.
pub trait Shape {
    const SHAPE: &'static [usize];
}

macro_rules! shapes {
    ($(($($argument:ident)*))*) => {$(
        impl<R, $($argument),*> Shape for unsafe extern "C" fn($($argument),*) -> R {
            const SHAPE: &'static [usize] = &[size_of::<R>(), $(size_of::<$argument>()),*];
        }
        impl<R, $($argument),*> Shape for unsafe fn($($argument),*) -> R {
            const SHAPE: &'static [usize] = &[size_of::<R>(), $(size_of::<$argument>()),*];
        }
    )*};
}

shapes! { (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F G H I J K) }

/// The [`Shape`] of a function.
pub const fn shape<F: Shape + Copy>(_function: F) -> &'static [usize] {
    F::SHAPE
}

/// Whether two shapes are the same, for the compiler to ask.
pub const fn same(a: &[usize], b: &[usize]) -> bool {
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

macro_rules! table {
    ($($(#[$doc:meta])* $field:ident($($argument:ident: $type:ty),*);)*) => {
        /// The operations of a loaded library.
        pub struct Table {
            $($(#[$doc])* pub $field: Symbol<unsafe extern "C" fn($($argument: $type),*) -> Status>,)*
        }

        /// What a library calls each operation.
        pub struct Names {
            $(pub $field: &'static str,)*
        }

        /// The signature of each operation.
        pub struct Shapes {
            $(pub $field: &'static [usize],)*
        }

        pub const SHAPES: Shapes = Shapes {
            $($field: <unsafe extern "C" fn($($type),*) -> Status as Shape>::SHAPE,)*
        };

        impl Names {
            /// Every name, in the table's order.
            pub fn all(&self) -> Vec<&'static str> {
                vec![$(self.$field),*]
            }
        }

        impl Table {
            /// Looks up every name; the first that is missing is the error.
            ///
            /// # Safety
            /// In `library`, each of `names` has the signature of its row.
            pub(super) unsafe fn load(library: &Library, names: &Names) -> Result<Table, HipError> {
                Ok(Table {
                    // SAFETY: the caller's promise, row by row.
                    $($field: unsafe { library.symbol(names.$field) }?,)*
                })
            }
        }
    };
}

table! {
    initialize(flags: u32);
    driver_version(version: *mut i32);
    device_count(count: *mut i32);
    device_get(device: *mut i32, ordinal: i32);
    device_name(name: *mut c_char, bytes: i32, device: i32);
    device_memory(bytes: *mut usize, device: i32);
    device_attribute(value: *mut i32, attribute: i32, device: i32);
    /// Free and total bytes of the current device.
    memory_info(free: *mut usize, total: *mut usize);
    malloc(address: *mut Address, bytes: usize);
    free(address: Address);
    host_malloc(host: *mut *mut c_void, bytes: usize, flags: u32);
    host_free(host: *mut c_void);
    host_address(address: *mut Address, host: *mut c_void, flags: u32);
    copy_to_device(to: Address, from: *const c_void, bytes: usize, stream: Handle);
    copy_to_host(to: *mut c_void, from: Address, bytes: usize, stream: Handle);
    fill(address: Address, value: u8, count: usize, stream: Handle);
    stream_create(stream: *mut Handle, flags: u32);
    stream_destroy(stream: Handle);
    stream_synchronize(stream: Handle);
    stream_query(stream: Handle);
    stream_wait(stream: Handle, event: Handle, flags: u32);
    event_create(event: *mut Handle, flags: u32);
    event_destroy(event: Handle);
    event_record(event: Handle, stream: Handle);
    event_synchronize(event: Handle);
    event_elapsed(milliseconds: *mut f32, start: Handle, end: Handle);
    module_load(module: *mut Handle, image: *const c_void);
    module_unload(module: Handle);
    module_function(function: *mut Handle, module: Handle, name: *const c_char);
    function_attribute(value: *mut i32, attribute: i32, function: Handle);
    launch(function: Handle, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32,
        lds_bytes: u32, stream: Handle, arguments: *mut *mut c_void, extra: *mut *mut c_void);
    capture_begin(stream: Handle, mode: u32);
    capture_end(stream: Handle, graph: *mut Handle);
    capture_status(stream: Handle, status: *mut u32);
    graph_destroy(graph: Handle);
    graph_nodes(graph: Handle, nodes: *mut Handle, count: *mut usize);
    graph_edges(graph: Handle, from: *mut Handle, to: *mut Handle, count: *mut usize);
    node_kind(node: Handle, kind: *mut u32);
    graph_dot(graph: Handle, path: *const c_char, flags: u32);
    graph_instantiate(exec: *mut Handle, graph: Handle, flags: u64);
    exec_destroy(exec: Handle);
    exec_upload(exec: Handle, stream: Handle);
    exec_launch(exec: Handle, stream: Handle);
}

/// A driver's library, loaded for the rest of the process: drivers start threads of their own, which unloading would
/// leave without code, and everything in a [`Table`] stays callable.
pub struct Library {
    library: &'static libloading::Library,
    path: PathBuf,
}

impl Library {
    /// Loads the first of `names` that is found in `search`'s directories, in their order, or by the system.
    pub(super) fn open(
        platform: Platform,
        names: &'static [&'static str],
        search: &Search,
    ) -> Result<Library, HipError> {
        let places = search.directories.iter().map(PathBuf::as_path);
        // A name without a directory is left to the system's loader.
        let places = places.chain([Path::new("")]);
        let mut unusable = None;
        for path in places.flat_map(|place| names.iter().map(move |name| place.join(name))) {
            // SAFETY: loading runs the library's initialisers. The names are those of the vendor's driver, looked for
            // where the user or the system says drivers are: as trusted as any library the system loads for us.
            match unsafe { libloading::Library::new(&path) } {
                Ok(library) => {
                    return Ok(Library {
                        library: Box::leak(Box::new(library)),
                        path,
                    });
                }
                Err(error) => {
                    let text = cause(&error);
                    // The loader says this of the file itself when there is none, and names another file when there is
                    // one that needs it.
                    let absent = format!("{}: cannot open shared object file", path.display());
                    if cfg!(target_os = "linux") && !text.starts_with(&absent) && unusable.is_none()
                    {
                        unusable = Some(text);
                    }
                }
            }
        }
        Err(HipError::NoLibrary {
            platform,
            names,
            directories: search.directories.clone(),
            unusable,
        })
    }

    /// Where it was loaded from, or its bare name if the system found it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A function of the library.
    ///
    /// # Safety
    /// `F` is a function pointer with the signature that the library gives `name`.
    pub(super) unsafe fn symbol<F: Copy>(&self, name: &'static str) -> Result<Symbol<F>, HipError> {
        // SAFETY: the caller's promise; `library` is never unloaded, so the copied pointer stays good.
        match unsafe { self.library.get::<F>(name) } {
            Ok(function) => Ok(Symbol {
                name,
                function: *function,
            }),
            Err(_) => Err(HipError::MissingSymbol {
                symbol: name,
                library: self.path.clone(),
            }),
        }
    }
}

/// What the system's loader said, which `libloading` keeps as the cause.
fn cause(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}
