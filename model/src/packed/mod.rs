//! Packed weights: a linear layer's matrix in 8 or 4 bits for each weight, what its codes mean, and how
//! round-to-nearest makes them. The layout is that of the decode kernels of cubek 0.3.1 (`quant_gemv`).
//!
//! Shapes: o output channels, i input channels, k blocks of a row (i / block, rounded up), u words of a row.

mod model;
mod round;
#[cfg(test)]
mod tests;

use std::str::FromStr;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::ops;

/// The 16 values of nf4, quantiles of a normal distribution scaled to [-1, 1] (Dettmers et al. 2023,
/// arXiv:2305.14314, appendix E), as bitsandbytes has them in f32.
pub const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Its code for 0, with which rows are filled up.
const NF4_ZERO: u32 = 7;

/// The greatest block: more weights would share a scale that fits few of them.
const MOST: usize = 1024;

/// What the codes of a packed weight are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codes {
    /// 8 bits, two's complement: -127 to 127 as made here, -128 is read.
    Int8,
    /// 4 bits, two's complement: -7 to 7 as made here, -8 is read.
    Int4,
    /// 4 bits, an index into [`NF4`].
    Nf4,
}

impl Codes {
    /// Bits of one code.
    pub const fn bits(self) -> usize {
        match self {
            Codes::Int8 => 8,
            Codes::Int4 | Codes::Nf4 => 4,
        }
    }

    /// Codes in a word of 32 bits, the earliest in the lowest bits.
    pub const fn per_word(self) -> usize {
        32 / self.bits()
    }

    /// The word for it in recipes and on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Codes::Int8 => "int8",
            Codes::Int4 => "int4",
            Codes::Nf4 => "nf4",
        }
    }

    /// Weights that share a scale where nothing else is asked for: 32, and 64 for nf4 as in bitsandbytes.
    pub const fn default_block(self) -> usize {
        match self {
            Codes::Int8 | Codes::Int4 => 32,
            Codes::Nf4 => 64,
        }
    }

    /// The greatest distance of a weight from what its code stands for, in scales: half of the widest step.
    pub const fn greatest_error(self) -> f32 {
        match self {
            Codes::Int8 | Codes::Int4 => 0.5,
            Codes::Nf4 => (NF4[1] - NF4[0]) / 2.0,
        }
    }

    /// The greatest code that round-to-nearest gives; the scale of a block is its greatest weight by this.
    const fn reach(self) -> f32 {
        match self {
            Codes::Int8 => 127.0,
            Codes::Int4 => 7.0,
            Codes::Nf4 => 1.0,
        }
    }

    /// Ones in the bits of a code.
    pub(crate) const fn mask(self) -> u32 {
        u32::MAX >> (32 - self.bits())
    }

    /// The code that fills up a row.
    const fn filler(self) -> u32 {
        match self {
            Codes::Int8 | Codes::Int4 => 0,
            Codes::Nf4 => NF4_ZERO,
        }
    }
}

impl FromStr for Codes {
    type Err = PackedError;

    fn from_str(word: &str) -> Result<Self, PackedError> {
        let known = [Codes::Int8, Codes::Int4, Codes::Nf4].into_iter().find(|codes| codes.word() == word);
        known.ok_or_else(|| PackedError::Codes { word: word.chars().take(64).collect() })
    }
}

/// How a weight is packed: its codes, and how many of a row share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packing {
    codes: Codes,
    block: usize,
}

impl Packing {
    /// `block` weights, one after the other along the input, share a scale: a multiple of 8 (whole words), 1,024 at
    /// most. Usual are 32, 64 and 128.
    ///
    /// # Errors
    /// [`PackedError::Block`].
    pub const fn new(codes: Codes, block: usize) -> Result<Self, PackedError> {
        if block == 0 || !block.is_multiple_of(8) || block > MOST {
            return Err(PackedError::Block { block });
        }
        Ok(Self { codes, block })
    }

    /// With the usual block of these codes.
    pub const fn usual(codes: Codes) -> Self {
        Self { codes, block: codes.default_block() }
    }

    /// What the codes are.
    pub const fn codes(self) -> Codes {
        self.codes
    }

    /// Weights that share a scale.
    pub const fn block(self) -> usize {
        self.block
    }

    /// Blocks of a row of `input` weights; the last may be filled up with zeros.
    pub const fn blocks(self, input: usize) -> usize {
        input.div_ceil(self.block)
    }

    /// Words of a row of `input` weights.
    pub const fn words(self, input: usize) -> usize {
        self.blocks(input) * self.block / self.codes.per_word()
    }

    /// Bytes for each weight with f32 scales, where rows are whole blocks: int4 by 32 takes 0.625.
    pub const fn bytes_per_weight(self) -> f64 {
        self.codes.bits() as f64 / 8.0 + 4.0 / self.block as f64
    }
}

/// The shape of a packed weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedShape {
    /// Output channels.
    pub out: usize,
    /// Input channels.
    pub input: usize,
    /// Codes and block.
    pub packing: Packing,
}

impl PackedShape {
    /// Blocks of a row.
    pub const fn blocks(self) -> usize {
        self.packing.blocks(self.input)
    }

    /// Words of a row.
    pub const fn words(self) -> usize {
        self.packing.words(self.input)
    }
}

/// Why there is no packed weight.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackedError {
    /// No such codes.
    #[error("`{word}` is no packing; known are int8, int4 and nf4")]
    Codes {
        /// The word as given.
        word: String,
    },
    /// Words would be cut, or nothing shared.
    #[error("a block of {block} weights cannot be packed: it must be a multiple of 8, from 8 to 1024")]
    Block {
        /// The block as given.
        block: usize,
    },
    /// The parts do not belong together.
    #[error("a packed weight of this shape has {expected} {part}, not {found}")]
    Parts {
        /// Words, scales or zero points.
        part: &'static str,
        /// How many there must be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// A codebook has no zero point.
    #[error("nf4 codes stand for values of their own and take no zero points")]
    ZerosOfCodebook,
}

