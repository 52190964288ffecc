//! A recording set beside its program: what was recorded, what it moves, where its time goes.
//!
//! Three forms of the same `Row`s. Text and JSON list every node; DOT draws the first few layers
//! and folds those that run the same kernels into one cluster whose nodes are sums (`fold`), since
//! thirty equal columns show nobody where a token's time goes.

mod dot;
mod fold;
mod json;
mod ramp;
mod text;

use super::contents::{Contents, Profile};
use super::dump::{Format, scaled};
use crate::graph::{NodeId, Section};
use crate::program::Program;
use std::fmt::{self, Display};

/// What there is to show about one recording.
#[derive(Clone, Copy)]
pub struct Recorded<'r> {
    /// What runs it: `cpu, 2 threads, avx512`.
    pub device: &'r str,
    pub program: &'r Program,
    pub contents: &'r Contents,
    /// How much is in the cache when the step begins, for bytes and FLOPs.
    pub position: u32,
    /// Without one there are no times.
    pub profile: Option<&'r Profile>,
    /// What the device reads from its memory, if that was measured.
    pub stream_bytes_per_second: Option<f64>,
}

/// A recorded step in one of the three forms; `layers` are drawn by themselves in DOT.
pub fn dump(recorded: &Recorded<'_>, format: Format, layers: u32) -> String {
    match format {
        Format::Dot => dot::dot(recorded, layers),
        Format::Json => json::json(recorded).to_string() + "\n",
        Format::Text => text::text(recorded),
    }
}

/// The same as [`Format::Json`], as a value.
pub fn document(recorded: &Recorded<'_>) -> serde_json::Value {
    json::json(recorded)
}

/// Where the time of a measured step goes, as a few lines; `None` without times.
pub fn summary(recorded: &Recorded<'_>) -> Option<String> {
    recorded.profile.map(|_| text::summary(recorded))
}

/// One recorded node and the launch it belongs to.
struct Row<'r> {
    index: usize,
    kind: &'r str,
    kernel: &'r str,
    section: Section,
    launch: Option<Counterpart<'r>>,
    us: Option<f64>,
}

/// What the program says about a node.
struct Counterpart<'r> {
    index: usize,
    node: NodeId,
    kernel: &'r str,
    /// The weights' names with `*` for the layer's number.
    weights: String,
    /// Bytes and FLOPs at the position; `None` where several nodes share the launch.
    cost: Option<(u64, u64)>,
}

impl Row<'_> {
    /// The node's work in a few words, the same for the same work in other layers: a kernel's name
    /// and the weights it reads.
    fn role(&self) -> String {
        match &self.launch {
            Some(launch) if !launch.weights.is_empty() => {
                format!("{} {}", self.kernel_name(), launch.weights)
            }
            _ => self.kernel_name().to_string(),
        }
    }

    /// The kernel that runs: by the program's name where the recorder's says less.
    fn kernel_name(&self) -> &str {
        match &self.launch {
            Some(launch) if launch.kernel.starts_with(self.kernel) => launch.kernel,
            _ => self.kernel,
        }
    }
}

impl<'r> Recorded<'r> {
    fn rows(&self) -> Vec<Row<'r>> {
        let contents = self.contents;
        let mut parts = vec![0u32; self.program.launches.len()];
        for launch in contents.nodes.iter().filter_map(|n| n.launch) {
            parts[launch] += 1;
        }
        let row = |(index, node): (usize, &'r super::RecordedNode)| {
            let launch = node.launch.map(|l| self.counterpart(l, parts[l] == 1));
            let section = node.launch.map(|l| self.program.launches[l].section);
            Row {
                index,
                kind: &node.kind,
                kernel: &node.kernel,
                section: section.unwrap_or(Section::Prologue),
                launch,
                us: self.profile.map(|p| p.node_us[index]),
            }
        };
        contents.nodes.iter().enumerate().map(row).collect()
    }

    fn counterpart(&self, index: usize, alone: bool) -> Counterpart<'r> {
        let launch = &self.program.launches[index];
        let seen = self.seen();
        let weights = launch.weights.iter().map(|w| {
            let name = &self.program.weights[w.index()].name;
            let name = match launch.section {
                Section::Layer(layer) => name.replacen(&format!(".{layer}."), ".*.", 1),
                _ => name.clone(),
            };
            short(&name).to_string()
        });
        Counterpart {
            index,
            node: launch.node,
            kernel: &launch.kernel,
            weights: weights.collect::<Vec<_>>().join(" "),
            cost: alone.then(|| (launch.cost.bytes_at(seen), launch.cost.flops_at(seen))),
        }
    }

    /// Positions that the step sees, its own included.
    fn seen(&self) -> u64 {
        u64::from(self.position) + u64::from(self.program.rows)
    }

    /// The step in words: `decode step at position 256`.
    fn what(&self) -> String {
        match self.program.rows {
            1 => format!("decode step at position {}", self.position),
            rows => format!("prompt chunk of {rows} rows at position {}", self.position),
        }
    }
}

