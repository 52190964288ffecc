//! Standard output without panics: a reader that has gone ends the command quietly.

use std::io::{self, Write};

use serde::Serialize;

use super::error::CliError;

/// Writes `text` and flushes, so that it is seen at once.
pub fn text(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(CliError::output)
}

/// Writes one JSON object and a newline.
pub fn json(value: &impl Serialize) -> Result<(), CliError> {
    let mut line = serde_json::to_string(value).map_err(CliError::runtime)?;
    line.push('\n');
    text(&line)
}

/// Writes a line of statistics to standard error, unless `quiet`. It is a courtesy: a closed standard error is ignored.
pub fn note(quiet: bool, line: &str) {
    if !quiet {
        let _nobody = writeln!(io::stderr(), "{line}");
    }
}

/// `text` with its control characters escaped: what a file says of itself neither moves a terminal's cursor nor looks like
/// a line of ours.
pub fn printable(text: &str) -> String {
    let escape = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(escape).collect()
}

/// A rate, or nothing if no time passed: JSON has no infinity.
pub fn per_second(count: f64, seconds: f64) -> Option<f64> {
    (seconds > 0.0).then(|| count / seconds)
}

/// A number with a sensible number of digits, or `-`.
pub fn figure(value: Option<f64>) -> String {
    match value {
        None => "-".to_string(),
        Some(value) if value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

/// A number of bytes for people.
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return if unit == "B" {
                format!("{count} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}
