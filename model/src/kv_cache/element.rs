//! What a cache stores of each number.

use std::fmt;
use std::str::FromStr;

use burn::tensor::DType;

/// The elements of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KvElement {
    /// 32 bits.
    F32,
    /// 16 bits, the exponents of f32.
    BF16,
    /// 16 bits, more digits and fewer exponents.
    F16,
    /// 8 bits, with an f32 scale for each token and head.
    Int8,
}

impl KvElement {
    /// All of them.
    pub const ALL: [KvElement; 4] = [KvElement::F32, KvElement::BF16, KvElement::F16, KvElement::Int8];

    /// The element that keeps what a decoder computes in `dtype`: bf16 and f16 as they are, anything else in f32.
    pub fn of(dtype: DType) -> Self {
        match dtype {
            DType::BF16 => KvElement::BF16,
            DType::F16 => KvElement::F16,
            _ => KvElement::F32,
        }
    }

    /// Its word on the command line and in reports.
    pub fn word(self) -> &'static str {
        match self {
            KvElement::F32 => "f32",
            KvElement::BF16 => "bf16",
            KvElement::F16 => "f16",
            KvElement::Int8 => "int8",
        }
    }

    /// The dtype of what is stored, where it is a float.
    pub fn dtype(self) -> Option<DType> {
        match self {
            KvElement::F32 => Some(DType::F32),
            KvElement::BF16 => Some(DType::BF16),
            KvElement::F16 => Some(DType::F16),
            KvElement::Int8 => None,
        }
    }

    /// Bytes of the keys, or of the values, of one token and head of `d` channels: the codes of int8 stand in words of
    /// four, with 4 bytes of scale beside them.
    pub fn head_bytes(self, d: usize) -> usize {
        match self {
            KvElement::F32 => 4 * d,
            KvElement::BF16 | KvElement::F16 => 2 * d,
            KvElement::Int8 => 4 * d.div_ceil(CODES_OF_WORD) + 4,
        }
    }
}

/// Codes of an int8 cache in one word.
pub(crate) const CODES_OF_WORD: usize = 4;

impl fmt::Display for KvElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A word that names no element.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is not an element of a KV cache; expected f32, bf16, f16 or int8")]
pub struct UnknownElement {
    /// The word, cut to 64 characters.
    pub word: String,
}

impl FromStr for KvElement {
    type Err = UnknownElement;

    fn from_str(word: &str) -> Result<Self, UnknownElement> {
        let found = KvElement::ALL.into_iter().find(|element| element.word() == word);
        found.ok_or_else(|| UnknownElement { word: word.chars().take(64).collect() })
    }
}
