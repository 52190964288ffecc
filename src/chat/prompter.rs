//! From a conversation to tokens, for one model.

use jiff::ZonedDateTime;

use super::{ChatError, Message, Role, SpecialTokens, Template, Variables, guard};
use crate::loader::Metadata;
use crate::tokenizer::{Encode, Tokenizer};

const KEY: &str = "tokenizer.chat_template";

/// Templates for models that bring none, by name.
const BUILT_IN: &[(&str, &str)] = &[
    ("chatml", include_str!("templates/chatml.jinja")),
    ("llama2", include_str!("templates/llama2.jinja")),
    ("llama3", include_str!("templates/llama3.jinja")),
    ("mistral", include_str!("templates/mistral.jinja")),
    ("gemma", include_str!("templates/gemma.jinja")),
];

/// The text of a built-in template.
pub fn built_in(name: &str) -> Option<&'static str> {
    let found = BUILT_IN.iter().find(|(known, _)| *known == name);
    found.map(|(_, text)| *text)
}

/// The names of the built-in templates, for people.
pub fn built_in_names() -> String {
    let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

/// A template's text and what errors call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it comes from.
    pub name: String,
    /// The Jinja program.
    pub text: String,
}

impl Source {
    /// The template that a name chooses: one of the model's own named ones (`tokenizer.chat_template.NAME`), or a
    /// built-in one, or `None`, and then the name may be that of a file. Without a name it is the model's template.
    ///
    /// # Errors
    /// [`ChatError::NoTemplate`] if there is no name and the model has none.
    pub fn find(metadata: &Metadata, name: Option<&str>) -> Result<Option<Source>, ChatError> {
        let file = metadata.file().display();
        let key = match name {
            None => KEY.to_string(),
            Some(name) => format!("{KEY}.{name}"),
        };
        let own = metadata.str(&key)?.map(|text| Source {
            name: format!("{file}: {key}"),
            text: text.to_string(),
        });
        match (own, name) {
            (Some(own), _) => Ok(Some(own)),
            (None, Some(name)) => Ok(built_in(name).map(|text| Source {
                name: format!("template {name}"),
                text: text.to_string(),
            })),
            (None, None) => Err(ChatError::NoTemplate {
                model: file.to_string(),
                built_in: built_in_names(),
            }),
        }
    }
}

/// A template and the tokenizer that its text is for.
pub struct Prompter<'t> {
    tokenizer: &'t Tokenizer,
    template: Template,
    thinking: Option<bool>,
    /// Spellings that are tokens only where the template writes them.
    guarded: Vec<String>,
    /// The same, of tokens that a model may say and a person may not.
    guarded_from_people: Vec<String>,
    ends: Vec<u32>,
    stops: Vec<String>,
}

impl<'t> Prompter<'t> {
    /// Reads a template for a model. `thinking` is passed to it as `enable_thinking` if it is said; `now` is its date.
    ///
    /// # Errors
    /// [`ChatError::Syntax`].
    pub fn new(
        metadata: &Metadata,
        tokenizer: &'t Tokenizer,
        source: &Source,
        thinking: Option<bool>,
        now: ZonedDateTime,
    ) -> Result<Prompter<'t>, ChatError> {
        let text = |id: Option<u32>| id.map(|id| tokenizer.piece_str(id).into_owned());
        let special = SpecialTokens {
            bos: text(tokenizer.bos()),
            eos: text(tokenizer.eos()),
            unknown: text(metadata.u32("tokenizer.ggml.unknown_token_id")?),
            padding: text(tokenizer.padding()),
        };
        let template = Template::new(&source.name, &source.text, special, now)?;
        let (mut guarded, mut guarded_from_people) = (Vec::new(), Vec::new());
        for (id, spelling) in tokenizer.whole_tokens() {
            let structure = source.text.contains(spelling) && !spelling.trim().is_empty();
            if tokenizer.is_special(id) {
                guarded.push(spelling.to_string());
            } else if structure {
                guarded_from_people.push(spelling.to_string());
            }
        }
        let mut prompter = Prompter {
            tokenizer,
            template,
            thinking,
            guarded,
            guarded_from_people,
            ends: Vec::new(),
            stops: Vec::new(),
        };
        prompter.learn_end_of_turn();
        Ok(prompter)
    }

    /// The template.
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// Whether every conversation begins with the BOS token.
    pub fn adds_bos(&self) -> bool {
        self.tokenizer.adds_bos() && self.tokenizer.bos().is_some()
    }

    /// The token that the template writes after an answer, if it writes one: an answer ends there as well as at the
    /// tokenizer's own [`end_of_generation`](Tokenizer::end_of_generation).
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The mark that the template writes after an answer, if the vocabulary has no token for it: a model that says it
    /// has come to its end.
    pub fn stops(&self) -> &[String] {
        &self.stops
    }

    /// The text of a conversation, up to where the model's answer begins if `answer`.
    ///
    /// # Errors
    /// [`ChatError::Raised`] and [`ChatError::Render`].
    pub fn render(&self, messages: &[Message], answer: bool) -> Result<String, ChatError> {
        let thinking = self.thinking;
        self.template
            .render(messages, Variables { answer, thinking })
    }

    /// The tokens of a conversation. Special tokens are those that the template writes; the BOS token is put in front
    /// if the model wants one and the template wrote none.
    ///
    /// # Errors
    /// As [`Prompter::render`], and [`ChatError::Tokenizer`].
    pub fn tokens(&self, messages: &[Message], answer: bool) -> Result<Vec<u32>, ChatError> {
        fn borrow(list: &[String]) -> Vec<&str> {
            list.iter().map(String::as_str).collect()
        }
        let (messages, guard) = guard(
            messages,
            &borrow(&self.guarded),
            &borrow(&self.guarded_from_people),
            self.template.source(),
        );
        let text = self.render(&messages, answer)?;
        let options = Encode {
            special: true,
            bos: false,
        };
        let mut tokens = self
            .tokenizer
            .encode_guarded(&text, guard.pairs(), options)?;
        let bos = self.tokenizer.bos().filter(|_| self.adds_bos());
        if let Some(bos) = bos
            && tokens.first() != Some(&bos)
        {
            tokens.insert(0, bos);
        }
        Ok(tokens)
    }

    /// Looks at what the template writes after an answer.
    fn learn_end_of_turn(&mut self) {
        const ANSWER: &str = "answer-0a7f";
        let turn = [
            Message::new(Role::User, "question"),
            Message::new(Role::Assistant, ANSWER),
        ];
        // A template that cannot render so little says so when there is more.
        let Ok(text) = self.render(&turn, false) else {
            return;
        };
        let Some(at) = text.rfind(ANSWER) else {
            return;
        };
        let rest = text[at + ANSWER.len()..].trim_start();
        let Some(length) = mark(rest) else {
            return;
        };
        let mark = &rest[..length];
        match self.tokenizer.token(mark) {
            Some(id) if self.tokenizer.is_special(id) => self.ends.push(id),
            _ => self.stops.push(mark.to_string()),
        }
    }
}

/// The length of the mark in brackets that `text` begins with, such as `<|im_end|>` or `[/INST]`.
fn mark(text: &str) -> Option<usize> {
    let close = match text.chars().next()? {
        '<' => '>',
        '[' => ']',
        _ => return None,
    };
    let length = text.find(close)? + 1;
    let plain = text[..length].chars().all(|c| !c.is_whitespace());
    (plain && length > 2).then_some(length)
}
