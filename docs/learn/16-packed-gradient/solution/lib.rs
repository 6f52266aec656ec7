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
    let (mut words, mut scales) = (Vec::new(), Vec::new());
    for block in w_oi.chunks(BLOCK) {
        let scale = block.iter().fold(0.0f32, |most, w| most.max(w.abs())) / 7.0;
        scales.push(scale);
        for eight in block.chunks(PER_WORD) {
            let mut word = 0;
            for (k, w) in eight.iter().enumerate() {
                let code = if scale == 0.0 { 0 } else { (w / scale).round() as i32 };
                word |= (code as u32 & 15) << (4 * k);
            }
            words.push(word);
        }
    }
    Packed { inputs, words, scales }
}

/// The weight that the codes stand for: code x scale.
pub fn dequantize(packed: &Packed) -> Vec<f32> {
    let weight = |at: usize| {
        let bits = packed.words[at / PER_WORD] >> (4 * (at % PER_WORD)) & 15;
        let code = if bits < 8 { bits as i32 } else { bits as i32 - 16 };
        code as f32 * packed.scales[at / BLOCK]
    };
    (0..packed.words.len() * PER_WORD).map(weight).collect()
}

/// y_no = x W^T with the weight that the codes stand for.
pub fn forward(x_ni: &[f32], packed: &Packed) -> Vec<f32> {
    let (w_oi, i) = (dequantize(packed), packed.inputs);
    let dot = |x_i: &[f32], w_i: &[f32]| x_i.iter().zip(w_i).map(|(x, w)| x * w).sum();
    x_ni.chunks(i).flat_map(|x_i| w_oi.chunks(i).map(|w_i| dot(x_i, w_i)).collect::<Vec<f32>>()).collect()
}

/// dx_ni = dy W. The codes are integers and get no gradient; x gets one, or nothing below the layer would learn.
pub fn backward(dy_no: &[f32], packed: &Packed) -> Vec<f32> {
    let (w_oi, i) = (dequantize(packed), packed.inputs);
    let mut dx_ni = Vec::new();
    for dy_o in dy_no.chunks(w_oi.len() / i) {
        let mut dx_i = vec![0.0; i];
        for (dy, w_i) in dy_o.iter().zip(w_oi.chunks(i)) {
            for (dx, w) in dx_i.iter_mut().zip(w_i) {
                *dx += dy * w;
            }
        }
        dx_ni.extend(dx_i);
    }
    dx_ni
}
