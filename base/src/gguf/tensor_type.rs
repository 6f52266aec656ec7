//! The ways ggml stores tensor values: how many stand in a block, and how long a block is.

use std::fmt;

use super::MAX_DIM;

macro_rules! tensor_types {
    ($($name:ident = $id:literal, $label:literal, $values:literal, $bytes:literal;)*) => {
        /// How ggml stores the values of a tensor.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum TensorType {
            $(#[doc = concat!("`", $label, "`: blocks of ", $values, " values in ", $bytes, " bytes.")] $name = $id,)*
        }

        impl TensorType {
            /// Every type.
            pub const ALL: &[TensorType] = &[$(TensorType::$name),*];

            /// Values in a block, and its length in bytes.
            pub fn block(self) -> (u64, u64) {
                match self { $(TensorType::$name => ($values, $bytes),)* }
            }

            /// Its name as llama.cpp writes it.
            pub fn label(self) -> &'static str {
                match self { $(TensorType::$name => $label,)* }
            }
        }
    };
}

// ggml.h and ggml.c of llama.cpp; ids that are missing were given back.
tensor_types! {
    F32 = 0, "F32", 1, 4;
    F16 = 1, "F16", 1, 2;
    Q4_0 = 2, "Q4_0", 32, 18;
    Q4_1 = 3, "Q4_1", 32, 20;
    Q5_0 = 6, "Q5_0", 32, 22;
    Q5_1 = 7, "Q5_1", 32, 24;
    Q8_0 = 8, "Q8_0", 32, 34;
    Q8_1 = 9, "Q8_1", 32, 36;
    Q2K = 10, "Q2_K", 256, 84;
    Q3K = 11, "Q3_K", 256, 110;
    Q4K = 12, "Q4_K", 256, 144;
    Q5K = 13, "Q5_K", 256, 176;
    Q6K = 14, "Q6_K", 256, 210;
    Q8K = 15, "Q8_K", 256, 292;
    Iq2Xxs = 16, "IQ2_XXS", 256, 66;
    Iq2Xs = 17, "IQ2_XS", 256, 74;
    Iq3Xxs = 18, "IQ3_XXS", 256, 98;
    Iq1S = 19, "IQ1_S", 256, 50;
    Iq4Nl = 20, "IQ4_NL", 32, 18;
    Iq3S = 21, "IQ3_S", 256, 110;
    Iq2S = 22, "IQ2_S", 256, 82;
    Iq4Xs = 23, "IQ4_XS", 256, 136;
    I8 = 24, "I8", 1, 1;
    I16 = 25, "I16", 1, 2;
    I32 = 26, "I32", 1, 4;
    I64 = 27, "I64", 1, 8;
    F64 = 28, "F64", 1, 8;
    Iq1M = 29, "IQ1_M", 256, 56;
    Bf16 = 30, "BF16", 1, 2;
    Tq1_0 = 34, "TQ1_0", 256, 54;
    Tq2_0 = 35, "TQ2_0", 256, 66;
    Mxfp4 = 39, "MXFP4", 32, 17;
    Nvfp4 = 40, "NVFP4", 64, 36;
    Q1_0 = 41, "Q1_0", 128, 18;
}

impl TensorType {
    /// The type of this id.
    pub fn from_id(id: u32) -> Option<TensorType> {
        Self::ALL.iter().copied().find(|kind| *kind as u32 == id)
    }

    /// Bytes of a tensor of these dimensions, innermost first, or why it cannot be.
    pub(super) fn bytes_of(self, dims: [u64; 4]) -> Result<u64, &'static str> {
        if dims.iter().any(|dim| *dim >= MAX_DIM) {
            return Err("a dimension must be below 2^31");
        }
        let (values, bytes) = self.block();
        if !dims[0].is_multiple_of(values) {
            return Err("its innermost dimension is not a whole number of blocks");
        }
        let count = dims.iter().try_fold(1u64, |product, dim| product.checked_mul(*dim));
        let count = count.filter(|count| *count < 1 << 63);
        let count = count.ok_or("it has 2^63 values or more")?;
        (count / values).checked_mul(bytes).ok_or("it has 2^64 bytes or more")
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}
