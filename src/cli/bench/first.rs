//! Time to first token by the length of the prompt.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::super::error::CliError;
use super::super::generate::ms;
use super::super::output::{figure, per_second};
use super::measure::{made_up_tokens, percentile};
use crate::runtime::Session;

/// The lengths that are timed; where the context is shorter, it takes their place.
const LENGTHS: [usize; 4] = [5, 128, 512, 4096];

/// A length is timed anew until this much time has gone into it, or `--repeat` times.
const ENOUGH: Duration = Duration::from_secs(2);

/// A prompt that would take longer is not timed. (One of 4,096 tokens through a 7B model takes two cores minutes.)
const TOO_LONG: Duration = Duration::from_secs(20);

/// How long people wait for the first token of a prompt, from an empty context.
#[derive(Serialize)]
pub struct FirstToken {
    pub prompt_tokens: usize,
    /// The median; `null` where the shorter prompts showed that it would take too long.
    pub ms: Option<f64>,
    pub tokens_per_s: Option<f64>,
    /// What reading every weight once takes, which no prompt can be faster than.
    pub limit_ms: f64,
    pub limit_percent: Option<f64>,
}

/// Computes a prompt and chooses a token.
pub type FirstTokenOf<'f> = dyn FnMut(&mut Session, &[u32]) -> Result<(), CliError> + 'f;

/// A length and its median time, where it was timed.
pub type Timed = (usize, Option<Duration>);

/// Times every length that the context holds.
pub fn time(
    session: &mut Session,
    repeat: usize,
    first_token: &mut FirstTokenOf<'_>,
) -> Result<Vec<Timed>, CliError> {
    let mut timed: Vec<Timed> = Vec::new();
    let mut seconds_per_token = 0.0;
    for length in lengths(session.context() as usize) {
        let expected = seconds_per_token * length as f64;
        if expected > TOO_LONG.as_secs_f64() {
            timed.push((length, None));
            continue;
        }
        let tokens = made_up_tokens(length, session.vocabulary());
        let mut times = Vec::new();
        let begin = Instant::now();
        while times.len() < repeat && (times.is_empty() || begin.elapsed() < ENOUGH) {
            session.reset();
            let begin = Instant::now();
            first_token(session, &tokens)?;
            times.push(begin.elapsed());
        }
        times.sort_unstable();
        let median = percentile(&times, 50);
        seconds_per_token = median.as_secs_f64() / length as f64;
        timed.push((length, Some(median)));
    }
    session.reset();
    Ok(timed)
}

/// [`LENGTHS`] up to the context, and the context itself where it is less than the greatest.
fn lengths(context: usize) -> Vec<usize> {
    let mut lengths: Vec<usize> = LENGTHS.iter().map(|&length| length.min(context)).collect();
    lengths.dedup();
    lengths
}

/// What was timed, beside what a device that reads `stream` bytes a second allows.
pub fn judge(session: &Session, timed: &[Timed], stream: f64) -> Vec<FirstToken> {
    let weight_bytes = session.decode_program().cost().weight_bytes as f64;
    let limit_s = weight_bytes / stream;
    let judge = |&(prompt_tokens, time): &Timed| {
        let seconds = time.map(|time| time.as_secs_f64());
        FirstToken {
            prompt_tokens,
            ms: time.map(ms),
            tokens_per_s: seconds.and_then(|s| per_second(prompt_tokens as f64, s)),
            limit_ms: limit_s * 1e3,
            limit_percent: seconds.and_then(|s| per_second(100.0 * limit_s, s)),
        }
    };
    timed.iter().map(judge).collect()
}

/// A line a length.
pub fn table(first_tokens: &[FirstToken]) -> String {
    let line = |first: &FirstToken| {
        let n = first.prompt_tokens;
        let name = format!("first token of {n}");
        match first.ms {
            None => format!("{name:<22} not timed: more than {} s\n", TOO_LONG.as_secs()),
            Some(_) => format!(
                "{name:<22} {} ms, {} tok/s; reading the weights once takes {} ms, {} %\n",
                figure(first.ms),
                figure(first.tokens_per_s),
                figure(Some(first.limit_ms)),
                figure(first.limit_percent),
            ),
        }
    };
    first_tokens.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_bounds_the_lengths() {
        assert_eq!(lengths(8192), [5, 128, 512, 4096]);
        assert_eq!(lengths(2048), [5, 128, 512, 2048]);
        assert_eq!(lengths(100), [5, 100]);
        assert_eq!(lengths(3), [3]);
    }
}
