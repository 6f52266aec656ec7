//! AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101).

use burn::tensor::Tensor;
use fornax_model::ops::{self, AdamWStep};

/// Running means of a parameter's gradient and of its square, n elements each.
#[derive(Debug, Clone)]
pub(super) struct Moments {
    pub(super) mean_n: Tensor<1>,
    pub(super) square_n: Tensor<1>,
}

/// Names of the two in a checkpoint; PyTorch's.
pub(super) const NAMES: [&str; 2] = ["exp_avg", "exp_avg_sq"];

/// What one update depends on besides tensors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) lr: f64,
    pub(super) beta1: f64,
    pub(super) beta2: f64,
    pub(super) eps: f64,
    /// Updates so far, this one included; the bias corrections depend on it.
    pub(super) updates: u64,
    /// What the values are multiplied by before the update: `1 - lr * weight_decay`, or 1.
    pub(super) decay: f64,
}

impl Moments {
    pub(super) fn zeros(like_n: &Tensor<1>) -> Self {
        Self { mean_n: like_n.zeros_like(), square_n: like_n.zeros_like() }
    }
}

/// `p = decay p - lr (m / c1) / (sqrt(v / c2) + eps)` with the moments m and v moved on to this gradient times
/// `scale`, and c1, c2 their bias corrections. The arithmetic is torch.optim.AdamW's.
pub(super) fn step(
    values_n: Tensor<1>,
    gradient_n: Tensor<1>,
    scale: f64,
    moments: Moments,
    settings: Settings,
) -> (Tensor<1>, Moments) {
    let Settings { lr, beta1, beta2, eps, updates, decay } = settings;
    let steps = updates as i32;
    let (correction1, correction2) = (1.0 - beta1.powi(steps), 1.0 - beta2.powi(steps));
    let step = AdamWStep { gradient_scale: scale, lr, beta1, beta2, eps, decay, correction1, correction2 };
    let [values_n, mean_n, square_n] =
        ops::adamw_step(values_n, gradient_n, moments.mean_n, moments.square_n, step);
    (values_n, Moments { mean_n, square_n })
}
