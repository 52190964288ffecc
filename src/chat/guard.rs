//! Keeping special tokens out of what people say; the [room's page](super) says why it is done this way.

use std::collections::{BTreeMap, BTreeSet};

use super::{Message, Role};

/// Which characters stand for which in guarded messages and in what a template makes of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    pairs: Vec<(char, char)>,
}

impl Guard {
    /// `(stand-in, what it stands for)`.
    pub fn pairs(&self) -> &[(char, char)] {
        &self.pairs
    }
}

/// Guards messages against `everywhere`, spellings of special tokens, and those of people also against `from_people`,
/// spellings that a model may say. Each is replaced in its first character that is no white space; so is a part of one that
/// the template's own text could complete: the end of one where a message begins, the beginning of one where it ends.
/// `template` is the template's source, whose characters are no stand-ins.
pub fn guard(
    messages: &[Message],
    everywhere: &[&str],
    from_people: &[&str],
    template: &str,
) -> (Vec<Message>, Guard) {
    let marks = messages.iter().map(|message| {
        let people = match message.role {
            Role::Assistant => &[],
            Role::System | Role::User => from_people,
        };
        let spellings = everywhere.iter().chain(people);
        marks(&message.content, spellings.copied())
    });
    let marks: Vec<BTreeSet<usize>> = marks.collect();
    let first = |content: &str, at: usize| content[at..].chars().next();
    let marked = messages
        .iter()
        .zip(&marks)
        .flat_map(|(message, marks)| marks.iter().filter_map(|&at| first(&message.content, at)));
    let marked: BTreeSet<char> = marked.collect();
    let texts = messages.iter().map(|message| message.content.as_str());
    let used: BTreeSet<char> = texts
        .chain([template])
        .flat_map(str::chars)
        .filter(|&c| c >= FIRST_STAND_IN)
        .collect();
    // A plane of 65,534 private-use characters, of which any text that means something uses few.
    let free = (FIRST_STAND_IN..=LAST_STAND_IN).filter(|c| !used.contains(c));
    let stand_ins: BTreeMap<char, char> = marked.into_iter().zip(free).collect();
    let guarded = messages.iter().zip(&marks).map(|(message, marks)| {
        let stand_in = |(at, c): (usize, char)| match marks.contains(&at) {
            // A text that leaves no stand-in loses the character, rather than say what only a program may.
            true => stand_ins
                .get(&c)
                .copied()
                .unwrap_or(char::REPLACEMENT_CHARACTER),
            false => c,
        };
        let content: String = message.content.char_indices().map(stand_in).collect();
        Message::new(message.role, content)
    });
    let guarded = guarded.collect();
    let pairs = stand_ins.into_iter().map(|(c, stand_in)| (stand_in, c));
    let pairs = pairs.collect();
    (guarded, Guard { pairs })
}

/// The last private-use plane, which no font and no model uses.
const FIRST_STAND_IN: char = '\u{100000}';
const LAST_STAND_IN: char = '\u{10fffd}';

/// Where in `text` a character has to be replaced.
fn marks<'s>(text: &str, spellings: impl Iterator<Item = &'s str>) -> BTreeSet<usize> {
    let mut marks = BTreeSet::new();
    let margin = text.len() - text.trim_start().len();
    // Vocabularies have thousands of special tokens and a handful of characters that they begin with.
    let mut by_first: BTreeMap<char, Vec<&str>> = BTreeMap::new();
    for spelling in spellings {
        let Some(first) = spelling.chars().next() else {
            continue;
        };
        by_first.entry(first).or_default().push(spelling);
        for (begin, part) in [(0, text), (margin, text.trim())] {
            let straddling = straddling(part, spelling);
            marks.extend(straddling.map(|at| visible(text, begin + at)));
        }
    }
    for (at, c) in text.char_indices() {
        let spellings = by_first.get(&c).into_iter().flatten();
        if spellings.clone().any(|s| text[at..].starts_with(s)) {
            marks.insert(visible(text, at));
        }
    }
    marks
}

/// Where `text` has a part of `spelling` that text before or after it could complete.
fn straddling(text: &str, spelling: &str) -> impl Iterator<Item = usize> {
    let inner = spelling.char_indices().skip(1).map(|(at, _)| at);
    let inside = !text.is_empty() && text.len() < spelling.len() && spelling.contains(text);
    let at_ends = inner.flat_map(move |at| {
        let begins = text.starts_with(&spelling[at..]).then_some(0);
        let ends = text.ends_with(&spelling[..at]).then(|| text.len() - at);
        begins.into_iter().chain(ends)
    });
    inside.then_some(0).into_iter().chain(at_ends)
}

/// The first character from `at` that is no white space, which templates trim; `at` if there is none.
fn visible(text: &str, at: usize) -> usize {
    let rest = &text[at..];
    at + rest.find(|c: char| !c.is_whitespace()).unwrap_or(0)
}
