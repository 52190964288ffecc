//! Sessions that go on from what they hold, and texts that go on when the context is full.

use std::ops::ControlFlow;

use greta_infer::generate::{Finish, Full, Generation, Generator, Settings};
use greta_infer::loader::Checkpoint;
use greta_infer::model::{Logits, Model};
use greta_infer::runtime::{Session, SessionOptions};
use greta_infer::sampler::Sampling;
use greta_infer::tokenizer::Tokenizer;

use crate::support::compare::assert_close;
use crate::support::oracle::Format;
use crate::support::toy::{Recipe, Toy};

struct Opened {
    toy: Toy,
    session: Session,
    tokenizer: Tokenizer,
}

fn open(context: u32) -> Opened {
    let toy = Recipe::of(Format::by_name("F32")).build();
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(&toy.write(folder.path())).unwrap();
    let tokenizer = Tokenizer::from_metadata(checkpoint.metadata()).unwrap();
    let model = Model::from_checkpoint(checkpoint, None).unwrap();
    let options = SessionOptions {
        context,
        chunk_rows: 8,
        poison: true,
        logits: Logits::Last,
        ..SessionOptions::default()
    };
    let session = Session::build(&model, &options, &|_, _| ()).unwrap();
    Opened {
        toy,
        session,
        tokenizer,
    }
}

/// The logits after `prompt`, of which `kept` tokens must have been held.
fn prompt(session: &mut Session, prompt: &[u32], kept: usize) -> Vec<f32> {
    let before = session.report().prompt_rows;
    assert_eq!(session.keep_prefix(prompt), kept);
    assert_eq!(session.position() as usize, kept);
    let go_on = &mut |_| ControlFlow::Continue(());
    let logits = session.prefill(&prompt[kept..], go_on).unwrap().to_vec();
    assert_eq!(session.tokens(), prompt);
    assert_eq!(
        session.report().prompt_rows - before,
        (prompt.len() - kept) as u64
    );
    logits
}

#[test]
fn a_prompt_computes_only_what_is_new() {
    let mut opened = open(64);
    let tokens = opened.toy.tokens(11, 40);
    let mut other = tokens.clone();
    other[13] = (other[13] + 1) % 100;
    let session = &mut opened.session;
    let fresh = |session: &mut Session, tokens: &[u32]| {
        session.reset();
        prompt(session, tokens, 0)
    };
    let check = |session: &mut Session, tokens: &[u32], kept: usize| {
        let reused = prompt(session, tokens, kept);
        let expected = fresh(session, tokens);
        assert_close(&reused, &expected, 1e-3, &format!("{kept} kept"));
    };
    prompt(session, &tokens[..20], 0);
    check(session, &tokens, 20);
    // The same again: the last token is computed for its logits.
    check(session, &tokens, 39);
    check(session, &tokens[..30], 29);
    check(session, &other, 13);
    check(session, &tokens[..1], 0);
    // What was decoded is held as well.
    session.reset();
    prompt(session, &tokens[..10], 0);
    for &token in &tokens[10..15] {
        session.step(token).unwrap();
    }
    check(session, &tokens, 15);
    // An error leaves what is held and what is known of it together.
    assert!(session.step(100_000).is_err());
    assert!(
        session
            .prefill(&[1; 25], &mut |_| ControlFlow::Continue(()))
            .is_err()
    );
    assert_eq!(session.tokens(), tokens);
    // So does an interruption after the first chunk.
    session.reset();
    session
        .prefill(&tokens, &mut |_| ControlFlow::Break(()))
        .unwrap();
    assert_eq!((session.tokens(), session.position()), (&tokens[..8], 8));
    check(session, &tokens, 8);
}

