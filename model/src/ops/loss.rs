//! Output head and cross-entropy together, by chunks of rows: the logits of a whole batch, the largest
//! tensor of a training step, never exist at once (as in Liger, arXiv:2410.10989, and TRL's chunked loss).

use burn::backend::{
    AutodiffBackend, Backend, Dispatch, TensorMetadata,
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

/// Elements of one chunk of logits: 32 MiB in f32. The gradient of the head is read and written once a chunk.
pub(super) const CHUNK_ELEMENTS: usize = 8 << 20;

/// What is done to the logits, and what is added to the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossOptions {
    /// Coefficient c of the `c * log(Z)^2` that is added to the loss of each token, Z being the sum of the
    /// exponentials of its logits (PaLM, arXiv:2204.02311, section 5); weighted as the token's loss is.
    /// 0 is off.
    pub z_loss: f32,
    /// Logits become `softcap * tanh(logits / softcap)` (Gemma 2, arXiv:2408.00118). 0 is off.
    pub softcap: f32,
    /// Rows of logits that exist at a time.
    pub chunk: usize,
}

impl LossOptions {
    pub(super) fn new(z_loss: f32, softcap: f32, vocabulary: usize) -> Self {
        let chunk = (CHUNK_ELEMENTS / vocabulary.max(1)).clamp(16, 4096);
        Self { z_loss, softcap, chunk }
    }
}

/// Sum over rows of `weights_n * (-log softmax(logits)[targets_n] + z_loss * log(Z)^2)` with logits =
/// hidden_nc head_vc^T, capped where `softcap` is not 0: -> (loss (1), the part of it that is z-loss (1),
/// without a gradient), in f32. A row of weight 0 contributes nothing to loss or gradients, whatever its
/// target. Targets must be below v. See [`LossOptions`].
pub fn cross_entropy(
    hidden_nc: Tensor<2>,
    head_vc: Tensor<2>,
    targets_n: Tensor<1, Int>,
    weights_n: Tensor<1>,
    z_loss: f32,
    softcap: f32,
) -> (Tensor<1>, Tensor<1>) {
    assert_same_dtype("cross_entropy", hidden_nc.dtype(), head_vc.dtype());
    let (tracked, options) = (head_vc.is_tracked(), LossOptions::new(z_loss, softcap, head_vc.dims()[0]));
    let (loss, z) = <Dispatch as LlmOps>::cross_entropy(
        hidden_nc.into_dispatch(),
        head_vc.into_dispatch(),
        targets_n.into_dispatch(),
        weights_n.into_dispatch(),
        tracked,
        options,
    );
    (Tensor::from_dispatch(loss), Tensor::from_dispatch(z))
}

/// Negative log-likelihood of each target under the capped logits, n in f32, without a gradient and without
/// z-loss.
pub fn token_nll(hidden_nc: Tensor<2>, head_vc: Tensor<2>, targets_n: Tensor<1, Int>, softcap: f32) -> Tensor<1> {
    assert_same_dtype("token_nll", hidden_nc.dtype(), head_vc.dtype());
    let options = LossOptions::new(0.0, softcap, head_vc.dims()[0]);
    let (nll, _) = <Dispatch as LlmOps>::token_nll(
        hidden_nc.into_dispatch(),
        head_vc.into_dispatch(),
        targets_n.into_dispatch(),
        options,
    );
    Tensor::from_dispatch(nll)
}

/// Logits in f32 -> `cap * tanh(logits / cap)`; unchanged where `cap` is 0. The loss computes the same.
pub fn softcap<const D: usize>(logits: Tensor<D>, cap: f32) -> Tensor<D> {
    match cap == 0.0 {
        true => logits,
        false => Tensor::from_dispatch(capped::<Dispatch>(logits.into_dispatch(), cap)),
    }
}

pub(super) fn token_nll_forward<B: Backend>(
    hidden: FloatTensor<B>,
    head: FloatTensor<B>,
    targets: IntTensor<B>,
    options: LossOptions,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (mut nlls, mut log_zs) = (Vec::new(), Vec::new());
    for (from, to) in row_chunks(hidden.shape()[0], options.chunk) {
        let logits = logits::<B>(rows::<B>(hidden.clone(), from, to), head.clone(), options.softcap);
        let scores = chunk_scores::<B>(logits, column::<B>(targets.clone(), from, to));
        nlls.push(scores.nll);
        log_zs.push(scores.log_z);
    }
    (joined::<B>(nlls), joined::<B>(log_zs))
}

pub(super) fn forward<B: LlmOps>(
    hidden: FloatTensor<B>,
    head: FloatTensor<B>,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
    options: LossOptions,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (nll, log_z) = B::token_nll(hidden, head, targets, options);
    sums::<B>(nll, log_z, weights, options.z_loss)
}

/// Loss, and the z-loss in it.
type Pair<B> = (FloatTensor<B>, FloatTensor<B>);

/// Loss, the z-loss in it, and the gradients of hidden and head.
type LossAndGradients<B> = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>);

