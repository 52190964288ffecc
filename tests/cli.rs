//! The command line from outside: forms, JSON keys, exit codes, streams.

mod support;

use serde_json::Value;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;
use support::command::{Bench, Ran};

const PROMPT: &str = "once upon the time";

#[test]
fn exit_codes_tell_usage_input_and_success_apart() {
    let bench = Bench::new();
    bench.write("long.txt", "a".repeat(3000));
    bench.write("binary.txt", b"ab\xff");
    bench.write("short.txt", "hello");
    bench.write("not-a-model.gguf", "no");
    bench.write("bad.toml", "op = 1");
    let check = |args: &[&str], code: i32, parts: &[&str]| {
        bench.with_model(args).expect(code, parts);
    };
    // Usage.
    check(&["generate"], 2, &["<PROMPT>", "--help"]);
    check(
        &["generate", "x", "--ctx", "0"],
        2,
        &["--ctx", "at least 1"],
    );
    check(
        &["generate", "x", "--temperature", "1"],
        2,
        &["--temperature"],
    );
    check(&["generate", "x", "--logprobs", "3"], 2, &["--format json"]);
    check(
        &["generate", "x", "--prompt-file", "y"],
        2,
        &["cannot be used with"],
    );
    check(&["fly"], 2, &["fly"]);
    // Input.
    let threads = ["generate", "x", "--threads", "99999"];
    check(&threads, 3, &["99999", "1024"]);
    let context = ["generate", "x", "--ctx", "99999999"];
    check(&context, 3, &["--ctx 99999999", "16777216"]);
    bench.write("large.toml", "[session]\ncontext = 99999999\n");
    let context = ["generate", "x", "--config", "large.toml"];
    let in_file = "large.toml: session.context 99999999";
    check(&context, 3, &[in_file, "16777216"]);
    bench.write("small.toml", "[session]\ncontext = 3\n");
    let small = ["perplexity", "short.txt", "--config", "small.toml"];
    check(&small, 3, &["small.toml: session.context 3", "at least 4"]);
    check(&["generate", "x", "--device", "tpu"], 2, &["tpu", "hip:N"]);
    check(
        &["generate", "x", "--temp", "-1"],
        3,
        &["temperature", "-1"],
    );
    check(&["generate", "x", "--top-p", "2"], 3, &["top_p", "2"]);
    check(
        &["generate", "x", "--frequency-penalty", "-1001"],
        3,
        &["frequency_penalty", "-1001", "-1000 to 1000"],
    );
    check(&["generate", "x", "--stop", ""], 3, &["stop string"]);
    check(&["generate", "x", "--graph", "bad.toml"], 3, &["bad.toml"]);
    check(
        &["generate", "--prompt-file", "none.txt"],
        3,
        &["none.txt", "No such file"],
    );
    check(
        &["generate", "--prompt-file", "binary.txt"],
        3,
        &["UTF-8", "offset 2"],
    );
    check(
        &["generate", "--prompt-file", "long.txt", "--ctx", "32"],
        3,
        &["context holds 32"],
    );
    check(
        &["perplexity", "short.txt", "--ctx", "64"],
        3,
        &["short.txt", "64", "--ctx"],
    );
    check(
        &["perplexity", "long.txt", "--ctx", "3"],
        3,
        &["at least 4"],
    );
    check(
        &["bench", "--ctx", "16", "--tokens", "17"],
        3,
        &["16", "512"],
    );
    check(&["bench", "--random-weights"], 3, &["[model.shape]"]);
    let model = |file: &str, parts: &[&str]| {
        bench
            .run(&["generate", "x", "--model", file])
            .expect(3, parts);
        bench.run(&["info", file]).expect(3, parts);
    };
    model("none.gguf", &["none.gguf", "no such file"]);
    model("not-a-model.gguf", &["not-a-model.gguf"]);
    model(".", &["a directory"]);
    // Success.
    bench.run(&["--version"]).expect(0, &[]);
    let help = bench.run(&["--help"]);
    assert!(help.expect(0, &[]).stdout.contains("130"), "{help:?}");
}

