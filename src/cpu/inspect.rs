//! Looking into a recording's memory and running single launches, for tests that compare devices.

use super::CpuError;
use super::recording::Recording;
use crate::program::Step;

impl Recording {
    /// A copy of the arena.
    pub fn read_arena(&mut self) -> Vec<u8> {
        let arena = &self.shared().arena;
        // SAFETY: the arena has these bytes, and nothing runs: the promise of `Cpu::record`.
        unsafe { std::slice::from_raw_parts(arena.base(), arena.len()) }.to_vec()
    }

    /// Replaces the start of the arena.
    ///
    /// # Panics
    /// When there are more bytes than the arena has.
    pub fn write_arena(&mut self, bytes: &[u8]) {
        let arena = &self.shared().arena;
        assert!(bytes.len() <= arena.len());
        // SAFETY: the arena has these bytes, and nothing runs: the promise of `Cpu::record`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), arena.base(), bytes.len()) };
    }

    /// A copy of the cache with this number.
    pub fn read_state(&mut self, index: usize) -> Vec<u8> {
        let (offset, bytes) = self.state_range(index);
        // SAFETY: the caches were laid out with these sizes, and nothing runs: the promise of
        // `Cpu::record`.
        unsafe { std::slice::from_raw_parts(self.shared().states.base().add(offset), bytes) }
            .to_vec()
    }

    /// Replaces the cache with this number.
    ///
    /// # Panics
    /// When the size is another.
    pub fn write_state(&mut self, index: usize, bytes: &[u8]) {
        let (offset, size) = self.state_range(index);
        assert_eq!(bytes.len(), size);
        // SAFETY: as in `read_state`.
        unsafe {
            let to = self.shared().states.base().add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, size);
        }
    }

    /// Runs the program's `launch` alone, on whatever memory holds.
    ///
    /// # Panics
    /// As [`Recording::replay`].
    pub fn run_launch(&mut self, step: Step<'_>, launch: usize) -> Result<(), CpuError> {
        self.run_eagerly_over(step, launch..launch + 1, false)
    }

    fn state_range(&self, index: usize) -> (usize, usize) {
        let offset = self.shared().state_offsets[index];
        (offset, self.program().states[index].bytes())
    }
}
