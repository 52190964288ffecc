//! What changes from step to step, at addresses that do not.

use crate::program::Step;
use std::cell::UnsafeCell;

/// The position and the tokens of the step that runs.
pub struct StepMemory {
    position: UnsafeCell<u32>,
    /// The position after the last live row.
    end: UnsafeCell<u32>,
    tokens: Box<[UnsafeCell<u32>]>,
}

// SAFETY: written only by `set`, whose caller promises that no task runs; read by tasks otherwise.
unsafe impl Send for StepMemory {}
// SAFETY: as above.
unsafe impl Sync for StepMemory {}

impl StepMemory {
    /// Room for `rows` tokens.
    pub fn new(rows: usize) -> Self {
        let tokens = (0..rows).map(|_| UnsafeCell::new(0)).collect();
        StepMemory {
            position: UnsafeCell::new(0),
            end: UnsafeCell::new(0),
            tokens,
        }
    }

    /// Writes the next step.
    ///
    /// # Safety
    /// No task reads the step meanwhile.
    pub unsafe fn set(&self, step: Step<'_>) {
        // SAFETY: the caller's promise.
        unsafe {
            *self.position.get() = step.position;
            *self.end.get() = step.position + step.tokens.len() as u32;
            for (cell, &token) in self.tokens.iter().zip(step.tokens) {
                *cell.get() = token;
            }
        }
    }

    /// The position of the first row.
    ///
    /// # Safety
    /// No `set` at the same time.
    pub unsafe fn position(&self) -> usize {
        // SAFETY: the caller's promise.
        unsafe { *self.position.get() as usize }
    }

    /// The position after the last live row.
    ///
    /// # Safety
    /// No `set` at the same time.
    pub unsafe fn end(&self) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { *self.end.get() }
    }

    /// The token of a live row.
    ///
    /// # Safety
    /// No `set` at the same time.
    pub unsafe fn token(&self, row: usize) -> usize {
        // SAFETY: the caller's promise.
        unsafe { *self.tokens[row].get() as usize }
    }
}
