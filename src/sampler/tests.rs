//! Every cut and every draw against definitions written the slow way, in `f64`.

mod definition;
mod penalties;
mod refusals;

use super::scan::Candidate;
use super::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A text made of one row of logits over and over: the twin, with what it is told of the sequence.
struct Text {
    rule: Rule,
    chooser: Chooser,
    history: Vec<u32>,
}

impl Text {
    fn new(settings: Sampling, vocabulary: usize) -> Text {
        settings.validate().unwrap();
        Text {
            rule: Rule::new(&settings),
            chooser: Chooser::new(vocabulary),
            history: Vec::new(),
        }
    }

    /// The token for the position after those that were accepted, without accepting it.
    fn sample(&mut self, row: &[f32]) -> Result<u32, SamplerError> {
        self.sample_at(row, self.history.len())
    }

    fn sample_at(&mut self, row: &[f32], position: usize) -> Result<u32, SamplerError> {
        let recent = self.rule.window(&self.history, self.history.len());
        let position = position as u32;
        self.chooser
            .choose(&self.rule, row, recent, position, &weigh)
    }

    fn accept(&mut self, token: u32) {
        self.history.push(token);
    }
}

/// Settings under which nothing is cut and every token can be drawn.
fn open(seed: u64) -> Sampling {
    Sampling {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        seed,
        ..Sampling::default()
    }
}

