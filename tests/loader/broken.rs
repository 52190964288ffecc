//! Files that must be refused, one inconsistency each, and how.

use crate::desk::{Desk, kind, toy};
use crate::gguf_writer::{GgufWriter, RawTensor};

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
    case(
        "an escape",
        new().meta_u32("a\u{1b}[2J", 1),
        "Name",
        &["key 0", "control character"],
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
        &["should be called NAME-00002-of-00003.gguf", "part 2 of 3"],
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
