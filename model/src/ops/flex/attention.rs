//! Attention by blocks of queries and keys (FlashAttention's order, Dao 2023, arXiv:2307.08691): the scores
//! exist one block at a time, and backward computes them again from the logarithm of each row's sum.
//!
//! Every query head is a task forward; backward, every key-value head is one, so that each gradient is summed
//! by one task in one order. Blocks that are hidden as a whole are passed over. Queries, keys, values and
//! gradients are read by strides, as the projections leave them.

use std::ops::Range;

use burn::backend::flex::FlexTensor;
use burn::tensor::Shape;

use super::buffer::{Heads, by_head, heads, tensor, unset, values, with_rows};
use super::parallel::{self, Shared};
use super::product::{Matrix, multiply_alone};
use super::simd::{exp, kernel, load_at, store_at};
use crate::ops::attention::Visible;

/// Queries of one block.
const QUERIES: usize = 64;
/// Keys of one block: with `QUERIES` rows, 128 KiB of scores.
const KEYS: usize = 512;
/// Multiplications of the whole op below which the calling thread does it alone.
const SMALL: usize = 1 << 20;

/// q_bhtd, k_bgsd, v_bgsd, hidden_xts -> (out_bhtd, log_sum_bht): the logarithm of the sum of exponentials of
/// each query's scores.
pub(super) fn forward(
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    hidden: FlexTensor,
    visible: Visible,
    scale: f32,
) -> (FlexTensor, FlexTensor) {
    let (q, k, v) = (with_rows(q), with_rows(k), with_rows(v));
    let seen = Seen::new(&q, &k, hidden, visible);
    let [b, h, t, d] = q.layout().shape().dims();
    let group = h / k.layout().shape()[1];
    let (queries, keys, vals) = (heads(&q), heads(&k), heads(&v));
    let (mut out, mut log_sum) = (unset(b * h * t * d), unset(b * h * t));
    let (shared_out, shared_sum) = (Shared::new(&mut out), Shared::new(&mut log_sum));
    let blocks = t.div_ceil(QUERIES);
    let task = |task: usize| {
        let (row, block) = (task / blocks, task % blocks);
        let (row, head) = (row / h, row % h);
        let rows = block * QUERIES..((block + 1) * QUERIES).min(t);
        // SAFETY: each task has its own queries, and the buffers outlive the tasks.
        let log_sum =
            unsafe { shared_sum.part((row * h + head) * t + rows.start, (row * h + head) * t + rows.end) };
        let place = Place { start: shared_out.at(((row * t + rows.start) * h + head) * d), stride: h * d, d };
        let at = [queries.at(row, head, rows.start), keys.at(row, head / group, 0), vals.at(row, head / group, 0)];
        forward_block(&seen, row, rows, [&queries, &keys, &vals], at, scale, place, log_sum);
    };
    run(b * h * t * seen.s * d, b * h * blocks, task);
    (by_head(out, [b, h, t, d]), tensor(log_sum, Shape::new([b, h, t])))
}

/// Rows of d floats that one task writes.
#[derive(Clone, Copy)]
struct Place {
    start: *mut f32,
    stride: usize,
    d: usize,
}

impl Place {
    /// # Safety
    /// Row `i` must be this task's, and not borrowed elsewhere.
    unsafe fn row<'a>(self, i: usize) -> &'a mut [f32] {
        // SAFETY: rows of one task are within the buffer; the caller promises the rest.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(i * self.stride), self.d) }
    }
}

