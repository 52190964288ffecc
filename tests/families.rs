//! Every family against Hugging Face `transformers`: toy checkpoints with random weights, in F32,
//! over sequences long enough that windows and every scaling of positions matter.
//!
//! With an f32 cache `transformers` is the judge as it is. With the usual one its keys and values are rounded
//! to f16 as the cache rounds them, so that nothing but f32's own error is left between the two.

mod support;

use greta_infer::cpu::isa::Isa;
use greta_infer::dtype::DType;
use greta_infer::graph::KvType;
use greta_infer::model::{Logits, Model, unknown_keys};
use greta_infer::runtime::{Session, SessionOptions};
use std::ops::ControlFlow;
use support::family::{Family, families};

fn session(model: &Model, kv_type: KvType, logits: Logits, isa: Isa) -> Session {
    let options = SessionOptions {
        threads: 2,
        context: 96,
        kv_type,
        chunk_rows: 16,
        poison: true,
        isa: Some(isa),
        logits,
        ..SessionOptions::default()
    };
    Session::build(model, &options, &|_, _| ()).unwrap_or_else(|e| panic!("{e}"))
}

/// Chunks of `parts` tokens, then one token at a time; the widest difference.
fn run(family: &Family, kv_type: KvType, session: &mut Session, parts: &[usize]) -> f64 {
    let (mut done, mut widest) = (0, 0.0f64);
    for part in parts {
        let chunk = &family.tokens[done..done + part];
        let logits = session.prefill(chunk, &mut |_| ControlFlow::Continue(()));
        done += part;
        let how = format!("a prompt in parts of {parts:?}");
        widest = widest.max(family.judge(kv_type, done - 1, logits.expect("it fits"), &how));
    }
    for (index, &token) in family.tokens.iter().enumerate().skip(done) {
        let logits = session.step(token).expect("it fits");
        let how = format!("a step after {parts:?}");
        widest = widest.max(family.judge(kv_type, index, logits, &how));
    }
    widest
}

#[test]
fn logits_are_those_of_transformers() {
    for family in families() {
        let model = family.model(DType::F32);
        let metadata = model.checkpoint().expect("a file").metadata();
        assert_eq!(unknown_keys(metadata).expect("a text"), None);
        for kv_type in [KvType::F32, KvType::F16] {
            let mut widest = 0.0f64;
            for isa in Isa::available() {
                let mut each = session(&model, kv_type, Logits::All, isa);
                each.prefill_each(&family.tokens, &mut |index, logits| {
                    widest = widest.max(family.judge(kv_type, index, logits, "every row"));
                })
                .expect("it fits");
                let mut last = session(&model, kv_type, Logits::Last, isa);
                for parts in [&[][..], &[1], &[8, 33, 23], &[64], &[41, 48]] {
                    widest = widest.max(run(&family, kv_type, &mut last, parts));
                    last.reset();
                }
            }
            let name = family.name;
            println!("{name:<14} {kv_type} cache: within {widest:.1e} of transformers");
        }
    }
}

/// What a key is for shows in the logits: without it they are far from `transformers`'. So a window
/// that nobody applied, or a scale that was lost, could not have passed.
#[test]
fn every_special_key_matters() {
    let special = |key: &str| {
        let plain = ["rope.scaling.type", "attention.layer_norm_rms_epsilon"].contains(&key);
        let parts = ["rope.", "sliding_window", "attention.scale"];
        !plain && parts.iter().any(|part| key.contains(part))
    };
    for family in families() {
        for key in family.keys().filter(|key| special(key)) {
            let mut changed = family.clone();
            changed.disturb(key);
            let model = changed.model(DType::F32);
            let kv_type = KvType::F32;
            let mut session = session(&model, kv_type, Logits::All, Isa::detect());
            let mut apart = 0.0f64;
            let each = &mut |index, logits: &[f32]| {
                apart = apart.max(family.apart(kv_type, index, logits));
            };
            session.prefill_each(&family.tokens, each).expect("it fits");
            println!("{:<14} {key}: {apart:.1e}", family.name);
            assert!(apart > 1e-3, "{}, another {key}: {apart:.1e}", family.name);
        }
    }
}
