//! Whole sessions over toy models of every weight type: right numbers, and the same bits however they are computed.

mod support;

use greta_infer::cpu::isa::Isa;
use greta_infer::dtype::DType;
use greta_infer::graph::KvType;
use greta_infer::loader::Checkpoint;
use greta_infer::model::{Logits, Model};
use greta_infer::runtime::{Session, SessionOptions};
use std::ops::ControlFlow;
use support::compare::{assert_as_near, assert_close, assert_same_bits};
use support::decode::decoding_is_stepping;
use support::oracle::{FORMATS, Format, Kv, Rounding};
use support::rng::Rng;
use support::toy::weights::random_blocks;
use support::toy::{BROAD_HEADS, ODD, Recipe, Toy, WIDE, recipes};

const CONTEXT: usize = 36;
const PROMPT: usize = 29;

/// A toy in a file, opened.
struct Opened {
    toy: Toy,
    model: Model,
    _folder: tempfile::TempDir,
}

fn open(recipe: Recipe) -> Opened {
    let toy = recipe.build();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = toy.write(folder.path());
    let checkpoint = Checkpoint::open(&path).unwrap_or_else(|e| panic!("{e}"));
    let model = Model::from_checkpoint(checkpoint, None).unwrap_or_else(|e| panic!("{e}"));
    Opened {
        toy,
        model,
        _folder: folder,
    }
}

/// The ways to run that must not show in the result.
#[derive(Clone, Copy, Debug)]
struct Way {
    threads: usize,
    chunk_rows: u32,
    kv_type: KvType,
    eager: bool,
    poison: bool,
    logits: Logits,
    isa: Option<Isa>,
}

const PLAIN: Way = Way {
    threads: 1,
    chunk_rows: 8,
    kv_type: KvType::F16,
    eager: false,
    poison: true,
    logits: Logits::Last,
    isa: None,
};

fn session(model: &Model, way: Way) -> Session {
    session_of(model, way, CONTEXT)
}

fn session_of(model: &Model, way: Way, context: usize) -> Session {
    let options = SessionOptions {
        threads: way.threads,
        context: context as u32,
        chunk_rows: way.chunk_rows,
        kv_type: way.kv_type,
        eager: way.eager,
        logits: way.logits,
        poison: way.poison,
        isa: way.isa,
        ..SessionOptions::default()
    };
    Session::build(model, &options, &|_, _| ()).unwrap_or_else(|e| panic!("{way:?}: {e}"))
}

fn prefill(session: &mut Session, tokens: &[u32]) -> Vec<f32> {
    session
        .prefill(tokens, &mut |_| ControlFlow::Continue(()))
        .unwrap_or_else(|e| panic!("{e}"))
        .to_vec()
}

fn step(session: &mut Session, token: u32) -> Vec<f32> {
    session
        .step(token)
        .unwrap_or_else(|e| panic!("{e}"))
        .to_vec()
}

/// Logits of every position, prompt in chunks.
fn prefill_each(session: &mut Session, tokens: &[u32]) -> Vec<f32> {
    let mut all = Vec::new();
    session
        .prefill_each(tokens, &mut |row, logits| {
            assert_eq!(row * logits.len(), all.len(), "rows come in order");
            all.extend_from_slice(logits);
        })
        .unwrap_or_else(|e| panic!("{e}"));
    all
}

/// A prompt, then steps: every row of logits there is, one after the other.
fn prompt_and_steps(session: &mut Session, tokens: &[u32], prompt: usize) -> Vec<f32> {
    let mut all = prefill(session, &tokens[..prompt]);
    for token in &tokens[prompt..] {
        all.extend(step(session, *token));
    }
    all
}

#[test]
fn weights_decode_as_the_oracle_decodes_them() {
    assert_eq!(DType::RUNNABLE.len(), FORMATS.len());
    for format in FORMATS {
        let dtype = DType::from_ggml(format.id).expect("a ggml type");
        assert_eq!(
            (dtype.name(), dtype.block_len(), dtype.block_bytes()),
            (format.name, format.elements, format.bytes)
        );
        let bytes = random_blocks(&mut Rng::new(99), format, 2048, 1.0);
        let mut got = vec![0.0; 2048];
        dtype.decode(&bytes, &mut got);
        for (i, (got, want)) in got.iter().zip(format.dequantise(&bytes)).enumerate() {
            // Formats with a minimum subtract, so the rounding is relative to the terms and not to the result.
            let allowed = 8.0 * f64::from(f32::EPSILON) * want.abs().max(1.0);
            assert!(
                (f64::from(*got) - want).abs() <= allowed,
                "{dtype}[{i}]: {got}, {want}"
            );
        }
    }
}

