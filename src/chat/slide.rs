//! What goes when the context is full. Positions shift when something in front of them goes, so what stays after the gap
//! has to be computed anew: exactly what a fresh prompt of those tokens would compute.

use super::{ChatError, Conversation, Prompter};

/// A conversation that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fitted {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// How many turns were hidden from the model for it, now.
    pub hidden: usize,
}

/// The tokens of a conversation with the person's newest message and what the model has `said` so far in answer to it.
/// If they leave no room for another in `context` tokens, the oldest turns are hidden, whole, until a quarter of the
/// context is free. The system message stays, and so do turns that begin within the first `keep` tokens. `None` if
/// hiding all the others is not enough.
///
/// # Errors
/// As [`Prompter::tokens`].
pub fn fit(
    prompter: &Prompter,
    conversation: &mut Conversation,
    pending: &str,
    said: &[u32],
    context: usize,
    keep: usize,
) -> Result<Option<Fitted>, ChatError> {
    let tokens = |conversation: &Conversation| -> Result<Vec<u32>, ChatError> {
        let mut tokens = prompter.tokens(&conversation.messages(Some(pending)), true)?;
        tokens.extend_from_slice(said);
        Ok(tokens)
    };
    let mut fitted = Fitted {
        tokens: tokens(conversation)?,
        hidden: 0,
    };
    if fitted.tokens.len() < context {
        return Ok(Some(fitted));
    }
    let mut shorter = conversation.clone();
    let kept = kept_turns(prompter, conversation, keep)?;
    while fitted.tokens.len() > context - context / 4 && shorter.hide_oldest(kept) {
        fitted.tokens = tokens(&shorter)?;
        fitted.hidden += 1;
    }
    let fits = fitted.tokens.len() < context;
    if fits {
        *conversation = shorter;
    }
    Ok(fits.then_some(fitted))
}

/// How many turns begin within the first `keep` tokens.
fn kept_turns(
    prompter: &Prompter,
    conversation: &Conversation,
    keep: usize,
) -> Result<usize, ChatError> {
    for turn in 0..conversation.turns().len() {
        let before = conversation.beginning(turn);
        let begin = match before.is_empty() {
            true => 0,
            false => prompter.tokens(&before, false)?.len(),
        };
        if begin >= keep {
            return Ok(turn);
        }
    }
    Ok(conversation.turns().len())
}

/// The first `keep` tokens and the newest half of the rest that `context` tokens leave room for.
///
/// # Panics
/// When `keep` leaves no room for two tokens more.
pub fn drop_pieces(tokens: &[u32], keep: usize, context: usize) -> Vec<u32> {
    assert!(
        keep.saturating_add(2) <= context,
        "{keep} kept of {context}"
    );
    let keep = keep.min(tokens.len());
    let newest = ((context - keep) / 2).min(tokens.len() - keep);
    let mut out = Vec::with_capacity(context);
    out.extend_from_slice(&tokens[..keep]);
    out.extend_from_slice(&tokens[tokens.len() - newest..]);
    out
}
