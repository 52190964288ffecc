//! Judging logits: how far apart they are, against how far apart documented rounding puts them.

/// `sqrt(mean((a - b)²))`. Panics if the lengths differ or a value is not finite.
pub fn rms_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let sum: f64 = a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum();
    assert!(sum.is_finite(), "a value is not finite");
    (sum / a.len() as f64).sqrt()
}

/// `sqrt(mean(a²))`.
pub fn rms(a: &[f64]) -> f64 {
    rms_difference(a, &vec![0.0; a.len()])
}

/// The widest difference between two rows.
pub fn max_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .fold(0.0, |m, (x, y)| f64::max(m, (x - y).abs()))
}

/// How far logits are from a judge's: the widest difference, relative to their size where that is above 1. Panics if a
/// value is not finite.
pub fn widest_apart(got: &[f32], want: &[f64], place: &str) -> f64 {
    let got: Vec<f64> = got.iter().map(|&x| x.into()).collect();
    assert!(got.iter().all(|x| x.is_finite()), "{place}: {got:?}");
    max_difference(&got, want) / rms(want).max(1.0)
}

/// What f32 arithmetic adds to the documented rounding, relative to the logits.
pub const SLACK: f64 = 2e-5;

/// Logits `got` are as near to `exact` as `imitated` is, which has the same roundings in exact arithmetic, and within
/// `flipped` of `imitated`, relative to their size. Panics with both sides and the place otherwise.
///
/// Rounding errors are random, so their root mean square is compared, with half of it to spare, and the widest with a
/// factor that a normal distribution does not reach. What remains between `got` and `imitated` are values that f32 and
/// f64 arithmetic put on different sides of a rounding boundary.
pub fn assert_as_near(got: &[f32], exact: &[f64], imitated: &[f64], flipped: f64, place: &str) {
    let got: Vec<f64> = got.iter().map(|x| f64::from(*x)).collect();
    let size = rms(exact);
    let expected = rms_difference(imitated, exact);
    let allowed = 1.5 * expected + SLACK * size;
    let found = rms_difference(&got, exact);
    assert!(
        found <= allowed,
        "{place}: logits of size {size:.3} are {found:.3e} from exact ones; rounding explains {expected:.3e}"
    );
    let widest = max_difference(&got, exact);
    assert!(
        widest <= 8.0 * allowed,
        "{place}: a logit is {widest:.3e} from the exact one; rounding explains {expected:.3e} on average"
    );
    let beside = rms_difference(&got, imitated);
    assert!(
        beside <= flipped * size,
        "{place}: logits of size {size:.3} are {beside:.3e} from those of the imitated rounding"
    );
}

/// The root mean square of `a - b` is at most `relative` of that of `b`. Panics with both sides otherwise.
pub fn assert_close(a: &[f32], b: &[f32], relative: f64, place: &str) {
    let wide = |x: &[f32]| x.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
    let (found, size) = (rms_difference(&wide(a), &wide(b)), rms(&wide(b)));
    assert!(
        found <= relative * size,
        "{place}: logits of size {size:.3} are {found:.3e} apart"
    );
}

/// Both rows have the same bits. Panics with the first place that differs.
pub fn assert_same_bits(a: &[f32], b: &[f32], place: &str) {
    assert_eq!(a.len(), b.len(), "{place}: lengths");
    if let Some(i) = (0..a.len()).find(|&i| a[i].to_bits() != b[i].to_bits()) {
        panic!(
            "{place}: element {i} of {} differs: {} and {}",
            a.len(),
            a[i],
            b[i]
        );
    }
}
