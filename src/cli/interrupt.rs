//! Ctrl-C: the first asks for an end after the current token, the second ends the process. In a conversation it ends an
//! answer, never the conversation.

use std::sync::atomic::{AtomicBool, Ordering};

use super::error::CliError;

static ASKED: AtomicBool = AtomicBool::new(false);
static ANSWERING: AtomicBool = AtomicBool::new(false);

/// Catches Ctrl-C from here on. Before, it ends the process as usual.
pub fn catch() -> Result<(), CliError> {
    ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::Relaxed) {
            leave();
        }
    })
    .map_err(CliError::runtime)
}

/// Catches Ctrl-C from here on for a conversation: during an answer it asks for the answer's end, however often it comes.
/// Between answers it ends the process if `leaves`; a line editor sees the key itself.
pub fn catch_in_conversation(leaves: bool) -> Result<(), CliError> {
    ctrlc::set_handler(move || {
        if ANSWERING.load(Ordering::Relaxed) {
            ASKED.store(true, Ordering::Relaxed);
        } else if leaves {
            leave();
        }
    })
    .map_err(CliError::runtime)
}

/// Says whether an answer is being made. What was asked before an answer does not count for it.
pub fn set_answering(answering: bool) {
    if answering {
        ASKED.store(false, Ordering::Relaxed);
    }
    ANSWERING.store(answering, Ordering::Relaxed);
}

/// Whether Ctrl-C was pressed.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

fn leave() -> ! {
    std::process::exit(i32::from(CliError::Interrupted.exit_code()))
}
