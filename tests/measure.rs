//! `bench --compare`, `--plot` and `--profile`, and `graph --stage recorded`, through the binary.

mod support;

use serde_json::Value;
use support::command::Bench;

/// Arguments of a short comparison as JSON.
const COMPARE: [&str; 15] = [
    "bench",
    "--compare",
    "replay,eager",
    "--prompt-tokens",
    "4",
    "--tokens",
    "9",
    "--repeat",
    "3",
    "--threads",
    "2",
    "--ctx",
    "64",
    "--format",
    "json",
];

fn list<'j>(json: &'j Value, key: &str) -> &'j Vec<Value> {
    json[key]
        .as_array()
        .unwrap_or_else(|| panic!("no list {key} in {json}"))
}

fn positive(json: &Value, keys: &[&str]) {
    for key in keys {
        let value = json[key].as_f64();
        assert!(value.is_some_and(|v| v > 0.0), "{key}: {json}");
    }
}

#[test]
fn replay_and_eager_are_compared_over_the_same_bits() {
    let bench = Bench::new();
    let args = [
        &COMPARE[..],
        &["--plot", "plot.svg", "--profile", "--position", "20"],
    ]
    .concat();
    let json = bench.with_model(&args).expect(0, &[]).json();
    let compare = &json["compare"];
    positive(compare, &["ratio", "stream_gb_per_s"]);
    let (replay, eager) = (&compare["replay"], &compare["eager"]);
    for side in [replay, eager] {
        positive(
            side,
            &[
                "step_ms_p50",
                "step_ms_p90",
                "step_ms_p99",
                "tokens_per_s",
                "host_us_per_launch",
                "gb_per_s",
                "stream_percent",
            ],
        );
        assert_eq!(side["steps"], 27);
        assert_eq!(side["launches_per_step"], json["launches_per_step"]);
        assert!(side["host_us_per_step"].is_null(), "{side}");
    }
    let counts = |side: &Value| (side["replays"].clone(), side["eager_steps"].clone());
    assert_eq!(counts(replay), (27.into(), 0.into()));
    assert_eq!(counts(eager), (0.into(), 27.into()));
    assert_eq!(replay["logits_hash"], eager["logits_hash"]);
    assert_eq!(replay["nodes"], json["launches_per_step"]);
    assert_eq!(replay["launch_calls_per_step"], 1);
    assert_eq!(eager["launch_calls_per_step"], json["launches_per_step"]);
    assert_profiled(&json["profile"]);
    assert_plotted(&bench, compare);

    let wrong = |args: &[&str], parts: &[&str]| {
        bench.with_model(args).expect(2, parts);
    };
    wrong(&["bench", "--compare", "replay"], &["replay,eager"]);
    wrong(&["bench", "--plot", "a.svg"], &["--compare"]);
    wrong(&["bench", "--position", "9"], &["--profile"]);
    wrong(&[&COMPARE[..], &["--eager"]].concat(), &["--eager"]);
    let nowhere = [&COMPARE[..], &["--plot", "none/plot.svg"]].concat();
    bench.with_model(&nowhere).expect(3, &["none/plot.svg"]);
}

fn assert_plotted(bench: &Bench, compare: &Value) {
    let contexts = list(compare, "contexts");
    let positions: Vec<u64> = contexts
        .iter()
        .filter_map(|c| c["position"].as_u64())
        .collect();
    assert_eq!(positions, [0, 8, 16, 32, 56]);
    for context in contexts {
        positive(context, &["replay_ms_p50", "eager_ms_p50"]);
    }
    let svg = std::fs::read_to_string(bench.path("plot.svg")).expect("the plot was written");
    assert_well_formed(&svg);
    for part in [
        "replay",
        "eager",
        "(ms)",
        "(tokens",
        "prefers-color-scheme: dark",
    ] {
        assert!(svg.contains(part), "no {part} in {svg}");
    }
    assert_eq!(svg.matches("<circle").count(), 2 * positions.len());
}

fn assert_profiled(json: &Value) {
    let total = json["profile"]["total_us"].as_f64().expect("a total");
    let us = list(json, "nodes").iter().filter_map(|n| n["us"].as_f64());
    assert!(
        total > 0.0 && (us.sum::<f64>() - total).abs() < 1e-6 * total,
        "{json}"
    );
    let shares = list(json, "roles")
        .iter()
        .filter_map(|r| r["share_percent"].as_f64());
    assert!((shares.sum::<f64>() - 100.0).abs() < 1e-6, "{json}");
    assert_eq!(json["position"], 20);
    positive(
        &json["profile"],
        &["replay_us", "gb_per_s", "stream_gb_per_s"],
    );
}

