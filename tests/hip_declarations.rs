//! `hip`'s table and numbers against published declarations of both platforms.

use cubecl_hip_sys as published;
use greta_infer::hip::sys::{SHAPES, Shape, shape};
use greta_infer::hip::{CaptureMode, CaptureStatus, NodeKind, amd, sys};

/// Compares rows with the functions of the same names that `cubecl-hip-sys` declares.
macro_rules! compare {
    ($($field:ident: $name:ident($($hole:tt)*),)*) => {{
        let compared = vec![$({
            assert_eq!(amd::NAMES.$field, stringify!($name));
            let theirs = shape(published::$name as unsafe extern "C" fn($($hole)*) -> _);
            assert_eq!(SHAPES.$field, theirs, stringify!($name));
            stringify!($name)
        }),*];
        assert_eq!(compared, amd::NAMES.all(), "a row that is not compared");
    }};
}

#[test]
fn amd_signatures_are_the_published_ones() {
    compare! {
        initialize: hipInit(_),
        driver_version: hipDriverGetVersion(_),
        device_count: hipGetDeviceCount(_),
        device_get: hipDeviceGet(_, _),
        device_name: hipDeviceGetName(_, _, _),
        device_memory: hipDeviceTotalMem(_, _),
        device_attribute: hipDeviceGetAttribute(_, _, _),
        memory_info: hipMemGetInfo(_, _),
        malloc: hipMalloc(_, _),
        free: hipFree(_),
        host_malloc: hipHostMalloc(_, _, _),
        host_free: hipHostFree(_),
        host_address: hipHostGetDevicePointer(_, _, _),
        copy_to_device: hipMemcpyHtoDAsync(_, _, _, _),
        copy_to_host: hipMemcpyDtoHAsync(_, _, _, _),
        fill: hipMemsetD8Async(_, _, _, _),
        stream_create: hipStreamCreateWithFlags(_, _),
        stream_destroy: hipStreamDestroy(_),
        stream_synchronize: hipStreamSynchronize(_),
        stream_query: hipStreamQuery(_),
        stream_wait: hipStreamWaitEvent(_, _, _),
        event_create: hipEventCreateWithFlags(_, _),
        event_destroy: hipEventDestroy(_),
        event_record: hipEventRecord(_, _),
        event_synchronize: hipEventSynchronize(_),
        event_elapsed: hipEventElapsedTime(_, _, _),
        module_load: hipModuleLoadData(_, _),
        module_unload: hipModuleUnload(_),
        module_function: hipModuleGetFunction(_, _, _),
        function_attribute: hipFuncGetAttribute(_, _, _),
        launch: hipModuleLaunchKernel(_, _, _, _, _, _, _, _, _, _, _),
        capture_begin: hipStreamBeginCapture(_, _),
        capture_end: hipStreamEndCapture(_, _),
        capture_status: hipStreamIsCapturing(_, _),
        graph_destroy: hipGraphDestroy(_),
        graph_nodes: hipGraphGetNodes(_, _, _),
        graph_edges: hipGraphGetEdges(_, _, _, _),
        node_kind: hipGraphNodeGetType(_, _),
        graph_dot: hipGraphDebugDotPrint(_, _, _),
        graph_instantiate: hipGraphInstantiateWithFlags(_, _, _),
        exec_destroy: hipGraphExecDestroy(_),
        exec_upload: hipGraphUpload(_, _),
        exec_launch: hipGraphLaunch(_, _),
    }
    // The three that are not in the table, with the signatures `amd` gives them.
    type ErrorName = unsafe extern "C" fn(i32) -> *const std::ffi::c_char;
    type SetDevice = unsafe extern "C" fn(i32) -> i32;
    type Properties = unsafe extern "C" fn(*mut std::ffi::c_void, i32) -> i32;
    let theirs = [
        shape(published::hipGetErrorName as unsafe extern "C" fn(_) -> _),
        shape(published::hipSetDevice as unsafe extern "C" fn(_) -> _),
        shape(published::hipGetDevicePropertiesR0600 as unsafe extern "C" fn(_, _) -> _),
    ];
    assert_eq!(
        [ErrorName::SHAPE, SetDevice::SHAPE, Properties::SHAPE],
        theirs
    );
}

