//! What lowering has to know of a device, beside the program.

use super::tuning::{Tuning, TuningError};
use crate::hip::DeviceInfo;

/// A kind of device.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// Lanes of a wave.
    pub wave: u32,
    /// Compute units, or streaming multiprocessors.
    pub compute_units: u32,
    pub tuning: Tuning,
}

impl Machine {
    /// The machine a driver describes, with the tuning table of its architecture.
    pub fn of(info: &DeviceInfo) -> Result<Self, TuningError> {
        Ok(Machine {
            wave: info.wave,
            compute_units: info.compute_units,
            tuning: Tuning::of_arch(&info.arch)?,
        })
    }

    /// The device that programs of this wave width are drawn for where there is none: an MI300X for
    /// 64, an H100 for 32.
    ///
    /// # Panics
    /// When the table of its architecture does not hold, which the tests check.
    pub fn typical(wave: u32) -> Self {
        let (arch, compute_units) = match wave {
            64 => ("gfx942", 304),
            _ => ("sm_90", 132),
        };
        let tuning = Tuning::of_arch(arch);
        Machine {
            wave,
            compute_units,
            tuning: tuning.expect("the table in the repository holds"),
        }
    }
}
