//! Which tokens begin and end texts, turns and generation: by metadata, and by well-known names.
//!
//! Files name few of their special tokens, and many mark them as ordinary text, so llama.cpp recognises some by their
//! text. The lists here are its lists, because a file that ends its turns there must end them here.

use super::vocabulary::{Kind, TokenList};
use super::{END_IDS, TokenizerError};
use crate::loader::Metadata;

/// Texts that end a turn, in the order in which they are preferred as *the* end-of-turn token.
const END_OF_TURN: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
];

/// Texts that end generation besides those of [`END_OF_TURN`].
const END_OF_GENERATION: &[&str] = &[
    "<|eom_id|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "</s>",
    "[EOS]",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "[e~[",
];

/// Marks of fill-in-the-middle that end generation: their metadata keys and texts.
const FILL_ENDS: &[(&str, &[&str])] = &[
    (
        "tokenizer.ggml.fim_pad_token_id",
        &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"],
    ),
    (
        "tokenizer.ggml.fim_rep_token_id",
        &[
            "<|fim_repo|>",
            "<|repo_name|>",
            "<fim-repo>",
            "<REPO>",
            "<reponame>",
        ],
    ),
    ("tokenizer.ggml.fim_sep_token_id", &["<|file_sep|>"]),
];

/// The other marks of fill-in-the-middle, which are control tokens whatever the file says.
#[rustfmt::skip]
const FILL_MARKS: &[(&str, &[&str])] = &[
    ("tokenizer.ggml.fim_pre_token_id", &["<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>",
        "▁<PRE>", "<|code_prefix|>", "<|prefix|>"]),
    ("tokenizer.ggml.fim_suf_token_id", &["<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>",
        "▁<SUF>", "<|code_suffix|>", "<|suffix|>"]),
    ("tokenizer.ggml.fim_mid_token_id", &["<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>",
        "▁<MID>", "<|code_middle|>", "<|middle|>"]),
];

/// Texts that are shown even where control tokens are not: they carry the structure of a reply.
const ALWAYS_SHOWN: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// Defaults that depend on the tokenizer's model.
pub(super) struct Defaults {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) unknown: Option<u32>,
    pub(super) add_bos: bool,
}

/// The tokens with a role.
#[derive(Debug)]
pub(super) struct Roles {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) unknown: Option<u32>,
    pub(super) padding: Option<u32>,
    pub(super) add_bos: bool,
    pub(super) add_eos: bool,
    /// Ascending, without repetition.
    pub(super) ends: Vec<u32>,
    /// What a person should know about the file's ids.
    pub(super) notes: Vec<String>,
}

/// The token that `key` names, if the file has the key and the vocabulary the token.
pub(super) fn token(
    metadata: &Metadata,
    key: &'static str,
    count: usize,
) -> Result<Option<u32>, TokenizerError> {
    match metadata.u32(key)? {
        Some(id) if id as usize >= count => Err(TokenizerError::Id {
            file: metadata.file().to_path_buf(),
            key,
            id,
            count,
        }),
        found => Ok(found),
    }
}

/// The padding token. Nothing is computed with it, and many files name one that does not exist, so that is a note and no
/// error.
fn padding(metadata: &Metadata, count: usize, notes: &mut Vec<String>) -> Option<u32> {
    match token(metadata, "tokenizer.ggml.padding_token_id", count) {
        Ok(found) => found,
        Err(why) => {
            notes.push(format!("{why}; it counts as absent"));
            None
        }
    }
}

