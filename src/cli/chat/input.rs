//! Where entries come from: a line editor at a terminal, lines otherwise.

use std::cell::Cell;
use std::io::{self, BufRead, IsTerminal};

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Editor, Helper};

use super::super::error::CliError;

const QUOTES: &str = "\"\"\"";

/// One entry, possibly of several lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What was entered, without quotes and line-continuing backslashes.
    pub text: String,
    /// Whether it was quoted.
    pub quoted: bool,
}

/// What happened at the prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Entry(Entry),
    /// Something that cannot be an entry, and why; the next one may be.
    Unreadable(String),
    /// Ctrl-C at an empty prompt, for the first time.
    AskedToLeave,
    /// No more entries come.
    End,
}

/// Whether lines so far are an entry.
pub fn is_complete(text: &str) -> bool {
    match text.trim_start().strip_prefix(QUOTES) {
        Some(rest) => rest.trim_end().ends_with(QUOTES),
        None => {
            let slashes = text.bytes().rev().take_while(|&byte| byte == b'\\').count();
            slashes % 2 == 0
        }
    }
}

/// The entry that lines are.
pub fn entry(text: &str) -> Entry {
    if let Some(rest) = text.trim_start().strip_prefix(QUOTES) {
        let rest = rest.trim_end();
        let inner = rest.strip_suffix(QUOTES).unwrap_or(rest);
        // The lines of the quotes themselves say nothing if nothing else is on them.
        let inner = inner.strip_prefix('\n').unwrap_or(inner);
        let inner = inner.strip_suffix('\n').unwrap_or(inner);
        return Entry {
            text: inner.to_string(),
            quoted: true,
        };
    }
    let text = text.replace("\\\n", "\n");
    Entry {
        text: text.trim_end_matches('\n').to_string(),
        quoted: false,
    }
}

/// Where entries come from.
pub enum Input {
    Terminal(Box<Editor<Rules, MemHistory>>),
    Lines,
}

/// What the line editor asks about a line.
#[derive(Debug, Default)]
pub struct Rules {
    /// Whether the line was empty when it was last drawn.
    empty: Cell<bool>,
}

impl Input {
    /// A line editor if both ends are a terminal.
    pub fn new() -> Result<Input, CliError> {
        if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
            return Ok(Input::Lines);
        }
        let config = rustyline::Config::builder()
            .auto_add_history(true)
            .bracketed_paste(true)
            .build();
        let editor = Editor::with_history(config, MemHistory::new());
        let mut editor = editor.map_err(CliError::runtime)?;
        editor.set_helper(Some(Rules::default()));
        Ok(Input::Terminal(Box::new(editor)))
    }

    /// Whether a person sits there.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Input::Terminal(_))
    }

    /// The next entry.
    pub fn next(&mut self) -> Result<Event, CliError> {
        match self {
            Input::Terminal(editor) => from_editor(editor),
            Input::Lines => from_lines(&mut io::stdin().lock()),
        }
    }
}

fn from_editor(editor: &mut Editor<Rules, MemHistory>) -> Result<Event, CliError> {
    if let Some(rules) = editor.helper() {
        rules.empty.set(true);
    }
    match editor.readline("> ") {
        Ok(text) => Ok(Event::Entry(entry(&text))),
        Err(ReadlineError::Eof) => Ok(Event::End),
        Err(ReadlineError::Interrupted) => {
            let empty = editor.helper().is_none_or(|rules| rules.empty.get());
            Ok(match empty {
                true => Event::AskedToLeave,
                false => Event::Entry(entry("")),
            })
        }
        Err(error) => match error {
            // Bytes that are no text end the line; the terminal itself is well.
            ReadlineError::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                Ok(Event::Unreadable("what was typed is not UTF-8 text".into()))
            }
            error => Err(CliError::runtime(error)),
        },
    }
}

