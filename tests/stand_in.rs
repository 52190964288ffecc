//! The host's side of a GPU against a driver whose kernels do nothing and that fails in a chosen way
//! (`fixtures/stand_in_driver.c`): what is refused, what is fallen back from, and what a step asks of the driver.
#![cfg(target_os = "linux")]

mod support;

use greta_infer::gpu::{self, GROUP_STEPS, Gpu};
use greta_infer::graph::KvType;
use greta_infer::hip::{Search, amd};
use greta_infer::loader::Checkpoint;
use greta_infer::model::{Extent, Logits, Model};
use greta_infer::program::Target;
use greta_infer::runtime::{DeviceChoice, Session, SessionError, SessionOptions, compile};
use std::ffi::{CString, c_char, c_long};
use std::path::{Path, PathBuf};
use std::process::Command;
use support::command::{Bench, Ran};
use support::skip::skip;

/// A directory in which `lib/libamdhip64.so` is the stand-in, compiled with `definitions`. Nothing if the machine has no C
/// compiler.
fn driver(directory: &Path, definitions: &[&str]) -> Option<PathBuf> {
    let library = directory.join("lib");
    std::fs::create_dir_all(&library).expect("created");
    let source = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/stand_in_driver.c"
    );
    let mut command = Command::new("cc");
    command.args(["-w", "-O1", "-shared", "-fPIC"]);
    command.args(definitions.iter().map(|d| format!("-D{d}")));
    command
        .arg("-o")
        .arg(library.join(amd::FILE_NAMES[0]))
        .arg(source);
    match command.status() {
        Ok(status) => {
            assert!(status.success());
            Some(directory.to_owned())
        }
        Err(error) => {
            skip(&format!("cc: {error}"));
            None
        }
    }
}

/// Whether this build has the kernels that the stand-in's device asks for.
fn has_kernels() -> bool {
    let has = greta_infer::kernels::code_object("gfx942").is_some();
    if !has {
        skip("built without kernels for gfx942");
    }
    has
}

/// Runs the binary with the toy model on the stand-in.
fn run(bench: &Bench, definitions: &[&str], args: &[&str]) -> Option<Ran> {
    run_on("hip", bench, definitions, args)
}

fn run_on(device: &str, bench: &Bench, definitions: &[&str], args: &[&str]) -> Option<Ran> {
    let home = driver(bench.directory.path(), definitions)?;
    let model = bench.model.to_str().expect("UTF-8");
    let mut command = bench.command(&[args, &["--model", model, "--device", device]].concat());
    command.env("ROCM_PATH", home);
    Some(Ran::of(command))
}

#[test]
fn an_architecture_without_kernels_is_refused() {
    let bench = Bench::new();
    let Some(ran) = run(&bench, &["ARCH=\"gfx906\""], &["generate", "x"]) else {
        return;
    };
    ran.expect(3, &["hip:0 (stand-in, gfx906)", "no kernels for gfx906"]);
}

#[test]
fn a_model_that_does_not_fit_is_refused_with_a_table() {
    let bench = Bench::new();
    if !has_kernels() {
        return;
    }
    let Some(ran) = run(&bench, &["FREE_BYTES=1000000"], &["generate", "x"]) else {
        return;
    };
    assert_eq!(ran.code, Some(3), "{ran:?}");
    for part in ["the model needs", "weights", "KV cache", "needed", "free"] {
        assert!(ran.stderr.contains(part), "no {part:?} in {ran:?}");
    }
}

/// Who leaves the choice to the program is told why a GPU that is there was not taken.
#[test]
fn the_best_device_is_the_processor_for_a_reason() {
    let args = ["generate", "x", "--max-tokens", "1", "--quiet"];
    let loud = &args[..4];
    let cases = [
        (&["ARCH=\"gfx906\""][..], Some("no kernels for gfx906")),
        (&["FREE_BYTES=1000000"], Some("the model needs")),
        (&["INIT=999"], Some("hipInit")),
        // Nothing is there, and so nothing is said.
        (&["INIT=100"], None),
    ];
    let bench = Bench::new();
    let devices = bench.run(&["devices", "--format", "json"]);
    let real = devices.expect(0, &[]).json()["devices"][1]["name"] != "hip";
    if real || !has_kernels() {
        return;
    }
    for (definitions, why) in cases {
        let Some(ran) = run_on("auto", &bench, definitions, loud) else {
            return;
        };
        assert_eq!(ran.code, Some(0), "{definitions:?}: {ran:?}");
        let warned = ran.stderr.contains("no GPU could be used");
        assert_eq!(warned, why.is_some(), "{definitions:?}: {ran:?}");
        assert!(ran.stderr.contains(why.unwrap_or("")), "{ran:?}");
        let ran = run_on("auto", &bench, definitions, &args).expect("it was compiled before");
        assert_eq!(ran.stderr, "", "{definitions:?}");
    }
}

