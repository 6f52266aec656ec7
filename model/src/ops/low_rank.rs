//! A product with a frozen weight and the low-rank product of an adapter, in one (LoRA, Hu et al. 2021,
//! arXiv:2106.09685): the second is added where the result of the first lies, in forward and in backward.

use burn::backend::{
    Backend, Dispatch,
    autodiff::{
        Autodiff,
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::FloatTensor,
};
use burn::tensor::Tensor;

use super::{LlmOps, assert_same_dtype, linear};

/// `y_no = x_ni w_oiᵀ + scale (x_ni a_riᵀ) b_orᵀ (+ bias_o)`. All operands must have one dtype. The weight gets no gradient.
pub fn linear_low_rank(
    x_ni: Tensor<2>,
    weight_oi: Tensor<2>,
    [a_ri, b_or]: [Tensor<2>; 2],
    scale: f32,
    bias_o: Option<Tensor<1>>,
) -> Tensor<2> {
    for operand in [&weight_oi, &a_ri, &b_or] {
        assert_same_dtype("linear_low_rank", x_ni.dtype(), operand.dtype());
    }
    let y_no = Tensor::from_dispatch(<Dispatch as LlmOps>::linear_low_rank(
        x_ni.into_dispatch(),
        weight_oi.without_autodiff().into_dispatch(),
        a_ri.into_dispatch(),
        b_or.into_dispatch(),
        scale,
    ));
    linear::with_bias(y_no, bias_o)
}

/// -> (y_no, `scale x aᵀ` (n, r)).
pub(super) fn forward<B: LlmOps>(
    x: FloatTensor<B>,
    w: FloatTensor<B>,
    a: FloatTensor<B>,
    b: FloatTensor<B>,
    scale: f32,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let low = B::float_mul_scalar(<B as LlmOps>::linear(x.clone(), a, false), scale.into());
    let y = <B as LlmOps>::linear(x, w, false);
    (B::linear_add(y, low.clone(), b), low)
}

/// y_no + x_ni w_oiᵀ.
pub(super) fn add<B: Backend>(y: FloatTensor<B>, x: FloatTensor<B>, w: FloatTensor<B>) -> FloatTensor<B> {
    B::float_add(y, linear::forward::<B>(x, w))
}

/// dx_ni + dy_no w_oi.
pub(super) fn input_gradient_add<B: Backend>(
    dx: FloatTensor<B>,
    dy: FloatTensor<B>,
    w: FloatTensor<B>,
) -> FloatTensor<B> {
    B::float_add(dx, linear::input_gradient::<B>(dy, w))
}

pub(super) fn tracked<B: LlmOps, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    w: FloatTensor<Autodiff<B, C>>,
    a: FloatTensor<Autodiff<B, C>>,
    b: FloatTensor<Autodiff<B, C>>,
    scale: f32,
) -> FloatTensor<Autodiff<B, C>> {
    #[derive(Debug)]
    struct LowRank;
    impl<B: LlmOps> Backward<B, 3> for LowRank {
        /// x, `scale x aᵀ`, w, a, b, scale.
        type State = ([FloatTensor<B>; 5], f32);

        fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
            let ([x, low, w, a, b], scale) = ops.state;
            let dy = grads.consume::<B>(&ops.node);
            let [x_parent, a_parent, b_parent] = ops.parents;
            let dlow = B::linear_input_gradient(dy.clone(), b);
            let dlow = B::float_mul_scalar(dlow, scale.into());
            if let Some(parent) = b_parent {
                grads.register::<B>(parent.id, B::linear_weight_gradient(dy.clone(), low));
            }
            if let Some(parent) = a_parent {
                grads.register::<B>(parent.id, B::linear_weight_gradient(dlow.clone(), x));
            }
            if let Some(parent) = x_parent {
                let dx = B::linear_input_gradient(dy, w);
                grads.register::<B>(parent.id, B::linear_input_gradient_add(dx, dlow, a));
            }
        }
    }
    let nodes = [x.node(), a.node(), b.node()];
    let [x, w, a, b] = [x, w, a, b].map(|operand| operand.into_primitive());
    match LowRank.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let (y, low) = forward::<B>(x.clone(), w.clone(), a.clone(), b.clone(), scale);
            prep.finish(([x, low, w, a, b], scale), y)
        }
        OpsKind::UnTracked(prep) => prep.finish(forward::<B>(x, w, a, b, scale).0),
    }
}