#[allow(clippy::too_many_arguments)]
fn forward_block(
    seen: &Seen,
    row: usize,
    rows: Range<usize>,
    [q, k, v]: [&Heads<'_>; 3],
    [q_at, k_at, v_at]: [usize; 3],
    scale: f32,
    out: Place,
    log_sum: &mut [f32],
) {
    let (m, d) = (rows.len(), out.d);
    let mut maxima = [f32::NEG_INFINITY; QUERIES];
    let mut sums = [0.0f32; QUERIES];
    let keys = seen.keys(row, rows.clone());
    let mut scores = unset(m * KEYS.min(keys.len()));
    let mut from = keys.start;
    while from < keys.end {
        let to = (from + KEYS).min(keys.end);
        let n = to - from;
        let queries = Matrix::rows(&q.values[q_at..], q.strides[2]);
        let block = Matrix::rows(&k.values[k_at + from * k.strides[2]..], k.strides[2]);
        // SAFETY: m queries and n keys of d floats, at their strides; `scores` holds m n.
        unsafe { multiply_alone([m, n, d], scores.as_mut_ptr(), n, (queries, block.transposed()), scale, false) };
        let first = from == keys.start;
        for (i, scores) in scores.chunks_exact_mut(n).take(m).enumerate() {
            let shown = seen.of(row, rows.start + i, from..to);
            shown.hide(scores, f32::NEG_INFINITY);
            let (max, sum, factor) = softmax_row(scores, maxima[i], sums[i]);
            (maxima[i], sums[i]) = (max, sum);
            if !first && factor != 1.0 {
                // SAFETY: row i of this task's own block.
                scale_row(unsafe { out.row(i) }, factor);
            }
        }
        let weights = Matrix::rows(&scores, n);
        let block = Matrix::rows(&v.values[v_at + from * v.strides[2]..], v.strides[2]);
        // SAFETY: m rows of weights, n values of d floats; m rows of `out` are this task's.
        unsafe { multiply_alone([m, d, n], out.start, out.stride, (weights, block), 1.0, !first) };
        from = to;
    }
    for (i, log_sum) in log_sum.iter_mut().enumerate() {
        // SAFETY: row i of this task's own block.
        scale_row(unsafe { out.row(i) }, 1.0 / sums[i]);
        *log_sum = maxima[i] + sums[i].ln();
    }
}

/// The inputs of `forward`, what it gave, and dout_bhtd -> (dq_bhtd, dk_bgsd, dv_bgsd).
#[allow(clippy::too_many_arguments)]
pub(super) fn backward(
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    out: FlexTensor,
    log_sum: FlexTensor,
    dout: FlexTensor,
    hidden: FlexTensor,
    visible: Visible,
    scale: f32,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    let (q, k, v, out, dout) = (with_rows(q), with_rows(k), with_rows(v), with_rows(out), with_rows(dout));
    let seen = Seen::new(&q, &k, hidden, visible);
    let ([b, h, t, d], [_, g, s, _]) = (q.layout().shape().dims(), k.layout().shape().dims());
    let group = h / g;
    let inputs = Inputs {
        q: heads(&q),
        k: heads(&k),
        v: heads(&v),
        out: heads(&out),
        dout: heads(&dout),
        log_sum: values(&log_sum),
        scale,
    };
    let (mut dq, mut dk, mut dv) = (unset(b * h * t * d), unset(b * g * s * d), unset(b * g * s * d));
    let [shared_q, shared_k, shared_v] = [&mut dq, &mut dk, &mut dv].map(|buffer| Shared::new(buffer));
    let task = |task: usize| {
        let (row, kv) = (task / g, task % g);
        let at = (row * s * g + kv) * d;
        let [dk, dv] = [shared_k, shared_v].map(|keys| Place { start: keys.at(at), stride: g * d, d });
        for j in 0..s {
            // SAFETY: the rows of one key-value head belong to one task; the buffers outlive the tasks.
            unsafe { dk.row(j).fill(0.0) };
            // SAFETY: as above.
            unsafe { dv.row(j).fill(0.0) };
        }
        for head in kv * group..(kv + 1) * group {
            for first in (0..t).step_by(QUERIES) {
                let rows = first..(first + QUERIES).min(t);
                let start = shared_q.at(((row * t + first) * h + head) * d);
                let log_sums = (row * h + head) * t;
                let dq = Place { start, stride: h * d, d };
                backward_block(&seen, &inputs, [row, head, kv], rows, log_sums, [dq, dk, dv]);
            }
        }
    };
    run(b * h * t * s * d, b * g, task);
    (by_head(dq, [b, h, t, d]), by_head(dk, [b, g, s, d]), by_head(dv, [b, g, s, d]))
}

/// What backward reads.
struct Inputs<'a> {
    q: Heads<'a>,
    k: Heads<'a>,
    v: Heads<'a>,
    out: Heads<'a>,
    dout: Heads<'a>,
    log_sum: &'a [f32],
    scale: f32,
}

