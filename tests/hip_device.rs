//! `hip` on a real device, of whichever platform. Skips loudly on a machine without one.
//!
//! `cargo test --release --test hip_device --no-run` makes an executable that needs no Rust where it runs. NVIDIA's
//! kernels are here as PTX; AMD's are compiled when the test runs, by a clang that has to be there.

#[path = "support/skip.rs"]
mod skip;

use greta_infer::hip::{
    CaptureMode, CaptureStatus, Device, DeviceBuffer, Event, Function, Graph, GraphExec, Hip,
    HipError, Module, NodeKind, PinnedBuffer, Platform, Search, Stream,
};
use skip::loudly;
use std::ffi::c_void;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// Adds 1 to a counter and writes the sum into a mirror; and `y [n] += x`.
const SOURCE: &str = r#"
#define GLOBAL extern "C" __attribute__((global))
GLOBAL void count(unsigned *counter, volatile unsigned *mirror) { *mirror = *counter += 1; }
GLOBAL void accumulate(unsigned *y, unsigned x, unsigned n) {
    unsigned i = __builtin_amdgcn_workgroup_id_x() * 256 + __builtin_amdgcn_workitem_id_x();
    if (i < n) y[i] += x;
}
"#;

/// The same for NVIDIA.
const PTX: &str = r#"
.version 7.0
.target sm_80
.address_size 64

.visible .entry count(.param .u64 counter, .param .u64 mirror) {
    .reg .u32 %r<2>;
    .reg .u64 %rd<4>;
    ld.param.u64 %rd0, [counter];
    ld.param.u64 %rd1, [mirror];
    cvta.to.global.u64 %rd2, %rd0;
    cvta.to.global.u64 %rd3, %rd1;
    ld.global.u32 %r0, [%rd2];
    add.u32 %r1, %r0, 1;
    st.global.u32 [%rd2], %r1;
    st.volatile.global.u32 [%rd3], %r1;
    ret;
}

.visible .entry accumulate(.param .u64 y, .param .u32 x, .param .u32 n) {
    .reg .pred %p<1>;
    .reg .u32 %r<7>;
    .reg .u64 %rd<4>;
    mov.u32 %r0, %ctaid.x;
    mov.u32 %r1, %tid.x;
    mad.lo.u32 %r2, %r0, 256, %r1;
    ld.param.u32 %r3, [n];
    setp.ge.u32 %p0, %r2, %r3;
    @%p0 bra done;
    ld.param.u64 %rd0, [y];
    cvta.to.global.u64 %rd1, %rd0;
    mul.wide.u32 %rd2, %r2, 4;
    add.u64 %rd3, %rd1, %rd2;
    ld.param.u32 %r4, [x];
    ld.global.u32 %r5, [%rd3];
    add.u32 %r6, %r5, %r4;
    st.global.u32 [%rd3], %r6;
done:
    ret;
}
"#;

/// A device of each platform that has one, with the test's kernels loaded.
struct Bench {
    device: Device,
    stream: Stream,
    count: Function,
    add: Function,
}

fn benches() -> Vec<Bench> {
    static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();
    let devices = DEVICES.get_or_init(|| {
        // The emulated device lives in a process that ends with the thread that loaded the first module, and a test's
        // thread ends with the test. So a thread that never ends goes first.
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let devices = open();
            drop(devices.iter().map(Bench::new).collect::<Vec<_>>());
            send.send(devices).unwrap();
            loop {
                std::thread::park();
            }
        });
        receive.recv().expect("devices that open and load a module")
    });
    devices.iter().map(Bench::new).collect()
}

/// The first device of each platform that has one.
fn open() -> Vec<Device> {
    let home = |name| std::env::var_os(name).map(|home| PathBuf::from(home).join("lib"));
    let homes = ["ROCM_PATH", "HIP_PATH"].into_iter().filter_map(home);
    let directories = homes.chain(["/opt/rocm/lib".into()]).collect();
    let open = |hip: Result<Hip, HipError>| hip.and_then(|hip| Device::open(&hip, 0));
    let mut devices = Vec::new();
    for device in Hip::find(&Search { directories }).into_iter().map(open) {
        match device {
            Ok(device) => {
                loudly(&format!("{:?}", device.info()));
                devices.push(device);
            }
            Err(error @ (HipError::NoLibrary { .. } | HipError::NoDevice { .. })) => {
                loudly(&format!("SKIPPED: {error}"));
            }
            Err(error) => panic!("{error}"),
        }
    }
    devices
}

