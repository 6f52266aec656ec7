//! A weight in four bits, and the gradient that goes through it.
//!
//! Shapes: n rows (tokens), i inputs, o outputs. A matrix is a slice, row by row: element (j, k) of w_oi is
//! `w_oi[j * i + k]`.

/// Inputs that share a scale.
pub const BLOCK: usize = 32;
/// Codes in a word.
pub const PER_WORD: usize = 8;

/// A matrix of four-bit codes.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    /// i, a multiple of the block.
    pub inputs: usize,
    /// Eight codes a word along the inputs, the one of the lowest input in the lowest four bits; a row of the matrix has
    /// i / 8 words.
    pub words: Vec<u32>,
    /// One for each block of a row; a row has i / 32 of them.
    pub scales: Vec<f32>,
}

/// Rounds to the nearest code. The scale of a block is its greatest absolute value / 7, and a code is weight / scale,
/// rounded, from -7 to 7; in its four bits it stands as two's complement (-1 is 15). A block of zeros has scale 0 and
/// codes 0.
pub fn quantize(w_oi: &[f32], inputs: usize) -> Packed {
    todo!("a scale for each block, codes, and eight of them in a word")
}

/// The weight that the codes stand for: code x scale.
pub fn dequantize(packed: &Packed) -> Vec<f32> {
    todo!("four bits, their sign, times the scale")
}

/// y_no = x W^T with the weight that the codes stand for.
pub fn forward(x_ni: &[f32], packed: &Packed) -> Vec<f32> {
    todo!("x times the weight, transposed")
}

/// dx_ni = dy W. The codes are integers and get no gradient; x gets one, or nothing below the layer would learn.
pub fn backward(dy_no: &[f32], packed: &Packed) -> Vec<f32> {
    todo!("dy times the weight")
}
