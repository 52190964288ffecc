//! Ctrl-C: the first asks for an end after the current token, the second ends the process. In a conversation it ends an
//! answer, never the conversation.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
#[cfg(unix)]
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::error::CliError;
use super::output;

static ASKED: AtomicBool = AtomicBool::new(false);
static ANSWERING: AtomicBool = AtomicBool::new(false);
/// Whether Ctrl-C came since something other than an answer began.
static LEAVING: AtomicBool = AtomicBool::new(false);
/// A file that is not finished and must not outlive the process.
static UNFINISHED: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Catches Ctrl-C from here on. Before, it ends the process as usual.
pub fn catch() -> Result<(), CliError> {
    ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::Relaxed) {
            leave();
        }
    })
    .map_err(CliError::runtime)
}

/// Lets SIGTERM, SIGHUP and SIGQUIT end the process as they always do, but not before the file that is not finished is
/// removed.
#[cfg(unix)]
pub fn catch_termination() -> Result<(), CliError> {
    use signal_hook::consts::{SIGHUP, SIGQUIT, SIGTERM};
    use signal_hook::{iterator::Signals, low_level};
    // Who starts a program to outlive the terminal has it ignore these.
    let caught = [SIGTERM, SIGHUP, SIGQUIT].into_iter();
    let caught: Vec<i32> = caught.filter(|&signal| !is_ignored(signal)).collect();
    let mut signals = Signals::new(&caught).map_err(CliError::runtime)?;
    let wait = move || {
        for signal in signals.forever() {
            remove_unfinished();
            // It does not return from a signal that ends processes.
            let _ended = low_level::emulate_default_handler(signal);
        }
    };
    let thread = std::thread::Builder::new().name("termination".into());
    thread.spawn(wait).map_err(CliError::runtime)?;
    Ok(())
}

/// Makes a file that grows past the process's limit an error of whoever writes it, where it would end the process.
#[cfg(unix)]
pub fn catch_file_limit() -> Result<(), CliError> {
    let signal = signal_hook::consts::SIGXFSZ;
    let caught = signal_hook::flag::register(signal, Arc::default());
    caught.map(drop).map_err(CliError::runtime)
}

/// Nothing else has such limits.
#[cfg(not(unix))]
pub fn catch_file_limit() -> Result<(), CliError> {
    Ok(())
}

/// Whether the process was started to ignore a signal.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: nothing is changed; a `sigaction` is written, for which there is room, and zeros are one too.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), now.as_mut_ptr());
        now.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// Nothing else ends a process by asking.
#[cfg(not(unix))]
pub fn catch_termination() -> Result<(), CliError> {
    Ok(())
}

/// Catches Ctrl-C from here on for a conversation: during an answer it asks for the answer's end, however often it comes.
/// Between answers it ends the process if `at_once`. Otherwise, where a line editor sees the key itself and this is a file
/// or a template that takes long, or an answer that ended a moment ago, the first says so and the second ends the process.
pub fn catch_in_conversation(at_once: bool) -> Result<(), CliError> {
    ctrlc::set_handler(move || {
        if ANSWERING.load(Ordering::Relaxed) {
            ASKED.store(true, Ordering::Relaxed);
        } else if at_once || LEAVING.swap(true, Ordering::Relaxed) {
            leave();
        } else {
            output::note(false, "(Ctrl-C again ends the conversation)");
        }
    })
    .map_err(CliError::runtime)
}

/// Says whether an answer is being made. What was asked before an answer does not count for it.
pub fn set_answering(answering: bool) {
    if answering {
        ASKED.store(false, Ordering::Relaxed);
    }
    LEAVING.store(false, Ordering::Relaxed);
    ANSWERING.store(answering, Ordering::Relaxed);
}

/// Creates a file that a process which is told to end removes first. Being told waits meanwhile, so that the file does
/// not stay, nor one go that was there before and is not ours.
pub fn create_unfinished(path: &Path) -> io::Result<File> {
    let mut unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    let file = File::create_new(path)?;
    *unfinished = Some(path.to_path_buf());
    Ok(file)
}

/// Says that the file is finished or gone.
pub fn finished() {
    *UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Whether Ctrl-C was pressed.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

fn remove_unfinished() {
    let unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(file) = &*unfinished {
        let _best_effort = std::fs::remove_file(file);
    }
}

fn leave() -> ! {
    remove_unfinished();
    std::process::exit(i32::from(CliError::Interrupted.exit_code()))
}
