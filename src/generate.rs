//! The generator: a session and a tokenizer joined into a text.
//!
//! One call of [`Generator::run`] feeds a prompt and continues it token by token until something ends the text
//! ([`Finish`]). Per token it takes what the session chose, decodes it, and looks for stop strings; nothing else. It
//! prints nothing: text goes to a function as soon as it is certain, in whole characters.

mod stop;
#[cfg(test)]
mod tests;

use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

use serde::Serialize;
use thiserror::Error;

use crate::runtime::{Session, SessionError};
use crate::sampler::{SamplerError, Sampling, top_logprobs};
use crate::tokenizer::{Detokenizer, Tokenizer};
pub use stop::StopMatcher;

/// When a text ends, and what is recorded on the way.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Tokens after which the text ends.
    pub max_tokens: usize,
    /// Texts before which it ends.
    pub stop: Vec<String>,
    /// Continue past end-of-generation tokens, which then count as tokens like any other.
    pub ignore_eos: bool,
    /// How many of the likeliest tokens are recorded at each position.
    pub logprobs: usize,
    /// Tokens that end the text besides the model's end-of-generation tokens.
    pub ends: Vec<u32>,
}

impl Settings {
    fn ends_at(&self, token: u32, tokenizer: &Tokenizer) -> bool {
        !self.ignore_eos && (self.ends.contains(&token) || tokenizer.is_end_of_generation(token))
    }
}

/// A context that has no room for the next token.
#[derive(Clone, Copy, Debug)]
pub struct Full<'t> {
    /// The tokens that the context holds.
    pub held: &'t [u32],
    /// The tokens generated so far; the newest is not among those held.
    pub generated: &'t [u32],
}

/// What a full context is answered with: a shorter sequence to go on from, or nothing, and then the text ends.
pub type OnFull<'f> = dyn FnMut(Full<'_>) -> Option<Vec<u32>> + 'f;

/// What ended a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model chose an end-of-generation token, which is not among the tokens.
    EndOfGeneration,
    /// A stop string, which is not part of the text.
    Stop,
    /// As many tokens as were asked for.
    Length,
    /// The context is full.
    Context,
    /// Whoever watches asked for an end.
    Interrupted,
}

impl Finish {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::EndOfGeneration => "end_of_generation",
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Context => "context",
            Self::Interrupted => "interrupted",
        }
    }
}

/// The likeliest tokens at one position, and the one that was chosen.
#[derive(Clone, Debug, Serialize)]
pub struct Position {
    /// The chosen token.
    pub token: u32,
    /// The likeliest tokens with their natural log-probabilities at temperature 1, descending.
    pub top: Vec<(u32, f32)>,
}

/// A finished text.
#[derive(Clone, Debug)]
pub struct Generation {
    /// The tokens that were generated.
    pub tokens: Vec<u32>,
    /// What ended the text.
    pub finish: Finish,
    /// One entry a token if [`Settings::logprobs`] asked for it, else empty.
    pub logprobs: Vec<Position>,
    /// How many of the prompt's tokens the session held already.
    pub reused: usize,
    /// How often the context was full and the text went on from a shorter sequence.
    pub slides: usize,
    /// Time to the logits of the prompt's last token.
    pub prompt_time: Duration,
    /// Time from there to the end, without what computing shorter sequences took.
    pub decode_time: Duration,
    /// When the first token had been chosen; `None` if there is none.
    pub first_token_at: Option<Instant>,
    /// The session's position when decoding began, and when it ended: one step each. One range for each sequence.
    pub steps: Vec<Range<usize>>,
    /// [`hash_logits`] of the last logits; `None` if the prompt was interrupted.
    pub logits_hash: Option<u64>,
}

impl Generation {
    /// Nothing yet, with room for so many tokens.
    fn empty(budget: usize) -> Self {
        Generation {
            tokens: Vec::with_capacity(budget),
            finish: Finish::Length,
            logprobs: Vec::new(),
            reused: 0,
            slides: 0,
            prompt_time: Duration::ZERO,
            decode_time: Duration::ZERO,
            first_token_at: None,
            steps: Vec::new(),
            logits_hash: None,
        }
    }
}

/// Why a text could not be continued.
#[derive(Debug, Error)]
pub enum GenerateError {
    /// There is no token to begin with.
    #[error("the prompt is empty, and the model has no token that begins a text")]
    EmptyPrompt,
    /// The prompt does not fit.
    #[error(
        "the prompt has {prompt} tokens, but the context holds {context}: shorten it or raise --ctx"
    )]
    PromptTooLong {
        /// Tokens in the prompt.
        prompt: usize,
        /// Tokens the session can hold.
        context: usize,
    },
    /// The session failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The logits were no distribution.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
}

impl GenerateError {
    /// Whether the prompt is to blame, and not the machinery.
    pub fn is_input(&self) -> bool {
        matches!(self, Self::EmptyPrompt | Self::PromptTooLong { .. })
    }
}

/// Joins a session, a tokenizer and the settings of a text.
pub struct Generator<'a> {
    session: &'a mut Session,
    tokenizer: &'a Tokenizer,
    sampling: Sampling,
    settings: Settings,
    on_full: Option<&'a mut OnFull<'a>>,
}

impl<'a> Generator<'a> {
    /// A generator; what the session holds is reused as far as it is the beginning of a prompt.
    pub fn new(
        session: &'a mut Session,
        tokenizer: &'a Tokenizer,
        sampling: Sampling,
        settings: Settings,
    ) -> Self {
        Self {
            session,
            tokenizer,
            sampling,
            settings,
            on_full: None,
        }
    }

    /// Asks `on_full` for a shorter sequence when the context is full, instead of ending the text.
    pub fn on_full(mut self, on_full: &'a mut OnFull<'a>) -> Self {
        self.on_full = Some(on_full);
        self
    }

