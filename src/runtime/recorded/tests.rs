//! Dumps of a made-up recording of a toy program, with times that are known.

use super::*;
use crate::graph::KvType;
use crate::model::{Extent, Hyperparameters, Logits, Model};
use crate::program::Target;
use crate::runtime::{RecordedNode, compile};
use bumpalo::Bump;

fn program(layers: u32) -> Program {
    let hyper = Hyperparameters {
        architecture: "llama".into(),
        layers,
        embedding: 64,
        feed_forward: 96,
        heads: 2,
        kv_heads: 1,
        head_size: 32,
        vocabulary: 100,
        context: 64,
        rms_eps: 1e-5,
        rope_base: 10_000.0,
        ..Hyperparameters::default()
    };
    let model = Model::random(hyper, None, crate::dtype::DType::Q8_0, 1).expect("a valid toy");
    let extent = Extent {
        kv_type: KvType::F16,
        rows: 1,
        context: 64,
        logits: Logits::Last,
    };
    let arena = Bump::new();
    let compiled = compile(&model, &arena, extent, Target::Cpu);
    compiled.expect("the toy compiles").program
}

/// As a GPU's: the step's own copy first, a node a launch, and one launch in two parts.
fn contents(program: &Program, parts_of: usize) -> Contents {
    let node = |launch: Option<usize>, kernel: &str| RecordedNode {
        kind: "kernel".into(),
        kernel: kernel.into(),
        launch,
    };
    let mut nodes = vec![node(None, "step_fetch")];
    for (index, launch) in program.launches.iter().enumerate() {
        nodes.push(node(Some(index), &launch.kernel));
        if index == parts_of {
            nodes.push(node(Some(index), "second_part"));
        }
    }
    let edges = (1..nodes.len()).map(|to| (to - 1, to)).collect();
    Contents { nodes, edges }
}

/// Runs `check` on a recording in which node `i` takes `i` microseconds.
fn with_recorded(layers: u32, parts_of: usize, check: impl Fn(&Recorded<'_>)) {
    let program = program(layers);
    let contents = contents(&program, parts_of);
    let profile = Profile {
        repetitions: 5,
        node_us: (0..contents.nodes.len()).map(|i| i as f64).collect(),
        replay_us: 1e4,
    };
    check(&Recorded {
        device: "a <test> & nothing",
        program: &program,
        contents: &contents,
        position: 7,
        profile: Some(&profile),
        stream_bytes_per_second: Some(1e9),
    });
}

#[test]
fn every_form_accounts_for_all_the_time() {
    with_recorded(5, 3, |recorded| {
        let document = document(recorded);
        let sum = |list: &str, key: &str| -> f64 {
            let entries = document[list].as_array().expect("a list");
            entries.iter().filter_map(|entry| entry[key].as_f64()).sum()
        };
        let total = document["profile"]["total_us"].as_f64().expect("a number");
        for list in ["nodes", "roles"] {
            assert!((sum(list, "us") - total).abs() < 1e-6, "{list}");
            assert!((sum(list, "share_percent") - 100.0).abs() < 1e-6, "{list}");
        }
        assert_eq!(
            sum("roles", "nodes") as usize,
            recorded.contents.nodes.len()
        );
        // Nobody knows how a launch's bytes divide between its two parts.
        let unpriced = |entry: &&serde_json::Value| entry["bytes"].is_null();
        let nodes = document["nodes"].as_array().expect("a list");
        assert_eq!(nodes.iter().filter(unpriced).count(), 3);
        let text = dump(recorded, Format::Text, 0);
        assert!(
            text.contains("second_part") && text.contains("step_fetch"),
            "{text}"
        );
    });
}

#[test]
fn layers_that_do_the_same_are_folded() {
    let drawn = |layers: u32, drawn: u32, parts_of: usize| {
        let count = std::cell::Cell::new((0, 0));
        with_recorded(layers, parts_of, |recorded| {
            let text = dump(recorded, Format::Dot, drawn);
            assert!(text.contains("a &lt;test&gt; &amp; nothing"), "{text}");
            let nodes = text.lines().filter(|l| l.starts_with("    r")).count();
            count.set((text.matches("subgraph").count(), nodes));
        });
        count.get()
    };
    let none = usize::MAX;
    let whole = drawn(1, 1, none).1;
    assert_eq!(drawn(5, 0, none), (3, whole));
    assert_eq!(drawn(5, 2, none).0, 5);
    assert_eq!(drawn(5, 9, none).0, 7);
    // The first layer has a node more and is alike to none.
    assert_eq!(drawn(5, 0, 3).0, 4);
}
