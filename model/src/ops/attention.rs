//! Scaled dot-product attention with grouped key-value heads (Ainslie et al. 2023, arXiv:2305.13245).
//!
//! Query head i reads key-value head i / (h / g). The queries of one group are folded into the time
//! dimension, so grouped heads need no repeated keys.

use burn::backend::{
    AutodiffBackend, Backend, Dispatch, TensorMetadata,
    autodiff::{
        Autodiff,
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::{BoolTensor, FloatTensor},
};
use burn::tensor::{Bool, Device, Int, Shape, Tensor, TensorData};

use super::{LlmOps, assert_same_dtype, cast, to_f32};

/// Which keys each query may see. Built once for a forward pass and shared by the layers that want the
/// same window.
///
/// Query i of t sits at slot `past + i` of s = past + t slots. Slot j is visible when j <= past + i, when
/// the window (if any) reaches it (`past + i - j < window`, transformers' rule), and when both slots
/// belong to one document (if documents are given).
#[derive(Debug, Clone)]
pub struct AttentionMask {
    /// hidden_xts, true = not visible; x is 1 or b.
    hidden: Tensor<3, Bool>,
    visible: Visible,
}

/// What a mask hides, in words, for kernels that need not read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visible {
    /// Slots before the first query.
    pub past: usize,
    /// Slots that a query reaches back to, itself included.
    pub window: Option<usize>,
    /// Documents hide slots too: which ones only the mask itself says.
    pub documents: bool,
    /// False when nothing at all is hidden.
    pub masked: bool,
}

impl AttentionMask {
    /// Builds the mask for `t` new slots after `past`. `documents_bt` is allowed only without a past:
    /// packed rows are a training matter.
    pub fn new(
        past: usize,
        t: usize,
        window: Option<usize>,
        documents_bt: Option<&Tensor<2, Int>>,
        device: &Device,
    ) -> Self {
        let s = past + t;
        let sees = |i: usize, j: usize| j <= past + i && window.is_none_or(|w| past + i - j < w);
        let hidden: Vec<bool> = (0..t).flat_map(|i| (0..s).map(move |j| !sees(i, j))).collect();
        let mut visible =
            Visible { past, window, documents: documents_bt.is_some(), masked: hidden.iter().any(|&h| h) };
        let mut hidden = Tensor::<3, Bool>::from_data(TensorData::new(hidden, [1, t, s]), device);
        if let Some(documents_bt) = documents_bt {
            assert!(past == 0, "documents with a KV cache of {past} slots");
            let of_query = documents_bt.clone().unsqueeze_dim::<3>(2).expand([-1, -1, s as i64]);
            let of_key = documents_bt.clone().unsqueeze_dim::<3>(1).expand([-1, t as i64, -1]);
            let foreign = of_query.not_equal(of_key);
            hidden = hidden.expand(foreign.shape()).bool_or(foreign);
            visible.masked = true;
        }
        Self { hidden, visible }
    }

    /// hidden_xs of the query at time `i` (x is 1 where all rows agree): true = not visible.
    pub(crate) fn hidden_from(&self, i: usize) -> Tensor<2, Bool> {
        let [x, _, s] = self.hidden.dims();
        self.hidden.clone().narrow(1, i, 1).reshape([x, s])
    }
}

/// q_bhtd, k_bgsd, v_bgsd -> out_bhtd; `h` must be a multiple of `g`. Softmax in f32.
pub fn attention(
    q_bhtd: Tensor<4>,
    k_bgsd: Tensor<4>,
    v_bgsd: Tensor<4>,
    mask: &AttentionMask,
    scale: f32,
) -> Tensor<4> {
    assert_same_dtype("attention", q_bhtd.dtype(), k_bgsd.dtype());
    assert_same_dtype("attention", k_bgsd.dtype(), v_bgsd.dtype());
    let (out, _) = <Dispatch as LlmOps>::attention(
        q_bhtd.into_dispatch(),
        k_bgsd.into_dispatch(),
        v_bgsd.into_dispatch(),
        mask.hidden.clone().into_dispatch(),
        mask.visible,
        scale,
    );
    Tensor::from_dispatch(out)
}

pub(super) fn forward<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    hidden: BoolTensor<B>,
    visible: Visible,
    scale: f32,
    hidden_score: f32,
) -> Pair<B> {
    let (q_shape, dtype) = (q.shape(), q.dtype());
    let [b, h, t, _d] = q_shape.dims();
    let [_, g, s, _] = k.shape().dims();
    let q = fold_groups::<B>(B::float_mul_scalar(q, scale.into()), g);
    let scores = to_f32::<B>(B::float_matmul(q, B::float_transpose(k)));
    let scores = B::float_reshape(scores, Shape::new([b, h, t, s]));
    let scores = if visible.masked { hide::<B>(scores, hidden, hidden_score) } else { scores };
    let probabilities = B::softmax(scores, 3);
    let by_group = B::float_reshape(cast::<B>(probabilities.clone(), dtype), Shape::new([b, g, h / g * t, s]));
    let out = B::float_reshape(B::float_matmul(by_group, v), q_shape);
    (out, probabilities)
}

