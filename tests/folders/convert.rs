//! `convert`, as a function of values and as the binary.

use super::support::command::{Bench, files_below};
use super::support::compare::assert_same_bits;
use super::{expected, fixture, ids, logits, open};
use greta_infer::dtype::DType;
use greta_infer::import::{requantize, vectors_to};
use greta_infer::loader::{Checkpoint, TensorInfo, WriteError, write_gguf};
use std::path::Path;

fn written(checkpoint: &Checkpoint) -> Vec<u8> {
    let tensors: Vec<TensorInfo> = checkpoint.tensors().cloned().collect();
    let mut out = Vec::new();
    let bytes = write_gguf(&mut out, checkpoint.metadata(), &tensors, &|_| true).expect("written");
    assert_eq!(bytes, out.len() as u64);
    out
}

/// What is read back from a written file is what was written: keys, types, bytes, tokens and logits.
#[test]
fn a_written_file_is_the_model() {
    let prompt = ids(&expected()["prompt"]);
    for name in ["llama", "sharded"] {
        for dtype in DType::RUNNABLE {
            let made =
                || requantize(open(&fixture(name)), *dtype, Some(DType::F32), 2).expect("a type");
            let bytes = written(&made());
            let read = Checkpoint::from_bytes(Path::new("written.gguf"), bytes)
                .unwrap_or_else(|error| panic!("{error}"));
            let (right, found) = (made(), &read);
            assert!(
                right.metadata().iter().eq(found.metadata().iter()),
                "{name} {dtype}: metadata"
            );
            for (a, b) in right.tensors().zip(found.tensors()) {
                assert_eq!((&a.name, a.dtype, &a.shape), (&b.name, b.dtype, &b.shape));
                assert!(
                    a.fetch().expect("made").data == b.fetch().expect("read").data,
                    "{name} {dtype}: {}",
                    a.name
                );
            }
            assert_same_bits(
                &logits(read, &prompt),
                &logits(right, &prompt),
                dtype.name(),
            );
        }
    }
}

#[test]
fn a_writer_that_fails_or_is_stopped_says_so() {
    struct Full(usize);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let taken = bytes.len().min(self.0);
            self.0 -= taken;
            match taken {
                0 => Err(std::io::Error::from(std::io::ErrorKind::StorageFull)),
                taken => Ok(taken),
            }
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let checkpoint = vectors_to(open(&fixture("llama")), DType::F32, 1).expect("F32");
    let tensors: Vec<TensorInfo> = checkpoint.tensors().cloned().collect();
    let whole = written(&checkpoint).len();
    for room in [0, 100, 20_000, whole - 1] {
        let error = write_gguf(&mut Full(room), checkpoint.metadata(), &tensors, &|_| true);
        assert!(matches!(error, Err(WriteError::Io(_))), "{room}: {error:?}");
    }
    let stopped = write_gguf(&mut Vec::new(), checkpoint.metadata(), &tensors, &|done| {
        done < 50_000
    });
    assert!(matches!(stopped, Err(WriteError::Interrupted)));
}