    /// Continues `prompt`, which is the whole sequence from the first position on. `on_text` receives the text piece by
    /// piece and may ask for an end; `interrupted` is asked before each step and each chunk of the prompt.
    ///
    /// # Errors
    /// [`GenerateError`]; an interruption is no error but a [`Finish`].
    pub fn run(
        &mut self,
        prompt: &[u32],
        interrupted: &dyn Fn() -> bool,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generation, GenerateError> {
        if prompt.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        let context = self.session.context() as usize;
        if prompt.len() > context {
            return Err(GenerateError::PromptTooLong {
                prompt: prompt.len(),
                context,
            });
        }
        self.session.set_sampling(&self.sampling)?;
        let budget = self.settings.max_tokens.min(context);
        let mut writing = Writing {
            out: Generation::empty(budget),
            text: self.tokenizer.detokenizer(),
            stop: StopMatcher::new(&self.settings.stop),
            interrupted,
            on_text,
        };
        let mut shorter: Option<Vec<u32>> = None;
        loop {
            let sequence = shorter.as_deref().unwrap_or(prompt);
            self.prefill(sequence, shorter.is_none(), &mut writing)?;
            if interrupted() {
                writing.out.finish = Finish::Interrupted;
                break;
            }
            self.decode(&mut writing)?;
            let out = &mut writing.out;
            out.steps
                .push(sequence.len()..self.session.position() as usize);
            match self.after_full(out) {
                Some(next) if !next.is_empty() && next.len() <= context => shorter = Some(next),
                _ => break,
            }
            out.slides += 1;
        }
        writing.flush();
        Ok(writing.out)
    }

    /// Brings the session to the end of a sequence, unless it is interrupted on the way.
    fn prefill(
        &mut self,
        sequence: &[u32],
        first: bool,
        writing: &mut Writing<'_>,
    ) -> Result<(), GenerateError> {
        let begin = Instant::now();
        let reused = self.session.keep_prefix(sequence);
        let interrupted = writing.interrupted;
        let mut on_chunk = |_done| match interrupted() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let prefilled = self.session.prefill(&sequence[reused..], &mut on_chunk);
        if first {
            writing.out.reused = reused;
            writing.out.prompt_time = begin.elapsed();
        }
        prefilled?;
        Ok(())
    }

    /// Takes tokens until something ends the text or the context is full.
    fn decode(&mut self, writing: &mut Writing<'_>) -> Result<(), GenerateError> {
        let begin = Instant::now();
        let limit = self.settings.max_tokens - writing.out.tokens.len();
        let mut decode = if self.settings.logprobs > 0 {
            self.session.decode_with_logits(limit)?
        } else {
            self.session.decode(limit)?
        };
        writing.out.finish = loop {
            let Some(token) = decode.next()? else {
                break match writing.is_long_enough(&self.settings) {
                    true => Finish::Length,
                    false => Finish::Context,
                };
            };
            writing.out.first_token_at.get_or_insert_with(Instant::now);
            if self.settings.ends_at(token, self.tokenizer) {
                break Finish::EndOfGeneration;
            }
            if self.settings.logprobs > 0 {
                let mut top = Vec::new();
                top_logprobs(decode.logits(), self.settings.logprobs, &mut top)?;
                writing.out.logprobs.push(Position { token, top });
            }
            if let Some(finish) = writing.push(token, &self.settings) {
                break finish;
            }
        };
        writing.out.decode_time += begin.elapsed();
        writing.out.logits_hash = Some(hash_logits(decode.end()?));
        Ok(())
    }

    /// The sequence to go on from, if the context is what ended the text and somebody has one.
    fn after_full(&mut self, out: &Generation) -> Option<Vec<u32>> {
        match (out.finish, &mut self.on_full) {
            (Finish::Context, Some(on_full)) => on_full(Full {
                held: self.session.tokens(),
                generated: &out.tokens,
            }),
            _ => None,
        }
    }
}

/// A text on its way out.
struct Writing<'w> {
    out: Generation,
    text: Detokenizer<'w>,
    stop: StopMatcher,
    interrupted: &'w dyn Fn() -> bool,
    on_text: &'w mut dyn FnMut(&str) -> ControlFlow<()>,
}

impl Writing<'_> {
    fn is_long_enough(&self, settings: &Settings) -> bool {
        self.out.tokens.len() == settings.max_tokens
    }

    /// Adds a token and gives out the text that is certain with it; what ends the text there, if anything does.
    fn push(&mut self, token: u32, settings: &Settings) -> Option<Finish> {
        self.out.tokens.push(token);
        let (certain, found) = self.stop.push(self.text.push(token));
        let wanted = certain.is_empty() || (self.on_text)(certain).is_continue();
        if found {
            Some(Finish::Stop)
        } else if self.is_long_enough(settings) {
            Some(Finish::Length)
        } else if !wanted || (self.interrupted)() {
            Some(Finish::Interrupted)
        } else {
            None
        }
    }

    /// Gives out what was held back, since no more comes.
    fn flush(&mut self) {
        if self.out.finish == Finish::Stop {
            return;
        }
        let (certain, found) = self.stop.push(self.text.finish());
        let _at_the_end_anyway = (self.on_text)(certain);
        if found {
            self.out.finish = Finish::Stop;
        } else {
            let _at_the_end_anyway = (self.on_text)(self.stop.finish());
        }
    }
}

/// FNV-1a over the bits of the logits, little-endian: equal only if the logits are equal bit for bit.
pub fn hash_logits(logits: &[f32]) -> u64 {
    let bytes = logits
        .iter()
        .flat_map(|logit| logit.to_bits().to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
