//! Files that must be refused, and how; and that no damage makes the loader panic.

use crate::gguf_writer::{GgufWriter, RawTensor};
use greta_infer::dtype::DType;
use greta_infer::loader::{Checkpoint, LoadError};
use std::path::{Path, PathBuf};

/// A directory of its own for each test, and files in it.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Desk {
        Desk(tempfile::tempdir().expect("a directory"))
    }

    fn open(&self, bytes: &[u8]) -> Result<Checkpoint, LoadError> {
        // A new name every time: writing into a file that is still mapped is what the loader's contract excludes.
        let path = self.path("broken.gguf");
        std::fs::remove_file(&path).ok();
        std::fs::write(&path, bytes).expect("written");
        Checkpoint::open(&path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// The name of an error's variant.
fn kind(error: &LoadError) -> String {
    let text = format!("{error:?}");
    text.split([' ', '{', '('])
        .next()
        .expect("a word")
        .to_owned()
}

/// A small model-like file with every kind of value.
fn toy() -> GgufWriter {
    GgufWriter::new()
        .meta_str("general.architecture", "llama")
        .meta_u32("llama.block_count", 2)
        .meta_f32("llama.eps", 1e-5)
        .meta_bool("flag", true)
        .meta_strings("tokenizer.ggml.tokens", &["<s>", "</s>", "a", "b"])
        .meta_f32s("tokenizer.ggml.scores", &[0.0, 0.0, -1.0, -2.0])
        .meta_i32s("tokenizer.ggml.token_type", &[3, 3, 1, 1])
        .meta_bools("flags", &[true, false])
        .tensor("token_embd.weight", DType::Q8_0, &[4, 64], vec![1; 4 * 68])
        .tensor(
            "blk.0.attn_q.weight",
            DType::Q4_1,
            &[8, 64],
            vec![2; 8 * 40],
        )
        .tensor("output_norm.weight", DType::F32, &[64], vec![3; 256])
}

/// A tensor of one row of 32 f32 as others see it, to be broken by the caller.
fn raw(name: &str) -> RawTensor {
    RawTensor {
        name: name.as_bytes().to_vec(),
        dimensions: vec![32],
        type_id: 0,
        offset: None,
        bytes: vec![0; 128],
    }
}

#[test]
fn the_toy_is_fine() {
    let file = Desk::new().open(&toy().to_bytes()).expect("it opens");
    assert_eq!((file.metadata().len(), file.tensors().len()), (8, 3));
}

#[test]
fn truncation_is_an_error_wherever_it_falls() {
    let desk = Desk::new();
    let bytes = toy().to_bytes();
    for end in 0..bytes.len() {
        let error = desk.open(&bytes[..end]).expect_err("cut short");
        let expected: &[&str] = match end {
            0 => &["Format"],
            _ => &["Truncated", "Count", "OutOfRange"],
        };
        assert!(expected.contains(&kind(&error).as_str()), "{end}: {error}");
        assert!(error.to_string().contains("broken.gguf: "), "{error}");
    }
}

/// Each is one broken file: what it is, the file, the error's kind, and words its message has.
#[test]
fn every_inconsistency_has_its_error() {
    const HUGE: &[u64] = &[
        u64::MAX,
        u64::MAX - 7,
        1 << 63,
        (1 << 63) - 1,
        1 << 62,
        1 << 61,
        1 << 40,
    ];
    let new = GgufWriter::new;
    let mut cases: Vec<(&str, Vec<u8>, &str, Vec<&str>)> = Vec::new();
    let mut case = |what, writer: GgufWriter, kind, words: &[&'static str]| {
        cases.push((what, writer.to_bytes(), kind, words.to_vec()));
    };

    for (version, found) in [
        (0, "version 0"),
        (1, "version 1"),
        (4, "version 4"),
        (99, "version 99"),
    ] {
        case(
            "a version",
            toy().version(version),
            "Version",
            &[found, "versions 2 and 3"],
        );
    }
    case(
        "big-endian",
        toy().version(3u32.swap_bytes()),
        "Version",
        &["version 3 in big-endian"],
    );
    for &count in HUGE {
        case(
            "tensor count",
            toy().announce_tensors(count),
            "Count",
            &["tensors"],
        );
        case(
            "entry count",
            toy().announce_entries(count),
            "Count",
            &["metadata entries"],
        );
        let length = count.to_le_bytes();
        case(
            "text length",
            new().meta_raw("k", 8, &length),
            "Truncated",
            &["text of k"],
        );
        for item in [0, 1, 2, 4, 6, 7, 8, 10, 12] {
            let array = new().meta_array_raw("k", item, count, &[0; 64]);
            case("item count", array, "Count", &["items of k"]);
        }
        let array = new().meta_array_raw("k", 8, 1, &length);
        case("item length", array, "Truncated", &["text of k[0]"]);
        let tensor = RawTensor {
            dimensions: vec![count],
            ..raw("t")
        };
        // Four bytes an element: from 2^62 elements on, the bytes cannot be counted.
        let kind = if count >= 1 << 62 {
            "Shape"
        } else {
            "OutOfRange"
        };
        case(
            "one huge dimension",
            new().tensor_raw(tensor),
            kind,
            &["t: "],
        );
        let tensor = RawTensor {
            dimensions: vec![32, count, count, 2],
            ..raw("t")
        };
        case(
            "a huge product",
            new().tensor_raw(tensor),
            "Shape",
            &["more elements"],
        );
        let tensor = RawTensor {
            offset: Some(count & !31),
            ..raw("t")
        };
        case(
            "a huge offset",
            new().tensor_raw(tensor),
            "OutOfRange",
            &["t: "],
        );
    }
    // 2^16 four times is 2^64: the product wraps to zero where it is not checked.
    let tensor = RawTensor {
        dimensions: vec![1 << 16; 4],
        ..raw("t")
    };
    case(
        "a product of 2^64",
        new().tensor_raw(tensor),
        "Shape",
        &["more elements"],
    );

    let mut nested = 4u32.to_le_bytes().to_vec();
    nested.extend_from_slice(&1u64.to_le_bytes());
    nested.extend_from_slice(&[0; 4]);
    case(
        "an array of arrays",
        new().meta_array_raw("k", 9, 1, &nested),
        "NestedArray",
        &["k: "],
    );
    case(
        "an empty one",
        new().meta_array_raw("k", 9, 0, &[]),
        "NestedArray",
        &["k: "],
    );
    case(
        "a value type",
        new().meta_raw("k", 13, &[0; 8]),
        "ValueTypeId",
        &["k: ", "13"],
    );
    case(
        "an item type",
        new().meta_array_raw("k", 77, 0, &[]),
        "ValueTypeId",
        &["k: ", "77"],
    );
    case(
        "a bool",
        new().meta_raw("k", 7, &[2]),
        "Bool",
        &["k: ", "2"],
    );
    case(
        "an array's bool",
        new().meta_array_raw("k", 7, 3, &[0, 1, 9]),
        "Bool",
        &["k[2]", "9"],
    );
    case(
        "no key",
        new().meta_u32("", 1),
        "Name",
        &["metadata key 0 is empty"],
    );
    case(
        "a key of bytes",
        new().meta_raw(b"a\xff", 4, &[0; 4]),
        "Name",
        &["key 0", "not UTF-8"],
    );
    let long = "k".repeat(70_000);
    case(
        "a long key",
        new().meta_u32(&long, 1),
        "Count",
        &["metadata key 0", "65535"],
    );
    let twice = new().meta_u32("k", 1).meta_str("k", "x");
    case(
        "a key twice",
        twice,
        "Duplicate",
        &["metadata key \"k\" appears twice"],
    );

    for alignment in [0, 1, 4, 24, 33, 1 << 21, u32::MAX] {
        let odd = toy().meta_u32("general.alignment", alignment);
        case(
            "an alignment",
            odd,
            "Alignment",
            &["powers of two from 8 to 1048576"],
        );
    }
    let text = toy().meta_str("general.alignment", "32");
    case(
        "an alignment of text",
        text,
        "WrongType",
        &["general.alignment is string"],
    );
    let split = toy()
        .meta_raw("split.count", 2, &[3, 0])
        .meta_raw("split.no", 2, &[1, 0]);
    case(
        "a split file",
        split,
        "Split",
        &["part 2 of a model split into 3", "--merge"],
    );

    case(
        "no name",
        new().tensor_raw(raw("")),
        "Name",
        &["name of tensor 0 is empty"],
    );
    let tensor = RawTensor {
        name: b"\xc3".to_vec(),
        ..raw("")
    };
    case(
        "a name of bytes",
        new().tensor_raw(tensor),
        "Name",
        &["name of tensor 0", "not UTF-8"],
    );
    let twice = new().tensor_raw(raw("t")).tensor_raw(raw("t"));
    case(
        "a tensor twice",
        twice,
        "Duplicate",
        &["tensor \"t\" appears twice"],
    );
    for dimensions in [vec![], vec![1; 5], vec![1; 9]] {
        let tensor = RawTensor {
            dimensions,
            ..raw("t")
        };
        case(
            "dimensions",
            new().tensor_raw(tensor),
            "Dimensions",
            &["t: ", "1 to 4"],
        );
    }
    for dimensions in [
        vec![0],
        vec![32, 0],
        vec![0, 32],
        vec![0, u64::MAX, u64::MAX],
    ] {
        let tensor = RawTensor {
            dimensions,
            ..raw("t")
        };
        case(
            "a zero",
            new().tensor_raw(tensor),
            "Shape",
            &["t: ", "dimension of zero"],
        );
    }
    for (type_id, name) in [
        (4, "Q4_2"),
        (31, "Q4_0_4_4"),
        (38, "IQ4_NL_8_8"),
        (43, "43"),
        (u32::MAX, "4294967295"),
    ] {
        let tensor = RawTensor {
            type_id,
            ..raw("t")
        };
        case(
            "a type",
            new().tensor_raw(tensor),
            "UnknownType",
            &["t: ", name, "Q4_K"],
        );
    }
    let tensor = RawTensor {
        dimensions: vec![576, 2],
        type_id: 12,
        ..raw("t")
    };
    case(
        "half a block",
        new().tensor_raw(tensor),
        "PartialBlock",
        &["t: ", "576", "Q4_K", "256"],
    );
    for offset in [1, 4, 31, u64::MAX] {
        let tensor = RawTensor {
            offset: Some(offset),
            ..raw("t")
        };
        case(
            "misaligned",
            new().tensor_raw(tensor),
            "Misaligned",
            &["t: ", "alignment 32"],
        );
    }
    let aligned = new().alignment(64).tensor_raw(raw("s"));
    let tensor = RawTensor {
        offset: Some(32),
        ..raw("t")
    };
    case(
        "misaligned to 64",
        aligned.tensor_raw(tensor),
        "Misaligned",
        &["alignment 64"],
    );
    for offset in [32, 128, 1 << 20] {
        let tensor = RawTensor {
            offset: Some(offset),
            ..raw("t")
        };
        case(
            "out of the file",
            new().tensor_raw(tensor),
            "OutOfRange",
            &["t: ", "takes 128 bytes"],
        );
    }
    for offset in [0, 32, 96] {
        let tensor = RawTensor {
            offset: Some(offset),
            ..raw("u")
        };
        let both = new().tensor_raw(raw("t")).tensor_raw(tensor);
        case("overlapping", both, "Overlap", &["overlap"]);
    }
    let around = RawTensor {
        dimensions: vec![96],
        bytes: vec![0; 384],
        offset: Some(0),
        ..raw("u")
    };
    let inside = RawTensor {
        offset: Some(128),
        ..raw("t")
    };
    let both = new().tensor_raw(inside).tensor_raw(around);
    case(
        "one inside another",
        both,
        "Overlap",
        &["u takes bytes 0 to 384", "t begins inside"],
    );

    let desk = Desk::new();
    for (what, bytes, expected, words) in cases {
        let Err(error) = desk.open(&bytes) else {
            panic!("{what} was accepted");
        };
        let text = error.to_string();
        assert_eq!(kind(&error), expected, "{what}: {text}");
        for word in words.iter().chain(&["broken.gguf: "]) {
            assert!(
                text.contains(word),
                "{what}: {text:?} does not say {word:?}"
            );
        }
        assert!(!text.contains('\n'), "{text}");
    }
}

#[test]
fn what_is_unusual_but_right_is_accepted() {
    let desk = Desk::new();
    let gap = RawTensor {
        offset: Some(256),
        ..raw("u")
    };
    let swapped = [
        RawTensor {
            offset: Some(128),
            ..raw("t")
        },
        RawTensor {
            offset: Some(0),
            ..raw("u")
        },
    ];
    let new = GgufWriter::new;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing at all", new().to_bytes()),
        (
            "a gap",
            [
                new().tensor_raw(raw("t")).tensor_raw(gap).to_bytes(),
                vec![0; 128],
            ]
            .concat(),
        ),
        (
            "another order",
            new()
                .tensor_raw(swapped[0].clone())
                .tensor_raw(swapped[1].clone())
                .to_bytes(),
        ),
        (
            "one part of one",
            new().meta_raw("split.count", 2, &[1, 0]).to_bytes(),
        ),
        (
            "text that is not UTF-8",
            new().meta_bytes("general.author", b"Jos\xe9").to_bytes(),
        ),
        (
            "bytes after the last tensor",
            [toy().to_bytes(), vec![7; 1000]].concat(),
        ),
        (
            "a small alignment",
            new().alignment(8).tensor_raw(raw("t")).to_bytes(),
        ),
    ];
    for (what, bytes) in cases {
        if let Err(error) = desk.open(&bytes) {
            panic!("{what}: {error}");
        }
    }
}

#[test]
fn other_files_are_named() {
    let desk = Desk::new();
    let safetensors = [&12u64.to_le_bytes()[..], br#"{"a":{}}    "#].concat();
    let cases: &[(&str, &[u8])] = &[
        ("an empty file", b""),
        ("SafeTensors", &safetensors),
        ("ZIP archive", b"PK\x03\x04\x14\0\0\0"),
        ("pickle", b"\x80\x02}q\0."),
        ("GGML file", b"lmgg\x01\0\0\0"),
        ("GGUF file in big-endian order", b"FUGG\0\0\0\x03"),
        (
            "Git LFS",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        ),
        ("web page", b"<!DOCTYPE html><html></html>"),
        (
            "unknown format, beginning with the bytes `GGUX\\x03\\x00\\x00\\x00`",
            b"GGUX\x03\0\0\0\0\0\0\0",
        ),
        ("unknown format, beginning with the bytes `hi`", b"hi"),
    ];
    for (expected, bytes) in cases {
        let error = desk.open(bytes).expect_err(expected);
        let text = error.to_string();
        assert_eq!(kind(&error), "Format", "{text}");
        assert!(
            text.contains(expected) && text.contains("GGUF file (version 2 or 3)"),
            "{text}"
        );
    }
}

#[test]
fn paths_that_are_no_files_are_named() {
    let desk = Desk::new();
    let refused = |path: &Path| Checkpoint::open(path).expect_err("refused");
    let directory = desk.path("model");
    std::fs::create_dir(&directory).expect("created");

    let missing = refused(&desk.path("missing.gguf"));
    assert_eq!(kind(&missing), "Io");
    assert!(
        missing.to_string().contains("missing.gguf: cannot open"),
        "{missing}"
    );

    let cases = [
        ("config.json", "a directory"),
        ("model.safetensors", "1 SafeTensors"),
        ("m.gguf", "model/m.gguf"),
    ];
    for (name, expected) in cases {
        std::fs::write(directory.join(name), b"x").expect("written");
        let error = refused(&directory);
        assert_eq!(kind(&error), "Format");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let device = refused(Path::new("/dev/null"));
    assert!(
        device.to_string().contains("a pipe, socket or device"),
        "{device}"
    );
}

/// Walks everything a file hands out, as its users would.
fn read_everything(file: &Checkpoint) -> usize {
    let mut sum = 0;
    for (key, value) in file.metadata().iter() {
        sum += format!("{value}").len();
        let data = file.metadata();
        sum += usize::from(data.str(key).is_ok()) + usize::from(data.u32(key).is_ok());
        if let Ok(Some(strings)) = data.strings(key) {
            sum += strings.iter().map(str::len).sum::<usize>();
        }
        sum += data
            .f32s(key)
            .map_or(0, |items| items.map_or(0, |items| items.len()));
        sum += data
            .i32s(key)
            .map_or(0, |items| items.map_or(0, |items| items.len()));
        sum += data
            .bools(key)
            .map_or(0, |items| items.map_or(0, |items| items.len()));
    }
    for tensor in file.tensors() {
        sum += tensor.element_count();
        sum += tensor
            .data
            .iter()
            .map(|&byte| usize::from(byte))
            .sum::<usize>();
        if tensor.dtype.is_runnable() {
            tensor
                .dtype
                .decode(&tensor.data, &mut vec![0.0; tensor.element_count()]);
        }
    }
    sum
}

/// Damages the toy in a few random places and opens it: it may be refused or not, but nothing may panic.
#[test]
fn random_damage_never_panics() {
    let seed = match std::env::var("GRETA_FUZZ_SEED") {
        Ok(text) => text.parse().expect("GRETA_FUZZ_SEED is a number"),
        Err(_) => std::process::id().into(),
    };
    let rounds =
        std::env::var("GRETA_FUZZ_ROUNDS").map_or(4000, |text| text.parse().expect("a number"));
    println!("GRETA_FUZZ_SEED={seed}");
    let mut random = Random(seed);
    let desk = Desk::new();
    let toy = toy().to_bytes();
    let header_bytes = toy.len() - (4 * 68 + 8 * 40 + 256) - 32;
    let (mut opened, mut refused) = (0, 0);
    for _ in 0..rounds {
        let mut bytes = toy.clone();
        for _ in 0..1 + random.below(3) {
            damage(&mut bytes, header_bytes, &mut random);
        }
        match desk.open(&bytes) {
            Ok(file) => {
                read_everything(&file);
                opened += 1;
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
        }
    }
    assert!(
        opened > rounds / 100 && refused > rounds / 10,
        "{opened} opened, {refused} refused"
    );
}

/// One change to the first `header_bytes` of a file: a byte, or a word that is likely to matter.
fn damage(bytes: &mut [u8], header_bytes: usize, random: &mut Random) {
    const WORDS: &[u64] = &[
        0,
        1,
        7,
        8,
        9,
        31,
        32,
        255,
        65_536,
        1 << 31,
        1 << 32,
        1 << 61,
        1 << 63,
        u64::MAX - 1,
        u64::MAX,
    ];
    let at = random.below(header_bytes);
    match random.below(4) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.below(256) as u8,
        2 => bytes[at] = bytes[at].wrapping_add(1),
        _ => {
            let word = WORDS[random.below(WORDS.len())].to_le_bytes();
            let length = [4, 8][random.below(2)].min(bytes.len() - at);
            bytes[at..at + length].copy_from_slice(&word[..length]);
        }
    }
}

/// SplitMix64: enough for choosing damage, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}
