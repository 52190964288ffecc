//! Looking into a device's memory and running single launches, for tests that compare devices. Each call waits, and
//! each that reads copies everything.

use super::recording::Recording;
use super::weights::WeightLayout;
use super::{Gpu, GpuError};
use crate::hip::DeviceBuffer;
use crate::program::{Program, Step};

impl Gpu {
    /// The arena.
    pub fn read_arena(&self) -> Result<Vec<u8>, GpuError> {
        self.copy_of(&self.shared.arena)
    }

    /// Where each weight lies.
    pub fn weight_layout(&self) -> &WeightLayout {
        &self.shared.layout
    }

    /// All weights.
    pub fn read_weights(&self) -> Result<Vec<u8>, GpuError> {
        self.copy_of(&self.shared.weights)
    }

    /// Replaces the start of the arena.
    pub fn write_arena(&self, bytes: &[u8]) -> Result<(), GpuError> {
        self.replace(&self.shared.arena, 0, bytes)
    }

    /// The cache with this number.
    pub fn read_state(&self, program: &Program, index: usize) -> Result<Vec<u8>, GpuError> {
        let all = self.copy_of(&self.shared.states)?;
        let offset = self.shared.state_offsets[index];
        Ok(all[offset..offset + program.states[index].bytes()].to_vec())
    }

    /// Replaces the cache with this number.
    pub fn write_state(&self, index: usize, bytes: &[u8]) -> Result<(), GpuError> {
        self.replace(&self.shared.states, self.shared.state_offsets[index], bytes)
    }

    fn copy_of(&self, from: &DeviceBuffer) -> Result<Vec<u8>, GpuError> {
        let mut bytes = vec![0; from.bytes()];
        self.shared.stream().copy_to_host(from, 0, &mut bytes)?;
        Ok(bytes)
    }

    fn replace(&self, to: &DeviceBuffer, offset: usize, bytes: &[u8]) -> Result<(), GpuError> {
        Ok(self.shared.stream().copy_to_device(to, offset, bytes)?)
    }
}

impl Recording {
    /// Runs the kernels of the program's `launch` alone, on whatever memory holds.
    ///
    /// # Panics
    /// As [`Recording::replay`].
    pub fn run_launch(&mut self, step: Step<'_>, launch: usize) -> Result<(), GpuError> {
        let stream = self.shared.stream();
        self.begin(&stream, step, false)?;
        for resolved in &mut self.recorded.resolved {
            if resolved.launch.is_none_or(|l| l == launch) {
                // What is before it on the stream is not its predecessor in the step.
                // SAFETY: the recording keeps the buffers, and has the stream alone until it has waited.
                unsafe { resolved.launch_alone(&stream)? };
            }
        }
        Ok(stream.synchronize()?)
    }
}
