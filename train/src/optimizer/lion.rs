//! Lion (Chen et al. 2023, arXiv:2302.06675): the sign of an interpolated mean; every element moves by the
//! same amount, and one tensor of state is kept where AdamW keeps two.

use burn::tensor::Tensor;

/// Name of the mean in a checkpoint; that of `lion-pytorch`.
pub(super) const NAME: &str = "exp_avg";

/// What one update depends on besides tensors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) lr: f64,
    /// Share of the mean in the direction of this update.
    pub(super) beta1: f64,
    /// Decay of the mean.
    pub(super) beta2: f64,
    /// What the values are multiplied by before the update: `1 - lr * weight_decay`, or 1.
    pub(super) decay: f64,
}

/// `p = decay p - lr sign(beta1 m + (1 - beta1) g)`, then `m = beta2 m + (1 - beta2) g`: -> (p, m). An element
/// whose direction is zero stays.
pub(super) fn step(
    values_n: Tensor<1>,
    gradient_n: Tensor<1>,
    mean_n: Tensor<1>,
    settings: Settings,
) -> (Tensor<1>, Tensor<1>) {
    let Settings { lr, beta1, beta2, decay } = settings;
    let direction_n = (mean_n.clone() * beta1 + gradient_n.clone() * (1.0 - beta1)).sign();
    let mean_n = mean_n * beta2 + gradient_n * (1.0 - beta2);
    (super::decayed(values_n, decay) - direction_n * lr, mean_n)
}
