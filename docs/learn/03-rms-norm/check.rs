//! Compares the reader's normalization with `ops::rms_norm`, forward and backward.

#[cfg_attr(feature = "solution", path = "solution/lib.rs")]
#[cfg_attr(all(feature = "start", not(feature = "solution")), path = "start/lib.rs")]
#[cfg_attr(not(any(feature = "start", feature = "solution")), path = "src/lib.rs")]
mod answer;

use std::process::ExitCode;

use fornax_learn::fornax_model::ops;
use fornax_learn::{Checks, Mistake, Outcome, compare, normals, tensor, values};

/// Rows and channels; neither a power of two, and not equal.
const N: usize = 5;
const C: usize = 7;
/// Large, so that leaving it out shows.
const EPS: f32 = 0.1;
const TOLERANCE: f32 = 1e-5;

fn main() -> ExitCode {
    let mut checks = Checks::new();
    checks.run("rms_norm: 5 rows of 7 channels", forward);
    checks.run("rms_norm: a row of zeros", zeros);
    checks.run("rms_norm_backward: 5 rows of 7 channels", backward);
    checks.finish()
}

/// x_nc with rows of different size, and a mean that is not 0; gain_c.
fn inputs() -> (Vec<f32>, Vec<f32>) {
    let row = |(i, x): (usize, f32)| (x + 0.4) * (1.0 + (i / C) as f32);
    let x_nc = normals("x", N * C).into_iter().enumerate().map(row).collect();
    let gain_c = normals("gain", C).into_iter().map(|g| 1.0 + 0.5 * g).collect();
    (x_nc, gain_c)
}

fn fornax(x_nc: &[f32], gain_c: &[f32]) -> Vec<f32> {
    values(ops::rms_norm(tensor(x_nc, [x_nc.len() / C, C]), tensor(gain_c, [C]), EPS))
}

/// Each row through `divisor`, then times what `gain` makes of the gain.
fn wrong(divisor: impl Fn(&[f32]) -> f32, gain: impl Fn(f32) -> f32) -> Vec<f32> {
    let (x_nc, gain_c) = inputs();
    let rows = x_nc.chunks(C).map(|row| (row, divisor(row)));
    rows.flat_map(|(row, r)| row.iter().zip(&gain_c).map(|(x, g)| x / r * gain(*g)).collect::<Vec<_>>()).collect()
}

fn square(row: &[f32]) -> f32 {
    row.iter().map(|x| x * x).sum::<f32>()
}

fn forward() -> Outcome {
    let (x_nc, gain_c) = inputs();
    let mean_square = |row: &[f32]| square(row) / row.len() as f32;
    let right = |row: &[f32]| (mean_square(row) + EPS).sqrt();
    let whole = (mean_square(&x_nc) + EPS).sqrt();
    let column = |j: usize| (0..N).map(|i| x_nc[i * C + j].powi(2)).sum::<f32>() / N as f32;
    let by_column = (0..N * C).map(|at| x_nc[at] / (column(at % C) + EPS).sqrt() * gain_c[at % C]).collect();
    let mistakes: [Mistake<'_>; 9] = [
        ("your output equals RMSNorm without epsilon", wrong(|row| mean_square(row).sqrt(), |g| g)),
        ("epsilon is added to the root; it belongs under it", wrong(|row| mean_square(row).sqrt() + EPS, |g| g)),
        ("your output equals LayerNorm: the mean is subtracted", layer_norm(&x_nc, &gain_c)),
        ("the squares are summed; the mean divides the sum by c", wrong(|row| (square(row) + EPS).sqrt(), |g| g)),
        ("the gain is missing", wrong(right, |_| 1.0)),
        ("the gain is 1 + gain, as Gemma stores it; here it is the gain itself", wrong(right, |g| 1.0 + g)),
        (
            "the root is missing: the rows are divided by their mean square",
            wrong(|row| mean_square(row) + EPS, |g| g),
        ),
        ("one mean is taken over all rows; each row has its own", wrong(|_| whole, |g| g)),
        ("the mean is taken down the columns; it belongs to a row", by_column),
    ];
    compare(&answer::rms_norm(&x_nc, &gain_c, EPS), &fornax(&x_nc, &gain_c), TOLERANCE, &mistakes)
}

fn layer_norm(x_nc: &[f32], gain_c: &[f32]) -> Vec<f32> {
    let rows = x_nc.chunks(C).flat_map(|row| {
        let mean = row.iter().sum::<f32>() / C as f32;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / C as f32;
        row.iter().zip(gain_c).map(|(x, g)| (x - mean) / (variance + EPS).sqrt() * g).collect::<Vec<_>>()
    });
    rows.collect()
}

fn zeros() -> Outcome {
    let (x_nc, gain_c) = ([0.0; C], inputs().1);
    let found = answer::rms_norm(&x_nc, &gain_c, EPS);
    match found.iter().any(|y| y.is_nan()) {
        true => Err("a row of zeros gives NaN: 0 is divided by 0, which epsilon under the root prevents".into()),
        false => compare(&found, &fornax(&x_nc, &gain_c), TOLERANCE, &[]),
    }
}

fn backward() -> Outcome {
    let ((x_nc, gain_c), dy_nc) = (inputs(), normals("dy", N * C));
    let x = tensor(&x_nc, [N, C]).autodiff().require_grad();
    let y = ops::rms_norm(x.clone(), tensor(&gain_c, [C]).autodiff(), EPS);
    let gradients = (y * tensor(&dy_nc, [N, C]).autodiff()).sum().backward();
    let expected = values(x.grad(&gradients).ok_or("Fornax's operation gave no gradient")?);
    let rms = |row: &[f32]| (square(row) / C as f32 + EPS).sqrt();
    let terms = |projection: f32, power: i32, with_gain: bool| -> Vec<f32> {
        let rows = x_nc.chunks(C).zip(dy_nc.chunks(C));
        let dx = rows.flat_map(|(x, dy)| {
            let (r, g) = (rms(x), |j: usize| if with_gain { gain_c[j] } else { 1.0 });
            let mean = (0..C).map(|j| g(j) * dy[j] * x[j] / r).sum::<f32>() / C as f32;
            (0..C).map(|i| (g(i) * dy[i] - projection * x[i] / r * mean) / r.powi(power)).collect::<Vec<_>>()
        });
        dx.collect()
    };
    let mistakes: [Mistake<'_>; 4] = [
        ("the second term is missing: the root mean square depends on x too", terms(0.0, 1, true)),
        ("the second term is summed; the mean divides by c", terms(C as f32, 1, true)),
        ("the division by the root mean square is missing", terms(1.0, 0, true)),
        ("the gain is missing", terms(1.0, 1, false)),
    ];
    compare(&answer::rms_norm_backward(&x_nc, &gain_c, &dy_nc, EPS), &expected, TOLERANCE, &mistakes)
}
