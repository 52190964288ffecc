//! The index arithmetic of the tiles in LDS, compiled from `kernels/tile.h` for the host and checked against what the
//! instruction sets say of their operands: what no machine at hand can run is at least indexed right, without bank
//! conflicts, and not read before it has arrived.

#[path = "support/skip.rs"]
mod skip;

use skip::skip;
use std::path::Path;
use std::process::Command;

/// The first of the compilers that build kernels, or the system's.
fn compiler() -> Option<String> {
    let chosen = std::env::var("GRETA_CLANG").ok().filter(|c| c != "none");
    let named = (17..=21).rev().map(|n| format!("clang-{n}"));
    let all = chosen.into_iter().chain(named);
    let mut all = all.chain(["clang".into(), "c++".into()]);
    all.find(|c| {
        Command::new(c)
            .arg("--version")
            .output()
            .is_ok_and(|o| o.status.success())
    })
}

#[test]
fn operands_are_what_the_instructions_take() {
    let Some(compiler) = compiler() else {
        skip("no C++ compiler was found");
        return;
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = folder.path().join("tile_indices");
    let compiled = Command::new(&compiler)
        .args(["-x", "c++", "-std=c++17", "-Wall", "-O1", "-o"])
        .arg(&program)
        .arg(root.join("tests/support/tile_indices.cpp"))
        .arg("-lstdc++")
        .output()
        .expect("a compiler that answers");
    let messages = String::from_utf8_lossy(&compiled.stderr);
    assert!(compiled.status.success(), "{compiler}: {messages}");
    let ran = Command::new(&program)
        .output()
        .expect("a program that starts");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success() && said.ends_with("0 faults\n"),
        "{said}"
    );
}
