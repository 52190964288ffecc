//! What a recording says it holds, and how long each of its nodes takes.

use super::backend::{BackendError, Recording};
use crate::program::Step;
use std::time::{Duration, Instant};

/// Steps that are run before any is timed.
const WARM_UPS: usize = 3;

/// What a recording holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// In the order in which they were recorded.
    pub nodes: Vec<RecordedNode>,
    /// Which node waits for which: `(before, after)`, indices into `nodes`.
    pub edges: Vec<(usize, usize)>,
}

/// One node of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedNode {
    /// What the recorder calls it: `task` for the CPU's list, `kernel` for a driver's graph.
    pub kind: String,
    /// What it runs.
    pub kernel: String,
    /// The program's launch that it is, or is a part of; `None` for a step's own bookkeeping.
    pub launch: Option<usize>,
}

/// Where the time of one step goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Steps that were timed.
    pub repetitions: usize,
    /// Microseconds of each node: the median over the repetitions.
    pub node_us: Vec<f64>,
    /// Microseconds of the same step replayed, as the host waits for it: the median.
    pub replay_us: f64,
}

impl Profile {
    /// Microseconds of all nodes.
    pub fn total_us(&self) -> f64 {
        self.node_us.iter().sum()
    }
}

/// Times the nodes of `recording` over `repetitions` steps, at least one, and as many replays
/// between them. The step is the same every time, so it rewrites only the cache rows it wrote.
pub(super) fn profile(
    recording: &mut dyn Recording,
    step: Step<'_>,
    repetitions: usize,
) -> Result<Profile, BackendError> {
    let repetitions = repetitions.max(1);
    let mut node_times: Vec<Vec<Duration>> = Vec::new();
    let mut replays = Vec::new();
    for round in 0..repetitions.saturating_add(WARM_UPS) {
        let begin = Instant::now();
        recording.replay(step)?;
        let replay = begin.elapsed();
        let times = recording.time_nodes(step)?;
        if round < WARM_UPS {
            continue;
        }
        replays.push(replay);
        node_times.resize_with(times.len(), Vec::new);
        for (all, time) in node_times.iter_mut().zip(times) {
            all.push(time);
        }
    }
    Ok(Profile {
        repetitions,
        node_us: node_times.into_iter().map(median_us).collect(),
        replay_us: median_us(replays),
    })
}

/// The median in microseconds; of an even number, the upper of the two in the middle.
fn median_us(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}
