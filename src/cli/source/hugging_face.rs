//! A file of a Hugging Face repository, by `hf-hub`.
//!
//! A file that the user's own Hugging Face cache holds is used where it lies. Downloads go into our cache, in that
//! crate's layout: it too gives a file its final name only when the file is whole. `hf-hub` has no timeouts, so the
//! download runs on a thread of its own and is given up when nothing arrives for a while.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use hf_hub::api::Progress as HubProgress;
use hf_hub::api::sync::ApiBuilder;
use hf_hub::{Cache as HubCache, Repo, RepoType};

use super::cache::{self, Cache};
use super::{Digest, Reason};
use crate::cli::error::chain;
use crate::cli::progress::Progress;

const CONNECT: Duration = Duration::from_secs(10);
const STALL: Duration = Duration::from_secs(60);

/// A file in a repository.
pub struct HubFile<'a> {
    pub repository: &'a str,
    pub file: &'a str,
    pub revision: &'a str,
}

/// The file as it lies in one of the caches, downloaded if need be.
pub fn obtain(
    file: &HubFile,
    digest: Option<&Digest>,
    cache: &Cache,
    progress: &Progress,
) -> Result<PathBuf, Reason> {
    let repo = Repo::with_revision(
        file.repository.to_string(),
        RepoType::Model,
        file.revision.to_string(),
    );
    let users = users_cache();
    if let Some(path) = users
        .as_ref()
        .and_then(|users| users.repo(repo.clone()).get(file.file))
    {
        // A file of the user's with another sum is left alone and passed over.
        let stamp = cache.stamp_of_foreign(&path);
        if matches(&path, &stamp, digest, progress)? {
            return Ok(path);
        }
    }
    let ours = HubCache::new(cache.path("huggingface"));
    if let Some(path) = ours.repo(repo.clone()).get(file.file) {
        if matches(&path, &cache::stamp_beside(&path), digest, progress)? {
            return Ok(path);
        }
        remove(&path);
    }
    fs::create_dir_all(ours.path()).map_err(Reason::cache(ours.path()))?;
    let token = users.and_then(|users| users.token());
    let path = download(ours, repo, file.file, token, progress)?;
    if let Some(expected) = digest {
        let stamp = cache::stamp_beside(&path);
        cache::check(&path, Some(&stamp), expected, progress).map_err(|reason| match reason {
            Reason::Checksum {
                path,
                expected,
                found,
                ..
            } => {
                remove(&path);
                Reason::Checksum {
                    path,
                    expected,
                    found,
                    removed: true,
                }
            }
            other => other,
        })?;
    }
    Ok(path)
}

/// The Hugging Face cache that other programs share; none without a home directory.
fn users_cache() -> Option<HubCache> {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    (set("HF_HOME") || set("HOME")).then(HubCache::from_env)
}

fn matches(
    path: &Path,
    stamp: &Path,
    digest: Option<&Digest>,
    progress: &Progress,
) -> Result<bool, Reason> {
    let Some(expected) = digest else {
        return Ok(true);
    };
    match cache::check(path, Some(stamp), expected, progress) {
        Ok(()) => Ok(true),
        Err(Reason::Checksum { .. }) => Ok(false),
        Err(other) => Err(other),
    }
}

/// Removes a file of our cache: the name and the bytes it points at.
fn remove(pointer: &Path) {
    if let Ok(blob) = fs::canonicalize(pointer) {
        let _best_effort = fs::remove_file(blob);
    }
    let _best_effort = fs::remove_file(pointer);
}

enum Message {
    Begun { bytes: u64 },
    Moved { bytes: u64 },
    Ended(Result<PathBuf, String>),
}

/// Sends what the download reports to the thread that waits for it.
struct Reporter(mpsc::Sender<Message>);

impl HubProgress for Reporter {
    fn init(&mut self, size: usize, _file: &str) {
        let _nobody_waits = self.0.send(Message::Begun { bytes: size as u64 });
    }

    fn update(&mut self, size: usize) {
        let _nobody_waits = self.0.send(Message::Moved { bytes: size as u64 });
    }

    fn finish(&mut self) {}
}

fn download(
    cache: HubCache,
    repo: Repo,
    file: &str,
    token: Option<String>,
    progress: &Progress,
) -> Result<PathBuf, Reason> {
    let (sender, receiver) = mpsc::channel();
    let name = file.to_string();
    // The thread is not joined: given up, it ends with the process, and only a `.part` file remains for a resumption.
    thread::spawn(move || {
        let reporter = Reporter(sender.clone());
        let mut builder = ApiBuilder::from_cache(cache).with_token(token);
        if let Ok(endpoint) = std::env::var("HF_ENDPOINT") {
            builder = builder.with_endpoint(endpoint);
        }
        let api = builder.with_progress(false).build();
        let result = api.and_then(|api| api.repo(repo).download_with_progress(&name, reporter));
        let _nobody_waits = sender.send(Message::Ended(result.map_err(|error| chain(&error))));
    });
    let mut patience = CONNECT;
    let mut bar = progress.spinner(&format!("downloading {file} from Hugging Face"));
    loop {
        match receiver.recv_timeout(patience) {
            Ok(Message::Begun { bytes }) => {
                patience = STALL;
                bar = progress.bytes(file, bytes);
            }
            Ok(Message::Moved { bytes }) => bar.add(bytes),
            Ok(Message::Ended(result)) => return result.map_err(Reason::Hub),
            Err(RecvTimeoutError::Timeout) => return Err(Reason::Timeout(patience.as_secs())),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Reason::Hub("the download ended without a result".into()));
            }
        }
    }
}
