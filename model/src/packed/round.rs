//! Round to nearest: the codes of a weight, without any data.

use rayon::prelude::*;

use super::{Codes, NF4, PackedParts, PackedShape};

impl Codes {
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
}

impl PackedParts {
    /// Rounds weights `[out, in]` to the nearest codes; see [`super::Packed::round`].
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
