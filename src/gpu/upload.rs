//! Weights → device: the file's bytes go through two pinned buffers, and a kernel writes the rows.
//!
//! ```text
//! file ─ threads read ─→ pinned ─ copied ─→ staging ─ repack ─→ weights      matrices in planes
//!                               └ copied ─────────────────────→ weights      rows that stay as they are
//! ```
//!
//! While threads fill one pinned buffer, the other is copied on a stream of its own, and what was copied
//! before is repacked on the stream of the steps. Two events a buffer keep the order: `copied`, after
//! which it may be filled again and repacking may begin, and `repacked`, after which the staging memory
//! may be copied to. The host's memory stays bounded by the two buffers, whatever the model: files are
//! read, not mapped, and what was made for the purpose is dropped once it is read.
//!
//! A tensor that is both a matrix and a table is read once.

use super::GpuError;
use super::arguments::{Follows, launch_values};
use super::crew::Crew;
use super::repack::Repack;
use super::weights::{Piece, Source, WeightLayout};
use crate::hip::{DeviceBuffer, Event, HipError, Module, PinnedBuffer, Stream};
use crate::loader::{Blob, Tensor};
use std::thread;

/// Bytes of one pinned buffer, unless a single row is larger: pinning takes time, as does each turn.
pub const BUFFER_BYTES: usize = 16 << 20;

/// Rows begin at multiples of this in a buffer, as the kernels ask (16), and copies like.
const ALIGN: usize = 256;

/// Bytes of one of the two pinned buffers.
fn buffer_bytes(sources: &[Source<'_>]) -> usize {
    let all: usize = sources
        .iter()
        .map(|s| (s.rows * s.row_bytes()).next_multiple_of(ALIGN))
        .sum();
    let longest_row = sources.iter().map(Source::row_bytes).max().unwrap_or(0);
    all.min(BUFFER_BYTES)
        .max(longest_row)
        .next_multiple_of(ALIGN)
}

/// Bytes of one of the two staging buffers on the device: none where nothing is repacked.
fn staging_bytes(sources: &[Source<'_>]) -> usize {
    let any = sources.iter().any(Source::is_repacked);
    if any { buffer_bytes(sources) } else { 0 }
}

/// Bytes of device memory that uploading takes beside the weights.
pub fn device_bytes(layout: &WeightLayout) -> usize {
    2 * staging_bytes(&layout.sources())
}

/// Reads, copies and repacks every piece of `layout` to `weights`, with `threads` threads reading, and
/// waits for it. `progress(done, total)` counts bytes of the file; returned are those of all.
pub fn upload(
    module: &Module,
    stream: &Stream,
    layout: &WeightLayout,
    weights: &DeviceBuffer,
    threads: usize,
    fetch: &dyn Fn(&str) -> Option<Tensor>,
    progress: &dyn Fn(u64, u64),
) -> Result<u64, GpuError> {
    let sources = layout.sources();
    let total = sources.iter().map(Source::file_bytes).sum();
    let (pinned, staging) = (buffer_bytes(&sources), staging_bytes(&sources));
    let device = stream.device();
    let lane = || -> Result<Lane, HipError> {
        Ok(Lane {
            pinned: PinnedBuffer::new(device, pinned)?,
            staging: DeviceBuffer::new(device, staging)?,
            copied: Event::new(device)?,
            repacked: Event::new(device)?,
        })
    };
    // Dropped after the scope below has waited for its threads, which write to the pinned buffers.
    let lanes = Lanes {
        lanes: [lane()?, lane()?],
        copies: Stream::new(device)?,
        stream,
    };
    progress(0, total);
    thread::scope(|scope| {
        let mut batch = Batch {
            module,
            weights,
            lanes: &lanes,
            turn: 0,
            sources: &sources,
            parts: Vec::new(),
            filled: 0,
            crew: Crew::new(scope, threads),
        };
        let mut done = 0;
        for (index, source) in sources.iter().enumerate() {
            let name = || source.name.to_owned();
            let missing = || GpuError::MissingWeight { name: name() };
            let tensor = fetch(source.name).ok_or_else(missing)?;
            let failed = |source| GpuError::Read {
                name: name(),
                source,
            };
            let bytes = source.bytes(tensor).map_err(failed)?;
            batch.add(index, &bytes, &mut |rows| {
                done += (rows * source.file_row_bytes()) as u64;
                progress(done, total);
            })?;
        }
        batch.send()
    })?;
    lanes.copies.synchronize()?;
    stream.synchronize()?;
    Ok(total)
}

/// A pinned buffer, and staging memory of the same layout.
struct Lane {
    pinned: PinnedBuffer,
    staging: DeviceBuffer,
    copied: Event,
    repacked: Event,
}

struct Lanes<'s> {
    lanes: [Lane; 2],
    /// Where copies are queued.
    copies: Stream,
    /// Where kernels are.
    stream: &'s Stream,
}

impl Drop for Lanes<'_> {
    fn drop(&mut self) {
        // After an error work may be left that uses the buffers. The error is told already, and if the
        // device fails again there is nothing left to wait for.
        self.copies.synchronize().ok();
        self.stream.synchronize().ok();
    }
}

