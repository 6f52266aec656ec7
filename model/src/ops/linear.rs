//! Matrix product with a weight stored `[out, in]`, as Hugging Face stores it.

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
use burn::tensor::Tensor;

use super::{LlmOps, assert_same_dtype};

/// `y_no = x_ni * w_oi^T (+ bias_o)`. All operands must have one dtype.
pub fn linear(x_ni: Tensor<2>, weight_oi: Tensor<2>, bias_o: Option<Tensor<1>>) -> Tensor<2> {
    assert_same_dtype("linear", x_ni.dtype(), weight_oi.dtype());
    let tracked = weight_oi.is_tracked();
    let y_no = Tensor::from_dispatch(<Dispatch as LlmOps>::linear(
        x_ni.into_dispatch(),
        weight_oi.into_dispatch(),
        tracked,
    ));
    with_bias(y_no, bias_o)
}

/// y_no (+ bias_o).
pub(super) fn with_bias(y_no: Tensor<2>, bias_o: Option<Tensor<1>>) -> Tensor<2> {
    match bias_o {
        Some(bias_o) => {
            assert_same_dtype("linear bias", y_no.dtype(), bias_o.dtype());
            y_no + bias_o.unsqueeze::<2>()
        }
        None => y_no,
    }
}

pub(super) fn forward<B: Backend>(x: FloatTensor<B>, w: FloatTensor<B>) -> FloatTensor<B> {
    B::float_matmul(x, B::float_transpose(w))
}

pub(super) fn input_gradient<B: Backend>(dy: FloatTensor<B>, w: FloatTensor<B>) -> FloatTensor<B> {
    B::float_matmul(dy, w)
}

pub(super) fn weight_gradient<B: Backend>(dy: FloatTensor<B>, x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_matmul(B::float_transpose(dy), x)
}

pub(super) fn tracked<B: LlmOps, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    w: FloatTensor<Autodiff<B, C>>,
    weight_tracked: bool,
) -> FloatTensor<Autodiff<B, C>> {
    #[derive(Debug)]
    struct Linear;
    impl<B: LlmOps> Backward<B, 2> for Linear {
        type State = (Option<FloatTensor<B>>, FloatTensor<B>);

        fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
            let (x, w) = ops.state;
            let dy = grads.consume::<B>(&ops.node);
            let [x_parent, w_parent] = ops.parents;
            if let (Some(parent), Some(x)) = (w_parent, x) {
                grads.register::<B>(parent.id, B::linear_weight_gradient(dy.clone(), x));
            }
            if let Some(parent) = x_parent {
                grads.register::<B>(parent.id, B::linear_input_gradient(dy, w));
            }
        }
    }
    debug_assert_eq!(x.dtype(), w.dtype());
    match Linear.prepare::<C>([x.node(), w.node()]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let (x, w) = (x.into_primitive(), w.into_primitive());
            let y = <B as LlmOps>::linear(x.clone(), w.clone(), weight_tracked);
            prep.finish((weight_tracked.then_some(x), w), y)
        }
        OpsKind::UnTracked(prep) => {
            prep.finish(<B as LlmOps>::linear(x.into_primitive(), w.into_primitive(), false))
        }
    }
}
