//! Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): the momentum of a hidden matrix, made nearly
//! orthogonal, so that all directions of a step are about equally large. The arithmetic is torch.optim.Muon's.
//!
//! Shapes: r rows (outputs), c columns (inputs), m = min(r, c), n = r c.

use burn::tensor::{DType, Tensor};
use fornax_model::ops;

use crate::recipe::AdjustLr;

/// Name of the momentum in a checkpoint; PyTorch's.
pub(super) const NAME: &str = "momentum_buffer";

/// Coefficients of the quintic: they maximize the slope at zero, at the price that singular values end
/// between about 0.7 and 1.2 instead of at 1.
const QUINTIC: [f64; 3] = [3.4445, -4.7750, 2.0315];
/// Smallest norm that is divided by.
const EPS: f64 = 1e-7;

/// What one update depends on besides tensors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) lr: f64,
    pub(super) momentum: f64,
    pub(super) nesterov: bool,
    pub(super) ns_steps: u32,
    /// Dtype of the products of the Newton-Schulz iteration.
    pub(super) dtype: DType,
    pub(super) adjust: AdjustLr,
    /// What the values are multiplied by before the update: `1 - lr * weight_decay`, or 1.
    pub(super) decay: f64,
}

/// Moves the momentum on to this gradient and the values against its orthogonalized direction: -> (values_n,
/// momentum_n) of a matrix of `[r, c]`. Nothing is read back from the device.
pub(super) fn step(
    values_n: Tensor<1>,
    gradient_n: Tensor<1>,
    momentum_n: Tensor<1>,
    [r, c]: [usize; 2],
    settings: Settings,
) -> (Tensor<1>, Tensor<1>) {
    let Settings { lr, momentum, nesterov, ns_steps, dtype, adjust, decay } = settings;
    let momentum_n = lerp(momentum_n, gradient_n.clone(), 1.0 - momentum);
    let direction_n = if nesterov { lerp(gradient_n, momentum_n.clone(), momentum) } else { momentum_n.clone() };
    let direction_rc = orthogonalized(direction_n.reshape([r, c]), ns_steps, dtype);
    let change_n = direction_rc.reshape([r * c]).cast(values_n.dtype()) * (lr * factor(adjust, r, c));
    (super::decayed(values_n, decay) - change_n, momentum_n)
}

/// `from + share (to - from)`, in the form in which torch rounds it.
fn lerp(from: Tensor<1>, to: Tensor<1>, share: f64) -> Tensor<1> {
    let difference = to.clone() - from.clone();
    if share < 0.5 { from + difference * share } else { to - difference * (1.0 - share) }
}

/// What the rate of a matrix of r outputs and c inputs is multiplied by.
fn factor(adjust: AdjustLr, r: usize, c: usize) -> f64 {
    let (r, c) = (r as f64, c as f64);
    match adjust {
        AdjustLr::Original => (r / c).max(1.0).sqrt(),
        AdjustLr::MatchRmsAdamw => 0.2 * r.max(c).sqrt(),
    }
}

/// The matrix with its singular vectors kept and its singular values pushed towards 1: `steps` rounds of
/// `X <- a X + (b G + c G^2) X` with `G = X X^T`, from X of norm 1 and on its shorter side (Newton-Schulz).
///
/// In `dtype` are the operands and results of the products; their sums, and the polynomial, are in f32.
fn orthogonalized(matrix_rc: Tensor<2>, steps: u32, dtype: DType) -> Tensor<2> {
    let [r, c] = matrix_rc.dims();
    let rounded = |x: Tensor<2>| x.cast(dtype);
    let matrix_rc = rounded(matrix_rc);
    let norm = ops::square_sum(matrix_rc.clone().cast(DType::F32).reshape([r * c])).sqrt();
    let norm = rounded(norm.reshape([1, 1])).cast(DType::F32).clamp_min(EPS);
    let mut x = rounded(matrix_rc.cast(DType::F32) / norm);
    if r > c {
        x = x.transpose();
    }
    let full = |x: Tensor<2>| x.cast(DType::F32);
    let [linear, cubic, quintic] = QUINTIC;
    for _ in 0..steps {
        let gram_mm = x.clone().matmul(x.clone().transpose());
        let square_mm = gram_mm.clone().matmul(gram_mm.clone());
        let polynomial_mm = rounded(full(gram_mm) * cubic + full(square_mm) * quintic);
        x = rounded(full(x.clone()) * linear + full(polynomial_mm.matmul(x)));
    }
    if r > c { full(x).transpose() } else { full(x) }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};
    use fornax_base::rng::rng;

    use super::*;

    fn matrix(values: &[f32], shape: [usize; 2]) -> Tensor<2> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
    }

    fn values(tensor: Tensor<2>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    /// A matrix of one row has one singular value: the polynomial can be followed by hand.
    #[test]
    fn a_row_follows_the_quintic() {
        let mut expected = 1.0f64;
        for _ in 0..5 {
            let x = expected;
            expected = 3.4445 * x - 4.7750 * x.powi(3) + 2.0315 * x.powi(5);
        }
        for (shape, steps, size) in [([1, 2], 5, expected), ([2, 1], 5, expected), ([1, 2], 1, 0.701)] {
            let found = values(orthogonalized(matrix(&[30.0, -40.0], shape), steps, DType::F32));
            for (found, share) in found.iter().zip([0.6, -0.8]) {
                assert!((f64::from(*found) - share * size).abs() < 1e-5, "{found} against {}", share * size);
            }
        }
    }

    /// Random matrices on both sides of square. Squared singular values in [0.4, 1.6] (the post: values of about
    /// 0.7 to 1.2) keep X X^T within 0.6 sqrt(m) of the identity; the matrix that is only normalized is farther.
    #[test]
    fn singular_values_are_pushed_towards_one() {
        let m = 7;
        let away = |x: Tensor<2>| {
            let x = if x.dims()[0] > m { x.transpose() } else { x };
            let gram = values(x.clone().matmul(x.transpose()));
            let identity = |i: usize| if i.is_multiple_of(m + 1) { 1.0 } else { 0.0 };
            let squares = gram.iter().enumerate().map(|(i, g)| (g - identity(i)).powi(2));
            squares.sum::<f32>().sqrt() / (m as f32).sqrt()
        };
        for (shape, dtype) in [([m, 33], DType::F32), ([33, m], DType::F32), ([m, 33], DType::BF16)] {
            let mut random = rng(3, 0, "muon");
            let data: Vec<f32> = (0..m * 33).map(|_| random.normal_f32()).collect();
            let [normalized, made] = [0, 5].map(|steps| away(orthogonalized(matrix(&data, shape), steps, dtype)));
            assert!(made < 0.6 && normalized > 0.8, "{shape:?}: {made}, normalized {normalized}");
        }
    }

    #[test]
    fn a_matrix_of_zeros_stays() {
        let found = values(orthogonalized(matrix(&[0.0; 6], [2, 3]), 5, DType::F32));
        assert_eq!(found, [0.0; 6]);
    }

    #[test]
    fn rates_follow_the_shape_as_in_torch() {
        assert_eq!(factor(AdjustLr::Original, 8, 2), 2.0);
        assert_eq!(factor(AdjustLr::Original, 2, 8), 1.0);
        assert_eq!(factor(AdjustLr::MatchRmsAdamw, 4, 25), 1.0);
        assert_eq!(factor(AdjustLr::MatchRmsAdamw, 25, 4), 1.0);
    }
}
