//! Choosing the next token from a row of logits.
//!
//! # Order of operations
//!
//! The order is llama.cpp's, so that settings tuned there carry over:
//!
//! 1. **Check.** A NaN or `+∞` logit is an error that names its index; so is a row that is `−∞` throughout. `−∞` by
//!    itself is a legal way to forbid a token.
//! 2. **Repetition penalty.** Every distinct token among the last `repeat_last_n` accepted ones has its logit divided
//!    by `repeat_penalty` if positive and multiplied by it otherwise.
//! 3. **Greedy**, if `temperature` is 0: the largest logit, the lowest index on ties. No random number is drawn.
//! 4. **top-k**: the `top_k` largest logits survive (ties: lowest index).
//! 5. **top-p**: the shortest prefix of the survivors, in descending order, whose probability reaches `top_p`.
//!    Probabilities are those of temperature 1 over the survivors of step 4.
//! 6. **min-p**: tokens at least `min_p` times as likely (at temperature 1) as the likeliest.
//! 7. **Temperature** and one draw.
//!
//! # What a seed means
//!
//! The generator is ChaCha8 ([`rand_chacha::ChaCha8Rng`]), keyed by the seed's eight little-endian bytes followed by 24
//! zero bytes, stream 0. The key is spelled out here rather than left to `seed_from_u64`, whose expansion belongs to
//! another crate's release. Each sampled token takes exactly one 64-bit word `x`, as `u = (x >> 11) · 2⁻⁵³` in `[0, 1)`;
//! the token is the first candidate whose cumulative weight exceeds `u · total`, in `f64`. Candidates stand in descending
//! order of logit (ties: ascending index) when any of top-k, top-p or min-p is on; when none is, they stand in order of
//! index and are summed by blocks of 64. A test pins the sequence.
//!
//! Nothing is allocated after [`Sampler::new`].

mod logprobs;
mod scan;
mod settings;
#[cfg(test)]
mod tests;

pub use logprobs::top_logprobs;
pub use settings::{SamplerError, Sampling};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use scan::Candidate;

/// Chooses tokens by one set of [`Sampling`] settings, remembering what repetition penalties need.
#[derive(Clone, Debug)]
pub struct Sampler {
    settings: Sampling,
    vocab_size: usize,
    rng: ChaCha8Rng,
    /// The last `repeat_last_n` accepted tokens, as a ring; empty when no penalty applies.
    recent: Vec<u32>,
    recent_len: usize,
    recent_next: usize,
    /// The penalised copy of a row; empty when no penalty applies.
    penalised: Vec<f32>,
    candidates: Vec<Candidate>,
    /// Sums of weights over blocks of a row from which nothing was cut.
    sums: Vec<f64>,
}

impl Sampler {
    /// A sampler for rows of `vocab_size` logits.
    ///
    /// # Errors
    /// [`SamplerError::Setting`] names a setting outside its range; [`SamplerError::EmptyVocabulary`] if `vocab_size` is 0.
    pub fn new(settings: Sampling, vocab_size: usize) -> Result<Sampler, SamplerError> {
        settings.validate()?;
        if vocab_size == 0 {
            return Err(SamplerError::EmptyVocabulary);
        }
        let mut key = [0u8; 32];
        key[..8].copy_from_slice(&settings.seed.to_le_bytes());
        let penalises = settings.repeat_penalty != 1.0 && settings.repeat_last_n > 0;
        let candidates = if settings.is_greedy() {
            0
        } else if settings.top_k > 0 {
            scan::top_k_capacity(settings.top_k as usize, vocab_size)
        } else if settings.top_p < 1.0 || settings.min_p > 0.0 {
            vocab_size
        } else {
            0
        };
        Ok(Sampler {
            rng: ChaCha8Rng::from_seed(key),
            recent: vec![0; if penalises { settings.repeat_last_n } else { 0 }],
            recent_len: 0,
            recent_next: 0,
            penalised: vec![0.0; if penalises { vocab_size } else { 0 }],
            candidates: Vec::with_capacity(candidates),
            sums: Vec::with_capacity(vocab_size.div_ceil(scan::BLOCK)),
            settings,
            vocab_size,
        })
    }

    /// The settings this sampler was made from.
    pub fn settings(&self) -> &Sampling {
        &self.settings
    }

    /// Records a token as part of the text, so that the repetition penalty sees it.
    ///
    /// Call it for prompt tokens and for sampled ones alike; [`Sampler::sample`] does not call it. A token outside the
    /// vocabulary takes its place in the window but has no logit to be penalised.
    pub fn accept(&mut self, token: u32) {
        if self.recent.is_empty() {
            return;
        }
        self.recent[self.recent_next] = token;
        self.recent_next = (self.recent_next + 1) % self.recent.len();
        self.recent_len = (self.recent_len + 1).min(self.recent.len());
    }

