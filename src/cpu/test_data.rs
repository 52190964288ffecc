//! Random data for kernel tests, and the comparison they share.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A source of test data. Its seed is printed, and a failed test shows what was printed.
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    pub(crate) fn from_clock() -> Random {
        let seed = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("the clock is past 1970")
            .subsec_nanos();
        Random::new(seed.into())
    }

    pub(crate) fn new(seed: u64) -> Random {
        println!("Random::new({seed})");
        Random(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Numbers of mean 0 and variance 1, in −6..6.
    pub(crate) fn normal(&mut self, n: usize) -> Vec<f32> {
        (0..n)
            .map(|_| (0..12).map(|_| self.0.random::<f32>()).sum::<f32>() - 6.0)
            .collect()
    }
}

/// Asserts |found − expected| ≤ relative · |expected| + absolute, element by element.
#[track_caller]
pub(crate) fn assert_close(
    found: &[f32],
    expected: &[f64],
    relative: f64,
    absolute: f64,
    what: &str,
) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(found) - expected).abs();
        assert!(
            error <= relative * expected.abs() + absolute,
            "{what}: element {i}: expected {expected:e}, found {found:e}, off by {error:e}"
        );
    }
}
