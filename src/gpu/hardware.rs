//! What lowering has to know of a device, beside the program.

use super::geometry::Machine;
use super::tuning::{Tuning, TuningError};
use crate::hip::DeviceInfo;

/// A kind of device.
#[derive(Clone, Debug, PartialEq)]
pub struct Hardware {
    pub machine: Machine,
    /// Compute units, or streaming multiprocessors.
    pub compute_units: u32,
    pub tuning: Tuning,
}

impl Hardware {
    /// The device a driver describes, with the tuning table of its architecture.
    pub fn of(info: &DeviceInfo) -> Result<Self, TuningError> {
        Ok(Hardware {
            machine: Machine::of(info),
            compute_units: info.compute_units,
            tuning: Tuning::of_arch(&info.arch)?,
        })
    }

    /// The device that programs for this kind of machine are drawn for where there is none: an MI300X,
    /// an RX 7900 XTX, an A100 or an H100. A wave's width stands for the likeliest kind.
    ///
    /// # Panics
    /// When the table of its architecture does not hold, which the tests check.
    pub fn typical(machine: impl Into<Machine>) -> Self {
        let machine = machine.into();
        let arch = match machine {
            Machine::Cdna => "gfx942",
            Machine::Rdna => "gfx1100",
            Machine::Nvidia => "sm_80",
            Machine::Hopper => "sm_90",
        };
        let tuning = Tuning::of_arch(arch);
        Hardware {
            machine,
            compute_units: machine.compute_units(),
            tuning: tuning.expect("the table in the repository holds"),
        }
    }
}
