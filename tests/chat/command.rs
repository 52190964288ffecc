//! The binary, talked with through a pipe.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::support::command::{Bench, Ran};

use super::toy::{self, TEMPLATE};

/// Answers of exactly eight tokens, always the same.
const CONFIG: &str = "[sampling]\ntemperature = 0\n[generate]\nmax_tokens = 8\nignore_eos = true\n";

struct Talks {
    bench: Bench,
    model: PathBuf,
}

impl Talks {
    fn new() -> Talks {
        Talks::with(TEMPLATE)
    }

    fn with(template: &str) -> Talks {
        let bench = Bench::new();
        bench.write("c.toml", CONFIG);
        let model = toy::write(bench.directory.path(), template);
        Talks { bench, model }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.bench.command(args);
        command
            .args(["--config", "c.toml", "--model"])
            .arg(&self.model);
        command
    }

    /// Says all of `input` and waits for the end.
    fn say(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut child = start(self.command(&[&["chat"], args].concat()));
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input).unwrap();
        drop(stdin);
        Ran::from(child.wait_with_output().unwrap())
    }
}

fn start(mut command: Command) -> Child {
    command
        .stdin(Stdio::piped())
        .spawn()
        .expect("the binary starts")
}

/// Asserts how a conversation ends in which entries failed: each was told when it did, and all at the end.
fn failed(ran: &Ran, code: i32, parts: &[&str]) {
    assert_eq!(ran.code, Some(code), "{ran:?}");
    for part in parts {
        assert!(ran.stderr.contains(part), "no {part:?} in {ran:?}");
    }
    let last = ran.stderr.lines().last().unwrap_or_default();
    assert!(last.ends_with("failed, as told above"), "{ran:?}");
}

fn interrupt(child: &Child) {
    let mut kill = Command::new("kill");
    let status = kill.args(["-INT", &child.id().to_string()]).status();
    assert!(status.unwrap().success());
}

