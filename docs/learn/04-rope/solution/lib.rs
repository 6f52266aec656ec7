//! Rotary position embedding, in the rotate-half form of GPT-NeoX and Llama.
//!
//! Shapes: t tokens, d channels of one head, k = d / 2 pairs. A matrix is a slice, row by row: element (i, j) of x_td
//! is `x_td[i * d + j]`.

/// The angle by which each pair turns from one position to the next: `theta^(-2i / d)` for pair i of d / 2.
pub fn inverse_frequencies(theta: f32, d: usize) -> Vec<f32> {
    (0..d / 2).map(|i| 1.0 / theta.powf((2 * i) as f32 / d as f32)).collect()
}

/// x_td with each row turned by its position: row i stands at `positions_t[i]`.
///
/// Pair i of a row is (x_i, x_(i + d/2)): channel i goes with the one half a head further, not with its neighbour. A
/// pair (a, b) at angle `position * inverse_frequency_i` becomes (a cos - b sin, b cos + a sin).
pub fn rope(x_td: &[f32], positions_t: &[u32], theta: f32, d: usize) -> Vec<f32> {
    let (inverse_k, half) = (inverse_frequencies(theta, d), d / 2);
    let mut y_td = x_td.to_vec();
    for (row, &position) in y_td.chunks_mut(d).zip(positions_t) {
        for i in 0..half {
            let (sin, cos) = (position as f32 * inverse_k[i]).sin_cos();
            let (a, b) = (row[i], row[i + half]);
            row[i] = a * cos - b * sin;
            row[i + half] = b * cos + a * sin;
        }
    }
    y_td
}
