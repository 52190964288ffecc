//! Text to tokens and back, from a GGUF file's metadata and nothing else.
//!
//! Two models are supported, by `tokenizer.ggml.model`:
//!
//! * `gpt2`: byte-level byte-pair encoding with a list of merges, cut into words first by the pre-tokenizer that
//!   `tokenizer.ggml.pre` names (`pretokenize`, `bpe`); the merging is the `tokenizers` crate's.
//! * `llama`: SentencePiece's byte-pair encoding by scores, with byte fallback (`spm`).
//!
//! Where implementations differ, llama.cpp's behaviour is the reference, because the files are made for it: how special
//! tokens are cut out of the text (`partition`), which tokens end generation (`roles`), where a space is added. Some of
//! its rules are not followed: Qwen's text is brought to Unicode's normal form C first, as the models' own tokenizer does;
//! an ordinary word that looks like an end, such as Qwen's `</s>`, is a word;
//! a GPT-2 vocabulary that names no EOS token has none, rather than whatever token 11 is; and decoding removes no spaces
//! before punctuation, so that decoding what was encoded gives the text back where the vocabulary allows it.
//!
//! Malformed metadata is an error that names file, key and both sides; nothing here panics on input. Building takes some
//! 20 ms for 50,000 tokens, on one thread.
//!
//! ```no_run
//! # use greta_infer::{loader::Checkpoint, tokenizer::{Encode, Tokenizer}};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let file = Checkpoint::open("model.gguf".as_ref())?;
//! let tokenizer = Tokenizer::from_metadata(file.metadata())?;
//! let ids = tokenizer.encode("Once upon a time", Encode::default())?;
//! let mut text = tokenizer.detokenizer();
//! for id in ids {
//!     print!("{}", text.push(id));
//! }
//! print!("{}", text.finish());
//! # Ok(())
//! # }
//! ```

mod bpe;
mod detokenize;
mod error;
mod partition;
mod prefix;
mod pretokenize;
mod roles;
mod spm;
mod vocabulary;

pub use detokenize::Detokenizer;
pub use error::TokenizerError;

use crate::loader::Metadata;
use partition::{Fragment, Partition};
use prefix::{Place, SpacePrefix};
use roles::{Defaults, Roles};
use std::borrow::Cow;
use tokenizers::NormalizedString;
pub(crate) use vocabulary::{Kind, byte_of};
use vocabulary::{Pieces, Spelling, TokenList};

const MODEL: &str = "tokenizer.ggml.model";

/// This program's own key (bool): text is brought to Unicode's normal form C first. GGUF files do not say it; without it
/// the pre-tokenizer decides.
pub const NFC: &str = "greta.tokenizer.nfc";
/// This program's own key (string): the space in front of a text, which `tokenizer.ggml.add_space_prefix` asks for, is put
/// only where none is; `always` for every text after a special token too, `first` only at the very beginning.
pub const SPACE_PREFIX: &str = "greta.tokenizer.space_prefix";
/// This program's own key (array of ids): tokens that are recognised wherever their text is written, though they are text
/// and no structure.
pub const WHOLE_IDS: &str = "greta.tokenizer.whole_token_ids";
/// This program's own key (array of ids): tokens that end generation besides those that GGUF's keys name.
pub const END_IDS: &str = "greta.tokenizer.end_token_ids";

/// How a text is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encode {
    /// Whether special tokens written in the text, such as `<|im_end|>`, are those tokens. Turn it off for text that is
    /// not trusted. User-defined tokens are recognised either way.
    pub special: bool,
    /// Whether the file's rules for BOS and EOS tokens apply. Turn it off for text that continues another.
    pub bos: bool,
}

impl Default for Encode {
    /// A prompt: special tokens are parsed, BOS and EOS rules apply.
    fn default() -> Encode {
        Encode {
            special: true,
            bos: true,
        }
    }
}

/// The merging half of a tokenizer.
enum Model {
    ByteLevel(Box<bpe::ByteLevel>),
    Scored(Box<spm::Scored>),
}

/// A model file's tokenizer.
pub struct Tokenizer {
    model: Model,
    partition: Partition,
    pieces: Pieces,
    kinds: Vec<Kind>,
    roles: Roles,
    space_prefix: SpacePrefix,
    nfc: bool,
}

