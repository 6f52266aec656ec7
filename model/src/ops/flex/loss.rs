//! Output head and cross-entropy: logits of a chunk of rows, their softmax and their gradient in one buffer.

use burn::backend::flex::FlexTensor;
use burn::tensor::Shape;

use super::attention::scale_row;
use super::buffer::{dense, tensor, unset, values};
use super::parallel::{self, Shared};
use super::product::{Matrix, multiply};
use super::simd::{exp, kernel, load_at, store_at};
use crate::ops::LossOptions;

/// What the loss reads: hidden_nc, head_vc, targets_n.
pub(super) struct Inputs {
    hidden: FlexTensor,
    head: FlexTensor,
    targets: Vec<usize>,
    options: LossOptions,
}

/// Negative log-likelihoods, logarithms of Z, and, where asked for, the gradients of hidden and head.
struct Scored {
    nll: Vec<f32>,
    log_z: Vec<f32>,
    dhidden: Vec<f32>,
    dhead: Option<Vec<f32>>,
}

/// Gradients are asked for: of the head as well, or not.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    weights: &'a [f32],
    head: bool,
}

impl Inputs {
    pub(super) fn new(hidden: FlexTensor, head: FlexTensor, targets: Vec<usize>, options: LossOptions) -> Self {
        Self { hidden: dense(hidden), head: dense(head), targets, options }
    }

    /// -> (nll_n, log_z_n).
    pub(super) fn token_nll(&self) -> (FlexTensor, FlexTensor) {
        let scored = self.score(None);
        let n = Shape::new([scored.nll.len()]);
        (tensor(scored.nll, n.clone()), tensor(scored.log_z, n))
    }

    /// weights_n -> (loss (1), z-loss in it (1)).
    pub(super) fn loss(&self, weights: FlexTensor) -> (FlexTensor, FlexTensor) {
        self.sums(&self.score(None), values(&dense(weights)))
    }

    /// weights_n -> (loss (1), z-loss in it (1), dhidden_nc, dhead_vc or one zero).
    pub(super) fn with_gradients(
        &self,
        weights: FlexTensor,
        head: bool,
    ) -> (FlexTensor, FlexTensor, FlexTensor, FlexTensor) {
        let weights = dense(weights);
        let weights = values(&weights);
        let scored = self.score(Some(Wanted { weights, head }));
        let (loss, z) = self.sums(&scored, weights);
        let dhead = match scored.dhead {
            Some(dhead) => tensor(dhead, self.head.layout().shape().clone()),
            None => tensor(vec![0.0], Shape::new([1])),
        };
        (loss, z, tensor(scored.dhidden, self.hidden.layout().shape().clone()), dhead)
    }

    /// Weighted sums in the order of the rows, in f64.
    fn sums(&self, scored: &Scored, weights: &[f32]) -> (FlexTensor, FlexTensor) {
        let weighted = |values: &mut dyn Iterator<Item = f64>| -> f64 {
            weights.iter().zip(values).map(|(&w, x)| f64::from(w) * x).sum()
        };
        let nll = weighted(&mut scored.nll.iter().map(|&x| f64::from(x)));
        let c = f64::from(self.options.z_loss);
        let z = if c == 0.0 { 0.0 } else { c * weighted(&mut scored.log_z.iter().map(|&x| f64::from(x).powi(2))) };
        let one = |x: f64| tensor(vec![x as f32], Shape::new([1]));
        (one(nll + z), one(z))
    }

    fn score(&self, wanted: Option<Wanted<'_>>) -> Scored {
        let ([n, c], [v, _]) = (self.hidden.layout().shape().dims(), self.head.layout().shape().dims());
        let (hidden, head) = (values(&self.hidden), Matrix::rows(values(&self.head), c));
        let (mut nll, mut log_z) = (unset(n), unset(n));
        let mut dhidden = unset(if wanted.is_some() { n * c } else { 0 });
        let mut dhead = wanted.filter(|wanted| wanted.head).map(|_| unset(v * c));
        self.each_chunk(|from, logits| {
            let rows = logits.len() / v;
            let of_chunk = from..from + rows;
            let weights = wanted.map(|wanted| &wanted.weights[of_chunk.clone()]);
            self.score_rows(logits, from, weights, &mut nll[of_chunk.clone()], &mut log_z[of_chunk]);
            if wanted.is_none() {
                return;
            }
            let dlogits = Matrix::rows(logits, v);
            // SAFETY: rows from.. of dhidden; `rows` rows of gradients and the whole head.
            unsafe {
                let target = dhidden[from * c..].as_mut_ptr();
                multiply([rows, c, v], target, c, (dlogits, head), false);
            }
            if let Some(dhead) = &mut dhead {
                let chunk = Matrix::rows(&hidden[from * c..], c);
                // SAFETY: dhead has v rows of c; `rows` rows of gradients and of hidden.
                unsafe {
                    let operands = (dlogits.transposed(), chunk);
                    multiply([v, c, rows], dhead.as_mut_ptr(), c, operands, from > 0);
                }
            }
        });
        if n == 0 {
            dhead.iter_mut().for_each(|dhead| dhead.fill(0.0));
        }
        Scored { nll, log_z, dhidden, dhead }
    }

