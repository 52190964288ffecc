//! The binary as a process: what it was given, what it printed, how it left.

use super::oracle::Format;
use super::toy::Recipe;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A directory with a toy model and an empty cache, in which the binary runs.
pub struct Bench {
    pub directory: TempDir,
    pub model: PathBuf,
}

/// What a process left behind.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Bench {
    /// A fresh one.
    pub fn new() -> Bench {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let model = Recipe::of(Format::by_name("Q8_0"))
            .build()
            .write(directory.path());
        Bench { directory, model }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file and returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }

    /// The binary, with a cache and a home of its own and nothing on standard input.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_greta_infer"));
        command
            .args(args)
            .current_dir(self.directory.path())
            .env("GRETA_CACHE", self.path("cache"))
            .env("HOME", self.path("home"))
            .env_remove("XDG_CACHE_HOME")
            .env_remove("HF_HOME")
            .env_remove("HF_ENDPOINT")
            .env_remove("ROCM_PATH")
            .env_remove("HIP_PATH")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the binary with the toy model.
    pub fn with_model(&self, args: &[&str]) -> Ran {
        let mut command = self.command(args);
        command.arg("--model").arg(&self.model);
        Ran::of(command)
    }

    /// Runs the binary.
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args))
    }
}

impl Ran {
    /// Runs a command to its end.
    pub fn of(mut command: Command) -> Ran {
        Ran::from(command.output().expect("the binary starts"))
    }

    /// Asserts the exit code, and that an error is one line that says all of `parts`.
    pub fn expect(&self, code: i32, parts: &[&str]) -> &Ran {
        assert_eq!(self.code, Some(code), "{self:?}");
        for part in parts {
            assert!(self.stderr.contains(part), "no {part:?} in {self:?}");
        }
        if !matches!(code, 0 | 130) {
            let errors = self.stderr.lines().filter(|l| l.starts_with("error: "));
            assert_eq!(errors.count(), 1, "{self:?}");
            assert!(!self.stderr.contains("panicked"), "{self:?}");
            let last = self.stderr.lines().last().unwrap_or("");
            assert!(last.starts_with("error: "), "{self:?}");
        }
        self
    }

    /// Standard output as JSON.
    pub fn json(&self) -> serde_json::Value {
        let parsed = serde_json::from_str(&self.stdout);
        parsed.unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("standard output is UTF-8"),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Every file below `directory`, relative and sorted.
pub fn files_below(directory: &Path) -> Vec<String> {
    fn visit(root: &Path, directory: &Path, found: &mut Vec<String>) {
        let Ok(entries) = std::fs::read_dir(directory) else {
            return;
        };
        for entry in entries {
            let path = entry.expect("a directory entry").path();
            if path.is_dir() {
                visit(root, &path, found);
            } else {
                let name = path.strip_prefix(root).expect("below the root");
                found.push(name.display().to_string());
            }
        }
    }
    let mut found = Vec::new();
    visit(directory, directory, &mut found);
    found.sort();
    found
}
