//! Root-mean-square normalization (Zhang and Sennrich 2019, arXiv:1910.07467).

use burn::backend::{
    Backend, Dispatch, TensorMetadata,
    autodiff::{
        Autodiff,
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::FloatTensor,
};
use burn::tensor::{Shape, Tensor};

use super::{LlmOps, assert_same_dtype, cast, to_f32};

/// `y_nc = x_nc / sqrt(mean(x_nc^2) + eps) * gain_c` over the last dimension, normalized in f32 and scaled
/// in the dtype of `x`, as transformers does. Both operands must have one dtype.
pub fn rms_norm(x_nc: Tensor<2>, gain_c: Tensor<1>, eps: f32) -> Tensor<2> {
    assert_same_dtype("rms_norm", x_nc.dtype(), gain_c.dtype());
    Tensor::from_dispatch(<Dispatch as LlmOps>::rms_norm(x_nc.into_dispatch(), gain_c.into_dispatch(), eps))
}

pub(super) fn forward<B: Backend>(x: FloatTensor<B>, gain: FloatTensor<B>, eps: f32) -> FloatTensor<B> {
    let dtype = x.dtype();
    let (x_hat, _) = normalize::<B>(to_f32::<B>(x), eps);
    B::float_mul(cast::<B>(x_hat, dtype), as_row::<B>(gain))
}

/// dx = (g dy - x_hat mean(g dy x_hat)) / rms, dgain = sum over rows of dy x_hat.
pub(super) fn backward<B: Backend>(
    x: FloatTensor<B>,
    gain: FloatTensor<B>,
    dy: FloatTensor<B>,
    eps: f32,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (x_dtype, gain_dtype, gain_shape) = (x.dtype(), gain.dtype(), gain.shape());
    let (x_hat, inverse) = normalize::<B>(to_f32::<B>(x), eps);
    let dy = to_f32::<B>(dy);
    let dgain = B::float_sum_dim(B::float_mul(dy.clone(), x_hat.clone()), 0);
    let gdy = B::float_mul(dy, as_row::<B>(to_f32::<B>(gain)));
    let projection = B::float_mean_dim(B::float_mul(gdy.clone(), x_hat.clone()), 1);
    let dx = B::float_mul(B::float_sub(gdy, B::float_mul(x_hat, projection)), inverse);
    (cast::<B>(dx, x_dtype), cast::<B>(B::float_reshape(dgain, gain_shape), gain_dtype))
}

/// x (f32) -> (x / rms, 1 / rms).
fn normalize<B: Backend>(x: FloatTensor<B>, eps: f32) -> (FloatTensor<B>, FloatTensor<B>) {
    let mean_square = B::float_mean_dim(B::float_mul(x.clone(), x.clone()), 1);
    let inverse = B::float_recip(B::float_sqrt(B::float_add_scalar(mean_square, eps.into())));
    (B::float_mul(x, inverse.clone()), inverse)
}

fn as_row<B: Backend>(gain: FloatTensor<B>) -> FloatTensor<B> {
    let shape = Shape::new([1, gain.shape()[0]]);
    B::float_reshape(gain, shape)
}

pub(super) fn tracked<B: LlmOps, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    gain: FloatTensor<Autodiff<B, C>>,
    eps: f32,
) -> FloatTensor<Autodiff<B, C>> {
    #[derive(Debug)]
    struct RmsNorm;
    impl<B: LlmOps> Backward<B, 2> for RmsNorm {
        type State = (FloatTensor<B>, FloatTensor<B>, f32);

        fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
            let (x, gain, eps) = ops.state;
            let dy = grads.consume::<B>(&ops.node);
            let (dx, dgain) = B::rms_norm_backward(x, gain, dy, eps);
            let [x_parent, gain_parent] = ops.parents;
            if let Some(parent) = x_parent {
                grads.register::<B>(parent.id, dx);
            }
            if let Some(parent) = gain_parent {
                grads.register::<B>(parent.id, dgain);
            }
        }
    }
    match RmsNorm.prepare::<C>([x.node(), gain.node()]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let (x, gain) = (x.into_primitive(), gain.into_primitive());
            let y = B::rms_norm(x.clone(), gain.clone(), eps);
            prep.finish((x, gain, eps), y)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::rms_norm(x.into_primitive(), gain.into_primitive(), eps)),
    }
}
