//! What a person may enter: something to say, or a command.

use std::path::PathBuf;

use super::super::config::resolve;
use super::input::Entry;

/// The commands, with what they do.
const COMMANDS: &[(&str, &str)] = &[
    (
        "/system [TEXT]",
        "set the system message; \"\" removes it, nothing shows it",
    ),
    ("/reset", "forget what was said, but not the system message"),
    ("/save FILE", "write the conversation as JSON"),
    ("/load FILE", "go on with a conversation that was saved"),
    ("/stats", "speed, context, what was reused"),
    ("/help", "this list"),
    ("/exit", "leave, as Ctrl-D does"),
];

/// An entry that has been understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Say(String),
    ShowSystem,
    SetSystem(Option<String>),
    Reset,
    Save(PathBuf),
    Load(PathBuf),
    Stats,
    Help,
    Exit,
    /// Nothing: an empty line.
    Nothing,
    /// Nothing that is known, and why.
    Wrong(String),
}

impl Command {
    /// Understands an entry. Only an entry that was not quoted and begins with `/` is a command.
    pub fn parse(entry: Entry) -> Command {
        let text = entry.text;
        if text.trim().is_empty() {
            return Command::Nothing;
        }
        if entry.quoted || !text.starts_with('/') {
            return Command::Say(text);
        }
        let (name, rest) = match text.split_once(char::is_whitespace) {
            Some((name, rest)) => (name, rest.trim()),
            None => (text.trim_end(), ""),
        };
        let path = |command: fn(PathBuf) -> Command| match rest {
            "" => Command::Wrong(format!("{name} needs a file: {name} FILE")),
            path => command(resolve("".as_ref(), path)),
        };
        let alone = |command: Command| match rest {
            "" => command,
            _ => Command::Wrong(format!("{name} takes nothing after it")),
        };
        match name {
            "/system" if rest.is_empty() => Command::ShowSystem,
            "/system" if rest == "\"\"" => Command::SetSystem(None),
            "/system" => Command::SetSystem(Some(rest.to_string())),
            "/save" => path(Command::Save),
            "/load" => path(Command::Load),
            "/reset" => alone(Command::Reset),
            "/stats" => alone(Command::Stats),
            "/help" => alone(Command::Help),
            "/exit" => alone(Command::Exit),
            _ => {
                let known: Vec<&str> = COMMANDS.iter().map(|(form, _)| word(form)).collect();
                Command::Wrong(format!(
                    "unknown command {name}; there are {} (quote with \"\"\" to say it)",
                    known.join(", ")
                ))
            }
        }
    }
}

fn word(form: &str) -> &str {
    form.split(' ').next().unwrap_or(form)
}

/// The text of `/help`.
pub fn help() -> String {
    let mut text = String::new();
    for (form, what) in COMMANDS {
        text.push_str(&format!("{form:<16}{what}\n"));
    }
    text.push_str(
        "A line that ends in \\ goes on in the next; \"\"\" begins text that goes on to the next \"\"\", taken as it \
         stands. Ctrl-C stops an answer; what was said of it stays. Ctrl-D, or Ctrl-C twice at an empty prompt, leaves.",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_understood() {
        let check = |text: &str, expected: Command| {
            let entry = Entry {
                text: text.to_string(),
                quoted: false,
            };
            assert_eq!(Command::parse(entry), expected, "{text:?}");
        };
        check("hello", Command::Say("hello".into()));
        check(" /reset", Command::Say(" /reset".into()));
        check("", Command::Nothing);
        check(" \n\t", Command::Nothing);
        check("/reset", Command::Reset);
        check("/reset  ", Command::Reset);
        check("/stats", Command::Stats);
        check("/help", Command::Help);
        check("/exit", Command::Exit);
        check("/system", Command::ShowSystem);
        check("/system \"\"", Command::SetSystem(None));
        let text = "Be\nterse.";
        check(
            &format!("/system {text}"),
            Command::SetSystem(Some(text.into())),
        );
        check("/save a b.json", Command::Save("a b.json".into()));
        check("/load x", Command::Load("x".into()));
        let wrong = |text: &str, part: &str| {
            let entry = Entry {
                text: text.to_string(),
                quoted: false,
            };
            match Command::parse(entry) {
                Command::Wrong(why) => assert!(why.contains(part), "{why}"),
                other => panic!("{text:?}: {other:?}"),
            }
        };
        wrong("/save", "/save FILE");
        wrong("/reset now", "nothing after it");
        wrong(
            "/quit",
            "unknown command /quit; there are /system, /reset, /save",
        );
        wrong("/", "unknown command /;");
        let quoted = Entry {
            text: "/reset".to_string(),
            quoted: true,
        };
        assert_eq!(Command::parse(quoted), Command::Say("/reset".into()));
    }
}
