//! Paths that lead to something other than a GGUF file: the error says to what.

use crate::desk::{Desk, kind};
use greta_infer::loader::Checkpoint;
use std::path::Path;

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
            text.contains(expected) && text.contains("GGUF files (version 2 or 3"),
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
