//! The processor's own kernels: SIMD, all threads, no copies of operands in another order. They take f32;
//! tensors of other dtypes go through the composed bodies.
//!
//! Results do not depend on the number of threads where the kernels share the work themselves. Large products that the
//! `gemm` crate computes are cut by blocks of its own; equal bits for 1, 2 and 3 threads are tested there, not promised.

mod adamw;
mod attention;
mod buffer;
mod cached;
mod embedding;
mod loss;
mod multiply;
mod norm;
mod parallel;
mod product;
mod qlinear;
mod rope;
mod rows;
mod simd;
mod sums;
mod swiglu;

use std::cell::Cell;
use std::sync::Arc;

use burn::backend::{
    Flex,
    tensor::{BoolTensor, FloatTensor, IntTensor},
};

use super::attention::Visible;
use super::cached::{CacheOperand, Segments};
use super::{AdamWStep, LlmOps, LossOptions, PackedOperand};

thread_local! {
    static COMPOSED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` with the composed bodies in place of the processor's kernels, on this thread: what benchmarks
/// and tests compare with.
pub fn with_composed<R>(work: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            COMPOSED.set(self.0);
        }
    }
    let _restore = Restore(COMPOSED.replace(true));
    work()
}

/// Whether the kernels take these tensors.
fn takes(tensors: &[&FloatTensor<Flex>]) -> bool {
    !COMPOSED.get() && buffer::all_f32(tensors)
}

impl LlmOps for Flex {
    fn linear(x: FloatTensor<Self>, w: FloatTensor<Self>, weight_tracked: bool) -> FloatTensor<Self> {
        let _ = weight_tracked;
        if takes(&[&x, &w]) { product::linear(x, w) } else { super::linear::forward::<Self>(x, w) }
    }

    fn linear_input_gradient(dy: FloatTensor<Self>, w: FloatTensor<Self>) -> FloatTensor<Self> {
        if takes(&[&dy, &w]) { product::linear_input(dy, w) } else { super::linear::input_gradient::<Self>(dy, w) }
    }

    fn linear_add(y: FloatTensor<Self>, x: FloatTensor<Self>, w: FloatTensor<Self>) -> FloatTensor<Self> {
        if takes(&[&y, &x, &w]) { product::linear_add(y, x, w) } else { super::low_rank::add::<Self>(y, x, w) }
    }

    fn linear_input_gradient_add(
        dx: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        w: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        if takes(&[&dx, &dy, &w]) {
            product::linear_input_add(dx, dy, w)
        } else {
            super::low_rank::input_gradient_add::<Self>(dx, dy, w)
        }
    }

    fn linear_weight_gradient(dy: FloatTensor<Self>, x: FloatTensor<Self>) -> FloatTensor<Self> {
        if takes(&[&dy, &x]) {
            product::linear_weight(dy, x)
        } else {
            super::linear::weight_gradient::<Self>(dy, x)
        }
    }

    fn qlinear(x: FloatTensor<Self>, w: PackedOperand<Self>) -> FloatTensor<Self> {
        if takes(&[&x]) && qlinear::reads(&w) {
            qlinear::forward(x, w)
        } else {
            super::qlinear::forward::<Self>(x, w)
        }
    }

    fn qlinear_input_gradient(dy: FloatTensor<Self>, w: PackedOperand<Self>) -> FloatTensor<Self> {
        if takes(&[&dy]) && qlinear::reads(&w) {
            qlinear::input_gradient(dy, w)
        } else {
            super::qlinear::input_gradient::<Self>(dy, w)
        }
    }

    fn unpack(w: PackedOperand<Self>) -> FloatTensor<Self> {
        if takes(&[]) && qlinear::reads(&w) { qlinear::dequantize(w) } else { super::qlinear::dense::<Self>(w) }
    }

    fn rms_norm(x: FloatTensor<Self>, gain: FloatTensor<Self>, eps: f32) -> FloatTensor<Self> {
        if takes(&[&x, &gain]) { norm::forward(x, gain, eps) } else { super::norm::forward::<Self>(x, gain, eps) }
    }

    fn rms_norm_backward(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if takes(&[&x, &gain, &dy]) {
            norm::backward(x, gain, dy, eps)
        } else {
            super::norm::backward::<Self>(x, gain, dy, eps)
        }
    }

    fn rope(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        if takes(&[&x, &cos, &sin]) {
            rope::forward(x, cos, sin)
        } else {
            super::rope::forward::<Self>(x, cos, sin)
        }
    }

    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        if takes(&[&gate, &up]) { swiglu::forward(gate, up) } else { super::swiglu::forward::<Self>(gate, up) }
    }

    fn swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if takes(&[&gate, &up, &dy]) {
            swiglu::backward(gate, up, dy)
        } else {
            super::swiglu::backward::<Self>(gate, up, dy)
        }
    }

    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        hidden: BoolTensor<Self>,
        visible: Visible,
        scale: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if takes(&[&q, &k, &v]) {
            return attention::forward(q, k, v, hidden, visible, scale);
        }
        // libm's exp returns at once for minus infinity and takes a slow path for any other underflow.
        super::attention::forward::<Self>(q, k, v, hidden, visible, scale, f32::NEG_INFINITY)
    }

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
        // The forward's choice is seen in what it saved: one number for each query, or all probabilities.
        if buffer::all_f32(&[&q, &k, &v, &out, &saved, &dout]) && saved.layout().num_dims() == 3 {
            return attention::backward(q, k, v, out, saved, dout, hidden, visible, scale);
        }
        super::attention::backward::<Self>(q, k, v, saved, dout, scale)
    }

    fn write_slots(
        cache: CacheOperand<Self>,
        new: FloatTensor<Self>,
        slots: IntTensor<Self>,
    ) -> CacheOperand<Self> {
        match (takes(&[&new]) && cached::reads(&cache)).then(|| embedding::indices(&slots)).flatten() {
            Some(slots) => cached::write(cache, &new, &slots),
            None => super::cached::write::<Self>(cache, new, slots),
        }
    }

    fn cached_attention(
        q: FloatTensor<Self>,
        keys: CacheOperand<Self>,
        values: CacheOperand<Self>,
        segments: Arc<Segments>,
        window: Option<usize>,
        scale: f32,
    ) -> FloatTensor<Self> {
        if takes(&[&q]) && cached::reads(&keys) && cached::reads(&values) {
            cached::attend(q, &keys, &values, &segments, window, scale)
        } else {
            super::cached::attend::<Self>(q, keys, values, &segments, window, scale)
        }
    }

    fn token_nll(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: IntTensor<Self>,
        options: LossOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        match takes(&[&hidden, &head]).then(|| embedding::indices(&targets)).flatten() {
            Some(ids) => loss::Inputs::new(hidden, head, ids, options).token_nll(),
            None => super::loss::token_nll_forward::<Self>(hidden, head, targets, options),
        }
    }

    fn token_scores(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: IntTensor<Self>,
        head_tracked: bool,
        options: LossOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let _ = head_tracked;
        match takes(&[&hidden, &head]).then(|| embedding::indices(&targets)).flatten() {
            Some(ids) => loss::Inputs::new(hidden, head, ids, options).token_scores(),
            None => super::scores::forward::<Self>(hidden, head, targets, options),
        }
    }

    fn cross_entropy(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        head_tracked: bool,
        options: LossOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let _ = head_tracked;
        match takes(&[&hidden, &head, &weights]).then(|| embedding::indices(&targets)).flatten() {
            Some(ids) => loss::Inputs::new(hidden, head, ids, options).loss(weights),
            None => super::loss::forward::<Self>(hidden, head, targets, weights, options),
        }
    }

    fn cross_entropy_with_gradients(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        head_tracked: bool,
        options: LossOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        match takes(&[&hidden, &head, &weights]).then(|| embedding::indices(&targets)).flatten() {
            Some(ids) => loss::Inputs::new(hidden, head, ids, options).with_gradients(weights, head_tracked),
            None => super::loss::with_gradients::<Self>(hidden, head, targets, weights, head_tracked, options),
        }
    }

    fn scale_gradient(gradient: FloatTensor<Self>, factor: FloatTensor<Self>) -> FloatTensor<Self> {
        // The loss is nearly always what backward starts from: its factor is 1.
        if takes(&[&gradient, &factor]) && buffer::values(&buffer::dense(factor.clone())) == [1.0] {
            return gradient;
        }
        super::loss::scaled::<Self>(gradient, factor)
    }

    fn embedding_gradient(
        table: FloatTensor<Self>,
        ids: IntTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let own = takes(&[&table, &dy]).then(|| embedding::backward(table.layout().shape(), &ids, &dy)).flatten();
        own.unwrap_or_else(|| super::embedding::backward::<Self>(table, ids, dy))
    }

    fn square_sum(x: FloatTensor<Self>) -> FloatTensor<Self> {
        if takes(&[&x]) { sums::square_sum(x) } else { super::sums::squares::<Self>(x) }
    }

    fn adamw_step(
        p: FloatTensor<Self>,
        g: FloatTensor<Self>,
        m: FloatTensor<Self>,
        v: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        if takes(&[&p, &g, &m, &v]) {
            adamw::step(p, g, m, v, step)
        } else {
            super::adamw::step::<Self>(p, g, m, v, step)
        }
    }
}
