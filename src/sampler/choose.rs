//! The twin: one thread's way to the token that the module's page promises.

use super::scan::{self, Candidate};
use super::{Rule, SamplerError, share, weight, word};

/// How the weights of a row are computed: [`super::weigh`], or an instance of it for a machine's instructions.
pub type Weigh<'f> = &'f dyn Fn(&[f32], f32, f32, f32, &mut [u64]);

/// Elements whose weights are summed before any is looked at again.
const BLOCK: usize = 1024;

/// Chooses tokens. What is needed is allocated once.
#[derive(Clone, Debug)]
pub struct Chooser {
    penalised: Vec<f32>,
    /// How often each token is among the recent ones; zeros between two rows.
    counts: Vec<u32>,
    candidates: Vec<Candidate>,
    /// Of a row, block by block or in the order of the candidates.
    weights: Vec<u64>,
    sums: Vec<u64>,
}

impl Chooser {
    /// For rows of `vocabulary` logits.
    pub fn new(vocabulary: usize) -> Chooser {
        Chooser {
            penalised: vec![0.0; vocabulary],
            counts: vec![0; vocabulary],
            candidates: Vec::with_capacity(vocabulary),
            weights: vec![0; vocabulary],
            sums: Vec::with_capacity(vocabulary.div_ceil(BLOCK)),
        }
    }

    /// The token for `position` of a sequence, whose last tokens `recent` are those that the penalties look at.
    ///
    /// # Errors
    /// [`SamplerError::Length`] if the row is not as long as promised, [`SamplerError::BadLogit`] for NaN or `+∞`, and
    /// [`SamplerError::NoCandidate`] if every logit is `−∞`.
    pub fn choose(
        &mut self,
        rule: &Rule,
        logits: &[f32],
        recent: &[u32],
        position: u32,
        weigh: Weigh<'_>,
    ) -> Result<u32, SamplerError> {
        let (expected, found) = (self.penalised.len(), logits.len());
        if expected != found {
            return Err(SamplerError::Length { expected, found });
        }
        let Chooser {
            penalised,
            counts,
            candidates,
            weights,
            sums,
        } = self;
        let row = if recent.is_empty() {
            logits
        } else {
            penalise(rule, logits, recent, counts, penalised);
            &penalised[..]
        };
        let max = scan::checked_max(row)?;
        if rule.greedy {
            return Ok(scan::first_equal(row, max));
        }
        let word = word(rule.seed, position);
        if !collect(rule, row, max, candidates, weights, weigh) {
            return Ok(draw_row(rule, row, max, word, sums, weights, weigh));
        }
        Ok(draw(rule, candidates, max, word))
    }
}

#[cfg(test)]
impl Chooser {
    /// Of everything that could grow.
    pub(super) fn capacities(&self) -> [usize; 5] {
        [
            self.penalised.capacity(),
            self.counts.capacity(),
            self.candidates.capacity(),
            self.weights.capacity(),
            self.sums.capacity(),
        ]
    }
}

/// Fills the penalised copy of `logits`. Writing from the untouched row makes a repeated token's penalties apply once,
/// without a set. `counts` has zeros before and after.
fn penalise(rule: &Rule, logits: &[f32], recent: &[u32], counts: &mut [u32], out: &mut [f32]) {
    out.copy_from_slice(logits);
    let known = || {
        recent
            .iter()
            .map(|&token| token as usize)
            .filter(|&token| token < logits.len())
    };
    known().for_each(|token| counts[token] += 1);
    known().for_each(|token| out[token] = rule.penalised(logits[token], counts[token]));
    known().for_each(|token| counts[token] = 0);
}

/// Applies top-k and top-p; false if neither is on, and then nothing was collected.
fn collect(
    rule: &Rule,
    row: &[f32],
    max: f32,
    out: &mut Vec<Candidate>,
    weights: &mut [u64],
    weigh: Weigh<'_>,
) -> bool {
    let top_k = rule.top_k as usize;
    let plain = |c: &Candidate| weight(c.1, max, 1.0);
    if top_k > 0 && top_k < row.len() {
        scan::top_k(row, top_k, out);
        if let Some(p) = rule.top_p {
            let total = out.iter().map(plain).sum();
            scan::keep_prefix(out, plain, share(p, total));
        }
        return true;
    }
    let Some(p) = rule.top_p else {
        return false;
    };
    weigh(row, max, 1.0, f32::NEG_INFINITY, weights);
    let total: u64 = weights.iter().sum();
    let target = share(p, total);
    // All tokens lighter than (total − target) / V together weigh less than total − target, so the prefix ends before
    // them; the half leaves room for weights that are not quite in the order of their logits. That spares sorting
    // nearly the whole row.
    let lightest = (total - target) / row.len() as u64 / 2;
    scan::at_least(row, weights, lightest, out);
    scan::keep_prefix(out, plain, target);
    true
}

/// Draws among candidates, in order of index.
fn draw(rule: &Rule, list: &mut Vec<Candidate>, max: f32, word: u64) -> u32 {
    list.retain(|c| c.1 - max >= rule.floor);
    list.sort_unstable_by_key(|c| c.0);
    let weight = |c: &Candidate| weight(c.1, max, rule.inverse_temperature);
    let drawn = share(word, list.iter().map(weight).sum());
    pick(list.iter().map(|c| (c.0, weight(c))), drawn)
}

/// As [`draw`], over a whole row. Sums are kept per block, so that a block's weights are looked at again only where it
/// is hit.
fn draw_row(
    rule: &Rule,
    row: &[f32],
    max: f32,
    word: u64,
    sums: &mut Vec<u64>,
    weights: &mut [u64],
    weigh: Weigh<'_>,
) -> u32 {
    weigh(row, max, rule.inverse_temperature, rule.floor, weights);
    sums.clear();
    sums.extend(weights.chunks(BLOCK).map(|block| block.iter().sum::<u64>()));
    let drawn = share(word, sums.iter().sum());
    let mut before = 0;
    let hit = sums.iter().position(|&sum| {
        let hit = before + sum > drawn;
        before += if hit { 0 } else { sum };
        hit
    });
    let first = hit.expect("what is drawn is below the total") * BLOCK;
    let block = &weights[first..weights.len().min(first + BLOCK)];
    pick((first as u32..).zip(block.iter().copied()), drawn - before)
}

/// The first token at which the cumulative weight exceeds what was drawn below the total.
fn pick(weights: impl Iterator<Item = (u32, u64)>, drawn: u64) -> u32 {
    let mut cumulative = 0;
    for (token, weight) in weights {
        cumulative += weight;
        if cumulative > drawn {
            return token;
        }
    }
    unreachable!("what is drawn is below the total")
}