/// With p the probabilities: dv = p^T dout, dp = dout v^T, ds = p (dp - sum(dp p)), dq = ds k scale,
/// dk = ds^T q scale.
pub(super) fn backward<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    saved: FloatTensor<B>,
    dout: FloatTensor<B>,
    scale: f32,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let (q_shape, dtype) = (q.shape(), q.dtype());
    let [b, h, t, _d] = q_shape.dims();
    let [_, g, s, _] = k.shape().dims();
    let by_group = Shape::new([b, g, h / g * t, s]);
    let p = B::float_reshape(saved, by_group);
    let dout = fold_groups::<B>(dout, g);
    let dv = B::float_matmul(B::float_transpose(cast::<B>(p.clone(), dtype)), dout.clone());
    let dp = to_f32::<B>(B::float_matmul(dout, B::float_transpose(v)));
    let weighted = B::float_mul(dp, p.clone());
    let row_sums = B::float_sum_dim(weighted.clone(), 3);
    let ds = B::float_sub(weighted, B::float_mul(p, row_sums));
    let ds = cast::<B>(B::float_mul_scalar(ds, scale.into()), dtype);
    let dq = B::float_reshape(B::float_matmul(ds.clone(), k), q_shape);
    let dk = B::float_matmul(B::float_transpose(ds), fold_groups::<B>(q, g));
    (dq, dk, dv)
}

/// [b, h, t, d] -> [b, g, h / g * t, d].
fn fold_groups<B: Backend>(x: FloatTensor<B>, g: usize) -> FloatTensor<B> {
    let [b, h, t, d] = x.shape().dims();
    B::float_reshape(x, Shape::new([b, g, h / g * t, d]))
}

/// Scores of hidden keys become `hidden_score`: every query sees at least itself, so they vanish in the softmax.
/// The most negative finite number does on every backend; infinities are not everywhere safe on GPUs.
fn hide<B: Backend>(scores: FloatTensor<B>, hidden: BoolTensor<B>, hidden_score: f32) -> FloatTensor<B> {
    let [x, t, s] = hidden.shape().dims();
    let hidden = B::bool_reshape(hidden, Shape::new([x, 1, t, s]));
    let hidden = B::bool_expand(hidden, scores.shape());
    B::float_mask_fill(scores, hidden, hidden_score.into())
}

/// What backward needs: q, k, v, the output, what the forward saved, and what hides keys.
#[derive(Debug, Clone)]
struct Kept<B: Backend> {
    inputs: [FloatTensor<B>; 3],
    out: FloatTensor<B>,
    saved: FloatTensor<B>,
    hidden: BoolTensor<B>,
    visible: Visible,
    scale: f32,
}

/// The output, and what the forward saved.
type Pair<B> = (FloatTensor<B>, FloatTensor<B>);

pub(super) fn tracked<B: LlmOps, C: CheckpointStrategy>(
    q: FloatTensor<Autodiff<B, C>>,
    k: FloatTensor<Autodiff<B, C>>,
    v: FloatTensor<Autodiff<B, C>>,
    hidden: BoolTensor<B>,
    visible: Visible,
    scale: f32,
) -> Pair<Autodiff<B, C>> {
    #[derive(Debug)]
    struct Attention;
    impl<B: LlmOps> Backward<B, 3> for Attention {
        type State = Kept<B>;

        fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
            let Kept { inputs: [q, k, v], out, saved, hidden, visible, scale } = ops.state;
            let dout = grads.consume::<B>(&ops.node);
            let (dq, dk, dv) = B::attention_backward(q, k, v, out, saved, dout, hidden, visible, scale);
            for (parent, gradient) in ops.parents.into_iter().zip([dq, dk, dv]) {
                if let Some(parent) = parent {
                    grads.register::<B>(parent.id, gradient);
                }
            }
        }
    }
    let nodes = [q.node(), k.node(), v.node()];
    let (q, k, v) = (q.into_primitive(), k.into_primitive(), v.into_primitive());
    match Attention.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let inputs = [q.clone(), k.clone(), v.clone()];
            let (out, saved) = <B as LlmOps>::attention(q, k, v, hidden.clone(), visible, scale);
            let kept = Kept { inputs, out: out.clone(), saved: saved.clone(), hidden, visible, scale };
            (prep.finish(kept, out), <Autodiff<B, C> as AutodiffBackend>::from_inner(saved))
        }
        OpsKind::UnTracked(prep) => {
            let (out, saved) = <B as LlmOps>::attention(q, k, v, hidden, visible, scale);
            (prep.finish(out), <Autodiff<B, C> as AutodiffBackend>::from_inner(saved))
        }
    }
}
