//! Cutting text into words before byte-pair merging, one family of rules for each `tokenizer.ggml.pre`.
//!
//! The patterns are the models' own (from their `tokenizer.json`), with one change: they are written without look-ahead.
//! All of them end in `\s+(?!\S)|\s+`: a run of white space leaves its last character to the word that follows. A
//! pattern without look-ahead runs on a finite automaton, several times faster than a backtracking one, and takes half
//! the time to compile; the last character is then given back by [`Whitespace`].

use super::TokenizerError;
use crate::loader::Metadata;
use tokenizers::utils::SysRegex;

pub(super) const PRE: &str = "tokenizer.ggml.pre";

/// GPT-2's words: contractions, letters, numbers or other signs with at most one space before them, white space.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";
/// Llama 3's: contractions in either case, letters with one sign before them, up to three digits, signs with the line
/// breaks after them, white space up to a line break. ASCII case is spelled out because `(?i)` would also take `ſ` for
/// an `s`, which llama.cpp does not.
const LLAMA3: &str = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
/// Qwen 2's: as Llama 3's, with digits one by one.
const QWEN2: &str = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
/// Mistral's since Tekken: a word is capitals and then small letters, marks among them; signs take slashes along.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+";
/// A digit, of any script.
const DIGIT: &str = r"\p{N}";
/// What llama.cpp cuts off first for a file that names no pre-tokenizer.
const PUNCTUATION: &str = r"[\p{P}\$\+<=>\^~\|]+";
const NUMBER: &str = r"\p{N}+";
const THREE_DIGITS: &str = "[0-9][0-9][0-9]";

/// Which runs of white space give their last character to the word that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whitespace {
    /// None: the pattern has no alternative for white space.
    Whole,
    /// All longer than one character.
    GivesLast,
    /// The same, but a run that ends in a line break has been taken by an earlier alternative and stays whole.
    GivesLastUnlessBreak,
}

/// One way of cutting, shared by several names.
struct Family {
    /// The values of `tokenizer.ggml.pre` that mean it. The first is the family's own name.
    names: &'static [&'static str],
    /// Patterns, applied one after the other: each cuts the parts that the one before left.
    steps: &'static [(&'static str, Whitespace)],
    /// A word that is a token is that token, whatever merging would make of it.
    ignore_merges: bool,
    /// Whether texts begin with the BOS token unless the file says otherwise.
    add_bos: bool,
    /// Whether the text is brought into Unicode's normalization form C first. llama.cpp does not, but the models' own
    /// tokenizers do.
    composed: bool,
}

use Whitespace::{GivesLast, GivesLastUnlessBreak, Whole};