#[test]
fn a_conversation_through_a_pipe() {
    let talks = Talks::new();
    let input = b"hello\n/stats\nonce \\\nupon\n/stats\n\n/bogus\n\"\"\"\n/reset\n\"\"\"\n/save a.json\n/reset\n/stats\nhello\n/exit\nnever\n";
    let ran = talks.say(&[], input);
    failed(
        &ran,
        3,
        &[
            "unknown command /bogus; there are /system, /reset, /save, /load, /stats, /help, /exit",
            // <|im_start|>uhello<|im_end|><|im_start|>a, a token a letter; then eight, the last of which is not computed.
            "last prompt: 10 tokens, 0 reused, 10 computed",
            "last answer: 8 tokens",
            "ended by length",
            "context: 17 of 256 tokens used, 239 free",
            "conversation: 1 turns",
            "conversation: 2 turns",
            "saved to a.json",
            "conversation: 0 turns",
        ],
    );
    // The second prompt begins with the first and its answer, as far as that was computed.
    let reused = ran
        .stderr
        .lines()
        .filter_map(|line| line.strip_prefix("last prompt: "));
    let reused: Vec<&str> = reused.collect();
    assert!(reused[1].contains(" tokens, 17 reused, "), "{reused:?}");
    let saved = std::fs::read_to_string(talks.bench.path("a.json")).unwrap();
    let saved: serde_json::Value = serde_json::from_str(&saved).unwrap();
    let contents: Vec<&str> = saved["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["content"].as_str().unwrap())
        .collect();
    assert_eq!(
        [contents[0], contents[2], contents[4]],
        ["hello", "once \nupon", "/reset"]
    );
    // Standard output holds the answers and nothing else. After a reset the first answer comes again.
    let answers: Vec<&str> = [contents[1], contents[3], contents[5], contents[1]].to_vec();
    let lines = answers.iter().map(|answer| match answer.ends_with('\n') {
        true => answer.to_string(),
        false => format!("{answer}\n"),
    });
    assert_eq!(ran.stdout, lines.collect::<String>());
    let left: Vec<String> = crate::support::command::files_below(talks.bench.directory.path());
    assert!(!left.iter().any(|name| name.contains(".part")), "{left:?}");
    // The saved conversation goes on as this one would have.
    let loaded = talks.say(&["--load", "a.json"], b"more\n/stats\n");
    loaded.expect(0, &["conversation: 4 turns"]);
    let whole = talks.say(&[], b"hello\nonce \\\nupon\n\"\"\"/reset\"\"\"\nmore\n");
    assert!(
        whole.stdout.ends_with(&loaded.stdout),
        "{whole:?} {loaded:?}"
    );
}

#[test]
fn one_turn_of_generate_is_the_first_of_a_chat() {
    let talks = Talks::new();
    let chat = talks.say(&["--system", "be the world"], b"hello there\n");
    let args = [
        "generate",
        "hello there",
        "--chat",
        "--system",
        "be the world",
    ];
    let one = Ran::of(talks.command(&args));
    assert_eq!(chat.expect(0, &[]).stdout, one.expect(0, &[]).stdout);
    let other = Ran::of(talks.command(&["generate", "hello there", "--chat"]));
    assert_ne!(one.stdout, other.stdout);
    let spelled =
        "<|im_start|>sbe the world<|im_end|><|im_start|>uhello there<|im_end|><|im_start|>a";
    let spelled = Ran::of(talks.command(&["generate", spelled]));
    assert_eq!(one.stdout, spelled.stdout);
    let alone = Ran::of(talks.command(&["generate", "x", "--system", "s"]));
    alone.expect(2, &["need --chat"]);
    // A name chooses another of the model's templates.
    let loud = Ran::of(talks.command(&["generate", "AbC", "--chat", "--template", "loud"]));
    let plain = Ran::of(talks.command(&["generate", "ABC"]));
    assert_eq!(loud.expect(0, &[]).stdout, plain.stdout);
}

#[test]
fn a_conversation_survives_what_goes_wrong() {
    let talks = Talks::new();
    talks
        .bench
        .write("list.json", "[{\"role\": \"user\", \"content\": \"x\"}]");
    let mut input = Vec::new();
    input.extend_from_slice(b"hello\nbad \xff byte\n/save /nowhere/at/all.json\n/save .\n/load none.json\n/load list.json\n");
    input.extend_from_slice(&[b"Z".repeat(300).as_slice(), b"\n"].concat());
    input.extend_from_slice("é\nhello\n/stats\n".as_bytes());
    let ran = talks.say(&[], &input);
    failed(
        &ran,
        3,
        &[
            "error: not UTF-8 text: bad byte 5 of a line",
            "error: /nowhere/at/all.json: cannot save: ",
            "error: .: cannot save: ",
            "error: none.json: cannot read: ",
            "error: list.json: not a saved conversation: the last message has no answer",
            "error: the message alone makes 305 tokens, and the context holds 256: shorten it or raise --ctx",
            "conversation: 3 turns",
            "error: 6 entries failed, as told above",
            "note: the vocabulary cannot spell 'é', which is in the message",
        ],
    );
    assert!(!ran.stderr.contains("panicked"), "{ran:?}");
    // Without the accidents the answers are the same.
    let calm = talks.say(&[], "hello\né\nhello\n".as_bytes());
    assert_eq!(ran.stdout, calm.stdout);
}

#[test]
fn templates_that_do_not_fit_are_one_line() {
    let refusing = "{% for m in messages %}\n{% if m.role == 'system' %}{{ raise_exception('No system role!') }}{% endif %}{{ m.content }}{% endfor %}";
    let talks = Talks::with(refusing);
    let message =
        "tokenizer.chat_template:2: the chat template refuses the conversation: No system role!";
    talks
        .say(&["--system", "x"], b"hello\n")
        .expect(3, &["talks.gguf: ", message]);
    let ran = talks.say(&[], b"/system x\nhello\n/system\n");
    let told = "error: one entry failed, as told above";
    failed(&ran, 3, &[message, "(no system message)", told]);
    let ran = talks.say(&[], b"hello\n/save /nowhere/at/all.json\n/exit\n");
    failed(&ran, 1, &[told]);
    talks.bench.write("broken.jinja", "{{ messages\n[0 }}");
    let file = ["--template", "broken.jinja"];
    talks
        .say(&file, b"")
        .expect(3, &["broken.jinja:2: the chat template cannot be read: "]);
    let none = ["--template", "none.jinja"];
    talks
        .say(&none, b"")
        .expect(3, &["none.jinja: cannot read: No such file"]);
    let unknown = ["--template", "chatmal"];
    let parts = [
        "--template chatmal",
        "talks.gguf: loud",
        "chatml, llama2, llama3, mistral, gemma",
    ];
    talks.say(&unknown, b"").expect(3, &parts);
    // The plain toy has no template; a built-in one helps.
    let without = |args: &[&str]| {
        let mut command = talks.bench.command(args);
        command.arg("--model").arg(&talks.bench.model);
        Ran::of(command)
    };
    let parts = [
        "no chat template",
        "--template FILE",
        "chatml, llama2, llama3, mistral, gemma",
    ];
    without(&["chat"]).expect(3, &parts);
    without(&["generate", "x", "--chat"]).expect(3, &parts);
    without(&[
        "generate",
        "x",
        "--chat",
        "--template",
        "chatml",
        "--max-tokens",
        "2",
    ])
    .expect(0, &[]);
}

#[test]
fn a_full_context_is_never_silent() {
    let talks = Talks::new();
    // A turn makes 14 tokens at least: five fit into 64 with the beginning of the next.
    let input = b"AAAA\nBBBB\nCCCC\nDDDD\nEEEE\n/stats\n";
    let stopped = talks.say(&["--ctx", "64", "--max-tokens", "9"], input);
    failed(
        &stopped,
        3,
        &[
            "error: the conversation makes ",
            "the context holds 64: /reset, or start with --on-full slide",
        ],
    );
    let slides = ["--ctx", "64", "--max-tokens", "9", "--on-full", "slide"];
    let slid = talks.say(&slides, input);
    slid.expect(
        0,
        &[
            "(context full: the oldest ",
            "forgotten; ",
            "conversation: 5 turns, ",
        ],
    );
    assert!(!slid.stderr.contains("error"), "{slid:?}");
    let hidden = slid
        .stderr
        .lines()
        .filter(|line| line.starts_with("(context full"));
    assert!(hidden.count() >= 1);
    // Within an answer, and when even that is not enough.
    let long = ["--ctx", "48", "--max-tokens", "60", "--on-full", "slide"];
    let ran = talks.say(&long, b"A\nB\n/stats\n");
    ran.expect(0, &["(stopped: the context of 48 tokens is full"]);
    let keeping = ["--ctx", "64", "--on-full", "slide", "--keep", "63"];
    talks
        .say(&keeping, b"")
        .expect(3, &["--keep 63 leaves no room in a context of 64"]);
    // Plain texts go on as long as they are asked to.
    let plain = [
        "generate",
        "once upon the time",
        "--ctx",
        "32",
        "--max-tokens",
        "100",
        "--format",
        "json",
    ];
    let ran = Ran::of(talks.command(&plain));
    assert_eq!(ran.expect(0, &[]).json()["finish_reason"], "context");
    let ran =
        Ran::of(talks.command(&[&plain[..], &["--on-full", "slide", "--keep", "3"]].concat()));
    let json = ran
        .expect(0, &["(context full: ", "after the first 3 dropped"])
        .json();
    assert_eq!(
        (
            json["finish_reason"].as_str(),
            json["tokens"].as_array().unwrap().len()
        ),
        (Some("length"), 100)
    );
    let slides = json["slides"].as_u64().unwrap();
    assert!(slides >= 4, "{slides}");
    assert_eq!(ran.stderr.matches("(context full: ").count() as u64, slides);
    // A prompt that is too long is shortened and said to be.
    let long = "Z".repeat(100);
    let args = [
        "generate",
        &long,
        "--ctx",
        "32",
        "--on-full",
        "slide",
        "--format",
        "json",
    ];
    let ran = Ran::of(talks.command(&args));
    ran.expect(
        0,
        &["84 tokens after the first 0 dropped; 16 of 32 are left"],
    );
}

#[test]
fn ctrl_c_ends_an_answer_and_not_the_conversation() {
    let talks = Talks::new();
    let endless = ["chat", "--ctx", "200000", "--max-tokens", "199000"];
    let mut child = start(talks.command(&endless));
    let mut stdin = child.stdin.take().unwrap();
    let mut out = child.stdout.take().unwrap();
    stdin.write_all(b"hello\n").unwrap();
    out.read_exact(&mut [0; 1]).unwrap();
    interrupt(&child);
    stdin.write_all(b"/stats\n/save a.json\n").unwrap();
    drop(stdin);
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    let ran = Ran::from(child.wait_with_output().unwrap());
    ran.expect(
        0,
        &[
            "(stopped)",
            "ended by interrupted",
            "conversation: 1 turns",
            "saved to a.json",
        ],
    );
    let saved = std::fs::read_to_string(talks.bench.path("a.json")).unwrap();
    let saved: serde_json::Value = serde_json::from_str(&saved).unwrap();
    // What was said until then stays; one byte of it was read above.
    let said = saved["messages"][1]["content"].as_str().unwrap();
    assert!(
        !said.is_empty()
            && said
                .trim_end_matches('\n')
                .ends_with(rest.trim_end_matches('\n'))
    );

    // Between answers it leaves.
    let mut child = start(talks.command(&["chat"]));
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"hello\n/stats\n").unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("since the start: ")));
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
