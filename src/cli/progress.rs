//! Progress on standard error: bars if it is a terminal, and nothing otherwise.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Makes bars, or silence.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    quiet: bool,
    shown: bool,
}

impl Progress {
    /// Shows progress if standard error is a terminal and `quiet` was not asked for.
    pub fn new(quiet: bool) -> Self {
        Self {
            quiet,
            shown: !quiet && std::io::stderr().is_terminal(),
        }
    }

    /// Whether lines for people belong on standard error, be it a terminal or not.
    pub fn is_wanted(&self) -> bool {
        !self.quiet
    }

    /// Shows nothing.
    pub fn hidden() -> Self {
        Self {
            quiet: true,
            shown: false,
        }
    }

    /// A bar that counts bytes up to `total`.
    pub fn bytes(&self, message: &str, total: u64) -> Bar {
        const FORM: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        self.bar(
            message,
            ProgressBar::with_draw_target(Some(total), self.target()),
            FORM,
        )
    }

    /// A bar that counts steps up to `total`.
    pub fn steps(&self, message: &str, total: u64) -> Bar {
        const FORM: &str = "{msg} {wide_bar} {pos}/{len} {eta}";
        self.bar(
            message,
            ProgressBar::with_draw_target(Some(total), self.target()),
            FORM,
        )
    }

    /// Something that turns while the end is not known. It may take long, so without a terminal the message is one
    /// plain line.
    pub fn spinner(&self, message: &str) -> Bar {
        if !self.shown {
            super::output::note(self.quiet, message);
        }
        let bar = ProgressBar::with_draw_target(None, self.target());
        let bar = self.bar(message, bar, "{spinner} {msg} {bytes} {elapsed}");
        if self.shown {
            bar.0.enable_steady_tick(Duration::from_millis(100));
        }
        bar
    }

    fn bar(&self, message: &str, bar: ProgressBar, form: &str) -> Bar {
        if self.shown {
            let style = ProgressStyle::with_template(form);
            bar.set_style(style.expect("the templates of this file are well formed"));
            bar.set_message(message.to_string());
        }
        Bar(bar)
    }

    fn target(&self) -> ProgressDrawTarget {
        if self.shown {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        }
    }
}

/// One bar; it goes away when dropped.
#[derive(Debug)]
pub struct Bar(ProgressBar);

impl Bar {
    /// Moves on by `count`.
    pub fn add(&self, count: u64) {
        self.0.inc(count);
    }

    /// Moves to `done` bytes or steps.
    pub fn set_bytes(&self, done: u64) {
        self.0.set_position(done);
    }

    /// Moves to `done`, and the end to `total`.
    pub fn set(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
