//! `tokenizer.json` and its companions → `tokenizer.ggml.*`.
//!
//! Two kinds of tokenizer are translated, both byte-pair encodings:
//!
//! * *Byte-level* (Llama 3, Qwen, SmolLM): the merges stay a list, and the rules by which words are cut, which Hugging
//!   Face writes as a regular expression, get the name that llama.cpp has for them (`byte_level`).
//! * *SentencePiece's* (Llama 2, Mistral, Gemma), recognised by its byte fallback: the merges become scores (`scored`).
//!
//! GGUF has no keys for four things that change the tokens; the ones used here are this program's own, and other programs
//! pass over them: [`NFC`], [`SPACE_PREFIX`], [`WHOLE_IDS`] and [`END_IDS`]. Whatever else a `tokenizer.json` can say is
//! refused by name.

mod byte_level;
mod parse;
mod scored;
mod special;

use super::ImportError;
use super::config::Config;
use super::error::unsupported;
use crate::loader::{Array, Folder, Metadata};
use crate::tokenizer::{END_IDS, Kind, NFC, SPACE_PREFIX, WHOLE_IDS};
use parse::{Parsed, TokenizerJson};

/// The tokens in order of their ids.
struct Tokens {
    texts: Vec<String>,
    kinds: Vec<Kind>,
}

/// Writes the tokenizer of `folder`, for a model of `vocabulary` rows; returns what a person should know about it.
pub(super) fn translate(
    folder: &Folder,
    config: &Config,
    vocabulary: u32,
    to: &mut Metadata,
) -> Result<Vec<String>, ImportError> {
    let Some(file) = folder.json("tokenizer.json")? else {
        return Err(ImportError::MissingFile {
            folder: folder.path().to_owned(),
            file: "tokenizer.json",
            why: "which says how text becomes tokens (a tokenizer.model alone is not read; save the tokenizer with Hugging Face's `tokenizers`)",
        });
    };
    let mut parsed = TokenizerJson::read(&file)?;
    let mut notes = Vec::from_iter(parsed.leave_out(vocabulary));
    let mut tokens = tokens(&parsed, vocabulary)?;
    if parsed.json.model.byte_fallback {
        scored::translate(&parsed, &mut tokens, &mut notes, to)?;
    } else {
        byte_level::translate(&parsed, to)?;
    }
    to.insert("tokenizer.ggml.tokens", Array::strings(&tokens.texts));
    let kinds: Vec<i32> = tokens.kinds.iter().map(|&kind| kind as i32).collect();
    to.insert("tokenizer.ggml.token_type", Array::from(&kinds[..]));
    special::translate(folder, config, &parsed, vocabulary, &mut notes, to)?;
    Ok(notes)
}

/// All tokens, places without one filled up to `vocabulary` as llama.cpp fills them.
fn tokens(parsed: &Parsed, vocabulary: u32) -> Result<Tokens, ImportError> {
    let model = &parsed.json.model;
    let count = model
        .vocab
        .values()
        .copied()
        .chain(parsed.json.added_tokens.iter().map(|token| token.id))
        .max();
    let count = count.map_or(0, |most| most as usize + 1);
    // A token without a row could not be computed with, and a damaged id must not reserve memory.
    if count > vocabulary as usize {
        let found = format!("token {}", count - 1);
        return Err(unsupported(
            parsed.file,
            "model.vocab",
            found,
            format!("ids below the model's vocab_size {vocabulary}"),
        ));
    }
    let count = vocabulary as usize;
    let mut texts = vec![None; count];
    for (text, &id) in &model.vocab {
        let place = &mut texts[id as usize];
        if let Some(other) = place.replace(text.as_str()) {
            return Err(parsed.wrong(
                "model.vocab",
                format!("one text for token {id}"),
                format!("{other:?} and {text:?}"),
            ));
        }
    }
    let mut kinds = vec![Kind::Normal; count];
    for token in &parsed.json.added_tokens {
        parsed.check_added(token)?;
        let place = &mut texts[token.id as usize];
        match *place {
            Some(text) if text != token.content => {
                let found = format!("{:?} there and {text:?} in model.vocab", token.content);
                return Err(parsed.wrong(
                    "added_tokens",
                    format!("one text for token {}", token.id),
                    found,
                ));
            }
            _ => *place = Some(token.content.as_str()),
        }
        kinds[token.id as usize] = match token.special || looks_special(&token.content) {
            true => Kind::Control,
            false => Kind::UserDefined,
        };
    }
    if let Some(unknown) = &model.unk_token
        && let Some(&id) = model.vocab.get(unknown)
    {
        kinds[id as usize] = Kind::Unknown;
    }
    let fill = |(id, text): (usize, Option<&str>)| match text {
        Some(text) => text.to_owned(),
        None => {
            kinds[id] = Kind::Unused;
            format!("[PAD{id}]")
        }
    };
    let texts = texts.into_iter().enumerate().map(fill).collect();
    Ok(Tokens { texts, kinds })
}

/// Added tokens that are structure although a file does not mark them so: llama.cpp's rule.
fn looks_special(text: &str) -> bool {
    ["<pad>", "<mask>", "<2mass>", "[@BOS@]"].contains(&text)
        || (text.starts_with("<|") && text.ends_with("|>"))
        || (text.starts_with("<｜") && text.ends_with("｜>"))
        || (text.starts_with("<unused") && text.ends_with('>'))
}