    /// Gives `work` the logits of one chunk of rows after another, before the cap, and which row is their first.
    fn each_chunk(&self, mut work: impl FnMut(usize, &mut [f32])) {
        let ([n, c], [v, _]) = (self.hidden.layout().shape().dims(), self.head.layout().shape().dims());
        let (hidden, head) = (values(&self.hidden), Matrix::rows(values(&self.head), c));
        let size = self.options.chunk.clamp(1, n.max(1));
        let mut logits = unset(size * v);
        for from in (0..n).step_by(size) {
            let rows = (n - from).min(size);
            let logits = &mut logits[..rows * v];
            let operands = (Matrix::rows(&hidden[from * c..], c), head.transposed());
            // SAFETY: `rows` rows of hidden, the whole head; `logits` holds rows v.
            unsafe { multiply([rows, v, c], logits.as_mut_ptr(), v, operands, false) };
            work(from, logits);
        }
    }

    /// -> (nll_n, entropy_n, mean_logit_n, greedy_n).
    pub(super) fn token_scores(&self) -> (FlexTensor, FlexTensor, FlexTensor, FlexTensor) {
        let ([n, _], [v, _]) = (self.hidden.layout().shape().dims::<2>(), self.head.layout().shape().dims::<2>());
        let mut all = unset(4 * n);
        self.each_chunk(|from, logits| {
            let of_chunk = Shared::new(&mut all[4 * from..4 * (from + logits.len() / v)]);
            let rows = (parallel::CHUNK / v.max(1)).max(1);
            parallel::chunks([logits], rows * v, |i, [logits]| {
                for (j, logits) in logits.chunks_exact_mut(v).enumerate() {
                    let row = i * rows + j;
                    let scores = self.describe_row(logits, self.targets[from + row]);
                    // SAFETY: each row is one task's, and the slice is borrowed until the tasks end.
                    unsafe { of_chunk.part(4 * row, 4 * row + 4) }.copy_from_slice(&scores);
                }
            });
        });
        let column = |k: usize| tensor(all.iter().skip(k).step_by(4).copied().collect(), Shape::new([n]));
        (column(0), column(1), column(2), column(3))
    }

    /// Logits of one row -> nll, entropy, mean logit, and 1 where none is greater than the target's.
    fn describe_row(&self, logits: &mut [f32], target: usize) -> [f32; 4] {
        if self.options.softcap != 0.0 {
            cap_row(logits, self.options.softcap);
        }
        let max = max_row(logits);
        let log = sum_exp(logits, max).ln();
        let [entropy, sum] = entropy_row(logits, max + log);
        let at_target = logits[target] - max;
        [log - at_target, entropy, sum / logits.len() as f32, if at_target >= 0.0 { 1.0 } else { 0.0 }]
    }

    /// Logits -> nll and log Z of each row, and the logits' gradients in their place where weights are given.
    fn score_rows(
        &self,
        logits: &mut [f32],
        from: usize,
        weights: Option<&[f32]>,
        nll: &mut [f32],
        log_z: &mut [f32],
    ) {
        let v = self.head.layout().shape()[0];
        let [nll, log_z] = [nll, log_z].map(Shared::new);
        let rows = (parallel::CHUNK / v.max(1)).max(1);
        parallel::chunks([logits], rows * v, |i, [logits]| {
            for (j, logits) in logits.chunks_exact_mut(v).enumerate() {
                let row = i * rows + j;
                let target = self.targets[from + row];
                let weight = weights.map(|weights| weights[row]);
                let (row_nll, row_log_z) = self.score_row(logits, target, weight);
                // SAFETY: each row is one task's, and the slices are borrowed until the tasks end.
                unsafe {
                    nll.part(row, row + 1)[0] = row_nll;
                    log_z.part(row, row + 1)[0] = row_log_z;
                }
            }
        });
    }

    fn score_row(&self, logits: &mut [f32], target: usize, weight: Option<f32>) -> (f32, f32) {
        let LossOptions { z_loss, softcap, .. } = self.options;
        if softcap != 0.0 {
            cap_row(logits, softcap);
        }
        let max = max_row(logits);
        let at_target = logits[target] - max;
        let Some(weight) = weight else {
            let log = sum_exp(logits, max).ln();
            return (log - at_target, log + max);
        };
        if softcap != 0.0 {
            let log = sum_exp(logits, max).ln();
            let log_z = log + max;
            let slope = weight * (1.0 + 2.0 * z_loss * log_z);
            let target_slope = weight * (1.0 - (logits[target] / softcap).powi(2));
            capped_gradient(logits, log_z, slope, softcap);
            logits[target] -= target_slope;
            return (log - at_target, log_z);
        }
        let sum = exp_row(logits, max);
        let log = sum.ln();
        let log_z = log + max;
        scale_row(logits, weight * (1.0 + 2.0 * z_loss * log_z) / sum);
        logits[target] -= weight;
        (log - at_target, log_z)
    }
}