#[test]
fn the_binary_converts() {
    let bench = Bench::new();
    let folder = fixture("sharded").display().to_string();
    let files = || {
        files_below(bench.directory.path())
            .into_iter()
            .filter(|name| !name.starts_with("cache"))
            .collect::<Vec<_>>()
    };
    let before = files();
    let ran = bench.run(&[
        "convert", &folder, "-o", "out.gguf", "--type", "q4_k", "--format", "json",
    ]);
    ran.expect(0, &[]);
    let json = ran.json();
    // Rows of 32 and of 48 are no super-blocks: Q5_0, and F16.
    assert_eq!(json["types"]["Q5_0"], 13, "{json}");
    assert_eq!(json["types"]["F16"], 2, "{json}");
    assert_eq!(json["fallbacks"], 15, "{json}");
    assert_eq!(
        json["file_bytes"].as_u64(),
        Some(
            std::fs::metadata(bench.path("out.gguf"))
                .expect("a file")
                .len()
        )
    );
    assert_eq!(files().len(), before.len() + 1);

    let info = bench.run(&["info", "out.gguf", "--format", "json"]);
    assert_eq!(info.expect(0, &[]).json()["runs"], true);
    let info = bench.run(&["info", &folder, "--format", "json"]);
    let info = info.expect(0, &[]).json();
    assert_eq!(
        (&info["runs"], &info["architecture"]),
        (&true.into(), &"llama".into()),
        "{info}"
    );
    let tokens = |model: &str| {
        bench
            .run(&["tokenize", "Hello 123 <|end|>", "--model", model])
            .expect(0, &[])
            .stdout
            .clone()
    };
    assert_eq!(tokens("out.gguf"), tokens(&folder));

    // It does not replace what is there unless told to, and fails before it has done anything.
    let size = |name: &str| std::fs::metadata(bench.path(name)).expect("a file").len();
    let old = size("out.gguf");
    bench
        .run(&["convert", &folder, "-o", "out.gguf"])
        .expect(3, &["out.gguf", "exists already", "--force"]);
    assert_eq!(size("out.gguf"), old);
    bench
        .run(&["convert", &folder, "-o", "out.gguf", "--force", "--quiet"])
        .expect(0, &[]);
    assert_ne!(size("out.gguf"), old);
    bench
        .run(&["convert", "out.gguf", "-o", "again.gguf", "--type", "q8_0"])
        .expect(0, &[]);
    bench
        .run(&["convert", "absent", "-o", "new.gguf"])
        .expect(3, &["absent", "no such file"]);
    bench
        .run(&["convert", &folder, "-o", "no/such/folder.gguf"])
        .expect(1, &["no/such/folder.gguf", "cannot write"]);
    bench
        .run(&["convert", &folder, "-o", "."])
        .expect(3, &["is a folder"]);
    assert_eq!(files().len(), before.len() + 2, "{:?}", files());
    // Nor what the model is read from, by whatever name, which even force does not replace.
    let own = super::copy("sharded");
    let own = |name: &str| own.path().join(name).display().to_string();
    for name in ["config.json", "model.safetensors.index.json"] {
        bench
            .run(&["convert", &own(""), "-o", &own(name), "--force"])
            .expect(3, &[name, "of the model that is converted"]);
    }
    bench
        .run(&["convert", "out.gguf", "-o", "./out.gguf", "--force"])
        .expect(3, &["out.gguf", "of the model that is converted"]);
    // What is replaced keeps its permissions, and a link its place.
    #[cfg(unix)]
    {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let mode = |name: &str| {
            let there = std::fs::metadata(bench.path(name)).expect("a file");
            there.permissions().mode() & 0o777
        };
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(bench.path("again.gguf"), private).expect("set");
        symlink("again.gguf", bench.path("latest.gguf")).expect("a link");
        bench
            .run(&["convert", &folder, "-o", "latest.gguf"])
            .expect(3, &["exists already"]);
        bench
            .run(&["convert", &folder, "-o", "latest.gguf", "--force"])
            .expect(0, &[]);
        assert!(bench.path("latest.gguf").is_symlink());
        assert_eq!(mode("again.gguf"), 0o600);
        assert_eq!(size("again.gguf"), size("out.gguf"));
        std::fs::remove_file(bench.path("latest.gguf")).expect("removed");
    }
    // A device's or a pipe's place is not taken, not even by force.
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let pipe = bench.path("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("mkfifo").success());
        std::os::unix::fs::symlink(&pipe, bench.path("link")).expect("a link");
        for name in ["pipe", "link"] {
            bench
                .run(&["convert", &folder, "-o", name, "--force"])
                .expect(3, &[name, "is no file"]);
        }
        let kind = std::fs::metadata(bench.path("link")).expect("it is there");
        assert!(kind.file_type().is_fifo());
    }
}