/// The kernels for a device: an object from clang for AMD, PTX for NVIDIA.
fn code(device: &Device) -> Vec<u8> {
    static OBJECT: OnceLock<Vec<u8>> = OnceLock::new();
    let arch = &device.info().arch;
    if device.info().platform == Platform::Nvidia {
        return PTX.into();
    }
    let compile = || {
        let dir = tempfile::tempdir().unwrap();
        let (source, object) = (dir.path().join("test.hip"), dir.path().join("test.hsaco"));
        std::fs::write(&source, SOURCE).unwrap();
        for clang in [
            "/opt/rocm/llvm/bin/clang",
            "clang-19",
            "clang-18",
            "clang-17",
        ] {
            let mut command = Command::new(clang);
            command
                .args([
                    "-x",
                    "hip",
                    "--cuda-device-only",
                    "-nogpulib",
                    "-nogpuinc",
                    "-O3",
                ])
                .arg("--no-gpu-bundle-output")
                .arg(format!("--offload-arch={arch}"))
                .arg("-o")
                .args([&object, &source]);
            if command.status().is_ok_and(|status| status.success()) {
                return std::fs::read(&object).unwrap();
            }
        }
        panic!("no clang that compiles for {arch}");
    };
    OBJECT.get_or_init(compile).clone()
}

impl Bench {
    fn new(device: &Device) -> Bench {
        // SAFETY: the PTX above, or what clang has just written.
        let module = unsafe { Module::load(device, &code(device)) }.unwrap();
        Bench {
            device: device.clone(),
            stream: Stream::new(device).unwrap(),
            count: module.function("count").unwrap(),
            add: module.function("accumulate").unwrap(),
        }
    }

    fn launch_count(&self, counter: u64, mirror: u64) -> Result<(), HipError> {
        let (mut counter, mut mirror) = (counter, mirror);
        let mut arguments = [
            (&raw mut counter).cast(),
            (&raw mut mirror).cast::<c_void>(),
        ];
        // SAFETY: two pointers, as the kernel takes, to words that the tests keep until the device is done.
        unsafe {
            let (one, block) = ([1, 1, 1], [1, 1, 1]);
            self.stream
                .launch(&self.count, one, block, 0, &mut arguments)
        }
    }

    fn launch_add(&self, y: &DeviceBuffer, x: u32) -> Result<(), HipError> {
        let mut n = u32::try_from(y.bytes() / 4).unwrap();
        let (mut address, mut x) = (y.address(), x);
        let grid = [n.div_ceil(256), 1, 1];
        let mut arguments = [
            (&raw mut address).cast::<c_void>(),
            (&raw mut x).cast(),
            (&raw mut n).cast(),
        ];
        // SAFETY: a pointer and two words, as the kernel takes; `n` words are in the buffer, which the tests keep.
        unsafe {
            self.stream
                .launch(&self.add, grid, [256, 1, 1], 0, &mut arguments)
        }
    }

    fn words(&self, buffer: &DeviceBuffer) -> Vec<u32> {
        let mut bytes = vec![0; buffer.bytes()];
        self.stream.copy_to_host(buffer, 0, &mut bytes).unwrap();
        let words = bytes.chunks_exact(4);
        words
            .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
            .collect()
    }
}

#[test]
fn a_device_says_what_it_is() {
    for Bench { device, .. } in benches() {
        let info = device.info();
        assert!(!info.name.is_empty());
        assert!([32, 64].contains(&info.wave), "{info:?}");
        assert!(
            info.compute_units > 0 && info.lds_bytes >= 32 << 10,
            "{info:?}"
        );
        let (free, total) = device.memory().unwrap();
        assert!(free > 0 && free <= total, "{free} of {total}");
        // What a driver keeps for itself is missing from one or the other.
        assert!(
            total.abs_diff(info.memory_bytes) < total / 8,
            "{total} {info:?}"
        );
        let beyond = device.hip().device_count().unwrap();
        let error = device.hip().device(beyond).unwrap_err();
        assert!(matches!(error, HipError::NoSuchDevice { .. }), "{error}");
    }
}

