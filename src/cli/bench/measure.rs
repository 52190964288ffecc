//! Timing: prompts, steps, and the order statistics of what was timed.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::super::args::BenchArgs;
use super::super::error::CliError;
use crate::cpu::clock::process_time;
use crate::generate::hash_logits;
use crate::runtime::Session;

/// One run's measurements.
pub struct Run {
    pub prompt: Duration,
    pub decode: Duration,
    pub steps: Vec<Duration>,
    pub replays: u64,
    pub eager_steps: u64,
    pub launch_us: Option<f64>,
    /// Processor time of the host in all, where the host does not compute.
    pub host: Option<Duration>,
    pub logits_hash: u64,
}

pub fn run_once(session: &mut Session, args: &BenchArgs) -> Result<Run, CliError> {
    let vocabulary = session.vocabulary();
    let prompt = made_up_tokens(args.prompt_tokens, vocabulary);
    session.reset();
    let begin = Instant::now();
    first_token(session, &prompt)?;
    let prompt = begin.elapsed();

    session.reset();
    let before = session.report();
    let token = made_up_tokens(1, vocabulary)[0];
    let mut steps = Vec::with_capacity(args.tokens);
    let worked = process_time();
    let begin = Instant::now();
    session.step(token).map_err(CliError::runtime)?;
    let mut decode = session.decode(args.tokens).map_err(CliError::runtime)?;
    let mut last = begin;
    while decode.next().map_err(CliError::runtime)?.is_some() {
        // Tokens that arrive together took an equal share of the time each.
        let arrived = 1 + decode.ready() as u32;
        for _ in 1..arrived {
            decode.next().map_err(CliError::runtime)?;
        }
        let now = Instant::now();
        steps.extend((0..arrived).map(|_| (now - last) / arrived));
        last = now;
    }
    let host = process_time()
        .zip(worked)
        .map(|(after, before)| after - before);
    let logits_hash = hash_logits(decode.end().map_err(CliError::runtime)?);
    let after = session.report();
    Ok(Run {
        host: host.filter(|_| after.decode_launch_us.is_some()),
        prompt,
        decode: last - begin,
        steps,
        replays: after.replays - before.replays,
        eager_steps: after.eager_steps - before.eager_steps,
        launch_us: after
            .decode_launch_us
            .zip(before.decode_launch_us)
            .map(|(a, b)| a - b),
        logits_hash,
    })
}

/// Computes a prompt and chooses a token, as the first of a text would be.
pub fn first_token(session: &mut Session, tokens: &[u32]) -> Result<u32, CliError> {
    session
        .prefill(tokens, &mut |_| ControlFlow::Continue(()))
        .map_err(CliError::runtime)?;
    session.chosen().map_err(CliError::runtime)
}

/// Brings the sequence to `position` tokens: by made-up ones where it is shorter.
pub fn go_to(session: &mut Session, position: u32) -> Result<(), CliError> {
    session.truncate(position);
    let at = session.position() as usize;
    let tokens = made_up_tokens(position as usize, session.vocabulary());
    if let Some(missing) = tokens.get(at..).filter(|t| !t.is_empty()) {
        session
            .prefill(missing, &mut |_| ControlFlow::Continue(()))
            .map_err(CliError::runtime)?;
    }
    Ok(())
}

/// Tokens for timing, the same in every run: multiples of a prime, so that they repeat late.
pub fn made_up_tokens(count: usize, vocabulary: u32) -> Vec<u32> {
    let token = |index: usize| (index as u64 + 1) * 7919 % u64::from(vocabulary);
    (0..count).map(|index| token(index) as u32).collect()
}

/// The smallest value that at least `percent` of the sorted values do not exceed.
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let check = |count: u64, percent: usize, expected: u64| {
            let sorted: Vec<Duration> = (1..=count).map(Duration::from_millis).collect();
            assert_eq!(
                percentile(&sorted, percent),
                Duration::from_millis(expected)
            );
        };
        check(1, 50, 1);
        check(4, 50, 2);
        check(100, 90, 90);
        check(100, 99, 99);
        check(128, 99, 127);
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }
}
