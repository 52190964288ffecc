//! Bytes that know who keeps them alive.

use super::mmap::Map;
use std::ops::{Deref, Range};
use std::sync::{Arc, OnceLock};
use std::{fmt, io};

/// A run of bytes, cheap to clone: a part of a mapped file, or bytes of our own, be it a pattern over and over.
///
/// Clones and [slices](Blob::slice) share one owner; a mapped file stays mapped until the last of them is dropped.
/// A mapping begins on a page boundary, so an offset's alignment in a file is its alignment in memory; bytes of our own
/// are aligned as the allocator aligned the `Vec`, which the type does not promise beyond one byte.
#[derive(Clone)]
pub struct Blob {
    owner: Arc<Owner>,
    /// Always inside the owner's bytes.
    range: Range<usize>,
}

enum Owner {
    Memory(Vec<u8>),
    File(Map),
    Repeated(Repeated),
}

/// A pattern over and over.
struct Repeated {
    /// Not empty.
    pattern: Vec<u8>,
    bytes: usize,
    /// All of it, once somebody has borrowed a part.
    whole: OnceLock<Vec<u8>>,
}

impl Repeated {
    fn whole(&self) -> &[u8] {
        self.whole.get_or_init(|| {
            let mut whole = vec![0; self.bytes];
            self.read(0, &mut whole);
            whole
        })
    }

    fn read(&self, offset: usize, out: &mut [u8]) {
        let length = self.pattern.len();
        let (start, mut filled) = (offset % length, 0);
        while filled < out.len() {
            let from = &self.pattern[(start + filled) % length..];
            let count = from.len().min(out.len() - filled);
            out[filled..filled + count].copy_from_slice(&from[..count]);
            filled += count;
        }
    }
}

impl Owner {
    fn bytes(&self) -> &[u8] {
        match self {
            Owner::Memory(bytes) => bytes,
            Owner::File(map) => map,
            Owner::Repeated(repeated) => repeated.whole(),
        }
    }
}

impl Blob {
    /// The whole of a mapped file.
    pub(super) fn from_map(map: Map) -> Blob {
        Blob {
            range: 0..map.len(),
            owner: Arc::new(Owner::File(map)),
        }
    }

    /// `bytes` bytes that repeat `pattern`, for made-up weights. They exist one after the other only while
    /// [`read`](Blob::read), or for good once they are borrowed.
    ///
    /// # Panics
    /// When there are bytes but no pattern.
    pub fn repeating(pattern: Vec<u8>, bytes: usize) -> Blob {
        assert!(bytes == 0 || !pattern.is_empty(), "nothing to repeat");
        let whole = OnceLock::new();
        let repeated = Repeated {
            pattern,
            bytes,
            whole,
        };
        Blob {
            owner: Arc::new(Owner::Repeated(repeated)),
            range: 0..bytes,
        }
    }

    /// How many bytes these are.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Copies all of these bytes to `out`, those of a file by reading it rather than through its mapping: nothing has to
    /// be given back, several threads may read at once, and a file that was cut off meanwhile is an error.
    ///
    /// # Panics
    /// When `out` is not as long.
    pub fn read(&self, out: &mut [u8]) -> io::Result<()> {
        assert_eq!(out.len(), self.len(), "a place for all bytes");
        let start = self.range.start;
        match &*self.owner {
            Owner::Memory(bytes) => out.copy_from_slice(&bytes[self.range.clone()]),
            Owner::File(map) => map.read(start, out)?,
            Owner::Repeated(repeated) => repeated.read(start, out),
        }
        Ok(())
    }

    /// The bytes `range` of this blob, sharing its owner.
    ///
    /// # Panics
    /// When `range` is not inside the blob, as slicing does.
    pub fn slice(&self, range: Range<usize>) -> Blob {
        assert!(
            range.start <= range.end && range.end <= self.range.len(),
            "bytes {range:?} of a blob of {}",
            self.range.len()
        );
        Blob {
            owner: Arc::clone(&self.owner),
            range: self.range.start + range.start..self.range.start + range.end,
        }
    }

    /// Whether these bytes are part of a mapped file rather than memory of our own.
    pub fn is_mapped(&self) -> bool {
        matches!(*self.owner, Owner::File(_))
    }

    /// Gives back the physical memory of the whole pages strictly inside these bytes, for weights that have been
    /// repacked and will not be read again. Reading them again works and reads the file. Nothing happens to bytes of
    /// our own.
    pub fn release_pages(&self) {
        if let Owner::File(map) = &*self.owner {
            map.release(self.range.clone());
        }
    }
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.owner.bytes()[self.range.clone()]
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Blob {
        Blob {
            range: 0..bytes.len(),
            owner: Arc::new(Owner::Memory(bytes)),
        }
    }
}

impl PartialEq for Blob {
    fn eq(&self, other: &Blob) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_mapped() { "mapped" } else { "owned" };
        write!(f, "Blob({} {kind} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn slices_share_and_stay_inside() {
        let blob = Blob::from((0..100).collect::<Vec<u8>>());
        let part = blob.slice(10..20).slice(3..5);
        drop(blob);
        assert_eq!(&part[..], [13, 14]);
        assert!(part.slice(2..2).is_empty());
        assert!(std::panic::catch_unwind(|| part.slice(1..3)).is_err());
    }

    #[test]
    fn released_pages_read_back() {
        let bytes: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(&bytes).expect("written");
        let blob = Blob::from_map(Map::new(file).expect("mapped"));
        for range in [0..300_000, 1..299_999, 5_000..5_010, 4096..8192, 7..7] {
            let part = blob.slice(range.clone());
            part.release_pages();
            assert_eq!(part[..], bytes[range]);
        }
        let owned = Blob::from(bytes.clone());
        owned.release_pages();
        assert_eq!(owned[..], bytes);
    }

    #[test]
    fn bytes_are_read_wherever_they_are() {
        let bytes: Vec<u8> = (0..50_000u32).map(|i| (i % 1000 % 251) as u8).collect();
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(&bytes).expect("written");
        let cut = file.try_clone().expect("a second handle");
        let mapped = Blob::from_map(Map::new(file).expect("mapped"));
        let repeated = Blob::repeating(bytes[..1000].to_vec(), bytes.len());
        for blob in [&mapped, &repeated, &Blob::from(bytes.clone())] {
            for range in [0..50_000, 1..4_999, 999..1001, 49_999..50_000, 7..7] {
                let part = blob.slice(range.clone());
                let mut out = vec![0; part.len()];
                part.read(&mut out).expect("read");
                assert_eq!(out, bytes[range.clone()], "{blob:?} {range:?}");
            }
        }
        assert_eq!(repeated[..], bytes, "borrowed");
        cut.set_len(10_000).expect("cut off");
        let error = mapped.slice(9_999..10_001).read(&mut [0; 2]);
        assert!(error.is_err());
    }
}
