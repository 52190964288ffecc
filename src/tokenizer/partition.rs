//! Cutting text at special tokens, before anything else looks at it.

use super::vocabulary::{Kind, TokenList};
use std::collections::{HashMap, HashSet};

/// A part of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fragment<'t> {
    /// Text to encode. Never empty.
    Text(&'t str),
    /// A special token that stood in the text.
    Token(u32),
}

/// A token that is recognised in text as a whole.
struct Special {
    id: u32,
    text: String,
    /// Recognised in every text; the others only on request.
    always: bool,
    /// Swallows the ASCII white space that follows it.
    strip_right: bool,
}

/// Recognises special tokens as llama.cpp does: the longest first, each throughout the text, from left to right.
///
/// That order is visible where special tokens overlap: a longer one further right wins over a shorter one before it.
pub(super) struct Partition {
    /// Longest first; equally long ones by id.
    specials: Vec<Special>,
    /// Where each text stands in `specials`.
    index: HashMap<Box<[u8]>, u32>,
    /// For each byte, the lengths of the specials that begin with it: few, where the specials may be thousands.
    lengths: Vec<Vec<usize>>,
}

impl Partition {
    /// All control, unknown and user-defined tokens of `list`, and those with the ids `whole`. `strip_right` says of a
    /// text whether it swallows the white space after it.
    pub(super) fn new(
        list: &TokenList,
        whole: &[u32],
        strip_right: impl Fn(&str) -> bool,
    ) -> Partition {
        let special = |kind| matches!(kind, Kind::Control | Kind::Unknown | Kind::UserDefined);
        let whole: HashSet<usize> = whole.iter().map(|&id| id as usize).collect();
        let is_special = |index: usize| special(list.kinds[index]) || whole.contains(&index);
        let indices = (0..list.len()).filter(|&index| is_special(index));
        let mut specials: Vec<Special> = indices
            .map(|index| {
                let text = list.text(index).into_owned();
                Special {
                    id: index as u32,
                    always: list.kinds[index] == Kind::UserDefined || whole.contains(&index),
                    strip_right: strip_right(&text),
                    text,
                }
            })
            .collect();
        specials.sort_by_key(|special| std::cmp::Reverse(special.text.len()));
        let mut lengths = vec![Vec::new(); 256];
        let mut index = HashMap::with_capacity(specials.len());
        for (number, special) in specials.iter().enumerate() {
            let text = special.text.as_bytes();
            index.entry(text.into()).or_insert(number as u32);
            let lengths: &mut Vec<usize> = &mut lengths[usize::from(text[0])];
            // Longest first, so equal ones are neighbours.
            if lengths.last() != Some(&text.len()) {
                lengths.push(text.len());
            }
        }
        Partition {
            specials,
            index,
            lengths,
        }
    }

    /// The tokens that are recognised, with their spellings, longest first.
    pub(super) fn spellings(&self) -> impl Iterator<Item = (u32, &str)> + '_ {
        self.specials
            .iter()
            .map(|special| (special.id, special.text.as_str()))
    }

    /// Cuts `text`; control and unknown tokens are recognised only if `parse`.
    pub(super) fn split<'t>(&self, text: &'t str, parse: bool) -> Vec<Fragment<'t>> {
        let mut fragments = Vec::new();
        if !text.is_empty() {
            fragments.push(Fragment::Text(text));
        }
        for index in self.present(text, parse) {
            let special = &self.specials[index as usize];
            let mut next = Vec::with_capacity(fragments.len() + 2);
            for fragment in fragments {
                match fragment {
                    Fragment::Text(text) => special.cut(text, &mut next),
                    token => next.push(token),
                }
            }
            fragments = next;
        }
        fragments
    }

    /// The specials that occur in `text` at all, in order: most texts have none, and vocabularies have thousands.
    fn present(&self, text: &str, parse: bool) -> Vec<u32> {
        let bytes = text.as_bytes();
        let mut seen = vec![false; self.specials.len()];
        for (at, &byte) in bytes.iter().enumerate() {
            for &length in &self.lengths[usize::from(byte)] {
                let part = bytes.get(at..at + length);
                if let Some(&index) = part.and_then(|part| self.index.get(part)) {
                    seen[index as usize] |= parse || self.specials[index as usize].always;
                }
            }
        }
        (0..seen.len() as u32)
            .filter(|&index| seen[index as usize])
            .collect()
    }
}

impl Special {
    /// Cuts `text` wherever this token occurs.
    fn cut<'t>(&self, mut text: &'t str, out: &mut Vec<Fragment<'t>>) {
        while let Some(at) = text.find(&self.text) {
            if at > 0 {
                out.push(Fragment::Text(&text[..at]));
            }
            out.push(Fragment::Token(self.id));
            text = &text[at + self.text.len()..];
            if self.strip_right {
                let space = [' ', '\t', '\n', '\u{b}', '\u{c}', '\r'];
                text = text.trim_start_matches(space);
            }
        }
        if !text.is_empty() {
            out.push(Fragment::Text(text));
        }
    }
}