/// The names are llama.cpp's.
#[rustfmt::skip]
const FAMILIES: &[Family] = &[
    Family {
        names: &["default"],
        steps: &[(PUNCTUATION, Whole), (GPT2, GivesLast), (NUMBER, Whole), (THREE_DIGITS, Whole)],
        ignore_merges: false,
        add_bos: false,
        composed: false,
    },
    Family {
        names: &["gpt-2", "phi-2", "gigachat", "a.x-4.0", "mellum", "mpt", "olmo", "jais", "exaone4", "trillion",
            "granite-docling"],
        steps: &[(GPT2, GivesLast)],
        ignore_merges: false,
        add_bos: false,
        composed: false,
    },
    Family {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        steps: &[(DIGIT, Whole), (GPT2, GivesLast)],
        ignore_merges: false,
        add_bos: false,
        composed: false,
    },
    Family {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
        steps: &[(LLAMA3, GivesLastUnlessBreak)],
        ignore_merges: true,
        add_bos: true,
        composed: false,
    },
    Family {
        names: &["smaug-bpe", "dbrx"],
        steps: &[(LLAMA3, GivesLastUnlessBreak)],
        ignore_merges: false,
        add_bos: false,
        composed: false,
    },
    Family {
        names: &["tekken"],
        steps: &[(TEKKEN, GivesLastUnlessBreak)],
        ignore_merges: true,
        add_bos: true,
        composed: false,
    },
    Family {
        names: &["qwen2", "deepseek-r1-qwen"],
        steps: &[(QWEN2, GivesLastUnlessBreak)],
        ignore_merges: false,
        add_bos: false,
        composed: true,
    },
    Family {
        names: &["kormo", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2"],
        steps: &[(QWEN2, GivesLastUnlessBreak)],
        ignore_merges: false,
        add_bos: false,
        composed: false,
    },
];

/// A pre-tokenizer: text in, words out.
pub(super) struct PreTokenizer {
    steps: Vec<(SysRegex, Whitespace)>,
    pub(super) ignore_merges: bool,
    pub(super) add_bos: bool,
    pub(super) composed: bool,
}

impl PreTokenizer {
    /// The pre-tokenizer that `tokenizer.ggml.pre` names; an absent key means `default`.
    pub(super) fn from_metadata(metadata: &Metadata) -> Result<PreTokenizer, TokenizerError> {
        let name = metadata.str(PRE)?.unwrap_or("default");
        let Some(family) = FAMILIES.iter().find(|family| family.names.contains(&name)) else {
            let names = FAMILIES.iter().flat_map(|family| family.names);
            return Err(TokenizerError::Unsupported {
                file: metadata.file().to_path_buf(),
                key: PRE,
                found: name.to_owned(),
                supported: names.copied().collect::<Vec<_>>().join(", "),
            });
        };
        let compile = |&(pattern, whitespace): &(&str, Whitespace)| {
            let regex = SysRegex::new(pattern).expect("the patterns above are valid");
            (regex, whitespace)
        };
        Ok(PreTokenizer {
            steps: family.steps.iter().map(compile).collect(),
            ignore_merges: family.ignore_merges,
            add_bos: family.add_bos,
            composed: family.composed,
        })
    }

    /// Calls `word` for every word of `text`, in order; together they are the text.
    pub(super) fn split<E>(
        &self,
        text: &str,
        word: &mut impl FnMut(&str) -> Result<(), E>,
    ) -> Result<(), E> {
        split(&self.steps, text, word)
    }
}

fn split<E>(
    steps: &[(SysRegex, Whitespace)],
    text: &str,
    word: &mut impl FnMut(&str) -> Result<(), E>,
) -> Result<(), E> {
    let Some(((regex, whitespace), rest)) = steps.split_first() else {
        return word(text);
    };
    let mut done = 0;
    // Giving a character back means searching again from there; until that happens one iterator serves.
    let mut base = 0;
    let mut matches = regex.find_iter(text);
    while let Some((start, end)) = matches.next() {
        let (start, mut end) = (base + start, base + end);
        let given = last_given_back(&text[start..end], *whitespace, end == text.len());
        if done < start {
            split(rest, &text[done..start], word)?;
        }
        end -= given;
        split(rest, &text[start..end], word)?;
        done = end;
        if given > 0 {
            base = end;
            matches = regex.find_iter(&text[base..]);
        }
    }
    if done < text.len() {
        split(rest, &text[done..], word)?;
    }
    Ok(())
}

/// How many bytes at the end of a match belong to the next word.
fn last_given_back(found: &str, whitespace: Whitespace, at_end: bool) -> usize {
    if whitespace == Whole || at_end {
        return 0;
    }
    let mut characters = found.chars();
    let Some(last) = characters.next_back() else {
        return 0;
    };
    let whole = whitespace == GivesLastUnlessBreak && matches!(last, '\r' | '\n');
    // Only the white-space alternatives match nothing but white space, so its first and last character tell.
    let run = last.is_whitespace() && characters.next().is_some_and(char::is_whitespace);
    if run && !whole && found.chars().all(char::is_whitespace) {
        last.len_utf8()
    } else {
        0
    }
}
