//! A session: one sequence of tokens over a recorded model.

mod options;
mod report;

pub use options::SessionOptions;
pub use report::Report;

use super::backend::{Backend, BackendError, Recording};
use super::chunks;
use super::compile::CompileError;
use super::contents::{Contents, Profile, profile};
use super::device::{Prepared, prepare};
use crate::model::{Logits, Model};
use crate::program::{Program, Step};
use crate::sampler::{Rule, SamplerError, Sampling};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};
use thiserror::Error;

/// Why a session could not be built or go on.
#[derive(Debug, Error)]
pub enum SessionError {
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error("{needed} positions are needed but the context holds {context}; raise it with --ctx")]
    ContextFull { needed: u64, context: u32 },
    #[error("token {token} is not in the vocabulary of {vocabulary}")]
    Token { token: u32, vocabulary: u32 },
    #[error("a prompt needs at least one token")]
    NoTokens,
    #[error("no token is chosen: the sequence was changed after its last step")]
    NothingChosen,
    #[error(transparent)]
    Sampler(#[from] SamplerError),
}

/// How long before a step is due nobody sleeps any more: systems wake one this late.
const AWAKE: Duration = Duration::from_micros(80);

/// Which of a session's recordings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// One token's step.
    Decode,
    /// The largest chunk of a prompt.
    Prompt,
}

/// Which recording ran last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ran {
    Decode,
    /// One of the prompt's; `row` of its result is the last token's.
    Prompt {
        index: usize,
        row: usize,
    },
}

/// A recorded model and the sequence it is in the middle of.
pub struct Session {
    pub(super) decode: Box<dyn Recording>,
    /// The largest first.
    pub(super) prompts: Vec<Box<dyn Recording>>,
    /// Their rows.
    chunk_rows: Vec<u32>,
    pub(super) backend: Box<dyn Backend>,
    device_fallback: Option<String>,
    pub(super) options: SessionOptions,
    pub(super) position: u32,
    vocabulary: u32,
    /// The token at each filled position; as long as `position`, and never longer than the context.
    pub(super) tokens: Vec<u32>,
    prompt_rows: u64,
    /// Whether the device's next step is at `position`, with the token that was chosen for it.
    pub(super) linked: bool,
    /// How long a step of one row took lately, where a device queues them; 0 before any was waited for.
    pub(super) step_time: Duration,
    /// Where the last token's logits are.
    pub(super) last: Ran,
}

impl Session {
    /// Compiles, allocates, prepares the weights and records: the one slow step, after which
    /// nothing is allocated a token. `progress(done, total)` counts weight bytes.
    pub fn build(
        model: &Model,
        options: &SessionOptions,
        progress: &dyn Fn(u64, u64),
    ) -> Result<Self, SessionError> {
        let Prepared {
            backend,
            fallback,
            decode,
            prompts,
        } = prepare(model, options, progress)?;
        let chunk_rows = prompts.iter().map(|program| program.rows).collect();
        let prompts = prompts.into_iter().map(|program| backend.record(program));
        let prompts = prompts.collect::<Result<_, _>>()?;
        let decode = backend.record(decode)?;
        let vocabulary = model.hyperparameters().vocabulary;
        Ok(Session {
            chunk_rows,
            prompts,
            device_fallback: fallback,
            ..Session::new(backend, decode, options, vocabulary)
        })
    }

    /// One that takes single steps.
    pub(super) fn new(
        backend: Box<dyn Backend>,
        decode: Box<dyn Recording>,
        options: &SessionOptions,
        vocabulary: u32,
    ) -> Self {
        Session {
            decode,
            prompts: Vec::new(),
            chunk_rows: Vec::new(),
            backend,
            device_fallback: None,
            options: options.clone(),
            position: 0,
            tokens: Vec::with_capacity(options.context as usize),
            prompt_rows: 0,
            vocabulary,
            linked: false,
            step_time: Duration::ZERO,
            last: Ran::Prompt { index: 0, row: 0 },
        }
    }

