//! Root-mean-square normalization.
//!
//! Shapes: n rows, c channels. A matrix is a slice, row by row: element (i, j) of x_nc is `x_nc[i * c + j]`.

/// y_nc: each row of x_nc divided by its root mean square, then each channel multiplied by its gain.
///
/// The root mean square of a row is `sqrt(mean(x^2) + eps)`: `eps` stands inside the root, and keeps a row of zeros
/// from a division by zero. `c` is the length of `gain_c`.
pub fn rms_norm(x_nc: &[f32], gain_c: &[f32], eps: f32) -> Vec<f32> {
    todo!("normalize each row")
}

/// dx_nc: the gradient of a loss with respect to x_nc, given dy_nc, its gradient with respect to the output.
///
/// With `r` the root mean square of a row and `n_j = x_j / r`:
/// `dx_i = (g_i dy_i - n_i * mean over j of (g_j dy_j n_j)) / r`.
pub fn rms_norm_backward(x_nc: &[f32], gain_c: &[f32], dy_nc: &[f32], eps: f32) -> Vec<f32> {
    todo!("the two terms of the formula, row by row")
}
