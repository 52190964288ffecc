//! `bench`: load time, prompt and decode speed, and how near they come to what memory allows.
//!
//! Prompt and decode are timed apart and each from an empty context, as llama.cpp's tool does, so that figures compare:
//! `--prompt-tokens` tokens in chunks, and `--tokens` single steps. One run that is not counted comes first, so that every
//! page has been touched; speeds are then the median of `--repeat` runs, latencies those of all. The first token is timed
//! once from the process's start, right after loading, for a prompt of five tokens, and then for prompts of several
//! lengths from the moment they are known.
//!
//! `--tune` does nothing of this: it times how launches can be laid out, and writes what is best.
//! `--compare` adds the same steps replayed and eager, `--plot` their times along the context, `--profile` where a step's
//! time goes.

mod compare;
mod first;
mod measure;
mod plot;
mod report;

use std::path::Path;
use std::time::{Duration, Instant};

use super::args::{BenchArgs, Format};
use super::config::Config;
use super::error::CliError;
use super::load::{self, Loaded, Wanted};
use super::profile::Measured;
use super::progress::Progress;
use super::{output, profile, whole_file};
use crate::model::Logits;
use crate::runtime::{self, Part, Session};
use crate::tokenizer::{Encode, Tokenizer};
use measure::{first_token, made_up_tokens, run_once};
use report::{Timings, summary, table};

pub use measure::go_to;

/// A prompt of five tokens for every tokenizer we know; any other has what it has.
const FIRST_PROMPT: &str = "Once upon a time,";

/// Steps of which `--profile` takes the median.
const PROFILED_STEPS: usize = 20;
/// Prompt chunks of which it does, each as long as hundreds of steps.
const PROFILED_CHUNKS: usize = 5;

pub fn run(args: &BenchArgs, process_start: Instant) -> Result<(), CliError> {
    let config = configured(args)?;
    if let Some(file) = &args.plot {
        plot::check(file)?;
    }
    let progress = Progress::new(args.output.quiet);
    let (mut session, tokenizer, load_time) = loaded(args, &config, &progress)?;
    if let Some(file) = &args.tune {
        return tune(&session, file);
    }
    session
        .set_sampling(&config.sampling)
        .map_err(CliError::runtime)?;
    let profile = args.profile.then(|| profiled_position(args, &session));
    let profile = profile.transpose()?;

    let first = first_prompt(tokenizer.as_ref(), session.vocabulary())?;
    let first = &first[..first.len().min(session.context() as usize)];
    first_token(&mut session, first)?;
    let first_token_time = process_start.elapsed();

    let streamed = |session: &Session| {
        let measured = session.stream_bytes_per_second();
        measured.map_err(CliError::runtime)
    };
    let stream = streamed(&session)?;
    let bar = progress.steps("runs", args.repeat as u64);
    let mut runs = Vec::new();
    run_once(&mut session, args)?;
    for _ in 0..args.repeat {
        runs.push(run_once(&mut session, args)?);
        bar.add(1);
    }
    drop(bar);
    let first_tokens = first::time(&mut session, args.repeat, &mut |session, tokens| {
        first_token(session, tokens).map(drop)
    })?;
    // The most that was seen, since others' load can only lower it.
    let stream = stream.max(streamed(&session)?);
    let timings = Timings {
        load: load_time,
        first_token: first_token_time,
        stream,
        copy: session.copy_bytes_per_second().map_err(CliError::runtime)?,
    };
    let model = model_name(args, &config);
    let mut json = summary(&session, &runs, args, model, &timings)?;
    json.first_tokens = first::judge(&session, &first_tokens, stream);
    if args.compare.is_some() {
        let plotted = args.plot.is_some();
        let compared = compare::compare(&mut session, args.tokens, args.repeat, stream, plotted)?;
        if let Some(file) = &args.plot {
            plot::write(file, &compared, &json.model, &json.device)?;
        }
        json.compare = Some(compared);
    }
    let profiled = match profile {
        Some(position) => profiled(position, &mut session, stream)?,
        None => Vec::new(),
    };
    let recorded = profiled.iter().map(|(part, m)| m.recorded(&session, *part));
    match args.output.format {
        Format::Json => {
            let mut documents = recorded.map(|r| runtime::recorded::document(&r));
            json.profile = documents.next();
            json.prompt_profile = documents.next();
            output::json(&json)
        }
        Format::Text => {
            let summaries = recorded.filter_map(|r| runtime::recorded::summary(&r));
            let summaries: String = summaries.map(|text| format!("\n{text}")).collect();
            output::text(&(table(&json) + &summaries))
        }
    }
}

