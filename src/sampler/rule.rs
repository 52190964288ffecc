//! Settings as devices read them.

use super::Sampling;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Words of a [`Rule`] on a device.
pub const RULE_WORDS: usize = 12;

/// Sampling settings with everything computed that need not be computed for each token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Take the largest logit; nothing below but the penalties then matters.
    pub greedy: bool,
    /// How many of the largest logits survive; 0 keeps all.
    pub top_k: u32,
    /// The share of the weight that the surviving prefix must reach, as a fraction of 2⁶⁴; `None` keeps all.
    pub top_p: Option<u64>,
    /// At most the greatest f32, so that it times 0 is 0.
    pub inverse_temperature: f32,
    /// How far below the largest a logit may be, −∞ for any distance.
    pub floor: f32,
    pub repeat_penalty: f32,
    pub frequency_penalty: f32,
    pub presence_penalty: f32,
    /// How many tokens the penalties look back at; 0 where they would change nothing.
    pub repeat_last_n: u32,
    pub seed: u64,
}

impl Rule {
    /// The rule of settings that have been validated.
    pub fn new(settings: &Sampling) -> Rule {
        let greedy = settings.is_greedy();
        // Exact: f64 has room for a f32 times a power of two, and 1 is kept apart.
        let fraction = f64::from(settings.top_p) * 2f64.powi(64);
        let penalises = settings.repeat_penalty != 1.0
            || settings.frequency_penalty != 0.0
            || settings.presence_penalty != 0.0;
        let window = if penalises { settings.repeat_last_n } else { 0 };
        let inverse = 1.0 / settings.temperature;
        Rule {
            greedy,
            top_k: settings.top_k,
            top_p: (settings.top_p < 1.0).then_some(fraction as u64),
            inverse_temperature: if greedy { 0.0 } else { inverse.min(f32::MAX) },
            floor: f64::from(settings.min_p).ln() as f32,
            repeat_penalty: settings.repeat_penalty,
            frequency_penalty: settings.frequency_penalty,
            presence_penalty: settings.presence_penalty,
            repeat_last_n: u32::try_from(window).unwrap_or(u32::MAX),
            seed: settings.seed,
        }
    }

    /// As `kernels/sample.hip` declares them.
    pub fn words(&self) -> [u32; RULE_WORDS] {
        let halves = |x: u64| [x as u32, (x >> 32) as u32];
        let [p_low, p_high] = halves(self.top_p.unwrap_or(0));
        let [seed_low, seed_high] = halves(self.seed);
        [
            u32::from(self.greedy) | u32::from(self.top_p.is_some()) << 1,
            self.top_k,
            p_low,
            p_high,
            self.inverse_temperature.to_bits(),
            self.floor.to_bits(),
            self.repeat_penalty.to_bits(),
            self.frequency_penalty.to_bits(),
            self.presence_penalty.to_bits(),
            self.repeat_last_n,
            seed_low,
            seed_high,
        ]
    }

    /// The tokens that the penalties look at before position `next` of a sequence.
    pub fn window<'h>(&self, history: &'h [u32], next: usize) -> &'h [u32] {
        &history[next.saturating_sub(self.repeat_last_n as usize)..next]
    }

    /// The logit of a token that is `count ≥ 1` times among those that the penalties look at. Both multiply-adds are
    /// rounded once: the twin of `penalised` in `kernels/sample.hip`.
    pub fn penalised(&self, logit: f32, count: u32) -> f32 {
        let off = (count as f32).mul_add(self.frequency_penalty, self.presence_penalty);
        if logit > 0.0 {
            logit / self.repeat_penalty - off
        } else {
            logit.mul_add(self.repeat_penalty, -off)
        }
    }
}

/// The random word for a position of a text.
pub fn word(seed: u64, position: u32) -> u64 {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut generator = ChaCha8Rng::from_seed(key);
    // The generator counts 32-bit words.
    generator.set_word_pos(2 * u128::from(position));
    generator.next_u64()
}
