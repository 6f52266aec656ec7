//! One update of AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101), with the arithmetic of
//! torch.optim.AdamW.

use burn::backend::{Backend, Dispatch, tensor::FloatTensor};
use burn::tensor::Tensor;

use super::LlmOps;

/// The numbers of one update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// What the gradient is multiplied with: one over the weight of a summed loss, clipping.
    pub gradient_scale: f64,
    /// Learning rate.
    pub lr: f64,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the mean square.
    pub eps: f64,
    /// What the parameter is multiplied with first: 1 - lr * weight decay, or 1.
    pub decay: f64,
    /// 1 - beta1^updates.
    pub correction1: f64,
    /// 1 - beta2^updates.
    pub correction2: f64,
}

/// p_n, gradient_n, mean_n, square_n -> the same after one update: `p = decay p - lr (m / c1) / (sqrt(v /
/// c2) + eps)`. In place on the processor, for tensors that no one else holds.
pub fn adamw_step(
    p_n: Tensor<1>,
    gradient_n: Tensor<1>,
    mean_n: Tensor<1>,
    square_n: Tensor<1>,
    step: AdamWStep,
) -> [Tensor<1>; 3] {
    let (p, mean, square) = <Dispatch as LlmOps>::adamw_step(
        p_n.into_dispatch(),
        gradient_n.into_dispatch(),
        mean_n.into_dispatch(),
        square_n.into_dispatch(),
        step,
    );
    [p, mean, square].map(Tensor::from_dispatch)
}

pub(super) fn step<B: Backend>(
    p: FloatTensor<B>,
    gradient: FloatTensor<B>,
    mean: FloatTensor<B>,
    square: FloatTensor<B>,
    step: AdamWStep,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let AdamWStep { lr, beta1, beta2, eps, .. } = step;
    let times = |x: FloatTensor<B>, factor: f64| B::float_mul_scalar(x, factor.into());
    let gradient = times(gradient, step.gradient_scale);
    let mean = B::float_add(times(mean, beta1), times(gradient.clone(), 1.0 - beta1));
    let gradient_square = B::float_mul(gradient.clone(), gradient);
    let square = B::float_add(times(square, beta2), times(gradient_square, 1.0 - beta2));
    let root = B::float_div_scalar(B::float_sqrt(square.clone()), step.correction2.sqrt().into());
    let change = B::float_div(mean.clone(), B::float_add_scalar(root, eps.into()));
    let p = times(p, step.decay);
    (B::float_sub(p, times(change, lr / step.correction1)), mean, square)
}
