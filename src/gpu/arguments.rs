//! Arguments as drivers take them: a pointer to each.

use super::geometry::Geometry;
use crate::hip::{Function, HipError, Stream};
use std::ffi::c_void;
use std::ptr;

/// Arguments of a kernel at most.
pub const ARGUMENTS_MOST: usize = 32;

/// How a kernel follows what is before it on its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// It begins when that has finished.
    InTurn,
    /// It may begin before, and waits for it by itself.
    Overlapping,
}

/// Queues a kernel on `stream`, or adds it to what the stream captures. Each argument is in the first bytes of
/// its value: both sides are little-endian.
///
/// # Safety
/// The values are those that the kernel declares, in its order, and what they address is there until it has run,
/// with nobody else at odds with it. If it is captured, this holds for every run of the graph. A kernel that
/// overlaps waits for its predecessors itself.
///
/// # Panics
/// When there are more than [`ARGUMENTS_MOST`].
pub unsafe fn launch_values(
    stream: &Stream,
    function: &Function,
    geometry: Geometry,
    follows: Follows,
    values: &mut [u64],
) -> Result<(), HipError> {
    let mut pointers = [ptr::null_mut::<c_void>(); ARGUMENTS_MOST];
    let pointers = &mut pointers[..values.len()];
    for (pointer, value) in pointers.iter_mut().zip(values) {
        *pointer = ptr::from_mut(value).cast();
    }
    let Geometry {
        grid,
        block,
        lds_bytes,
    } = geometry;
    // SAFETY: each pointer is to a value of eight bytes, which the driver copies before it returns; the rest is
    // the caller's promise.
    unsafe {
        match follows {
            Follows::InTurn => stream.launch(function, grid, block, lds_bytes, pointers),
            Follows::Overlapping => {
                stream.launch_overlapping(function, grid, block, lds_bytes, pointers)
            }
        }
    }
}
