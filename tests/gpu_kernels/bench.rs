//! A device with the kernels loaded, and buffers on it.

use crate::support::rng::Rng;
use greta_infer::gpu::geometry::{Geometry, Machine};
use greta_infer::gpu::{Found, Hardware};
use greta_infer::hip::{Device, DeviceBuffer, Module, Stream};
use std::ffi::c_void;

pub struct Bench {
    device: Device,
    stream: Stream,
    module: Module,
    pub machine: Machine,
    pub hardware: Hardware,
    pub wave: u32,
    pub compute_units: u32,
}

/// An argument, as wide as its parameter.
#[derive(Clone, Copy)]
pub enum Arg {
    Buffer(u64),
    U32(u32),
    U64(u64),
    F32(f32),
    F64(f64),
}

impl From<u32> for Arg {
    fn from(value: u32) -> Arg {
        Arg::U32(value)
    }
}
impl From<u64> for Arg {
    fn from(value: u64) -> Arg {
        Arg::U64(value)
    }
}
impl From<f32> for Arg {
    fn from(value: f32) -> Arg {
        Arg::F32(value)
    }
}
impl From<f64> for Arg {
    fn from(value: f64) -> Arg {
        Arg::F64(value)
    }
}
impl From<&DeviceBuffer> for Arg {
    fn from(buffer: &DeviceBuffer) -> Arg {
        Arg::Buffer(buffer.address())
    }
}
impl From<Option<&DeviceBuffer>> for Arg {
    fn from(buffer: Option<&DeviceBuffer>) -> Arg {
        Arg::Buffer(buffer.map_or(0, DeviceBuffer::address))
    }
}

/// The arguments of a launch, converted.
#[macro_export]
macro_rules! args {
    ($($arg:expr),* $(,)?) => { &[$($crate::gpu_kernels::bench::Arg::from($arg)),*] };
}

impl Bench {
    pub fn new(found: &Found, code: &[u8]) -> Bench {
        let device = Device::open(&found.hip, found.info.index).expect("a device that opens");
        let stream = Stream::new(&device).expect("a stream");
        // SAFETY: an embedded code object, as the compiler wrote it.
        let module = unsafe { Module::load(&device, code) }.expect("kernels that load");
        Bench {
            hardware: Hardware::of(&found.info).expect("a tuning table that holds"),
            machine: Machine::of(&found.info),
            wave: found.info.wave,
            compute_units: found.info.compute_units,
            device,
            stream,
            module,
        }
    }

    /// Whether the kernels through whose LDS weights come are there.
    pub fn copies_in_bulk(&self) -> bool {
        self.module.function("gemv_stream_f32").is_ok()
    }

    pub fn bytes(&self, bytes: &[u8]) -> DeviceBuffer {
        let buffer = DeviceBuffer::new(&self.device, bytes.len()).expect("device memory");
        self.stream
            .copy_to_device(&buffer, 0, bytes)
            .expect("a copy");
        buffer
    }

    pub fn floats(&self, values: &[f32]) -> DeviceBuffer {
        self.bytes(
            &values
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect::<Vec<_>>(),
        )
    }

    /// `n` NaN.
    pub fn nans(&self, n: usize) -> DeviceBuffer {
        self.bytes(&vec![0xff; 4 * n])
    }

    /// A step of `rows` tokens.
    pub fn step(&self, position: u32, rows: u32) -> DeviceBuffer {
        let words = [position, rows, 0, 0].into_iter().chain(0..rows);
        self.bytes(&words.flat_map(u32::to_le_bytes).collect::<Vec<_>>())
    }

    pub fn read(&self, buffer: &DeviceBuffer) -> Vec<u8> {
        let mut bytes = vec![0; buffer.bytes()];
        self.stream
            .copy_to_host(buffer, 0, &mut bytes)
            .expect("a copy");
        bytes
    }

    pub fn read_floats(&self, buffer: &DeviceBuffer) -> Vec<f32> {
        let bytes = self.read(buffer);
        bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect()
    }

    pub fn launch(&self, kernel: &str, geometry: Geometry, args: &[Arg]) {
        let function = self.module.function(kernel).expect("a kernel of that name");
        function
            .allow_lds(geometry.lds_bytes)
            .unwrap_or_else(|e| panic!("{kernel}: {e}"));
        let mut pointers: Vec<*mut c_void> = args
            .iter()
            .map(|arg| match arg {
                Arg::Buffer(v) | Arg::U64(v) => (&raw const *v).cast_mut().cast(),
                Arg::U32(v) => (&raw const *v).cast_mut().cast(),
                Arg::F32(v) => (&raw const *v).cast_mut().cast(),
                Arg::F64(v) => (&raw const *v).cast_mut().cast(),
            })
            .collect();
        let Geometry {
            grid,
            block,
            lds_bytes,
        } = geometry;
        // SAFETY: the tests pass what the kernels' declarations say, over buffers that outlive the wait below.
        let launched = unsafe {
            self.stream
                .launch(&function, grid, block, lds_bytes, &mut pointers)
        };
        launched
            .and_then(|()| self.stream.synchronize())
            .unwrap_or_else(|e| panic!("{kernel}: {e}"));
    }
}

pub fn normal(rng: &mut Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.normal() as f32).collect()
}

/// Fails unless every value is within `relative` of its size.
pub fn assert_near(got: &[f32], want: &[(f64, f64)], relative: f64, place: &str) {
    assert_eq!(got.len(), want.len(), "{place}");
    for (i, (&got, &(exact, size))) in got.iter().zip(want).enumerate() {
        let error = (f64::from(got) - exact).abs();
        // Written so that NaN fails.
        assert!(
            error <= relative * size + 1e-30,
            "{place} [{i}]: {got}, expected {exact} (of size {size})"
        );
    }
}
