//! How long weights took from the file to the device.

use std::time::Duration;

/// What a device did to have a model's weights as its kernels read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loading {
    /// Bytes of the tensors in the file, each counted once.
    pub file_bytes: u64,
    /// From the first tensor to the last byte in place.
    pub time: Duration,
}
