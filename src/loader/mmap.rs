//! A file mapped into memory: the loader's only `unsafe` code.
//!
//! # What a mapping promises, and what it cannot
//! The mapping is shared and read-only, so nothing in this process can write through it, and its pages can be dropped
//! and read back at will. What no process can rule out is another program changing the file underneath. Two things can
//! then happen, and both are accepted as the price of not copying gigabytes of weights:
//!
//! * *Overwritten in place*: the bytes we see change. Sizes, counts and offsets are copied once and checked on the copy;
//!   names and text likewise, before any `&str` is made. What a later change can alter is a weight or a number in an
//!   array, for which every bit pattern is a value.
//! * *Truncated*: touching a page past the new end raises `SIGBUS` and ends the process. It cannot read or write
//!   memory that is not the file's. Programs that replace model files by renaming a new one into place (as our own
//!   download does) never trigger either. [`Map::read`] gives an error instead.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};

/// The whole of one file as bytes. Unmapped on drop.
pub(super) struct Map {
    map: memmap2::Mmap,
    #[cfg(unix)]
    file: File,
}

impl Map {
    /// Maps the whole of `file`.
    pub(super) fn new(file: File) -> io::Result<Map> {
        // SAFETY: `Mmap::map` is unsafe because the `&[u8]` it hands out aliases a file others may write. We never
        // write it ourselves, the mapping is read-only, and the module's introduction says what a change by another
        // process does: nothing in the loader relies for memory safety on a byte of the file being the same when read twice.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Map {
            map,
            #[cfg(unix)]
            file,
        })
    }

    /// Copies the bytes from `offset` on to all of `out`, by reading the file: the kernel copies out of its page cache,
    /// and no page has to be faulted in here, nor given back, which would interrupt the process's other threads.
    pub(super) fn read(&self, offset: usize, out: &mut [u8]) -> io::Result<()> {
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::read_exact_at(&self.file, out, offset as u64);
        #[cfg(not(unix))]
        {
            out.copy_from_slice(&self.map[offset..][..out.len()]);
            Ok(())
        }
    }

    /// Gives back the memory of the whole pages strictly inside `range`; reading them again reads the file again.
    pub(super) fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        {
            let page_bytes = page_bytes();
            // The map begins on a page boundary, so pages of the file and pages of memory are the same.
            let first = range.start.next_multiple_of(page_bytes);
            let end = range.end / page_bytes * page_bytes;
            if first < end {
                // SAFETY: `DontNeed` is unchecked because on private or anonymous memory it would lose writes and
                // change what live references see. This mapping is shared, read-only and backed by a file: a dropped
                // page is read back from the file on the next touch, with the same bytes. `first..end` lies inside
                // `range`, which lies inside the map.
                let _only_a_hint = unsafe {
                    self.map.unchecked_advise_range(
                        memmap2::UncheckedAdvice::DontNeed,
                        first,
                        end - first,
                    )
                };
            }
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

/// Bytes in a page of memory.
#[cfg(unix)]
fn page_bytes() -> usize {
    // SAFETY: `sysconf` takes a number and returns one; it touches no memory of ours.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).expect("every Unix knows its page size")
}
