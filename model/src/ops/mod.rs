//! The hot operations of the model, each behind a plain function.
//!
//! One extension trait, [`LlmOps`], holds them for Burn: a composed default body that runs on every
//! backend, a hand-written backward, and an override where a backend has a kernel of its own (`flex/` for the
//! processor). The rest of the crate calls the plain functions (`linear`, `rms_norm`, `rope`, `swiglu`, `qlinear`, `attention`, `cross_entropy`, ...), so a new
//! Burn or a faster kernel touches this folder alone.
//!
//! Shapes: n rows (batch and time folded), b batch, t query time, s key time, h query heads, g key-value
//! heads, d head width, c channels, f feed-forward width, v vocabulary. A name ends in its shape.

mod adamw;
pub mod attention;
mod cached;
mod divergence;
mod embedding;
mod flex;
mod linear;
mod loss;
mod low_rank;
mod norm;
mod qlinear;
mod rope;
mod scores;
mod sums;
mod swiglu;

use std::sync::Arc;

use attention::Visible;
use burn::backend::{
    Autodiff, Backend,
    autodiff::checkpoint::strategy::CheckpointStrategy,
    backend_extension,
    tensor::{BoolTensor, FloatTensor, IntTensor},
};

pub use adamw::{AdamWStep, adamw_step};
pub use attention::{AttentionMask, attention};
#[cfg(test)]
pub(crate) use cached::read_slots;
pub use cached::{CacheOperand, Segment, Segments, cached_attention, write_slots};
pub use divergence::{DivergenceOptions, Headed, divergence};
pub use embedding::embedding;
pub use flex::with_composed;
pub use linear::linear;
pub use loss::{LossOptions, cross_entropy, softcap, token_nll};
pub use low_rank::linear_low_rank;
pub use norm::rms_norm;
pub use qlinear::{PackedOperand, Zeros, dequantize, qlinear};
pub use rope::rope;
pub use scores::{TokenScores, token_scores};
pub use sums::{ordered_sum, square_sum};
pub use swiglu::swiglu;

/// Operations that have a backward of their own. A method's default body is composed of Burn's primitive
/// operations; a backend overrides it where a kernel pays.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "cube"), Autodiff)]
pub trait LlmOps: Backend {
    /// x_ni, w_oi -> y_no. `weight_tracked` says whether a gradient of the weight is wanted, so that a
    /// frozen weight keeps no activations.
    #[fusion(default)]
    fn linear(x: FloatTensor<Self>, w: FloatTensor<Self>, weight_tracked: bool) -> FloatTensor<Self> {
        let _ = weight_tracked;
        linear::forward::<Self>(x, w)
    }

    /// dy_no, w_oi -> dx_ni.
    #[fusion(default)]
    fn linear_input_gradient(dy: FloatTensor<Self>, w: FloatTensor<Self>) -> FloatTensor<Self> {
        linear::input_gradient::<Self>(dy, w)
    }

    /// dy_no, x_ni -> dw_oi.
    #[fusion(default)]
    fn linear_weight_gradient(dy: FloatTensor<Self>, x: FloatTensor<Self>) -> FloatTensor<Self> {
        linear::weight_gradient::<Self>(dy, x)
    }

    /// x_ni and a packed w_oi -> y_no in the dtype of x.
    #[fusion(default)]
    fn qlinear(x: FloatTensor<Self>, #[extension_type] w: PackedOperand<Self>) -> FloatTensor<Self> {
        qlinear::forward::<Self>(x, w)
    }

    /// dy_no and a packed w_oi -> dx_ni in the dtype of dy.
    #[fusion(default)]
    fn qlinear_input_gradient(
        dy: FloatTensor<Self>,
        #[extension_type] w: PackedOperand<Self>,
    ) -> FloatTensor<Self> {
        qlinear::input_gradient::<Self>(dy, w)
    }

    /// A packed w_oi -> w_oi in f32.
    #[fusion(default)]
    fn unpack(#[extension_type] w: PackedOperand<Self>) -> FloatTensor<Self> {
        qlinear::dense::<Self>(w)
    }

    /// x_ni, w_oi, a_ri, b_or -> x wᵀ + scale (x aᵀ) bᵀ, w frozen.
    #[fusion(default)]
    fn linear_low_rank(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self> {
        low_rank::forward::<Self>(x, w, a, b, scale).0
    }

    /// y_no, x_ni, w_oi -> y + x wᵀ.
    #[fusion(default)]
    fn linear_add(y: FloatTensor<Self>, x: FloatTensor<Self>, w: FloatTensor<Self>) -> FloatTensor<Self> {
        low_rank::add::<Self>(y, x, w)
    }

    /// dx_ni, dy_no, w_oi -> dx + dy w.
    #[fusion(default)]
    fn linear_input_gradient_add(
        dx: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        w: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        low_rank::input_gradient_add::<Self>(dx, dy, w)
    }

    /// x_nc, gain_c -> y_nc, normalized in f32.
    #[fusion(default)]
    fn rms_norm(x: FloatTensor<Self>, gain: FloatTensor<Self>, eps: f32) -> FloatTensor<Self> {
        norm::forward::<Self>(x, gain, eps)
    }

    /// x_nc, gain_c, dy_nc -> (dx_nc, dgain_c).
    #[fusion(default)]
    fn rms_norm_backward(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        norm::backward::<Self>(x, gain, dy, eps)
    }

    /// x_bhtd rotated by cos_btk, sin_btk (k = d / 2): pair i is (x_i, x_(i+k)).
    #[fusion(default)]
    fn rope(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        rope::forward::<Self>(x, cos, sin)
    }

    /// gate_nf, up_nf -> silu(gate) * up.
    #[fusion(default)]
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        swiglu::forward::<Self>(gate, up)
    }