#[test]
fn generate_gives_the_promised_keys() {
    let bench = Bench::new();
    let args = [
        "generate",
        PROMPT,
        "--max-tokens",
        "6",
        "--ignore-eos",
        "--format",
        "json",
    ];
    let ran = bench.with_model(&[&args[..], &["--logprobs", "3"]].concat());
    let json = ran.expect(0, &[]).json();
    let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
    for key in [
        "prompt_tokens",
        "tokens",
        "text",
        "finish_reason",
        "logprobs",
        "timings",
    ] {
        assert!(keys.iter().any(|k| *k == key), "{keys:?}");
    }
    let tokens = json["tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), 6);
    assert_eq!(json["finish_reason"], "length");
    for (entry, token) in json["logprobs"].as_array().unwrap().iter().zip(tokens) {
        assert_eq!(&entry["token"], token);
        assert_eq!(&entry["top"][0][0], token, "greedy takes the likeliest");
        assert_eq!(entry["top"].as_array().unwrap().len(), 3);
        assert!(entry["top"][0][1].as_f64().unwrap() <= 0.0);
    }
    // Streamed text is the same text; a newline ends it, and the statistics go elsewhere.
    let streamed = bench.with_model(&args[..5]);
    let text = json["text"].as_str().unwrap();
    assert_eq!(
        streamed
            .expect(0, &["length", "tok/s"])
            .stdout
            .trim_end_matches('\n'),
        text.trim_end_matches('\n')
    );
    let quiet = bench.with_model(&[&args[..5], &["--quiet"]].concat());
    assert_eq!(
        (quiet.stdout.as_str(), quiet.stderr.as_str()),
        (streamed.stdout.as_str(), "")
    );
}

#[test]
fn texts_end_for_the_reason_that_is_named() {
    let bench = Bench::new();
    let generate = |more: &[&str]| {
        let args = ["generate", PROMPT, "--format", "json", "--ignore-eos"];
        bench
            .with_model(&[&args[..], more].concat())
            .expect(0, &[])
            .json()
    };
    let whole = generate(&["--max-tokens", "40"]);
    assert_eq!(whole["finish_reason"], "length");

    assert_eq!(
        generate(&["--max-tokens", "0"])["tokens"],
        serde_json::json!([])
    );

    let prompt_tokens = whole["prompt_tokens"].as_array().unwrap().len();
    let full = generate(&["--ctx", "24", "--max-tokens", "40"]);
    assert_eq!(full["finish_reason"], "context");
    // The last token needs no place of its own: nothing comes after it.
    assert_eq!(
        full["tokens"].as_array().unwrap().len(),
        24 - prompt_tokens + 1
    );

    let text: Vec<char> = whole["text"].as_str().unwrap().chars().collect();
    let stop: String = text[text.len() / 2..].iter().take(2).collect();
    let stopped = generate(&[
        "--max-tokens",
        "40",
        "--stop",
        "\u{1}never",
        "--stop",
        &stop,
    ]);
    assert_eq!(stopped["finish_reason"], "stop");
    let before = whole["text"].as_str().unwrap().split(&stop).next().unwrap();
    assert_eq!(stopped["text"], before);
}

#[test]
fn a_seed_means_a_text() {
    let bench = Bench::new();
    let generate = |seed: &str| {
        let args = [
            "generate",
            PROMPT,
            "--temp",
            "1",
            "--max-tokens",
            "12",
            "--ignore-eos",
        ];
        bench
            .with_model(&[&args[..], &["--format", "json", "--seed", seed]].concat())
            .json()["tokens"]
            .clone()
    };
    let first = generate("1");
    assert_eq!(first, generate("1"));
    assert!((2..6).any(|seed| generate(&seed.to_string()) != first));
}

/// With a penalty that nothing outweighs no token comes twice, by a flag and by a configuration; the prompt's count too.
#[test]
fn penalties_forbid_what_occurred() {
    let bench = Bench::new();
    bench.write("once.toml", "[sampling]\npresence_penalty = 1000.0\n");
    // The prompt's tokens and the text's, and how many of them are the prompt's.
    let tokens = |more: &[&str]| -> (Vec<u64>, usize) {
        let args = [
            "generate",
            PROMPT,
            "--max-tokens",
            "24",
            "--ignore-eos",
            "--format",
            "json",
        ];
        let json = bench.with_model(&[&args[..], more].concat()).json();
        let ids = |key: &str| -> Vec<u64> {
            let list = json[key].as_array().expect("a list");
            list.iter().map(|id| id.as_u64().expect("an id")).collect()
        };
        let prompt = ids("prompt_tokens");
        ([&prompt[..], &ids("tokens")].concat(), prompt.len())
    };
    let repeats = |(all, prompt): &(Vec<u64>, usize)| {
        (*prompt..all.len()).any(|at| all[..at].contains(&all[at]))
    };
    let plain = tokens(&[]);
    assert!(repeats(&plain), "a toy that never repeats shows nothing");
    for more in [
        &["--frequency-penalty", "1000"][..],
        &["--presence-penalty", "1000"],
        &["--presence-penalty", "1000", "--temp", "1"],
        &["--config", "once.toml"],
    ] {
        assert!(!repeats(&tokens(more)), "{more:?}");
    }
    let short = tokens(&["--presence-penalty", "1000", "--repeat-last-n", "1"]);
    let text = &short.0[short.1 - 1..];
    assert!(repeats(&short) && text.windows(2).all(|two| two[0] != two[1]));
}

#[test]
fn prompts_come_from_arguments_files_and_standard_input() {
    let bench = Bench::new();
    bench.write("prompt.txt", PROMPT);
    let tokens = |args: &[&str]| {
        let args = [&["tokenize", "--format", "json"], args].concat();
        bench.with_model(&args).expect(0, &[]).json()["tokens"].clone()
    };
    let expected = tokens(&[PROMPT]);
    assert_eq!(tokens(&["--prompt-file", "prompt.txt"]), expected);

    let mut command = bench.command(&["tokenize", "-", "--format", "json", "--model"]);
    let mut child = command
        .arg(&bench.model)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(PROMPT.as_bytes())
        .unwrap();
    let piped = Ran::from(child.wait_with_output().unwrap()).json();
    assert_eq!(piped["tokens"], expected);
    assert_eq!(
        piped["pieces"].as_array().unwrap().len(),
        expected.as_array().unwrap().len()
    );
    let joined: String = piped["pieces"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(joined, PROMPT);
}

#[test]
fn special_tokens_are_read_unless_told_otherwise() {
    let bench = Bench::new();
    let count = |args: &[&str]| {
        let args = [&["tokenize", "<|im_start|>", "--format", "json"], args].concat();
        bench.with_model(&args).expect(0, &[]).json()["tokens"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(count(&[]), 1);
    assert!(count(&["--no-special"]) > 1);
}

/// The toy's vocabulary has no byte but those of ASCII, and no control characters.
#[test]
fn what_the_vocabulary_cannot_spell_is_told() {
    let bench = Bench::new();
    let note = "note: the vocabulary cannot spell '\\u{7}', which is in the ";
    let generate = ["generate", "a\u{7}\u{8}", "--max-tokens", "1"];
    for args in [&["tokenize", "a\u{7}"][..], &generate] {
        let ran = bench.with_model(args);
        ran.expect(0, &[note]);
        let without = bench.with_model(&[&[args[0], "a"], &args[2..]].concat());
        assert_eq!(ran.stdout, without.stdout);
        assert!(!without.stderr.contains("note"), "{without:?}");
    }
}

#[test]
fn perplexity_scores_the_second_half_of_each_chunk() {
    let bench = Bench::new();
    bench.write(
        "text.txt",
        "once upon a time there was a world with that ".repeat(20),
    );
    let ran = bench.with_model(&["perplexity", "text.txt", "--ctx", "32", "--format", "json"]);
    let json = ran.expect(0, &["±"]).json();
    let chunks = json["chunks"].as_u64().unwrap();
    assert!(chunks > 2);
    assert_eq!(json["tokens_scored"], chunks * (32 - 32 / 2 - 1));
    assert!(json["perplexity"].as_f64().unwrap() > 1.0);
    let one = [
        "perplexity",
        "text.txt",
        "--ctx",
        "32",
        "--chunks",
        "1",
        "--format",
        "json",
    ];
    assert_eq!(
        bench.with_model(&one).expect(0, &[]).json()["tokens_scored"],
        15
    );
}

#[test]
fn bench_gives_the_promised_keys_and_counts_replays() {
    let bench = Bench::new();
    let args = [
        "bench",
        "--prompt-tokens",
        "20",
        "--tokens",
        "9",
        "--repeat",
        "2",
        "--format",
        "json",
    ];
    let json = bench.with_model(&args).expect(0, &[]).json();
    for key in [
        "load_ms",
        "weights_ms",
        "weights_gb_per_s",
        "first_token_ms",
        "prompt_tokens_per_s",
        "decode_tokens_per_s",
        "decode_ms_p50",
        "decode_ms_p90",
        "decode_ms_p99",
        "decode_gb_per_s",
        "stream_gb_per_s",
    ] {
        assert!(
            json[key].as_f64().is_some_and(|value| value > 0.0),
            "{key}: {json}"
        );
    }
    assert_eq!(json["replays"], 9);
    assert!(json["logits_hash"].is_string());
    // The context is the toy's, shorter than the longest prompts.
    let first = json["first_tokens"].as_array().expect("a list");
    let lengths: Vec<u64> = first
        .iter()
        .flat_map(|f| f["prompt_tokens"].as_u64())
        .collect();
    assert_eq!(lengths, [5, 128, 256], "{json}");
    for figure in first
        .iter()
        .flat_map(|f| [&f["ms"], &f["limit_ms"], &f["limit_percent"]])
    {
        assert!(figure.as_f64().is_some_and(|value| value > 0.0), "{json}");
    }

    // The same steps without the recording give the same bits.
    let eager = bench
        .with_model(&[&args[..], &["--eager"]].concat())
        .expect(0, &[])
        .json();
    assert_eq!(eager["replays"], 0);
    assert_eq!(eager["logits_hash"], json["logits_hash"]);
}

#[test]
fn bench_makes_up_weights_of_a_shape() {
    let bench = Bench::new();
    let shape = "[model.shape]\narchitecture = \"llama\"\nlayers = 2\nembedding = 64\n\
                 feed_forward = 96\nheads = 2\nkv_heads = 1\nhead_size = 32\nvocabulary = 100\n\
                 context = 64\nrms_eps = 1e-5\n";
    bench.write("shape.toml", shape);
    let args = [
        "bench",
        "--config",
        "shape.toml",
        "--random-weights",
        "--prompt-tokens",
        "8",
    ];
    let more = ["--tokens", "4", "--repeat", "1", "--format", "json"];
    let json = bench
        .run(&[&args[..], &more].concat())
        .expect(0, &[])
        .json();
    assert_eq!(json["replays"], 4);
    let bad = [&args[..], &["--weights-type", "Q9_9"]].concat();
    bench.run(&bad).expect(3, &["Q9_9"]);
}

#[test]
fn info_and_devices_describe() {
    let bench = Bench::new();
    let model = bench.model.display().to_string();
    let info = bench.run(&[
        "info",
        &model,
        "--tensors",
        "--ctx",
        "64",
        "--format",
        "json",
    ]);
    let json = info.expect(0, &[]).json();
    assert_eq!(json["architecture"], "llama");
    assert_eq!(json["runs"], true, "{json}");
    assert_eq!(json["memory"]["context"], 64);
    // K and V, 2 layers, 1 head of 32, 2 bytes, 64 positions.
    assert_eq!(json["memory"]["kv_bytes"], 2 * 2 * 32 * 2 * 64);
    for (kv_type, head_bytes) in [("f32", 32 * 4), ("q8_0", 34)] {
        let args = [
            "info",
            &model,
            "--ctx",
            "64",
            "--kv-type",
            kv_type,
            "--format",
            "json",
        ];
        let memory = &bench.run(&args).expect(0, &[]).json()["memory"];
        assert_eq!(memory["kv_type"], kv_type);
        assert_eq!(memory["kv_bytes"], 2 * 2 * head_bytes * 64);
    }
    let tensors = json["tensors"].as_array().unwrap();
    let counted: u64 = json["types"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["tensors"].as_u64().unwrap())
        .sum();
    assert_eq!(tensors.len() as u64, counted);
    let text = bench.run(&["info", &model]);
    assert!(text.expect(0, &[]).stdout.contains("Q8_0"), "{text:?}");

    let devices = bench
        .run(&["devices", "--format", "json"])
        .expect(0, &[])
        .json();
    assert_eq!(devices["devices"][0]["name"], "cpu");
    assert_eq!(devices["devices"][1]["available"], false);
}

/// `info` and `convert` try the tokenizer as well, and print what a file says of itself without its control characters.
#[test]
fn a_tokenizer_that_nobody_knows_does_not_run() {
    let bench = Bench::new();
    let mut bytes = std::fs::read(&bench.model).unwrap();
    let key = b"tokenizer.ggml.model";
    let at = bytes.windows(key.len()).position(|w| w == key).unwrap() + key.len();
    // A type, a length, and the name.
    let length = bytes[at + 4] as usize;
    bytes[at + 12..][..length].fill(0x1b);
    std::fs::write(bench.path("odd.gguf"), bytes).unwrap();
    let info = bench.run(&["info", "odd.gguf"]);
    let info = info.expect(0, &[]);
    assert!(
        info.stdout.contains("runs here        no: odd.gguf: "),
        "{info:?}"
    );
    assert!(!info.stdout.contains('\x1b') && info.stdout.contains("\\u{1b}"));
    let convert = ["convert", "odd.gguf", "-o", "out.gguf"];
    let ran = bench.run(&convert);
    let ran = ran.expect(3, &["odd.gguf", "tokenizer.ggml.model"]);
    assert!(!ran.stderr.contains('\x1b'));
    assert!(!bench.path("out.gguf").exists());
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let bench = Bench::new();
    for more in [&["--format", "text"], &["--format", "json"]] {
        let args = [
            "generate",
            PROMPT,
            "--max-tokens",
            "200",
            "--ignore-eos",
            "--quiet",
            "--model",
        ];
        let mut command = bench.command(&args);
        let mut child = command.arg(&bench.model).args(more).spawn().unwrap();
        drop(child.stdout.take());
        let ran = Ran::from(child.wait_with_output().unwrap());
        assert_eq!(ran.stderr, "");
        ran.expect(0, &[]);
    }
}

#[test]
#[cfg(unix)]
fn ctrl_c_ends_after_the_current_token() {
    let bench = Bench::new();
    // Long enough that the signal arrives in the middle on any machine.
    let args = [
        "generate",
        PROMPT,
        "--ctx",
        "60000",
        "--max-tokens",
        "60000",
        "--ignore-eos",
        "--model",
    ];
    let mut child = bench.command(&args).arg(&bench.model).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut [0; 1]).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let mut kill = Command::new("kill");
    let status = kill.args(["-INT", &child.id().to_string()]).status();
    assert!(status.unwrap().success());
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with('\n'));
    Ran::from(child.wait_with_output().unwrap()).expect(130, &["interrupted"]);
}
