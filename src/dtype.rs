//! Element and block types of stored tensors: how many elements and bytes a block has, and what it decodes to.
//!
//! Every type a GGUF file can name is named and sized here, so that the loader can check a tensor's extent whether or
//! not anything can compute with it. The smaller set that [`DType::RUNNABLE`] lists can also be decoded. Ids, names and
//! sizes are those of ggml's `ggml.h` and `ggml-common.h` (llama.cpp, 2026-11).

mod decode;
mod encode;

use std::fmt;
use std::str::FromStr;

/// Declares the enum and its tables from one list, so that a type's id, name and size cannot drift apart.
macro_rules! ggml_types {
    ($($variant:ident = $id:literal, $len:literal per $bytes:literal, $doc:literal;)*) => {
        /// The type of a stored tensor's elements, as ggml names it.
        ///
        /// A type is a *block* of [`block_len`](DType::block_len) elements in [`block_bytes`](DType::block_bytes)
        /// bytes; plain numbers are blocks of one. Rows are whole blocks.
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum DType {
            $(#[doc = $doc] $variant,)*
        }

        impl DType {
            /// Every type there is, in the order of its ggml id.
            pub const ALL: &[DType] = &[$(DType::$variant,)*];

            /// The type with the number `id` in a GGUF file; `None` where ggml has none or has removed it
            /// (see [`DType::removed_name`]).
            pub fn from_ggml(id: u32) -> Option<DType> {
                match id {
                    $($id => Some(DType::$variant),)*
                    _ => None,
                }
            }

            /// The number of this type in a GGUF file.
            pub fn ggml_id(self) -> u32 {
                match self {
                    $(DType::$variant => $id,)*
                }
            }

            /// The name as files and people write it: `Q4_1`, `F16`, `Q4_K`.
            pub fn name(self) -> &'static str {
                match self {
                    $(DType::$variant => stringify!($variant),)*
                }
            }

            /// Elements in one block.
            pub fn block_len(self) -> usize {
                match self {
                    $(DType::$variant => $len,)*
                }
            }

            /// Bytes in one block.
            pub fn block_bytes(self) -> usize {
                match self {
                    $(DType::$variant => $bytes,)*
                }
            }
        }
    };
}

ggml_types! {
    F32 = 0, 1 per 4, "IEEE 754 binary32.";
    F16 = 1, 1 per 2, "IEEE 754 binary16.";
    Q4_0 = 2, 32 per 18, "4-bit, f16 scale: `d · (q − 8)`.";
    Q4_1 = 3, 32 per 20, "4-bit, f16 scale and minimum: `d · q + m`.";
    Q5_0 = 6, 32 per 22, "5-bit, f16 scale: `d · (q − 16)`.";
    Q5_1 = 7, 32 per 24, "5-bit, f16 scale and minimum: `d · q + m`.";
    Q8_0 = 8, 32 per 34, "8-bit, f16 scale: `d · q`.";
    Q8_1 = 9, 32 per 36, "8-bit with a sum: an activation format of ggml, not a weight format.";
    Q2_K = 10, 256 per 84, "2-bit super-block, 4-bit scales and minima for every 16 elements.";
    Q3_K = 11, 256 per 110, "3-bit super-block, 6-bit scales for every 16 elements.";
    Q4_K = 12, 256 per 144, "4-bit super-block, 6-bit scales and minima for every 32 elements.";
    Q5_K = 13, 256 per 176, "5-bit super-block, 6-bit scales and minima for every 32 elements.";
    Q6_K = 14, 256 per 210, "6-bit super-block, 8-bit scales for every 16 elements.";
    Q8_K = 15, 256 per 292, "8-bit super-block: an activation format of ggml, not a weight format.";
    IQ2_XXS = 16, 256 per 66, "2.06-bit codebook.";
    IQ2_XS = 17, 256 per 74, "2.31-bit codebook.";
    IQ3_XXS = 18, 256 per 98, "3.06-bit codebook.";
    IQ1_S = 19, 256 per 50, "1.56-bit codebook.";
    IQ4_NL = 20, 32 per 18, "4-bit with a non-linear table.";
    IQ3_S = 21, 256 per 110, "3.44-bit codebook.";
    IQ2_S = 22, 256 per 82, "2.56-bit codebook.";
    IQ4_XS = 23, 256 per 136, "4.25-bit with a non-linear table.";
    I8 = 24, 1 per 1, "Signed 8-bit integer.";
    I16 = 25, 1 per 2, "Signed 16-bit integer.";
    I32 = 26, 1 per 4, "Signed 32-bit integer.";
    I64 = 27, 1 per 8, "Signed 64-bit integer.";
    F64 = 28, 1 per 8, "IEEE 754 binary64.";
    IQ1_M = 29, 256 per 56, "1.75-bit codebook.";
    BF16 = 30, 1 per 2, "The upper half of a binary32.";
    TQ1_0 = 34, 256 per 54, "Ternary, 1.69-bit.";
    TQ2_0 = 35, 256 per 66, "Ternary, 2.06-bit.";
    MXFP4 = 39, 32 per 17, "OCP microscaling E2M1 with an E8M0 scale.";
    NVFP4 = 40, 64 per 36, "E2M1 with an E4M3 scale for every 16 elements.";
    Q1_0 = 41, 128 per 18, "1-bit, f16 scale.";
    Q2_0 = 42, 64 per 18, "2-bit, f16 scale.";
}