/// How the properties of HIP 5 begin: `hipDeviceProp_tR0000` of HIP 6's `hip_deprecated.h`, which `cubecl-hip-sys` lacks.
#[repr(C)]
struct OldProperties {
    name: [u8; 256],
    memory_lds: [usize; 2],
    /// Registers, warp, block, its dimensions, the grid's, core clock, memory clock, bus width.
    block_and_clocks: [i32; 12],
    constant_memory: usize,
    /// Major, minor, units, L2, threads of a unit, mode, clock, features, concurrency, domain, bus, device.
    unit_and_bus: [i32; 12],
    unit_lds: usize,
    /// Boards, mapping, and the architecture as a number.
    board: [i32; 3],
    arch_name: [u8; 256],
}

#[test]
fn amd_numbers_are_the_published_ones() {
    use published::*;
    let check = |what: &str, ours: i64, theirs: u32| assert_eq!(ours, i64::from(theirs), "{what}");
    check("success", sys::SUCCESS.into(), HIP_SUCCESS);
    check(
        "no device",
        sys::NO_DEVICE.into(),
        hipError_t_hipErrorNoDevice,
    );
    check(
        "not ready",
        sys::NOT_READY.into(),
        hipError_t_hipErrorNotReady,
    );
    check(
        "non-blocking",
        sys::STREAM_NON_BLOCKING.into(),
        hipStreamNonBlocking,
    );
    check("portable", sys::HOST_PORTABLE.into(), hipHostMallocPortable);
    check("mapped", sys::HOST_MAPPED.into(), hipHostMallocMapped);
    check("coherent", amd::HOST_COHERENT.into(), hipHostMallocCoherent);
    let threads = hipFunction_attribute_HIP_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK;
    check("threads", sys::FUNCTION_MAX_THREADS.into(), threads);
    let local = hipFunction_attribute_HIP_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES;
    check("local", sys::FUNCTION_LOCAL_BYTES.into(), local);
    let verbose = hipGraphDebugDotFlags_hipGraphDebugDotFlagsVerbose;
    check("verbose", sys::DOT_VERBOSE.into(), verbose);
    let wave = hipDeviceAttribute_t_hipDeviceAttributeWarpSize;
    check("wave", amd::ATTRIBUTE_WAVE.into(), wave);
    let units = hipDeviceAttribute_t_hipDeviceAttributeMultiprocessorCount;
    check("units", amd::ATTRIBUTE_COMPUTE_UNITS.into(), units);
    let lds = hipDeviceAttribute_t_hipDeviceAttributeMaxSharedMemoryPerBlock;
    check("LDS of a block", amd::ATTRIBUTE_LDS_BYTES.into(), lds);
    let arch = std::mem::offset_of!(hipDeviceProp_tR0600, gcnArchName);
    assert_eq!(amd::ARCH_OFFSET, arch);
    let old_arch = std::mem::offset_of!(OldProperties, arch_name);
    assert_eq!(amd::OLD_ARCH_OFFSET, old_arch);
    for (mode, theirs) in [
        (
            CaptureMode::Global,
            hipStreamCaptureMode_hipStreamCaptureModeGlobal,
        ),
        (
            CaptureMode::ThreadLocal,
            hipStreamCaptureMode_hipStreamCaptureModeThreadLocal,
        ),
        (
            CaptureMode::Relaxed,
            hipStreamCaptureMode_hipStreamCaptureModeRelaxed,
        ),
    ] {
        assert_eq!(mode as u32, theirs);
    }
    for (status, theirs) in [
        (
            CaptureStatus::None,
            hipStreamCaptureStatus_hipStreamCaptureStatusNone,
        ),
        (
            CaptureStatus::Active,
            hipStreamCaptureStatus_hipStreamCaptureStatusActive,
        ),
        (
            CaptureStatus::Invalidated,
            hipStreamCaptureStatus_hipStreamCaptureStatusInvalidated,
        ),
        (CaptureStatus::Unknown(77), 77),
    ] {
        assert_eq!(status, CaptureStatus::from(theirs));
    }
    for (kind, theirs) in [
        (NodeKind::Kernel, hipGraphNodeType_hipGraphNodeTypeKernel),
        (NodeKind::Copy, hipGraphNodeType_hipGraphNodeTypeMemcpy),
        (NodeKind::Fill, hipGraphNodeType_hipGraphNodeTypeMemset),
        (NodeKind::Host, hipGraphNodeType_hipGraphNodeTypeHost),
        (NodeKind::Graph, hipGraphNodeType_hipGraphNodeTypeGraph),
        (NodeKind::Empty, hipGraphNodeType_hipGraphNodeTypeEmpty),
        (NodeKind::Wait, hipGraphNodeType_hipGraphNodeTypeWaitEvent),
        (
            NodeKind::Record,
            hipGraphNodeType_hipGraphNodeTypeEventRecord,
        ),
        (
            NodeKind::Other(10),
            hipGraphNodeType_hipGraphNodeTypeMemAlloc,
        ),
    ] {
        assert_eq!(kind, NodeKind::from(theirs));
    }
}