#[test]
fn copies_go_there_and_back() {
    for Bench { device, stream, .. } in benches() {
        for bytes in [0, 1, 255, 4096, (3 << 20) + 7] {
            let buffer = DeviceBuffer::zeroed(&stream, bytes).unwrap();
            let mut seen = vec![1; bytes];
            stream.copy_to_host(&buffer, 0, &mut seen).unwrap();
            assert_eq!(seen, vec![0; bytes]);
            let sent: Vec<u8> = (0..bytes).map(|i| (i * 31 + i / 256) as u8).collect();
            stream.copy_to_device(&buffer, 0, &sent).unwrap();
            stream.copy_to_host(&buffer, 0, &mut seen).unwrap();
            assert_eq!(seen, sent);
            let (half, mut rest) = (bytes / 2, vec![0; bytes - bytes / 2]);
            stream.copy_to_host(&buffer, half, &mut rest).unwrap();
            assert_eq!(rest, sent[half..]);
            let error = stream.copy_to_device(&buffer, half + 1, &rest).unwrap_err();
            assert!(matches!(error, HipError::OutOfRange { .. }), "{error}");
        }
        let pinned = PinnedBuffer::new(&device, 1000).unwrap();
        let buffer = DeviceBuffer::new(&device, 1000).unwrap();
        stream.fill(&buffer, 7).unwrap();
        // SAFETY: the buffer lives until the stream is done, and is read after that.
        let seen = unsafe {
            stream
                .copy_to_host_async(&buffer, 0, &pinned, 0, 1000)
                .unwrap();
            stream.synchronize().unwrap();
            std::slice::from_raw_parts(pinned.host(), 1000)
        };
        assert_eq!(seen, [7; 1000]);
        assert!(stream.is_done().unwrap());
    }
}

#[test]
fn a_captured_graph_is_what_was_launched_and_runs_every_time() {
    for bench in benches() {
        let Bench { device, stream, .. } = &bench;
        let counter = DeviceBuffer::zeroed(stream, 4).unwrap();
        let y = DeviceBuffer::zeroed(stream, 4 * 1000).unwrap();
        let mirror = PinnedBuffer::new(device, 4).unwrap();
        let record = |_: &Stream| -> Result<(), HipError> {
            assert_eq!(stream.capture_status()?, CaptureStatus::Active);
            bench.launch_count(counter.address(), mirror.address())?;
            bench.launch_add(&y, 3)?;
            bench.launch_add(&y, 4)
        };
        let graph: Graph = stream.capture(CaptureMode::ThreadLocal, record).unwrap();
        assert_eq!(stream.capture_status().unwrap(), CaptureStatus::None);
        stream.synchronize().unwrap();
        assert_eq!(bench.words(&counter), [0], "a captured launch must not run");
        assert_eq!(graph.nodes().unwrap(), [NodeKind::Kernel; 3]);
        // A chain, whichever numbers the driver gives to its nodes.
        let edges = graph.edges().unwrap();
        let first = (0..3).find(|n| edges.iter().all(|edge| edge.1 != *n));
        let after = |node: &usize| edges.iter().find(|edge| edge.0 == *node).map(|edge| edge.1);
        assert_eq!(
            std::iter::successors(first, after).take(4).count(),
            3,
            "{edges:?}"
        );
        assert_eq!(edges.len(), 2);
        let dir = tempfile::tempdir().unwrap();
        let dot = dir.path().join("graph.dot");
        graph.debug_dot(&dot).unwrap();
        let dot = std::fs::read_to_string(dot).unwrap();
        assert!(dot.contains("digraph") && dot.contains("count"), "{dot}");

        let exec = GraphExec::instantiate(&graph).unwrap();
        drop(graph);
        assert_eq!(exec.node_count(), 3);
        exec.upload(stream).unwrap();
        for replay in 1..=100u32 {
            exec.launch(stream).unwrap();
            stream.synchronize().unwrap();
            // SAFETY: the stream is done, so nobody writes the mirror.
            let seen = unsafe { mirror.host().cast::<u32>().read_volatile() };
            assert_eq!(seen, replay);
        }
        assert_eq!(bench.words(&counter), [100]);
        assert_eq!(bench.words(&y), [700; 1000]);
    }
}

