//! Sums in a fixed order, by several threads.

use burn::backend::flex::FlexTensor;
use burn::tensor::Shape;

use super::buffer::{dense, tensor, values};
use super::parallel::{self, CHUNK};
use super::simd::{kernel, load_at};

/// Sum of squares of x_n as (1): chunks, then the chunk sums in order and in f64.
pub(super) fn square_sum(x: FlexTensor) -> FlexTensor {
    let x = dense(x);
    let xs = values(&x);
    let mut parts = vec![0.0; xs.len().div_ceil(CHUNK)];
    let shared = parallel::Shared::new(&mut parts);
    let one = |i: usize| {
        // SAFETY: each task writes its own element.
        let part = unsafe { shared.part(i, i + 1) };
        part[0] = squares(&xs[i * CHUNK..((i + 1) * CHUNK).min(xs.len())]);
    };
    parallel::each(xs.len().div_ceil(CHUNK), one);
    let sum: f64 = parts.iter().map(|&part| f64::from(part)).sum();
    tensor(vec![sum as f32], Shape::new([1]))
}

kernel! {
    fn squares(s, x: &[f32]) -> f32 {
        let mut sums = [s.splat(0.0); 4];
        for (i, at) in (0..x.len()).step_by(S::LANES).enumerate() {
            let v = load_at(s, x, at);
            sums[i % 4] = s.mul_add(v, v, sums[i % 4]);
        }
        s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
    }
}
