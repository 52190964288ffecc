//! `bench`: load time, prompt and decode speed, and how near they come to what memory allows.
//!
//! Prompt and decode are timed apart and each from an empty context, as llama.cpp's tool does, so that figures compare:
//! `--prompt-tokens` tokens in chunks, and `--tokens` single steps. One run that is not counted comes first, so that every
//! page has been touched; speeds are then the median of `--repeat` runs, latencies those of all. The first token is timed
//! once, right after loading, for a prompt of five tokens.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::args::{BenchArgs, Format};
use super::config::Config;
use super::error::CliError;
use super::generate::{ms, step_bytes};
use super::load::{self, Loaded, Wanted};
use super::output::{self, bytes, figure, per_second};
use super::progress::Progress;
use crate::generate::hash_logits;
use crate::model::Logits;
use crate::runtime::Session;
use crate::sampler::Sampler;
use crate::tokenizer::{Encode, Tokenizer};

/// A prompt of five tokens for every tokenizer we know; any other has what it has.
const FIRST_PROMPT: &str = "Once upon a time,";

#[derive(Serialize)]
struct Json {
    model: String,
    device: String,
    threads: usize,
    context: u32,
    load_ms: f64,
    first_token_ms: f64,
    prompt_tokens: usize,
    prompt_tokens_per_s: Option<f64>,
    tokens: usize,
    decode_tokens_per_s: Option<f64>,
    decode_ms_p50: f64,
    decode_ms_p90: f64,
    decode_ms_p99: f64,
    decode_gb_per_s: Option<f64>,
    stream_gb_per_s: f64,
    stream_percent: Option<f64>,
    replays: u64,
    eager_steps: u64,
    /// Whether replaying replays a recording, and if not, why.
    graph_replay: bool,
    graph_fallback: Option<String>,
    /// Microseconds a step that the host spends in the driver's launch calls (GPUs only).
    launch_us_per_step: Option<f64>,
    launches_per_step: usize,
    weight_bytes: u64,
    kv_bytes: u64,
    arena_bytes: u64,
    logits_hash: String,
    runs: Vec<RunJson>,
}

#[derive(Serialize)]
struct RunJson {
    prompt_tokens_per_s: Option<f64>,
    decode_tokens_per_s: Option<f64>,
}

pub fn run(args: &BenchArgs, process_start: Instant) -> Result<(), CliError> {
    let mut config = Config::load(&args.model).map_err(CliError::input)?;
    config
        .apply_session(&args.session)
        .map_err(CliError::input)?;
    config.apply_sampling(&args.sampling);
    config.sampling.validate().map_err(CliError::input)?;
    let needed = args.prompt_tokens.max(args.tokens);
    if let Some(context) = config.context.filter(|&context| context < needed) {
        let text =
            format!("a context of {context} does not hold the {needed} tokens that are timed");
        return Err(CliError::Input(text));
    }
    let progress = Progress::new(args.output.quiet);
    let wanted = Wanted {
        context_at_least: needed,
        logits: Logits::Last,
        progress: &progress,
    };
    let (mut session, tokenizer, load_time) = if args.random_weights {
        let (session, time) = load::load_random(&config, &args.weights_type, &wanted)?;
        (session, None, time)
    } else {
        let Loaded {
            session,
            tokenizer,
            load_time,
        } = load::load(&config, &wanted)?;
        (session, Some(tokenizer), load_time)
    };
    let mut sampler =
        Sampler::new(config.sampling, session.vocabulary() as usize).map_err(CliError::input)?;

    let first = first_prompt(tokenizer.as_ref(), session.vocabulary())?;
    prefill(&mut session, &first, &mut sampler)?;
    let first_token = process_start.elapsed();

    let stream = session
        .stream_bytes_per_second()
        .map_err(CliError::runtime)?;
    let bar = progress.steps("runs", args.repeat as u64);
    let mut runs = Vec::new();
    run_once(&mut session, &mut sampler, args)?;
    for _ in 0..args.repeat {
        runs.push(run_once(&mut session, &mut sampler, args)?);
        bar.add(1);
    }
    drop(bar);
    let model = match (&config.name, args.random_weights) {
        (_, true) => format!("random {} weights", args.weights_type),
        (Some(name), false) if args.model.model.is_none() => name.clone(),
        _ => config.sources[0].origin.to_string(),
    };
    let json = summary(&session, &runs, args, model, load_time, first_token, stream)?;
    match args.output.format {
        Format::Json => output::json(&json),
        Format::Text => output::text(&table(&json)),
    }
}

/// One run's measurements.
struct Run {
    prompt: Duration,
    decode: Duration,
    steps: Vec<Duration>,
    replays: u64,
    eager_steps: u64,
    launch_us: Option<f64>,
    logits_hash: u64,
}

