//! What arrives on the device: every byte of every weight, whatever it was made of.

use super::model::open;
use super::twins::program;
use crate::support::planes::pack_rows;
use crate::support::toy::recipes;
use greta_infer::dtype::DType;
use greta_infer::gpu::{Form, Found, Gpu, Setup};
use greta_infer::model::{Hyperparameters, Logits, Model};
use std::cell::Cell;

/// The bytes of each piece beside what the host makes of the tensor.
fn check(model: &Model, found: &Found, place: &str) {
    let step = program(model, found, 1, 32, Logits::Last);
    let setup = Setup {
        threads: 3,
        poison: false,
        overlap: true,
    };
    let seen = Cell::new((0, 0));
    let progress = |done, total| {
        let (before, _) = seen.replace((done, total));
        assert!(
            before <= done && done <= total,
            "{place}: {done} of {total}"
        );
    };
    let fetch = |name: &str| model.tensor(name);
    let gpu = Gpu::new(found, setup, &[&step], &fetch, &progress);
    let gpu = gpu.unwrap_or_else(|e| panic!("{place}: {e}"));
    let file_bytes = gpu.loading().file_bytes;
    assert_eq!(seen.get(), (file_bytes, file_bytes), "{place}: progress");
    let bytes = gpu
        .read_weights()
        .unwrap_or_else(|e| panic!("{place}: {e}"));
    for piece in &gpu.weight_layout().pieces {
        let data = model.tensor(&piece.name).expect("a weight of it").data;
        let mut wanted = vec![0; piece.bytes()];
        match piece.form {
            Form::Matrix => pack_rows(piece.dtype, piece.cols, &data, &mut wanted),
            Form::Table => wanted.copy_from_slice(&data),
            Form::Vector => {
                let mut values = vec![0.0; piece.rows * piece.cols];
                piece.dtype.decode(&data, &mut values);
                let (words, _) = wanted.as_chunks_mut::<4>();
                let pairs = words.iter_mut().zip(values);
                pairs.for_each(|(word, value)| *word = f32::to_le_bytes(value));
            }
        }
        let got = &bytes[piece.offset..][..piece.bytes()];
        let differs = got.iter().zip(&wanted).position(|(got, want)| got != want);
        assert_eq!(
            differs, None,
            "{place}: {piece:?}, the first byte that differs"
        );
    }
}

/// Toys of every type, tied and not.
pub fn toys(found: &Found) {
    for recipe in recipes() {
        check(&open(recipe).1, found, &recipe.describe());
    }
}

/// Weights that fill the buffers a few times over, so that each is used again.
pub fn turns(found: &Found) {
    let hyper = Hyperparameters {
        architecture: "llama".into(),
        layers: 8,
        embedding: 768,
        feed_forward: 2048,
        heads: 12,
        kv_heads: 4,
        head_size: 64,
        vocabulary: 16_000,
        context: 64,
        rms_eps: 1e-5,
        rope_base: 10_000.0,
        ..Hyperparameters::default()
    };
    for dtype in [DType::Q5_0, DType::Q8_0, DType::BF16] {
        let model = Model::random(hyper.clone(), None, dtype, 7);
        let model = model.unwrap_or_else(|e| panic!("{dtype}: {e}"));
        check(&model, found, &format!("random {dtype}"));
    }
}
