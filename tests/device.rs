//! Choosing a device on the command line, on machines that lack it.
#![cfg(target_os = "linux")]

mod support;

use greta_infer::hip::amd;
use std::path::Path;
use std::process::Command;
use support::command::{Bench, Ran};
use support::skip::{loudly, skip};

/// Whether this machine has any GPU that the binary finds.
fn has_gpu(bench: &Bench) -> bool {
    let json = bench.run(&["devices", "--format", "json"]);
    let json = json.expect(0, &[]).json();
    let devices = json["devices"].as_array().expect("a list");
    assert_eq!(devices[0]["name"], "cpu");
    devices[1]["name"] != "hip"
}

/// A driver that has every function and no device. Nothing if the machine has no C compiler.
fn driver_without_device(directory: &Path) -> Option<()> {
    let names = amd::NAMES
        .all()
        .into_iter()
        .chain(amd::OWN_NAMES.iter().copied());
    let source: String = names
        .map(|name| format!("int {name}(void) {{ return 100; }}\n"))
        .collect();
    let (file, library) = (directory.join("stub.c"), directory.join("lib"));
    std::fs::write(&file, source).expect("written");
    std::fs::create_dir(&library).expect("created");
    let mut command = Command::new("cc");
    command.args(["-w", "-shared", "-fPIC", "-o"]);
    command.arg(library.join(amd::FILE_NAMES[0])).arg(&file);
    match command.status() {
        Ok(status) => {
            assert!(status.success());
            Some(())
        }
        Err(error) => {
            skip(&format!("cc: {error}"));
            None
        }
    }
}

#[test]
fn without_a_driver() {
    let bench = Bench::new();
    if has_gpu(&bench) {
        loudly("SKIPPED: this machine has a GPU");
        return;
    }
    let looked = ["no GPU to run on", "libamdhip64.so", "libcuda.so.1"];
    for device in ["hip", "hip:0"] {
        let args = ["generate", "x", "--device", device];
        bench.with_model(&args).expect(3, &looked);
    }
    // The best device present is the processor, and nothing is said about it.
    let args = [
        "generate",
        "x",
        "--max-tokens",
        "2",
        "--format",
        "json",
        "--quiet",
    ];
    let ran = bench.with_model(&[&args[..], &["--device", "auto"]].concat());
    let json = ran.expect(0, &[]).json();
    assert!(
        json["timings"]["device"]
            .as_str()
            .expect("a name")
            .starts_with("cpu")
    );
    assert_eq!(ran.stderr, "");
}

#[test]
fn with_a_driver_and_no_device() {
    let bench = Bench::new();
    if has_gpu(&bench) {
        loudly("SKIPPED: this machine has a GPU");
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    if driver_without_device(directory.path()).is_none() {
        return;
    }
    let args = ["generate", "x", "--device", "hip"];
    let model = bench.model.to_str().expect("UTF-8").to_string();
    let mut command = bench.command(&[&args[..], &["--model", &model]].concat());
    command.env("ROCM_PATH", directory.path());
    let ran = Ran::of(command);
    ran.expect(3, &["no GPU to run on", "finds no device"]);
}

#[test]
fn a_cache_that_no_gpu_kernel_takes() {
    let bench = Bench::new();
    let args = ["graph", "--device", "hip", "--kv-type", "f32"];
    let ran = bench.with_model(&args);
    let text = &ran.expect(0, &[]).stdout;
    for part in ["takes no f32 KV cache", "supported on a GPU: f16, q8_0"] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
}

#[test]
fn more_rows_at_a_time_than_a_grid_has() {
    let bench = Bench::new();
    let refusal =
        "65536 rows of a prompt at a time; GPU kernels take 65535 of this length: set chunk_rows";
    for (rows, refused) in [("65535", false), ("65536", true)] {
        let args = ["graph", "--device", "hip", "--ctx", "65536", "--rows", rows];
        let ran = bench.with_model(&args);
        let text = &ran.expect(0, &[]).stdout;
        assert_eq!(text.contains(refusal), refused, "{rows}:\n{text}");
    }
}

#[test]
fn a_step_for_a_gpu_can_be_drawn_without_one() {
    let bench = Bench::new();
    let ran = bench.with_model(&["graph", "--device", "hip"]);
    let text = &ran.expect(0, &[]).stdout;
    for part in ["gemv_q8_0<<<", "attention_step_", "sample_choose<<<1×1×1"] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
}
