//! Compares the reader's loss and gradient with `ops::cross_entropy` on an identity head.

#[cfg_attr(feature = "solution", path = "solution/lib.rs")]
#[cfg_attr(all(feature = "start", not(feature = "solution")), path = "start/lib.rs")]
#[cfg_attr(not(any(feature = "start", feature = "solution")), path = "src/lib.rs")]
mod answer;

use std::process::ExitCode;

use fornax_learn::burn::tensor::{Int, Tensor, TensorData};
use fornax_learn::fornax_model::ops;
use fornax_learn::{Checks, Mistake, Outcome, compare, device, normals, tensor, values};

const V: usize = 11;
const N: usize = 7;
/// What padding often holds; beyond the vocabulary.
const PADDING: u32 = 4_294_967_196;
const TARGETS: [u32; N] = [3, PADDING, 10, 0, 7, PADDING, 5];
const MASK: [bool; N] = [true, false, true, true, false, false, true];
/// Targets of the other micro-batches of the step.
const OTHERS: usize = 9;
const TOLERANCE: f32 = 1e-5;

fn main() -> ExitCode {
    let mut checks = Checks::new();
    checks.run("summed: 7 rows, 4 of them count", sum);
    checks.run("summed: logits of 1,000", large);
    checks.run("summed and step_loss: no row counts", none);
    checks.run("step_loss: micro-batches with unequal counts", step);
    checks.run("gradient: 4 of 13 targets of the step", gradient);
    checks.finish()
}

/// Targets that Fornax accepts: those that do not count are 0.
fn targets() -> Tensor<1, Int> {
    let ids: Vec<i32> = TARGETS.iter().map(|&id| if (id as usize) < V { id as i32 } else { 0 }).collect();
    Tensor::from_data(TensorData::new(ids, [N]), &device())
}

fn weights() -> Tensor<1> {
    tensor(&MASK.map(|counts| if counts { 1.0 } else { 0.0 }), [N])
}

fn identity() -> Tensor<2> {
    let values: Vec<f32> = (0..V * V).map(|i| if i / V == i % V { 1.0 } else { 0.0 }).collect();
    tensor(&values, [V, V])
}

/// Fornax's sum; with the identity as its head, hidden rows are logits.
fn fornax(logits: &[f32]) -> f32 {
    values(ops::cross_entropy(tensor(logits, [N, V]), identity(), targets(), weights(), 0.0, 0.0).0)[0]
}

/// The loss of each row by itself.
fn rows(logits: &[f32]) -> Vec<f32> {
    let nll = |(i, row): (usize, &[f32])| {
        let max = row.iter().copied().fold(f32::MIN, f32::max);
        let sum: f32 = row.iter().map(|x| (x - max).exp()).sum();
        sum.ln() - (row[if (TARGETS[i] as usize) < V { TARGETS[i] as usize } else { 0 }] - max)
    };
    logits.chunks(V).enumerate().map(nll).collect()
}

fn sum() -> Outcome {
    let logits: Vec<f32> = normals("logits", N * V).iter().map(|x| 2.0 * x).collect();
    let (found, counted) = answer::summed(&logits, V, &TARGETS, &MASK);
    if counted != 4 {
        return Err(format!("{counted} rows are counted, 4 have a true mask"));
    }
    let (expected, all) = (fornax(&logits), rows(&logits));
    let unmasked = (0..N).filter(|&i| (TARGETS[i] as usize) < V).map(|i| all[i]).sum();
    let probabilities = (0..N).filter(|&i| MASK[i]).map(|i| -(-all[i]).exp()).sum();
    let one = |value: f32| vec![value];
    let mistakes: [Mistake<'_>; 8] = [
        ("the mask is not applied: a row counts although its mask is false", one(all.iter().sum())),
        ("a row is left out by its target, not by its mask", one(unmasked)),
        (
            "the sum is divided by all rows, not only those that count; `summed` does not divide at all",
            one(expected / N as f32),
        ),
        ("the sum is divided by the rows that count; that is for `step_loss`", one(expected / 4.0)),
        ("the logarithm is missing", one(probabilities)),
        ("the sign is wrong: the loss is minus the logarithm", one(-expected)),
        ("the logarithm is of base 2; nats are wanted", one(expected / std::f32::consts::LN_2)),
        ("the mask is used the wrong way round", one(all.iter().sum::<f32>() - expected)),
    ];
    compare(&[found], &[expected], TOLERANCE, &mistakes)
}

