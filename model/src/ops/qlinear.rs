//! Matrix product with a packed weight, whose dense form lives only while one layer computes: what a frozen base under
//! adapters needs (QLoRA, Dettmers et al. 2023, arXiv:2305.14314). Backward has the packed tensor and makes the dense
//! one again.

use burn::backend::{
    AutodiffBackend, Backend, Dispatch, ExtensionType, TensorMetadata,
    autodiff::{
        Autodiff,
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{FloatDType, Shape, Tensor, TensorData};

use super::{LlmOps, cast, linear, to_f32};
use crate::packed::{Codes, NF4, Packed, PackedShape};

/// A packed weight as backends see it: the parts of a [`Packed`].
#[derive(Debug, Clone, ExtensionType)]
pub struct PackedOperand<B: Backend> {
    /// Words [out, words], u32.
    pub codes: IntTensor<B>,
    /// [out, blocks].
    pub scales: FloatTensor<B>,
    /// Where the codes' zero lies.
    #[extension_type]
    pub zeros: Zeros<B>,
    /// Shape and packing.
    pub shape: PackedShape,
}

/// Zero points of a packed weight, in units of a code.
#[derive(Debug, Clone, ExtensionType)]
pub enum Zeros<B: Backend> {
    /// The code 0, everywhere.
    Symmetric,
    /// [out, blocks].
    ByBlock(FloatTensor<B>),
}

fn operand(weight: &Packed) -> PackedOperand<Dispatch> {
    let (codes_ou, scales_ok, zeros_ok) = weight.tensors();
    PackedOperand {
        codes: codes_ou.into_dispatch(),
        scales: scales_ok.into_dispatch(),
        zeros: zeros_ok.map_or(Zeros::Symmetric, |zeros| Zeros::ByBlock(zeros.into_dispatch())),
        shape: weight.shape(),
    }
}

/// `y_no = x_ni * w_oi^T (+ bias_o)` in the dtype of x, to which the weight is rounded from f32. The weight gets no
/// gradient.
pub fn qlinear(x_ni: Tensor<2>, weight: &Packed, bias_o: Option<Tensor<1>>) -> Tensor<2> {
    let y_no = Tensor::from_dispatch(<Dispatch as LlmOps>::qlinear(x_ni.into_dispatch(), operand(weight)));
    linear::with_bias(y_no, bias_o)
}

/// The weight `[out, in]` that a packed one stands for, in f32.
pub fn dequantize(weight: &Packed) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as LlmOps>::unpack(operand(weight)))
}

/// A packed w_oi -> w_oi in f32.
pub(super) fn dense<B: Backend>(w: PackedOperand<B>) -> FloatTensor<B> {
    let PackedOperand { codes, scales, zeros, shape } = w;
    let PackedShape { out, input, packing } = shape;
    let (kind, blocks) = (packing.codes(), shape.blocks());
    let by_block = |x: FloatTensor<B>| B::float_reshape(to_f32::<B>(x), Shape::new([out, blocks, 1]));
    let values = values::<B>(codes, kind, shape);
    let values = B::float_reshape(values, Shape::new([out, blocks, packing.block()]));
    let values = match zeros {
        Zeros::ByBlock(zeros) => B::float_sub(values, by_block(zeros)),
        Zeros::Symmetric => values,
    };
    let whole = blocks * packing.block();
    let dense = B::float_reshape(B::float_mul(values, by_block(scales)), Shape::new([out, whole]));
    if whole == input { dense } else { B::float_slice(dense, &[(0..out).into(), (0..input).into()]) }
}

/// codes_ou -> what the codes stand for, in units of the scale, [out * words * codes of a word].
fn values<B: Backend>(codes: IntTensor<B>, kind: Codes, shape: PackedShape) -> FloatTensor<B> {
    let (device, fields) = (codes.device(), kind.per_word());
    let shifts: Vec<u32> = (0..fields).map(|field| (field * kind.bits()) as u32).collect();
    let shifts = B::int_from_data(TensorData::new(shifts, [1, fields]), &device);
    let n = shape.out * shape.words();
    let spread =
        |x, rows, columns| B::int_expand(B::int_reshape(x, Shape::new([rows, columns])), Shape::new([n, fields]));
    let shifted = B::bitwise_right_shift(spread(codes, n, 1), spread(shifts, 1, fields));
    let fields_n = B::int_reshape(B::bitwise_and_scalar(shifted, kind.mask().into()), Shape::new([n * fields]));
    if kind == Codes::Nf4 {
        let table = B::float_from_data(TensorData::new(NF4.to_vec(), [NF4.len()]), &device);
        return B::float_select(table, 0, fields_n);
    }
    // Two's complement of few bits: with the sign bit turned, the codes are in order from the least, which is -half.
    let half = 1u32 << (kind.bits() - 1);
    let raised = B::int_into_float(B::bitwise_xor_scalar(fields_n, half.into()), FloatDType::F32);
    B::float_sub_scalar(raised, (half as f32).into())
}

pub(super) fn forward<B: LlmOps>(x: FloatTensor<B>, w: PackedOperand<B>) -> FloatTensor<B> {
    let weight = cast::<B>(B::unpack(w), x.dtype());
    linear::forward::<B>(x, weight)
}

pub(super) fn input_gradient<B: LlmOps>(dy: FloatTensor<B>, w: PackedOperand<B>) -> FloatTensor<B> {
    let weight = cast::<B>(B::unpack(w), dy.dtype());
    linear::input_gradient::<B>(dy, weight)
}

pub(super) fn tracked<B: LlmOps, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    w: PackedOperand<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    #[derive(Debug)]
    struct QLinear;
    impl<B: LlmOps> Backward<B, 1> for QLinear {
        /// The packed weight; neither its dense form nor x.
        type State = PackedOperand<B>;

        fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
            let w = ops.state;
            let dy = grads.consume::<B>(&ops.node);
            let [parent] = ops.parents;
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, B::qlinear_input_gradient(dy, w));
            }
        }
    }
    let w = untracked(w);
    match QLinear.prepare::<C>([x.node()]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let y = B::qlinear(x.into_primitive(), w.clone());
            prep.finish(w, y)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::qlinear(x.into_primitive(), w)),
    }
}

pub(super) fn untracked_dense<B: LlmOps, C: CheckpointStrategy>(
    w: PackedOperand<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    <Autodiff<B, C> as AutodiffBackend>::from_inner(B::unpack(untracked(w)))
}

/// The parts of a packed weight want no gradients.
fn untracked<B: Backend, C: CheckpointStrategy>(w: PackedOperand<Autodiff<B, C>>) -> PackedOperand<B> {
    let zeros = match w.zeros {
        Zeros::Symmetric => Zeros::Symmetric,
        Zeros::ByBlock(zeros) => Zeros::ByBlock(zeros.into_primitive()),
    };
    PackedOperand { codes: w.codes, scales: w.scales.into_primitive(), zeros, shape: w.shape }
}