/// With p the weights of a block: dv += p^T dout, dp = dout v^T, ds = p (dp - sum(dout out)) scale, dq += ds k,
/// dk += ds^T q.
fn backward_block(
    seen: &Seen,
    x: &Inputs<'_>,
    [row, head, kv]: [usize; 3],
    rows: Range<usize>,
    log_sums: usize,
    [dq, dk, dv]: [Place; 3],
) {
    let (m, d) = (rows.len(), dq.d);
    let block =
        |x: &Heads<'_>, head: usize, at: usize| Matrix::rows(&x.values[x.at(row, head, at)..], x.strides[2]);
    let (q, dout) = (block(&x.q, head, rows.start), block(&x.dout, head, rows.start));
    let mut means = [0.0f32; QUERIES];
    for (mean, i) in means.iter_mut().zip(rows.clone()) {
        let (out, dout) = (x.out.at(row, head, i), x.dout.at(row, head, i));
        *mean = dot(&x.out.values[out..out + d], &x.dout.values[dout..dout + d]);
    }
    let keys = seen.keys(row, rows.clone());
    let size = m * KEYS.min(keys.len());
    let (mut weights, mut slopes) = (unset(size), unset(size));
    let mut from = keys.start;
    while from < keys.end {
        let to = (from + KEYS).min(keys.end);
        let n = to - from;
        let (k, v) = (block(&x.k, kv, from), block(&x.v, kv, from));
        // SAFETY: m queries and n keys of d floats at their strides; both buffers hold m n.
        unsafe {
            multiply_alone([m, n, d], weights.as_mut_ptr(), n, (q, k.transposed()), x.scale, false);
            multiply_alone([m, n, d], slopes.as_mut_ptr(), n, (dout, v.transposed()), 1.0, false);
        }
        let pairs = weights.chunks_exact_mut(n).zip(slopes.chunks_exact_mut(n)).take(m);
        for (i, (weights, slopes)) in pairs.enumerate() {
            seen.of(row, rows.start + i, from..to).hide(weights, f32::NEG_INFINITY);
            let log_sum = x.log_sum[log_sums + rows.start + i];
            gradient_row(weights, slopes, log_sum, means[i], x.scale);
        }
        let (p, ds) = (Matrix::rows(&weights, n), Matrix::rows(&slopes, n));
        // SAFETY: rows from..to of dk and dv and m rows of dq are this task's.
        unsafe {
            multiply_alone(
                [n, d, m],
                dv.start.add(from * dv.stride),
                dv.stride,
                (p.transposed(), dout),
                1.0,
                true,
            );
            multiply_alone([n, d, m], dk.start.add(from * dk.stride), dk.stride, (ds.transposed(), q), 1.0, true);
            multiply_alone([m, d, n], dq.start, dq.stride, (ds, k), 1.0, from != keys.start);
        }
        from = to;
    }
}

/// Runs the tasks, on other threads too where the work of all is worth waking them.
fn run(work: usize, tasks: usize, task: impl Fn(usize) + Sync) {
    if work <= SMALL { (0..tasks).for_each(task) } else { parallel::each(tasks, task) }
}

/// Which keys each query sees.
struct Seen {
    visible: Visible,
    s: usize,
    /// hidden_xts as bytes, read only where documents hide keys, with x and t.
    hidden: Option<(FlexTensor, usize, usize)>,
}

impl Seen {
    fn new(q: &FlexTensor, k: &FlexTensor, hidden: FlexTensor, visible: Visible) -> Self {
        let (t, s) = (q.layout().shape()[2], k.layout().shape()[2]);
        let hidden = visible.documents.then(|| {
            let x = hidden.layout().shape()[0];
            (hidden.to_contiguous(), x, t)
        });
        Self { visible, s, hidden }
    }

    /// The keys that some query of `rows` of batch row `row` may see: none before the place, the window and the document
    /// of each allow.
    fn keys(&self, row: usize, rows: Range<usize>) -> Range<usize> {
        let (first, last) = (self.of_place(rows.start), self.of_place(rows.end - 1));
        let own = rows.map(|i| self.foreign(row, i, first.start..last.end).map_or(0, leading)).min();
        first.start + own.unwrap_or(0)..last.end
    }

    /// The keys that query `i` may see by its place alone; at least itself.
    fn of_place(&self, i: usize) -> Range<usize> {
        let slot = self.visible.past + i;
        let start = self.visible.window.map_or(0, |window| (slot + 1).saturating_sub(window));
        start..(slot + 1).min(self.s)
    }

