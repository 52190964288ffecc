//! Choosing a token: the kernels beside the twin on the host, bit for bit, that is token for token.
//!
//! `GRETA_SAMPLE_CASES` sets how many random cases are tried (200 unless said; an emulated device takes its time).

use super::bench::{Arg, Bench};
use crate::args;
use crate::support::rng::Rng;
use greta_infer::gpu::geometry;
use greta_infer::sampler::{Chooser, RULE_WORDS, Rule, SamplerError, Sampling, weigh};

/// Slots of the ring and positions of the sequence.
const RING: usize = 64;
const CONTEXT: u32 = 100;

/// What the device is asked.
struct Case {
    settings: Sampling,
    logits: Vec<f32>,
    /// The sequence so far; the last of its tokens is the step's.
    history: Vec<u32>,
}

/// What the device says and leaves: the ring's slot, the next step, the history.
#[derive(Debug, PartialEq)]
struct Answer {
    slot: [u32; 4],
    /// Position, rows, token.
    next: [u32; 3],
    history: Vec<u32>,
}

fn words(bytes: &[u8]) -> Vec<u32> {
    let words = bytes.as_chunks().0.iter();
    words.map(|b| u32::from_le_bytes(*b)).collect()
}

fn ask(bench: &Bench, case: &Case) -> Answer {
    let n = case.logits.len() as u32;
    let position = case.history.len() as u32 - 1;
    let chunks = geometry::sample_chunks(n, bench.wave);
    let word_bytes = |words: &[u32]| {
        words
            .iter()
            .flat_map(|w| w.to_le_bytes())
            .collect::<Vec<_>>()
    };
    let mut history = case.history.clone();
    history.resize(CONTEXT as usize, u32::MAX);
    let step = bench.bytes(&word_bytes(&[
        position,
        1,
        0,
        0,
        case.history[position as usize],
    ]));
    let history = bench.bytes(&word_bytes(&history));
    let (rule, scores) = (bench.nans(RULE_WORDS), bench.nans(n as usize));
    let (logits, firsts) = (bench.floats(&case.logits), bench.nans(4 * chunks as usize));
    let ring = bench.nans(4 * RING);
    let mut set: Vec<Arg> = vec![(&rule).into()];
    set.extend(Rule::new(&case.settings).words().map(Arg::from));
    bench.launch("rule_set", geometry::step_set(), &set);
    let args = args![&step, 1u32, &logits, n, &rule, &history, &scores, &firsts];
    bench.launch("sample_scan", geometry::sample_scan(n), args);
    let args = args![
        &step, 1u32, &scores, n, &rule, &firsts, chunks, &step, &history, CONTEXT, &ring
    ];
    bench.launch("sample_choose", geometry::sample_choose(), args);
    let slots = words(&bench.read(&ring));
    let at = (position as usize + 1) % RING * 4;
    let others = slots[..at].iter().chain(&slots[at + 4..]);
    assert!(others.into_iter().all(|&w| w == u32::MAX), "one slot only");
    let step = words(&bench.read(&step));
    Answer {
        slot: slots[at..at + 4].try_into().expect("four words"),
        next: [step[0], step[1], step[4]],
        history: words(&bench.read(&history)),
    }
}

fn expected(case: &Case) -> Result<u32, SamplerError> {
    let rule = Rule::new(&case.settings);
    let recent = rule.window(&case.history, case.history.len());
    let position = case.history.len() as u32;
    Chooser::new(case.logits.len()).choose(&rule, &case.logits, recent, position, &weigh)
}

fn check(bench: &Bench, case: &Case, place: &str) {
    let position = case.history.len() as u32;
    let token = expected(case).unwrap_or_else(|e| panic!("{place}: {e}"));
    let answer = ask(bench, case);
    let place = || format!("{place}, {:?}, V {}", case.settings, case.logits.len());
    assert_eq!(answer.slot, [token, 0, 0, position], "{}", place());
    assert_eq!(answer.next, [position, 1, token], "{}", place());
    assert_eq!(answer.history[position as usize], token, "{}", place());
    let before = &answer.history[..position as usize];
    assert_eq!(before, case.history, "{}", place());
}

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.below(from.len())]
}

/// Settings that reach every path: few and many survivors, of every kind of cut.
fn settings(rng: &mut Rng) -> Sampling {
    Sampling {
        temperature: pick(rng, &[0.0, 1e-30, 0.3, 0.8, 1.0, 3.0]),
        top_k: pick(rng, &[0, 0, 1, 2, 40, 40, 600, 5000]),
        top_p: pick(
            rng,
            &[0.0, 1e-9, 0.3, 0.9, 0.95, 0.999, 0.999_999_9, 1.0, 1.0],
        ),
        min_p: pick(rng, &[0.0, 0.0, 1e-5, 0.05, 1.0]),
        repeat_penalty: pick(rng, &[1.0, 1.0, 1.1, 0.5, 2.0]),
        frequency_penalty: pick(rng, &[0.0, 0.0, 0.3, -0.7, 1000.0]),
        presence_penalty: pick(rng, &[0.0, 0.0, 0.6, -1.1]),
        repeat_last_n: pick(rng, &[0, 1, 7, 64, 1000]),
        seed: u64::from_le_bytes(std::array::from_fn(|_| rng.byte())),
    }
}

