//! Whole sessions on a GPU.

use super::model::open;
use super::runner::search;
use crate::support::compare::{assert_as_near, assert_same_bits};
use crate::support::decode;
use crate::support::oracle::{Format, Kv, Rounding};
use crate::support::toy::{Recipe, recipes};
use greta_infer::dtype::DType;
use greta_infer::gpu::Found;
use greta_infer::graph::KvType;
use greta_infer::hip::Device;
use greta_infer::model::{Logits, Model};
use greta_infer::runtime::{DeviceChoice, PromptPrecision, Session, SessionOptions};
use std::ops::ControlFlow;

const CONTEXT: u32 = 36;

fn options(found: &Found) -> SessionOptions {
    SessionOptions {
        device: DeviceChoice::Hip(Some(found.index)),
        drivers: search(),
        threads: 2,
        context: CONTEXT,
        chunk_rows: 8,
        poison: true,
        ..SessionOptions::default()
    }
}

fn session(model: &Model, options: &SessionOptions) -> Session {
    Session::build(model, options, &|_, _| ()).unwrap_or_else(|e| panic!("{e}"))
}

/// A prompt, then steps: every row of logits there is.
fn run(session: &mut Session, tokens: &[u32], prompt: usize) -> Vec<f32> {
    let logits = session.prefill(&tokens[..prompt], &mut |_| ControlFlow::Continue(()));
    let mut all = logits.unwrap_or_else(|e| panic!("{e}")).to_vec();
    for &token in &tokens[prompt..] {
        all.extend_from_slice(session.step(token).unwrap_or_else(|e| panic!("{e}")));
    }
    all
}

/// How far from the imitated rounding, relative to the logits: as on the CPU, where f32's own error sends
/// a few of the rounded activations to the other side.
fn flipped(recipe: Recipe) -> f64 {
    if recipe.format.is_float() { 1e-4 } else { 4e-4 }
}

pub fn oracle(found: &Found) {
    for recipe in recipes() {
        let (toy, model) = open(recipe);
        let v = recipe.shape.vocabulary;
        let tokens = toy.tokens(11, CONTEXT as usize);
        let oracle = toy.oracle();
        let exact = oracle.logits(&tokens, Rounding::EXACT);
        let imitated = oracle.logits(&tokens, Rounding::RUNTIME);
        for prompt in [1, 29] {
            let place = format!("{}, prompt {prompt}", recipe.describe());
            let got = run(&mut session(&model, &options(found)), &tokens, prompt);
            let from = (prompt - 1) * v;
            let (exact, imitated) = (&exact[from..], &imitated[from..]);
            assert_as_near(&got, exact, imitated, flipped(recipe), &place);
        }
        let each = SessionOptions {
            logits: Logits::All,
            ..options(found)
        };
        let mut got = Vec::new();
        session(&model, &each)
            .prefill_each(&tokens, &mut |_, logits| got.extend_from_slice(logits))
            .unwrap_or_else(|e| panic!("{e}"));
        let place = format!("{}, each", recipe.describe());
        assert_as_near(&got, &exact, &imitated, flipped(recipe), &place);
    }
}

/// A cache of 8 bits: a prompt and steps beside the oracle, and replayed beside eager.
pub fn q8_0_cache(found: &Found) {
    let kv_type = KvType::Q8_0;
    for recipe in [recipes()[0], Recipe::of(Format::by_name("Q4_1"))] {
        let (toy, model) = open(recipe);
        let tokens = toy.tokens(19, 20);
        let oracle = toy.oracle();
        let imitated = Rounding {
            kv: Kv::Q8,
            ..Rounding::RUNTIME
        };
        let options = SessionOptions {
            kv_type,
            ..options(found)
        };
        let prompt = 13;
        let from = (prompt - 1) * recipe.shape.vocabulary;
        let exact = oracle.logits(&tokens, Rounding::EXACT);
        let imitated = oracle.logits(&tokens, imitated);
        let place = format!("{}, {kv_type} cache", recipe.describe());
        let got = run(&mut session(&model, &options), &tokens, prompt);
        // As on the CPU: rarely does an element fall to the other side, but then by 1/127 of its block.
        assert_as_near(&got, &exact[from..], &imitated[from..], 2e-3, &place);
        let eager = SessionOptions {
            eager: true,
            ..options
        };
        let eager = run(&mut session(&model, &eager), &tokens, prompt);
        assert_same_bits(&got, &eager, &place);
    }
}

/// Prompts in chunks, a filled cache continued, and a step: `transformers`' logits, family by family.
pub fn families(found: &Found) {
    for family in crate::support::family::families() {
        let model = family.model(DType::F32);
        let options = SessionOptions {
            context: 96,
            chunk_rows: 24,
            ..options(found)
        };
        let kv_type = options.kv_type;
        let mut session = session(&model, &options);
        let mut widest = 0.0f64;
        let (mut done, parts) = (0, [41, 48]);
        for part in parts {
            let chunk = &family.tokens[done..done + part];
            let logits = session.prefill(chunk, &mut |_| ControlFlow::Continue(()));
            done += part;
            let logits = logits.unwrap_or_else(|e| panic!("{e}"));
            widest = widest.max(family.judge(kv_type, done - 1, logits, "a prompt on the GPU"));
        }
        let logits = session
            .step(family.tokens[done])
            .unwrap_or_else(|e| panic!("{e}"));
        widest = widest.max(family.judge(kv_type, done, logits, "a step on the GPU"));
        println!("  {:<14} within {widest:.1e} of transformers", family.name);
    }
}