    /// The next token for one row of logits, `logits [V]`.
    ///
    /// # Errors
    /// [`SamplerError::Length`] if the row is not `vocab_size` long, [`SamplerError::BadLogit`] for NaN or `+∞`, and
    /// [`SamplerError::NoCandidate`] if every logit is `−∞`.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32, SamplerError> {
        if logits.len() != self.vocab_size {
            return Err(SamplerError::Length {
                expected: self.vocab_size,
                found: logits.len(),
            });
        }
        let mut max = scan::checked_max(logits)?;
        let penalised = self.penalise(logits);
        let row = if penalised { &self.penalised } else { logits };
        if penalised {
            // A penalty below 1 can lift a finite logit past `f32::MAX`, so the copy is checked as well.
            max = scan::checked_max(row)?;
        }
        if self.settings.is_greedy() {
            return Ok(scan::first_equal(row, max));
        }
        let cut = collect(&self.settings, row, max, &mut self.candidates);
        let u = (self.rng.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64);
        let inverse = 1.0 / f64::from(self.settings.temperature);
        Ok(if cut {
            draw(&self.candidates, max, inverse, u)
        } else {
            draw_row(row, max, inverse, u, &mut self.sums)
        })
    }

    /// Fills the penalised copy of `logits`; false if nothing is to be penalised.
    fn penalise(&mut self, logits: &[f32]) -> bool {
        if self.recent_len == 0 {
            return false;
        }
        self.penalised.copy_from_slice(logits);
        for &token in &self.recent[..self.recent_len] {
            // Writing from the untouched row makes a repeated token's penalty apply once, without a set.
            if let Some(&logit) = logits.get(token as usize) {
                self.penalised[token as usize] = if logit > 0.0 {
                    logit / self.settings.repeat_penalty
                } else {
                    logit * self.settings.repeat_penalty
                };
            }
        }
        true
    }
}

/// Applies top-k, top-p and min-p; false if none is on, and then `out` is left alone.
fn collect(settings: &Sampling, row: &[f32], max: f32, out: &mut Vec<Candidate>) -> bool {
    let (top_p, min_p) = (f64::from(settings.top_p), f64::from(settings.min_p));
    let top_k = settings.top_k as usize;
    if top_k == 0 && top_p >= 1.0 && min_p == 0.0 {
        return false;
    }
    let weight = |logit: f32| scan::weight(logit, max, 1.0);
    // ln(0) is −∞: with min-p off the threshold excludes nothing.
    let threshold = f64::from(max) + min_p.ln();
    let mut target = f64::INFINITY;
    if top_k > 0 && top_k < row.len() {
        scan::top_k(row, top_k, out);
        if top_p < 1.0 {
            target = top_p * out.iter().map(|c| weight(c.1)).sum::<f64>();
        }
    } else if top_p < 1.0 {
        let total: f64 = row.iter().map(|&logit| weight(logit)).sum();
        target = top_p * total;
        // All tokens lighter than (1 − p) · total / V together weigh less than (1 − p) · total, so the prefix ends
        // before them; the half leaves room for rounding. That spares sorting nearly the whole row.
        let lightest = 0.5 * (1.0 - top_p) * total / row.len() as f64;
        scan::at_least(row, threshold.max(f64::from(max) + lightest.ln()), out);
    } else {
        scan::at_least(row, threshold, out);
    }
    scan::keep_prefix(out, |c| weight(c.1), target);
    let kept = out.partition_point(|c| f64::from(c.1) >= threshold);
    out.truncate(kept.max(1));
    true
}

/// The first candidate whose cumulative weight `exp((logit − max) / T)` exceeds `u` times the total.
fn draw(list: &[Candidate], max: f32, inverse_temperature: f64, u: f64) -> u32 {
    let weight = |c: &Candidate| scan::weight(c.1, max, inverse_temperature);
    let target = u * list.iter().map(weight).sum::<f64>();
    pick(list.iter().map(|c| (c.0, weight(c))), 0.0, target)
}

/// As [`draw`], over a whole row in order of index. Sums are kept per block, so that each exponential of a long row is
/// computed once, and only those of the block that is hit a second time.
fn draw_row(row: &[f32], max: f32, inverse_temperature: f64, u: f64, sums: &mut Vec<f64>) -> u32 {
    let weight = |&logit: &f32| scan::weight(logit, max, inverse_temperature);
    sums.clear();
    let blocks = row.chunks(scan::BLOCK);
    sums.extend(blocks.map(|block| block.iter().map(weight).sum::<f64>()));
    let target = u * sums.iter().sum::<f64>();
    let (mut before, mut hit) = (0.0, 0);
    for (index, &sum) in sums.iter().enumerate() {
        if sum > 0.0 {
            hit = index;
            if before + sum > target {
                break;
            }
            before += sum;
        }
    }
    let first = hit * scan::BLOCK;
    let block = &row[first..row.len().min(first + scan::BLOCK)];
    pick(
        (first as u32..).zip(block.iter().map(weight)),
        before,
        target,
    )
}

/// The first token at which `cumulative` exceeds `target`. Rounding may leave the sum a hair below; then it is the last
/// one that has any weight.
fn pick(weights: impl Iterator<Item = (u32, f64)>, mut cumulative: f64, target: f64) -> u32 {
    let mut last = 0;
    for (token, weight) in weights {
        if weight > 0.0 {
            cumulative += weight;
            last = token;
            if cumulative > target {
                break;
            }
        }
    }
    last
}
