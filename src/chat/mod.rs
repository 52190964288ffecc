//! Conversations: a model's chat template, and what it makes of a list of messages.
//!
//! A [`Template`] is the Jinja program that came with a model (`tokenizer.chat_template`), one of the [`built_in`] ones,
//! or a file. It renders messages as Hugging Face's `apply_chat_template` does (`tests/chat/renderings.rs` compares them). A
//! [`Prompter`] joins it with the model's tokenizer and turns a [`Conversation`] into tokens.
//!
//! # Text that looks like structure
//!
//! A template writes special tokens as text, `<|im_end|>` for example, and the whole rendering is tokenized at once, so
//! that words merge across the borders of a message as they did in training. What a person typed must not become such a
//! token. Tokenizing messages apart from the template would break those merges, and the borders are not even known after
//! a template has trimmed, split or quoted a message. Therefore [`guard()`] replaces, before rendering, the first
//! character of every special token's spelling in a message by a private-use character that occurs nowhere else in the
//! conversation or the template. It is one character for one, so the template's string functions see the same lengths
//! and the same white space. After rendering, special tokens are cut out of the text, which the guarded spellings no
//! longer are; then the stand-ins become what they stood for, and the pieces are encoded. The tokens are those of the
//! plain rendering, except that no special token comes from a message (`tests/chat/prompts.rs`).
//!
//! Where a family's marks are plain text (Llama 2's `[INST]`), no tokenizer can tell them from the same text in a
//! message.
//!
//! This room reads no file and no clock: texts and the date are given to it.

mod conversation;
mod error;
mod guard;
mod prompter;
mod python;
mod sampling;
mod slide;
mod template;

pub use conversation::{Conversation, Message, Role, Turn};
pub use error::ChatError;
pub use guard::{Guard, guard};
pub use prompter::{Prompter, Source, built_in, built_in_names};
pub use sampling::recommended;
pub use slide::{Fitted, drop_pieces, fit};
pub use template::{SpecialTokens, Template, Variables};
