//! One object: the step, every node, every edge, and sums by role.

use super::{Recorded, Row, Sum, by_role};
use serde_json::{Value as Json, json};

pub fn json(recorded: &Recorded<'_>) -> Json {
    let rows = recorded.rows();
    let total_us = recorded.profile.map(|p| p.total_us());
    let profile = recorded.profile.map(|profile| {
        let bytes = recorded.program.bytes_at(recorded.seen());
        let rate = bytes as f64 / profile.total_us() / 1e3;
        let stream = recorded.stream_bytes_per_second.map(|s| s / 1e9);
        json!({
            "repetitions": profile.repetitions, "total_us": profile.total_us(),
            "replay_us": profile.replay_us, "gb_per_s": rate, "stream_gb_per_s": stream,
            "stream_percent": stream.map(|s| 100.0 * rate / s),
        })
    });
    let program = recorded.program;
    let roles = by_role(&rows);
    json!({
        "stage": "recorded", "device": recorded.device, "target": program.target,
        "rows": program.rows, "context": program.context, "position": recorded.position,
        "launches": program.launches.len(), "profile": profile,
        "nodes": rows.iter().map(|row| node(row, total_us)).collect::<Json>(),
        "edges": recorded.contents.edges,
        "roles": roles.iter().map(|(role, sum)| {
            let mut entry = figures(sum, total_us);
            entry["role"] = role.as_str().into();
            entry["nodes"] = sum.nodes.into();
            entry
        }).collect::<Json>(),
    })
}

fn node(row: &Row<'_>, total_us: Option<f64>) -> Json {
    let mut entry = figures(&Sum::of([row]), total_us);
    entry["index"] = row.index.into();
    entry["kind"] = row.kind.into();
    entry["kernel"] = row.kernel.into();
    entry["section"] = row.section.to_string().into();
    entry["role"] = row.role().into();
    let launch = row.launch.as_ref();
    entry["launch"] = launch.map(|l| l.index).into();
    entry["node"] = launch.map(|l| l.node.to_string()).into();
    entry["program_kernel"] = launch.map(|l| l.kernel).into();
    entry
}

fn figures(sum: &Sum, total_us: Option<f64>) -> Json {
    json!({
        "bytes": sum.priced.then_some(sum.bytes), "flops": sum.priced.then_some(sum.flops),
        "us": total_us.map(|_| sum.us),
        "share_percent": total_us.map(|total| 100.0 * sum.share(total)),
        "gb_per_s": total_us.and_then(|_| sum.gb_per_s()),
        "tflop_per_s": total_us.and_then(|_| sum.tflop_per_s()),
    })
}
