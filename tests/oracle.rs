//! The oracle itself, checked against what others wrote: PyPI `gguf`'s decoders and a NumPy forward pass.
//!
//! `tests/fixtures/make_oracle.py` made the expectations from files that `GRETA_WRITE_TOYS=DIR cargo test --test oracle`
//! writes.

mod support;

use serde_json::Value;
use support::compare::{rms, rms_difference};
use support::oracle::{
    Attention, FORMATS, Format, Rope, RopeTable, Rounding, gemm, gemm_rounding_bound, rms_norm,
    softmax,
};
use support::rng::Rng;
use support::toy::weights::random_blocks;
use support::toy::{ODD, Recipe, recipes};

const FIXTURE: &str = include_str!("fixtures/oracle.json");

fn fixture(section: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(FIXTURE).expect("oracle.json is JSON");
    all[section].as_array().expect("a list").clone()
}

#[test]
fn toys_are_written_for_the_reference() {
    if let Some(folder) = std::env::var_os("GRETA_WRITE_TOYS") {
        for recipe in recipes() {
            recipe.build().write(folder.as_ref());
        }
    }
}

#[test]
fn every_format_decodes_as_the_reference_does() {
    let cases = fixture("blocks");
    assert_eq!(cases.len(), FORMATS.len());
    for case in cases {
        let name = case["format"].as_str().expect("a name");
        let format = Format::by_name(name);
        assert_eq!(u64::from(format.id), case["id"].as_u64().expect("an id"));
        let bytes = hex(case["bytes"].as_str().expect("hex"));
        let got = format.dequantise(&bytes);
        let want: Vec<f32> = hex(case["values"].as_str().expect("hex"))
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        assert_eq!(got.len(), want.len(), "{name}");
        let largest = got.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        for (i, (g, w)) in got.iter().zip(&want).enumerate() {
            // The reference works in f32: two roundings of terms no larger than twice the largest value.
            let allowed = largest * 4.0 * f64::from(f32::EPSILON);
            assert!((g - f64::from(*w)).abs() <= allowed, "{name}[{i}]: {g} {w}");
        }
    }
}

#[test]
fn the_forward_pass_agrees_with_numpy_on_every_toy() {
    let cases = fixture("logits");
    assert_eq!(cases.len(), recipes().len());
    for (case, recipe) in cases.iter().zip(recipes()) {
        let toy = recipe.build();
        assert_eq!(case["toy"], recipe.describe());
        let numbers = |key: &str| case[key].as_array().expect("a list").clone();
        let tokens: Vec<u32> = numbers("tokens")
            .iter()
            .map(|t| t.as_u64().expect("an id") as u32)
            .collect();
        let logits = toy.oracle().logits(&tokens, Rounding::EXACT);
        let v = recipe.shape.vocabulary;
        let sums: Vec<f64> = logits
            .chunks_exact(v)
            .map(|row| row.iter().map(|x| x.abs()).sum())
            .collect();
        let last = &logits[(tokens.len() - 1) * v..];
        for (key, got) in [("abs_sums", &sums[..]), ("last", &last[..16])] {
            for (i, (want, got)) in numbers(key).iter().zip(got).enumerate() {
                let want = want.as_f64().expect("a number");
                // Fixture values have ten digits; the reference decodes in f32.
                assert!(
                    (want - got).abs() <= 2e-5 * want.abs().max(1.0),
                    "{}: {key}[{i}]: numpy {want}, oracle {got}",
                    recipe.describe()
                );
            }
        }
        let deviation = (last.iter().map(|x| x * x).sum::<f64>() / v as f64).sqrt();
        assert!((0.3..20.0).contains(&deviation), "logits of {deviation}");
    }
}

#[test]
fn random_blocks_have_the_deviation_asked_for() {
    for format in FORMATS {
        let mut rng = Rng::new(7);
        let x = format.dequantise(&random_blocks(&mut rng, format, 256 * 64, 0.5));
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let deviation = (x.iter().map(|v| v * v).sum::<f64>() / n - mean * mean).sqrt();
        assert!(
            (0.35..0.65).contains(&deviation),
            "{}: {deviation}",
            format.name
        );
        assert!(mean.abs() < 0.1, "{}: mean {mean}", format.name);
    }
}

#[test]
fn formulas_hold_on_values_known_by_hand() {
    let close = |got: &[f64], want: &[f64]| {
        assert_eq!(got.len(), want.len());
        for (g, w) in got.iter().zip(want) {
            assert!((g - w).abs() < 1e-12, "{got:?} {want:?}");
        }
    };
    close(
        &softmax(&[0.0, 3f64.ln(), f64::NEG_INFINITY]),
        &[0.25, 0.75, 0.0],
    );
    close(
        &rms_norm(&[3.0, 4.0], &[1.0, 2.0], 0.0),
        &[3.0 / 12.5f64.sqrt(), 8.0 / 12.5f64.sqrt()],
    );
    close(&gemm(&[1.0, 2.0], &[3.0, 4.0, 5.0, 6.0], 2), &[11.0, 17.0]);
    close(
        &gemm_rounding_bound(&[254.0, 0.0], &[3.0, -4.0], 2, 127.0),
        &[7.0],
    );

    // A quarter turn of pair 0, and no turn of pair 1, whose frequency the factor makes tiny.
    let quarter = std::f64::consts::FRAC_PI_2;
    let (a, b) = (1.0 / quarter, 1e30);
    let x = [1.0, 2.0, 3.0, 4.0, 5.0];
    for (style, want) in [
        (Rope::Interleaved, [-2.0, 1.0, 3.0, 4.0, 5.0]),
        (Rope::Halves, [-3.0, 2.0, 1.0, 4.0, 5.0]),
    ] {
        let mut y = x;
        RopeTable::new(style, 4, 100.0, Some(&[a, b])).rotate(&mut y, 5, 1);
        close(&y, &want);
    }

    // Two query heads share a key head. With equal keys attention is the mean of the values in sight.
    let attention = Attention {
        window: Some(2),
        ..Attention::causal(2, 1, 1)
    };
    let (k, v) = ([1.0; 3], [10.0, 20.0, 40.0]);
    close(&attention.run(&[1.0, -1.0], &k, &v, 2), &[30.0, 30.0]);
    close(
        &attention.run(&[1.0; 6], &k, &v, 0),
        &[10.0, 10.0, 15.0, 15.0, 30.0, 30.0],
    );
    let all = Attention::causal(2, 1, 1);
    close(&all.run(&[0.0; 2], &k, &v, 2), &[70.0 / 3.0; 2]);
}

#[test]
fn imitated_rounding_is_small_and_present() {
    let toy = Recipe {
        shape: ODD,
        ..Recipe::of(Format::by_name("Q8_0"))
    }
    .build();
    let tokens = toy.tokens(3, 12);
    let oracle = toy.oracle();
    let exact = oracle.logits(&tokens, Rounding::EXACT);
    let int8 = Rounding {
        activation_levels: Some(127.0),
        ..Rounding::RUNTIME
    };
    for (rounding, expected) in [(int8, 1e-3..3e-2), (Rounding::RUNTIME, 3e-5..5e-4)] {
        let rounded = oracle.logits(&tokens, rounding);
        let error = rms_difference(&rounded, &exact) / rms(&exact);
        assert!(expected.contains(&error), "relative error {error}");
    }
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hex"))
        .collect()
}
