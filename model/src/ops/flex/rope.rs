//! Rotary embedding, in place where no one else holds the tensor.

use burn::backend::flex::FlexTensor;

use super::buffer::{by_head, dense, heads, unset, values, with_rows};
use super::parallel::{self, Shared};
use super::simd::{kernel, load_at, store_at};

/// Time steps of one task.
const STEPS: usize = 64;

/// x_bhtd, cos_btk, sin_btk (b of the angles may be 1) -> rotated x_bhtd.
pub(super) fn forward(x: FlexTensor, cos: FlexTensor, sin: FlexTensor) -> FlexTensor {
    let (mut x, cos, sin) = (with_rows(x), dense(cos), dense(sin));
    let [b, h, t, d] = x.layout().shape().dims();
    let rows = Rows { h, t, d, one_angle: cos.layout().shape()[0] == 1, cos: values(&cos), sin: values(&sin) };
    // Strides of 0 mean rows that stand for several: those cannot be turned in place.
    let strides = heads(&x).strides;
    if x.is_unique() && [b, h, t].iter().zip(strides).all(|(&n, stride)| n == 1 || stride > 0) {
        let from = x.layout().start_offset();
        let buffer = Shared::new(&mut x.storage_mut::<f32>()[from..]);
        rows.each(b, |b, t| {
            for h in 0..h {
                let at = b * strides[0] + h * strides[1] + t * strides[2];
                // SAFETY: rows of a tensor without strides of 0 do not overlap, and each is visited once.
                let row = unsafe { buffer.part(at, at + d) };
                let (cos, sin) = rows.angles(b, t);
                rotate_in_place(row, cos, sin);
            }
        });
        return x;
    }
    let source = heads(&x);
    let mut out = unset(b * h * t * d);
    let buffer = Shared::new(&mut out);
    rows.each(b, |b, step| {
        let (cos, sin) = rows.angles(b, step);
        for head in 0..h {
            let from = source.at(b, head, step);
            let to = ((b * t + step) * h + head) * d;
            // SAFETY: one row of the output for each (b, t, h), and each is visited once.
            let row = unsafe { buffer.part(to, to + d) };
            rotate(&source.values[from..from + d], cos, sin, row);
        }
    });
    by_head(out, [b, h, t, d])
}

/// What all rows share.
struct Rows<'a> {
    h: usize,
    t: usize,
    d: usize,
    one_angle: bool,
    cos: &'a [f32],
    sin: &'a [f32],
}

impl Rows<'_> {
    /// The cosines and sines of a batch row and time step.
    fn angles(&self, b: usize, t: usize) -> (&[f32], &[f32]) {
        let k = self.d / 2;
        let at = (if self.one_angle { 0 } else { b * self.t } + t) * k;
        (&self.cos[at..at + k], &self.sin[at..at + k])
    }

    /// Calls `work` for every batch row and time step.
    fn each(&self, b: usize, work: impl Fn(usize, usize) + Sync) {
        let blocks = self.t.div_ceil(STEPS);
        let block = |task: usize| {
            let (b, block) = (task / blocks, task % blocks);
            (block * STEPS..((block + 1) * STEPS).min(self.t)).for_each(|t| work(b, t));
        };
        if b * self.h * self.t * self.d <= parallel::SMALL {
            (0..b * blocks).for_each(block);
        } else {
            parallel::each(b * blocks, block);
        }
    }
}

kernel! {
    fn rotate(s, x: &[f32], cos: &[f32], sin: &[f32], out: &mut [f32]) {
        let (left, right) = x.split_at(cos.len());
        let (out_left, out_right) = out.split_at_mut(cos.len());
        for at in (0..cos.len()).step_by(S::LANES) {
            let (left, right) = (load_at(s, left, at), load_at(s, right, at));
            let (cos, sin) = (load_at(s, cos, at), load_at(s, sin, at));
            store_at(s, out_left, at, s.sub(s.mul(left, cos), s.mul(right, sin)));
            store_at(s, out_right, at, s.add(s.mul(right, cos), s.mul(left, sin)));
        }
    }
}

kernel! {
    fn rotate_in_place(s, x: &mut [f32], cos: &[f32], sin: &[f32]) {
        let (lefts, rights) = x.split_at_mut(cos.len());
        for at in (0..cos.len()).step_by(S::LANES) {
            let (left, right) = (load_at(s, lefts, at), load_at(s, rights, at));
            let (cos, sin) = (load_at(s, cos, at), load_at(s, sin, at));
            store_at(s, lefts, at, s.sub(s.mul(left, cos), s.mul(right, sin)));
            store_at(s, rights, at, s.add(s.mul(right, cos), s.mul(left, sin)));
        }
    }
}