    /// What query `i` of batch row `row` sees of `keys`.
    fn of(&self, row: usize, i: usize, keys: Range<usize>) -> Shown<'_> {
        let place = self.of_place(i);
        let clamp = |j: usize| j.clamp(keys.start, keys.end) - keys.start;
        Shown { range: clamp(place.start)..clamp(place.end), foreign: self.foreign(row, i, keys) }
    }

    /// Which of `keys` query `i` of batch row `row` does not see, where documents hide some.
    fn foreign(&self, row: usize, i: usize, keys: Range<usize>) -> Option<&[u8]> {
        let (hidden, x, t) = self.hidden.as_ref()?;
        let at = ((if *x == 1 { 0 } else { row }) * t + i) * self.s;
        Some(&hidden.bytes()[at + keys.start..at + keys.end])
    }
}

/// Hidden keys before the earliest visible one, in whole words of eight: no later than it.
fn leading(hidden: &[u8]) -> usize {
    hidden.chunks_exact(8).take_while(|word| word.iter().all(|&byte| byte != 0)).count() * 8
}

/// The visible part of one row of scores.
struct Shown<'a> {
    range: Range<usize>,
    foreign: Option<&'a [u8]>,
}

impl Shown<'_> {
    /// Writes `value` in place of every hidden score.
    fn hide(&self, scores: &mut [f32], value: f32) {
        scores[..self.range.start].fill(value);
        scores[self.range.end..].fill(value);
        if let Some(foreign) = self.foreign {
            scores.iter_mut().zip(foreign).filter(|(_, foreign)| **foreign != 0).for_each(|(x, _)| *x = value);
        }
    }
}

kernel! {
    /// Scores -> exponentials under the new maximum; -> (maximum, sum, factor of what was summed before).
    pub(super) fn softmax_row(s, x: &mut [f32], max: f32, sum: f32) -> (f32, f32, f32) {
        let lowest = s.splat(f32::NEG_INFINITY);
        let mut largest = lowest;
        let whole = x.len() / S::LANES * S::LANES;
        for at in (0..whole).step_by(S::LANES) {
            largest = s.max(load_at(s, x, at), largest);
        }
        let new = x[whole..].iter().fold(s.largest(largest).max(max), |max, &x| max.max(x));
        if new == f32::NEG_INFINITY {
            x.fill(0.0);
            return (new, sum, 1.0);
        }
        let shift = s.splat(new);
        let mut total = s.splat(0.0);
        for at in (0..whole).step_by(S::LANES) {
            let e = exp(s, s.sub(load_at(s, x, at), shift));
            total = s.add(total, e);
            store_at(s, x, at, e);
        }
        let mut rest = 0.0;
        if whole < x.len() {
            let e = exp(s, s.sub(load_at(s, x, whole), shift));
            store_at(s, x, whole, e);
            rest = x[whole..].iter().sum();
        }
        let factor = (max - new).exp();
        (new, sum * factor + (s.sum(total) + rest), factor)
    }
}

kernel! {
    /// Scores -> weights; slopes dp -> ds = p (dp - mean) scale.
    fn gradient_row(s, weights: &mut [f32], slopes: &mut [f32], log_sum: f32, mean: f32, scale: f32) {
        let [log_sum, mean, scale] = [log_sum, mean, scale].map(|x| s.splat(x));
        for at in (0..weights.len()).step_by(S::LANES) {
            let p = exp(s, s.sub(load_at(s, weights, at), log_sum));
            store_at(s, weights, at, p);
            let ds = s.mul(s.mul(p, s.sub(load_at(s, slopes, at), mean)), scale);
            store_at(s, slopes, at, ds);
        }
    }
}

kernel! {
    pub(super) fn scale_row(s, x: &mut [f32], factor: f32) {
        for at in (0..x.len()).step_by(S::LANES) {
            store_at(s, x, at, s.mul(load_at(s, x, at), s.splat(factor)));
        }
    }
}

kernel! {
    fn dot(s, a: &[f32], b: &[f32]) -> f32 {
        let mut sum = s.splat(0.0);
        for at in (0..a.len()).step_by(S::LANES) {
            sum = s.mul_add(load_at(s, a, at), load_at(s, b, at), sum);
        }
        s.sum(sum)
    }
}