#[test]
fn kernels_and_host_see_each_others_writes_in_pinned_memory() {
    for bench in benches() {
        let words = PinnedBuffer::new(&bench.device, 8).unwrap();
        let (counter, mirror) = (words.host().cast::<u32>(), words.host().wrapping_add(4));
        for start in [0, 41, u32::MAX] {
            // SAFETY: the words are in the buffer; the device is not at work, and after synchronising is no more.
            let seen = unsafe {
                counter.write_volatile(start);
                bench
                    .launch_count(words.address(), words.address() + 4)
                    .unwrap();
                bench.stream.synchronize().unwrap();
                (
                    counter.read_volatile(),
                    mirror.cast::<u32>().read_volatile(),
                )
            };
            let next = start.wrapping_add(1);
            assert_eq!(seen, (next, next));
        }
    }
}

#[test]
fn a_void_capture_is_an_error_and_leaves_the_stream_usable() {
    for bench in benches() {
        let Bench { device, stream, .. } = &bench;
        let y = DeviceBuffer::zeroed(stream, 4).unwrap();
        // What is only recorded cannot be waited for. Drivers refuse the call, the capture, or both.
        let result = stream.capture(CaptureMode::ThreadLocal, |_| {
            bench.launch_add(&y, 1)?;
            stream.synchronize()
        });
        let error = result.err().expect("synchronising while capturing");
        eprintln!("{error}");
        assert_eq!(stream.capture_status().unwrap(), CaptureStatus::None);
        let fails = |_: &Stream| {
            Err(HipError::ZeroByte {
                text: "ours".into(),
            })
        };
        let error = stream
            .capture(CaptureMode::ThreadLocal, fails)
            .err()
            .unwrap();
        assert!(matches!(error, HipError::ZeroByte { .. }), "{error}");
        bench.launch_add(&y, 5).unwrap();
        stream.synchronize().unwrap();
        assert_eq!(bench.words(&y), [5]);
        drop(DeviceBuffer::new(device, 16).unwrap());
    }
}

#[test]
fn events_are_ordered_and_timed() {
    for bench in benches() {
        let Bench { device, stream, .. } = &bench;
        let y = DeviceBuffer::zeroed(stream, 4 << 20).unwrap();
        let (start, end) = (Event::new(device).unwrap(), Event::new(device).unwrap());
        stream.record(&start).unwrap();
        bench.launch_add(&y, 1).unwrap();
        stream.record(&end).unwrap();
        end.synchronize().unwrap();
        let milliseconds = end.milliseconds_since(&start).unwrap().unwrap();
        assert!(
            milliseconds > 0.0 && milliseconds < 60_000.0,
            "{milliseconds}"
        );
        let other = Stream::new(device).unwrap();
        other.wait(&end).unwrap();
        other.synchronize().unwrap();
    }
}

#[test]
fn owners_can_be_used_and_dropped_on_other_threads() {
    for bench in benches() {
        let y = DeviceBuffer::zeroed(&bench.stream, 4 * 300).unwrap();
        let (bench, y) = std::thread::spawn(move || {
            bench.launch_add(&y, 9).unwrap();
            bench.stream.synchronize().unwrap();
            (bench, y)
        })
        .join()
        .unwrap();
        assert_eq!(bench.words(&y), [9; 300]);
        std::thread::spawn(move || drop((y, bench))).join().unwrap();
    }
}

#[test]
fn errors_say_call_subject_and_status() {
    for Bench { device, count, .. } in benches() {
        let error = DeviceBuffer::new(&device, 1 << 50).unwrap_err().to_string();
        let bytes = (1u64 << 50).to_string();
        for part in ["Alloc", "alloc"] {
            assert!(
                error.to_lowercase().contains(&part.to_lowercase()),
                "{error}"
            );
        }
        assert!(error.contains(&bytes) && error.contains("(2)"), "{error}");
        assert!(count.max_threads().unwrap() >= 256 && count.spill_bytes().unwrap() == 0);
        // SAFETY: the test's own kernels, and text that is no code at all but ends as text has to.
        let (module, garbage) = unsafe {
            let garbage = ".version 7.0\n.target sm_80\n.address_size 64\nnonsense\n";
            (
                Module::load(&device, &code(&device)),
                Module::load(&device, garbage.as_bytes()),
            )
        };
        let error = module
            .unwrap()
            .function("missing")
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("missing") && error.contains("(500)"),
            "{error}"
        );
        let error = garbage.err().unwrap().to_string();
        eprintln!("{error}");
        assert!(error.contains("odule") && !error.contains('\n'), "{error}");
    }
}