/// A weight `[out, in]` as codes with a scale for each block of a row.
///
/// | part | shape | holds |
/// |---|---|---|
/// | codes | `[out, words]`, u32 | 8 codes of 4 bits or 4 of 8 a word, along `in`, the earliest in the lowest bits |
/// | scales | `[out, blocks]`, f32 | one for each block; f16 and bf16 are read as well |
/// | zeros | `[out, blocks]`, as the scales | optional, in units of a code |
///
/// A weight is `(code - zero) * scale`, of nf4 `NF4[code] * scale`. Where `in` is no multiple of the block, the last
/// block of each row is filled up with codes that no one reads. Nothing here wants a gradient.
#[derive(Debug, Clone)]
pub struct Packed {
    codes_ou: Tensor<2, Int>,
    scales_ok: Tensor<2>,
    zeros_ok: Option<Tensor<2>>,
    shape: PackedShape,
}

/// A packed weight outside of any device: row by row, as in [`Packed`].
#[derive(Debug, Clone, PartialEq)]
pub struct PackedParts {
    /// Words of codes.
    pub words: Vec<u32>,
    /// One scale for each block.
    pub scales: Vec<f32>,
    /// One zero point for each block.
    pub zeros: Option<Vec<f32>>,
}

impl Packed {
    /// Rounds each weight to the nearest code: symmetric, without zero points, with the scale of a block such that its
    /// greatest weight has the greatest code. No weight moves by more than [`Codes::greatest_error`] scales. A block
    /// that holds a NaN or an infinity becomes NaN throughout, as a dense product would.
    ///
    /// The dense weight is read to the host; the packed one is put on its device.
    pub fn round(weight_oi: Tensor<2>, packing: Packing) -> Self {
        let device = weight_oi.device().without_autodiff();
        Self::round_data(weight_oi.without_autodiff().into_data(), packing, &device)
    }

    /// As [`Packed::round`], of weights on the host.
    pub(crate) fn round_data(weight_oi: TensorData, packing: Packing, device: &Device) -> Self {
        let [out, input] = weight_oi.shape().dims();
        let shape = PackedShape { out, input, packing };
        let values: Vec<f32> = weight_oi.iter::<f32>().collect();
        Self::on_device(PackedParts::round(&values, shape), shape, device)
    }

    /// From parts made elsewhere.
    ///
    /// # Errors
    /// [`PackedError::Parts`] when a part has not the length that the shape asks for,
    /// [`PackedError::ZerosOfCodebook`] for zero points of nf4.
    pub fn from_parts(parts: PackedParts, shape: PackedShape, device: &Device) -> Result<Self, PackedError> {
        let (words, blocks) = (shape.out * shape.words(), shape.out * shape.blocks());
        let zeros = parts.zeros.as_ref().map_or(blocks, Vec::len);
        for (part, expected, found) in [
            ("words of codes", words, parts.words.len()),
            ("scales", blocks, parts.scales.len()),
            ("zero points", blocks, zeros),
        ] {
            if expected != found {
                return Err(PackedError::Parts { part, expected, found });
            }
        }
        if parts.zeros.is_some() && shape.packing.codes == Codes::Nf4 {
            return Err(PackedError::ZerosOfCodebook);
        }
        Ok(Self::on_device(parts, shape, device))
    }

    fn on_device(parts: PackedParts, shape: PackedShape, device: &Device) -> Self {
        let (out, blocks) = (shape.out, shape.blocks());
        let by_block = |values| Tensor::from_data(TensorData::new(values, [out, blocks]), (device, DType::F32));
        let words = TensorData::new(parts.words, [out, shape.words()]);
        Self {
            codes_ou: Tensor::from_data(words, (device, DType::U32)),
            scales_ok: by_block(parts.scales),
            zeros_ok: parts.zeros.map(by_block),
            shape,
        }
    }

    /// The parts, read from the device.
    ///
    /// # Panics
    /// Panics when the device fails.
    pub fn parts(&self) -> PackedParts {
        let floats = |x: &Tensor<2>| x.clone().into_data().iter::<f32>().collect::<Vec<f32>>();
        PackedParts {
            words: self.codes_ou.clone().into_data().iter::<u32>().collect(),
            scales: floats(&self.scales_ok),
            zeros: self.zeros_ok.as_ref().map(floats),
        }
    }

    /// codes_ou, scales_ok and zeros_ok: handles, nothing is copied.
    pub fn tensors(&self) -> (Tensor<2, Int>, Tensor<2>, Option<Tensor<2>>) {
        (self.codes_ou.clone(), self.scales_ok.clone(), self.zeros_ok.clone())
    }

    /// The plain device that holds it.
    pub fn device(&self) -> Device {
        self.scales_ok.device()
    }

    /// Shape and packing.
    pub fn shape(&self) -> PackedShape {
        self.shape
    }

    /// The weight `[out, in]` that the codes stand for, in f32.
    pub fn dequantized(&self) -> Tensor<2> {
        ops::dequantize(self)
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        let by_block = |x: &Tensor<2>| x.dims().iter().product::<usize>() * x.dtype().size();
        let codes = self.codes_ou.dims().iter().product::<usize>() * 4;
        codes + by_block(&self.scales_ok) + self.zeros_ok.as_ref().map_or(0, by_block)
    }
}
