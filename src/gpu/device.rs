//! Which GPUs there are, and which of them this program has kernels for.

use super::GpuError;
use crate::hip::{DeviceInfo, Hip, HipError, Platform, Search};
use crate::kernels;

/// A GPU of this machine. Both platforms' devices are counted together, AMD's first.
#[derive(Clone)]
pub struct Found {
    pub hip: Hip,
    /// Its number on the command line: `hip:0`.
    pub index: usize,
    pub info: DeviceInfo,
}

impl Found {
    /// `hip:0 (AMD Instinct MI300X, gfx942)`
    pub fn describe(&self) -> String {
        format!(
            "hip:{} ({}, {})",
            self.index, self.info.name, self.info.arch
        )
    }

    /// The code object for this device.
    pub fn code_object(&self) -> Result<&'static [u8], GpuError> {
        kernels::code_object(&self.info.arch).ok_or_else(|| GpuError::NoKernels {
            device: self.describe(),
            arch: self.info.arch.clone(),
            embedded: kernels::ARCHS.to_vec(),
        })
    }
}

/// Every device, and why platforms have none.
pub fn devices(search: &Search) -> (Vec<Found>, Vec<HipError>) {
    let (mut found, mut reasons) = (Vec::new(), Vec::new());
    for platform in [Platform::Amd, Platform::Nvidia] {
        match platform_devices(platform, search, found.len()) {
            Ok(devices) => found.extend(devices),
            Err(reason) => reasons.push(reason),
        }
    }
    (found, reasons)
}

fn platform_devices(
    platform: Platform,
    search: &Search,
    first: usize,
) -> Result<Vec<Found>, HipError> {
    let hip = Hip::load(platform, search)?;
    let device = |i: usize| {
        let info = hip.device(i)?;
        let hip = hip.clone();
        let index = first + i;
        Ok(Found { hip, index, info })
    };
    (0..hip.device_count()?).map(device).collect()
}

/// The device with this number, or without one the best: of those that there are kernels for, the one
/// with the most memory.
pub fn select(search: &Search, index: Option<usize>) -> Result<Found, GpuError> {
    let (mut found, reasons) = devices(search);
    if found.is_empty() {
        return Err(GpuError::NoDriver { reasons });
    }
    let count = found.len();
    match index {
        Some(index) if index < count => Ok(found.swap_remove(index)),
        Some(index) => Err(GpuError::NoSuchDevice { index, count }),
        None => {
            // The first of equals, hence the order reversed.
            let rank = |f: &Found| (f.code_object().is_ok(), f.info.memory_bytes);
            let best = found.into_iter().rev().max_by_key(rank);
            Ok(best.expect("there is at least one"))
        }
    }
}
