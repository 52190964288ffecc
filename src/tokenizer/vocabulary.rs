//! The token list of a model file, checked: texts, kinds, and the bytes each token prints.

use super::TokenizerError;
use crate::loader::{Metadata, StringArray};
use std::borrow::Cow;
use std::path::PathBuf;

pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
pub(super) const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";

/// What a token is for. The numbers are those of `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Text.
    Normal = 1,
    /// Stands for what the vocabulary cannot say.
    Unknown = 2,
    /// Structure, such as the end of a turn: parsed from text only on request, printed only on request.
    Control = 3,
    /// Added text that is always taken whole, before anything else looks at the input.
    UserDefined = 4,
    /// A place without a meaning; prints nothing.
    Unused = 5,
    /// One byte, written `<0x0A>`.
    Byte = 6,
}

impl Kind {
    fn from_number(number: i32) -> Option<Kind> {
        Some(match number {
            1 => Kind::Normal,
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            5 => Kind::Unused,
            6 => Kind::Byte,
            _ => return None,
        })
    }
}

/// How the text of a normal token becomes bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// Every character stands for one byte, as in GPT-2.
    ByteLevel,
    /// Text, in which `▁` stands for a space.
    SentencePiece,
}

/// The tokens of a model file as stored, before any rule has changed their kinds.
pub(super) struct TokenList {
    file: PathBuf,
    texts: StringArray,
    pub(super) kinds: Vec<Kind>,
}

impl TokenList {
    /// Reads and checks `tokenizer.ggml.tokens` and `tokenizer.ggml.token_type`. Without the latter, all are normal.
    pub(super) fn read(metadata: &Metadata) -> Result<TokenList, TokenizerError> {
        let file = metadata.file().to_path_buf();
        let Some(texts) = metadata.strings(TOKENS)? else {
            let why = "a tokenizer needs the list of tokens";
            return Err(TokenizerError::Missing {
                file,
                key: TOKENS,
                why,
            });
        };
        if texts.is_empty() {
            let why = "the list of tokens is empty";
            return Err(TokenizerError::Missing {
                file,
                key: TOKENS,
                why,
            });
        }
        let mut kinds = vec![Kind::Normal; texts.len()];
        if let Some(numbers) = metadata.i32s(TOKEN_TYPE)? {
            if numbers.len() != texts.len() {
                return Err(TokenizerError::Length {
                    file,
                    key: TOKEN_TYPE,
                    expected: texts.len(),
                    found: numbers.len(),
                });
            }
            for (index, (kind, number)) in kinds.iter_mut().zip(numbers).enumerate() {
                *kind = Kind::from_number(number).ok_or_else(|| TokenizerError::Entry {
                    file: file.clone(),
                    key: TOKEN_TYPE,
                    index,
                    problem: format!("expected 1 to 6, found {number}"),
                })?;
            }
        }
        let list = TokenList { file, texts, kinds };
        for index in (0..list.len()).filter(|&index| list.kinds[index] == Kind::Byte) {
            let text = list.text(index);
            if byte_of(&text).is_none() {
                let problem = format!("expected a byte token such as <0x0A>, found {text:?}");
                return Err(list.entry(index, problem));
            }
        }
        Ok(list)
    }

    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    /// The text of token `index`. An empty one is named after its place, as llama.cpp does: several files have more than
    /// one, and no two tokens may share a text.
    pub(super) fn text(&self, index: usize) -> Cow<'_, str> {
        match self.texts.get(index) {
            Some(text) if !text.is_empty() => Cow::Borrowed(text),
            _ => Cow::Owned(format!("[EMPTY_{index}]")),
        }
    }

    /// All texts with their ids.
    pub(super) fn texts(&self) -> impl Iterator<Item = (Cow<'_, str>, u32)> {
        (0..self.len()).map(|index| (self.text(index), index as u32))
    }

    /// The error for a list in which `distinct` texts are fewer than tokens: it names the first that repeats.
    pub(super) fn duplicate(&self) -> TokenizerError {
        let mut seen = std::collections::HashMap::new();
        for (text, id) in self.texts() {
            if let Some(first) = seen.insert(text.clone(), id) {
                let problem = format!("{text:?} is already token {first}");
                return self.entry(id as usize, problem);
            }
        }
        self.entry(0, "its text occurs twice".to_owned())
    }

    fn entry(&self, index: usize, problem: String) -> TokenizerError {
        TokenizerError::Entry {
            file: self.file.clone(),
            key: TOKENS,
            index,
            problem,
        }
    }
}

/// The bytes every token prints, back to back.
pub(super) struct Pieces {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Pieces {
    /// Spells out every token of `list`.
    pub(super) fn new(list: &TokenList, spelling: Spelling) -> Pieces {
        let mut bytes = Vec::with_capacity(list.len() * 8);
        let mut ends = Vec::with_capacity(list.len());
        let table = byte_table();
        for index in 0..list.len() {
            let text = list.text(index);
            match (list.kinds[index], spelling) {
                (Kind::Unknown | Kind::Control | Kind::UserDefined, _) => {
                    bytes.extend_from_slice(text.as_bytes());
                }
                (Kind::Unused, _) => {}
                (Kind::Byte, _) => bytes.extend(byte_of(&text)),
                (Kind::Normal, Spelling::SentencePiece) => {
                    for (number, part) in text.split('▁').enumerate() {
                        if number > 0 {
                            bytes.push(b' ');
                        }
                        bytes.extend_from_slice(part.as_bytes());
                    }
                }
                (Kind::Normal, Spelling::ByteLevel) => {
                    let start = bytes.len();
                    for c in text.chars() {
                        let Some(&Some(byte)) = table.get(c as usize) else {
                            // A text outside the byte alphabet can only be meant literally.
                            bytes.truncate(start);
                            bytes.extend_from_slice(text.as_bytes());
                            break;
                        };
                        bytes.push(byte);
                    }
                }
            }
            ends.push(u32::try_from(bytes.len()).expect("the loader keeps strings below 4 GiB"));
        }
        Pieces { bytes, ends }
    }

    /// The bytes token `id` prints; empty for one that does not exist.
    pub(super) fn get(&self, id: u32) -> &[u8] {
        let index = id as usize;
        let Some(&end) = self.ends.get(index) else {
            return &[];
        };
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start as usize..end as usize]
    }

    /// The length of the longest piece, in bytes.
    pub(super) fn longest(&self) -> usize {
        let starts = std::iter::once(&0).chain(&self.ends);
        let lengths = starts.zip(&self.ends).map(|(start, end)| end - start);
        lengths.max().unwrap_or(0) as usize
    }
}

/// The byte that a text such as `<0x0A>` names.
pub(crate) fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let hexadecimal = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    hexadecimal.then(|| u8::from_str_radix(digits, 16).ok())?
}

/// GPT-2's alphabet: the character that stands for each byte. Printable Latin-1 stands for itself; the other 68 bytes,
/// in order, are the characters from U+0100 on.
pub(super) fn byte_alphabet() -> [char; 256] {
    let mut next = 0x100;
    std::array::from_fn(|byte| match byte as u8 {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => byte as u8 as char,
        _ => {
            next += 1;
            char::from_u32(next - 1).unwrap_or('\u{FFFD}')
        }
    })
}

/// The inverse of [`byte_alphabet`], indexed by character.
fn byte_table() -> [Option<u8>; 0x144] {
    let mut table = [None; 0x144];
    for (byte, c) in byte_alphabet().into_iter().enumerate() {
        table[c as usize] = Some(byte as u8);
    }
    table
}
