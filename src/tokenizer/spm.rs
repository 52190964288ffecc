//! SentencePiece's byte-pair encoding (`tokenizer.ggml.model = llama`): merges by score, bytes for what is left.
//!
//! The `tokenizers` crate ranks *merges*; SentencePiece ranks *results*. Two merges with the same result have the same
//! score, and then the leftmost goes first; a list of merges, in which each has its own rank, cannot say that, and the
//! two differ on runs such as `▁▁▁▁▁`. So this model merges by itself, exactly as llama.cpp does, and is quick to build
//! besides: one map, instead of every split of every piece.

use super::TokenizerError;
use super::vocabulary::{TokenList, byte_of};
use crate::loader::Metadata;
use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::path::PathBuf;

pub(super) const SCORES: &str = "tokenizer.ggml.scores";

/// What stands for a space in this vocabulary.
const SPACE: &str = "▁";

/// A vocabulary of scored pieces.
pub(super) struct Scored {
    file: PathBuf,
    ids: HashMap<Box<str>, u32>,
    scores: Vec<f32>,
    /// The token of each byte.
    bytes: [Option<u32>; 256],
    longest: usize,
}

impl Scored {
    /// Builds the model from the token list and `tokenizer.ggml.scores`.
    pub(super) fn new(metadata: &Metadata, list: &TokenList) -> Result<Scored, TokenizerError> {
        let file = metadata.file().to_path_buf();
        let Some(mut scores) = metadata.f32s(SCORES)? else {
            let why = "merging needs the pieces' scores";
            return Err(TokenizerError::Missing {
                file,
                key: SCORES,
                why,
            });
        };
        if scores.len() != list.len() {
            return Err(TokenizerError::Length {
                file,
                key: SCORES,
                expected: list.len(),
                found: scores.len(),
            });
        }
        if let Some(index) = scores.iter().position(|score| score.is_nan()) {
            return Err(TokenizerError::Entry {
                file,
                key: SCORES,
                index,
                problem: "expected a number, found NaN".to_owned(),
            });
        }
        // −0 and 0 are one score; `total_cmp` below would tell them apart.
        scores.iter_mut().for_each(|score| *score += 0.0);
        let mut ids = HashMap::with_capacity(list.len());
        let mut longest = 0;
        let mut bytes = [None; 256];
        for (text, id) in list.texts() {
            longest = longest.max(text.len());
            if let Some(byte) = byte_of(&text) {
                bytes[usize::from(byte)] = Some(id);
            }
            ids.insert(Box::from(text), id);
        }
        if ids.len() != list.len() {
            return Err(list.duplicate());
        }
        Ok(Scored {
            file,
            ids,
            scores,
            bytes,
            longest,
        })
    }

