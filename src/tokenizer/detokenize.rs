//! Tokens to text as they come, never half a character.

use super::{SpacePrefix, Tokenizer};

/// Turns tokens into text one by one.
///
/// A character may be spread over several tokens. Its first bytes are held back until the rest arrives, so every
/// returned `&str` is whole characters; bytes that can belong to no character become U+FFFD. The text returned by all
/// calls together is that of [`Tokenizer::decode`] for the same ids, except for the space described at
/// [`Detokenizer::at_text_start`].
#[derive(Clone)]
pub struct Detokenizer<'t> {
    tokenizer: &'t Tokenizer,
    print_special: bool,
    strip_space: bool,
    /// The beginning of a character, at most three bytes, and then the newest token's bytes.
    pending: Vec<u8>,
    text: String,
}

impl<'t> Detokenizer<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer) -> Detokenizer<'t> {
        let longest = tokenizer.pieces.longest() + 4;
        Detokenizer {
            tokenizer,
            print_special: false,
            strip_space: false,
            pending: Vec::with_capacity(longest),
            // Every byte may become a three-byte U+FFFD.
            text: String::with_capacity(3 * longest),
        }
    }

    /// Whether control and unknown tokens print their text. By default they print nothing.
    pub fn print_special(mut self, print: bool) -> Detokenizer<'t> {
        self.print_special = print;
        self
    }

    /// Declares that the tokens to come begin a text rather than continue one: a SentencePiece vocabulary that put a
    /// space before the text has it removed again.
    pub fn at_text_start(mut self) -> Detokenizer<'t> {
        self.strip_space = self.tokenizer.space_prefix != SpacePrefix::Never;
        self
    }

    /// The text that token `id` completes: whole characters only, possibly none.
    pub fn push(&mut self, id: u32) -> &str {
        self.text.clear();
        if self.print_special || !self.tokenizer.is_special(id) {
            let piece = self.tokenizer.piece(id);
            // No space is put before a token that was recognised as a whole, so none is taken from it.
            let stripped = match piece {
                [b' ', rest @ ..] if self.strip_space && !self.tokenizer.is_whole(id) => rest,
                _ => piece,
            };
            self.strip_space = false;
            self.pending.extend_from_slice(stripped);
            self.release();
        }
        &self.text
    }

    /// The text that is left when no more tokens come: U+FFFD for a character that was never completed, or nothing.
    pub fn finish(&mut self) -> &str {
        self.text.clear();
        if !self.pending.is_empty() {
            // What is held back is one incomplete sequence, which one replacement character stands for.
            self.pending.clear();
            self.text.push(char::REPLACEMENT_CHARACTER);
        }
        &self.text
    }

    /// Moves everything but an incomplete last character from `pending` to `text`.
    fn release(&mut self) {
        let mut done = 0;
        loop {
            let rest = &self.pending[done..];
            let (valid, invalid) = match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.text.push_str(text);
                    self.pending.clear();
                    return;
                }
                Err(error) => (error.valid_up_to(), error.error_len()),
            };
            self.text.push_str(&String::from_utf8_lossy(&rest[..valid]));
            done += valid;
            let Some(len) = invalid else {
                break;
            };
            self.text.push(char::REPLACEMENT_CHARACTER);
            done += len;
        }
        self.pending.drain(..done);
    }
}
