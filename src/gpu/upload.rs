//! Weights → device: rows are packed into one pinned buffer while the other is being copied.
//!
//! Host memory stays bounded by the two buffers, whatever the model: the file is mapped, its pages
//! are given back after each tensor, and nothing else is kept.

use super::GpuError;
use super::weights::{Piece, WeightLayout};
use crate::hip::{Device, DeviceBuffer, Event, PinnedBuffer, Stream};
use crate::loader::Tensor;
use std::ops::Range;
use std::thread;

/// Bytes of one staging buffer, unless a single row is larger.
const STAGING_BYTES: usize = 32 << 20;

/// Below this starting threads costs more than they save.
const SHARE_FROM: usize = 1 << 20;

/// A pinned buffer and the end of the copy that last read it.
struct Staging {
    buffer: PinnedBuffer,
    copied: Event,
}

/// Packs and copies every piece of `layout` to `weights`, with `threads` threads packing.
/// `progress(done, total)` counts bytes of the file.
pub fn upload(
    device: &Device,
    stream: &Stream,
    layout: &WeightLayout,
    weights: &DeviceBuffer,
    threads: usize,
    fetch: &dyn Fn(&str) -> Option<Tensor>,
    progress: &dyn Fn(u64, u64),
) -> Result<(), GpuError> {
    let longest_row = layout.pieces.iter().map(Piece::row_bytes).max();
    let staging_bytes = layout
        .bytes
        .min(STAGING_BYTES)
        .max(longest_row.unwrap_or(0))
        .max(1);
    let staging = || -> Result<Staging, GpuError> {
        let buffer = PinnedBuffer::new(device, staging_bytes)?;
        let copied = Event::new(device)?;
        Ok(Staging { buffer, copied })
    };
    let staging = [staging()?, staging()?];
    let sent = send(stream, layout, weights, &staging, threads, fetch, progress);
    // Also after an error: the buffers are dropped on return.
    let finished = stream.synchronize();
    sent?;
    Ok(finished?)
}

fn send(
    stream: &Stream,
    layout: &WeightLayout,
    weights: &DeviceBuffer,
    staging: &[Staging; 2],
    threads: usize,
    fetch: &dyn Fn(&str) -> Option<Tensor>,
    progress: &dyn Fn(u64, u64),
) -> Result<(), GpuError> {
    let staging_bytes = staging[0].buffer.bytes();
    let total = layout.pieces.iter().map(file_bytes).sum();
    let (mut done, mut turn) = (0, 0);
    progress(0, total);
    for piece in &layout.pieces {
        let tensor = fetch(&piece.name).ok_or_else(|| GpuError::MissingWeight {
            name: piece.name.clone(),
        })?;
        let row_bytes = piece.row_bytes();
        let rows_at_once = (staging_bytes / row_bytes).max(1);
        let mut first = 0;
        while first < piece.rows {
            let rows = first..piece.rows.min(first + rows_at_once);
            let bytes = rows.len() * row_bytes;
            let Staging { buffer, copied } = &staging[turn % 2];
            // An event that was never recorded counts as passed.
            copied.synchronize()?;
            let out = buffer.slice(0, bytes)?;
            // SAFETY: the bytes are in the buffer, as just checked; the copy that read them has passed,
            // and nobody else has the pointer.
            let out = unsafe { std::slice::from_raw_parts_mut(out, bytes) };
            pack(piece, rows.clone(), &tensor.data, out, threads);
            let offset = piece.offset + first * row_bytes;
            // SAFETY: the buffer is written again only after `copied`, and dropped after `upload` has waited.
            unsafe { stream.copy_to_device_async(weights, offset, buffer, 0, bytes)? };
            stream.record(copied)?;
            turn += 1;
            first = rows.end;
            let part = (rows.len() * piece.file_row_bytes()) as u64;
            done += part;
            progress(done, total);
        }
        tensor.data.release_pages();
    }
    Ok(())
}

fn file_bytes(piece: &Piece) -> u64 {
    (piece.rows * piece.file_row_bytes()) as u64
}

/// Packs `rows` of a piece into `out`, the threads taking even runs.
fn pack(piece: &Piece, rows: Range<usize>, file: &[u8], out: &mut [u8], threads: usize) {
    let row_bytes = piece.row_bytes();
    let threads = if out.len() < SHARE_FROM { 1 } else { threads };
    let share = rows.len().div_ceil(threads.max(1));
    if share == rows.len() {
        return piece.write(rows, file, out);
    }
    thread::scope(|scope| {
        for (index, out) in out.chunks_mut(share * row_bytes).enumerate() {
            let first = rows.start + index * share;
            let rows = first..first + out.len() / row_bytes;
            scope.spawn(move || piece.write(rows, file, out));
        }
    });
}
