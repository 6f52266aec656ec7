//! Output head and cross-entropy together, by chunks of rows: the logits of a whole batch, the largest
//! tensor of a training step, never exist at once (as in Liger, arXiv:2410.10989, and TRL's chunked loss).

use burn::backend::{
    Backend, Dispatch, TensorMetadata,
    autodiff::{
        Autodiff,
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{IndexingUpdateOp, Int, Shape, Slice, Tensor};

use super::{LlmOps, assert_same_dtype, cast, to_f32};

/// Elements of one chunk of logits: 16 MiB in f32.
const CHUNK_ELEMENTS: usize = 4 << 20;

/// Sum over rows of `weights_n * -log softmax(hidden_nc head_vc^T)[targets_n]`, as (1) in f32. A row of
/// weight 0 contributes nothing to loss or gradients, whatever its target. Targets must be below v.
pub fn cross_entropy(
    hidden_nc: Tensor<2>,
    head_vc: Tensor<2>,
    targets_n: Tensor<1, Int>,
    weights_n: Tensor<1>,
) -> Tensor<1> {
    assert_same_dtype("cross_entropy", hidden_nc.dtype(), head_vc.dtype());
    let (tracked, chunk) = (head_vc.is_tracked(), chunk_rows(head_vc.dims()[0]));
    Tensor::from_dispatch(<Dispatch as LlmOps>::cross_entropy(
        hidden_nc.into_dispatch(),
        head_vc.into_dispatch(),
        targets_n.into_dispatch(),
        weights_n.into_dispatch(),
        tracked,
        chunk,
    ))
}

/// Negative log-likelihood of each target, n in f32, without a gradient.
pub fn token_nll(hidden_nc: Tensor<2>, head_vc: Tensor<2>, targets_n: Tensor<1, Int>) -> Tensor<1> {
    assert_same_dtype("token_nll", hidden_nc.dtype(), head_vc.dtype());
    let chunk = chunk_rows(head_vc.dims()[0]);
    Tensor::from_dispatch(<Dispatch as LlmOps>::token_nll(
        hidden_nc.into_dispatch(),
        head_vc.into_dispatch(),
        targets_n.into_dispatch(),
        chunk,
    ))
}

fn chunk_rows(vocabulary: usize) -> usize {
    (CHUNK_ELEMENTS / vocabulary.max(1)).clamp(16, 4096)
}

pub(super) fn token_nll_forward<B: Backend>(
    hidden: FloatTensor<B>,
    head: FloatTensor<B>,
    targets: IntTensor<B>,
    chunk: usize,
) -> FloatTensor<B> {
    let n = hidden.shape()[0];
    let parts = row_chunks(n, chunk).map(|(from, to)| {
        let logits = logits::<B>(rows::<B>(hidden.clone(), from, to), head.clone());
        chunk_nll::<B>(logits, column::<B>(targets.clone(), from, to)).0
    });
    B::float_reshape(B::float_cat(parts.collect(), 0), Shape::new([n]))
}

pub(super) fn forward<B: LlmOps>(
    hidden: FloatTensor<B>,
    head: FloatTensor<B>,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
    chunk: usize,
) -> FloatTensor<B> {
    let nll = B::token_nll(hidden, head, targets, chunk);
    weighted_sum::<B>(nll, weights)
}

/// d(loss)/d(logits) = weight (softmax - onehot), turned at once into the gradients of hidden and head.
pub(super) fn with_gradients<B: Backend>(
    hidden: FloatTensor<B>,
    head: FloatTensor<B>,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
    head_tracked: bool,
    chunk: usize,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let (n, dtype, device) = (hidden.shape()[0], hidden.dtype(), hidden.device());
    let (mut nlls, mut dhiddens) = (Vec::new(), Vec::new());
    let mut dhead: Option<FloatTensor<B>> = None;
    for (from, to) in row_chunks(n, chunk) {
        let hidden = rows::<B>(hidden.clone(), from, to);
        let target = column::<B>(targets.clone(), from, to);
        let weight = B::float_reshape(vector::<B>(weights.clone(), from, to), Shape::new([to - from, 1]));
        let (nll, probabilities) = chunk_nll::<B>(logits::<B>(hidden.clone(), head.clone()), target.clone());
        nlls.push(nll);
        let minus_one =
            B::float_full(Shape::new([to - from, 1]), (-1.0f32).into(), &device, burn::tensor::FloatDType::F32);
        let dlogits = B::float_scatter(1, probabilities, target, minus_one, IndexingUpdateOp::Add);
        let dlogits = cast::<B>(B::float_mul(dlogits, weight), dtype);
        dhiddens.push(B::float_matmul(dlogits.clone(), head.clone()));
        if head_tracked {
            // Summed in f32: in bf16, hundreds of chunks lose percents of the sum.
            let part = to_f32::<B>(B::float_matmul(B::float_transpose(dlogits), hidden));
            dhead = Some(match dhead {
                Some(sum) => B::float_add(sum, part),
                None => part,
            });
        }
    }
    let nll = B::float_reshape(B::float_cat(nlls, 0), Shape::new([n]));
    let unused = || B::float_zeros(Shape::new([1]), &device, dtype.into());
    let dhead = dhead.map_or_else(unused, |sum| cast::<B>(sum, dtype));
    (weighted_sum::<B>(nll, weights), B::float_cat(dhiddens, 0), dhead)
}

/// logits_nv in f32, targets_n1 -> (nll_n1, softmax_nv).
fn chunk_nll<B: Backend>(logits: FloatTensor<B>, targets: IntTensor<B>) -> (FloatTensor<B>, FloatTensor<B>) {
    let max = B::float_max_dim(logits.clone(), 1);
    let shifted = B::float_sub(logits, max);
    let target = B::float_gather(1, shifted.clone(), targets);
    let exp = B::float_exp(shifted);
    let sum = B::float_sum_dim(exp.clone(), 1);
    let nll = B::float_sub(B::float_log(sum.clone()), target);
    (nll, B::float_div(exp, sum))
}

fn logits<B: Backend>(hidden: FloatTensor<B>, head: FloatTensor<B>) -> FloatTensor<B> {
    to_f32::<B>(B::float_matmul(hidden, B::float_transpose(head)))
}

/// In fixed order: a sum over one row is sequential on every backend that promises it.
fn weighted_sum<B: Backend>(nll: FloatTensor<B>, weights: FloatTensor<B>) -> FloatTensor<B> {
    let n = nll.shape()[0];
    let product = B::float_reshape(B::float_mul(nll, weights), Shape::new([1, n]));
    B::float_reshape(B::float_sum_dim(product, 1), Shape::new([1]))
}

fn row_chunks(n: usize, chunk: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n).step_by(chunk.max(1)).map(move |from| (from, (from + chunk).min(n)))
}

fn rows<B: Backend>(x: FloatTensor<B>, from: usize, to: usize) -> FloatTensor<B> {
    let width = x.shape()[1];
    let slices: Vec<Slice> = vec![(from..to).into(), (0..width).into()];
    B::float_slice(x, &slices)
}

fn vector<B: Backend>(x: FloatTensor<B>, from: usize, to: usize) -> FloatTensor<B> {
    B::float_slice(x, &[(from..to).into()])
}

fn column<B: Backend>(x: IntTensor<B>, from: usize, to: usize) -> IntTensor<B> {
    B::int_reshape(B::int_slice(x, &[(from..to).into()]), Shape::new([to - from, 1]))
}

pub(super) fn tracked<B: LlmOps, C: CheckpointStrategy>(
    hidden: FloatTensor<Autodiff<B, C>>,
    head: FloatTensor<Autodiff<B, C>>,
    targets: IntTensor<B>,
    weights: FloatTensor<Autodiff<B, C>>,
    head_tracked: bool,
    chunk: usize,
) -> FloatTensor<Autodiff<B, C>> {
    #[derive(Debug)]
    struct CrossEntropy;
    impl<B: LlmOps> Backward<B, 2> for CrossEntropy {
        type State = (FloatTensor<B>, FloatTensor<B>);

        fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
            let (dhidden, dhead) = ops.state;
            let dloss = grads.consume::<B>(&ops.node);
            let scaled = |gradient: FloatTensor<B>| {
                let factor = B::float_reshape(dloss.clone(), Shape::new([1, 1]));
                let dtype = gradient.dtype();
                B::float_mul(gradient, cast::<B>(factor, dtype))
            };
            let [hidden_parent, head_parent] = ops.parents;
            if let Some(parent) = hidden_parent {
                grads.register::<B>(parent.id, scaled(dhidden));
            }
            if let Some(parent) = head_parent {
                grads.register::<B>(parent.id, scaled(dhead));
            }
        }
    }
    let nodes = [hidden.node(), head.node()];
    let (hidden, head) = (hidden.into_primitive(), head.into_primitive());
    let weights = weights.into_primitive();
    match CrossEntropy.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let (loss, dhidden, dhead) =
                B::cross_entropy_with_gradients(hidden, head, targets, weights, head_tracked, chunk);
            prep.finish((dhidden, dhead), loss)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::cross_entropy(hidden, head, targets, weights, false, chunk)),
    }
}
