//! AdamW in one pass over parameter, gradient and moments, in place.

use burn::backend::flex::FlexTensor;

use super::buffer::{dense, values, values_mut};
use super::parallel::{self, CHUNK};
use super::simd::{kernel, load_at, store_at};
use crate::ops::AdamWStep;

/// p_n, g_n, m_n, v_n -> the new (p_n, m_n, v_n), in the buffers of the old where no one else holds them.
pub(super) fn step(
    p: FlexTensor,
    g: FlexTensor,
    m: FlexTensor,
    v: FlexTensor,
    step: AdamWStep,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    let (mut p, g, mut m, mut v) = (dense(p), dense(g), dense(m), dense(v));
    let gradient = values(&g);
    let constants = Constants::new(&step);
    parallel::chunks([values_mut(&mut p), values_mut(&mut m), values_mut(&mut v)], CHUNK, |i, [p, m, v]| {
        update(p, &gradient[i * CHUNK..][..p.len()], m, v, constants);
    });
    (p, m, v)
}

/// What the formula needs, in f32.
#[derive(Clone, Copy)]
struct Constants {
    scale: f32,
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    root: f32,
    eps: f32,
    keep: f32,
    rate: f32,
}

impl Constants {
    fn new(step: &AdamWStep) -> Self {
        Self {
            scale: step.gradient_scale as f32,
            beta1: step.beta1 as f32,
            rest1: (1.0 - step.beta1) as f32,
            beta2: step.beta2 as f32,
            rest2: (1.0 - step.beta2) as f32,
            root: step.correction2.sqrt() as f32,
            eps: step.eps as f32,
            keep: step.decay as f32,
            rate: (step.lr / step.correction1) as f32,
        }
    }
}

kernel! {
    fn update(s, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], c: Constants) {
        let [scale, beta1, rest1, beta2, rest2, root, eps, keep, rate] =
            [c.scale, c.beta1, c.rest1, c.beta2, c.rest2, c.root, c.eps, c.keep, c.rate].map(|x| s.splat(x));
        for at in (0..p.len()).step_by(S::LANES) {
            let g = s.mul(load_at(s, g, at), scale);
            let mean = s.add(s.mul(load_at(s, m, at), beta1), s.mul(g, rest1));
            let square = s.add(s.mul(load_at(s, v, at), beta2), s.mul(s.mul(g, g), rest2));
            let divisor = s.add(s.div(s.sqrt(square), root), eps);
            let kept = s.mul(load_at(s, p, at), keep);
            store_at(s, m, at, mean);
            store_at(s, v, at, square);
            store_at(s, p, at, s.sub(kept, s.mul(s.div(mean, divisor), rate)));
        }
    }
}
