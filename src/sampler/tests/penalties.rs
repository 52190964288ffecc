//! Penalties against what llama.cpp's documentation says of them.

use super::*;

#[test]
fn repetition_penalty_divides_positive_and_multiplies_negative_logits_once() {
    let settings = Sampling {
        repeat_penalty: 2.0,
        repeat_last_n: 3,
        ..Sampling::greedy()
    };
    let row = [3.0, 2.0, -1.0, 1.0];
    let mut sampler = Text::new(settings, 4);
    assert_eq!(sampler.sample(&row), Ok(0));
    sampler.accept(0);
    sampler.accept(0);
    assert_eq!(
        sampler.sample(&row),
        Ok(1),
        "3 / 2 is below 2, and not 3 / 4"
    );
    sampler.accept(1);
    assert_eq!(sampler.sample(&row), Ok(0), "1.5 against 1 and 1");
    sampler.accept(2);
    sampler.accept(3);
    sampler.accept(77);
    assert_eq!(sampler.sample(&row), Ok(0), "0 and 1 have left the window");
    let negative = [f32::NEG_INFINITY, -3.0, -2.0, -3.5];
    assert_eq!(sampler.sample(&negative), Ok(1), "-2 · 2 is below -3");
}

/// Each logit as llama.cpp's documentation of the penalties defines it, in f64, with occurrences counted one by one.
fn penalised(s: &Sampling, row: &[f32], history: &[u32]) -> Vec<f64> {
    let recent = &history[history.len().saturating_sub(s.repeat_last_n)..];
    let one = |(id, &x): (usize, &f32)| {
        let count = recent.iter().filter(|&&token| token as usize == id).count() as f64;
        let (x, repeat) = (f64::from(x), f64::from(s.repeat_penalty));
        if count == 0.0 {
            return x;
        }
        let scaled = if x > 0.0 { x / repeat } else { x * repeat };
        scaled - count * f64::from(s.frequency_penalty) - f64::from(s.presence_penalty)
    };
    row.iter().enumerate().map(one).collect()
}

#[test]
fn penalties_are_what_their_definition_says() {
    let mut changed = 0;
    for seed in 0..400u64 {
        let mut key = [2u8; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut rng = ChaCha8Rng::from_seed(key);
        let mut pick = |from: &[f32]| from[rng.next_u32() as usize % from.len()];
        let settings = Sampling {
            repeat_penalty: pick(&[1.0, 1.0, 1.2, 0.7]),
            frequency_penalty: pick(&[0.0, 0.25, 1.0, -0.5]),
            presence_penalty: pick(&[0.0, 0.5, 2.0, -1.0]),
            repeat_last_n: pick(&[0.0, 1.0, 8.0, 64.0, 5000.0]) as usize,
            ..Sampling::greedy()
        };
        // Near to one another, so that penalties decide.
        let row: Vec<f32> = logits(seed, 40).iter().map(|x| 0.2 * x).collect();
        let mut text = Text::new(settings, row.len());
        (0..rng.next_u32() % 120).for_each(|_| text.accept(rng.next_u32() % 40));
        let right = penalised(&settings, &row, &text.history);
        let best = right.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let found = text.sample(&row).unwrap() as usize;
        assert!(
            right[found] >= best - 1e-5,
            "seed {seed}, {settings:?}: token {found} of {right:?}"
        );
        let plain = Text::new(Sampling::greedy(), row.len())
            .sample(&row)
            .unwrap();
        changed += usize::from(plain as usize != found);
        for (id, (&x, &right)) in row.iter().zip(&right).enumerate() {
            let recent = text.rule.window(&text.history, text.history.len());
            let count = recent.iter().filter(|&&token| token as usize == id).count();
            if count > 0 {
                let found = f64::from(text.rule.penalised(x, count as u32));
                let error = (found - right).abs();
                assert!(
                    error <= 1e-5,
                    "seed {seed}, token {id}: {found}, not {right}"
                );
            }
        }
    }
    assert!(changed > 50, "{changed} choices were changed");
}

/// A count is not a flag: the third time costs three times as much, and presence as much as the first time.
#[test]
fn frequency_counts_and_presence_does_not() {
    let row = [3.0, 2.0, 1.0, -1.0];
    let check = |frequency_penalty, presence_penalty, history: &[u32], expected| {
        let settings = Sampling {
            frequency_penalty,
            presence_penalty,
            ..Sampling::greedy()
        };
        let mut text = Text::new(settings, 4);
        history.iter().for_each(|&token| text.accept(token));
        assert_eq!(
            text.sample(&row),
            Ok(expected),
            "{settings:?} after {history:?}"
        );
    };
    check(0.4, 0.0, &[0, 0], 0);
    check(0.4, 0.0, &[0, 0, 0], 1);
    check(0.0, 0.9, &[0, 0, 0], 0);
    check(0.0, 1.1, &[0], 1);
    check(0.4, 0.7, &[0], 1);
    // Negative ones call tokens back, and one that is not in the vocabulary counts for nothing.
    check(-1.5, 0.0, &[2, 2, 77], 2);
    check(0.0, -4.5, &[3, 3, 77], 3);
}