#[test]
fn the_binary_runs_a_folder_in_another_type() {
    let bench = Bench::new();
    let folder = fixture("sharded").display().to_string();
    let text = |model: &str, quantize: &[&str]| {
        let args = [
            "generate",
            "Hello",
            "--max-tokens",
            "8",
            "--threads",
            "1",
            "--temp",
            "0",
            "--ignore-eos",
            "--model",
            model,
        ];
        bench
            .run(&[&args[..], quantize].concat())
            .expect(0, &[])
            .stdout
            .clone()
    };
    bench
        .run(&["convert", &folder, "-o", "q8.gguf", "--type", "q8_0"])
        .expect(0, &[]);
    assert_eq!(text(&folder, &["--quantize", "q8_0"]), text("q8.gguf", &[]));
    let config = format!("[model]\nquantize = \"q8_0\"\n[[model.source]]\npath = {folder:?}\n");
    bench.write("config.toml", config);
    let args = [
        "generate",
        "Hello",
        "--max-tokens",
        "8",
        "--threads",
        "1",
        "--temp",
        "0",
        "--ignore-eos",
        "--config",
        "config.toml",
    ];
    assert_eq!(bench.run(&args).expect(0, &[]).stdout, text("q8.gguf", &[]));
    bench
        .run(&["generate", "x", "--quantize", "q9", "--model", &folder])
        .expect(2, &["q9", "Q8_0"]);
    bench.write("bad.toml", "[model]\nquantize = \"iq4_nl\"\n");
    bench
        .run(&["generate", "x", "--config", "bad.toml"])
        .expect(3, &["bad.toml:2:12", "iq4_nl", "Q8_0"]);
}

/// Ctrl-C leaves neither the file nor a part of it, and SIGTERM and a terminal that goes no part.
#[test]
#[cfg(unix)]
fn an_interrupted_conversion_leaves_nothing() {
    let bench = Bench::new();
    // Large enough to take a while in the slowest type.
    let folder = super::copy("llama");
    let rows = 40_000usize;
    let mut tensors = super::writer::tensors(folder.path(), DType::F32);
    for name in ["model.embed_tokens.weight", "lm_head.weight"] {
        let tensor = tensors
            .iter_mut()
            .find(|tensor| tensor.name == name)
            .expect("a tensor");
        tensor.shape[0] = rows;
        tensor.bytes = tensor.bytes.repeat(rows / 320);
    }
    std::fs::write(
        folder.path().join("model.safetensors"),
        super::writer::file(&tensors, 0),
    )
    .expect("written");
    super::edit(
        folder.path(),
        "config.json",
        &serde_json::json!({"vocab_size": rows}),
    );
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let mut command = bench.command(&[
            "convert",
            &folder.path().display().to_string(),
            "-o",
            "out.gguf",
            "--type",
            "q4_0",
            "--threads",
            "1",
            "--force",
        ]);
        let child = command.spawn().expect("it starts");
        let id = i32::try_from(child.id()).expect("a process id");
        let (part, whole) = (
            bench.path(&format!("out.gguf.part-{id}")),
            bench.path("out.gguf"),
        );
        let begin = std::time::Instant::now();
        while !part.exists() && !whole.exists() && begin.elapsed().as_secs() < 60 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        // SAFETY: a signal to a process that this test started and has not waited for.
        unsafe { libc::kill(id, signal) };
        let ran = super::support::command::Ran::from(child.wait_with_output().expect("it ends"));
        let files = files_below(bench.directory.path());
        let left: Vec<_> = files.iter().filter(|name| name.contains("part")).collect();
        assert!(left.is_empty(), "signal {signal}: {left:?}, {ran:?}");
        // Quick machines may have finished before the signal came.
        let ended = if signal == libc::SIGINT {
            Some(130)
        } else {
            None
        };
        match whole.exists() {
            true => assert!([Some(0), ended].contains(&ran.code), "{ran:?}"),
            false => assert_eq!(ran.code, ended, "{ran:?}"),
        }
        let _none_is_fine = std::fs::remove_file(whole);
    }
}