/// What goes on in a full context.
type OnFull<'f> = &'f mut dyn FnMut(Full<'_>) -> Option<Vec<u32>>;

fn generate(
    opened: &mut Opened,
    prompt: &[u32],
    max_tokens: usize,
    on_full: Option<OnFull<'_>>,
) -> (Generation, String) {
    let sampling = Sampling::greedy();
    let settings = Settings {
        max_tokens,
        ignore_eos: true,
        ..Settings::default()
    };
    let mut text = String::new();
    let mut on_text = |piece: &str| {
        text.push_str(piece);
        ControlFlow::Continue(())
    };
    let mut never = |_: Full<'_>| None;
    let on_full: &mut dyn FnMut(Full<'_>) -> Option<Vec<u32>> = match on_full {
        Some(on_full) => on_full,
        None => &mut never,
    };
    let mut generator =
        Generator::new(&mut opened.session, &opened.tokenizer, sampling, settings).on_full(on_full);
    let generation = generator.run(prompt, &|| false, &mut on_text).unwrap();
    (generation, text)
}

#[test]
fn a_second_turn_reuses_the_first() {
    let mut opened = open(64);
    let tokens = opened.toy.tokens(5, 12);
    let (first, _) = generate(&mut opened, &tokens, 8, None);
    assert_eq!(
        (first.reused, first.tokens.len(), first.finish),
        (0, 8, Finish::Length)
    );
    // The newest token was chosen but not computed.
    let mut longer = tokens.clone();
    longer.extend_from_slice(&first.tokens);
    let (second, _) = generate(&mut opened, &longer, 8, None);
    assert_eq!(second.reused, longer.len() - 1);
    assert_eq!(opened.session.report().prompt_rows, 13);
    // The two answers are one text.
    let mut fresh = open(64);
    let (whole, _) = generate(&mut fresh, &tokens, 16, None);
    assert_eq!(whole.tokens, [first.tokens, second.tokens].concat());
}

#[test]
fn a_full_context_goes_on_from_the_sequence_that_is_asked_for() {
    let mut opened = open(32);
    let tokens = opened.toy.tokens(7, 20);
    let mut seen: Vec<(Vec<u32>, usize)> = Vec::new();
    let mut on_full = |full: Full<'_>| {
        assert_eq!(full.held.len(), 32);
        seen.push((full.held.to_vec(), full.generated.len()));
        let newest = full.generated.last().copied();
        Some(
            full.held[..4]
                .iter()
                .chain(&full.held[20..])
                .copied()
                .chain(newest)
                .collect(),
        )
    };
    let (generation, text) = generate(&mut opened, &tokens, 50, Some(&mut on_full));
    // 20 held: 12 steps and a 13th token; then 17 held, and 15 steps until it is full again.
    let at: Vec<usize> = seen.iter().map(|(_, generated)| *generated).collect();
    assert_eq!(at, [13, 29, 45]);
    assert_eq!(
        (
            generation.slides,
            generation.tokens.len(),
            generation.finish
        ),
        (3, 50, Finish::Length)
    );
    let steps: Vec<_> = generation
        .steps
        .iter()
        .map(|range| (range.start, range.end))
        .collect();
    assert_eq!(steps, [(20, 32), (17, 32), (17, 32), (17, 21)]);
    let mut detokenizer = opened.tokenizer.detokenizer();
    let mut whole = String::new();
    generation
        .tokens
        .iter()
        .for_each(|&token| whole.push_str(detokenizer.push(token)));
    assert_eq!(text, whole + detokenizer.finish());
    // What was computed after the gap is what a fresh session computes for the same tokens.
    let held = opened.session.tokens().to_vec();
    let mut fresh = open(32);
    let (expected, _) = generate(&mut fresh, &held[..17], 5, None);
    assert_eq!(expected.tokens, generation.tokens[45..]);
    assert_eq!(held[..4], tokens[..4]);
}

#[test]
fn a_full_context_ends_a_text_that_nobody_shortens() {
    let mut opened = open(32);
    let tokens = opened.toy.tokens(7, 30);
    let (generation, _) = generate(&mut opened, &tokens, 50, None);
    assert_eq!(
        (
            generation.finish,
            generation.tokens.len(),
            generation.slides
        ),
        (Finish::Context, 3, 0)
    );
    // An answer that is no sequence ends it as well.
    for wrong in [Vec::new(), vec![1; 33]] {
        let mut on_full = |_: Full<'_>| Some(wrong.clone());
        let (generation, _) = generate(&mut opened, &tokens, 50, Some(&mut on_full));
        assert_eq!((generation.finish, generation.slides), (Finish::Context, 0));
    }
}