fn run_once(
    session: &mut Session,
    sampler: &mut Sampler,
    args: &BenchArgs,
) -> Result<Run, CliError> {
    let vocabulary = session.vocabulary();
    let prompt = made_up_tokens(args.prompt_tokens, vocabulary);
    session.reset();
    let begin = Instant::now();
    prefill(session, &prompt, sampler)?;
    let prompt = begin.elapsed();

    session.reset();
    let before = session.report();
    let mut token = made_up_tokens(1, vocabulary)[0];
    let mut steps = Vec::with_capacity(args.tokens);
    let mut logits_hash = 0;
    let begin = Instant::now();
    let mut last = begin;
    for index in 0..args.tokens {
        let logits = session.step(token).map_err(CliError::runtime)?;
        token = sampler.sample(logits).map_err(CliError::runtime)?;
        sampler.accept(token);
        let now = Instant::now();
        steps.push(now - last);
        last = now;
        if index + 1 == args.tokens {
            logits_hash = hash_logits(logits);
        }
    }
    let after = session.report();
    Ok(Run {
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
fn prefill(session: &mut Session, tokens: &[u32], sampler: &mut Sampler) -> Result<u32, CliError> {
    let logits = session
        .prefill(tokens, &mut |_| ControlFlow::Continue(()))
        .map_err(CliError::runtime)?;
    sampler.sample(logits).map_err(CliError::runtime)
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

/// Tokens for timing, the same in every run: multiples of a prime, so that they repeat late.
fn made_up_tokens(count: usize, vocabulary: u32) -> Vec<u32> {
    let token = |index: usize| (index as u64 + 1) * 7919 % u64::from(vocabulary);
    (0..count).map(|index| token(index) as u32).collect()
}

fn summary(
    session: &Session,
    runs: &[Run],
    args: &BenchArgs,
    model: String,
    load_time: Duration,
    first_token: Duration,
    stream: f64,
) -> Result<Json, CliError> {
    let report = session.report();
    let median = |time: fn(&Run) -> Duration| {
        let mut times: Vec<Duration> = runs.iter().map(time).collect();
        times.sort_unstable();
        percentile(&times, 50).as_secs_f64()
    };
    let prompt_s = median(|run| run.prompt);
    let decode_s = median(|run| run.decode);
    let last = runs
        .last()
        .ok_or_else(|| CliError::Usage("--repeat must be at least 1".into()))?;
    let mut steps: Vec<Duration> = runs.iter().flat_map(|run| run.steps.clone()).collect();
    steps.sort_unstable();
    let gb = step_bytes(session, 0..args.tokens) as f64 / 1e9;
    let decode_gb_per_s = per_second(gb, decode_s);
    let rates = |run: &Run| RunJson {
        prompt_tokens_per_s: per_second(args.prompt_tokens as f64, run.prompt.as_secs_f64()),
        decode_tokens_per_s: per_second(args.tokens as f64, run.decode.as_secs_f64()),
    };
    Ok(Json {
        model,
        device: report.device,
        threads: report.threads,
        context: session.context(),
        load_ms: ms(load_time),
        first_token_ms: ms(first_token),
        prompt_tokens: args.prompt_tokens,
        prompt_tokens_per_s: per_second(args.prompt_tokens as f64, prompt_s),
        tokens: args.tokens,
        decode_tokens_per_s: per_second(args.tokens as f64, decode_s),
        decode_ms_p50: ms(percentile(&steps, 50)),
        decode_ms_p90: ms(percentile(&steps, 90)),
        decode_ms_p99: ms(percentile(&steps, 99)),
        decode_gb_per_s,
        stream_gb_per_s: stream / 1e9,
        stream_percent: decode_gb_per_s.and_then(|rate| per_second(100.0 * rate, stream / 1e9)),
        replays: last.replays,
        eager_steps: last.eager_steps,
        graph_replay: report.graph_replay,
        graph_fallback: report.graph_fallback,
        launch_us_per_step: last
            .launch_us
            .and_then(|us| per_second(us, args.tokens as f64)),
        launches_per_step: report.launches_per_step,
        weight_bytes: report.weight_bytes,
        kv_bytes: report.kv_bytes,
        arena_bytes: report.arena_bytes,
        logits_hash: format!("{:016x}", last.logits_hash),
        runs: runs.iter().map(rates).collect(),
    })
}

/// The smallest value that at least `percent` of the sorted values do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

fn table(json: &Json) -> String {
    let row = |name: &str, value: String| format!("{name:<22} {value}\n");
    let decode = format!(
        "{} tok/s ({} tokens)",
        figure(json.decode_tokens_per_s),
        json.tokens
    );
    let prompt = format!(
        "{} tok/s ({} tokens)",
        figure(json.prompt_tokens_per_s),
        json.prompt_tokens
    );
    let latency = format!(
        "{} / {} / {} ms",
        figure(Some(json.decode_ms_p50)),
        figure(Some(json.decode_ms_p90)),
        figure(Some(json.decode_ms_p99))
    );
    let bandwidth = format!(
        "{} GB/s, {} % of the {} GB/s this machine streams",
        figure(json.decode_gb_per_s),
        figure(json.stream_percent),
        figure(Some(json.stream_gb_per_s))
    );
    let mut steps = format!(
        "{} replays, {} eager steps for {} tokens; {} launches a step",
        json.replays, json.eager_steps, json.tokens, json.launches_per_step
    );
    if let Some(us) = json.launch_us_per_step {
        steps += &format!("; launching takes the host {} us a step", figure(Some(us)));
    }
    if let Some(why) = &json.graph_fallback {
        steps += &format!("; nothing was recorded: {why}");
    }
    let memory = format!(
        "weights {}, KV cache {}, arena {}",
        bytes(json.weight_bytes),
        bytes(json.kv_bytes),
        bytes(json.arena_bytes)
    );
    [
        row("model", json.model.clone()),
        row("device", json.device.clone()),
        row("memory", memory),
        row("load", format!("{} ms", figure(Some(json.load_ms)))),
        row(
            "first token",
            format!(
                "{} ms from process start",
                figure(Some(json.first_token_ms))
            ),
        ),
        row("prompt", prompt),
        row("decode", decode),
        row("ms/token p50/p90/p99", latency),
        row("bandwidth", bandwidth),
        row("steps", steps),
        row("hash of last logits", json.logits_hash.clone()),
    ]
    .concat()
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
