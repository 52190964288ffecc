//! `hip` without a device: drivers that are missing, broken, old, or have none.
#![cfg(target_os = "linux")]

#[path = "support/skip.rs"]
mod skip;

use greta_infer::hip::{Hip, HipError, Platform, Search, amd, nvidia, sys};
use skip::{loudly, skip};
use std::path::Path;
use std::process::Command;

/// A platform's file name and every symbol that is needed.
fn library_of(platform: Platform) -> (&'static str, Vec<&'static str>) {
    let (file, mut names, own) = match platform {
        Platform::Amd => (amd::FILE_NAMES[0], amd::NAMES.all(), amd::OWN_NAMES),
        Platform::Nvidia => (
            nvidia::FILE_NAMES[0],
            nvidia::NAMES.all(),
            nvidia::OWN_NAMES,
        ),
    };
    names.extend(own);
    (file, names)
}

/// Makes a library whose functions return `status`, but for `without`, which it lacks, and those that `special` has the
/// source of. Nothing if the machine has no C compiler.
fn stub(dir: &Path, platform: Platform, status: i32, without: &str, special: &str) -> Option<()> {
    let (file, names) = library_of(platform);
    let named = |name: &str| special.contains(&format!("{name}(")) || name == without;
    let ours = names.into_iter().filter(|name| !named(name));
    let lines = ours.map(|name| format!("int {name}(void) {{ return {status}; }}\n"));
    let source = dir.join("stub.c");
    std::fs::write(&source, lines.collect::<String>() + special).unwrap();
    let mut command = Command::new("cc");
    command.args(["-w", "-shared", "-fPIC", "-o"]);
    match command.arg(dir.join(file)).arg(&source).status() {
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

fn search(dir: &Path) -> Search {
    Search {
        directories: vec![dir.to_path_buf()],
    }
}

#[track_caller]
fn expect(result: Result<Hip, HipError>, parts: &[&str]) {
    let text = result.expect_err("an error").to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    assert!(!text.contains('\n'), "{text}");
}

#[test]
fn no_driver_says_what_was_looked_for_and_where() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().display().to_string();
    for result in Hip::find(&search(dir.path())) {
        match result {
            Ok(hip) => loudly(&format!("SKIPPED: there is a driver, {hip:?}")),
            Err(HipError::NoDevice { library, .. }) => {
                loudly(&format!(
                    "SKIPPED: there is a driver, {}",
                    library.display()
                ));
            }
            Err(error @ HipError::NoLibrary { platform, .. }) => {
                let wanted = library_of(platform).0;
                expect(Err(error), &["no", "driver", wanted, &place, "system"]);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_library_that_cannot_be_loaded_is_said() {
    let dir = tempfile::tempdir().unwrap();
    for platform in Platform::ALL {
        let file = dir.path().join(library_of(platform).0);
        std::fs::write(&file, "not a library").unwrap();
        match Hip::load(platform, &search(dir.path())) {
            Err(error @ HipError::NoLibrary { .. }) => {
                let file = file.display().to_string();
                expect(Err(error), &["cannot be loaded", &file, "too short"]);
            }
            other => loudly(&format!("SKIPPED: there is a driver, {other:?}")),
        }
    }
}

#[test]
fn a_driver_without_a_device_is_an_error_of_its_own() {
    for platform in Platform::ALL {
        // The initialisation says so, or only the count does.
        let count = match platform {
            Platform::Amd => {
                "int hipInit(int f) { return 0; }\nint hipGetDeviceCount(int *n) { *n = 0; return 0; }\n"
            }
            Platform::Nvidia => {
                "int cuInit(int f) { return 0; }\nint cuDeviceGetCount(int *n) { *n = 0; return 0; }\n"
            }
        };
        for special in ["", count] {
            let dir = tempfile::tempdir().unwrap();
            if stub(dir.path(), platform, sys::NO_DEVICE, "", special).is_none() {
                return;
            }
            let hip = Hip::load(platform, &search(dir.path()));
            let hip = hip.and_then(|hip| hip.device_count().map(|_| hip));
            assert!(matches!(hip, Err(HipError::NoDevice { .. })), "{hip:?}");
            let library = dir.path().join(library_of(platform).0);
            let library = library.display().to_string();
            expect(hip, &["no device", &platform.to_string(), &library]);
        }
    }
}

#[test]
fn a_missing_symbol_is_named() {
    for platform in Platform::ALL {
        let (_, names) = library_of(platform);
        for without in [names[0], names[names.len() / 2], names[names.len() - 1]] {
            let dir = tempfile::tempdir().unwrap();
            if stub(dir.path(), platform, 0, without, "").is_none() {
                return;
            }
            let library = dir.path().display().to_string();
            let hip = Hip::load(platform, &search(dir.path()));
            assert!(
                matches!(hip, Err(HipError::MissingSymbol { .. })),
                "{hip:?}"
            );
            expect(hip, &[without, &library]);
        }
    }
}

#[test]
fn a_status_that_nobody_knows_is_a_number() {
    let dir = tempfile::tempdir().unwrap();
    let named = "const char *hipGetErrorName(int e) { return e == 803 ? \"hipErrorName\" : 0; }\n\
                 int hipInit(int f) { return 803; }\n";
    if stub(dir.path(), Platform::Amd, 0, "", named).is_none() {
        return;
    }
    let hip = Hip::load(Platform::Amd, &search(dir.path()));
    expect(hip, &["hipInit", "hipErrorName", "(803)"]);
    let dir = tempfile::tempdir().unwrap();
    let unknown = "int cuGetErrorName(int e, char **n) { *n = 0; return 1; }\n\
                   int cuInit(int f) { return 123456; }\n";
    stub(dir.path(), Platform::Nvidia, 0, "", unknown).unwrap();
    let hip = Hip::load(Platform::Nvidia, &search(dir.path()));
    expect(hip, &["cuInit", "without a name", "(123456)"]);
}
