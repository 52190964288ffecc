//! `bench --compare … --plot FILE`: time a token against the context, both ways.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::super::error::CliError;
use super::super::generate::ms;
use super::super::output::figure;
use super::super::svg::{Chart, Line, svg};
use super::super::whole_file;
use super::compare::{Comparison, MODES, steps};
use super::measure::{go_to, made_up_tokens, percentile};
use crate::runtime::Session;

/// Contexts that are measured: these eighths of the capacity.
const EIGHTHS: [u32; 5] = [0, 1, 2, 4, 8];

/// Steps that are timed at a context, in each of [`TURNS`] turns of each mode.
const STEPS: u32 = 8;

/// Turns of each mode; the first is not counted.
const TURNS: usize = 4;

/// The median step at one context.
#[derive(Serialize)]
pub struct Context {
    position: u32,
    replay_ms_p50: f64,
    eager_ms_p50: f64,
}

impl Context {
    /// For people.
    pub fn line(&self) -> String {
        let [replay, eager] = [self.replay_ms_p50, self.eager_ms_p50].map(|ms| figure(Some(ms)));
        let position = format!("ms/step p50 at {}", self.position);
        format!("{position:<28} {replay:>12} {eager:>12}\n")
    }
}

/// Times both modes in turn at a few contexts, from none to the last steps that fit.
pub fn contexts(session: &mut Session) -> Result<Vec<Context>, CliError> {
    let capacity = session.context();
    let count = STEPS.min(capacity);
    let mut positions = EIGHTHS
        .map(|eighths| (capacity / 8 * eighths).min(capacity - count))
        .to_vec();
    positions.dedup();
    let vocabulary = session.vocabulary();
    positions
        .into_iter()
        .map(|position| {
            let all = made_up_tokens((position + count) as usize, vocabulary);
            let tokens = &all[position as usize..];
            let mut times = [Vec::new(), Vec::new()];
            for turn in 0..TURNS {
                for (mode, times) in MODES.into_iter().zip(&mut times) {
                    go_to(session, position)?;
                    let measured = steps(session, mode, tokens, &mut |_, _| ())?;
                    times.extend(measured.into_iter().filter(|_| turn > 0));
                }
            }
            let [replay, eager] = times.map(median);
            Ok(Context {
                position,
                replay_ms_p50: ms(replay),
                eager_ms_p50: ms(eager),
            })
        })
        .collect()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    percentile(&times, 50)
}

/// Draws the contexts of a comparison.
pub fn write(
    file: &Path,
    comparison: &Comparison,
    model: &str,
    device: &str,
) -> Result<(), CliError> {
    let line = |name: &str, value: &dyn Fn(&Context) -> f64| Line {
        name: name.into(),
        points: comparison
            .contexts
            .iter()
            .map(|c| (f64::from(c.position), value(c)))
            .collect(),
    };
    // A path says more than a title has room for.
    let model = Path::new(model)
        .file_name()
        .map_or(model.into(), |name| name.to_string_lossy());
    let chart = Chart {
        title: format!("Time a token, {model}"),
        subtitle: format!(
            "{device}; median of {} steps at each context",
            STEPS as usize * (TURNS - 1)
        ),
        x_label: "context (tokens in the cache)".into(),
        y_label: "time a token (ms)".into(),
        lines: vec![
            line("replay", &|c| c.replay_ms_p50),
            line("eager", &|c| c.eager_ms_p50),
        ],
    };
    whole_file::write(file, svg(&chart).as_bytes()).map_err(|error| unwritable(file, &error))
}

/// Fails now if the plot could not be written later, when everything has been measured.
pub fn check(file: &Path) -> Result<(), CliError> {
    whole_file::check(file).map_err(|error| unwritable(file, &error))
}

fn unwritable(file: &Path, error: &io::Error) -> CliError {
    CliError::Input(format!("{}: cannot write: {error}", file.display()))
}