    /// The token whose text is exactly `text`.
    pub(super) fn token_id(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// Appends the tokens of `text`, with a space in front of it if `prefix`; `unknown` stands for what has none.
    pub(super) fn encode(
        &self,
        text: &str,
        prefix: bool,
        unknown: Option<u32>,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let mut escaped = String::with_capacity(text.len() + text.len() / 2 + SPACE.len());
        if prefix {
            escaped.push_str(SPACE);
        }
        for (number, part) in text.split(' ').enumerate() {
            if number > 0 {
                escaped.push_str(SPACE);
            }
            escaped.push_str(part);
        }
        for piece in self.merge(&escaped) {
            self.emit(piece, unknown, out)?;
        }
        Ok(())
    }

    /// Merges neighbours, best score first, until no two of them form a piece; what remains, in order.
    fn merge<'t>(&self, text: &'t str) -> impl Iterator<Item = &'t str> {
        let mut symbols = Symbols::new(text);
        let mut queue = BinaryHeap::new();
        for left in 1..symbols.list.len() {
            self.propose(&symbols, left - 1, left, &mut queue);
        }
        while let Some(merge) = queue.pop() {
            if symbols.apply(&merge) {
                let Symbol { prev, next, .. } = symbols.list[merge.left];
                self.propose(&symbols, prev, merge.left, &mut queue);
                self.propose(&symbols, merge.left, next, &mut queue);
            }
        }
        let whole = symbols.list.into_iter().filter(|symbol| symbol.len > 0);
        whole.map(|symbol| &text[symbol.start..symbol.start + symbol.len])
    }

    /// Queues the merge of two neighbours if together they are a piece.
    fn propose(
        &self,
        symbols: &Symbols,
        left: usize,
        right: usize,
        queue: &mut BinaryHeap<Proposal>,
    ) {
        if left == NONE || right == NONE {
            return;
        }
        let (first, second) = (symbols.list[left], symbols.list[right]);
        let len = first.len + second.len;
        if len > self.longest {
            return;
        }
        let text = &symbols.text[first.start..first.start + len];
        if let Some(&id) = self.ids.get(text) {
            let score = self.scores[id as usize];
            queue.push(Proposal {
                score,
                left,
                right,
                len,
            });
        }
    }

    /// Appends one piece, or the bytes of a character that is none, or the unknown token.
    fn emit(
        &self,
        piece: &str,
        unknown: Option<u32>,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        if let Some(&id) = self.ids.get(piece) {
            out.push(id);
            return Ok(());
        }
        let start = out.len();
        for byte in piece.bytes() {
            match self.bytes[usize::from(byte)] {
                Some(id) => out.push(id),
                None => {
                    // Half a character would be worse than none: the unknown token stands for all of it.
                    out.truncate(start);
                    let unknown = unknown.ok_or_else(|| TokenizerError::Unencodable {
                        file: self.file.clone(),
                        text: piece.to_owned(),
                    })?;
                    out.push(unknown);
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// No neighbour.
const NONE: usize = usize::MAX;

/// A stretch of the text, in a doubly linked list; one of length 0 has been merged into its left neighbour.
#[derive(Clone, Copy)]
struct Symbol {
    start: usize,
    len: usize,
    prev: usize,
    next: usize,
}

struct Symbols<'t> {
    text: &'t str,
    list: Vec<Symbol>,
}

impl<'t> Symbols<'t> {
    /// One symbol for each character.
    fn new(text: &'t str) -> Symbols<'t> {
        let characters = text.char_indices().enumerate();
        let mut list: Vec<Symbol> = characters
            .map(|(index, (start, c))| Symbol {
                start,
                len: c.len_utf8(),
                prev: index.wrapping_sub(1),
                next: index + 1,
            })
            .collect();
        if let Some(last) = list.last_mut() {
            last.next = NONE;
        }
        Symbols { text, list }
    }

    /// Performs a merge; false if either side has changed since it was proposed.
    fn apply(&mut self, merge: &Proposal) -> bool {
        let (left, right) = (self.list[merge.left], self.list[merge.right]);
        if left.len == 0 || right.len == 0 || left.len + right.len != merge.len {
            return false;
        }
        self.list[merge.left].len = merge.len;
        self.list[merge.left].next = right.next;
        self.list[merge.right].len = 0;
        if right.next != NONE {
            self.list[right.next].prev = merge.left;
        }
        true
    }
}

/// A merge that could be made: the greatest is made first.
struct Proposal {
    score: f32,
    left: usize,
    right: usize,
    /// The bytes of both sides at the time: a different sum means that one of them has changed.
    len: usize,
}

impl Ord for Proposal {
    /// By score; among equals the leftmost is the greatest.
    fn cmp(&self, other: &Proposal) -> Ordering {
        let by_score = self.score.total_cmp(&other.score);
        by_score.then_with(|| other.left.cmp(&self.left))
    }
}

impl PartialOrd for Proposal {
    fn partial_cmp(&self, other: &Proposal) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Proposal {
    fn eq(&self, other: &Proposal) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Proposal {}