/// Logits as models have them, and as they do not: ties, flat rows, rows with few finite values, zeros of both signs.
fn logits(rng: &mut Rng, n: usize) -> Vec<f32> {
    let scale = pick(rng, &[0.01, 1.0, 3.0, 30.0]);
    let mut x: Vec<f32> = (0..n).map(|_| (rng.normal() * scale) as f32).collect();
    match rng.below(9) {
        0 => x.iter_mut().for_each(|x| *x = x.round()),
        1 => x.fill(pick(rng, &[0.0, -3.5, 88.0])),
        2 => x
            .iter_mut()
            .for_each(|x| *x = if *x > 0.0 { 0.0 } else { -0.0 }),
        3 => {
            let finite = rng.below(n);
            let keep = 1 + rng.below(7);
            for (i, x) in x.iter_mut().enumerate() {
                if i != finite && i % keep != 0 {
                    *x = f32::NEG_INFINITY;
                }
            }
        }
        4 => x.sort_by(f32::total_cmp),
        5 => x.iter_mut().step_by(17).for_each(|x| *x += 8.0),
        6 => {
            let at = rng.below(n);
            x[at] = 1e30;
        }
        _ => {}
    }
    x
}

fn random(rng: &mut Rng, n: usize) -> Case {
    let length = 1 + rng.below(CONTEXT as usize - 1);
    Case {
        settings: settings(rng),
        logits: logits(rng, n),
        history: (0..length).map(|_| rng.below(n) as u32).collect(),
    }
}

pub fn twin(bench: &Bench) {
    let cases = std::env::var("GRETA_SAMPLE_CASES").map_or(200, |n| n.parse().expect("a number"));
    for seed in 0..cases {
        let mut rng = Rng::new(seed);
        let n = pick(
            &mut rng,
            &[1usize, 3, 64, 255, 256, 257, 1000, 1024, 4099, 9000],
        );
        let case = random(&mut rng, n);
        check(bench, &case, &format!("seed {seed}"));
    }
}

pub fn great(bench: &Bench) {
    let mut rng = Rng::new(77);
    let base = Sampling {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        ..Sampling::default()
    };
    let flat = |top_k, top_p| Sampling {
        top_k,
        top_p,
        ..base
    };
    for (n, settings, ties) in [
        (262_144, Sampling::greedy(), false),
        (262_144, Sampling::default(), false),
        (262_144, flat(0, 1.0), false),
        (151_936, flat(0, 0.9), false),
        // Nothing but ties: every digit of the place is needed.
        (65_536, flat(7000, 0.5), true),
        (300_001, Sampling::default(), true),
    ] {
        let mut case = random(&mut rng, n);
        case.settings = settings;
        case.logits = match ties {
            true => vec![2.5; n],
            false => (0..n).map(|_| 2.0 * rng.normal() as f32).collect(),
        };
        check(bench, &case, "great");
    }
}

pub fn bad(bench: &Bench) {
    let mut rng = Rng::new(78);
    for n in [1usize, 256, 1000, 5000] {
        for settings in [Sampling::greedy(), Sampling::default()] {
            for (value, twice) in [(f32::NAN, false), (f32::INFINITY, true), (-f32::NAN, true)] {
                let mut case = random(&mut rng, n);
                case.settings = settings;
                let at = rng.below(n);
                case.logits[at] = value;
                if twice {
                    let again = rng.below(n);
                    case.logits[again] = value;
                }
                let Err(SamplerError::BadLogit { index, .. }) = expected(&case) else {
                    panic!("the twin notices");
                };
                let answer = ask(bench, &case);
                let position = case.history.len() as u32;
                assert_eq!(
                    (answer.slot[0], answer.slot[1], answer.slot[3]),
                    (u32::MAX, index as u32, position)
                );
                let found = f32::from_bits(answer.slot[2]);
                assert!(found.is_nan() == value.is_nan() && !found.is_finite());
                assert_eq!(answer.next, [position, 1, 0], "a step that can be run");
            }
            let mut case = random(&mut rng, n);
            case.settings = settings;
            case.logits.fill(f32::NEG_INFINITY);
            let position = case.history.len() as u32;
            assert_eq!(ask(bench, &case).slot, [u32::MAX - 1, 0, 0, position]);
        }
    }
}

/// The step that is made stays within the context, whatever is asked.
pub fn next(bench: &Bench) {
    let case = Case {
        settings: Sampling::greedy(),
        logits: vec![0.0, 1.0, 0.5],
        history: vec![2; CONTEXT as usize],
    };
    let answer = ask(bench, &case);
    assert_eq!(answer.slot, [1, 0, 0, CONTEXT]);
    assert_eq!(answer.next, [CONTEXT - 1, 1, 1]);
    assert_eq!(answer.history, case.history, "there is no position for it");
}