/// d(loss)/d(logits) = weight ((1 + 2 c log Z) softmax - onehot), times 1 - tanh^2 where logits are capped,
/// turned at once into the gradients of hidden and head.
pub(super) fn with_gradients<B: Backend>(
    hidden: FloatTensor<B>,
    head: FloatTensor<B>,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
    head_tracked: bool,
    options: LossOptions,
) -> LossAndGradients<B> {
    let (n, dtype, device) = (hidden.shape()[0], hidden.dtype(), hidden.device());
    let (mut nlls, mut log_zs, mut dhiddens) = (Vec::new(), Vec::new(), Vec::new());
    let mut dhead: Option<FloatTensor<B>> = None;
    for (from, to) in row_chunks(n, options.chunk) {
        let hidden = rows::<B>(hidden.clone(), from, to);
        let target = column::<B>(targets.clone(), from, to);
        let weight = B::float_reshape(vector::<B>(weights.clone(), from, to), Shape::new([to - from, 1]));
        let logits = logits::<B>(hidden.clone(), head.clone(), options.softcap);
        let scores = chunk_scores::<B>(logits.clone(), target.clone());
        let dlogits = cast::<B>(chunk_gradient::<B>(&scores, logits, target, weight, options), dtype);
        nlls.push(scores.nll);
        log_zs.push(scores.log_z);
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
    let unused = || B::float_zeros(Shape::new([1]), &device, dtype.into());
    let dhead = dhead.map_or_else(unused, |sum| cast::<B>(sum, dtype));
    let (loss, z) = sums::<B>(joined::<B>(nlls), joined::<B>(log_zs), weights, options.z_loss);
    (loss, z, B::float_cat(dhiddens, 0), dhead)
}

/// What one chunk of logits says of its targets.
pub(super) struct Scores<B: Backend> {
    pub(super) nll: FloatTensor<B>,
    /// Logarithm of the sum of exponentials.
    pub(super) log_z: FloatTensor<B>,
    pub(super) softmax: FloatTensor<B>,
}

/// logits_nv in f32, targets_n1 -> (nll_n1, log_z_n1, softmax_nv).
pub(super) fn chunk_scores<B: Backend>(logits: FloatTensor<B>, targets: IntTensor<B>) -> Scores<B> {
    let max = B::float_max_dim(logits.clone(), 1);
    let shifted = B::float_sub(logits, max.clone());
    let target = B::float_gather(1, shifted.clone(), targets);
    let exp = B::float_exp(shifted);
    let sum = B::float_sum_dim(exp.clone(), 1);
    let log = B::float_log(sum.clone());
    Scores {
        nll: B::float_sub(log.clone(), target),
        log_z: B::float_add(log, max),
        softmax: B::float_div(exp, sum),
    }
}

/// Gradient of the weighted loss in the logits before the cap; `logits` are those after it.
fn chunk_gradient<B: Backend>(
    scores: &Scores<B>,
    logits: FloatTensor<B>,
    target: IntTensor<B>,
    weight: FloatTensor<B>,
    options: LossOptions,
) -> FloatTensor<B> {
    let shape = Shape::new([logits.shape()[0], 1]);
    let minus_one = B::float_full(shape, (-1.0f32).into(), &logits.device(), burn::tensor::FloatDType::F32);
    let mut softmax = scores.softmax.clone();
    if options.z_loss != 0.0 {
        let slope = B::float_mul_scalar(scores.log_z.clone(), (2.0 * options.z_loss).into());
        softmax = B::float_mul(softmax, B::float_add_scalar(slope, 1.0f32.into()));
    }
    let mut dlogits = B::float_scatter(1, softmax, target, minus_one, IndexingUpdateOp::Add);
    if options.softcap != 0.0 {
        let tanh = B::float_div_scalar(logits, options.softcap.into());
        let square = B::float_mul(tanh.clone(), tanh);
        dlogits = B::float_mul(dlogits, B::float_add_scalar(B::float_neg(square), 1.0f32.into()));
    }
    B::float_mul(dlogits, weight)
}

/// In f32, after the cap.
pub(super) fn logits<B: Backend>(hidden: FloatTensor<B>, head: FloatTensor<B>, softcap: f32) -> FloatTensor<B> {
    let logits = to_f32::<B>(B::float_matmul(hidden, B::float_transpose(head)));
    if softcap == 0.0 { logits } else { capped::<B>(logits, softcap) }
}

fn capped<B: Backend>(logits: FloatTensor<B>, cap: f32) -> FloatTensor<B> {
    B::float_mul_scalar(B::float_tanh(B::float_div_scalar(logits, cap.into())), cap.into())
}

/// nll_n, log_z_n, weights_n -> (weighted sum of both terms (1), weighted sum of the z-loss alone (1)).
fn sums<B: Backend>(
    nll: FloatTensor<B>,
    log_z: FloatTensor<B>,
    weights: FloatTensor<B>,
    z_loss: f32,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let loss = weighted_sum::<B>(nll, weights.clone());
    if z_loss == 0.0 {
        let zero = B::float_zeros(Shape::new([1]), &loss.device(), burn::tensor::FloatDType::F32);
        return (loss, zero);
    }
    let square = B::float_mul(log_z.clone(), log_z);
    let z = B::float_mul_scalar(weighted_sum::<B>(square, weights), z_loss.into());
    (B::float_add(loss, z.clone()), z)
}

/// In fixed order: a sum over one row is sequential on every backend that promises it.
pub(super) fn weighted_sum<B: Backend>(values: FloatTensor<B>, weights: FloatTensor<B>) -> FloatTensor<B> {
    let n = values.shape()[0];
    let product = B::float_reshape(B::float_mul(values, weights), Shape::new([1, n]));
    B::float_reshape(B::float_sum_dim(product, 1), Shape::new([1]))
}

/// Chunks of one column -> one vector.
pub(super) fn joined<B: Backend>(parts: Vec<FloatTensor<B>>) -> FloatTensor<B> {
    let n = parts.iter().map(|part| part.shape()[0]).sum::<usize>();
    B::float_reshape(B::float_cat(parts, 0), Shape::new([n]))
}

pub(super) fn row_chunks(n: usize, chunk: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n).step_by(chunk.max(1)).map(move |from| (from, (from + chunk).min(n)))
}

