//! After a session is built, a token costs no allocation: not in the step, the choice or the detokenizer.
//!
//! One test only: it owns the process's allocator, and another test's allocations would be counted as its own.

mod support;

use greta_infer::loader::Checkpoint;
use greta_infer::model::Model;
use greta_infer::runtime::{Session, SessionOptions};
use greta_infer::sampler::Sampling;
use greta_infer::tokenizer::Tokenizer;
use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use support::oracle::Format;
use support::toy::Recipe;

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to `System` with the caller's own arguments, whose contract the caller has kept.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: see the impl.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: see the impl.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: see the impl.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: see the impl.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// How many allocations any thread makes while `work` runs.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.load(Relaxed);
    work();
    ALLOCATIONS.load(Relaxed) - before
}

#[test]
fn a_token_costs_no_allocation() {
    assert!(allocations(|| drop(vec![1u8])) > 0, "the counter counts");
    for (format, temperature) in [("Q4_1", 0.0), ("Q4_K", 0.8), ("F16", 0.8), ("Q8_0", 0.0)] {
        check(Format::by_name(format), temperature);
    }
}

fn check(format: Format, temperature: f32) {
    let toy = Recipe::of(format).build();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = Checkpoint::open(&toy.write(folder.path())).expect("a checkpoint");
    let tokenizer = Tokenizer::from_metadata(checkpoint.metadata()).expect("a tokenizer");
    let model = Model::from_checkpoint(checkpoint, None).expect("a model");
    let options = SessionOptions {
        threads: 3,
        context: 64,
        chunk_rows: 8,
        ..SessionOptions::default()
    };
    let sampling = Sampling {
        temperature,
        top_k: 40,
        top_p: 0.9,
        min_p: 0.02,
        repeat_penalty: 1.1,
        frequency_penalty: 0.5,
        presence_penalty: 0.5,
        repeat_last_n: 16,
        seed: 7,
    };
    let prompt = toy.tokens(18, 13);
    let mut session = Session::build(&model, &options, &|_, _| ()).expect("a session");
    session.set_sampling(&sampling).expect("settings in range");
    let mut detokenizer = tokenizer.detokenizer();
    let mut text_bytes = 0;
    let mut token = 0;

    // The team's threads may still be starting, which allocates; a first prompt waits for them.
    let go_on = &mut |_| ControlFlow::Continue(());
    session.prefill(&prompt[..3], go_on).expect("a prompt");
    session.reset();
    let in_prompt = allocations(|| {
        session.prefill(&prompt, go_on).expect("a prompt");
        token = session.chosen().expect("a token");
    });
    // The first text may reserve the detokenizer's buffer; the prompt's token does that.
    text_bytes += detokenizer.push(token).len();
    let in_steps = allocations(|| {
        for _ in 0..10 {
            session.step(token).expect("a step");
            token = session.chosen().expect("a token");
            text_bytes += detokenizer.push(token).len();
        }
        let mut decode = session.decode(36).expect("a chosen token");
        while let Some(token) = decode.next().expect("a token") {
            text_bytes += detokenizer.push(token).len();
        }
        decode.end().expect("the last logits");
    });
    assert_eq!(
        (in_prompt, in_steps),
        (0, 0),
        "{}: allocations in the prompt and in 45 steps",
        format.name
    );
    assert!(text_bytes > 0, "the steps made text");
}
