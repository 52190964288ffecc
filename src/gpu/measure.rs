//! What the device itself takes: bandwidth, its memory's and to it, and the time of each launch.

use super::arguments::{Follows, launch_values};
use super::geometry::{Geometry, stream_read};
use super::resolve::Resolved;
use super::upload::BUFFER_BYTES;
use super::{GpuError, Shared};
use crate::hip::{DeviceBuffer, Event, Function, HipError, PinnedBuffer, Stream};
use std::time::Duration;

/// Bytes that measuring reads: more than any cache holds.
const STREAM_BYTES: usize = 1 << 30;

/// Runs of which the best counts.
const STREAM_RUNS: u32 = 8;

/// How long the device is kept busy while launches are queued.
const STALL_S: f64 = 4e-3;

/// The kernel that only reads.
struct Reader {
    function: Function,
    address: u64,
    bytes: u64,
    sink: DeviceBuffer,
    geometry: Geometry,
}

impl Reader {
    fn new(shared: &Shared, address: u64, bytes: usize) -> Result<Self, GpuError> {
        Ok(Reader {
            function: shared.module.function("stream_read")?,
            address,
            bytes: bytes as u64,
            sink: DeviceBuffer::new(&shared.device, 256)?,
            geometry: stream_read(shared.info.compute_units),
        })
    }

    /// # Safety
    /// The buffer lives until the kernel has run.
    unsafe fn launch(&self, stream: &Stream) -> Result<(), GpuError> {
        let mut values = [self.address, self.bytes, self.sink.address()];
        let (function, geometry) = (&self.function, self.geometry);
        // SAFETY: `stream_read(const u8* p, u64 bytes, u32* sink)` reads `bytes` at `p` and writes at
        // most a word at `sink`.
        unsafe { launch_values(stream, function, geometry, Follows::InTurn, &mut values)? };
        Ok(())
    }
}

/// Bytes a second that the device reads from its memory, the best of a few runs over a buffer that is
/// allocated for the purpose and as large as what is free allows.
pub fn stream_bytes_per_second(shared: &Shared) -> Result<f64, GpuError> {
    let (free, _) = shared.device.memory()?;
    let bytes = STREAM_BYTES.min(free as usize / 2).max(1 << 20) & !0xfff;
    let buffer = DeviceBuffer::new(&shared.device, bytes)?;
    let stream = shared.stream();
    stream.fill(&buffer, 0)?;
    let reader = Reader::new(shared, buffer.address(), bytes)?;
    let (start, end) = (Event::new(&shared.device)?, Event::new(&shared.device)?);
    let mut best = f64::INFINITY;
    for _ in 0..STREAM_RUNS {
        stream.record(&start)?;
        // SAFETY: `buffer` lives until the synchronisation below.
        unsafe { reader.launch(&stream)? };
        stream.record(&end)?;
        end.synchronize()?;
        best = best.min(elapsed(&start, &end)?.as_secs_f64());
    }
    Ok(bytes as f64 / best)
}

/// Bytes a second that are copied from pinned memory to the device, as many at a time as when weights
/// are uploaded: the best of a few runs.
pub fn copy_bytes_per_second(shared: &Shared) -> Result<f64, GpuError> {
    let from = PinnedBuffer::new(&shared.device, BUFFER_BYTES)?;
    let to = DeviceBuffer::new(&shared.device, BUFFER_BYTES)?;
    let stream = shared.stream();
    let (start, end) = (Event::new(&shared.device)?, Event::new(&shared.device)?);
    let mut best = f64::INFINITY;
    for _ in 0..STREAM_RUNS {
        stream.record(&start)?;
        // SAFETY: `from` is not written, and lives until the stream has been waited for.
        let queued = unsafe { stream.copy_to_device_async(&to, 0, &from, 0, BUFFER_BYTES) };
        queued
            .and_then(|()| stream.record(&end))
            .and(stream.synchronize())?;
        best = best.min(elapsed(&start, &end)?.as_secs_f64());
    }
    Ok(BUFFER_BYTES as f64 / best)
}

/// Both events have happened.
fn elapsed(start: &Event, end: &Event) -> Result<Duration, HipError> {
    let milliseconds = end.milliseconds_since(start)?;
    let milliseconds = milliseconds.expect("the stream was waited for after both events");
    Ok(Duration::from_secs_f64(
        f64::from(milliseconds.max(0.0)) / 1e3,
    ))
}

/// Device time of each of `resolved`, queued in order on the shared stream.
pub fn launches(
    shared: &Shared,
    stream: &Stream,
    resolved: &mut [Resolved],
) -> Result<Vec<Duration>, GpuError> {
    let mut events = Vec::with_capacity(resolved.len() + 1);
    for _ in 0..=resolved.len() {
        events.push(Event::new(&shared.device)?);
    }
    let weights = &shared.weights;
    let reader = Reader::new(shared, weights.address(), weights.bytes())?;
    // At 4 TB/s, faster than any device reads.
    let stalls = (STALL_S * 4e12 / weights.bytes() as f64).clamp(1.0, 200.0);
    for _ in 0..stalls as u32 {
        // SAFETY: the weights live as long as `shared`.
        unsafe { reader.launch(stream)? };
    }
    stream.record(&events[0])?;
    for (resolved, event) in resolved.iter_mut().zip(&events[1..]) {
        // SAFETY: the recording that owns `resolved` keeps its buffers and waits for the stream.
        unsafe { resolved.launch_alone(stream)? };
        stream.record(event)?;
    }
    stream.synchronize()?;
    let times = events.windows(2).map(|pair| elapsed(&pair[0], &pair[1]));
    Ok(times.collect::<Result<_, _>>()?)
}
