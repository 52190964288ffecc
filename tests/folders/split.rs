//! Split GGUF models: any part opens the whole, and every disagreement is named.

use super::support::compare::assert_same_bits;
use super::support::gguf_writer::GgufWriter;
use super::support::oracle::Format;
use super::support::toy::{Recipe, Toy};
use super::{logits, refusal, says};
use greta_infer::loader::Checkpoint;
use std::path::{Path, PathBuf};

const COUNT: u16 = 3;

fn toy() -> Toy {
    Recipe::of(Format::by_name("Q8_0")).build()
}

fn part(folder: &Path, number: u16, count: u16) -> PathBuf {
    folder.join(format!("toy-{:05}-of-{count:05}.gguf", number + 1))
}

/// Writes `toy` in parts, as llama.cpp's `gguf-split` does: types and counts of the keys included. The metadata of the
/// whole is the first part's.
fn split(toy: &Toy, folder: &Path) {
    let total = toy.tensors.len() as i32;
    let whole = Toy {
        recipe: toy.recipe,
        vocabulary: super::support::toy::vocabulary::Vocabulary::new(toy.recipe.shape.vocabulary),
        tensors: Vec::new(),
    };
    for number in 0..COUNT {
        let first = if number == 0 {
            whole.gguf()
        } else {
            GgufWriter::new()
        };
        let mut file = keys(first, number, COUNT, total);
        for (index, tensor) in toy.tensors.iter().enumerate() {
            if index % usize::from(COUNT) == usize::from(number) {
                file = file.tensor_raw(super::support::gguf_writer::RawTensor {
                    name: tensor.name.clone().into_bytes(),
                    dimensions: tensor.shape.iter().rev().map(|n| *n as u64).collect(),
                    type_id: tensor.ggml_id,
                    offset: None,
                    bytes: tensor.bytes.clone(),
                });
            }
        }
        file.write(part(folder, number, COUNT));
    }
}

fn keys(file: GgufWriter, number: u16, count: u16, total: i32) -> GgufWriter {
    const U16: u32 = 2;
    file.meta_raw("split.no", U16, &number.to_le_bytes())
        .meta_raw("split.count", U16, &count.to_le_bytes())
        .meta_i32("split.tensors.count", total)
}

#[test]
fn any_part_opens_the_whole() {
    let (toy, folder) = (toy(), tempfile::tempdir().expect("a directory"));
    let one = toy.write(folder.path());
    let expected = logits(Checkpoint::open(&one).expect("a file"), &[1, 2, 3, 4, 5]);
    split(&toy, folder.path());
    for number in 0..COUNT {
        let checkpoint = Checkpoint::open(&part(folder.path(), number, COUNT))
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(checkpoint.tensors().len(), toy.tensors.len());
        assert_eq!(checkpoint.format(), "GGUF v3, 3 parts");
        let found = logits(checkpoint, &[1, 2, 3, 4, 5]);
        assert_same_bits(&found, &expected, "split");
    }
}

#[test]
fn parts_that_do_not_fit_are_named() {
    let toy = toy();
    let check = |change: &dyn Fn(&Path), open: u16, parts: &[&str]| {
        let folder = tempfile::tempdir().expect("a directory");
        split(&toy, folder.path());
        change(folder.path());
        says(&refusal(&part(folder.path(), open, COUNT)), parts);
    };
    let names = |number: u16| format!("toy-{:05}-of-{COUNT:05}.gguf", number + 1);
    let remove =
        |folder: &Path, number| std::fs::remove_file(part(folder, number, COUNT)).expect("removed");
    check(
        &|folder| remove(folder, 2),
        0,
        &["is part 1 of 3", "one is missing", &names(2)],
    );
    check(
        &|folder| {
            remove(folder, 0);
            remove(folder, 2)
        },
        1,
        &["is part 2 of 3", &names(0), &names(2)],
    );
    let rewrite = |folder: &Path, number, file: GgufWriter| file.write(part(folder, number, COUNT));
    let total = toy.tensors.len() as i32;
    check(
        &|folder| rewrite(folder, 1, keys(GgufWriter::new(), 2, COUNT, total)),
        0,
        &[&names(1), "expected split.no 1", "found split.no 2"],
    );
    check(
        &|folder| rewrite(folder, 1, keys(GgufWriter::new(), 1, 4, total)),
        0,
        &[&names(1), "split.count 3", "split.count 4"],
    );
    check(
        &|folder| rewrite(folder, 1, GgufWriter::new()),
        0,
        &[&names(1), "found is a whole model"],
    );
    check(
        &|folder| rewrite(folder, 1, keys(GgufWriter::new(), 1, COUNT, total)),
        0,
        &["split.tensors.count is", "the parts have"],
    );
    check(
        &|folder| {
            std::fs::copy(part(folder, 0, COUNT), part(folder, 1, COUNT)).expect("copied");
        },
        0,
        &[&names(1), "found split.no 0"],
    );
    // Of many that are missing a few are named.
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("toy-00001-of-60000.gguf");
    keys(GgufWriter::new(), 0, 60_000, total).write(&path);
    let message = refusal(&path);
    says(&message, &["toy-00004-of-60000.gguf and 59996 more"]);
    assert!(message.len() < 500, "{message}");
    // A name that is not the part's.
    let folder = tempfile::tempdir().expect("a directory");
    split(&toy, folder.path());
    let renamed = folder.path().join("renamed.gguf");
    std::fs::rename(part(folder.path(), 0, COUNT), &renamed).expect("renamed");
    says(
        &refusal(&renamed),
        &["renamed.gguf", "part 1 of 3", "NAME-00001-of-00003.gguf"],
    );
    // Numbers that cannot be.
    for (number, count) in [(3, 3), (7, 3)] {
        let path = folder.path().join("wild-00001-of-00003.gguf");
        keys(GgufWriter::new(), number, count, 0).write(&path);
        says(&refusal(&path), &[&format!("split.no is {number}")]);
    }
}