pub(super) fn rows<B: Backend>(x: FloatTensor<B>, from: usize, to: usize) -> FloatTensor<B> {
    let width = x.shape()[1];
    let slices: Vec<Slice> = vec![(from..to).into(), (0..width).into()];
    B::float_slice(x, &slices)
}

pub(super) fn vector<B: Backend>(x: FloatTensor<B>, from: usize, to: usize) -> FloatTensor<B> {
    B::float_slice(x, &[(from..to).into()])
}

pub(super) fn column<B: Backend>(x: IntTensor<B>, from: usize, to: usize) -> IntTensor<B> {
    B::int_reshape(B::int_slice(x, &[(from..to).into()]), Shape::new([to - from, 1]))
}

/// What each row of a tracked loss gives: its negative log-likelihood and log Z.
type TrackedRows<B, C> = (FloatTensor<Autodiff<B, C>>, FloatTensor<Autodiff<B, C>>);

/// `token_nll` takes no gradient: the kernels of the device itself compute it.
pub(super) fn untracked_nll<B: LlmOps, C: CheckpointStrategy>(
    hidden: FloatTensor<Autodiff<B, C>>,
    head: FloatTensor<Autodiff<B, C>>,
    targets: IntTensor<B>,
    options: LossOptions,
) -> TrackedRows<B, C> {
    let (nll, log_z) = B::token_nll(hidden.into_primitive(), head.into_primitive(), targets, options);
    let off_graph = <Autodiff<B, C> as AutodiffBackend>::from_inner;
    (off_graph(nll), off_graph(log_z))
}

/// gradient_nc, factor (1) -> their product.
pub(super) fn scaled<B: Backend>(gradient: FloatTensor<B>, factor: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = gradient.dtype();
    B::float_mul(gradient, cast::<B>(B::float_reshape(factor, Shape::new([1, 1])), dtype))
}

/// The backward of a loss whose gradients by hidden states and head were made in its forward.
#[derive(Debug)]
pub(super) struct KeptGradients;

impl<B: LlmOps> Backward<B, 2> for KeptGradients {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (dhidden, dhead) = ops.state;
        let dloss = grads.consume::<B>(&ops.node);
        let [hidden_parent, head_parent] = ops.parents;
        if let Some(parent) = hidden_parent {
            grads.register::<B>(parent.id, B::scale_gradient(dhidden, dloss.clone()));
        }
        if let Some(parent) = head_parent {
            grads.register::<B>(parent.id, B::scale_gradient(dhead, dloss));
        }
    }
}

pub(super) fn tracked<B: LlmOps, C: CheckpointStrategy>(
    hidden: FloatTensor<Autodiff<B, C>>,
    head: FloatTensor<Autodiff<B, C>>,
    targets: IntTensor<B>,
    weights: FloatTensor<Autodiff<B, C>>,
    head_tracked: bool,
    options: LossOptions,
) -> Pair<Autodiff<B, C>> {
    let nodes = [hidden.node(), head.node()];
    let (hidden, head) = (hidden.into_primitive(), head.into_primitive());
    let weights = weights.into_primitive();
    let (loss, z) = match KeptGradients.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let (loss, z, dhidden, dhead) =
                B::cross_entropy_with_gradients(hidden, head, targets, weights, head_tracked, options);
            (prep.finish((dhidden, dhead), loss), z)
        }
        OpsKind::UnTracked(prep) => {
            let (loss, z) = B::cross_entropy(hidden, head, targets, weights, false, options);
            (prep.finish(loss), z)
        }
    };
    (loss, <Autodiff<B, C> as AutodiffBackend>::from_inner(z))
}
