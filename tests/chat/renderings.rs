//! Every rendering of `tests/fixtures/chat` equals the one of Hugging Face's `apply_chat_template`.

use std::fs;
use std::path::PathBuf;

use greta_infer::chat::{ChatError, Message, SpecialTokens, Template, Variables};
use jiff::civil::DateTime;
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    now: String,
    conversations: Vec<Vec<Message>>,
    renderings: Vec<Rendering>,
}

#[derive(Deserialize)]
struct Rendering {
    template: String,
    special: Special,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Special {
    bos: Option<String>,
    eos: Option<String>,
    unknown: Option<String>,
    padding: Option<String>,
}

#[derive(Deserialize)]
struct Case {
    conversation: usize,
    answer: bool,
    thinking: Option<bool>,
    text: Option<String>,
    error: Option<String>,
    /// The class of Python's exception.
    kind: Option<String>,
}

/// The fixtures, or a folder of others that `make_chat_fixtures.py FOLDER` has rendered.
fn folder() -> PathBuf {
    let other = std::env::var_os("GRETA_CHAT_FIXTURES").map(PathBuf::from);
    other.unwrap_or_else(|| PathBuf::from("tests/fixtures/chat"))
}

#[test]
fn templates_render_as_in_transformers() {
    let folder = folder();
    let json = fs::read_to_string(folder.join("renderings.json")).expect("the fixture");
    let fixture: Fixture = serde_json::from_str(&json).expect("the fixture's form");
    let now: DateTime = fixture.now.parse().expect("a date");
    let now = now.in_tz("UTC").expect("a time zone");
    let (mut compared, mut wrong) = (0, Vec::new());
    for rendering in &fixture.renderings {
        let name = &rendering.template;
        let path = folder.join(format!("templates/{name}.jinja"));
        let source = fs::read_to_string(path).expect("the template");
        let special = &rendering.special;
        let special = SpecialTokens {
            bos: special.bos.clone(),
            eos: special.eos.clone(),
            unknown: special.unknown.clone(),
            padding: special.padding.clone(),
        };
        let template = match Template::new(name, &source, special, now.clone()) {
            Ok(template) => template,
            Err(error) => {
                wrong.push(error.to_string());
                continue;
            }
        };
        for case in &rendering.cases {
            let messages = &fixture.conversations[case.conversation];
            let variables = Variables {
                answer: case.answer,
                thinking: case.thinking,
            };
            let rendered = template.render(messages, variables);
            compared += 1;
            if let Some(problem) = difference(case, &rendered) {
                wrong.push(format!(
                    "{name}, conversation {}: {problem}",
                    case.conversation
                ));
            }
        }
    }
    println!("{compared} renderings compared");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared >= fixture.renderings.len());
}

fn difference(case: &Case, rendered: &Result<String, ChatError>) -> Option<String> {
    match (&case.text, rendered) {
        (Some(expected), Ok(text)) if expected == text => None,
        (Some(expected), Ok(found)) => {
            let same = expected
                .chars()
                .zip(found.chars())
                .take_while(|(a, b)| a == b);
            let from = same.map(|(c, _)| c.len_utf8()).sum::<usize>();
            let part = |text: &str| text[from..].chars().take(60).collect::<String>();
            let (expected, found) = (part(expected), part(found));
            Some(format!(
                "from byte {from} on expected {expected:?}, found {found:?}"
            ))
        }
        (Some(_), Err(error)) => Some(error.to_string()),
        // What the template says itself is said in its own words; what the engine says is the engine's affair.
        (None, Err(ChatError::Raised { message, line, .. })) => {
            let expected = case.error.as_ref();
            (expected != Some(message) || *line == 0)
                .then(|| format!("found {message:?} at {line}"))
        }
        (None, Err(ChatError::Render { .. })) if case.kind.as_deref() != Some("TemplateError") => {
            None
        }
        (None, found) => Some(format!("expected {:?}, found {found:?}", case.error)),
    }
}
