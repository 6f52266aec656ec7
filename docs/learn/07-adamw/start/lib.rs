//! One update of AdamW.
//!
//! Shapes: n elements of one parameter.

/// The settings.
#[derive(Clone, Copy)]
pub struct Settings {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the corrected mean of squares.
    pub eps: f64,
    /// Share of the parameter that is taken away, times the learning rate. 0 for vectors.
    pub weight_decay: f64,
}

/// Changes `parameter_n` and its two running means in place. `update` counts from 1; before it, both means are 0.
///
/// - `mean = beta1 mean + (1 - beta1) gradient`, and `square` likewise with beta2 and the squared gradient.
/// - Both are corrected for their start at 0: divided by `1 - beta1^update` and `1 - beta2^update`. What is stored is
///   not corrected.
/// - The parameter is multiplied by `1 - lr * weight_decay`, then `lr * mean / (sqrt(square) + eps)` is subtracted, with
///   the corrected means.
pub fn adamw(
    parameter_n: &mut [f32],
    mean_n: &mut [f32],
    square_n: &mut [f32],
    gradient_n: &[f32],
    update: u32,
    settings: Settings,
) {
    todo!("the three rules, element by element")
}
