//! Runs tests that need a device on the main thread, one after the other: drivers tie state to the
//! thread that first came, and the usual harness starts a thread for each test.
//!
//! Arguments name the tests to run (any that contain one of them). Without a device the run says
//! so, loudly, and passes. Test runners that ask for a list get one.

use greta_infer::gpu::{Found, select};
use greta_infer::hip::Search;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// A test of something opened on a device.
pub type Test<T> = (&'static str, fn(&T));

/// Where drivers are looked for first, as the command line does.
pub fn search() -> Search {
    let homes = ["ROCM_PATH", "HIP_PATH"].into_iter();
    let homes = homes.filter_map(std::env::var_os).map(PathBuf::from);
    let homes = homes.chain(["/opt/rocm".into()]);
    Search {
        directories: homes.map(|home| home.join("lib")).collect(),
    }
}

/// Runs `tests` on what `open` makes of the device that was found.
pub fn run<T>(what: &str, tests: &[Test<T>], open: impl FnOnce(Found) -> T) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|a| a == flag);
    if has("--list") {
        let listed = if has("--ignored") { &[] } else { tests };
        listed.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let found = select(&search(), None).and_then(|f| f.code_object().map(|_| f.clone()));
    let bench = match found {
        Ok(found) => {
            println!("on {}, {}", found.describe(), found.info.driver);
            open(found)
        }
        Err(error) => {
            println!("SKIPPED: every test of {what}, because {error}");
            return ExitCode::SUCCESS;
        }
    };
    let names: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|w| name.contains(w.as_str()));
    let mut failed = Vec::new();
    for (name, test) in tests.iter().filter(|(name, _)| wanted(name)) {
        let start = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| test(&bench)));
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        let seconds = start.elapsed().as_secs_f64();
        println!("test {name} ... {verdict} ({seconds:.1} s)");
        if result.is_err() {
            failed.push(*name);
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {}", failed.join(", "));
    ExitCode::FAILURE
}
