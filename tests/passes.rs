//! Passes change how a step is computed, never what: random graphs mean the same before and after
//! `optimise`, by an f64 interpreter of the IR.

mod support;

#[path = "passes/definitions.rs"]
mod definitions;
#[path = "passes/interpreter.rs"]
mod interpreter;
#[path = "passes/webs.rs"]
mod webs;

use bumpalo::Bump;
use greta_infer::graph::{Graph, text};
use greta_infer::pass::{Gates, Options, optimise};
use interpreter::Interpreter;
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};
use support::rng::Rng;

/// How often each pass fired over all graphs of a test.
type Fired = BTreeMap<&'static str, usize>;

/// Another seed every run.
fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seed = now.expect("the clock is past 1970").subsec_nanos();
    println!("seed {seed}");
    seed.into()
}

/// Runs a sequence of steps through the graph and through what the passes make of it.
fn check(rng: &mut Rng, graph: &Graph<'_>, rows: usize, context: usize, what: &str) -> Fired {
    let attention_split = 1 + rng.below(context) as u32;
    let gpu = rng.below(2) == 0;
    let options = Options {
        attention_split,
        gates: if gpu { Gates::OneType } else { Gates::Any },
        gated_quantizes: rng.below(2) == 0,
        norm_cols: if gpu { 1 << rng.below(8) } else { 0 },
        attention_blocks: gpu.then(|| 1 + rng.below(20) as u32),
        half_rows: None,
    };
    let (optimised, reports) = optimise(graph.clone(), options)
        .unwrap_or_else(|error| panic!("{what}: {error}\n{}", text(graph)));
    let (mut before, mut after) = (Interpreter::new(graph), Interpreter::new(&optimised));
    let mut position = 0;
    while position < context {
        let live = (1 + rng.below(rows)).min(context - position);
        let tokens: Vec<usize> = (0..live)
            .map(|_| rng.below(definitions::VOCABULARY))
            .collect();
        let (expected, found) = (
            before.step(position, &tokens),
            after.step(position, &tokens),
        );
        assert_eq!(expected.len(), found.len(), "{what}: rows");
        for (e, f) in expected.iter().flatten().zip(found.iter().flatten()) {
            let close = (e - f).abs() <= 1e-9 * (1.0 + e.abs());
            assert!(
                close,
                "{what}, position {position}: expected {e}, found {f}\n{}\n{}",
                text(graph),
                text(&optimised)
            );
        }
        position += live;
    }
    reports.iter().map(|r| (r.pass, r.fired)).collect()
}

fn sum(total: &mut Fired, fired: Fired) {
    for (pass, count) in fired {
        *total.entry(pass).or_default() += count;
    }
}

#[test]
fn definitions_keep_their_meaning() {
    let seed = seed();
    let mut rng = Rng::new(seed);
    let mut total = Fired::new();
    for case in 0..150 {
        let arena = Bump::new();
        let toy = definitions::random(&mut rng);
        let graph = toy.graph(&arena);
        let what = format!("seed {seed}, case {case}, {}", toy.describe());
        let (rows, context) = (toy.extent.rows as usize, toy.extent.context as usize);
        sum(&mut total, check(&mut rng, &graph, rows, context, &what));
    }
    println!("{total:?}");
    assert!(
        total.values().all(|&fired| fired > 0),
        "every pass fires: {total:?}"
    );
}

#[test]
fn webs_keep_their_meaning() {
    let seed = seed();
    let mut rng = Rng::new(seed);
    let mut total = Fired::new();
    for case in 0..1500 {
        let arena = Bump::new();
        let graph = webs::random(&mut rng, &arena);
        let what = format!("seed {seed}, case {case}");
        sum(&mut total, check(&mut rng, &graph, 3, 4, &what));
    }
    println!("{total:?}");
    for pass in [
        "fuse_gates",
        "merge_gemms",
        "fuse_residuals",
        "eliminate_dead",
    ] {
        assert!(total[pass] > 0, "{pass} fires: {total:?}");
    }
}