    /// gate_nf, up_nf, dy_nf -> (dgate_nf, dup_nf).
    #[fusion(default)]
    fn swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        swiglu::backward::<Self>(gate, up, dy)
    }

    /// q_bhtd, k_bgsd, v_bgsd, hidden_xts (x is 1 or b; true = not visible) -> (out_bhtd, saved).
    /// `visible` says the same as `hidden`, but for documents, without reading it. What `saved` is belongs to
    /// the implementation; it is given back to `attention_backward` (composed: the probabilities).
    #[fusion(default)]
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        hidden: BoolTensor<Self>,
        visible: Visible,
        scale: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        attention::forward::<Self>(q, k, v, hidden, visible, scale, f32::MIN)
    }

    /// The inputs of `attention`, its output, what it saved, and dout_bhtd -> (dq, dk, dv).
    #[fusion(default)]
    #[allow(clippy::too_many_arguments)]
    fn attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        out: FloatTensor<Self>,
        saved: FloatTensor<Self>,
        dout: FloatTensor<Self>,
        hidden: BoolTensor<Self>,
        visible: Visible,
        scale: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let _ = (out, hidden, visible);
        attention::backward::<Self>(q, k, v, saved, dout, scale)
    }

    /// A cache, new_ngd, slots_n -> the cache with the new ones in these slots.
    #[fusion(default)]
    fn write_slots(
        #[extension_type] cache: CacheOperand<Self>,
        new: FloatTensor<Self>,
        slots: IntTensor<Self>,
    ) -> CacheOperand<Self> {
        cached::write::<Self>(cache, new, slots)
    }

    /// q_nhd of the tokens of all segments, one layer's keys and values -> out_nhd. No backward: an operation of
    /// inference, which nothing that trains calls.
    #[fusion(default)]
    fn cached_attention(
        q: FloatTensor<Self>,
        #[extension_type] keys: CacheOperand<Self>,
        #[extension_type] values: CacheOperand<Self>,
        segments: Arc<Segments>,
        window: Option<usize>,
        scale: f32,
    ) -> FloatTensor<Self> {
        cached::attend::<Self>(q, keys, values, &segments, window, scale)
    }

    /// hidden_nc, head_vc, targets_n -> (negative log-likelihood of each target, logarithm of the sum of
    /// exponentials of its logits), each n in f32, by chunks of rows so that no more than `options.chunk`
    /// rows of logits exist at a time. `options.z_loss` is not read.
    #[fusion(default)]
    fn token_nll(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: IntTensor<Self>,
        options: LossOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        loss::token_nll_forward::<Self>(hidden, head, targets, options)
    }

    /// As `token_nll`, with what is reported beside it: -> (negative log-likelihood, entropy, mean logit, 1 where no
    /// other logit is greater), each n in f32; a gradient flows through the likelihood alone.
    #[fusion(default)]
    fn token_scores(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: IntTensor<Self>,
        head_tracked: bool,
        options: LossOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let _ = head_tracked;
        scores::forward::<Self>(hidden, head, targets, options)
    }

    /// As `token_nll`, then weighted and summed: -> (loss (1), the z-loss in it (1)). The second carries no
    /// gradient.
    #[fusion(default)]
    fn cross_entropy(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        head_tracked: bool,
        options: LossOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let _ = head_tracked;
        loss::forward::<Self>(hidden, head, targets, weights, options)
    }

    /// As `cross_entropy`, with the gradients of the loss: -> (loss (1), the z-loss in it (1), dhidden_nc,
    /// dhead_vc). Where the head is not tracked `dhead` is one unused zero.
    #[fusion(default)]
    fn cross_entropy_with_gradients(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        head_tracked: bool,
        options: LossOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        loss::with_gradients::<Self>(hidden, head, targets, weights, head_tracked, options)
    }

    /// Hidden states and heads of a student (nc, vc) and a teacher (ne, ve), weights_n -> the weighted sum of
    /// their divergences (1), by chunks of rows.
    #[fusion(default)]
    fn divergence(
        student: FloatTensor<Self>,
        head: FloatTensor<Self>,
        teacher: FloatTensor<Self>,
        teacher_head: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        head_tracked: bool,
        options: DivergenceOptions,
    ) -> FloatTensor<Self> {
        let _ = head_tracked;
        divergence::forward::<Self>([student, head, teacher, teacher_head, weights], options)
    }

    /// As `divergence`, with the gradients of the student: -> (loss (1), dhidden_nc, dhead_vc). Where the head
    /// is not tracked `dhead` is one unused zero.
    #[fusion(default)]
    fn divergence_with_gradients(
        student: FloatTensor<Self>,
        head: FloatTensor<Self>,
        teacher: FloatTensor<Self>,
        teacher_head: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        head_tracked: bool,
        options: DivergenceOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let operands = [student, head, teacher, teacher_head, weights];
        divergence::with_gradients::<Self>(operands, head_tracked, options)
    }

    /// gradient, factor (1) -> their product: what backward of an op with one number as its output does.
    #[fusion(default)]
    fn scale_gradient(gradient: FloatTensor<Self>, factor: FloatTensor<Self>) -> FloatTensor<Self> {
        loss::scaled::<Self>(gradient, factor)
    }

    /// table_vc, ids_n -> rows_nc.
    #[fusion(default)]
    fn embedding(table: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        Self::float_select(table, 0, ids)
    }

    /// table_vc (for its shape), ids_n, dy_nc -> dtable_vc.
    #[fusion(default)]
    fn embedding_gradient(
        table: FloatTensor<Self>,
        ids: IntTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        embedding::backward::<Self>(table, ids, dy)
    }

    /// x_n -> sum of squares (1), in a fixed order.
    #[fusion(default)]
    fn square_sum(x: FloatTensor<Self>) -> FloatTensor<Self> {
        sums::squares::<Self>(x)
    }

    /// p_n, gradient_n, mean_n, square_n -> the new (p_n, mean_n, square_n).
    #[fusion(default)]
    fn adamw_step(
        p: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        square: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        adamw::step::<Self>(p, gradient, mean, square, step)
    }
}