    /// Positions the cache holds.
    pub fn context(&self) -> u32 {
        self.options.context
    }

    /// Tokens in the cache: the position the next one will have.
    pub fn position(&self) -> u32 {
        self.position
    }

    /// `V`
    pub fn vocabulary(&self) -> u32 {
        self.vocabulary
    }

    /// Forgets the sequence.
    pub fn reset(&mut self) {
        self.truncate(0);
    }

    /// Forgets the tokens from `position` on; nothing where the sequence is no longer than that.
    pub fn truncate(&mut self, position: u32) {
        if position < self.position {
            self.position = position;
            self.linked = false;
            self.tokens.truncate(position as usize);
        }
    }

    /// How the prompts and steps from now on choose the token after them. Greedy until this is called.
    ///
    /// # Errors
    /// [`SamplerError::Setting`] names a setting outside its range.
    pub fn set_sampling(&mut self, sampling: &Sampling) -> Result<(), SessionError> {
        sampling.validate()?;
        Ok(self.backend.set_rule(&Rule::new(sampling))?)
    }

    /// Runs the steps from now on launch by launch, or replays them. The bits are the same.
    pub fn set_eager(&mut self, eager: bool) {
        self.options.eager = eager;
    }

    /// What one of the recordings holds.
    pub fn contents(&mut self, part: Part) -> Result<Contents, SessionError> {
        Ok(self.recording(part).contents()?)
    }

    /// Has the driver draw one of the recordings into a file; `false` where no driver records.
    pub fn write_driver_dot(&mut self, part: Part, path: &Path) -> Result<bool, SessionError> {
        Ok(self.recording(part).write_driver_dot(path)?)
    }

    /// The program of one of the recordings.
    pub fn program(&self, part: Part) -> &Program {
        match part {
            Part::Decode => self.decode.program(),
            Part::Prompt => self.prompts[0].program(),
        }
    }

    /// Times every node of one of the recordings over steps that would append `tokens`, and the same
    /// steps replayed, in turn. The sequence stays as long as it is.
    ///
    /// # Panics
    /// When the recording has fewer rows than there are tokens.
    pub fn profile(
        &mut self,
        part: Part,
        tokens: &[u32],
        repetitions: usize,
    ) -> Result<Profile, SessionError> {
        self.check(tokens)?;
        let step = Step {
            position: self.position,
            tokens,
        };
        self.linked = false;
        Ok(profile(self.recording(part), step, repetitions)?)
    }

    fn recording(&mut self, part: Part) -> &mut dyn Recording {
        match part {
            Part::Decode => &mut *self.decode,
            Part::Prompt => &mut *self.prompts[0],
        }
    }

    /// One decode step: appends `token` and returns the logits `[V]` after it.
    pub fn step(&mut self, token: u32) -> Result<&[f32], SessionError> {
        self.check(&[token])?;
        let step = Step {
            position: self.position,
            tokens: &[token],
        };
        self.linked = false;
        let begin = Instant::now();
        let nap = self.step_time * 7 / 8;
        self.decode.sleep_through(nap.saturating_sub(AWAKE));
        run(&mut *self.decode, step, self.options.eager)?;
        self.step_time = self.step_time.min(begin.elapsed());
        self.append(&[token]);
        self.linked = true;
        self.last = Ran::Decode;
        Ok(self.decode.result(0))
    }

