//! What links a step to the next, on the device: the shared step, the sequence's tokens, how one is
//! chosen, and the ring in which the host finds which was.
//!
//! The host writes the device's side by kernels whose arguments are taken when they are queued, on the
//! stream of the replays: nothing it does later can overtake one. Of the ring, in pinned memory, it reads
//! a slot when that names the position asked for, and makes a slot name none before it queues the step
//! that is to write it.

use super::GpuError;
use super::arguments::{Follows, launch_values};
use super::geometry::{sample_chunks, step_set};
use super::memory::step_bytes;
use crate::hip::{Device, DeviceBuffer, Function, HipError, Module, PinnedBuffer, Stream};
use crate::sampler::{RULE_WORDS, Rule, SamplerError};
use std::ops::Range;
use std::sync::atomic::{Ordering, fence};

/// Tokens that the host can still ask for, as `kernels/sample.hip` has it: as many steps may have been queued since
/// the last token that was read.
pub const RING: u32 = 64;

/// Words of a slot: the token, the index of a bad logit, its bits, and the token's position.
const SLOT_WORDS: usize = 4;

/// The position's place among them, and what stands there for no position.
const NAME: usize = 3;
const NOBODY: u32 = u32::MAX;

/// What stands for a token where a logit was NaN or infinite, and where all were −∞.
const BAD_LOGIT: u32 = u32::MAX;
const NO_CANDIDATE: u32 = u32::MAX - 1;

/// Bytes of what a wave found in its part of a row.
const FIRST_BYTES: usize = 16;

/// Bytes of device memory that a chain takes.
pub fn chain_bytes(context: u32, vocabulary: u32, wave: u32) -> usize {
    let words = context as usize + vocabulary as usize + RULE_WORDS;
    let chunks = sample_chunks(vocabulary, wave) as usize;
    step_bytes(1) + 4 * words + FIRST_BYTES * chunks
}

/// The memory, and the kernels that set it.
pub struct Chain {
    /// What every recording of one row reads.
    pub step: DeviceBuffer,
    /// `[S]`: the token at each position.
    pub history: DeviceBuffer,
    pub rule: DeviceBuffer,
    /// `[V]`: the penalised logits.
    pub scores: DeviceBuffer,
    pub firsts: DeviceBuffer,
    pub ring: PinnedBuffer,
    vocabulary: u32,
    set_step: Function,
    set_rule: Function,
}

impl Chain {
    /// For `context` positions and rows of `vocabulary` logits.
    pub fn new(
        device: &Device,
        module: &Module,
        context: u32,
        vocabulary: u32,
        wave: u32,
    ) -> Result<Self, GpuError> {
        let words = |n: usize| DeviceBuffer::new(device, 4 * n.max(1));
        let chunks = sample_chunks(vocabulary, wave) as usize;
        Ok(Chain {
            step: DeviceBuffer::new(device, step_bytes(1))?,
            history: words(context as usize)?,
            rule: words(RULE_WORDS)?,
            scores: words(vocabulary as usize)?,
            firsts: DeviceBuffer::new(device, FIRST_BYTES * chunks.max(1))?,
            ring: PinnedBuffer::new(device, RING as usize * SLOT_WORDS * 4)?,
            vocabulary,
            set_step: module.function("step_set")?,
            set_rule: module.function("rule_set")?,
        })
    }

    /// Queues the writing of the shared step.
    pub fn set_step(&self, stream: &Stream, position: u32, token: u32) -> Result<(), HipError> {
        let (step, history) = (self.step.address(), self.history.address());
        let mut values = [step, position.into(), token.into(), history];
        // SAFETY: `step_set(Step* step, u32 position, u32 token, u32* history)`; a recording keeps the
        // chain alive and waits for the stream before it is dropped, and `begin` checked the position.
        unsafe {
            launch_values(
                stream,
                &self.set_step,
                step_set(),
                Follows::InTurn,
                &mut values,
            )
        }
    }

    /// Queues the writing of the rule.
    pub fn set_rule(&self, stream: &Stream, rule: &Rule) -> Result<(), HipError> {
        let mut values = [0u64; 1 + RULE_WORDS];
        values[0] = self.rule.address();
        for (value, word) in values[1..].iter_mut().zip(rule.words()) {
            *value = word.into();
        }
        // SAFETY: `rule_set(Rule* rule, u32 …)` with RULE_WORDS words; as for the step.
        unsafe {
            launch_values(
                stream,
                &self.set_rule,
                step_set(),
                Follows::InTurn,
                &mut values,
            )
        }
    }

    /// The word of `position`'s slot that says what the slot is of.
    fn name_of(&self, position: u32) -> Result<*mut u32, GpuError> {
        Ok(self.slot(position)?.wrapping_add(NAME))
    }

    fn slot(&self, position: u32) -> Result<*mut u32, GpuError> {
        let at = (position % RING) as usize * SLOT_WORDS * 4;
        Ok(self.ring.slice(at, SLOT_WORDS * 4)?.cast())
    }

    /// Makes the slots of these positions, whose steps are not queued yet, name none. The tokens that are there are
    /// read, and so their steps done.
    pub fn expect(&self, positions: Range<u32>) -> Result<(), GpuError> {
        for position in positions {
            let name = self.name_of(position)?;
            // SAFETY: the word is in the buffer, as `slot` checked, which is aligned to a page. No queued step
            // writes it: the last that did is done.
            unsafe { name.write_volatile(NOBODY) };
        }
        Ok(())
    }

    /// Whether the step that chooses for `position` has done so, since it was [expected](Chain::expect).
    pub fn told(&self, position: u32) -> Result<bool, GpuError> {
        let name = self.name_of(position)?;
        // SAFETY: as in `expect`, but for a step that may write it now: a slot is written as one, and words are
        // read whole.
        let of = unsafe { name.read_volatile() };
        // The slot's other words are read after this one.
        fence(Ordering::Acquire);
        Ok(of == position)
    }

    /// The token that a step chose for `position`, of which the host has been [told](Chain::told) or
    /// which it has waited for.
    pub fn chosen(&self, position: u32) -> Result<Result<u32, SamplerError>, GpuError> {
        let words = self.slot(position)?;
        // SAFETY: the slot is in the buffer, as just checked, which is aligned to a page. The step that
        // writes it has done so, and the next that does is RING steps away.
        let [token, index, bits, of] =
            [0, 1, 2, NAME].map(|i| unsafe { words.add(i).read_volatile() });
        if of != position {
            return Err(GpuError::NotTold {
                position,
                found: (of != NOBODY).then_some(of),
            });
        }
        let count = self.vocabulary as usize;
        Ok(match token {
            BAD_LOGIT => Err(SamplerError::BadLogit {
                index: index as usize,
                count,
                value: f32::from_bits(bits),
            }),
            NO_CANDIDATE => Err(SamplerError::NoCandidate { count }),
            token => Ok(token),
        })
    }
}