/// Logits that look like a model's: mostly far below a few large ones, from a seeded generator.
fn logits(seed: u64, count: usize) -> Vec<f32> {
    let mut key = [1u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    let mut unit = || (rng.next_u32() >> 8) as f32 / (1u32 << 24) as f32;
    (0..count)
        .map(|_| -6.0 * (unit() + unit() + unit()) + 12.0 * unit().powi(8))
        .collect()
}

/// The distribution that is promised, by full sorts and sums over everything.
fn distribution(s: &Sampling, row: &[f32]) -> Vec<f64> {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let p1 = |id: usize| (f64::from(row[id]) - f64::from(max)).exp();
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
    if s.top_k > 0 {
        order.truncate(s.top_k as usize);
    }
    let total: f64 = order.iter().map(|&id| p1(id)).sum();
    let mut kept = 0.0;
    let mut prefix = 0;
    while prefix < order.len() && (prefix == 0 || kept < f64::from(s.top_p) * total) {
        kept += p1(order[prefix]);
        prefix += 1;
    }
    if s.top_p < 1.0 {
        order.truncate(prefix);
    }
    order.retain(|&id| p1(id) >= f64::from(s.min_p));
    let tempered =
        |id: usize| ((f64::from(row[id]) - f64::from(max)) / f64::from(s.temperature)).exp();
    let total: f64 = order.iter().map(|&id| tempered(id)).sum();
    let mut out = vec![0.0; row.len()];
    for id in order {
        out[id] = tempered(id) / total;
    }
    out
}

/// Draws many tokens and compares their frequencies with the promised distribution by Pearson's χ².
fn check_distribution(name: &str, settings: Sampling, row: &[f32]) {
    const DRAWS: usize = 40_000;
    let expected = distribution(&settings, row);
    let mut text = Text::new(settings, row.len());
    let mut seen = vec![0usize; row.len()];
    for position in 0..DRAWS {
        seen[text.sample_at(row, position).unwrap() as usize] += 1;
    }
    // Cells too rare for the χ² approximation are pooled into one.
    let (mut chi, mut cells, mut rare_p, mut rare_n) = (0.0, 0usize, 0.0, 0usize);
    let term = |p: f64, n: usize| (n as f64 - p * DRAWS as f64).powi(2) / (p * DRAWS as f64);
    for (id, (&p, &n)) in expected.iter().zip(&seen).enumerate() {
        let seed = settings.seed;
        assert!(
            p > 0.0 || n == 0,
            "{name} (seed {seed}): token {id} was cut, yet drawn {n} times"
        );
        if p * DRAWS as f64 >= 8.0 {
            (chi, cells) = (chi + term(p, n), cells + 1);
        } else {
            (rare_p, rare_n) = (rare_p + p, rare_n + n);
        }
    }
    if rare_p * DRAWS as f64 >= 8.0 {
        (chi, cells) = (chi + term(rare_p, rare_n), cells + 1);
    }
    // Mean df, variance 2·df: five deviations above is a probability around 1e-5 for these df.
    let df = cells.saturating_sub(1) as f64;
    let bound = df + 5.0 * (2.0 * df).sqrt() + 1e-9;
    println!(
        "{name}: seed {}, {cells} cells, χ² {chi:.1} (bound {bound:.1})",
        settings.seed
    );
    assert!(
        chi <= bound,
        "{name} (seed {}): χ² {chi:.1} > {bound:.1}",
        settings.seed
    );
}

#[test]
fn frequencies_match_the_promised_distribution() {
    let row = logits(11, 700);
    let base = open(20261123);
    let cases = [
        ("plain", base),
        (
            "hot",
            Sampling {
                temperature: 1.7,
                ..base
            },
        ),
        (
            "cold",
            Sampling {
                temperature: 0.3,
                ..base
            },
        ),
        ("top-k", Sampling { top_k: 7, ..base }),
        (
            "top-k beyond the vocabulary",
            Sampling {
                top_k: 9000,
                ..base
            },
        ),
        ("top-p", Sampling { top_p: 0.6, ..base }),
        (
            "top-p, wide",
            Sampling {
                top_p: 0.995,
                ..base
            },
        ),
        ("top-p 0", Sampling { top_p: 0.0, ..base }),
        (
            "min-p",
            Sampling {
                min_p: 0.02,
                ..base
            },
        ),
        ("min-p 1", Sampling { min_p: 1.0, ..base }),
        (
            "top-k and top-p",
            Sampling {
                top_k: 20,
                top_p: 0.9,
                temperature: 1.3,
                ..base
            },
        ),
        (
            "top-p and min-p",
            Sampling {
                top_p: 0.97,
                min_p: 0.01,
                ..base
            },
        ),
        (
            "all",
            Sampling {
                top_k: 40,
                top_p: 0.95,
                min_p: 0.05,
                temperature: 0.8,
                ..base
            },
        ),
    ];
    for (name, settings) in cases {
        check_distribution(name, settings, &row);
    }
}

#[test]
fn forbidden_tokens_are_never_drawn() {
    let mut row = logits(3, 300);
    for id in (0..300).filter(|id| id % 3 != 1) {
        row[id] = f32::NEG_INFINITY;
    }
    check_distribution("plain with -inf", open(5), &row);
    check_distribution(
        "top-k with -inf",
        Sampling {
            top_k: 150,
            ..open(6)
        },
        &row,
    );
    check_distribution(
        "top-p with -inf",
        Sampling {
            top_p: 0.9999,
            ..open(7)
        },
        &row,
    );
}

#[test]
fn ties_keep_and_take_the_lowest_index() {
    let mut row = vec![1.0f32; 1000];
    let greedy = |row: &[f32]| {
        let mut text = Text::new(Sampling::greedy(), row.len());
        text.sample(row).unwrap()
    };
    assert_eq!(greedy(&row), 0);
    row[517] = 2.0;
    row[900] = 2.0;
    assert_eq!(greedy(&row), 517);
    assert_eq!(greedy(&[-0.0, 0.0]), 0);
    let mut kept = Vec::new();
    scan::top_k(&row, 5, &mut kept);
    kept.sort_unstable_by(scan::descending);
    let ids: Vec<u32> = kept.iter().map(|c| c.0).collect();
    assert_eq!(ids, [517, 900, 0, 1, 2]);
}

#[test]
fn top_k_agrees_with_a_full_sort_and_never_grows_its_list() {
    for seed in 0..40u64 {
        let count = [1, 2, 63, 64, 65, 1000, 5001][seed as usize % 7];
        let mut row = logits(seed, count);
        match seed % 4 {
            0 => row.iter_mut().for_each(|x| *x = x.round()),
            1 => row.sort_by(f32::total_cmp),
            _ => {}
        }
        let mut order: Vec<Candidate> = (0u32..).zip(row.iter().copied()).collect();
        order.sort_by(scan::descending);
        for k in [1, 2, 40, count.div_ceil(2), count] {
            let k = k.min(count);
            let room = scan::top_k_capacity(k, count);
            let mut kept = Vec::with_capacity(room);
            let capacity = kept.capacity();
            scan::top_k(&row, k, &mut kept);
            assert_eq!(kept.capacity(), capacity, "seed {seed}, k {k}");
            kept.sort_by(scan::descending);
            assert_eq!(kept, order[..k], "seed {seed}, k {k}");
        }
    }
}

/// The sequence a seed stands for. If this test has to change, every published seed means something else.
#[test]
fn a_seed_names_one_sequence() {
    let row: Vec<f32> = (0..500).map(|i| (i * 37 % 101) as f32 / 16.0).collect();
    let check = |settings: Sampling, expected: [u32; 12]| {
        let mut text = Text::new(settings, row.len());
        let drawn: [u32; 12] = std::array::from_fn(|at| text.sample_at(&row, at).unwrap());
        assert_eq!(drawn, expected, "{settings:?}");
    };
    check(open(0), PLAIN_0);
    check(open(1), PLAIN_1);
    check(
        Sampling {
            seed: 42,
            temperature: 2.0,
            top_p: 0.99,
            min_p: 0.001,
            ..Sampling::default()
        },
        CUT_42,
    );
}

const PLAIN_0: [u32; 12] = [423, 319, 120, 60, 130, 49, 5, 131, 161, 338, 333, 210];
const PLAIN_1: [u32; 12] = [191, 149, 400, 460, 431, 68, 365, 393, 204, 232, 423, 111];
const CUT_42: [u32; 12] = [161, 139, 240, 180, 423, 30, 240, 131, 232, 393, 292, 423];

#[test]
fn the_generator_is_chacha8_keyed_by_the_seed() {
    // The first words of ChaCha8 under an all-zero key and nonce, as published with the cipher's test vectors.
    let mut rng = ChaCha8Rng::from_seed([0; 32]);
    let bytes: Vec<u8> = (0..2).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
    assert_eq!(
        bytes,
        [
            0x3e, 0x00, 0xef, 0x2f, 0x89, 0x5f, 0x40, 0xd6, 0x7f, 0x5b, 0xb8, 0xe8, 0x1f, 0x09,
            0xa5, 0xa1
        ]
    );
}

#[test]
fn log_probabilities_are_those_of_an_f64_softmax() {
    for seed in 0..8 {
        let row = logits(seed, 4001);
        let exact: Vec<f64> = {
            let total: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
            row.iter()
                .map(|&x| (f64::from(x).exp() / total).ln())
                .collect()
        };
        let mut out = Vec::new();
        top_logprobs(&row, 10, &mut out).unwrap();
        assert_eq!(out.len(), 10);
        assert!(out.windows(2).all(|w| w[0].1 >= w[1].1));
        for &(id, logprob) in &out {
            let error = (f64::from(logprob) - exact[id as usize]).abs();
            assert!(error < 1e-6, "seed {seed}, token {id}: off by {error:e}");
        }
    }
    let mut out = vec![(7, 7.0)];
    top_logprobs(&[1.0, 1.0], 5, &mut out).unwrap();
    let half = 0.5f32.ln();
    assert_eq!(out, [(0, half), (1, half)]);
    assert!(top_logprobs(&[f32::NAN], 1, &mut out).is_err());
}

/// As in [`Chooser`]'s promise: everything is allocated once.
#[test]
fn nothing_grows_after_the_first_call() {
    let base = open(9);
    let cases = [
        base,
        Sampling::default(),
        Sampling { top_k: 1, ..base },
        Sampling {
            top_k: u32::MAX,
            ..base
        },
        Sampling { top_p: 0.9, ..base },
        Sampling {
            min_p: 1e-9,
            ..base
        },
        Sampling {
            repeat_penalty: 1.1,
            frequency_penalty: 0.1,
            ..Sampling::greedy()
        },
    ];
    for settings in cases {
        let mut text = Text::new(settings, 3001);
        let before = text.chooser.capacities();
        for seed in 0..20 {
            let mut row = logits(seed, 3001);
            if seed % 2 == 0 {
                row.sort_by(f32::total_cmp);
            }
            let token = text.sample(&row).unwrap();
            text.accept(token);
        }
        assert_eq!(text.chooser.capacities(), before, "{settings:?}");
    }
}