/// Reads lines until they are an entry. An entry with a byte that is no UTF-8 is lost, but not those after it.
fn from_lines(lines: &mut impl BufRead) -> Result<Event, CliError> {
    let (mut bytes, mut wrong) = (Vec::new(), None);
    loop {
        let begin = bytes.len();
        let read = lines.read_until(b'\n', &mut bytes);
        let count =
            read.map_err(|e| CliError::Runtime(format!("cannot read standard input: {e}")))?;
        if bytes[begin..].ends_with(b"\r\n") {
            bytes.truncate(bytes.len() - 2);
            bytes.push(b'\n');
        }
        if let Err(error) = std::str::from_utf8(&bytes[begin..]) {
            let at = error.valid_up_to();
            wrong.get_or_insert(format!("not UTF-8 text: bad byte {} of a line", at + 1));
        }
        let text = String::from_utf8_lossy(&bytes);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let ended = count == 0;
        if ended && text.is_empty() {
            return Ok(Event::End);
        }
        if ended || is_complete(text) {
            return Ok(match wrong {
                Some(why) => Event::Unreadable(why),
                None => Event::Entry(entry(text)),
            });
        }
    }
}

impl Validator for Rules {
    fn validate(&self, ctx: &mut ValidationContext) -> rustyline::Result<ValidationResult> {
        Ok(match is_complete(ctx.input()) {
            true => ValidationResult::Valid(None),
            false => ValidationResult::Incomplete,
        })
    }
}

impl Hinter for Rules {
    type Hint = String;

    /// No hint, but the place where the line is seen each time that it changes.
    fn hint(&self, line: &str, _: usize, _: &Context<'_>) -> Option<String> {
        self.empty.set(line.is_empty());
        None
    }
}

impl Completer for Rules {
    type Candidate = String;
}

impl Highlighter for Rules {}

impl Helper for Rules {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_entries() {
        let check = |input: &[u8], expected: &[Result<(&str, bool), &str>]| {
            let mut lines = input;
            let mut found = Vec::new();
            loop {
                match from_lines(&mut lines).expect("a slice can be read") {
                    Event::Entry(entry) => found.push(Ok((entry.text, entry.quoted))),
                    Event::Unreadable(why) => found.push(Err(why)),
                    Event::AskedToLeave => unreachable!(),
                    Event::End => break,
                }
            }
            let found: Vec<_> = found
                .iter()
                .map(|entry| match entry {
                    Ok((text, quoted)) => Ok((text.as_str(), *quoted)),
                    Err(why) => Err(why.as_str()),
                })
                .collect();
            assert_eq!(found, expected, "{}", input.escape_ascii());
        };
        check(b"", &[]);
        check(b"one\ntwo", &[Ok(("one", false)), Ok(("two", false))]);
        check(
            b"one\r\n\ntwo\n",
            &[Ok(("one", false)), Ok(("", false)), Ok(("two", false))],
        );
        check(
            b"a\\\nb\\\nc\nd\n",
            &[Ok(("a\nb\nc", false)), Ok(("d", false))],
        );
        check(b"C:\\\\\nx\n", &[Ok(("C:\\\\", false)), Ok(("x", false))]);
        check(
            b"\"\"\"\nx \\\n\n /y\n\"\"\"\nz\n",
            &[Ok(("x \\\n\n /y", true)), Ok(("z", false))],
        );
        check(b"\"\"\"one\"\"\"\n", &[Ok(("one", true))]);
        check(b"\"\"\"open\nend", &[Ok(("open\nend", true))]);
        check(b"ends\\", &[Ok(("ends\\", false))]);
        let bad = Err("not UTF-8 text: bad byte 3 of a line");
        check(b"ab\xff\nfine\n", &[bad, Ok(("fine", false))]);
        check(
            b"\"\"\"\nab\xff\nx\n\"\"\"\nfine\n",
            &[bad, Ok(("fine", false))],
        );
    }
}
