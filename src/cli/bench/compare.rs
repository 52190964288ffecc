//! `bench --compare replay,eager`: the same steps both ways, in turn, once they gave the same bits.
//!
//! Both modes decode the same made-up tokens from an empty context on one session, so that they share
//! weights, caches and everything the processor has learnt; runs alternate, so that what slows the
//! machine slows both. A step's time is the session's alone: no token is chosen.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::super::error::CliError;
use super::super::generate::{ms, step_bytes};
use super::super::output::{figure, per_second};
use super::measure::{made_up_tokens, percentile};
use super::plot::{self, Context};
use crate::generate::hash_logits;
use crate::runtime::Session;

/// How a session runs its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Replay,
    Eager,
}

/// The two in the order in which they take turns.
pub const MODES: [Mode; 2] = [Mode::Replay, Mode::Eager];

/// What is compared, beside what the machine allows.
#[derive(Serialize)]
pub struct Comparison {
    pub replay: Side,
    pub eager: Side,
    /// Eager's median step over replay's: how many times as fast replaying is.
    pub ratio: Option<f64>,
    pub stream_gb_per_s: f64,
    /// The step at several contexts; only with `--plot`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub contexts: Vec<Context>,
}

/// One mode's measurements.
#[derive(Serialize)]
pub struct Side {
    steps: usize,
    step_ms_p50: f64,
    step_ms_p90: f64,
    step_ms_p99: f64,
    tokens_per_s: Option<f64>,
    /// Kernels that a step runs, as the program lists them.
    launches_per_step: usize,
    /// What the host hands over a step: one recording, or every launch.
    launch_calls_per_step: usize,
    /// Microseconds a step that the host spends in launch calls; `null` where no driver is called.
    host_us_per_step: Option<f64>,
    /// Microseconds of host time a launch: in launch calls where a driver is called, else the step's.
    host_us_per_launch: Option<f64>,
    /// Nodes that were replayed, as the recording counts them.
    nodes: Option<usize>,
    replays: u64,
    eager_steps: u64,
    gb_per_s: Option<f64>,
    stream_percent: Option<f64>,
    logits_hash: String,
}

/// Checks that both modes give the same logits at every one of `tokens` positions, then times them in
/// turn, `repeat` runs each. With `contexts` also along the whole context.
pub fn compare(
    session: &mut Session,
    tokens: usize,
    repeat: usize,
    stream: f64,
    contexts: bool,
) -> Result<Comparison, CliError> {
    let logits_hash = check(session, tokens)?;
    let mut times = [Vec::new(), Vec::new()];
    let mut counts = [Counts::default(); 2];
    for _ in 0..repeat {
        for (mode, (times, counts)) in MODES.into_iter().zip(times.iter_mut().zip(&mut counts)) {
            let before = Counts::of(session);
            times.extend(run(session, mode, tokens, &mut |_, _| ())?);
            counts.add(&before, &Counts::of(session));
        }
    }
    let side = |mode: Mode, times: Vec<Duration>, counts: Counts| {
        side(session, mode, times, &counts, tokens, stream, logits_hash)
    };
    let [replay_times, eager_times] = times;
    let replay = side(Mode::Replay, replay_times, counts[0])?;
    let eager = side(Mode::Eager, eager_times, counts[1])?;
    Ok(Comparison {
        ratio: per_second(eager.step_ms_p50, replay.step_ms_p50),
        replay,
        eager,
        stream_gb_per_s: stream / 1e9,
        contexts: if contexts {
            plot::contexts(session)?
        } else {
            Vec::new()
        },
    })
}

/// One run each, which also warms both up. The hash of the last logits if all were the same.
fn check(session: &mut Session, tokens: usize) -> Result<u64, CliError> {
    let mut hashes = [Vec::new(), Vec::new()];
    for (mode, hashes) in MODES.into_iter().zip(&mut hashes) {
        run(session, mode, tokens, &mut |_, logits| {
            hashes.push(hash_logits(logits));
        })?;
    }
    let [replay, eager] = &hashes;
    match replay.iter().zip(eager).position(|(a, b)| a != b) {
        None => Ok(replay.last().copied().unwrap_or_default()),
        Some(position) => Err(CliError::Runtime(format!(
            "replay and eager differ at position {position}: hashes of the logits are {:016x} and {:016x}",
            replay[position], eager[position]
        ))),
    }
}

/// Decodes `tokens` tokens from an empty context, with the time of each step.
fn run(
    session: &mut Session,
    mode: Mode,
    tokens: usize,
    each: &mut dyn FnMut(usize, &[f32]),
) -> Result<Vec<Duration>, CliError> {
    session.reset();
    steps(
        session,
        mode,
        &made_up_tokens(tokens, session.vocabulary()),
        each,
    )
}

/// Appends `tokens` one by one, with the time of each step. Leaves the session replaying.
pub fn steps(
    session: &mut Session,
    mode: Mode,
    tokens: &[u32],
    each: &mut dyn FnMut(usize, &[f32]),
) -> Result<Vec<Duration>, CliError> {
    session.set_eager(mode == Mode::Eager);
    let mut times = Vec::with_capacity(tokens.len());
    for (index, &token) in tokens.iter().enumerate() {
        let begin = Instant::now();
        let logits = session.step(token).map_err(CliError::runtime)?;
        times.push(begin.elapsed());
        each(index, logits);
    }
    session.set_eager(false);
    Ok(times)
}