/// The numbers that both platforms share are CUDA's as well. Its signatures are compared by the compiler.
#[test]
fn nvidia_numbers_are_the_published_ones() {
    use cudarc::driver::sys::*;
    let check = |ours: i64, theirs: i64| assert_eq!(ours, theirs);
    check(sys::SUCCESS.into(), cudaError_enum::CUDA_SUCCESS as i64);
    check(
        sys::NO_DEVICE.into(),
        cudaError_enum::CUDA_ERROR_NO_DEVICE as i64,
    );
    check(
        sys::NOT_READY.into(),
        cudaError_enum::CUDA_ERROR_NOT_READY as i64,
    );
    let non_blocking = CUstream_flags_enum::CU_STREAM_NON_BLOCKING;
    check(sys::STREAM_NON_BLOCKING.into(), non_blocking as i64);
    check(sys::HOST_PORTABLE.into(), CU_MEMHOSTALLOC_PORTABLE.into());
    check(sys::HOST_MAPPED.into(), CU_MEMHOSTALLOC_DEVICEMAP.into());
    let verbose = CUgraphDebugDot_flags_enum::CU_GRAPH_DEBUG_DOT_FLAGS_VERBOSE;
    check(sys::DOT_VERBOSE.into(), verbose as i64);
    use CUfunction_attribute_enum::*;
    check(
        sys::FUNCTION_MAX_THREADS.into(),
        CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK as i64,
    );
    check(
        sys::FUNCTION_LOCAL_BYTES.into(),
        CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES as i64,
    );
    use CUstreamCaptureMode_enum::*;
    check(
        CaptureMode::Global as i64,
        CU_STREAM_CAPTURE_MODE_GLOBAL as i64,
    );
    check(
        CaptureMode::ThreadLocal as i64,
        CU_STREAM_CAPTURE_MODE_THREAD_LOCAL as i64,
    );
    check(
        CaptureMode::Relaxed as i64,
        CU_STREAM_CAPTURE_MODE_RELAXED as i64,
    );
    use CUstreamCaptureStatus_enum::*;
    for (status, theirs) in [
        (CaptureStatus::None, CU_STREAM_CAPTURE_STATUS_NONE),
        (CaptureStatus::Active, CU_STREAM_CAPTURE_STATUS_ACTIVE),
        (
            CaptureStatus::Invalidated,
            CU_STREAM_CAPTURE_STATUS_INVALIDATED,
        ),
    ] {
        assert_eq!(status, CaptureStatus::from(theirs as u32));
    }
    use CUgraphNodeType_enum::*;
    for (kind, theirs) in [
        (NodeKind::Kernel, CU_GRAPH_NODE_TYPE_KERNEL),
        (NodeKind::Copy, CU_GRAPH_NODE_TYPE_MEMCPY),
        (NodeKind::Fill, CU_GRAPH_NODE_TYPE_MEMSET),
        (NodeKind::Host, CU_GRAPH_NODE_TYPE_HOST),
        (NodeKind::Graph, CU_GRAPH_NODE_TYPE_GRAPH),
        (NodeKind::Empty, CU_GRAPH_NODE_TYPE_EMPTY),
        (NodeKind::Wait, CU_GRAPH_NODE_TYPE_WAIT_EVENT),
        (NodeKind::Record, CU_GRAPH_NODE_TYPE_EVENT_RECORD),
        (NodeKind::Other(10), CU_GRAPH_NODE_TYPE_MEM_ALLOC),
    ] {
        assert_eq!(kind, NodeKind::from(theirs as u32));
    }
}