impl DType {
    /// The types that weights may have to run: those [`decode`](DType::decode) understands.
    pub const RUNNABLE: &[DType] = &[
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::Q4_0,
        DType::Q4_1,
        DType::Q5_0,
        DType::Q5_1,
        DType::Q8_0,
        DType::Q2_K,
        DType::Q3_K,
        DType::Q4_K,
        DType::Q5_K,
        DType::Q6_K,
    ];

    /// The name of a type that ggml once had under `id` and removed, for error messages.
    pub fn removed_name(id: u32) -> Option<&'static str> {
        match id {
            4 => Some("Q4_2"),
            5 => Some("Q4_3"),
            31 => Some("Q4_0_4_4"),
            32 => Some("Q4_0_4_8"),
            33 => Some("Q4_0_8_8"),
            36 => Some("IQ4_NL_4_4"),
            37 => Some("IQ4_NL_4_8"),
            38 => Some("IQ4_NL_8_8"),
            _ => None,
        }
    }

    /// The names of [`DType::RUNNABLE`], comma-separated, for error messages and help texts.
    pub fn runnable_names() -> String {
        let names: Vec<_> = Self::RUNNABLE.iter().map(|dtype| dtype.name()).collect();
        names.join(", ")
    }

    /// Whether weights of this type can be computed with.
    pub fn is_runnable(self) -> bool {
        Self::RUNNABLE.contains(&self)
    }

    /// Whether this is one of the floating-point types that run: F32, F16 or BF16. (F64 does not run.)
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16)
    }

    /// Bytes of a row of `cols` elements; `None` when that is no whole number of blocks or overflows.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        if !cols.is_multiple_of(self.block_len()) {
            return None;
        }
        (cols / self.block_len()).checked_mul(self.block_bytes())
    }

    /// Decodes whole blocks into f32, exactly: bit for bit what PyPI `gguf`'s `dequantize` and ggml's scalar code give
    /// (each product and each sum rounded to f32 on its own, no fused multiply-add).
    ///
    /// # Panics
    /// When `bytes` is not whole blocks, `out` is not exactly their elements, or the type is not
    /// [runnable](DType::is_runnable): callers have checked all three.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(
            self.row_bytes(out.len()),
            Some(bytes.len()),
            "{self}: {} bytes do not hold {} elements ({} per {} bytes)",
            bytes.len(),
            out.len(),
            self.block_len(),
            self.block_bytes(),
        );
        decode::decode(self, bytes, out);
    }

    /// Rounds f32 into whole blocks: bit for bit what ggml's `quantize_row_*_ref` gives, for the K-types without an
    /// importance matrix. Values that are not finite give blocks that mean nothing; callers look first.
    ///
    /// # Panics
    /// As [`decode`](DType::decode).
    pub fn encode(self, values: &[f32], bytes: &mut [u8]) {
        assert_eq!(
            self.row_bytes(values.len()),
            Some(bytes.len()),
            "{self}: {} elements do not fill {} bytes ({} per {} bytes)",
            values.len(),
            bytes.len(),
            self.block_len(),
            self.block_bytes(),
        );
        encode::encode(self, values, bytes);
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no ggml type's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is no tensor type; those that run are {}",
    DType::runnable_names()
)]
pub struct UnknownDType {
    /// The name as it was written.
    pub name: String,
}

impl FromStr for DType {
    type Err = UnknownDType;

    /// Reads a type's name, in any case: `q4_k` is `Q4_K`.
    fn from_str(name: &str) -> Result<DType, UnknownDType> {
        let found = DType::ALL
            .iter()
            .find(|dtype| dtype.name().eq_ignore_ascii_case(name));
        found.copied().ok_or_else(|| UnknownDType {
            name: name.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests;