/// What the session's own counters say.
#[derive(Clone, Copy, Default)]
struct Counts {
    replays: u64,
    eager_steps: u64,
    launch_us: Option<f64>,
}

impl Counts {
    fn of(session: &Session) -> Counts {
        let report = session.report();
        Counts {
            replays: report.replays,
            eager_steps: report.eager_steps,
            launch_us: report.decode_launch_us,
        }
    }

    fn add(&mut self, before: &Counts, after: &Counts) {
        self.replays += after.replays - before.replays;
        self.eager_steps += after.eager_steps - before.eager_steps;
        if let Some((before, after)) = before.launch_us.zip(after.launch_us) {
            *self.launch_us.get_or_insert(0.0) += after - before;
        }
    }
}

fn side(
    session: &Session,
    mode: Mode,
    mut times: Vec<Duration>,
    counts: &Counts,
    tokens: usize,
    stream: f64,
    logits_hash: u64,
) -> Result<Side, CliError> {
    let report = session.report();
    let steps = times.len();
    let (replays, eager_steps) = (counts.replays, counts.eager_steps);
    let asked_for = match mode {
        Mode::Replay if report.graph_replay => replays,
        Mode::Replay | Mode::Eager => eager_steps,
    };
    if asked_for != steps as u64 {
        return Err(CliError::Runtime(format!(
            "{steps} steps were asked for, but the recording counted {replays} replays and {eager_steps} eager steps"
        )));
    }
    let total: Duration = times.iter().sum();
    times.sort_unstable();
    let runs = steps / tokens.max(1);
    let gb = (runs as u64 * step_bytes(session, 0..tokens)) as f64 / 1e9;
    let gb_per_s = per_second(gb, total.as_secs_f64());
    let recorded = mode == Mode::Replay && report.graph_replay;
    // What a GPU's driver is handed eagerly are the nodes, a launch being several in places.
    let calls = match (recorded, counts.launch_us) {
        (true, _) => 1,
        (false, Some(_)) => report.nodes,
        (false, None) => report.launches_per_step,
    };
    let launches = (steps * report.launches_per_step) as f64;
    let host_us_per_launch = match counts.launch_us {
        Some(us) => per_second(us, (steps * calls) as f64),
        None => per_second(total.as_secs_f64() * 1e6, launches),
    };
    Ok(Side {
        steps,
        step_ms_p50: ms(percentile(&times, 50)),
        step_ms_p90: ms(percentile(&times, 90)),
        step_ms_p99: ms(percentile(&times, 99)),
        tokens_per_s: per_second(steps as f64, total.as_secs_f64()),
        launches_per_step: report.launches_per_step,
        launch_calls_per_step: calls,
        host_us_per_step: counts.launch_us.and_then(|us| per_second(us, steps as f64)),
        host_us_per_launch,
        nodes: recorded.then_some(report.nodes),
        replays,
        eager_steps,
        gb_per_s,
        stream_percent: gb_per_s.and_then(|rate| per_second(100.0 * rate, stream / 1e9)),
        logits_hash: format!("{logits_hash:016x}"),
    })
}

/// Both side by side, with what one is of the other.
pub fn table(comparison: &Comparison) -> String {
    let Comparison { replay, eager, .. } = comparison;
    let mut out = format!(
        "\n{:<28} {:>12} {:>12} {:>14}\n",
        "", "replay", "eager", "eager/replay"
    );
    let mut row = |name: &str, value: &dyn Fn(&Side) -> Option<f64>, compared: bool| {
        let (a, b) = (value(replay), value(eager));
        let ratio = a
            .zip(b)
            .filter(|_| compared)
            .and_then(|(a, b)| per_second(b, a));
        let ratio = ratio.map_or(String::new(), |r| format!("{r:.2}"));
        let [a, b] = [a, b].map(figure);
        out += &format!("{name:<28} {a:>12} {b:>12} {ratio:>14}\n");
    };
    row("ms/step p50", &|s| Some(s.step_ms_p50), true);
    row("ms/step p90", &|s| Some(s.step_ms_p90), true);
    row("ms/step p99", &|s| Some(s.step_ms_p99), true);
    row("tokens/s", &|s| s.tokens_per_s, true);
    row("GB/s", &|s| s.gb_per_s, true);
    row("% of streaming", &|s| s.stream_percent, false);
    row("host us/launch", &|s| s.host_us_per_launch, true);
    row("host us/step in the driver", &|s| s.host_us_per_step, true);
    let mut count = |name: &str, value: &dyn Fn(&Side) -> Option<u64>| {
        let [a, b] = [value(replay), value(eager)].map(|n| n.map_or("-".into(), |n| n.to_string()));
        out += &format!("{name:<28} {a:>12} {b:>12}\n");
    };
    count("launches a step", &|s| Some(s.launches_per_step as u64));
    count("launch calls a step", &|s| {
        Some(s.launch_calls_per_step as u64)
    });
    count("recorded nodes", &|s| s.nodes.map(|n| n as u64));
    count("steps timed", &|s| Some(s.steps as u64));
    count("replays counted", &|s| Some(s.replays));
    count("eager steps counted", &|s| Some(s.eager_steps));
    let hash = &replay.logits_hash;
    out += &format!(
        "both give the same logits, bit for bit, at every position; the last hash is {hash}\n"
    );
    for context in &comparison.contexts {
        out += &context.line();
    }
    out
}