/// The toy model, from its file.
fn model(bench: &Bench) -> Model {
    let checkpoint = Checkpoint::open(&bench.model).unwrap_or_else(|e| panic!("{e}"));
    Model::from_checkpoint(checkpoint, None).unwrap_or_else(|e| panic!("{e}"))
}

/// A session of the toy model on the stand-in.
fn session(directory: &Path, definitions: &[&str]) -> Option<Session> {
    let home = driver(directory, definitions)?;
    let session = session_of(&model(&Bench::new()), &home);
    Some(session.unwrap_or_else(|e| panic!("{e}")))
}

fn session_of(model: &Model, home: &Path) -> Result<Session, SessionError> {
    let options = SessionOptions {
        device: DeviceChoice::Hip(Some(0)),
        drivers: Search {
            directories: vec![home.join("lib")],
        },
        context: 64,
        chunk_rows: 8,
        ..SessionOptions::default()
    };
    Session::build(model, &options, &|_, _| {})
}

/// Whichever call of a load fails first, the load ends with it: nothing waits for work that never comes.
#[test]
fn a_load_that_fails_midway_says_in_which_call() {
    if !has_kernels() {
        return;
    }
    let model = model(&Bench::new());
    let cases = [
        ("ALLOCATIONS", &[0, 3, 8, 12, 14, 15, 16, 17][..], "Malloc"),
        ("COPIES", &[0, 1, 5], "hipMemcpyHtoDAsync"),
        ("LAUNCHES", &[1, 2, 6], "repack_"),
    ];
    for (what, counts, call) in cases {
        for count in counts {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let definition = format!("{what}={count}");
            let Some(home) = driver(directory.path(), &[&definition]) else {
                return;
            };
            let error = session_of(&model, &home).err().expect(&definition);
            let text = error.to_string();
            assert!(text.contains(call), "{definition}: {text}");
        }
    }
}

/// A file that loses its end between opening and loading is an error that names a tensor.
#[test]
fn a_file_that_is_cut_off_while_loading_is_an_error() {
    if !has_kernels() {
        return;
    }
    let (bench, directory) = (Bench::new(), tempfile::tempdir().expect("a directory"));
    let Some(home) = driver(directory.path(), &[]) else {
        return;
    };
    let model = model(&bench);
    let file = std::fs::File::options().write(true).open(&bench.model);
    let file = file.expect("it is writable");
    let bytes = file.metadata().expect("its size").len();
    file.set_len(bytes - 1).expect("cut off");
    let error = session_of(&model, &home).err().expect("an error");
    let text = error.to_string();
    assert!(
        text.contains("weight ") && text.contains("could not be read"),
        "{text}"
    );
}

/// Where a driver's captures cannot be trusted, steps run launch by launch and the report says why.
#[test]
fn captures_that_fail_are_fallen_back_from() {
    if !has_kernels() {
        return;
    }
    for (capture, why) in [
        ("REFUSES", "hipStreamBeginCapture"),
        ("INVALIDATES", "invalidated"),
        ("LOSES_A_NODE", "nodes for"),
        ("ADDS_A_COPY", "Copy node"),
        ("LOSES_THE_DEVICE", "hipSetDevice"),
    ] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let Some(mut session) = session(directory.path(), &[&format!("CAPTURE={capture}")]) else {
            return;
        };
        session.step(1).unwrap_or_else(|e| panic!("{capture}: {e}"));
        let report = session.report();
        assert!(!report.graph_replay, "{capture}: {report:?}");
        let said = report.graph_fallback.as_deref().unwrap_or("nothing");
        assert!(said.contains(why), "{capture}: {said}");
        assert_eq!((report.replays, report.eager_steps), (0, 1), "{capture}");
    }
}

