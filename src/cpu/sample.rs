//! Choosing the next token at the end of a step, and what remembers it: the twin of `kernels/sample.hip`.

use super::isa::Isa;
use super::simd::{Lanes, entry};
use crate::sampler::{Chooser, Rule, SamplerError, Sampling, weigh};
use std::sync::{Mutex, MutexGuard, PoisonError};

entry! {
    /// [`weigh`] for an instruction set.
    fn weigh_fn(row: *const f32, n: usize, max: f32, inverse: f32, floor: f32, out: *mut u64) = weigh_body::<L>
}

/// The same Rust for every set: what differs is what the compiler may vectorise it with.
///
/// # Safety
/// `row` holds `n` readable f32, `out` `n` writable u64; they do not overlap.
#[inline(always)]
unsafe fn weigh_body<L: Lanes>(
    row: *const f32,
    n: usize,
    max: f32,
    inverse: f32,
    floor: f32,
    out: *mut u64,
) {
    // SAFETY: the caller's promise.
    let (row, out) = unsafe {
        (
            std::slice::from_raw_parts(row, n),
            std::slice::from_raw_parts_mut(out, n),
        )
    };
    weigh(row, max, inverse, floor, out);
}

/// The weights of a row with the instructions of `isa`.
///
/// # Panics
/// When there are fewer weights than logits.
///
/// # Safety
/// The machine runs `isa`.
pub unsafe fn weigh_with(
    isa: Isa,
    row: &[f32],
    max: f32,
    inverse: f32,
    floor: f32,
    out: &mut [u64],
) {
    assert!(out.len() >= row.len());
    // SAFETY: the lengths were just compared; the rest is the caller's promise.
    unsafe {
        weigh_fn(isa)(
            row.as_ptr(),
            row.len(),
            max,
            inverse,
            floor,
            out.as_mut_ptr(),
        )
    }
}

/// What links a step to the next: the sequence's tokens, how one is chosen, and which was.
pub struct Chain(Mutex<State>);

struct State {
    rule: Rule,
    chooser: Chooser,
    /// `[S]`: the token at each position.
    history: Box<[u32]>,
    /// What the last sample task chose, and for which position.
    chosen: (u32, Result<u32, SamplerError>),
}

impl Chain {
    /// For `context` positions and rows of `vocabulary` logits.
    pub fn new(context: usize, vocabulary: usize) -> Chain {
        Chain(Mutex::new(State {
            rule: Rule::new(&Sampling::greedy()),
            chooser: Chooser::new(vocabulary),
            history: vec![0; context].into(),
            chosen: (0, Ok(0)),
        }))
    }

    /// Whoever panicked left nothing that the next step does not overwrite.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How tokens are chosen from now on.
    pub fn set_rule(&self, rule: &Rule) {
        self.state().rule = *rule;
    }

    /// The position for which a token was chosen last, and the token.
    pub fn chosen(&self) -> (u32, Result<u32, SamplerError>) {
        self.state().chosen.clone()
    }

    /// The tokens of a step that is about to run.
    ///
    /// # Panics
    /// When they run past the context.
    pub fn note(&self, position: u32, tokens: &[u32]) {
        let position = position as usize;
        self.state().history[position..position + tokens.len()].copy_from_slice(tokens);
    }

    /// Chooses the token for `position`.
    ///
    /// # Safety
    /// The machine runs `isa`.
    pub unsafe fn choose(&self, isa: Isa, logits: &[f32], position: u32) {
        let state = &mut *self.state();
        let recent = state.rule.window(&state.history, position as usize);
        let weigh = |row: &[f32], max, inverse, floor, out: &mut [u64]| {
            // SAFETY: the caller's promise.
            unsafe { weigh_with(isa, row, max, inverse, floor, out) }
        };
        let token = state
            .chooser
            .choose(&state.rule, logits, recent, position, &weigh);
        state.chosen = (position, token);
    }
}