kernel! {
    /// x -> cap tanh(x / cap), with tanh(y) = 1 - 2 / (e^2y + 1).
    fn cap_row(s, x: &mut [f32], cap: f32) {
        let (one, two, cap) = (s.splat(1.0), s.splat(2.0), s.splat(cap));
        for at in (0..x.len()).step_by(S::LANES) {
            let y = s.div(load_at(s, x, at), cap);
            let e = exp(s, s.mul(y, two));
            store_at(s, x, at, s.mul(cap, s.sub(one, s.div(two, s.add(e, one)))));
        }
    }
}

kernel! {
    fn max_row(s, x: &[f32]) -> f32 {
        let mut largest = [s.splat(f32::NEG_INFINITY); 2];
        let whole = x.len() / S::LANES * S::LANES;
        for (i, at) in (0..whole).step_by(S::LANES).enumerate() {
            largest[i % 2] = s.max(load_at(s, x, at), largest[i % 2]);
        }
        let largest = s.largest(s.max(largest[0], largest[1]));
        x[whole..].iter().fold(largest, |max, &x| max.max(x))
    }
}

kernel! {
    /// x -> e^(x - shift); -> their sum.
    fn exp_row(s, x: &mut [f32], shift: f32) -> f32 {
        let shift = s.splat(shift);
        let mut sum = s.splat(0.0);
        let whole = x.len() / S::LANES * S::LANES;
        for at in (0..whole).step_by(S::LANES) {
            let e = exp(s, s.sub(load_at(s, x, at), shift));
            store_at(s, x, at, e);
            sum = s.add(sum, e);
        }
        if whole < x.len() {
            let e = exp(s, s.sub(load_at(s, x, whole), shift));
            store_at(s, x, whole, e);
        }
        s.sum(sum) + x[whole..].iter().sum::<f32>()
    }
}

kernel! {
    /// The sum of e^(x - shift).
    fn sum_exp(s, x: &[f32], shift: f32) -> f32 {
        let shift = s.splat(shift);
        let mut sum = s.splat(0.0);
        let whole = x.len() / S::LANES * S::LANES;
        for at in (0..whole).step_by(S::LANES) {
            sum = s.add(sum, exp(s, s.sub(load_at(s, x, at), shift)));
        }
        // The bits of `exp_row`: the loss is the same with gradients and without.
        let mut rest = [0.0; 16];
        let rest = &mut rest[..x.len() - whole];
        if whole < x.len() {
            store_at(s, rest, 0, exp(s, s.sub(load_at(s, x, whole), shift)));
        }
        s.sum(sum) + rest.iter().sum::<f32>()
    }
}

kernel! {
    /// Logits x and the logarithm of their Z -> the entropy of the distribution, the sum of the logits.
    fn entropy_row(s, x: &[f32], log_z: f32) -> [f32; 2] {
        let log_z_v = s.splat(log_z);
        let (mut entropy, mut sum) = (s.splat(0.0), s.splat(0.0));
        let whole = x.len() / S::LANES * S::LANES;
        for at in (0..whole).step_by(S::LANES) {
            let x_v = load_at(s, x, at);
            let log_p = s.sub(x_v, log_z_v);
            entropy = s.mul_add(exp(s, log_p), log_p, entropy);
            sum = s.add(sum, x_v);
        }
        let (mut entropy, mut sum) = (s.sum(entropy), s.sum(sum));
        for &x in &x[whole..] {
            let log_p = x - log_z;
            entropy += log_p.exp() * log_p;
            sum += x;
        }
        [-entropy, sum]
    }
}

kernel! {
    /// Capped logits x -> slope e^(x - log_z) (1 - (x / cap)^2).
    fn capped_gradient(s, x: &mut [f32], log_z: f32, slope: f32, cap: f32) {
        let (one, log_z, slope, cap) = (s.splat(1.0), s.splat(log_z), s.splat(slope), s.splat(cap));
        for at in (0..x.len()).step_by(S::LANES) {
            let x_v = load_at(s, x, at);
            let tanh = s.div(x_v, cap);
            let p = s.mul(slope, exp(s, s.sub(x_v, log_z)));
            store_at(s, x, at, s.mul(p, s.sub(one, s.mul(tanh, tanh))));
        }
    }
}
