//! Rotary position embedding, in the rotate-half form of GPT-NeoX and Llama.
//!
//! Shapes: t tokens, d channels of one head, k = d / 2 pairs. A matrix is a slice, row by row: element (i, j) of x_td
//! is `x_td[i * d + j]`.

/// The angle by which each pair turns from one position to the next: `theta^(-2i / d)` for pair i of d / 2.
pub fn inverse_frequencies(theta: f32, d: usize) -> Vec<f32> {
    todo!("one number for each pair")
}

/// x_td with each row turned by its position: row i stands at `positions_t[i]`.
///
/// Pair i of a row is (x_i, x_(i + d/2)): channel i goes with the one half a head further, not with its neighbour. A
/// pair (a, b) at angle `position * inverse_frequency_i` becomes (a cos - b sin, b cos + a sin).
pub fn rope(x_td: &[f32], positions_t: &[u32], theta: f32, d: usize) -> Vec<f32> {
    todo!("turn each pair of each row")
}
