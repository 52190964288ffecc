//! What `bench` reports, for scripts and for people.

use std::time::Duration;

use serde::Serialize;

use super::super::args::BenchArgs;
use super::super::error::CliError;
use super::super::generate::{ms, step_bytes};
use super::super::output::{bytes, figure, per_second};
use super::compare::{self, Comparison};
use super::first::{self, FirstToken};
use super::measure::{Run, percentile};
use crate::runtime::Session;

/// `--format json`; the keys are documented in `--help`.
#[derive(Serialize)]
pub struct Json {
    pub model: String,
    pub device: String,
    threads: usize,
    context: u32,
    load_ms: f64,
    /// The part of it in which the device came by its weights, and their bytes in the file by that.
    weights_ms: f64,
    weights_gb_per_s: Option<f64>,
    /// What copies from pinned memory reach (GPUs only).
    copy_gb_per_s: Option<f64>,
    first_token_ms: f64,
    pub first_tokens: Vec<FirstToken>,
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
    /// Microseconds of the host's processors a token, everything included (GPUs only).
    host_us_per_token: Option<f64>,
    launches_per_step: usize,
    weight_bytes: u64,
    kv_bytes: u64,
    arena_bytes: u64,
    logits_hash: String,
    runs: Vec<RunJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compare: Option<Comparison>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<serde_json::Value>,
    /// The same of the largest prompt chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_profile: Option<serde_json::Value>,
}

/// What was timed once.
pub struct Timings {
    pub load: Duration,
    pub first_token: Duration,
    /// Bytes a second that the device reads, and that are copied to it.
    pub stream: f64,
    pub copy: Option<f64>,
}

#[derive(Serialize)]
struct RunJson {
    prompt_tokens_per_s: Option<f64>,
    decode_tokens_per_s: Option<f64>,
}

pub fn summary(
    session: &Session,
    runs: &[Run],
    args: &BenchArgs,
    model: String,
    timings: &Timings,
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
        load_ms: ms(timings.load),
        weights_ms: report.weights_ms,
        weights_gb_per_s: per_second(report.file_bytes as f64 / 1e9, report.weights_ms / 1e3),
        copy_gb_per_s: timings.copy.map(|rate| rate / 1e9),
        first_token_ms: ms(timings.first_token),
        first_tokens: Vec::new(),
        prompt_tokens: args.prompt_tokens,
        prompt_tokens_per_s: per_second(args.prompt_tokens as f64, prompt_s),
        tokens: args.tokens,
        decode_tokens_per_s: per_second(args.tokens as f64, decode_s),
        decode_ms_p50: ms(percentile(&steps, 50)),
        decode_ms_p90: ms(percentile(&steps, 90)),
        decode_ms_p99: ms(percentile(&steps, 99)),
        decode_gb_per_s,
        stream_gb_per_s: timings.stream / 1e9,
        stream_percent: decode_gb_per_s
            .and_then(|rate| per_second(100.0 * rate, timings.stream / 1e9)),
        replays: last.replays,
        eager_steps: last.eager_steps,
        graph_replay: report.graph_replay,
        graph_fallback: report.graph_fallback,
        launch_us_per_step: last
            .launch_us
            .and_then(|us| per_second(us, args.tokens as f64)),
        host_us_per_token: last
            .host
            .and_then(|host| per_second(host.as_secs_f64() * 1e6, args.tokens as f64)),
        launches_per_step: report.launches_per_step,
        weight_bytes: report.weight_bytes,
        kv_bytes: report.kv_bytes,
        arena_bytes: report.arena_bytes,
        logits_hash: format!("{:016x}", last.logits_hash),
        runs: runs.iter().map(rates).collect(),
        compare: None,
        profile: None,
        prompt_profile: None,
    })
}

pub fn table(json: &Json) -> String {
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
        let all = figure(json.host_us_per_token);
        let launching = figure(Some(us));
        steps += &format!("; the host works {all} us a token, {launching} of them launching");
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
    let mut load = format!(
        "{} ms, {} of them for the weights: {} GB/s of the file",
        figure(Some(json.load_ms)),
        figure(Some(json.weights_ms)),
        figure(json.weights_gb_per_s)
    );
    if json.copy_gb_per_s.is_some() {
        let copy = figure(json.copy_gb_per_s);
        load += &format!(", where copies to the device reach {copy}");
    }
    [
        row("model", json.model.clone()),
        row("device", json.device.clone()),
        row("memory", memory),
        row("load", load),
        row(
            "first token",
            format!(
                "{} ms from process start",
                figure(Some(json.first_token_ms))
            ),
        ),
        first::table(&json.first_tokens),
        row("prompt", prompt),
        row("decode", decode),
        row("ms/token p50/p90/p99", latency),
        row("bandwidth", bandwidth),
        row("steps", steps),
        row("hash of last logits", json.logits_hash.clone()),
        json.compare.as_ref().map_or(String::new(), compare::table),
    ]
    .concat()
}