impl Tokenizer {
    /// Builds the tokenizer that a model file's metadata describes.
    ///
    /// # Errors
    /// [`TokenizerError`] if a needed key is missing, two arrays disagree, a value is out of range, or the model or
    /// pre-tokenizer is not supported; the message lists those that are.
    pub fn from_metadata(metadata: &Metadata) -> Result<Tokenizer, TokenizerError> {
        let Some(name) = metadata.str(MODEL)? else {
            return Err(TokenizerError::Missing {
                file: metadata.file().to_path_buf(),
                key: MODEL,
                why: "it says how text becomes tokens",
            });
        };
        if !["gpt2", "llama"].contains(&name) {
            return Err(TokenizerError::Unsupported {
                file: metadata.file().to_path_buf(),
                key: MODEL,
                found: name.to_owned(),
                supported: "gpt2, llama".to_owned(),
            });
        }
        let mut list = TokenList::read(metadata)?;
        let (model, spelling, defaults) = if name == "gpt2" {
            let model = bpe::ByteLevel::new(metadata, &list)?;
            let defaults = Defaults {
                bos: None,
                eos: None,
                unknown: None,
                add_bos: model.add_bos(),
            };
            (
                Model::ByteLevel(Box::new(model)),
                Spelling::ByteLevel,
                defaults,
            )
        } else {
            // SentencePiece's own numbering, for files that do not spell it out.
            let defaults = Defaults {
                bos: Some(1),
                eos: Some(2),
                unknown: list
                    .kinds
                    .iter()
                    .position(|&kind| kind == Kind::Unknown)
                    .map(|id| id as u32),
                add_bos: true,
            };
            let model = spm::Scored::new(metadata, &list)?;
            (
                Model::Scored(Box::new(model)),
                Spelling::SentencePiece,
                defaults,
            )
        };
        // Qwen has an ordinary word `</s>`, which ends no text.
        let kinds = list.kinds.clone();
        let word = |text: &str, id: u32| match &model {
            Model::ByteLevel(model) => kinds[id as usize] == Kind::Normal && model.is_word(text),
            Model::Scored(_) => false,
        };
        let find = |text: &str| model.token_id(text).filter(|&id| !word(text, id));
        let roles = Roles::read(metadata, &mut list, find, &defaults)?;
        let space_prefix = match model {
            Model::ByteLevel(_) => SpacePrefix::Never,
            Model::Scored(_) => SpacePrefix::read(metadata)?,
        };
        let composed = matches!(&model, Model::ByteLevel(model) if model.composed());
        let nfc = metadata.bool(NFC)?.unwrap_or(composed);
        let strip = strips_right(metadata)?;
        let whole = metadata.u32s(WHOLE_IDS)?.unwrap_or_default();
        Ok(Tokenizer {
            partition: Partition::new(&list, &whole, strip),
            pieces: Pieces::new(&list, spelling),
            kinds: list.kinds,
            model,
            roles,
            space_prefix,
            nfc,
        })
    }

    /// The tokens of `text`. An empty text has none but those that [`Encode::bos`] adds.
    ///
    /// # Errors
    /// [`TokenizerError::Unencodable`] if a SentencePiece vocabulary has nothing at all for a character: no piece, no
    /// bytes and no unknown token.
    pub fn encode(&self, text: &str, how: Encode) -> Result<Vec<u32>, TokenizerError> {
        self.encode_guarded(text, &[], how)
    }

