//! `devices`: what this build can run on.

use serde::Serialize;

use super::args::{DevicesArgs, Format};
use super::error::CliError;
use super::output;

#[derive(Serialize)]
struct Json {
    devices: Vec<Device>,
}

#[derive(Serialize)]
struct Device {
    name: &'static str,
    available: bool,
    description: String,
}

pub fn run(args: &DevicesArgs) -> Result<(), CliError> {
    let devices = vec![
        Device {
            name: "cpu",
            available: true,
            description: cpu(),
        },
        Device {
            name: "hip",
            available: false,
            description: "not built in this version".into(),
        },
    ];
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