/// A driver that records steps, but not many at a time: they are launched one by one, and the report says so.
#[test]
fn a_group_that_is_not_recorded_is_reported() {
    if !has_kernels() {
        return;
    }
    let most = 100;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let Some(session) = session(directory.path(), &[&format!("CAPTURED={most}")]) else {
        return;
    };
    let report = session.report();
    let nodes = most / GROUP_STEPS as usize..=most;
    assert!(
        report.graph_replay && nodes.contains(&report.nodes),
        "{report:?}"
    );
    let [shortfall] = &report.shortfalls[..] else {
        panic!("{report:?}");
    };
    assert!(shortfall.contains("16 at a time"), "{shortfall}");
}

/// What the stand-in counted.
fn calls(directory: &Path, name: &str) -> c_long {
    let path = directory.join("lib").join(amd::FILE_NAMES[0]);
    let name = CString::new(name).expect("no zeros");
    // SAFETY: the library is the one loaded already, and the function has this signature in its source.
    unsafe {
        let library = libloading::Library::new(path).expect("loaded before");
        let count = library
            .get::<unsafe extern "C" fn(*const c_char) -> c_long>("stand_in_calls")
            .expect("in its source");
        count(name.as_ptr())
    }
}

/// What `calls` says of everything that a replay must not need.
const AVOIDED: [&str; 3] = ["allocations", "launches", "copies_to_device"];

/// A step that the host decides is one kernel that sets it and one graph launch: no allocation, no copy to the device.
#[test]
fn a_replayed_step_asks_the_driver_for_one_launch() {
    if !has_kernels() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let Some(mut session) = session(directory.path(), &[]) else {
        return;
    };
    let count = |name| calls(directory.path(), name);
    let steps = 5;
    session.step(1).expect("a step");
    let before = AVOIDED.map(count);
    let replays = count("graph_launches");
    for token in 0..steps {
        session.step(token).expect("a step");
    }
    let set = c_long::from(steps);
    assert_eq!(AVOIDED.map(count), [before[0], before[1] + set, before[2]]);
    assert_eq!(count("graph_launches") - replays, c_long::from(steps));
    let report = session.report();
    assert_eq!(report.replays, u64::from(steps) + 1);
    assert!(report.graph_fallback.is_none(), "{report:?}");
    assert!(report.shortfalls.is_empty(), "{report:?}");
    // These kernels do nothing, so that nobody tells of a token: an error, and not whatever the memory held.
    let error = session.chosen().expect_err("no token").to_string();
    assert!(error.contains("the token for position 6"), "{error}");
}

/// Steps that follow each other are one graph launch each and nothing beside.
#[test]
fn steps_that_advance_by_themselves_ask_for_nothing_else() {
    if !has_kernels() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let Some(home) = driver(directory.path(), &[]) else {
        return;
    };
    let bench = Bench::new();
    let checkpoint = Checkpoint::open(&bench.model).unwrap_or_else(|e| panic!("{e}"));
    let model = Model::from_checkpoint(checkpoint, None).unwrap_or_else(|e| panic!("{e}"));
    let arena = bumpalo::Bump::new();
    let extent = Extent {
        rows: 1,
        context: 64,
        kv_type: KvType::F16,
        logits: Logits::Last,
    };
    let compiled = compile(&model, &arena, extent, Target::Gpu { wave: 64 });
    let program = compiled.unwrap_or_else(|e| panic!("{e}")).program;
    let search = Search {
        directories: vec![home.join("lib")],
    };
    let found = gpu::select(&search, Some(0)).unwrap_or_else(|e| panic!("{e}"));
    let setup = gpu::Setup {
        threads: 1,
        poison: false,
        overlap: true,
    };
    let fetch = |name: &str| model.tensor(name);
    let gpu = Gpu::new(&found, setup, &[&program], &fetch, &|_, _| ());
    let gpu = gpu.unwrap_or_else(|e| panic!("{e}"));
    let mut recording = gpu.record(program).unwrap_or_else(|e| panic!("{e}"));
    let count = |name| calls(directory.path(), name);
    let (before, replays) = (AVOIDED.map(count), count("graph_launches"));
    for steps in [4, 4, 4, GROUP_STEPS + 2] {
        let queued = recording.advance(steps, false);
        queued.unwrap_or_else(|e| panic!("{e}"));
        assert!(recording.is_idle().unwrap_or_else(|e| panic!("{e}")));
    }
    assert_eq!(AVOIDED.map(count), before);
    // A group of steps is one launch.
    assert_eq!(count("graph_launches") - replays, 12 + 1 + 2);
    assert_eq!(recording.replays(), u64::from(12 + GROUP_STEPS + 2));
}
