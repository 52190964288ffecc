//! Anonymous pages: the arena, the caches and the packed weights.

use memmap2::{Advice, MmapMut, MmapOptions};
use std::io;

/// Zeroed bytes that start on a page. Physical memory comes at the first touch, so a cache costs
/// what is used of it, and weights land on the node of the thread that packs them.
pub struct Pages {
    map: Option<MmapMut>,
    base: *mut u8,
    len: usize,
}

// SAFETY: `base` points into `map`, which is owned here and moves with it; access through the
// pointer is the business of whoever dereferences it.
unsafe impl Send for Pages {}
// SAFETY: as above; `&Pages` only gives out the pointer.
unsafe impl Sync for Pages {}

/// Below this huge pages would waste more than they save.
const HUGE_PAGES_FROM: usize = 8 << 20;

impl Pages {
    /// `len` zeroed bytes; an error if the system has no room for them.
    pub fn zeroed(len: usize) -> io::Result<Self> {
        if len == 0 {
            let base = std::ptr::without_provenance_mut(64);
            return Ok(Pages {
                map: None,
                base,
                len,
            });
        }
        let mut map = MmapOptions::new().len(len).map_anon()?;
        if len >= HUGE_PAGES_FROM {
            // A refusal only means ordinary pages.
            map.advise(Advice::HugePage).ok();
        }
        let base = map.as_mut_ptr();
        Ok(Pages {
            map: Some(map),
            base,
            len,
        })
    }

    /// The first byte. It stays where it is for the life of this value.
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sets every byte (poison for tests).
    pub fn fill(&mut self, byte: u8) {
        if let Some(map) = &mut self.map {
            map.fill(byte);
        }
    }
}
