//! Model files that are damaged or unsupported, through the whole program: an error line and exit code 3, never a crash.

mod support;

use support::command::{Bench, Ran};
use support::oracle::Format;
use support::rng::Rng;
use support::toy::{Recipe, Toy};

fn toy() -> Toy {
    Recipe::of(Format::by_name("F32")).build()
}

fn generate(bench: &Bench, file: &[u8]) -> Ran {
    let path = bench.write("bad.gguf", file);
    let path = path.display().to_string();
    let args = [
        "generate",
        "hello",
        "--max-tokens",
        "2",
        "--quiet",
        "--threads",
        "1",
    ];
    bench.run(&[&args[..], &["--model", &path]].concat())
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let (bench, file) = (Bench::new(), toy().gguf().to_bytes());
    for part in 0..64 {
        let length = file.len() * part / 64;
        println!("cut to {length} of {} bytes", file.len());
        generate(&bench, &file[..length]).expect(3, &["bad.gguf"]);
    }
    generate(&bench, &file).expect(0, &[]);
}

#[test]
fn damage_is_named() {
    let (bench, file) = (Bench::new(), toy().gguf().to_bytes());
    // Every replacement is as long as what it replaces, so that only one thing is wrong with the file.
    let check = |from: &[u8], to: &[u8], parts: &[&str]| {
        assert_eq!(from.len(), to.len());
        let mut bad = file.clone();
        let at = bad.windows(from.len()).position(|bytes| bytes == from);
        let at = at.unwrap_or_else(|| panic!("{from:?} is not in the file"));
        bad[at..at + to.len()].copy_from_slice(to);
        generate(&bench, &bad).expect(3, &[&["bad.gguf"], parts].concat());
    };
    check(b"GGUF", b"GGML", &[]);
    check(b"GGUF\x03", b"GGUF\x09", &["2 and 3"]);
    check(
        b"tokenizer.ggml.merges",
        b"tokenizer.ggml.mergos",
        &["merges"],
    );
    check(
        b"tokenizer.ggml.tokens",
        b"tokenizer.ggml.tokons",
        &["tokens"],
    );
    check(b"smollm", b"smorgs", &["smorgs", "supported"]);
    check(
        b"llama.block_count",
        b"llama.blick_count",
        &["llama.block_count"],
    );
    check(
        b"blk.1.ffn_up.weight",
        b"blk.1.ffn_op.weight",
        &["blk.1.ffn_up.weight"],
    );
}

#[test]
fn weights_that_are_no_numbers_are_a_runtime_error() {
    let (bench, mut toy) = (Bench::new(), toy());
    let norm = toy
        .tensors
        .iter_mut()
        .find(|t| t.name == "output_norm.weight");
    norm.unwrap().bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    generate(&bench, &toy.gguf().to_bytes()).expect(1, &["logit", "NaN"]);
}

#[test]
fn random_damage_never_crashes() {
    let (bench, file) = (Bench::new(), toy().gguf().to_bytes());
    let seed = 20_261_123;
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    // The header, the metadata and the tensor list come first; damage to weights is only another model.
    let head = file.len().min(16 << 10);
    for _ in 0..150 {
        let mut bad = file.clone();
        for _ in 0..=rng.below(3) {
            let at = rng.below(head);
            bad[at] = rng.byte();
        }
        let ran = generate(&bench, &bad);
        let code = ran
            .code
            .unwrap_or_else(|| panic!("killed by a signal: {ran:?}"));
        if code != 0 {
            assert!(matches!(code, 1 | 3), "{ran:?}");
            ran.expect(code, &[]);
        }
    }
}
