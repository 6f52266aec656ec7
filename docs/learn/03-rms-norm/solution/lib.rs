//! Root-mean-square normalization.
//!
//! Shapes: n rows, c channels. A matrix is a slice, row by row: element (i, j) of x_nc is `x_nc[i * c + j]`.

/// y_nc: each row of x_nc divided by its root mean square, then each channel multiplied by its gain.
///
/// The root mean square of a row is `sqrt(mean(x^2) + eps)`: `eps` stands inside the root, and keeps a row of zeros
/// from a division by zero. `c` is the length of `gain_c`.
pub fn rms_norm(x_nc: &[f32], gain_c: &[f32], eps: f32) -> Vec<f32> {
    let c = gain_c.len();
    let mut y_nc = Vec::with_capacity(x_nc.len());
    for row_c in x_nc.chunks(c) {
        let r = rms(row_c, eps);
        y_nc.extend(row_c.iter().zip(gain_c).map(|(x, gain)| x / r * gain));
    }
    y_nc
}

/// dx_nc: the gradient of a loss with respect to x_nc, given dy_nc, its gradient with respect to the output.
///
/// With `r` the root mean square of a row and `n_j = x_j / r`:
/// `dx_i = (g_i dy_i - n_i * mean over j of (g_j dy_j n_j)) / r`.
pub fn rms_norm_backward(x_nc: &[f32], gain_c: &[f32], dy_nc: &[f32], eps: f32) -> Vec<f32> {
    let c = gain_c.len();
    let mut dx_nc = Vec::with_capacity(x_nc.len());
    for (x_c, dy_c) in x_nc.chunks(c).zip(dy_nc.chunks(c)) {
        let r = rms(x_c, eps);
        let mean = (0..c).map(|j| gain_c[j] * dy_c[j] * x_c[j] / r).sum::<f32>() / c as f32;
        dx_nc.extend((0..c).map(|i| (gain_c[i] * dy_c[i] - x_c[i] / r * mean) / r));
    }
    dx_nc
}

fn rms(row_c: &[f32], eps: f32) -> f32 {
    let mean_square = row_c.iter().map(|x| x * x).sum::<f32>() / row_c.len() as f32;
    (mean_square + eps).sqrt()
}
