//! Packed weights: a linear layer's matrix in 8 or 4 bits for each weight, what its codes mean, and how
//! round-to-nearest makes them. The layout is that of the decode kernels of cubek 0.3.1 (`quant_gemv`).
//!
//! Shapes: o output channels, i input channels, k blocks of a row (i / block, rounded up), u words of a row.

use std::str::FromStr;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use rayon::prelude::*;

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

    /// The code, in the lowest bits, that stands for x; x is a weight by its scale.
    fn nearest(self, x: f32) -> u32 {
        match self {
            Codes::Nf4 => {
                let above = |pair: &&[f32]| x > (pair[0] + pair[1]) / 2.0;
                NF4.windows(2).take_while(above).count() as u32
            }
            // A cast of not-a-number gives 0.
            _ => x.round_ties_even().clamp(-self.reach(), self.reach()) as i32 as u32 & self.mask(),
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

impl PackedParts {
    /// Rounds weights `[out, in]` to the nearest codes; see [`Packed::round`].
    ///
    /// # Panics
    /// Panics when there are not as many weights as the shape says.
    pub fn round(weights: &[f32], shape: PackedShape) -> Self {
        let PackedShape { out, input, packing } = shape;
        assert!(weights.len() == out * input, "{} weights for {out} x {input}", weights.len());
        let (blocks, words) = (shape.blocks(), packing.block / packing.codes.per_word());
        let mut parts = Self { words: vec![0; out * shape.words()], scales: vec![0.0; out * blocks], zeros: None };
        let rows = weights.par_chunks(input.max(1));
        let scales = parts.scales.par_chunks_mut(blocks.max(1));
        parts.words.par_chunks_mut(shape.words().max(1)).zip(scales).zip(rows).for_each(
            |((codes, scales), row)| {
                let blocks = row.chunks(packing.block).zip(codes.chunks_exact_mut(words)).zip(scales);
                blocks.for_each(|((block, words), scale)| *scale = round_block(block, packing.codes, words));
            },
        );
        parts
    }
}

/// Writes the codes of a block that is not longer than its words, and gives the scale.
fn round_block(block: &[f32], codes: Codes, words: &mut [u32]) -> f32 {
    let scale = match block.iter().all(|w| w.is_finite()) {
        true => scale(block.iter().fold(0.0, |greatest: f32, w| greatest.max(w.abs())), codes),
        false => f32::NAN,
    };
    // Of a block of zeros every quotient would be not-a-number, where the code must be that of 0.
    let code = |w: &f32| if *w == 0.0 { codes.filler() } else { codes.nearest(w / scale) };
    for (i, word) in words.iter_mut().enumerate() {
        let field = |j: usize| block.get(i * codes.per_word() + j).map_or(codes.filler(), code);
        *word = (0..codes.per_word()).fold(0, |word, j| word | field(j) << (j * codes.bits()));
    }
    scale
}

/// The scale by which `greatest` has the greatest code.
fn scale(greatest: f32, codes: Codes) -> f32 {
    let scale = greatest / codes.reach();
    // The quotient of the least numbers would be 0, and no code could stand for them.
    if scale == 0.0 && greatest > 0.0 { f32::from_bits(1) } else { scale }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shape(out: usize, input: usize, codes: Codes, block: usize) -> PackedShape {
        PackedShape { out, input, packing: Packing::new(codes, block).unwrap() }
    }

    /// What a code in the lowest bits of `field` stands for, written apart from the ops.
    fn value(codes: Codes, field: u32) -> f64 {
        match codes {
            Codes::Int8 => f64::from(field as u8 as i8),
            Codes::Int4 => f64::from(if field > 7 { field as i32 - 16 } else { field as i32 }),
            Codes::Nf4 => f64::from(NF4[field as usize]),
        }
    }

    #[test]
    fn four_bits_by_hand() {
        // Greatest 3.5: scale 0.5. -1.25 / 0.5 = -2.5 goes to the even -2; 0.25 / 0.5 to 0.
        let weights = [3.5, -3.5, 0.5, -0.5, 1.0, 0.0, -1.25, 0.25];
        let parts = PackedParts::round(&weights, shape(1, 8, Codes::Int4, 8));
        // Codes 7, -7, 1, -1, 2, 0, -2, 0 from the lowest bits: 7, 9, 1, f, 2, 0, e, 0.
        assert_eq!(parts, PackedParts { words: vec![0x0e02_f197], scales: vec![0.5], zeros: None });
    }

    #[test]
    fn eight_bits_by_hand() {
        let weights = [127.0, -127.0, 1.0, -1.0, 0.0, 2.4, -2.6, 64.0];
        let parts = PackedParts::round(&weights, shape(1, 8, Codes::Int8, 8));
        // 127, -127, 1, -1 are 7f, 81, 01, ff; 0, 2, -3, 64 are 00, 02, fd, 40.
        assert_eq!(parts, PackedParts { words: vec![0xff01_817f, 0x40fd_0200], scales: vec![1.0], zeros: None });
    }

    #[test]
    fn nf4_by_hand() {
        let weights = [2.0, -2.0, 0.0, 0.16, -0.18, 1.2, -1.3, 0.079];
        let parts = PackedParts::round(&weights, shape(1, 8, Codes::Nf4, 8));
        // By the scale 2: 1, -1, 0, 0.08, -0.09, 0.6, -0.65, 0.0395; the last lies below 0.0398, halfway to 0.0796.
        assert_eq!(parts, PackedParts { words: vec![0x71d6_870f], scales: vec![2.0], zeros: None });
    }

    #[test]
    fn a_row_that_is_no_whole_block_is_filled_up() {
        let int4 = PackedParts::round(&[1.0, 7.0, -7.0], shape(1, 3, Codes::Int4, 16));
        assert_eq!(int4, PackedParts { words: vec![0x971, 0], scales: vec![1.0], zeros: None });
        let nf4 = PackedParts::round(&[1.0, -1.0, 0.0], shape(1, 3, Codes::Nf4, 8));
        assert_eq!(nf4, PackedParts { words: vec![0x7777_770f], scales: vec![1.0], zeros: None });
        // Two rows of nine: each row begins in a word of its own.
        let rows = PackedParts::round(&[7.0; 18], shape(2, 9, Codes::Int4, 8));
        assert_eq!(rows.words, [0x7777_7777, 7, 0x7777_7777, 7]);
        assert_eq!(rows.scales, [1.0; 4]);
    }

    #[test]
    fn zeros_the_least_numbers_and_what_is_not_finite() {
        for codes in [Codes::Int8, Codes::Int4, Codes::Nf4] {
            let shape = shape(1, 24, codes, 8);
            let mut weights = [0.0f32; 24];
            (weights[8], weights[20]) = (f32::from_bits(1), f32::INFINITY);
            let parts = PackedParts::round(&weights, shape);
            assert_eq!(parts.scales[..2], [0.0, f32::from_bits(1)]);
            assert!(parts.scales[2].is_nan());
            let per_block = 8 / codes.per_word();
            let field = |i: usize| parts.words[per_block + i / codes.per_word()] >> (i * codes.bits() % 32);
            assert_eq!(value(codes, field(0) & codes.mask()), 1.0, "{codes:?}");
            assert_eq!(value(codes, field(1) & codes.mask()), 0.0, "{codes:?}");
        }
    }

    #[test]
    fn what_cannot_be_packed_is_refused_with_both_numbers() {
        for block in [0, 4, 12, 33, 2048] {
            let error = Packing::new(Codes::Int4, block).unwrap_err();
            assert!(error.to_string().contains(&format!("block of {block} ")), "{error}");
        }
        assert_eq!("nf4".parse(), Ok(Codes::Nf4));
        assert_eq!("int5".parse::<Codes>(), Err(PackedError::Codes { word: "int5".into() }));
        let shape = shape(2, 20, Codes::Int8, 16);
        let good = PackedParts { words: vec![0; 16], scales: vec![1.0; 4], zeros: Some(vec![0.0; 4]) };
        let device = Device::flex();
        assert_eq!(Packed::from_parts(good.clone(), shape, &device).unwrap().parts(), good);
        let refused = |change: fn(&mut PackedParts), part, expected, found| {
            let mut parts = good.clone();
            change(&mut parts);
            let error = Packed::from_parts(parts, shape, &device).unwrap_err();
            assert_eq!(error, PackedError::Parts { part, expected, found });
        };
        refused(|parts| parts.words.truncate(15), "words of codes", 16, 15);
        refused(|parts| parts.scales.push(0.0), "scales", 4, 5);
        refused(|parts| parts.zeros = Some(vec![]), "zero points", 4, 0);
        let shape = self::shape(2, 20, Codes::Nf4, 16);
        let parts = PackedParts { words: vec![0; 8], ..good.clone() };
        assert_eq!(Packed::from_parts(parts, shape, &device).unwrap_err(), PackedError::ZerosOfCodebook);
    }

    #[test]
    fn bytes_are_those_of_the_layout() {
        let weight = Tensor::<2>::ones([6, 64], (&Device::flex(), DType::F32));
        for (codes, block, per_weight) in [
            (Codes::Int8, 32, 1.125),
            (Codes::Int8, 128, 1.03125),
            (Codes::Int4, 32, 0.625),
            (Codes::Nf4, 64, 0.5625),
        ] {
            let packing = Packing::new(codes, block).unwrap();
            assert_eq!(packing.bytes_per_weight(), per_weight);
            if block <= 64 {
                assert_eq!(Packed::round(weight.clone(), packing).bytes() as f64, 384.0 * per_weight);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Whatever the weights, none moves by more than the promise, up to the rounding of f32.
        #[test]
        fn no_weight_moves_far(
            rows in 1usize..4,
            input in 1usize..70,
            block in 1usize..5,
            codes in prop_oneof![Just(Codes::Int8), Just(Codes::Int4), Just(Codes::Nf4)],
            seed in any::<u64>(),
            size in -40i32..38,
        ) {
            let mut random = fornax_base::rng::rng(seed, 0, "weights");
            let weights: Vec<f32> = (0..rows * input).map(|_| random.normal_f32() * 10f32.powi(size)).collect();
            let shape = shape(rows, input, codes, block * 8);
            let parts = PackedParts::round(&weights, shape);
            let packed = Packed::from_parts(parts.clone(), shape, &Device::flex()).unwrap();
            let read = packed.dequantized().into_data().iter::<f32>().collect::<Vec<_>>();
            for (at, (&w, &read)) in weights.iter().zip(&read).enumerate() {
                let (row, i) = (at / input, at % input);
                let scale = f64::from(parts.scales[row * shape.blocks() + i / (block * 8)]);
                let word = parts.words[row * shape.words() + i / codes.per_word()];
                let stands_for = value(codes, word >> (i * codes.bits() % 32) & codes.mask()) * scale;
                let least = f64::from(f32::from_bits(1));
                prop_assert!((f64::from(read) - stands_for).abs() <= 1e-6 * stands_for.abs() + least);
                let moved = (f64::from(w) - f64::from(read)).abs();
                let bound = f64::from(codes.greatest_error()) * scale;
                prop_assert!(moved <= bound + 1e-6 * f64::from(w).abs() + least, "{w} became {read}, scale {scale}");
            }
        }
    }
}
