//! A line a node, and the sums below.

use super::{Recorded, Row, Sum, by_role, headline, method};
use std::fmt::Write;

/// Every node beside its launch, then what each kind of work takes.
pub fn text(recorded: &Recorded<'_>) -> String {
    let rows = recorded.rows();
    let mut out = format!("{} on {}\n", recorded.what(), recorded.device);
    writeln!(
        out,
        "{} recorded nodes, {} edges, {} launches in the program\n",
        rows.len(),
        recorded.contents.edges.len(),
        recorded.program.launches.len(),
    )
    .expect("writing to a string");
    let total_us = recorded.profile.map(|p| p.total_us());
    out += &header(total_us.is_some(), "node kind    launch");
    for row in &rows {
        let launch = match &row.launch {
            Some(launch) => format!("{:>5} {:<5}", launch.index, launch.node.to_string()),
            None => format!("{:>5} {:<5}", "-", "-"),
        };
        let sum = Sum::of([row]);
        write!(out, "{:>4} {:<7} {launch} ", row.index, row.kind).expect("writing to a string");
        out += &figures(&sum, total_us);
        writeln!(out, "  {}  {}{}", row.section, row.role(), other_name(row))
            .expect("writing to a string");
    }
    if total_us.is_some() {
        write!(out, "\n{}", summary(recorded)).expect("writing to a string");
    }
    out
}

/// What each kind of work takes, the most first.
pub fn summary(recorded: &Recorded<'_>) -> String {
    let rows = recorded.rows();
    let total_us = recorded.profile.map(|p| p.total_us());
    let mut out = format!(
        "{} on {}: {}\n",
        recorded.what(),
        recorded.device,
        headline(recorded, &rows)
    );
    if let Some(profile) = recorded.profile {
        writeln!(out, "{}\n", method(profile)).expect("writing to a string");
    }
    out += &header(total_us.is_some(), "nodes");
    for (role, sum) in by_role(&rows) {
        let line = format!("{:>5} {}  {role}", sum.nodes, figures(&sum, total_us));
        writeln!(out, "{line}").expect("writing to a string");
    }
    out
}

fn header(timed: bool, first: &str) -> String {
    let times = if timed {
        "        µs      %    GB/s TFLOP/s"
    } else {
        ""
    };
    let width = if first == "nodes" { 5 } else { 24 };
    format!("{first:<width$} {:>10}{times}\n", "kB")
}

fn figures(sum: &Sum, total_us: Option<f64>) -> String {
    let bytes = if sum.priced {
        format!("{:>10.1}", sum.bytes as f64 / 1e3)
    } else {
        format!("{:>10}", "-")
    };
    let Some(total_us) = total_us else {
        return bytes;
    };
    let rate = sum.gb_per_s().map_or("-".into(), |r| format!("{r:.1}"));
    let flops = sum.tflop_per_s().map_or("-".into(), |r| format!("{r:.2}"));
    let share = 100.0 * sum.share(total_us);
    format!("{bytes} {:>9.2} {share:>6.2} {rate:>7} {flops:>7}", sum.us)
}

/// ` (gemm_q4_1 in the program)` where the recorder's name for the kernel is another.
fn other_name(row: &Row<'_>) -> String {
    match &row.launch {
        Some(launch) if launch.kernel != row.kernel_name() => {
            format!(" ({} in the program)", launch.kernel)
        }
        _ => String::new(),
    }
}
