//! Byte-level encodings: the merges as GGUF has them, and llama.cpp's name for the rules by which words are cut.

use super::super::ImportError;
use super::NFC;
use super::parse::Parsed;
use crate::loader::{Array, Metadata};
use serde_json::{Value, json};

/// A way of cutting words that Hugging Face's files write out, and its name.
struct Rule {
    /// What stands before the byte-level step: a pattern, digits one by one, or nothing.
    steps: &'static [Step],
    /// Whether the byte-level step cuts by GPT-2's pattern.
    gpt2: bool,
    ignore_merges: bool,
    name: &'static str,
}

#[derive(Clone, Copy)]
enum Step {
    /// `Split` by this pattern, matches isolated.
    Pattern(&'static str),
    /// `Digits`, each by itself.
    Digits,
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const fn rule(steps: &'static [Step], gpt2: bool, ignore_merges: bool, name: &'static str) -> Rule {
    Rule {
        steps,
        gpt2,
        ignore_merges,
        name,
    }
}

/// The names are those of `tokenizer::pretokenize`, which has the same patterns without look-ahead.
const RULES: &[Rule] = &[
    rule(&[], true, false, "gpt-2"),
    rule(&[Step::Digits], true, false, "smollm"),
    rule(&[Step::Pattern(LLAMA3)], false, true, "llama-bpe"),
    rule(&[Step::Pattern(LLAMA3)], false, false, "smaug-bpe"),
    rule(&[Step::Pattern(QWEN2)], false, false, "qwen2"),
    rule(&[Step::Pattern(TEKKEN)], false, true, "tekken"),
];

impl Step {
    fn is(self, part: &Value) -> bool {
        match self {
            Step::Pattern(pattern) => {
                *part
                    == json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
            }
            Step::Digits => *part == json!({"type": "Digits", "individual_digits": true}),
        }
    }
}

impl Rule {
    fn is(&self, parts: &[&Value], ignore_merges: bool) -> bool {
        let Some((last, before)) = parts.split_last() else {
            return false;
        };
        let byte_level = last["type"] == "ByteLevel"
            && last["add_prefix_space"] == false
            // Files from before the flag existed mean what it defaults to.
            && last["use_regex"].as_bool().unwrap_or(true) == self.gpt2;
        let same = before.len() == self.steps.len()
            && self
                .steps
                .iter()
                .zip(before)
                .all(|(step, part)| step.is(part));
        byte_level && same && ignore_merges == self.ignore_merges
    }
}

/// Writes model, pre-tokenizer, normaliser and merges.
pub(super) fn translate(parsed: &Parsed, to: &mut Metadata) -> Result<(), ImportError> {
    let parts = parsed.pre_tokenizers();
    let ignore_merges = parsed.json.model.ignore_merges;
    let Some(rule) = RULES.iter().find(|rule| rule.is(&parts, ignore_merges)) else {
        let names: Vec<&str> = RULES.iter().map(|rule| rule.name).collect();
        let supported = format!(
            "the pre-tokenizers that llama.cpp calls {} (with ignore_merges as those models have it; here it is {ignore_merges})",
            names.join(", ")
        );
        return Err(parsed.refuse("pre_tokenizer", &parts, &supported));
    };
    let normalizers = parsed.normalizers();
    let nfc = match &normalizers[..] {
        [] => false,
        [one] if one["type"] == "NFC" => true,
        other => return Err(parsed.refuse("normalizer", other, "none, NFC")),
    };
    to.insert("tokenizer.ggml.model", "gpt2");
    to.insert("tokenizer.ggml.pre", rule.name);
    // Said either way, because some of the names imply it.
    to.insert(NFC, nfc);
    let mut lines = Vec::with_capacity(parsed.json.model.merges.len());
    for (index, merge) in parsed.json.model.merges.iter().enumerate() {
        // Byte-level pieces have no spaces: the alphabet spells a space as `Ġ`.
        let sides = merge
            .sides()
            .filter(|(left, right)| !left.contains(' ') && !right.contains(' '));
        let Some((left, right)) = sides else {
            let key = format!("model.merges[{index}]");
            return Err(parsed.wrong(&key, "two pieces without spaces", "something else".into()));
        };
        lines.push(format!("{left} {right}"));
    }
    to.insert("tokenizer.ggml.merges", Array::strings(lines));
    Ok(())
}