/// How far apart, relative to their size, two computations of the same logits may be that sum in different orders.
///
/// Float weights leave only keys and values to be rounded; others round every activation, to one part in 16256 of the
/// largest of 32, and f32's own error sends about a fiftieth of them to the other side. In a cache of 8 bits a side is
/// 1/127 of the largest of 32: rare, but wide.
fn flipped(recipe: Recipe, kv_type: KvType) -> f64 {
    match (kv_type, recipe.format.is_float()) {
        (KvType::Q8_0, _) => 2e-3,
        (_, false) => 4e-4,
        (KvType::F16, true) => 1e-4,
        // Nothing is rounded.
        (KvType::F32, true) => 1e-5,
    }
}

/// How the oracle keeps what a cache of this type keeps.
fn kept(kv_type: KvType) -> Kv {
    match kv_type {
        KvType::F32 => Kv::Exact,
        KvType::F16 => Kv::F16,
        KvType::Q8_0 => Kv::Q8,
    }
}

/// Logits of every position of a prompt, and of a prompt followed by steps, are as near to exact ones as the documented
/// rounding allows, and beside those of the imitated rounding.
fn check_against_oracle(recipe: Recipe, count: usize, kv_type: KvType, ways: &[Way]) {
    let Opened { toy, model, .. } = open(recipe);
    let v = recipe.shape.vocabulary;
    let tokens = toy.tokens(11, count);
    let prompt = count - 4;
    let oracle = toy.oracle();
    let exact = oracle.logits(&tokens, Rounding::EXACT);
    let rounding = Rounding {
        kv: kept(kv_type),
        ..Rounding::RUNTIME
    };
    let imitated = oracle.logits(&tokens, rounding);
    let flipped = flipped(recipe, kv_type);
    let from = (prompt - 1) * v;
    for way in ways {
        let way = Way { kv_type, ..*way };
        let place = format!("{}, {way:?}", recipe.describe());
        let each = Way {
            logits: Logits::All,
            ..way
        };
        let got = prefill_each(&mut session_of(&model, each, count), &tokens);
        assert_as_near(&got, &exact, &imitated, flipped, &format!("{place}, each"));

        let got = prompt_and_steps(&mut session_of(&model, way, count), &tokens, prompt);
        assert_as_near(&got, &exact[from..], &imitated[from..], flipped, &place);
    }
}

#[test]
fn every_type_agrees_with_the_oracle() {
    for recipe in recipes() {
        let ways = [(1, 1), (2, 4), (3, 7), (2, 16), (1, 36)].map(|(threads, chunk_rows)| Way {
            threads,
            chunk_rows,
            ..PLAIN
        });
        check_against_oracle(recipe, CONTEXT, KvType::F16, &ways);
    }
}

#[test]
fn every_instruction_set_agrees_with_the_oracle() {
    for isa in Isa::available() {
        for recipe in recipes() {
            let isa = Some(isa);
            check_against_oracle(recipe, 13, KvType::F16, &[Way { isa, ..PLAIN }]);
        }
    }
}

/// Keys and values as they are, and in 8 bits: every head size there is, every instruction set, prompts that begin far
/// from position zero.
#[test]
fn other_caches_agree_with_the_oracle() {
    for (shape, name) in [
        (WIDE, "F32"),
        (ODD, "Q8_0"),
        (WIDE, "Q4_K"),
        (BROAD_HEADS, "Q4_1"),
    ] {
        let recipe = Recipe {
            shape,
            ..Recipe::of(Format::by_name(name))
        };
        let ways: Vec<Way> = Isa::available()
            .into_iter()
            .flat_map(|isa| {
                [(1, 1), (2, 16), (3, 100)].map(|(threads, chunk_rows)| Way {
                    threads,
                    chunk_rows,
                    isa: Some(isa),
                    ..PLAIN
                })
            })
            .collect();
        for kv_type in [KvType::F32, KvType::Q8_0] {
            check_against_oracle(recipe, 130, kv_type, &ways);
        }
    }
}

/// Long enough for several tiles of attention and for chunks that begin far from position zero.
#[test]
fn long_texts_agree_with_the_oracle() {
    for (shape, name) in [(WIDE, "F32"), (ODD, "Q8_0"), (WIDE, "Q4_K")] {
        let recipe = Recipe {
            shape,
            ..Recipe::of(Format::by_name(name))
        };
        let ways = [(2, 64), (1, 100), (3, 300)].map(|(threads, chunk_rows)| Way {
            threads,
            chunk_rows,
            ..PLAIN
        });
        check_against_oracle(recipe, 300, KvType::F16, &ways);
    }
}

