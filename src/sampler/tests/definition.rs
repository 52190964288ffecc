//! Choices, weights and words as the module's page defines them.

use super::*;

/// Every choice against the definition as the module's page words it: full sorts, integers of 128 bits, and weights from
/// an exponential of the standard library, which is a unit in the last place or so away. Where a boundary falls so near
/// that this could decide, both sides are right.
#[test]
fn choices_are_those_of_the_definition() {
    for seed in 0..400u64 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let count = [1, 5, 64, 700, 1500][rng.next_u32() as usize % 5];
        let mut row = logits(seed, count);
        match seed % 5 {
            0 => row.iter_mut().for_each(|x| *x = (*x * 2.0).round() / 2.0),
            1 => row
                .iter_mut()
                .step_by(3)
                .for_each(|x| *x = f32::NEG_INFINITY),
            2 => row.fill(1.5),
            _ => {}
        }
        if row.iter().all(|&x| x == f32::NEG_INFINITY) {
            row[0] = 0.0;
        }
        let one_of =
            |rng: &mut ChaCha8Rng, from: &[f32]| from[rng.next_u32() as usize % from.len()];
        let settings = Sampling {
            temperature: one_of(&mut rng, &[0.1, 0.8, 1.0, 2.5]),
            top_k: one_of(&mut rng, &[0.0, 1.0, 7.0, 40.0, 1200.0]) as u32,
            top_p: one_of(&mut rng, &[0.0, 1e-7, 0.5, 0.95, 0.9999, 1.0]),
            min_p: one_of(&mut rng, &[0.0, 1e-4, 0.05, 1.0]),
            seed,
            ..Sampling::default()
        };
        let mut text = Text::new(settings, count);
        for position in 0..20 {
            let token = text.sample_at(&row, position).unwrap();
            let allowed = allowed(&settings, &row, position as u32);
            assert!(
                allowed.contains(&(token as usize)),
                "seed {seed}, position {position}, {settings:?}: {token}, allowed {allowed:?}"
            );
        }
    }
}

/// Tokens that the definition may mean, weights being known to 1e-6.
fn allowed(s: &Sampling, row: &[f32], position: u32) -> Vec<usize> {
    let unit = 1.0 - 2f64.powi(-64) * (word(s.seed, position) ^ u64::MAX) as f64;
    [-1e-6, 0.0, 1e-6]
        .into_iter()
        .flat_map(|slack| {
            let top_p = s.top_p * (1.0 + slack as f32);
            let settings = Sampling { top_p, ..*s };
            let p = distribution(&settings, row);
            [-1e-6, 0.0, 1e-6].map(|nudge| {
                let mut cumulative = 0.0;
                let drawn = unit + nudge;
                let hit = p.iter().position(|p| {
                    cumulative += p;
                    *p > 0.0 && cumulative > drawn
                });
                hit.or(p.iter().rposition(|&p| p > 0.0)).unwrap()
            })
        })
        .collect()
}

#[test]
fn weights_are_the_exponential_to_seven_digits() {
    assert_eq!(weight(3.0, 3.0, 0.7), ONE);
    assert_eq!(weight(f32::NEG_INFINITY, 3.0, 0.7), 0);
    assert_eq!(weight(-30.0, 3.0, 1.0), 0);
    // The greatest inverse temperature leaves the likeliest token alone.
    assert_eq!(weight(3.0, 3.0, f32::MAX), ONE);
    assert_eq!(weight(2.999, 3.0, f32::MAX), 0);
    let mut last = 0;
    for step in 0..=27_000 {
        let x = step as f32 / 1000.0 - 27.0;
        let exact = f64::from(x).exp() * ONE as f64;
        let found = weight(x, 0.0, 1.0);
        let error = (found as f64 - exact).abs();
        assert!(error <= 2e-7 * exact + 1.0, "{x}: {found}, exactly {exact}");
        assert!(found >= last, "{x}: weights of these are in order");
        last = found;
    }
}

#[test]
fn a_share_is_the_upper_half_of_a_product() {
    assert_eq!(share(1 << 63, 10), 5);
    assert_eq!(share(u64::MAX, 10), 9);
    assert_eq!(share(0, u64::MAX), 0);
    assert_eq!(share(u64::MAX, u64::MAX), u64::MAX - 1);
}

/// Position by position, and not in the order in which words are asked for.
#[test]
fn words_are_numbered() {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&77u64.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    let words: Vec<u64> = (0..40).map(|_| rng.next_u64()).collect();
    for position in [39, 0, 7, 8, 9, 31, 1] {
        assert_eq!(word(77, position), words[position as usize]);
    }
}
