//! Vocabularies of every family against Hugging Face `tokenizers`, a thousand strings each.
//!
//! `fixtures/tokenizer/hugging_face.zip` holds the strings, and for each family a vocabulary cut to its first merges
//! with the ids; `judge_with_hugging_face.py` made it. `GRETA_TOKENIZERS` names a folder of whole vocabularies, where
//! there is one.

use super::*;
use std::fs::File;
use std::io::Read;
#[cfg(unix)]
use std::time::Duration;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Judged {
    model: String,
    pre: Option<String>,
    tokens: Vec<String>,
    types: Vec<(usize, i32)>,
    merges: Option<Vec<String>>,
    scores: Option<Vec<f32>>,
    flags: BTreeMap<String, bool>,
    ids: Vec<String>,
}

impl Judged {
    fn tokenizer(&self, name: &str) -> Tokenizer {
        let case = Case {
            pre: self.pre.clone(),
            flags: self.flags.clone(),
            ids: BTreeMap::new(),
            end_of_generation: Vec::new(),
            prompt: Vec::new(),
            plain: None,
        };
        let fixture = Fixture {
            judge: "tokenizers".into(),
            model: self.model.clone(),
            tokens: self.tokens.clone(),
            types: self.types.clone(),
            merges: self.merges.clone(),
            scores: self.scores.clone(),
            strings: Vec::new(),
            cases: Vec::new(),
        };
        let tokenizer = Tokenizer::from_metadata(&fixture.metadata(&case));
        tokenizer.unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Counts the strings that come out otherwise, and prints the first of them.
    fn differences(&self, name: &str, strings: &[String]) -> usize {
        let tokenizer = self.tokenizer(name);
        assert_eq!(strings.len(), self.ids.len(), "{name}");
        let mut different = 0;
        // A `▁` in the text is a space. Where runs of spaces are tokens, as in Gemma, SentencePiece looks for them after it
        // has written both alike, llama.cpp before; it is followed.
        let runs = self.tokens.iter().any(|token| token == "  ");
        let judged = strings.iter().zip(&self.ids);
        for (text, ids) in judged.filter(|(text, _)| !runs || !text.contains('▁')) {
            let found = tokenizer
                .encode(text, PARSED)
                .expect("every text has tokens");
            let expected = parse(ids);
            if found != expected {
                different += 1;
                if different <= 12 {
                    let spell = |ids: &[u32]| -> Vec<String> {
                        ids.iter()
                            .map(|&id| tokenizer.piece_str(id).into_owned())
                            .collect()
                    };
                    println!("{name}: {text:?}");
                    println!(
                        "  ours   {:?}\n  theirs {:?}",
                        spell(&found),
                        spell(&expected)
                    );
                }
            }
        }
        println!("{name}: {different} of {} strings differ", strings.len());
        different
    }
}

fn entry(zip: &mut zip::ZipArchive<File>, name: &str) -> String {
    let mut text = String::new();
    let mut entry = zip
        .by_name(&format!("{name}.json"))
        .expect("the fixture has it");
    entry
        .read_to_string(&mut text)
        .expect("the fixture is whole");
    text
}

const FAMILIES: [&str; 6] = ["llama2", "llama3", "qwen2", "qwen3", "tekken", "gemma3"];

fn fixture() -> zip::ZipArchive<File> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer/hugging_face.zip");
    let file = File::open(path).expect("the fixture is committed");
    zip::ZipArchive::new(file).expect("the fixture is a zip")
}

#[test]
fn every_family_agrees_with_hugging_face() {
    let mut zip = fixture();
    let strings: Vec<String> = serde_json::from_str(&entry(&mut zip, "strings")).expect("strings");
    let mut different = 0;
    for name in FAMILIES {
        let judged: Judged = serde_json::from_str(&entry(&mut zip, name)).expect("a vocabulary");
        different += judged.differences(name, &strings);
    }
    let Some(folder) = std::env::var_os("GRETA_TOKENIZERS") else {
        println!("GRETA_TOKENIZERS names no folder: only cut vocabularies were compared");
        assert_eq!(different, 0);
        return;
    };
    for name in FAMILIES {
        let path = Path::new(&folder).join(format!("{name}.json"));
        let text = std::fs::read_to_string(&path).expect("a whole vocabulary");
        let judged: Judged = serde_json::from_str(&text).expect("a vocabulary");
        different += judged.differences(&format!("whole {name}"), &strings);
    }
    assert_eq!(different, 0);
}

/// The tokens that `generation_config.json` of each family's chat models lists.
#[test]
fn turns_end_where_each_family_ends_them() {
    let mut zip = fixture();
    for (name, ends) in [
        ("llama2", &["</s>"][..]),
        ("llama3", &["<|end_of_text|>", "<|eot_id|>"]),
        ("qwen2", &["<|im_end|>", "<|endoftext|>"]),
        ("qwen3", &["<|im_end|>", "<|endoftext|>"]),
        ("tekken", &["</s>"]),
        ("gemma3", &["<eos>", "<end_of_turn>"]),
    ] {
        let judged: Judged = serde_json::from_str(&entry(&mut zip, name)).expect("a vocabulary");
        let tokenizer = judged.tokenizer(name);
        for end in ends {
            let id = tokenizer.token(end).expect("the vocabulary has it");
            assert!(tokenizer.is_end_of_generation(id), "{name}: {end}");
        }
    }
}

/// What this thread has computed for: other people's work on the machine does not count.
#[cfg(unix)]
fn thread_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes one timespec, which is ours.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(status, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A megabyte without a space takes about ten times what a tenth of it takes.
#[test]
#[cfg(unix)]
fn long_texts_take_time_in_proportion() {
    let mut zip = fixture();
    for name in ["llama2", "llama3", "qwen3", "tekken", "gemma3"] {
        let judged: Judged = serde_json::from_str(&entry(&mut zip, name)).expect("a vocabulary");
        let tokenizer = judged.tokenizer(name);
        for part in [
            "ab",
            "e",
            "<",
            "\n",
            " ",
            "中文",
            "7",
            "<|im_start|>x<",
            "é",
        ] {
            let time = |bytes: usize| {
                let text = part.repeat(bytes / part.len());
                let start = thread_time();
                tokenizer
                    .encode(&text, PARSED)
                    .expect("every text has tokens");
                thread_time() - start
            };
            let (short, long) = (time(100_000), time(1_000_000));
            // Quadratic would be a hundred times; below the floor caches and clocks decide.
            let allowed = 30 * short.max(Duration::from_millis(20));
            assert!(
                long < allowed,
                "{name}, {part:?}: {short:?} for 0.1 MB, {long:?} for 1 MB"
            );
        }
    }
}
