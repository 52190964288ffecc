//! One chat template: a Jinja program, run as Hugging Face runs it.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::thread;

use jiff::ZonedDateTime;
use jiff::fmt::strtime::{BrokenDownTime, Config, PosixCustom};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, ErrorKind};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::{ChatError, Message, python};

/// What a template may compute: instructions of the engine's. A message takes a hundred or so.
const FUEL: u64 = 5_000_000;

/// Bytes of a template; those that models bring have up to 20,000.
const LONGEST: usize = 1 << 16;

/// Bytes of stack that reading and rendering get: the engine calls itself for each operand of a long expression and each
/// layer of a deep value, of which [`LONGEST`] and [`FUEL`] leave so many. Only what is used is ever there.
const STACK: usize = 1 << 29;

/// The texts of the special tokens that templates name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// `bos_token`.
    pub bos: Option<String>,
    /// `eos_token`.
    pub eos: Option<String>,
    /// `unk_token`.
    pub unknown: Option<String>,
    /// `pad_token`.
    pub padding: Option<String>,
}

/// What a rendering depends on besides the messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    /// `add_generation_prompt`: whether the text ends where the model's answer begins.
    pub answer: bool,
    /// `enable_thinking`; undefined unless said.
    pub thinking: Option<bool>,
}

/// A template that has been read.
///
/// The environment is that of `transformers`: `trim_blocks`, `lstrip_blocks`, loop controls, `raise_exception`,
/// `strftime_now`, its `tojson`, Python's methods of strings, lists and dicts, and `generation` blocks, which render as
/// their content. `tools` and `documents` are none. Instructions and the depth of calls are bounded; memory is not.
pub struct Template {
    environment: Environment<'static>,
    name: String,
    source: String,
    special: SpecialTokens,
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({}, {} bytes)", self.name, self.source.len())
    }
}

/// A template's own words, on their way through the engine's error.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Raised {}

impl Template {
    /// Reads `source`. `name` is what errors call it; `now` is the date that `strftime_now` gives, the same for a whole
    /// conversation so that its beginning does not change.
    ///
    /// # Errors
    /// [`ChatError::Syntax`].
    pub fn new(
        name: &str,
        source: &str,
        special: SpecialTokens,
        now: ZonedDateTime,
    ) -> Result<Template, ChatError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.expect("the delimiters are the usual ones"));
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_debug(false);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.set_formatter(|out, _, value| Ok(out.write_str(&python::display(value))?));
        environment.add_filter("tojson", python::tojson);
        environment.add_filter("string", |value: Value| python::display(&value));
        environment.add_test("iterable", python::is_iterable);
        environment.add_function("cycler", minijinja_contrib::globals::cycler);
        environment.add_function("joiner", minijinja_contrib::globals::joiner);
        environment.add_function("raise_exception", raise);
        environment.add_function("strftime_now", move |format: String| {
            let (mut text, names) = (String::new(), Config::new().custom(PosixCustom::new()));
            match BrokenDownTime::from(&now).format_with_config(&names, &format, &mut text) {
                Ok(()) => Ok(text),
                Err(error) => {
                    let message = format!("strftime_now({format:?}): {error}");
                    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
                }
            }
        });
        if source.len() > LONGEST {
            return Err(ChatError::Syntax {
                name: name.to_string(),
                line: 1,
                message: format!("it has {} bytes, of {LONGEST} at most", source.len()),
            });
        }
        let source_text = without_generation(source);
        let added = deep(|| environment.add_template_owned(NAME, source_text));
        added.map_err(|error| ChatError::Syntax {
            name: name.to_string(),
            line: error.line().unwrap_or(1),
            message: message(&error),
        })?;
        Ok(Template {
            environment,
            name: name.to_string(),
            source: source.to_string(),
            special,
        })
    }

    /// What errors call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The program's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text of a conversation.
    ///
    /// # Errors
    /// [`ChatError::Raised`] and [`ChatError::Render`].
    pub fn render(&self, messages: &[Message], variables: Variables) -> Result<String, ChatError> {
        let template = self.environment.get_template(NAME);
        let template = template.expect("the template was added when this was made");
        let message = |message: &Message| {
            let pairs = [("role", message.role.name()), ("content", &message.content)];
            Value::from_pairs(pairs)
        };
        let messages: Vec<Value> = messages.iter().map(message).collect();
        let special = &self.special;
        let text = |text: &Option<String>| text.as_deref().map(Value::from);
        let variables = [
            ("messages", Some(messages.into())),
            ("add_generation_prompt", Some(variables.answer.into())),
            ("tools", Some(().into())),
            ("documents", Some(().into())),
            ("enable_thinking", variables.thinking.map(Value::from)),
            ("bos_token", text(&special.bos)),
            ("eos_token", text(&special.eos)),
            ("unk_token", text(&special.unknown)),
            ("pad_token", text(&special.padding)),
        ];
        // Without a value a variable is undefined, which is not the same as none.
        let defined = variables
            .into_iter()
            .filter_map(|(name, v)| Some((name, v?)));
        let context: BTreeMap<&str, Value> = defined.collect();
        deep(|| template.render(context)).map_err(|error| self.failure(&error))
    }

    fn failure(&self, error: &minijinja::Error) -> ChatError {
        let name = self.name.clone();
        let line = error.line().unwrap_or(0);
        let mut cause: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(inner) = cause {
            if let Some(Raised(message)) = inner.downcast_ref() {
                let message = one_line(message);
                return ChatError::Raised {
                    name,
                    line,
                    message,
                };
            }
            cause = inner.source();
        }
        let message = message(error);
        ChatError::Render {
            name,
            line,
            message,
        }
    }
}

/// Calls `work` on a thread with a [`STACK`], or here where the system starts none.
fn deep<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let mut work = Some(work);
    let mut done = None;
    thread::scope(|scope| {
        let (work, done) = (&mut work, &mut done);
        let call = move || *done = work.take().map(|work| work());
        // A panic in it goes on here, when the scope ends.
        let _started = thread::Builder::new()
            .stack_size(STACK)
            .spawn_scoped(scope, call);
    });
    match (done, work) {
        (Some(done), _) => done,
        (None, Some(work)) => work(),
        (None, None) => unreachable!("work that was begun ends, or panics"),
    }
}

/// A name whose ending asks for no escaping.
const NAME: &str = "chat_template.txt";

fn raise(message: String, _: Kwargs) -> Result<Value, minijinja::Error> {
    let error = minijinja::Error::new(ErrorKind::InvalidOperation, message.clone());
    Err(error.with_source(Raised(message)))
}

/// What the engine says, without its own line numbers, for `ChatError` has them.
fn message(error: &minijinja::Error) -> String {
    let kind = error.kind().to_string();
    match error.detail() {
        Some(detail) => one_line(&format!("{kind}: {detail}")),
        None => kind,
    }
}

fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}

/// `source` with `{% generation %}` and `{% endgeneration %}`, which mark a model's own words for training, as a block
/// that has a scope and does nothing else. White space control stays as it is.
fn without_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        out.push_str(before);
        rest = tag;
        let Some(end) = tag.find("%}") else {
            break;
        };
        let inner = &tag[..end];
        let name = inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        if name == "raw" {
            // What follows is text until the tag that ends it, whatever it looks like.
            let end = tag.find("endraw").unwrap_or(tag.len());
            out.push_str(&tag[..end]);
            rest = &tag[end..];
            continue;
        }
        let replaced = match name {
            "generation" => inner.replace("generation", "with"),
            "endgeneration" => inner.replace("endgeneration", "endwith"),
            _ => continue,
        };
        out.push_str(&replaced);
        rest = &tag[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests;