    /// Appends a prompt chunk by chunk and returns the logits `[V]` after its last token.
    /// `on_chunk(tokens done)` is called after each chunk; `Break` leaves the rest undone (the
    /// logits are then those after the last token done).
    pub fn prefill(
        &mut self,
        tokens: &[u32],
        on_chunk: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<&[f32], SessionError> {
        self.check(tokens)?;
        self.linked = false;
        let mut done = 0;
        while done < tokens.len() {
            let left = &tokens[done..];
            done += match self.steps(left.len()) {
                true => {
                    self.step(left[0])?;
                    self.prompt_rows += 1;
                    1
                }
                false => self.chunk(left, tokens.len())?,
            };
            if on_chunk(done).is_break() {
                break;
            }
        }
        // With every row's logits, none is chosen from.
        self.linked = self.options.logits == Logits::Last;
        Ok(self.last_logits())
    }

    /// Appends tokens and calls `each(index, logits [V])` for every one of them, in order.
    ///
    /// # Panics
    /// When the session was not built with [`Logits::All`].
    pub fn prefill_each(
        &mut self,
        tokens: &[u32],
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), SessionError> {
        assert_eq!(
            self.options.logits,
            Logits::All,
            "the session keeps only the last row's logits"
        );
        self.check(tokens)?;
        self.linked = false;
        let mut done = 0;
        while done < tokens.len() {
            let rows = self.chunk(&tokens[done..], tokens.len())?;
            let Ran::Prompt { index, .. } = self.last else {
                unreachable!("a chunk ran last");
            };
            for row in 0..rows {
                each(done + row, self.prompts[index].result(row));
            }
            done += rows;
        }
        Ok(())
    }

    /// Whether so few tokens of a prompt are quicker as single steps.
    fn steps(&self, left: usize) -> bool {
        left <= chunks::STEPPED && self.decode.queues() && self.options.logits == Logits::Last
    }

    /// Appends as many of `tokens`, the end of a prompt of `prompt`, as one recording takes; how many they were.
    fn chunk(&mut self, tokens: &[u32], prompt: usize) -> Result<usize, SessionError> {
        let (index, rows) = chunks::next(tokens.len(), prompt, &self.chunk_rows);
        let step = Step {
            position: self.position,
            tokens: &tokens[..rows],
        };
        run(&mut *self.prompts[index], step, self.options.eager)?;
        self.prompt_rows += rows as u64;
        self.append(&tokens[..rows]);
        let row = match self.options.logits {
            Logits::Last => 0,
            Logits::All => rows - 1,
        };
        self.last = Ran::Prompt { index, row };
        Ok(rows)
    }

    /// Records tokens that have been computed.
    fn append(&mut self, tokens: &[u32]) {
        self.position += tokens.len() as u32;
        self.tokens.extend_from_slice(tokens);
    }

    /// The program a decode step replays.
    pub fn decode_program(&self) -> &Program {
        self.program(Part::Decode)
    }

    /// Bytes a second that the device reads from its memory, measured now.
    pub fn stream_bytes_per_second(&self) -> Result<f64, SessionError> {
        Ok(self.backend.stream_bytes_per_second()?)
    }

    /// Bytes a second that are copied from pinned memory to the device's, measured now; `None` on the CPU.
    pub fn copy_bytes_per_second(&self) -> Result<Option<f64>, SessionError> {
        Ok(self.backend.copy_bytes_per_second()?)
    }

    /// The tuning table of this device as a file, made by timing variants of the decode step and of
    /// the chunks of prompts; `None` where nothing is tuned.
    pub fn tune(&self) -> Result<Option<String>, SessionError> {
        let prompts: Vec<&Program> = self.prompts.iter().map(|p| p.program()).collect();
        Ok(self.backend.tune(self.decode.program(), &prompts)?)
    }

    fn check(&self, tokens: &[u32]) -> Result<(), SessionError> {
        if tokens.is_empty() {
            return Err(SessionError::NoTokens);
        }
        let (needed, context) = (
            u64::from(self.position) + tokens.len() as u64,
            self.context(),
        );
        if needed > u64::from(context) {
            return Err(SessionError::ContextFull { needed, context });
        }
        let vocabulary = self.vocabulary;
        match tokens.iter().find(|&&t| t >= vocabulary) {
            None => Ok(()),
            Some(&token) => Err(SessionError::Token { token, vocabulary }),
        }
    }
}

fn run(recording: &mut dyn Recording, step: Step<'_>, eager: bool) -> Result<(), BackendError> {
    if eager {
        recording.run_eagerly(step)
    } else {
        recording.replay(step)
    }
}
