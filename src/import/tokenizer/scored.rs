//! SentencePiece's encodings: merges → scores.
//!
//! Hugging Face ranks *merges*, SentencePiece scores *results*. A `tokenizer.json` was made from scores: every way to cut
//! a piece in two is a merge, and they are listed best score first. So a piece's rank among the results is its score
//! again, up to a scale that does not matter. A file in which the merges of a piece are not listed together was made
//! otherwise and is refused; runs of spaces, whose merges some files spread, come out the same either way.

use super::super::ImportError;
use super::parse::Parsed;
use super::{Kind, SPACE_PREFIX, Tokens, WHOLE_IDS};
use crate::loader::{Array, Metadata};
use crate::tokenizer::byte_of;
use serde_json::{Value, json};
use std::collections::HashSet;

/// What stands for a space.
const SPACE: char = '▁';
/// The score of what is never a result.
const NO_SCORE: f32 = -2e9;

/// Where a space is put in front of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prefix {
    Never,
    /// In front of every text, and of every text after a special token.
    Always,
    /// The same, unless a space is there.
    AlwaysUnlessThere,
    /// Only at the beginning, unless a space is there.
    FirstUnlessThere,
}

/// Writes model, scores and the rule for the space in front; corrects the kinds of bytes and runs of spaces.
pub(super) fn translate(
    parsed: &Parsed,
    tokens: &mut Tokens,
    notes: &mut Vec<String>,
    to: &mut Metadata,
) -> Result<(), ImportError> {
    let prefix = prefix(parsed)?;
    if parsed.json.model.ignore_merges {
        return Err(parsed.refuse(
            "model.ignore_merges",
            &[&true.into()],
            "false, with byte_fallback",
        ));
    }
    let mut whole = Vec::new();
    for (id, (text, kind)) in tokens.texts.iter().zip(&mut tokens.kinds).enumerate() {
        if *kind == Kind::Normal && byte_of(text).is_some() {
            *kind = Kind::Byte;
        }
        // Hugging Face finds an added `▁▁` where somebody wrote that; of two spaces the merges make it, and it prints them.
        if *kind == Kind::UserDefined && text.contains(SPACE) {
            *kind = Kind::Normal;
            whole.push(id as u32);
        }
    }
    let quirk = parsed
        .json
        .added_tokens
        .iter()
        .find(|token| token.normalized);
    if let Some(token) = quirk.filter(|_| prefix == Prefix::Always) {
        notes.push(format!("{}: {:?} is recognised wherever it is written; Hugging Face's tokenizer wants a space before it", parsed.file.display(), token.content));
    }
    let scores = scores(parsed, tokens)?;
    to.insert("tokenizer.ggml.model", "llama");
    to.insert("tokenizer.ggml.pre", "default");
    to.insert("tokenizer.ggml.scores", Array::from(&scores[..]));
    to.insert("tokenizer.ggml.add_space_prefix", prefix != Prefix::Never);
    if !whole.is_empty() {
        to.insert(WHOLE_IDS, Array::from(&whole[..]));
    }
    match prefix {
        Prefix::Never | Prefix::Always => {}
        Prefix::AlwaysUnlessThere => {
            to.insert(SPACE_PREFIX, "always");
        }
        Prefix::FirstUnlessThere => {
            to.insert(SPACE_PREFIX, "first");
        }
    }
    Ok(())
}

/// How the files of the known converters say where spaces go.
fn prefix(parsed: &Parsed) -> Result<Prefix, ImportError> {
    let prepend = json!({"type": "Prepend", "prepend": "▁"});
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let split = json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false});
    let (normalizers, parts) = (parsed.normalizers(), parsed.pre_tokenizers());
    match (&normalizers[..], &parts[..]) {
        ([a, b], []) if **a == prepend && **b == replace => Ok(Prefix::Always),
        ([a], []) if **a == replace => Ok(Prefix::Never),
        // No space is left to split at once they have been replaced.
        ([a], [b]) if **a == replace && **b == split => Ok(Prefix::Never),
        ([], [metaspace])
            if metaspace["type"] == "Metaspace"
                && metaspace["replacement"] == "▁"
                && metaspace["split"] == false =>
        {
            match metaspace["prepend_scheme"].as_str() {
                Some("never") => Ok(Prefix::Never),
                Some("always") => Ok(Prefix::AlwaysUnlessThere),
                Some("first") => Ok(Prefix::FirstUnlessThere),
                _ => Err(parsed.refuse(
                    "pre_tokenizer",
                    &parts,
                    "prepend_scheme never, always, first",
                )),
            }
        }
        _ => {
            let found: Vec<&Value> = normalizers.iter().chain(&parts).copied().collect();
            let supported = "with byte_fallback: the steps of Llama's, Mistral's and Gemma's tokenizers (Prepend and Replace; Replace; Metaspace without split)";
            Err(parsed.refuse("normalizer and pre_tokenizer", &found, supported))
        }
    }
}

/// One score a token: the less, the later the piece's merges are listed.
fn scores(parsed: &Parsed, tokens: &Tokens) -> Result<Vec<f32>, ImportError> {
    let vocab = &parsed.json.model.vocab;
    let mut scores = vec![NO_SCORE; tokens.texts.len()];
    let mut made: HashSet<u32> = HashSet::new();
    let (mut rank, mut last) = (0usize, None);
    for (index, merge) in parsed.json.model.merges.iter().enumerate() {
        let key = || format!("model.merges[{index}]");
        let Some((left, right)) = merge.sides() else {
            return Err(parsed.wrong(&key(), "two pieces", "something else".into()));
        };
        let whole = [left, right].concat();
        let ids = [left, right, &whole].map(|piece| vocab.get(piece).copied());
        let [Some(_), Some(_), Some(id)] = ids else {
            let found = format!("{left:?} and {right:?}, which with {whole:?} are not all tokens");
            return Err(parsed.wrong(&key(), "two tokens that make a third", found));
        };
        if last == Some(id) {
            continue;
        }
        let is_run = whole.chars().all(|c| c == SPACE);
        // An added token is cut out of a text before anything is merged, so its merges never count.
        let is_merged = matches!(tokens.kinds[id as usize], Kind::Normal | Kind::Byte);
        if made.contains(&id) {
            if is_run || !is_merged {
                continue;
            }
            let found =
                format!("one that makes {whole:?}, as an earlier one does, with others between");
            return Err(parsed.wrong(
                &key(),
                "all merges that make a piece listed together",
                found,
            ));
        }
        made.insert(id);
        scores[id as usize] = -(rank as f32);
        last = Some(id);
        rank += 1;
    }
    Ok(scores)
}
