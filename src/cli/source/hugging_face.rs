//! A file of a Hugging Face repository, or the folder that it is, by `hf-hub`.
//!
//! Of a folder only what is read is downloaded: the JSON files, and the SafeTensors files that the index names. All of them
//! must be of one commit. A folder in our cache is whole when a mark lies in it, one in the user's when it opens.
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
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache as HubCache, Repo, RepoType};

use super::cache::{self, Cache};
use super::{Digest, Reason};
use crate::cli::error::chain;
use crate::cli::progress::Progress;
use crate::loader::{Folder, INDEX, WHOLE, safetensors_files};

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

/// Files of a folder that are read where they are there.
#[rustfmt::skip]
const COMPANIONS: &[&str] = &["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json",
    "special_tokens_map.json", "chat_template.jinja", "chat_template.json"];
/// Lies in a folder of our cache when everything else does.
const MARK: &str = ".greta_infer-whole";

/// The folder of a repository as it lies in one of the caches, what is missing downloaded.
pub fn obtain_folder(
    repository: &str,
    revision: &str,
    cache: &Cache,
    progress: &Progress,
) -> Result<PathBuf, Reason> {
    let repo = Repo::with_revision(
        repository.to_string(),
        RepoType::Model,
        revision.to_string(),
    );
    let users = users_cache();
    let folder_of = |cache: &HubCache| {
        let config = cache.repo(repo.clone()).get("config.json")?;
        config.parent().map(Path::to_path_buf)
    };
    let opens =
        |folder: &PathBuf| folder.join("tokenizer.json").exists() && Folder::open(folder).is_ok();
    if let Some(folder) = users.as_ref().and_then(folder_of).filter(opens) {
        return Ok(folder);
    }
    let ours = HubCache::new(cache.path("huggingface"));
    if let Some(folder) = folder_of(&ours).filter(|folder| folder.join(MARK).exists()) {
        return Ok(folder);
    }
    fs::create_dir_all(ours.path()).map_err(Reason::cache(ours.path()))?;
    let token = users.and_then(|users| users.token());
    let present = list(ours.clone(), repo.clone(), token.clone(), progress)?;
    let has = |name: &str| present.iter().any(|file| file == name);
    let fetch = |name: &str| download(ours.clone(), repo.clone(), name, token.clone(), progress);
    let mut folder: Option<PathBuf> = None;
    let mut take = |name: &str| -> Result<PathBuf, Reason> {
        let path = fetch(name)?;
        let parent = path.parent().map(Path::to_path_buf);
        if folder.is_some() && folder != parent {
            let text = format!(
                "{name} is of another commit than the files before it: the repository has changed meanwhile; try again"
            );
            return Err(Reason::Hub(text));
        }
        folder = parent;
        Ok(path)
    };
    for name in COMPANIONS.iter().filter(|name| has(name)) {
        take(name)?;
    }
    let weights = if has(WHOLE) {
        vec![WHOLE.to_owned()]
    } else if has(INDEX) {
        let index = take(INDEX)?;
        safetensors_files(&index).map_err(|error| Reason::Hub(chain(&error)))?
    } else {
        let all = present.iter().filter(|name| name.ends_with(".safetensors"));
        all.filter(|name| !name.contains('/')).cloned().collect()
    };
    if weights.is_empty() {
        return Err(Reason::Hub(
            "the repository has no SafeTensors files".into(),
        ));
    }
    for name in &weights {
        take(name)?;
    }
    let folder = folder.ok_or_else(|| Reason::Hub("the repository has no files".into()))?;
    fs::write(folder.join(MARK), b"").map_err(Reason::cache(&folder))?;
    Ok(folder)
}

/// The names of a repository's files.
fn list(
    cache: HubCache,
    repo: Repo,
    token: Option<String>,
    progress: &Progress,
) -> Result<Vec<String>, Reason> {
    let (sender, receiver) = mpsc::channel();
    // Not joined, as below.
    thread::spawn(move || {
        let result = api(cache, token).and_then(|api| api.repo(repo).info());
        let names = result.map(|info| info.siblings.into_iter().map(|file| file.rfilename));
        let names = names.map(Iterator::collect::<Vec<String>>);
        let _nobody_waits = sender.send(names.map_err(|error| chain(&error)));
    });
    let _spinner = progress.spinner("asking Hugging Face for the repository's files");
    match receiver.recv_timeout(CONNECT) {
        Ok(result) => result.map_err(Reason::Hub),
        Err(_) => Err(Reason::Timeout(CONNECT.as_secs())),
    }
}

fn api(cache: HubCache, token: Option<String>) -> Result<Api, ApiError> {
    let mut builder = ApiBuilder::from_cache(cache).with_token(token);
    if let Ok(endpoint) = std::env::var("HF_ENDPOINT") {
        builder = builder.with_endpoint(endpoint);
    }
    builder.with_progress(false).build()
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
        let result = api(cache, token)
            .and_then(|api| api.repo(repo).download_with_progress(&name, reporter));
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
