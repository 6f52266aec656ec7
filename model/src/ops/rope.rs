//! Rotary position embedding, rotate-half form (Su et al. 2021, arXiv:2104.09864; the pairing of GPT-NeoX
//! and transformers: dimension i goes with i + d/2).

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
use burn::tensor::{Shape, Slice, Tensor};

use super::{LlmOps, assert_same_dtype};

/// Rotates x_bhtd by the angles whose cosines and sines are cos_btk and sin_btk, k = d / 2. `b` of the
/// angles may be 1. The angles take no gradient; all operands must have one dtype.
pub fn rope(x_bhtd: Tensor<4>, cos_btk: Tensor<3>, sin_btk: Tensor<3>) -> Tensor<4> {
    assert_same_dtype("rope", x_bhtd.dtype(), cos_btk.dtype());
    assert_same_dtype("rope", cos_btk.dtype(), sin_btk.dtype());
    Tensor::from_dispatch(<Dispatch as LlmOps>::rope(
        x_bhtd.into_dispatch(),
        cos_btk.into_dispatch(),
        sin_btk.into_dispatch(),
    ))
}

pub(super) fn forward<B: Backend>(x: FloatTensor<B>, cos: FloatTensor<B>, sin: FloatTensor<B>) -> FloatTensor<B> {
    let [b, h, t, d] = x.shape().dims();
    let half = d / 2;
    let part = |from: usize, to: usize| {
        let slices: Vec<Slice> = vec![(0..b).into(), (0..h).into(), (0..t).into(), (from..to).into()];
        B::float_slice(x.clone(), &slices)
    };
    let (left, right) = (part(0, half), part(half, d));
    let (cos, sin) = (per_head::<B>(cos), per_head::<B>(sin));
    let rotated_left =
        B::float_sub(B::float_mul(left.clone(), cos.clone()), B::float_mul(right.clone(), sin.clone()));
    let rotated_right = B::float_add(B::float_mul(right, cos), B::float_mul(left, sin));
    B::float_cat(vec![rotated_left, rotated_right], 3)
}

/// [b, t, k] -> [b, 1, t, k].
fn per_head<B: Backend>(angles: FloatTensor<B>) -> FloatTensor<B> {
    let [b, t, k] = angles.shape().dims();
    B::float_reshape(angles, Shape::new([b, 1, t, k]))
}

pub(super) fn tracked<B: LlmOps, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    cos: FloatTensor<Autodiff<B, C>>,
    sin: FloatTensor<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    #[derive(Debug)]
    struct Rope;
    impl<B: LlmOps> Backward<B, 1> for Rope {
        type State = (FloatTensor<B>, FloatTensor<B>);

        fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
            let (cos, sin) = ops.state;
            let dy = grads.consume::<B>(&ops.node);
            let [parent] = ops.parents;
            if let Some(parent) = parent {
                // The inverse of a rotation is the rotation by the negative angle.
                grads.register::<B>(parent.id, B::rope(dy, cos, B::float_neg(sin)));
            }
        }
    }
    let (cos, sin) = (cos.into_primitive(), sin.into_primitive());
    match Rope.prepare::<C>([x.node()]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let y = B::rope(x.into_primitive(), cos.clone(), sin.clone());
            prep.finish((cos, sin), y)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::rope(x.into_primitive(), cos, sin)),
    }
}
