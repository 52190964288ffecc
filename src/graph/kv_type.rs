//! How a cache stores its elements.

use std::fmt;
use std::str::FromStr;

/// What the elements of a K or V cache are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvType {
    /// IEEE 754 binary32, `[G, S, D]`: nothing is rounded. The CPU's only.
    F32,
    /// IEEE 754 binary16, `[G, S, D]`.
    #[default]
    F16,
    /// ggml's Q8_0: a signed byte an element, and an f16 scale for every 32 of a head. The bytes
    /// `[G, S, D]` come first and then the scales `[G, S, D/32]`, so that both can be read in whole
    /// vectors at every position.
    Q8_0,
}

impl KvType {
    /// Every type there is.
    pub const ALL: [KvType; 3] = [KvType::F32, KvType::F16, KvType::Q8_0];

    /// The name, as flags, configurations and dumps spell it.
    pub fn name(self) -> &'static str {
        match self {
            KvType::F32 => "f32",
            KvType::F16 => "f16",
            KvType::Q8_0 => "q8_0",
        }
    }

    /// Elements that share a scale; a head is whole blocks.
    pub fn block_len(self) -> u32 {
        match self {
            KvType::F32 | KvType::F16 => 1,
            KvType::Q8_0 => 32,
        }
    }

    /// Bytes of `elements` elements, whole blocks, with their scales.
    pub fn bytes(self, elements: u64) -> u64 {
        match self {
            KvType::F32 => elements * 4,
            KvType::F16 => elements * 2,
            KvType::Q8_0 => elements / 32 * 34,
        }
    }

    /// The names of [`KvType::ALL`], for error messages.
    pub fn names() -> String {
        KvType::ALL.map(KvType::name).join(", ")
    }
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no cache's type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "KV cache type \"{name}\" is not supported; supported: {}",
    KvType::names()
)]
pub struct UnknownKvType {
    /// The name as it was written.
    pub name: String,
}

impl FromStr for KvType {
    type Err = UnknownKvType;

    /// Reads a name in any case.
    fn from_str(name: &str) -> Result<KvType, UnknownKvType> {
        let found = KvType::ALL
            .into_iter()
            .find(|t| t.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| UnknownKvType { name: name.into() })
    }
}
