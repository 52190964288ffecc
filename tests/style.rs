//! Rules of `src/lib.rs` that are about words, checked as words.

use std::path::{Path, PathBuf};

/// Rust files below `folder`, tests apart.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        match path.is_dir() {
            true if name != "tests" => sources(&path, found),
            false if name.ends_with(".rs") && name != "tests.rs" => found.push(path),
            _ => {}
        }
    }
}

/// The lines outside comments and before the tests of a file that have one of `words`, as `file:line`, except in files
/// that begin with one of `allowed`.
fn lines_with(words: &[&str], allowed: &[&str]) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 100, "{} files", files.len());
    files.sort();
    let mut found = Vec::new();
    for path in files {
        let name = path
            .strip_prefix(&root)
            .expect("below src")
            .display()
            .to_string();
        if allowed.iter().any(|allowed| name.starts_with(allowed)) {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a source file");
        let code = text.lines().enumerate();
        let code = code.take_while(|(_, line)| line.trim() != "#[cfg(test)]");
        let code = code.filter(|(_, line)| !line.trim_start().starts_with("//"));
        let hits = code.filter(|(_, line)| words.iter().any(|word| line.contains(word)));
        found.extend(hits.map(|(number, _)| format!("{name}:{}", number + 1)));
    }
    found
}

#[test]
fn unsafe_code_has_its_places() {
    // `cli` asks which signals are ignored; the runtime promises the processor's recordings one step at a time.
    let allowed = [
        "cpu/",
        "gpu/",
        "hip/",
        "loader/mmap.rs",
        "cli/interrupt.rs",
        "runtime/backend.rs",
    ];
    let none: &[String] = &[];
    assert_eq!(lines_with(&["unsafe "], &allowed), none);
}

#[test]
fn only_the_command_line_prints_and_reads_the_environment() {
    // The first prints the error a command ends with, the second why a process cannot go on, the third only in tests.
    let allowed = ["cli/", "main.rs", "cpu/team.rs", "cpu/test_data.rs"];
    let words = [
        "print!(",
        "println!(",
        "io::stdout",
        "io::stderr",
        "env::var",
        "env::args",
    ];
    let none: &[String] = &[];
    assert_eq!(lines_with(&words, &allowed), none);
}
