//! What a model says of each target: log-likelihood with a gradient for each, and numbers to report beside it. By
//! chunks of rows, forward and backward: the logits of a whole batch never exist at once.

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
use burn::tensor::{Int, Tensor};

use super::loss::{LossOptions, chunk_scores, column, joined, logits, row_chunks, rows};
use super::{LlmOps, assert_same_dtype};

/// What a model says of n targets, each n in f32.
#[derive(Debug, Clone)]
pub struct TokenScores {
    /// Negative log-likelihood, with a gradient of its own for each target.
    pub nll_n: Tensor<1>,
    /// Entropy in nats of the distribution that the target was drawn from. Without a gradient.
    pub entropy_n: Tensor<1>,
    /// Mean over the vocabulary of the logits. Without a gradient.
    pub mean_logit_n: Tensor<1>,
    /// 1 where no other token is likelier than the target, 0 elsewhere. Without a gradient.
    pub greedy_n: Tensor<1>,
}

/// Scores of each target under the capped logits. Backward computes the logits again by chunks and keeps only
/// hidden_nc and head_vc for it: a loss may weigh every token by what all of them together turned out to be, as
/// preference losses do. Targets must be below v.
pub fn token_scores(
    hidden_nc: Tensor<2>,
    head_vc: Tensor<2>,
    targets_n: Tensor<1, Int>,
    softcap: f32,
) -> TokenScores {
    assert_same_dtype("token_scores", hidden_nc.dtype(), head_vc.dtype());
    let (tracked, options) = (head_vc.is_tracked(), LossOptions::new(0.0, softcap, head_vc.dims()[0]));
    let (nll, entropy, mean_logit, greedy) = <Dispatch as LlmOps>::token_scores(
        hidden_nc.into_dispatch(),
        head_vc.into_dispatch(),
        targets_n.into_dispatch(),
        tracked,
        options,
    );
    TokenScores {
        nll_n: Tensor::from_dispatch(nll),
        entropy_n: Tensor::from_dispatch(entropy),
        mean_logit_n: Tensor::from_dispatch(mean_logit),
        greedy_n: Tensor::from_dispatch(greedy),
    }
}

/// Negative log-likelihood, entropy, mean logit, and whether no logit is greater; each n.
pub(super) type Scores<B> = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>);

pub(super) fn forward<B: Backend>(
    hidden: FloatTensor<B>,
    head: FloatTensor<B>,
    targets: IntTensor<B>,
    options: LossOptions,
) -> Scores<B> {
    let (mut nlls, mut entropies, mut means, mut greedy) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let v = head.shape()[0];
    for (from, to) in row_chunks(hidden.shape()[0], options.chunk) {
        let logits = logits::<B>(rows::<B>(hidden.clone(), from, to), head.clone(), options.softcap);
        let target = column::<B>(targets.clone(), from, to);
        let scores = chunk_scores::<B>(logits.clone(), target.clone());
        // H = -sum p log p with log p = logit - log Z.
        let log_p = B::float_sub(logits.clone(), scores.log_z);
        entropies.push(B::float_neg(B::float_sum_dim(B::float_mul(scores.softmax, log_p), 1)));
        means.push(B::float_div_scalar(B::float_sum_dim(logits.clone(), 1), (v as f32).into()));
        // The sign is 0 at the largest logit and -1 below it.
        let below = B::float_sub(B::float_gather(1, logits.clone(), target), B::float_max_dim(logits, 1));
        greedy.push(B::float_add_scalar(B::float_sign(below), 1.0f32.into()));
        nlls.push(scores.nll);
    }
    (joined::<B>(nlls), joined::<B>(entropies), joined::<B>(means), joined::<B>(greedy))
}

pub(super) fn tracked<B: LlmOps, C: CheckpointStrategy>(
    hidden: FloatTensor<Autodiff<B, C>>,
    head: FloatTensor<Autodiff<B, C>>,
    targets: IntTensor<B>,
    head_tracked: bool,
    options: LossOptions,
) -> Scores<Autodiff<B, C>> {
    #[derive(Debug)]
    struct TokenScores;
    impl<B: LlmOps> Backward<B, 2> for TokenScores {
        type State = (FloatTensor<B>, FloatTensor<B>, IntTensor<B>, bool, LossOptions);

        fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
            let (hidden, head, targets, head_tracked, options) = ops.state;
            let weights = grads.consume::<B>(&ops.node);
            let (_, _, dhidden, dhead) =
                B::cross_entropy_with_gradients(hidden, head, targets, weights, head_tracked, options);
            let [hidden_parent, head_parent] = ops.parents;
            if let Some(parent) = hidden_parent {
                grads.register::<B>(parent.id, dhidden);
            }
            if let Some(parent) = head_parent {
                grads.register::<B>(parent.id, dhead);
            }
        }
    }
    let nodes = [hidden.node(), head.node()];
    let (hidden, head) = (hidden.into_primitive(), head.into_primitive());
    let off_graph = <Autodiff<B, C> as AutodiffBackend>::from_inner;
    let (nll, entropy, mean_logit, greedy) =
        B::token_scores(hidden.clone(), head.clone(), targets.clone(), head_tracked, options);
    let nll = match TokenScores.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish((hidden, head, targets, head_tracked, options), nll),
        OpsKind::UnTracked(prep) => prep.finish(nll),
    };
    (nll, off_graph(entropy), off_graph(mean_logit), off_graph(greedy))
}