impl Roles {
    /// Reads the roles, and corrects the kinds in `list` of tokens whose text says what they are.
    pub(super) fn read(
        metadata: &Metadata,
        list: &mut TokenList,
        find: impl Fn(&str) -> Option<u32>,
        defaults: &Defaults,
    ) -> Result<Roles, TokenizerError> {
        let count = list.len();
        let read = |key| token(metadata, key, count);
        let exists = |id: Option<u32>| id.filter(|&id| (id as usize) < count);
        let bos = read("tokenizer.ggml.bos_token_id")?.or(exists(defaults.bos));
        let eos = read("tokenizer.ggml.eos_token_id")?.or(exists(defaults.eos));
        let unknown = read("tokenizer.ggml.unknown_token_id")?.or(exists(defaults.unknown));
        let mut notes = Vec::new();
        let padding = padding(metadata, count, &mut notes);
        let mut ends = named_ends(metadata, count, &find)?;
        ends.extend(eos);
        by_text(metadata, list, &find, &mut ends)?;
        ends.sort_unstable();
        ends.dedup();
        let roles = Roles {
            bos,
            eos,
            unknown,
            padding,
            add_bos: metadata
                .bool("tokenizer.ggml.add_bos_token")?
                .unwrap_or(defaults.add_bos),
            add_eos: metadata
                .bool("tokenizer.ggml.add_eos_token")?
                .unwrap_or(false),
            ends,
            notes,
        };
        roles.check(metadata)?;
        Ok(roles)
    }

    /// What is to be added has to be there.
    fn check(&self, metadata: &Metadata) -> Result<(), TokenizerError> {
        let missing = |key, why| {
            let file = metadata.file().to_path_buf();
            Err(TokenizerError::Missing { file, key, why })
        };
        if self.add_bos && self.bos.is_none() {
            let why = "texts of this vocabulary begin with the BOS token";
            return missing("tokenizer.ggml.bos_token_id", why);
        }
        if self.add_eos && self.eos.is_none() {
            let why = "texts of this vocabulary end with the EOS token";
            return missing("tokenizer.ggml.eos_token_id", why);
        }
        Ok(())
    }
}

/// The tokens that end a turn or a message by the file's keys, or else by the name that is preferred.
fn named_ends(
    metadata: &Metadata,
    count: usize,
    find: &impl Fn(&str) -> Option<u32>,
) -> Result<Vec<u32>, TokenizerError> {
    let eot = token(metadata, "tokenizer.ggml.eot_token_id", count)?;
    let eot = eot.or_else(|| END_OF_TURN.iter().find_map(|text| find(text)));
    let eom = token(metadata, "tokenizer.ggml.eom_token_id", count)?;
    let mut ends: Vec<u32> = [eot, eom].into_iter().flatten().collect();
    for id in metadata.u32s(END_IDS)?.unwrap_or_default() {
        if id as usize >= count {
            return Err(TokenizerError::Id {
                file: metadata.file().to_path_buf(),
                key: END_IDS,
                id,
                count,
            });
        }
        ends.push(id);
    }
    Ok(ends)
}

/// Adds the tokens to `ends` whose text says that they end generation, and corrects the kinds of those in the lists.
fn by_text(
    metadata: &Metadata,
    list: &mut TokenList,
    find: &impl Fn(&str) -> Option<u32>,
    ends: &mut Vec<u32>,
) -> Result<(), TokenizerError> {
    for text in END_OF_TURN.iter().chain(END_OF_GENERATION) {
        if let Some(id) = find(text) {
            list.kinds[id as usize] = Kind::Control;
            ends.push(id);
        }
    }
    for (marks, ends_text) in [(FILL_ENDS, true), (FILL_MARKS, false)] {
        for &(key, texts) in marks {
            let named = token(metadata, key, list.len())?;
            let first = texts.iter().find_map(|text| find(text));
            if let (None, Some(id)) = (named, first) {
                list.kinds[id as usize] = Kind::Control;
            }
            ends.extend(named.or(first).filter(|_| ends_text));
        }
    }
    for id in ALWAYS_SHOWN.iter().filter_map(|text| find(text)) {
        list.kinds[id as usize] = Kind::UserDefined;
    }
    // Two kinds of vocabulary use a name from the lists for something else.
    let both = |a: &str, b: &str| find(a).is_some() && find(b).is_some();
    let mut not_an_end = |text: &str, kind| {
        if let Some(id) = find(text) {
            list.kinds[id as usize] = kind;
            ends.retain(|&end| end != id);
        }
    };
    if both("<|return|>", "<|call|>") || both("<|calls|>", "<|flush|>") {
        not_an_end("<|end|>", Kind::UserDefined);
    }
    if find("<|tool_response>").is_some() {
        not_an_end("</s>", Kind::Normal);
    }
    Ok(())
}