pub fn replay_is_eager(found: &Found) {
    for recipe in recipes() {
        let (toy, model) = open(recipe);
        let tokens = toy.tokens(13, CONTEXT as usize);
        let mut replayed = session(&model, &options(found));
        let eager = SessionOptions {
            eager: true,
            poison: false,
            ..options(found)
        };
        let mut eager = session(&model, &eager);
        let prompt = 13;
        let a = run(&mut replayed, &tokens, prompt);
        let b = run(&mut eager, &tokens, prompt);
        assert_same_bits(&a, &b, &recipe.describe());
        // Again over the same caches: nothing of the first sequence may show.
        replayed.reset();
        let again = run(&mut replayed, &tokens, prompt);
        assert_same_bits(&a, &again, &format!("{}, again", recipe.describe()));

        // A prompt of 13 is a chunk of 8 and five steps.
        let (report, steps) = (replayed.report(), 2 * (tokens.len() - 8) as u64);
        assert_eq!(report.graph_fallback, None);
        assert!(report.graph_replay);
        assert_eq!((report.replays, report.eager_steps), (steps, 0));
        assert_eq!(report.prompt_replays, 2);
        assert_eq!(eager.report().replays, 0);
    }
}

pub fn decoding_is_stepping(found: &Found) {
    for recipe in [recipes()[0], recipes()[3]] {
        let (toy, model) = open(recipe);
        let mut session = session(&model, &options(found));
        let (before, prompt) = (session.report(), toy.tokens(18, 11));
        decode::decoding_is_stepping(&mut session, &prompt, &recipe.describe());
        let after = session.report();
        assert_eq!(after.graph_fallback, None);
        assert!(after.replays > before.replays);
    }
}

/// Root mean square of what differs, relative to that of `want`.
fn distance(got: &[f32], want: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let pairs = got.iter().zip(want);
    let off: f64 = pairs.map(|(a, b)| square(f64::from(a - b))).sum();
    let size: f64 = want.iter().map(|b| square(f64::from(*b))).sum();
    (off / size).sqrt()
}

/// A prompt in chunks of 128 and 9 against as many steps: exactly computed as near as chunks of
/// eight are, fast within eleven bits of activations and weights; and the two are not the same.
pub fn long_prompts(found: &Found) {
    for recipe in recipes() {
        let (toy, model) = open(recipe);
        let tokens = toy.tokens(23, 140);
        let at = |precision: PromptPrecision| SessionOptions {
            context: 150,
            chunk_rows: 128,
            prompt_precision: precision,
            ..options(found)
        };
        let exact = run(
            &mut session(&model, &at(PromptPrecision::Exact)),
            &tokens,
            137,
        );
        let mut fast = session(&model, &at(PromptPrecision::Fast));
        assert_eq!(fast.report().recordings, 3, "128, 32 and the step");
        let got = run(&mut fast, &tokens, 137);
        assert_eq!(fast.report().prompt_replays, 2);
        fast.reset();
        let mut steps = Vec::new();
        for (index, &token) in tokens.iter().enumerate() {
            let logits = fast.step(token).unwrap_or_else(|e| panic!("{e}"));
            if index >= 136 {
                steps.extend_from_slice(logits);
            }
        }
        let place = recipe.describe();
        let (near, far) = (distance(&exact, &steps), distance(&got, &steps));
        println!("  {place}: exact {near:.1e}, fast {far:.1e}");
        assert!(near < 1e-3, "{place}: {near}");
        assert!(far < 1e-2, "{place}: {far}");
        let rounds = recipe.format.name != "F32";
        assert_eq!(got != exact, rounds, "{place}: what is fast?");
    }
}

pub fn memory_stays(found: &Found) {
    let steps = std::env::var("GRETA_GPU_STEPS").map_or(1000, |n| n.parse().expect("a number"));
    let (toy, model) = open(recipes()[3]);
    let options = SessionOptions {
        context: 256,
        poison: false,
        ..options(found)
    };
    let device = Device::open(&found.hip, found.info.index).unwrap_or_else(|e| panic!("{e}"));
    let free = || device.memory().unwrap_or_else(|e| panic!("{e}")).0;
    let mut session = session(&model, &options);
    let tokens = toy.tokens(17, 250);
    // The first replays may make the driver fetch what it had put off.
    run(&mut session, &tokens[..20], 10);
    let before = free();
    for chunk in 0..usize::div_ceil(steps, 240) {
        session.reset();
        let count = 240.min(steps - chunk * 240);
        run(&mut session, &tokens[..10 + count], 10);
    }
    assert_eq!(free(), before, "free bytes after {steps} steps");
}

pub fn bandwidth(found: &Found) {
    let (_, model) = open(recipes()[0]);
    let session = session(&model, &options(found));
    let rate = session
        .stream_bytes_per_second()
        .unwrap_or_else(|e| panic!("{e}"));
    println!("  streams {:.1} GB/s", rate / 1e9);
    assert!(rate > 0.0 && rate.is_finite());
    let rate = session
        .copy_bytes_per_second()
        .unwrap_or_else(|e| panic!("{e}"));
    let rate = rate.expect("a GPU has memory of its own");
    println!("  is copied to at {:.1} GB/s", rate / 1e9);
    assert!(rate > 0.0 && rate.is_finite());
}