/// Asserts that every element that is opened is closed, attributes are quoted, and text is escaped.
fn assert_well_formed(document: &str) {
    let mut open = Vec::new();
    let mut rest = document;
    while let Some(start) = rest.find('<') {
        assert!(!rest[..start].contains('>'), "a bare > before {start}");
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        assert_eq!(tag.matches('"').count() % 2, 0, "<{tag}>");
        assert!(!tag.contains('<'), "<{tag}>");
        match (tag.strip_prefix('/'), tag.ends_with('/')) {
            (Some(name), _) => assert_eq!(open.pop(), Some(name), "</{name}>"),
            (None, true) => {}
            (None, false) => open.push(tag.split(' ').next().unwrap_or(tag)),
        }
        rest = &rest[end + 1..];
    }
    assert!(
        open.is_empty() && rest.trim().is_empty(),
        "{open:?} stay open"
    );
    for after in document.split('&').skip(1) {
        let entity = after.split(';').next();
        assert!(
            matches!(entity, Some("amp" | "lt" | "gt" | "quot")),
            "&{after}"
        );
    }
}

#[test]
fn the_recorded_stage_lists_a_node_for_every_launch() {
    let bench = Bench::new();
    let recorded = |more: &[&str]| {
        let args = [
            "graph", "--stage", "recorded", "--format", "json", "--ctx", "64",
        ];
        bench
            .with_model(&[&args[..], more].concat())
            .expect(0, &[])
            .json()
    };
    for (more, rows) in [(&[][..], 1), (&["--rows", "4"][..], 4)] {
        let json = recorded(more);
        let nodes = list(&json, "nodes");
        assert_eq!(json["launches"], nodes.len());
        assert_eq!(json["rows"], rows);
        assert_eq!(list(&json, "edges").len(), nodes.len() - 1);
        assert_eq!(json["position"], 64 - rows);
        for (index, node) in nodes.iter().enumerate() {
            assert_eq!(node["launch"], index, "{node}");
            // Two ways to the same answer: the recording's own name for it and the program's.
            let kernel = node["kernel"].as_str().unwrap_or("?");
            let program = node["program_kernel"].as_str().unwrap_or("?");
            assert!(program.starts_with(kernel), "{node}");
            assert!(node["us"].is_null() && node["bytes"].is_u64(), "{node}");
        }
    }
    let planned = [
        "graph", "--stage", "planned", "--format", "json", "--ctx", "64",
    ];
    let planned = bench.with_model(&planned).expect(0, &[]).json();
    assert_eq!(
        list(&planned, "nodes").len(),
        list(&recorded(&[]), "nodes").len()
    );
}

#[test]
fn a_profile_times_every_node() {
    let bench = Bench::new();
    let graph = |more: &[&str]| {
        let args = ["graph", "--position", "20", "--repeat", "3", "--ctx", "64"];
        let ran = bench.with_model(&[&args[..], more].concat());
        ran.expect(0, &[]).stdout.clone()
    };
    let json = graph(&["--profile", "--format", "json"]);
    assert_profiled(&serde_json::from_str(&json).expect("JSON"));
    let text = graph(&["--profile"]);
    assert!(
        text.contains("position 20") && text.contains("GB/s"),
        "{text}"
    );
    let folded = graph(&["--format", "dot"]);
    assert!(
        folded.contains("layers 0-1: each node is the sum of 2"),
        "{folded}"
    );
    let whole = graph(&["--format", "dot", "--layers", "2"]);
    assert!(
        whole.contains("\"layer 1\"") && !whole.contains("sum of"),
        "{whole}"
    );

    let wrong = |args: &[&str], code: i32, parts: &[&str]| {
        bench
            .with_model(&[&["graph"], args].concat())
            .expect(code, parts);
    };
    wrong(&["--stage", "fused", "--profile"], 2, &["--stage recorded"]);
    wrong(
        &["--position", "64", "--ctx", "64"],
        3,
        &["--position 64", "64"],
    );
    wrong(
        &["--driver-dot", "a.dot", "--ctx", "64"],
        3,
        &["no driver", "cpu"],
    );
}
