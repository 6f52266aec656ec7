//! RMS normalization: one pass over a row forward, two backward.

use burn::backend::flex::FlexTensor;

use super::buffer::{dense, tensor, unset, values, values_mut};
use super::parallel::{self, CHUNK};
use super::simd::{Simd, kernel, load_at, store_at};

/// Rows whose part of dgain is summed together; the parts are added in order.
const GAIN_ROWS: usize = 64;

/// x_nc, gain_c -> y_nc.
pub(super) fn forward(x: FlexTensor, gain: FlexTensor, eps: f32) -> FlexTensor {
    let (x, gain) = (dense(x), dense(gain));
    let shape = x.layout().shape().clone();
    let c = shape[1];
    let (xs, gains) = (values(&x), values(&gain));
    let mut out = unset(xs.len());
    let rows = rows_of(c);
    parallel::chunks([&mut out], rows * c, |i, [out]| {
        forward_rows(&xs[i * rows * c..][..out.len()], gains, eps, out);
    });
    tensor(out, shape)
}

/// x_nc, gain_c, dy_nc -> (dx_nc, dgain_c). dx takes the place of dy where no one else holds it.
pub(super) fn backward(x: FlexTensor, gain: FlexTensor, dy: FlexTensor, eps: f32) -> (FlexTensor, FlexTensor) {
    let (x, gain, mut dy) = (dense(x), dense(gain), dense(dy));
    let c = x.layout().shape()[1];
    let (xs, gains) = (values(&x), values(&gain));
    let blocks = (xs.len() / c.max(1)).div_ceil(GAIN_ROWS);
    let mut parts = vec![0.0; blocks * c];
    {
        let shared = parallel::Shared::new(&mut parts);
        let dys = values_mut(&mut dy);
        parallel::chunks([dys], GAIN_ROWS * c, |i, [dy]| {
            // SAFETY: one part for each chunk, and `parts` outlives the chunks.
            let dgain = unsafe { shared.part(i * c, (i + 1) * c) };
            backward_rows(&xs[i * GAIN_ROWS * c..][..dy.len()], gains, eps, dy, dgain);
        });
    }
    let mut dgain = vec![0.0f32; c];
    for part in parts.chunks_exact(c.max(1)) {
        dgain.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    (dy, tensor(dgain, gain.layout().shape().clone()))
}

/// Rows of one task.
fn rows_of(c: usize) -> usize {
    (CHUNK / c.max(1)).max(1)
}

kernel! {
    fn forward_rows(s, x: &[f32], gain: &[f32], eps: f32, y: &mut [f32]) {
        let c = gain.len();
        for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
            let inverse = s.splat(inverse_rms(s, x, eps));
            for at in (0..c).step_by(S::LANES) {
                let scaled = s.mul(load_at(s, x, at), inverse);
                store_at(s, y, at, s.mul(scaled, load_at(s, gain, at)));
            }
        }
    }
}

kernel! {
    /// Replaces dy by dx and adds to dgain, row after row.
    fn backward_rows(s, x: &[f32], gain: &[f32], eps: f32, dy: &mut [f32], dgain: &mut [f32]) {
        let c = gain.len();
        for (x, dy) in x.chunks_exact(c).zip(dy.chunks_exact_mut(c)) {
            let inverse = inverse_rms(s, x, eps);
            let factor = s.splat(inverse);
            let mut projection = s.splat(0.0);
            for at in (0..c).step_by(S::LANES) {
                let x_hat = s.mul(load_at(s, x, at), factor);
                let dy = load_at(s, dy, at);
                projection = s.mul_add(s.mul(dy, load_at(s, gain, at)), x_hat, projection);
                store_at(s, dgain, at, s.mul_add(dy, x_hat, load_at(s, dgain, at)));
            }
            let projection = s.splat(s.sum(projection) / c as f32);
            for at in (0..c).step_by(S::LANES) {
                let x_hat = s.mul(load_at(s, x, at), factor);
                let gdy = s.mul(load_at(s, dy, at), load_at(s, gain, at));
                store_at(s, dy, at, s.mul(s.sub(gdy, s.mul(x_hat, projection)), factor));
            }
        }
    }
}

/// 1 / sqrt(mean(x^2) + eps).
#[inline(always)]
fn inverse_rms<S: Simd>(s: S, x: &[f32], eps: f32) -> f32 {
    // Two sums, so that one addition need not wait for the last.
    let mut sums = [s.splat(0.0); 2];
    for (i, at) in (0..x.len()).step_by(S::LANES).enumerate() {
        let v = load_at(s, x, at);
        sums[i % 2] = s.mul_add(v, v, sums[i % 2]);
    }
    1.0 / (s.sum(s.add(sums[0], sums[1])) / x.len() as f32 + eps).sqrt()
}
