//! The one error of the command line: what to print and which exit code to leave with.

use std::error::Error;
use std::fmt;
use std::io;

/// Why a command did not succeed. `Display` is one line, whatever the causes contain.
#[derive(Debug)]
pub enum CliError {
    /// The command line asks for something that does not go together (exit code 2).
    Usage(String),
    /// A model, configuration, prompt or file cannot be used (exit code 3).
    Input(String),
    /// Something failed while running (exit code 1).
    Runtime(String),
    /// Ctrl-C; what there was has been printed (exit code 130, no message).
    Interrupted,
    /// Whoever read standard output has gone, as in `| head` (exit code 0, no message).
    OutputClosed,
}

impl CliError {
    /// Bad input, with the causes of `error` appended.
    pub fn input(error: impl Error) -> Self {
        Self::Input(chain(&error))
    }

    /// A failure at run time, with the causes of `error` appended.
    pub fn runtime(error: impl Error) -> Self {
        Self::Runtime(chain(&error))
    }

    /// A failure to write to standard output.
    pub fn output(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::OutputClosed
        } else {
            Self::Runtime(format!("cannot write to standard output: {error}"))
        }
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Runtime(_) => 1,
            Self::Usage(_) => 2,
            Self::Input(_) => 3,
            Self::Interrupted => 130,
        }
    }

    /// Whether there is anything to tell.
    pub fn is_silent(&self) -> bool {
        matches!(self, Self::Interrupted | Self::OutputClosed)
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Input(text) | Self::Runtime(text) => {
                f.write_str(&one_line(text))
            }
            Self::Interrupted => f.write_str("interrupted"),
            Self::OutputClosed => f.write_str("standard output was closed"),
        }
    }
}

impl Error for CliError {}

/// The usage error of clap as one line: its explanation without the usage summary that follows it.
pub fn usage_line(error: &clap::Error) -> CliError {
    let text = error.to_string();
    let explanation = text.split("\nUsage:").next().unwrap_or(&text);
    let explanation = explanation.strip_prefix("error: ").unwrap_or(explanation);
    let explanation = explanation.split("\nFor more information").next();
    // How to pass what begins with a dash as a value is no help where no value is wanted.
    let told: Vec<&str> = explanation
        .unwrap_or(&text)
        .lines()
        .filter(|line| !line.trim_start().starts_with("tip: to pass"))
        .collect();
    CliError::Usage(format!("{} (try --help)", one_line(&told.join("\n"))))
}

/// An error and its causes as one sentence; a cause whose text the outer one already holds is not repeated.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

/// `text` with every run of line breaks and the blanks around it as one space.
pub fn one_line(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn usage_errors_become_one_line() {
        let check = |words: &[&str], expected: &str| {
            let words = std::iter::once("greta_infer").chain(words.iter().copied());
            let error = super::super::args::Cli::try_parse_from(words).unwrap_err();
            let line = usage_line(&error).to_string();
            assert!(line.contains(expected), "{line}");
            assert!(!line.contains('\n') && !line.contains("Usage"), "{line}");
        };
        check(
            &["perplexity"],
            "required arguments were not provided: <FILE>",
        );
        check(&["generate", "x", "--ctx", "0"], "must be at least 1");
        check(
            &["generate", "x", "--tmp", "0"],
            "unexpected argument '--tmp'",
        );
        for number in ["--ctx", "--threads", "--seed", "--top-k", "--max-tokens"] {
            let expected = format!("invalid value '-1' for '{number} <N>'");
            check(&["generate", "x", number, "-1"], &expected);
        }
        check(
            &["info", "m", "-1"],
            "unexpected argument '-1' found (try --help)",
        );
    }

    #[test]
    fn messages_are_one_line() {
        assert_eq!(CliError::Input("a\n  b\n\nc".into()).to_string(), "a b c");
    }
}