/// Several rows at once are summed in another order than one, and then the rounding of activations and of the cache may
/// fall to the other side; a chunk of one row is a step.
#[test]
fn a_prompt_is_the_same_as_its_tokens_one_by_one() {
    for recipe in recipes() {
        let Opened { toy, model, .. } = open(recipe);
        let tokens = toy.tokens(12, PROMPT);
        let mut one_by_one = session(&model, PLAIN);
        let mut last = Vec::new();
        for token in &tokens {
            last = step(&mut one_by_one, *token);
        }
        for chunk_rows in [1, 3, 16, 32] {
            let way = Way {
                chunk_rows,
                ..PLAIN
            };
            let place = format!("{}, {way:?}", recipe.describe());
            let got = prefill(&mut session(&model, way), &tokens);
            if chunk_rows == 1 {
                assert_same_bits(&got, &last, &place);
            } else {
                assert_close(&got, &last, flipped(recipe, way.kv_type), &place);
            }
        }
    }
}

#[test]
fn recording_threads_and_poison_change_no_bit() {
    for recipe in recipes() {
        let Opened { toy, model, .. } = open(recipe);
        let tokens = toy.tokens(13, CONTEXT);
        for kv_type in KvType::ALL {
            let plain = Way { kv_type, ..PLAIN };
            let want = prompt_and_steps(&mut session(&model, plain), &tokens, PROMPT);
            for (threads, eager, poison) in [
                (2, false, true),
                (3, false, true),
                (1, true, true),
                (3, true, true),
                (1, false, false),
            ] {
                let way = Way {
                    threads,
                    eager,
                    poison,
                    ..plain
                };
                let mut this = session(&model, way);
                let got = prompt_and_steps(&mut this, &tokens, PROMPT);
                assert_same_bits(&got, &want, &format!("{}, {way:?}", recipe.describe()));

                let report = this.report();
                let chunks = PROMPT.div_ceil(way.chunk_rows as usize) as u64;
                let steps = (CONTEXT - PROMPT) as u64;
                let expected = if eager {
                    (0, 0, chunks + steps)
                } else {
                    (steps, chunks, 0)
                };
                let counted = (report.replays, report.prompt_replays, report.eager_steps);
                assert_eq!(counted, expected, "{way:?}");
            }
        }
    }
}

#[test]
fn tokens_that_are_fed_back_are_those_fed_by_hand() {
    for name in ["Q4_1", "F16"] {
        let recipe = Recipe::of(Format::by_name(name));
        let Opened { toy, model, .. } = open(recipe);
        let prompt = toy.tokens(18, 11);
        let way = Way {
            threads: 2,
            poison: true,
            ..PLAIN
        };
        decoding_is_stepping(&mut session(&model, way), &prompt, &recipe.describe());
    }
}

#[test]
fn a_reset_session_remembers_nothing() {
    let recipe = Recipe {
        shape: WIDE,
        ..Recipe::of(Format::by_name("Q4_1"))
    };
    let Opened { toy, model, .. } = open(recipe);
    let (long, short) = (toy.tokens(14, CONTEXT), toy.tokens(15, 5));
    let mut used = session(&model, PLAIN);
    prompt_and_steps(&mut used, &long, PROMPT);
    used.reset();
    assert_eq!(used.position(), 0);
    let got = prompt_and_steps(&mut used, &short, 3);
    let want = prompt_and_steps(&mut session(&model, PLAIN), &short, 3);
    assert_same_bits(&got, &want, "after a reset");
    assert_eq!(used.position() as usize, short.len());
}

#[test]
fn a_full_context_is_an_error_that_leaves_the_session_usable() {
    let Opened { toy, model, .. } = open(Recipe::of(Format::by_name("Q8_0")));
    let tokens = toy.tokens(16, CONTEXT + 1);
    let mut session = session(&model, PLAIN);
    let too_long = session
        .prefill(&tokens, &mut |_| ControlFlow::Continue(()))
        .expect_err("a prompt longer than the context is refused");
    let text = too_long.to_string();
    assert!(text.contains("37") && text.contains("36"), "{text}");
    assert_eq!(session.position(), 0, "a refused prompt leaves no trace");

    prefill(&mut session, &tokens[..CONTEXT]);
    let full = session.step(tokens[CONTEXT]).err();
    assert!(full.is_some(), "a step past the context is refused");
    session.reset();
    prefill(&mut session, &tokens[..CONTEXT]);
}

#[test]
fn an_interrupted_prompt_stops_at_a_chunk() {
    let Opened { toy, model, .. } = open(Recipe::of(Format::by_name("F16")));
    let tokens = toy.tokens(17, PROMPT);
    let mut seen = Vec::new();
    let mut session = session(&model, PLAIN);
    let outcome = session.prefill(&tokens, &mut |done| {
        seen.push(done);
        if seen.len() == 2 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    drop(outcome);
    assert_eq!(seen, [8, 16]);
    assert_eq!(session.position(), 16);
}