#[cfg(feature = "cube")]
impl LlmOps for burn_cubecl::CubeBackend {}

impl<B: LlmOps, C: CheckpointStrategy> LlmOps for Autodiff<B, C> {
    fn linear(x: FloatTensor<Self>, w: FloatTensor<Self>, weight_tracked: bool) -> FloatTensor<Self> {
        linear::tracked::<B, C>(x, w, weight_tracked)
    }

    fn qlinear(x: FloatTensor<Self>, w: PackedOperand<Self>) -> FloatTensor<Self> {
        qlinear::tracked::<B, C>(x, w)
    }

    fn unpack(w: PackedOperand<Self>) -> FloatTensor<Self> {
        qlinear::untracked_dense::<B, C>(w)
    }

    fn linear_low_rank(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self> {
        low_rank::tracked::<B, C>(x, w, a, b, scale)
    }

    fn rms_norm(x: FloatTensor<Self>, gain: FloatTensor<Self>, eps: f32) -> FloatTensor<Self> {
        norm::tracked::<B, C>(x, gain, eps)
    }

    fn rope(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        rope::tracked::<B, C>(x, cos, sin)
    }

    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        swiglu::tracked::<B, C>(gate, up)
    }

    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        hidden: BoolTensor<Self>,
        visible: Visible,
        scale: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        attention::tracked::<B, C>(q, k, v, hidden, visible, scale)
    }

    fn token_nll(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: IntTensor<Self>,
        options: LossOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        loss::untracked_nll::<B, C>(hidden, head, targets, options)
    }

    fn token_scores(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: IntTensor<Self>,
        head_tracked: bool,
        options: LossOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        scores::tracked::<B, C>(hidden, head, targets, head_tracked, options)
    }

    fn cross_entropy(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        head_tracked: bool,
        options: LossOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        loss::tracked::<B, C>(hidden, head, targets, weights, head_tracked, options)
    }

    fn divergence(
        student: FloatTensor<Self>,
        head: FloatTensor<Self>,
        teacher: FloatTensor<Self>,
        teacher_head: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        head_tracked: bool,
        options: DivergenceOptions,
    ) -> FloatTensor<Self> {
        divergence::tracked::<B, C>([student, head, teacher, teacher_head, weights], head_tracked, options)
    }

    fn embedding(table: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        embedding::tracked::<B, C>(table, ids)
    }
}

/// Casts a primitive to f32; a no-op where it already is.
fn to_f32<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    cast::<B>(x, burn::tensor::DType::F32)
}

/// Casts a primitive; a no-op where it already has the dtype.
fn cast<B: Backend>(x: FloatTensor<B>, dtype: burn::tensor::DType) -> FloatTensor<B> {
    use burn::backend::TensorMetadata;
    if x.dtype() == dtype { x } else { B::float_cast(x, dtype.into()) }
}

/// Panics when two operands of one op differ in dtype: Burn multiplies such a pair into garbage on a GPU
/// without an error, so every op that mixes operands asks here.
#[track_caller]
fn assert_same_dtype(op: &str, left: burn::tensor::DType, right: burn::tensor::DType) {
    assert!(left == right, "{op}: operands of different dtypes ({left:?} and {right:?})");
}
