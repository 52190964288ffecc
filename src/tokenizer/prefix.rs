//! The space that SentencePiece puts in front of a text, and where in a text that is.

use super::partition::Fragment;
use super::{Model, SPACE_PREFIX, Tokenizer, TokenizerError};
use crate::loader::Metadata;

/// Where a SentencePiece vocabulary puts a space in front of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SpacePrefix {
    /// Nowhere.
    Never,
    /// At the beginning, and after every special token.
    Always,
    /// The same, unless a space is there.
    AlwaysUnlessThere,
    /// At the beginning, unless a space is there.
    FirstUnlessThere,
}

impl SpacePrefix {
    pub(super) fn read(metadata: &Metadata) -> Result<SpacePrefix, TokenizerError> {
        if metadata.bool("tokenizer.ggml.add_space_prefix")? == Some(false) {
            return Ok(SpacePrefix::Never);
        }
        match metadata.str(SPACE_PREFIX)? {
            None => Ok(SpacePrefix::Always),
            Some("always") => Ok(SpacePrefix::AlwaysUnlessThere),
            Some("first") => Ok(SpacePrefix::FirstUnlessThere),
            Some(other) => Err(TokenizerError::Unsupported {
                file: metadata.file().to_path_buf(),
                key: SPACE_PREFIX,
                found: other.to_owned(),
                supported: "always, first".to_owned(),
            }),
        }
    }

    /// Whether `text` gets one: the very first part of a text or not, behind a special token or not.
    fn applies(self, text: &str, first: bool, after_special: bool) -> bool {
        let there = || text.starts_with([' ', '▁']);
        match self {
            SpacePrefix::Never => false,
            SpacePrefix::Always => first || after_special,
            SpacePrefix::AlwaysUnlessThere => (first || after_special) && !there(),
            SpacePrefix::FirstUnlessThere => first && !there(),
        }
    }
}

/// Where in a text a fragment stands.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    /// Whether another fragment comes before it.
    begun: bool,
    /// Whether that is a special token.
    after_special: bool,
}

impl Tokenizer {
    /// Appends the tokens of one fragment.
    pub(super) fn encode_fragment(
        &self,
        fragment: Fragment<'_>,
        place: &mut Place,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        match (fragment, &self.model) {
            (Fragment::Token(id), _) => out.push(id),
            (Fragment::Text(text), Model::ByteLevel(model)) => {
                model.encode(&self.normalized(text), out)?;
            }
            (Fragment::Text(text), Model::Scored(model)) => {
                let text = self.normalized(text);
                let (first, after_special) = (!place.begun, place.after_special);
                let prefix = self.space_prefix.applies(&text, first, after_special);
                model.encode(&text, prefix, self.roles.unknown, out)?;
            }
        }
        *place = Place {
            begun: true,
            after_special: matches!(fragment, Fragment::Token(_)),
        };
        Ok(())
    }
}
