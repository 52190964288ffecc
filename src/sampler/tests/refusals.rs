//! What is no row of logits and no setting, and how the errors name it.

use super::*;

#[test]
fn bad_rows_are_errors_that_name_the_index() {
    for settings in [Sampling::greedy(), Sampling::default(), open(0)] {
        for count in [1usize, 16, 17, 100] {
            let mut sampler = Text::new(settings, count);
            for (index, value) in [
                (0, f32::NAN),
                (count - 1, f32::INFINITY),
                (count / 2, -f32::NAN),
            ] {
                let mut row = vec![1.0; count];
                row[index] = value;
                let error = sampler.sample(&row).unwrap_err();
                assert!(
                    matches!(error, SamplerError::BadLogit { index: i, count: c, .. } if (i, c) == (index, count)),
                    "{error}"
                );
            }
            let row = vec![f32::NEG_INFINITY; count];
            assert_eq!(
                sampler.sample(&row),
                Err(SamplerError::NoCandidate { count })
            );
            let error = sampler.sample(&[0.0; 3]).unwrap_err();
            assert_eq!(
                error,
                SamplerError::Length {
                    expected: count,
                    found: 3
                }
            );
        }
    }
    let error = SamplerError::BadLogit {
        index: 5,
        count: 9,
        value: f32::NAN,
    };
    assert_eq!(
        error.to_string(),
        "logit 5 of 9 is NaN; logits must be finite or -inf"
    );
}

#[test]
fn settings_outside_their_range_are_errors_that_name_it() {
    let check = |settings: Sampling, message: &str| {
        let error = settings.validate().unwrap_err();
        assert_eq!(error.to_string(), message);
    };
    let d = Sampling::default();
    check(
        Sampling {
            temperature: -0.5,
            ..d
        },
        "sampling setting temperature is -0.5; allowed: 0 or more, and finite",
    );
    check(
        Sampling {
            temperature: f32::NAN,
            ..d
        },
        "sampling setting temperature is NaN; allowed: 0 or more, and finite",
    );
    check(
        Sampling { top_p: 1.5, ..d },
        "sampling setting top_p is 1.5; allowed: 0 to 1",
    );
    check(
        Sampling {
            min_p: f32::NAN,
            ..d
        },
        "sampling setting min_p is NaN; allowed: 0 to 1",
    );
    check(
        Sampling {
            repeat_penalty: 0.0,
            ..d
        },
        "sampling setting repeat_penalty is 0; allowed: more than 0, and finite",
    );
    check(
        Sampling {
            frequency_penalty: f32::NAN,
            ..d
        },
        "sampling setting frequency_penalty is NaN; allowed: -1000 to 1000",
    );
    check(
        Sampling {
            presence_penalty: -1000.5,
            ..d
        },
        "sampling setting presence_penalty is -1000.5; allowed: -1000 to 1000",
    );
    check(
        Sampling {
            repeat_last_n: usize::MAX,
            ..d
        },
        &format!(
            "sampling setting repeat_last_n is {}; allowed: 0 to 16777216",
            usize::MAX
        ),
    );
}