/// A run of rows of a source, in a buffer.
struct Part {
    source: usize,
    /// The first row, and how many.
    first: usize,
    rows: usize,
    /// In the buffer.
    offset: usize,
}

impl Part {
    /// Where its rows begin in the weights, as rows of `piece`.
    fn place(&self, piece: &Piece) -> usize {
        piece.offset + self.first * piece.row_bytes()
    }
}

/// What is being read into one of the pinned buffers.
struct Batch<'u> {
    module: &'u Module,
    weights: &'u DeviceBuffer,
    lanes: &'u Lanes<'u>,
    /// Batches sent.
    turn: usize,
    sources: &'u [Source<'u>],
    parts: Vec<Part>,
    /// Bytes of the buffer that are taken.
    filled: usize,
    crew: Crew,
}

impl Batch<'_> {
    fn lane(&self) -> &Lane {
        &self.lanes.lanes[self.turn % 2]
    }

    /// Has a source's bytes read, sending as many full buffers as it takes. `added` is told of rows.
    fn add(
        &mut self,
        source: usize,
        bytes: &Blob,
        added: &mut dyn FnMut(usize),
    ) -> Result<(), GpuError> {
        let (rows, row_bytes) = (self.sources[source].rows, self.sources[source].row_bytes());
        let mut first = 0;
        while first < rows {
            let room = (self.lane().pinned.bytes() - self.filled) / row_bytes;
            if room == 0 {
                self.send()?;
                continue;
            }
            if self.parts.is_empty() {
                // What was copied out of this buffer last; an event that was never recorded has passed.
                self.lane().copied.synchronize()?;
            }
            let count = room.min(rows - first);
            let length = count * row_bytes;
            let offset = self.filled;
            let to = self.lane().pinned.slice(offset, length)?;
            let from = bytes.slice(first * row_bytes..first * row_bytes + length);
            // SAFETY: `slice` has checked that the bytes are there. No copy reads them, as `copied` has told;
            // no other part has them; and the buffer outlives the scope of the crew.
            unsafe { self.crew.read(source, &from, to) };
            self.parts.push(Part {
                source,
                first,
                rows: count,
                offset,
            });
            self.filled = (offset + length).next_multiple_of(ALIGN);
            first += count;
            added(count);
        }
        Ok(())
    }

    /// Waits until the buffer is read, queues its copies and kernels, and turns to the other.
    fn send(&mut self) -> Result<(), GpuError> {
        self.crew.finish().map_err(|(index, source)| {
            let name = self.sources[index].name.into();
            GpuError::Read { name, source }
        })?;
        let (lane, stream) = (self.lane(), self.lanes.stream);
        // What was copied to this staging memory last; an event that was never recorded has passed.
        self.lanes.copies.wait(&lane.repacked)?;
        for part in &self.parts {
            self.copy(part, lane)?;
        }
        self.lanes.copies.record(&lane.copied)?;
        stream.wait(&lane.copied)?;
        for part in &self.parts {
            for piece in &self.sources[part.source].pieces {
                if let Some(launch) = piece.repack(part.rows) {
                    let from = lane.staging.slice(part.offset, 0)?;
                    let bytes = part.rows * piece.row_bytes();
                    let to = self.weights.slice(part.place(piece), bytes)?;
                    // SAFETY: the part's rows are at `from`, once copied, and their place is at `to`.
                    unsafe { self.launch(&launch, from, to)? };
                }
            }
        }
        stream.record(&lane.repacked)?;
        self.parts.clear();
        self.filled = 0;
        self.turn += 1;
        Ok(())
    }

    /// Queues the copies of a part: to the weights, to be repacked, or both.
    fn copy(&self, part: &Part, lane: &Lane) -> Result<(), HipError> {
        let source = &self.sources[part.source];
        let length = part.rows * source.row_bytes();
        let queue = |to: &DeviceBuffer, offset: usize| {
            let (copies, pinned) = (&self.lanes.copies, &lane.pinned);
            // SAFETY: the buffer is filled again only after `copied`, which is recorded behind this, and
            // dropped only after `Lanes` has waited.
            unsafe { copies.copy_to_device_async(to, offset, pinned, part.offset, length) }
        };
        for piece in source.pieces.iter().filter(|p| !p.is_repacked()) {
            queue(self.weights, part.place(piece))?;
        }
        if source.is_repacked() {
            queue(&lane.staging, part.offset)?;
        }
        Ok(())
    }

    /// # Safety
    /// The rows of `launch` are at `from` when what is on the stream is done, and there is room for them at `to`.
    unsafe fn launch(&self, launch: &Repack, from: u64, to: u64) -> Result<(), HipError> {
        let [from_stride, to_stride, units, rows] = launch.sizes.map(u64::from);
        let mut values = [from, to, from_stride, to_stride, units, rows];
        let function = self.module.function(&launch.kernel)?;
        let (g, stream) = (launch.geometry, self.lanes.stream);
        // SAFETY: `repack_<type>(const u8* from, u8* to, u32 from_stride, u32 to_stride, u32 units, u32 rows)`,
        // and the caller's promise.
        unsafe { launch_values(stream, &function, g, Follows::InTurn, &mut values) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::launch::Form;
    use super::*;
    use crate::dtype::DType;

    #[test]
    fn buffers_are_as_large_as_they_need_be() {
        let piece = |dtype, rows, cols| Piece {
            name: "w".into(),
            form: Form::Matrix,
            dtype,
            rows,
            cols,
            offset: 0,
        };
        let check = |pieces: &[Piece], buffer: usize, staging: usize| {
            let sources = pieces.iter().map(|piece| Source {
                name: "w",
                rows: piece.rows,
                pieces: vec![piece],
            });
            let sources: Vec<Source<'_>> = sources.collect();
            assert_eq!(buffer_bytes(&sources), buffer);
            assert_eq!(staging_bytes(&sources), staging);
        };
        check(&[], 0, 0);
        // 18 bytes each, which begin at a multiple of 256.
        check(
            &[piece(DType::Q4_0, 1, 32), piece(DType::Q4_0, 2, 32)],
            512,
            512,
        );
        // Floats in whole pieces of 16 bytes are copied to their place.
        check(&[piece(DType::F16, 100, 8)], 1792, 0);
        check(&[piece(DType::F16, 100, 9)], 2048, 2048);
        let great = piece(DType::Q8_0, 1 << 20, 4096);
        check(&[great], BUFFER_BYTES, BUFFER_BYTES);
        let wide = piece(DType::F32, 2, 5 << 20);
        check(&[wide], 20 << 20, 0);
    }
}
