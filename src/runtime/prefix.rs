//! What of a new prompt a session already holds.
//!
//! A position of the cache depends on the tokens up to it and on nothing else, so a prompt that begins with the tokens
//! the cache holds needs only the rest computed. Tokens are compared one by one; nothing is assumed of how the prompt was
//! made.

use super::Session;

impl Session {
    /// The tokens of the sequence, one for each position that is filled.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Forgets everything but what the sequence and `prompt` have in common from the beginning on, and returns how many
    /// tokens that is. The last token of `prompt` is not among them: it has to be computed for the logits after it.
    pub fn keep_prefix(&mut self, prompt: &[u32]) -> usize {
        let most = prompt.len().saturating_sub(1);
        let same = self.tokens.iter().zip(&prompt[..most]);
        let kept = same.take_while(|(held, new)| held == new).count();
        self.truncate(kept as u32);
        kept
    }
}
