//! The gated activation of Llama-like feed-forward blocks (Shazeer 2020, arXiv:2002.05202).

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

use super::{LlmOps, assert_same_dtype};

/// `silu(gate_nf) * up_nf`. Both operands must have one dtype.
pub fn swiglu(gate_nf: Tensor<2>, up_nf: Tensor<2>) -> Tensor<2> {
    assert_same_dtype("swiglu", gate_nf.dtype(), up_nf.dtype());
    Tensor::from_dispatch(<Dispatch as LlmOps>::swiglu(gate_nf.into_dispatch(), up_nf.into_dispatch()))
}

pub(super) fn forward<B: Backend>(gate: FloatTensor<B>, up: FloatTensor<B>) -> FloatTensor<B> {
    let sigmoid = B::sigmoid(gate.clone());
    B::float_mul(B::float_mul(gate, sigmoid), up)
}

/// With s = sigmoid(gate): dup = dy gate s, dgate = dy up s (1 + gate (1 - s)).
pub(super) fn backward<B: Backend>(
    gate: FloatTensor<B>,
    up: FloatTensor<B>,
    dy: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let sigmoid = B::sigmoid(gate.clone());
    let silu = B::float_mul(gate.clone(), sigmoid.clone());
    let dup = B::float_mul(dy.clone(), silu.clone());
    // s (1 + gate (1 - s)) = s + silu - silu s
    let slope = B::float_add(sigmoid.clone(), B::float_sub(silu.clone(), B::float_mul(silu, sigmoid)));
    let dgate = B::float_mul(B::float_mul(dy, up), slope);
    (dgate, dup)
}

pub(super) fn tracked<B: LlmOps, C: CheckpointStrategy>(
    gate: FloatTensor<Autodiff<B, C>>,
    up: FloatTensor<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    #[derive(Debug)]
    struct SwiGlu;
    impl<B: LlmOps> Backward<B, 2> for SwiGlu {
        type State = (FloatTensor<B>, FloatTensor<B>);

        fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
            let (gate, up) = ops.state;
            let dy = grads.consume::<B>(&ops.node);
            let (dgate, dup) = B::swiglu_backward(gate, up, dy);
            let [gate_parent, up_parent] = ops.parents;
            if let Some(parent) = gate_parent {
                grads.register::<B>(parent.id, dgate);
            }
            if let Some(parent) = up_parent {
                grads.register::<B>(parent.id, dup);
            }
        }
    }
    match SwiGlu.prepare::<C>([gate.node(), up.node()]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let (gate, up) = (gate.into_primitive(), up.into_primitive());
            let y = B::swiglu(gate.clone(), up.clone());
            prep.finish((gate, up), y)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::swiglu(gate.into_primitive(), up.into_primitive())),
    }
}