fn large() -> Outcome {
    let logits: Vec<f32> = normals("large", N * V).iter().map(|x| 1000.0 * x).collect();
    let (found, _) = answer::summed(&logits, V, &TARGETS, &MASK);
    match found.is_finite() {
        false => {
            Err(format!("logits in the thousands give {found}: exp overflows; subtract the greatest logit before"))
        }
        true => compare(&[found], &[fornax(&logits)], TOLERANCE, &[]),
    }
}

fn none() -> Outcome {
    let (sum, counted) = answer::summed(&normals("none", N * V), V, &TARGETS, &[false; N]);
    if (sum, counted) != (0.0, 0) {
        return Err(format!(
            "without a row that counts, sum and number are {sum} and {counted}, expected 0 and 0"
        ));
    }
    match answer::step_loss(&[(0.0, 0), (0.0, 0)]) {
        loss if loss.is_nan() => Err("the loss of a step without targets is NaN: 0 / 0; it is 0".into()),
        loss => compare(&[loss], &[0.0], 0.0, &[]),
    }
}

fn step() -> Outcome {
    // 10 targets of loss 2 and 1 target of loss 13: 33 / 11.
    let parts = [(20.0, 10), (13.0, 1), (0.0, 0)];
    let mistakes: [Mistake<'_>; 4] = [
        (
            "the averages of the micro-batches are averaged; one target of a short one then weighs as ten of a long one",
            vec![5.0],
        ),
        ("the averages of the micro-batches that have targets are averaged", vec![7.5]),
        ("the sum is divided by the number of micro-batches", vec![11.0]),
        ("the averages are added", vec![15.0]),
    ];
    compare(&[answer::step_loss(&parts)], &[3.0], 1e-6, &mistakes)
}

fn gradient() -> Outcome {
    let logits: Vec<f32> = normals("gradient", N * V).iter().map(|x| 2.0 * x).collect();
    let counted = 4 + OTHERS;
    let hidden = tensor(&logits, [N, V]).autodiff().require_grad();
    let loss =
        ops::cross_entropy(hidden.clone(), identity().autodiff(), targets(), weights().autodiff(), 0.0, 0.0).0;
    let gradients = (loss / counted as f32).backward();
    let expected = values(hidden.grad(&gradients).ok_or("Fornax's operation gave no gradient")?);
    let scaled = |factor: f32| -> Vec<f32> { expected.iter().map(|x| x * factor).collect() };
    let softmax: Vec<f32> = {
        let onehot = |i: usize| if TARGETS[i / V] as usize == i % V { 1.0 } else { 0.0 };
        let masked = |i: usize| if MASK[i / V] { 1.0 } else { 0.0 };
        (0..N * V).map(|i| expected[i] + masked(i) * onehot(i) / counted as f32).collect()
    };
    let mistakes: [Mistake<'_>; 5] = [
        (
            "the gradient is divided by the targets of this micro-batch; the step has more",
            scaled(counted as f32 / 4.0),
        ),
        ("the gradient is divided by all rows, not by the targets of the step", scaled(counted as f32 / N as f32)),
        ("the division by the targets of the step is missing", scaled(counted as f32)),
        ("the sign is wrong: this is the direction downhill", scaled(-1.0)),
        ("1 is not subtracted at the target", softmax),
    ];
    compare(&answer::gradient(&logits, V, &TARGETS, &MASK, counted), &expected, 1e-6, &mistakes)
}
