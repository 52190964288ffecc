//! Log-probabilities for display: what the model thought, before any setting cut or bent it.

use super::{SamplerError, scan};

/// Writes the `n` likeliest tokens and their natural log-probabilities to `out`, likeliest first, ties by lower index.
///
/// `out` is cleared first; fewer than `n` entries result only if the row is shorter. The log-softmax is summed in `f64`
/// over the whole row at temperature 1 and rounded once, so the figures do not depend on sampling settings. `out` is the
/// only memory used, and it stops growing after the first call.
///
/// # Errors
/// [`SamplerError::BadLogit`] for NaN or `+∞` and [`SamplerError::NoCandidate`] if every logit is `−∞`.
pub fn top_logprobs(
    logits: &[f32],
    n: usize,
    out: &mut Vec<(u32, f32)>,
) -> Result<(), SamplerError> {
    out.clear();
    let max = f64::from(scan::checked_max(logits)?);
    if n == 0 {
        return Ok(());
    }
    let sum: f64 = logits.iter().map(|&x| (f64::from(x) - max).exp()).sum();
    let log_sum = sum.ln();
    scan::top_k(logits, n, out);
    out.sort_unstable_by(scan::descending);
    for entry in out {
        entry.1 = (f64::from(entry.1) - max - log_sum) as f32;
    }
    Ok(())
}
