//! Ctrl-C: the first asks for an end after the current token, the second ends the process.

use std::sync::atomic::{AtomicBool, Ordering};

use super::error::CliError;

static ASKED: AtomicBool = AtomicBool::new(false);

/// Catches Ctrl-C from here on. Before, it ends the process as usual.
pub fn catch() -> Result<(), CliError> {
    ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(CliError::Interrupted.exit_code()));
        }
    })
    .map_err(CliError::runtime)
}

/// Whether Ctrl-C was pressed.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}
