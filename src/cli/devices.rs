//! `devices`: what this build can run on.

use std::path::PathBuf;

use serde::Serialize;

use super::args::{DevicesArgs, Format};
use super::error::CliError;
use super::output;
use crate::gpu;
use crate::hip::Search;

#[derive(Serialize)]
struct Json {
    devices: Vec<Device>,
}

#[derive(Serialize)]
struct Device {
    /// As `--device` takes it.
    name: String,
    available: bool,
    description: String,
}

pub fn run(args: &DevicesArgs) -> Result<(), CliError> {
    let mut devices = vec![Device {
        name: "cpu".into(),
        available: true,
        description: cpu(),
    }];
    devices.extend(gpus());
    match args.output.format {
        Format::Json => output::json(&Json { devices }),
        Format::Text => {
            let lines = devices
                .iter()
                .map(|device| format!("{:<5} {}\n", device.name, device.description));
            output::text(&lines.collect::<String>())
        }
    }
}

/// Where GPU drivers are looked for before the system is asked.
pub fn drivers() -> Search {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let homes = ["ROCM_PATH", "HIP_PATH"].into_iter().filter_map(set);
    let homes = homes.map(PathBuf::from).chain(["/opt/rocm".into()]);
    Search {
        directories: homes.map(|home| home.join("lib")).collect(),
    }
}

/// Every GPU, or one entry that says why there is none.
fn gpus() -> Vec<Device> {
    let (found, reasons) = gpu::devices(&drivers());
    if found.is_empty() {
        let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
        return vec![Device {
            name: "hip".into(),
            available: false,
            description: reasons.join("; "),
        }];
    }
    let device = |found: &gpu::Found| {
        let (info, kernels) = (&found.info, found.code_object());
        let mut description = format!(
            "{}, {}, {}, {} compute units, {}",
            info.name,
            info.arch,
            output::bytes(info.memory_bytes),
            info.compute_units,
            info.driver,
        );
        if let Err(error) = &kernels {
            description += &format!("; {error}");
        }
        Device {
            name: format!("hip:{}", found.index),
            available: kernels.is_ok(),
            description,
        }
    };
    found.iter().map(device).collect()
}

fn cpu() -> String {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let sets = instruction_sets();
    let sets = if sets.is_empty() {
        "no SIMD beyond the baseline".to_string()
    } else {
        sets.join(" ")
    };
    format!("{}, {threads} threads, {sets}", std::env::consts::ARCH)
}

/// The instruction sets this processor has, of those the kernels know.
fn instruction_sets() -> Vec<&'static str> {
    macro_rules! present {
        ($detected:ident: $($feature:tt)*) => {
            [$(($feature, std::arch::$detected!($feature))),*]
        };
    }
    #[cfg(target_arch = "x86_64")]
    let known = present!(is_x86_feature_detected:
        "avx2" "fma" "f16c" "avx512f" "avx512bw" "avx512vl" "avx512dq" "avx512vbmi" "avx512vnni");
    #[cfg(target_arch = "aarch64")]
    let known = present!(is_aarch64_feature_detected: "neon" "fp16" "dotprod" "i8mm");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let known: [(&'static str, bool); 0] = [];
    known
        .into_iter()
        .filter_map(|(name, present)| present.then_some(name))
        .collect()
}