/// Tokens that a context must hold.
fn needed(args: &BenchArgs) -> usize {
    args.prompt_tokens.max(args.tokens)
}

fn configured(args: &BenchArgs) -> Result<Config, CliError> {
    let mut config = Config::load(&args.model).map_err(CliError::input)?;
    config
        .apply_session(&args.session)
        .map_err(CliError::input)?;
    config.apply_sampling(&args.sampling);
    config.sampling.validate().map_err(CliError::input)?;
    let needed = needed(args);
    if let Some(context) = config.context.filter(|&context| context < needed) {
        let text =
            format!("a context of {context} does not hold the {needed} tokens that are timed");
        return Err(CliError::Input(text));
    }
    Ok(config)
}

/// The session, the tokenizer of a model that is not made up, and how long loading took.
fn loaded(
    args: &BenchArgs,
    config: &Config,
    progress: &Progress,
) -> Result<(Session, Option<Tokenizer>, Duration), CliError> {
    let wanted = Wanted {
        context_at_least: needed(args),
        logits: Logits::Last,
        progress,
    };
    if args.random_weights {
        let (session, time) = load::load_random(config, &args.weights_type, &wanted)?;
        return Ok((session, None, time));
    }
    let Loaded {
        session,
        tokenizer,
        load_time,
        ..
    } = load::load(config, &wanted)?;
    Ok((session, Some(tokenizer), load_time))
}

fn model_name(args: &BenchArgs, config: &Config) -> String {
    match (&config.name, args.random_weights) {
        (_, true) => format!("random {} weights", args.weights_type),
        (Some(name), false) if args.model.model.is_none() => name.clone(),
        _ => config.sources[0].origin.to_string(),
    }
}

/// The position of the step that is profiled.
fn profiled_position(args: &BenchArgs, session: &Session) -> Result<u32, CliError> {
    profile::position(args.position, 1, session.context())
}

/// Where the time of a step at this position goes, and of a prompt's chunk.
fn profiled(
    step: u32,
    session: &mut Session,
    stream: f64,
) -> Result<Vec<(Part, Measured)>, CliError> {
    // A prompt begins with an empty cache.
    let parts = [
        (Part::Decode, step, PROFILED_STEPS),
        (Part::Prompt, 0, PROFILED_CHUNKS),
    ];
    let measure = |(part, position, steps)| {
        let found = profile::measure(session, part, position, steps, stream)?;
        Ok((part, found))
    };
    parts.into_iter().map(measure).collect()
}

/// Writes the device's tuning table.
fn tune(session: &Session, file: &Path) -> Result<(), CliError> {
    let table = session.tune().map_err(CliError::runtime)?;
    let Some(table) = table else {
        let device = session.report().device;
        let text = format!("--tune: nothing is tuned on {device}; only on a GPU");
        return Err(CliError::Input(text));
    };
    let failed = |error| CliError::Input(format!("--tune {}: {error}", file.display()));
    whole_file::write(file, table.as_bytes()).map_err(failed)?;
    output::text(&table)
}

fn first_prompt(tokenizer: Option<&Tokenizer>, vocabulary: u32) -> Result<Vec<u32>, CliError> {
    let Some(tokenizer) = tokenizer else {
        return Ok(made_up_tokens(5, vocabulary));
    };
    let options = Encode {
        special: true,
        bos: false,
    };
    let mut tokens = tokenizer
        .encode(FIRST_PROMPT, options)
        .map_err(CliError::input)?;
    tokens.truncate(5);
    Ok(tokens)
}
