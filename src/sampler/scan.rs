//! The passes over a whole row of logits, written so that the compiler vectorises them.
//!
//! A vocabulary has 50,000 to 250,000 entries and a decode step lasts about a millisecond, so nothing here sorts a row:
//! the maximum is one pass, and the largest `k` are collected behind a threshold that rises as they are found.

use super::SamplerError;
use std::cmp::Ordering;

/// A token and its logit.
pub(super) type Candidate = (u32, f32);

/// Elements that are looked at together. A block whose maximum does not beat the threshold is skipped whole.
pub(super) const BLOCK: usize = 64;

/// Descending by logit, ascending by token among equals. Logits have been checked, so none is NaN.
pub(super) fn descending(a: &Candidate, b: &Candidate) -> Ordering {
    b.1.partial_cmp(&a.1)
        .unwrap_or(Ordering::Equal)
        .then(a.0.cmp(&b.0))
}

/// The maximum of a block by comparison alone, which compiles to one instruction a lane; NaN never wins.
fn block_max(block: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let mut chunks = block.chunks_exact(16);
    for chunk in &mut chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    let rest = chunks.remainder().iter();
    lanes
        .iter()
        .chain(rest)
        .fold(f32::NEG_INFINITY, |m, &x| if x > m { x } else { m })
}

/// Whether a logit is NaN or `+∞`; without a branch, so that a loop over it vectorises.
fn is_bad(x: f32) -> bool {
    x.is_nan() | (x == f32::INFINITY)
}

/// The largest logit of a row in which none is NaN or `+∞` and at least one is finite.
pub(super) fn checked_max(row: &[f32]) -> Result<f32, SamplerError> {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let mut bad = [0u32; 16];
    let mut chunks = row.chunks_exact(16);
    for chunk in &mut chunks {
        for ((lane, flag), &x) in lanes.iter_mut().zip(&mut bad).zip(chunk) {
            *lane = if x > *lane { x } else { *lane };
            *flag |= u32::from(is_bad(x));
        }
    }
    let mut max = f32::NEG_INFINITY;
    let mut any_bad = bad.iter().any(|&flag| flag != 0);
    for &x in lanes.iter().chain(chunks.remainder()) {
        max = if x > max { x } else { max };
        any_bad |= is_bad(x);
    }
    let count = row.len();
    if any_bad && let Some(index) = row.iter().position(|&x| is_bad(x)) {
        let value = row[index];
        return Err(SamplerError::BadLogit {
            index,
            count,
            value,
        });
    }
    if max == f32::NEG_INFINITY {
        return Err(SamplerError::NoCandidate { count });
    }
    Ok(max)
}

/// The first index that holds `value`, which must occur.
pub(super) fn first_equal(row: &[f32], value: f32) -> u32 {
    let mut start = 0;
    for block in row.chunks(BLOCK) {
        // A sum over the block instead of an early exit lets the comparison vectorise.
        if block.iter().map(|&x| u32::from(x == value)).sum::<u32>() > 0 {
            break;
        }
        start += block.len();
    }
    let within = row[start.min(row.len())..].iter().position(|&x| x == value);
    (start + within.expect("the maximum of a row occurs in it")) as u32
}

/// The room [`top_k`] needs in its list so that it never grows.
pub(super) fn top_k_capacity(k: usize, vocab_size: usize) -> usize {
    k.saturating_mul(2).saturating_add(BLOCK).min(vocab_size)
}

/// Collects the `k ≥ 1` largest logits of a row, unsorted, lower indices first among equals.
pub(super) fn top_k(row: &[f32], k: usize, out: &mut Vec<Candidate>) {
    out.clear();
    let limit = top_k_capacity(k, row.len());
    // Indices ascend, so an equal logit found later loses against every one that is kept: the comparison is strict.
    let mut threshold = f32::NEG_INFINITY;
    let mut open = true;
    for (number, block) in row.chunks(BLOCK).enumerate() {
        if !open && block_max(block) <= threshold {
            continue;
        }
        for (token, &logit) in ((number * BLOCK) as u32..).zip(block) {
            if open || logit > threshold {
                out.push((token, logit));
                if out.len() == limit && limit > k {
                    out.select_nth_unstable_by(k - 1, descending);
                    out.truncate(k);
                    threshold = out[k - 1].1;
                    open = false;
                }
            }
        }
    }
    if out.len() > k {
        out.select_nth_unstable_by(k - 1, descending);
        out.truncate(k);
    }
}

/// Collects every token that weighs at least `lightest`, in order of index.
pub(super) fn at_least(row: &[f32], weights: &[u64], lightest: u64, out: &mut Vec<Candidate>) {
    out.clear();
    let all = (0u32..).zip(row).zip(weights);
    out.extend(all.filter_map(|((token, &x), &w)| (w >= lightest).then_some((token, x))));
}

/// Sorts `list` and keeps its shortest prefix whose weights reach `target`; all of it if they never do, and at least
/// one. Only as much as is kept gets sorted, to within a factor.
pub(super) fn keep_prefix(
    list: &mut Vec<Candidate>,
    weight: impl Fn(&Candidate) -> u64,
    target: u64,
) {
    let (mut sorted, mut step, mut cumulative) = (0, 128, 0);
    while sorted < list.len() {
        let rest = &mut list[sorted..];
        let take = step.min(rest.len());
        if take < rest.len() {
            rest.select_nth_unstable_by(take - 1, descending);
        }
        rest[..take].sort_unstable_by(descending);
        for (index, candidate) in rest[..take].iter().enumerate() {
            cumulative += weight(candidate);
            if cumulative >= target {
                list.truncate(sorted + index + 1);
                return;
            }
        }
        sorted += take;
        step *= 4;
    }
}
