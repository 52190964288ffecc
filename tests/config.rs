//! Configuration files as the binary reads them.

mod support;

use support::command::Bench;

#[test]
fn a_mistake_is_shown_with_line_and_column() {
    let bench = Bench::new();
    let check = |text: &str, parts: &[&str]| {
        bench.write("c.toml", text);
        let ran = bench.run(&["generate", "x", "--config", "c.toml"]);
        ran.expect(3, parts);
    };
    check(
        "[sampling]\ntemprature = 1\n",
        &["c.toml:2:1:", "temprature", "temperature"],
    );
    check(
        "[session]\n  threads = \"two\"\n",
        &["c.toml:2:13:", "string"],
    );
    check(
        "[session]\nkv_type = \"q4_0\"\n",
        &["c.toml:2:11:", "q4_0", "supported: f32, f16, q8_0"],
    );
    check("[session]\ndevice = \"tpu\"\n", &["c.toml:2:10:", "hip"]);
    check(
        "[model]\n[[model.source]]\nurl = \"x\"\n",
        &["c.toml:3:1:", "url"],
    );
    check("[model]\nname = 'a\n", &["c.toml:2:"]);
    check("", &["no model", "--model"]);
}

#[test]
fn a_missing_file_is_named() {
    Bench::new()
        .run(&["generate", "x", "--config", "none.toml"])
        .expect(3, &["none.toml", "No such file"]);
}

#[test]
fn paths_start_at_the_file_and_flags_win() {
    let bench = Bench::new();
    let model = bench.model.file_name().unwrap().to_str().unwrap();
    std::fs::create_dir(bench.path("sub")).unwrap();
    let text = format!(
        "[[model.source]]\npath = \"missing.gguf\"\n[[model.source]]\npath = \"../{model}\"\n\
         [generate]\nmax_tokens = 3\nignore_eos = true\n[session]\ncontext = 40\n"
    );
    bench.write("sub/c.toml", text);
    let count = |more: &[&str]| {
        let args = [
            "generate",
            "once",
            "--config",
            "sub/c.toml",
            "--format",
            "json",
        ];
        let json = bench.run(&[&args[..], more].concat()).expect(0, &[]).json();
        json["tokens"].as_array().unwrap().len()
    };
    assert_eq!(count(&[]), 3);
    assert_eq!(count(&["--max-tokens", "5"]), 5);
    bench.write("long.txt", "z ".repeat(60));
    let long = [
        "generate",
        "--prompt-file",
        "long.txt",
        "--config",
        "sub/c.toml",
    ];
    bench.run(&long).expect(3, &["context holds 40"]);
    bench
        .run(&[&long[..], &["--ctx", "200"]].concat())
        .expect(0, &[]);
}