/// `attn_q` of `blk.*.attn_q.weight`: what tells a layer's weights apart.
fn short(name: &str) -> &str {
    let name = name.strip_suffix(".weight").unwrap_or(name);
    name.split_once(".*.").map_or(name, |(_, rest)| rest)
}

/// What several nodes take and move together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sum {
    nodes: usize,
    us: f64,
    bytes: u64,
    flops: u64,
    /// Whether every node's bytes are known.
    priced: bool,
}

impl Sum {
    fn of<'s, 'r: 's>(rows: impl IntoIterator<Item = &'s Row<'r>>) -> Sum {
        let mut sum = Sum {
            priced: true,
            ..Sum::default()
        };
        for row in rows {
            sum.nodes += 1;
            sum.us += row.us.unwrap_or(0.0);
            match row.launch.as_ref().and_then(|l| l.cost) {
                Some((bytes, flops)) => {
                    sum.bytes += bytes;
                    sum.flops += flops;
                }
                None => sum.priced = false,
            }
        }
        sum
    }

    fn gb_per_s(&self) -> Option<f64> {
        (self.priced && self.us > 0.0).then(|| self.bytes as f64 / self.us / 1e3)
    }

    fn tflop_per_s(&self) -> Option<f64> {
        (self.priced && self.us > 0.0).then(|| self.flops as f64 / self.us / 1e6)
    }

    fn share(&self, total_us: f64) -> f64 {
        if total_us > 0.0 {
            self.us / total_us
        } else {
            0.0
        }
    }

    /// `1.2 MB · 3.4 MFLOP`, if known.
    fn price(&self) -> Option<String> {
        let text = || {
            format!(
                "{} · {}",
                scaled(self.bytes, "B"),
                scaled(self.flops, "FLOP")
            )
        };
        self.priced.then(text)
    }
}

/// Nodes of the same role, the slowest role first; without times, in the order of their first node.
fn by_role(rows: &[Row<'_>]) -> Vec<(String, Sum)> {
    let mut roles: Vec<(String, Vec<&Row<'_>>)> = Vec::new();
    for row in rows {
        let role = row.role();
        match roles.iter_mut().find(|(name, _)| *name == role) {
            Some((_, rows)) => rows.push(row),
            None => roles.push((role, vec![row])),
        }
    }
    let sums = roles.into_iter().map(|(name, rows)| (name, Sum::of(rows)));
    let mut sums: Vec<(String, Sum)> = sums.collect();
    sums.sort_by(|a, b| b.1.us.total_cmp(&a.1.us));
    sums
}

/// Microseconds as people read them.
struct Time(f64);

impl Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            us if us >= 1e4 => write!(f, "{:.1} ms", us / 1e3),
            us if us >= 1e3 => write!(f, "{:.2} ms", us / 1e3),
            us if us >= 100.0 => write!(f, "{us:.0} µs"),
            us if us >= 10.0 => write!(f, "{us:.1} µs"),
            us => write!(f, "{us:.2} µs"),
        }
    }
}

/// The measured step in one line: `2.93 ms in 274 nodes, 31 GB/s = 84 % of the 37 GB/s streamed`.
fn headline(recorded: &Recorded<'_>, rows: &[Row<'_>]) -> String {
    let nodes = format!("{} nodes", rows.len());
    let Some(profile) = recorded.profile else {
        return nodes;
    };
    let seconds = profile.total_us() / 1e6;
    let rate = recorded.program.bytes_at(recorded.seen()) as f64 / seconds;
    let mut line = format!(
        "{} in {nodes}, {:.1} GB/s",
        Time(profile.total_us()),
        rate / 1e9
    );
    if let Some(stream) = recorded.stream_bytes_per_second {
        let percent = 100.0 * rate / stream;
        line += &format!(" = {percent:.0} % of the {:.1} GB/s streamed", stream / 1e9);
    }
    line
}

/// How the times were taken, in one line.
fn method(profile: &Profile) -> String {
    format!(
        "each node's median over {} steps; the same step replayed takes {}",
        profile.repetitions,
        Time(profile.replay_us)
    )
}

#[cfg(test)]
mod tests;