    /// As [`Tokenizer::encode`], for a text in which some characters stand for others: `(stand-in, what it stands for)`.
    /// Control and unknown tokens are recognised first, and so not where a stand-in breaks their spelling; then each
    /// stand-in becomes what it stands for, and words are formed from the whole text between two such tokens.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_guarded(
        &self,
        text: &str,
        stand_ins: &[(char, char)],
        how: Encode,
    ) -> Result<Vec<u32>, TokenizerError> {
        let mut out = Vec::with_capacity(text.len() / 3 + 2);
        if how.bos && self.roles.add_bos {
            out.extend(self.roles.bos);
        }
        // The space that SentencePiece puts before a text also goes between a special token and the text after it.
        let mut place = Place::default();
        for fragment in self.partition.split(text, how.special) {
            let restored = match fragment {
                Fragment::Text(text) => restore(text, stand_ins),
                Fragment::Token(_) => None,
            };
            let Some(restored) = restored else {
                self.encode_fragment(fragment, &mut place, &mut out)?;
                continue;
            };
            // What is user-defined is recognised in every text, restored ones too.
            for fragment in self.partition.split(&restored, false) {
                self.encode_fragment(fragment, &mut place, &mut out)?;
            }
        }
        if how.bos && self.roles.add_eos {
            out.extend(self.roles.eos);
        }
        Ok(out)
    }

    /// The text in the form in which it is encoded.
    fn normalized<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if !self.nfc || text.is_ascii() {
            return Cow::Borrowed(text);
        }
        let mut normal = NormalizedString::from(text);
        normal.nfc();
        Cow::Owned(normal.get().to_owned())
    }

    /// The first character of `text` that encoding loses a part of, if any.
    ///
    /// A byte-level vocabulary may lack bytes that its training text never had: SmolLM's lacks some control characters
    /// and the first byte of most unassigned planes. The models' own tokenizers drop such bytes, and so does
    /// [`Tokenizer::encode`], because the model knows no other way; this tells a caller who wants to say so.
    pub fn unspellable(&self, text: &str) -> Option<char> {
        match &self.model {
            Model::ByteLevel(model) => model.unspellable(&self.normalized(text)),
            Model::Scored(_) => None,
        }
    }

    /// The text of `ids`, as a text of its own: the space that encoding put in front is removed.
    ///
    /// Control and unknown tokens print their text if `special`, and nothing otherwise. Bytes that form no character
    /// become U+FFFD.
    pub fn decode(&self, ids: &[u32], special: bool) -> String {
        let mut detokenizer = self.detokenizer().print_special(special).at_text_start();
        let mut text = String::with_capacity(ids.len() * 4);
        for &id in ids {
            text.push_str(detokenizer.push(id));
        }
        text.push_str(detokenizer.finish());
        text
    }

    /// The bytes that token `id` prints, which need not be whole characters. An id outside the vocabulary prints none:
    /// models often have more rows of logits than tokens.
    pub fn piece(&self, id: u32) -> &[u8] {
        self.pieces.get(id)
    }

    /// [`Tokenizer::piece`] for display: bytes that form no character are U+FFFD.
    pub fn piece_str(&self, id: u32) -> Cow<'_, str> {
        String::from_utf8_lossy(self.piece(id))
    }

    /// A decoder for tokens that come one at a time and continue a text; see [`Detokenizer`] for its options.
    pub fn detokenizer(&self) -> Detokenizer<'_> {
        Detokenizer::new(self)
    }

    /// Whether generation ends at token `id`: the end of the text, of a turn or of a message, by the file's metadata or
    /// by a well-known name.
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.roles.ends.binary_search(&id).is_ok()
    }

    /// All tokens that end generation, in ascending order.
    pub fn end_of_generation(&self) -> &[u32] {
        &self.roles.ends
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.roles.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.roles.eos
    }

    /// The token that fills up rows, which only chat templates ask for.
    pub fn padding(&self) -> Option<u32> {
        self.roles.padding
    }

    /// What a person should know about the file's vocabulary.
    pub fn notes(&self) -> &[String] {
        &self.roles.notes
    }

    /// Whether [`Encode::bos`] puts the BOS token before a text.
    pub fn adds_bos(&self) -> bool {
        self.roles.add_bos
    }

    /// How many tokens there are.
    pub fn vocab_size(&self) -> usize {
        self.kinds.len()
    }

    /// The token whose text, as the file spells it, is exactly `text`: for special tokens, by name.
    pub fn token(&self, text: &str) -> Option<u32> {
        self.model.token_id(text)
    }

    /// Whether token `id` is structure rather than text: a control token or the unknown token.
    pub fn is_special(&self, id: u32) -> bool {
        let kind = self.kinds.get(id as usize);
        matches!(kind, Some(Kind::Control | Kind::Unknown))
    }

    /// The tokens that are recognised in text as a whole, before any encoding, with their spellings: control and unknown
    /// tokens, and user-defined ones.
    pub fn whole_tokens(&self) -> impl Iterator<Item = (u32, &str)> + '_ {
        self.partition.spellings()
    }

    /// Whether token `id` is recognised in text as a whole, before any encoding. Looks through all that are.
    fn is_whole(&self, id: u32) -> bool {
        self.whole_tokens().any(|(whole, _)| whole == id)
    }
}

/// `text` with stand-ins replaced by what they stand for; `None` if it has none.
fn restore(text: &str, stand_ins: &[(char, char)]) -> Option<String> {
    let find = |c: char| stand_ins.iter().find(|pair| pair.0 == c);
    text.contains(|c| find(c).is_some()).then(|| {
        text.chars()
            .map(|c| find(c).map_or(c, |pair| pair.1))
            .collect()
    })
}

impl Model {
    fn token_id(&self, text: &str) -> Option<u32> {
        match self {
            Model::ByteLevel(model) => model.token_id(text),
            Model::Scored(model) => model.token_id(text),
        }
    }
}

/// Which special tokens swallow the white space after them: those of Phi-3, whose files do not say so themselves.
fn strips_right(metadata: &Metadata) -> Result<impl Fn(&str) -> bool, TokenizerError> {
    let name = metadata.str("general.name")?.unwrap_or_default();
    let name = name.to_ascii_lowercase();
    let phi3 = name.contains("phi-3") || name.contains("phi3");
    Ok(move |text: &str| phi3 && !["<unk>", "<s>", "<|endoftext|>"].contains(&text))
}
