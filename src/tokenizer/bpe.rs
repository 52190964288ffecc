//! Byte-level byte-pair encoding (`tokenizer.ggml.model = gpt2`), on the `tokenizers` crate's BPE model.

use super::TokenizerError;
use super::pretokenize::PreTokenizer;
use super::vocabulary::{TokenList, byte_alphabet};
use crate::loader::{Metadata, StringArray};
use std::collections::HashSet;
use std::path::PathBuf;
use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Merges, Vocab};

pub(super) const MERGES: &str = "tokenizer.ggml.merges";

/// Words that the model remembers. A prompt repeats its words, so this saves most of the merging; each entry is small.
const CACHED_WORDS: usize = 4096;

/// A byte-level BPE vocabulary.
pub(super) struct ByteLevel {
    file: PathBuf,
    model: BPE,
    pre: PreTokenizer,
    alphabet: [char; 256],
    /// For each byte, whether no token stands for it: those that UTF-8 never uses, and some that training never met.
    absent: [bool; 256],
}

impl ByteLevel {
    /// Builds the model from the token list and `tokenizer.ggml.merges`.
    pub(super) fn new(metadata: &Metadata, list: &TokenList) -> Result<ByteLevel, TokenizerError> {
        let file = metadata.file().to_path_buf();
        // The pre-tokenizer first: an unknown one is the likelier error, and found without any work.
        let pre = PreTokenizer::from_metadata(metadata)?;
        let Some(lines) = metadata.strings(MERGES)? else {
            let why = "byte-pair encoding needs the list of merges";
            return Err(TokenizerError::Missing {
                file,
                key: MERGES,
                why,
            });
        };
        let vocab: Vocab = list
            .texts()
            .map(|(text, id)| (text.into_owned(), id))
            .collect();
        if vocab.len() != list.len() {
            return Err(list.duplicate());
        }
        let alphabet = byte_alphabet();
        let mut encoded = [0; 4];
        let absent = alphabet.map(|c| {
            let c: &str = c.encode_utf8(&mut encoded);
            !vocab.contains_key(c)
        });
        let merges = read_merges(&lines).map_err(|(index, problem)| TokenizerError::Entry {
            file: file.clone(),
            key: MERGES,
            index,
            problem,
        })?;
        let built = BPE::builder()
            .vocab_and_merges(vocab, merges)
            .ignore_merges(pre.ignore_merges)
            .cache_capacity(CACHED_WORDS)
            .build();
        let model = built.map_err(|error| {
            let (index, problem) = diagnose(list, &lines, &error.to_string());
            TokenizerError::Entry {
                file: file.clone(),
                key: MERGES,
                index,
                problem,
            }
        })?;
        Ok(ByteLevel {
            file,
            model,
            pre,
            alphabet,
            absent,
        })
    }

    /// Whether texts begin with the BOS token unless the file says otherwise.
    pub(super) fn add_bos(&self) -> bool {
        self.pre.add_bos
    }

    /// Whether text is brought to Unicode's normal form C first, unless the file says otherwise.
    pub(super) fn composed(&self) -> bool {
        self.pre.composed
    }

    /// Whether merging alone makes `text` one token: then it is a word of the vocabulary, whatever else it looks like. Not
    /// to be told where whole words are looked up before any merging.
    pub(super) fn is_word(&self, text: &str) -> bool {
        let id = self.token_id(text);
        let tokens = self.model.tokenize(text);
        let one = tokens.is_ok_and(|tokens| tokens.len() == 1 && Some(tokens[0].id) == id);
        one && !self.pre.ignore_merges
    }

    /// The token whose text is exactly `text`.
    pub(super) fn token_id(&self, text: &str) -> Option<u32> {
        self.model.token_to_id(text)
    }

    /// Appends the tokens of `text`. Bytes that no token stands for are dropped, as every implementation of these
    /// vocabularies does; [`ByteLevel::unspellable`] tells.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let mut spelled = String::new();
        self.pre.split(text, &mut |word| {
            // A byte without a token still keeps its neighbours from merging with each other.
            let parts = word.as_bytes().split(|&byte| self.is_absent(byte));
            for part in parts.filter(|part| !part.is_empty()) {
                spelled.clear();
                spelled.extend(part.iter().map(|&byte| self.alphabet[usize::from(byte)]));
                let tokens = self.model.tokenize(&spelled);
                let tokens = tokens.map_err(|_| TokenizerError::Unencodable {
                    file: self.file.clone(),
                    text: word.to_owned(),
                })?;
                out.extend(tokens.iter().map(|token| token.id));
            }
            Ok(())
        })
    }

    fn is_absent(&self, byte: u8) -> bool {
        self.absent[usize::from(byte)]
    }

    /// The first character of `text` that has a byte for which there is no token.
    pub(super) fn unspellable(&self, text: &str) -> Option<char> {
        let mut encoded = [0; 4];
        text.chars().find(|c| {
            let mut bytes = c.encode_utf8(&mut encoded).bytes();
            bytes.any(|byte| self.is_absent(byte))
        })
    }
}

/// Cuts a merge at its first space after the first character: a piece may itself be a space in files that are not
/// byte-level.
fn parse(line: &str) -> Option<(&str, &str)> {
    let first = line.chars().next()?.len_utf8();
    let at = first + line[first..].find(' ')?;
    let (left, right) = (&line[..at], &line[at + 1..]);
    (!right.is_empty()).then_some((left, right))
}

/// The merges in order of rank, or the index of a bad one and what is wrong with it.
fn read_merges(lines: &StringArray) -> Result<Merges, (usize, String)> {
    let mut merges = Merges::with_capacity(lines.len());
    let mut prints = Vec::with_capacity(lines.len());
    for (index, line) in lines.iter().enumerate() {
        let Some((left, right)) = parse(line) else {
            let problem = format!("expected two pieces separated by a space, found {line:?}");
            return Err((index, problem));
        };
        prints.push(fingerprint(line));
        merges.push((left.to_owned(), right.to_owned()));
    }
    // Implementations disagree about which of two equal merges counts, so neither does. Sorted fingerprints find a
    // suspect in a third of the time a set of strings takes, and nearly always there is none.
    prints.sort_unstable();
    if prints.windows(2).any(|pair| pair[0] == pair[1]) {
        let mut seen = HashSet::new();
        let mut repeated = lines
            .iter()
            .enumerate()
            .filter(|(_, line)| !seen.insert(*line));
        if let Some((index, line)) = repeated.next() {
            return Err((index, format!("the merge {line:?} is listed twice")));
        }
    }
    Ok(merges)
}

/// A hash (FNV-1a) that equal texts share.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// Finds the merge the crate refused: it names only the piece.
fn diagnose(list: &TokenList, lines: &StringArray, error: &str) -> (usize, String) {
    let known: HashSet<_> = list.texts().map(|(text, _)| text).collect();
    for (index, line) in lines.iter().enumerate() {
        let Some((left, right)) = parse(line) else {
            continue;
        };
        for piece in [left, right, &[left, right].concat()] {
            if !known.contains(piece) {
                let problem =
                    format!("the merge {line:?} names {piece:?}, which is not among the tokens");
                return (index, problem);
            }
        }
    }
    (0, error.to_owned())
}
