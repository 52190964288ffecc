//! Who said what.

use serde::{Deserialize, Serialize};

use super::ChatError;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions before the conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// As templates and files spell it.
    pub fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

/// One message, as templates see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message of the given role.
    pub fn new(role: Role, content: impl Into<String>) -> Message {
        let content = content.into();
        Message { role, content }
    }
}

/// What the person said and what the model answered, which may be cut short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The person's message.
    pub user: String,
    /// The model's answer.
    pub assistant: String,
}

/// A conversation: perhaps a system message, and turns that are complete. Some of them may be out of the model's sight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    /// The system message.
    pub system: Option<String>,
    turns: Vec<Turn>,
    /// Turns that the model no longer sees because the context was full. The record keeps them.
    hidden: std::ops::Range<usize>,
}

/// The file of `/save`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    messages: Vec<Message>,
}

impl Conversation {
    /// Nothing said yet.
    pub fn new(system: Option<String>) -> Conversation {
        Conversation {
            system,
            ..Conversation::default()
        }
    }

    /// All turns.
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// How many turns the model no longer sees.
    pub fn hidden(&self) -> usize {
        self.hidden.len()
    }

    /// Adds a turn.
    pub fn push(&mut self, user: String, assistant: String) {
        self.turns.push(Turn { user, assistant });
    }

    /// Forgets every turn, but not the system message.
    pub fn reset(&mut self) {
        self.turns.clear();
        self.hidden = 0..0;
    }

    /// Hides one more turn from the model: the oldest that it sees, the first `kept` aside. `false` if there is none.
    pub fn hide_oldest(&mut self, kept: usize) -> bool {
        if self.hidden.is_empty() {
            self.hidden = kept..kept;
        }
        let more = self.hidden.end < self.turns.len();
        self.hidden.end += usize::from(more);
        more
    }

    /// The messages that the model sees, with `pending`, the person's newest, at the end.
    pub fn messages(&self, pending: Option<&str>) -> Vec<Message> {
        let seen = self.turns.iter().enumerate();
        let seen = seen.filter(|(index, _)| !self.hidden.contains(index));
        self.with_system(seen.map(|(_, turn)| turn), pending)
    }

    /// The first messages: the system message and `turns` turns, whether seen or not.
    pub fn beginning(&self, turns: usize) -> Vec<Message> {
        self.with_system(self.turns.iter().take(turns), None)
    }

    fn with_system<'t>(
        &self,
        turns: impl Iterator<Item = &'t Turn>,
        pending: Option<&str>,
    ) -> Vec<Message> {
        let mut messages = Vec::new();
        messages.extend(self.system.iter().map(|s| Message::new(Role::System, s)));
        for turn in turns {
            messages.push(Message::new(Role::User, &turn.user));
            messages.push(Message::new(Role::Assistant, &turn.assistant));
        }
        messages.extend(pending.map(|text| Message::new(Role::User, text)));
        messages
    }

    /// Everything said, as `{"messages": [{"role": …, "content": …}, …]}`.
    pub fn to_json(&self) -> String {
        let messages = self.beginning(self.turns.len());
        let json = serde_json::to_string_pretty(&Saved { messages });
        let mut json = json.expect("strings and lists are always JSON");
        json.push('\n');
        json
    }

    /// The reverse of [`Conversation::to_json`]; the list alone is accepted as well.
    ///
    /// # Errors
    /// [`ChatError::Saved`] for anything but perhaps a system message, then user and assistant in turn.
    pub fn from_json(text: &str) -> Result<Conversation, ChatError> {
        let saved = |error: serde_json::Error| ChatError::Saved(error.to_string());
        let messages = match text.trim_start().starts_with('[') {
            true => serde_json::from_str::<Vec<Message>>(text).map_err(saved)?,
            false => serde_json::from_str::<Saved>(text).map_err(saved)?.messages,
        };
        let mut conversation = Conversation::default();
        let mut user: Option<String> = None;
        for (index, message) in messages.into_iter().enumerate() {
            let wrong = |expected: &str| {
                let found = format!("message {index}: expected {expected}");
                Err(ChatError::Saved(format!(
                    "{found}, found {}",
                    message.role.name()
                )))
            };
            match (message.role, user.take()) {
                (Role::System, None) if index == 0 => conversation.system = Some(message.content),
                (Role::User, None) => user = Some(message.content),
                (Role::Assistant, Some(user)) => conversation.push(user, message.content),
                (_, None) => return wrong("the user's"),
                (_, Some(_)) => return wrong("the assistant's"),
            }
        }
        match user {
            None => Ok(conversation),
            Some(_) => Err(ChatError::Saved(
                "the last message has no answer; it must be the assistant's".into(),
            )),
        }
    }
}
