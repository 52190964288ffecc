//! What can be set, within which ranges, and what can go wrong.

use thiserror::Error;

/// The longest repetition window: far beyond any context, and small enough to allocate without a thought.
const REPEAT_LAST_N_MAX: usize = 1 << 24;

/// The greatest frequency or presence penalty: nothing a model says outweighs it, and a window full of it is still finite.
const OFFSET_MAX: f32 = 1000.0;

/// How tokens are chosen. The default is plain sampling at temperature 0.8 with top-k 40, top-p 0.95 and min-p 0.05,
/// no penalties, seed 0; [`Sampling::greedy`] always takes the likeliest token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits before the draw; 0 takes the largest logit. Range `[0, ∞)`.
    pub temperature: f32,
    /// How many of the largest logits survive; 0 keeps all.
    pub top_k: u32,
    /// The probability the surviving prefix must reach; 1 keeps all. Range `[0, 1]`; 0 keeps the likeliest token.
    pub top_p: f32,
    /// The least probability, relative to the likeliest token's, that survives; 0 keeps all. Range `[0, 1]`.
    pub min_p: f32,
    /// Divides the positive and multiplies the negative logits of recent tokens; 1 changes nothing. Range `(0, ∞)`.
    pub repeat_penalty: f32,
    /// Subtracted from a recent token's logit for each time it occurred; 0 changes nothing. Range `[-1000, 1000]`.
    pub frequency_penalty: f32,
    /// Subtracted from a recent token's logit once; 0 changes nothing. Range `[-1000, 1000]`.
    pub presence_penalty: f32,
    /// How many recent tokens the penalties look at; 0 turns them off.
    pub repeat_last_n: usize,
    /// Names the sequence of random numbers; see the [module's page](super) for what it means.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            repeat_last_n: 64,
            seed: 0,
        }
    }
}

impl Sampling {
    /// The default settings at temperature 0.
    pub fn greedy() -> Sampling {
        Sampling {
            temperature: 0.0,
            ..Sampling::default()
        }
    }

    /// Whether the largest logit is always taken.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// Checks every setting against its range.
    ///
    /// # Errors
    /// [`SamplerError::Setting`] names the first setting outside its range, its value and the range.
    pub fn validate(&self) -> Result<(), SamplerError> {
        let in_unit = |x: f32| (0.0..=1.0).contains(&x);
        let check = |name, value: f32, allowed, holds: bool| {
            if holds {
                Ok(())
            } else {
                let value = value.to_string();
                Err(SamplerError::Setting {
                    name,
                    value,
                    allowed,
                })
            }
        };
        let t = self.temperature;
        check(
            "temperature",
            t,
            "0 or more, and finite",
            t >= 0.0 && t.is_finite(),
        )?;
        check("top_p", self.top_p, "0 to 1", in_unit(self.top_p))?;
        check("min_p", self.min_p, "0 to 1", in_unit(self.min_p))?;
        let r = self.repeat_penalty;
        check(
            "repeat_penalty",
            r,
            "more than 0, and finite",
            r > 0.0 && r.is_finite(),
        )?;
        for (name, x) in [
            ("frequency_penalty", self.frequency_penalty),
            ("presence_penalty", self.presence_penalty),
        ] {
            check(name, x, "-1000 to 1000", x.abs() <= OFFSET_MAX)?;
        }
        if self.repeat_last_n > REPEAT_LAST_N_MAX {
            return Err(SamplerError::Setting {
                name: "repeat_last_n",
                value: self.repeat_last_n.to_string(),
                allowed: "0 to 16777216",
            });
        }
        Ok(())
    }
}

/// Why no token could be chosen.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum SamplerError {
    /// A setting is outside its range.
    #[error("sampling setting {name} is {value}; allowed: {allowed}")]
    Setting {
        /// The setting's name, as in [`Sampling`].
        name: &'static str,
        /// What it was set to.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// A row has the wrong number of logits.
    #[error("expected {expected} logits, found {found}")]
    Length {
        /// The vocabulary's size.
        expected: usize,
        /// The row's length.
        found: usize,
    },
    /// A logit is NaN or `+∞`: the model computed something that is no distribution.
    #[error("logit {index} of {count} is {value}; logits must be finite or -inf")]
    BadLogit {
        /// The first offending index.
        index: usize,
        /// The row's length.
        count: usize,
        /// The offending value.
        value: f32,
    },
    /// Every logit is `−∞`.
    #[error("all {count} logits are -inf, so no token can be chosen")]
    NoCandidate {
        /// The row's length.
        count: usize,
    },
}
