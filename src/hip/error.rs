//! What can go wrong between this program and a driver.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use thiserror::Error;

use super::sys::Status;
use super::{CaptureStatus, Platform};

/// Why a GPU could not do what was asked. `Display` is one line.
#[derive(Debug, Error)]
pub enum HipError {
    #[error("no {platform} GPU driver: {}", looked_for(names, directories, unusable.as_deref()))]
    NoLibrary {
        platform: Platform,
        names: &'static [&'static str],
        directories: Vec<PathBuf>,
        /// What the loader said of a library that is there but cannot be loaded.
        unusable: Option<String>,
    },
    #[error("{}: no function {symbol}: the driver is older or newer than this program can use", library.display())]
    MissingSymbol {
        symbol: &'static str,
        library: PathBuf,
    },
    #[error("{platform} driver {} finds no device", library.display())]
    NoDevice {
        platform: Platform,
        library: PathBuf,
    },
    #[error("{platform} device {index}: there are {count}, counted from 0")]
    NoSuchDevice {
        platform: Platform,
        index: usize,
        count: usize,
    },
    /// A call that failed; `name` and `status` are the driver's.
    #[error("{call} ({subject}): {name} ({status}){}", detail.as_ref().map(|d| format!(": {d}")).unwrap_or_default())]
    Call {
        call: &'static str,
        subject: String,
        name: String,
        status: Status,
        /// What else the driver said, such as the log of its compiler.
        detail: Option<String>,
    },
    /// A call that succeeded with a result that makes no sense.
    #[error("{call} ({subject}): succeeded but {what}")]
    Unexpected {
        call: &'static str,
        subject: String,
        what: String,
    },
    #[error("{what}: bytes {offset}..{} do not fit into {bytes}", offset.saturating_add(*length))]
    OutOfRange {
        what: &'static str,
        offset: usize,
        length: usize,
        bytes: usize,
    },
    #[error("a name or path with a zero byte: {text:?}")]
    ZeroByte { text: String },
    /// The recording is void although no call inside it need have failed.
    #[error("the capture on {subject} ended {status} instead of active")]
    Capture {
        subject: String,
        status: CaptureStatus,
    },
}

fn looked_for(names: &[&str], directories: &[PathBuf], unusable: Option<&str>) -> String {
    let mut text = format!("looked for {} in ", names.join(", "));
    for directory in directories.iter().map(PathBuf::as_path).map(Path::display) {
        write!(text, "{directory}, ").expect("strings can be written");
    }
    text.push_str("the system's library path");
    if let Some(unusable) = unusable {
        write!(text, "; found but cannot be loaded: {unusable}").expect("strings can be written");
    }
    text
}
