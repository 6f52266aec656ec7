//! Compares the reader's divergences with the distillation loss of `fornax_post_train` and its gradient, and his
//! estimate with that of its GRPO.

#[cfg_attr(feature = "solution", path = "solution/lib.rs")]
#[cfg_attr(all(feature = "start", not(feature = "solution")), path = "start/lib.rs")]
#[cfg_attr(not(any(feature = "start", feature = "solution")), path = "src/lib.rs")]
mod answer;

use std::process::ExitCode;

use fornax_learn::burn::tensor::Tensor;
use fornax_learn::fornax_model::ops::{self, DivergenceOptions, Headed};
use fornax_learn::fornax_post_train::grpo::{GrpoRecipe, PolicyTokens};
use fornax_learn::{Checks, Mistake, Outcome, compare, device, normals, tensor, values};

const V: usize = 11;
const TOLERANCE: f32 = 1e-5;

fn main() -> ExitCode {
    let mut checks = Checks::new();
    checks.run("log_softmax: 11 logits, and logits of 1,000", log_softmax);
    checks.run("kl: teacher to student, and student to teacher", divergence);
    checks.run("kl: a distribution to itself", itself);
    checks.run("forward_gradient: by the student's logits", || gradient(false));
    checks.run("reverse_gradient: by the student's logits", || gradient(true));
    checks.run("estimate: single tokens", estimate);
    checks.run("estimate: its mean over the model's tokens", unbiased);
    checks.finish()
}

fn logits(name: &str) -> Vec<f32> {
    normals(name, V).iter().map(|x| 1.5 * x).collect()
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    log_of(logits).iter().map(|x| x.exp()).collect()
}

fn log_of(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f32 = logits.iter().map(|x| (x - max).exp()).sum();
    logits.iter().map(|x| x - max - sum.ln()).collect()
}

fn log_softmax() -> Outcome {
    let x = logits("teacher");
    let expected = log_of(&x);
    let by_two = expected.iter().map(|x| x / std::f32::consts::LN_2).collect();
    let greatest = x.iter().copied().fold(f32::MIN, f32::max);
    let mistakes: [Mistake<'_>; 4] = [
        ("the greatest logit is subtracted inside of exp alone", expected.iter().map(|x| x + greatest).collect()),
        ("these are probabilities; their logarithms are wanted", softmax(&x)),
        ("these are the logits themselves", x.clone()),
        ("the logarithms are of base 2; nats are wanted", by_two),
    ];
    compare(&answer::log_softmax(&x), &expected, TOLERANCE, &mistakes)?;
    let large = answer::log_softmax(&[1000.0, 1001.0, 1002.0]);
    match large.iter().all(|x| x.is_finite()) {
        true => compare(&large, &log_of(&[0.0, 1.0, 2.0]), TOLERANCE, &[]),
        false => Err(format!("logits of 1,000 give {large:?}: exp overflows; subtract the greatest before")),
    }
}

fn of(logp: &[f32], logq: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    logp.iter().zip(logq).map(|(p, q)| term(*p, *q)).sum()
}

fn divergence() -> Outcome {
    let (p, q) = (log_of(&logits("teacher")), log_of(&logits("student")));
    let expected = vec![fornax(false).0, fornax(true).0];
    let both = |term: fn(f32, f32) -> f32| vec![of(&p, &q, term), of(&q, &p, term)];
    let entropies: Vec<f32> = [&p, &q].iter().map(|p| of(p, p, |p, _| -p.exp() * p)).collect();
    let mistakes: [Mistake<'_>; 7] = [
        ("the directions are swapped: the average runs over the one in front", vec![expected[1], expected[0]]),
        ("the average runs over the second distribution", both(|p, q| q.exp() * (p - q))),
        ("the sign is wrong: a divergence is never below 0", both(|p, q| p.exp() * (q - p))),
        ("the average over p is missing: every token weighs the same", both(|p, q| p - q)),
        ("this is the cross-entropy, greater by the entropy of p", both(|p, q| -p.exp() * q)),
        ("this is the entropy; the second distribution is missing", entropies),
        ("the divergence is of base 2; nats are wanted", both(|p, q| p.exp() * (p - q) / std::f32::consts::LN_2)),
    ];
    compare(&[answer::kl(&p, &q), answer::kl(&q, &p)], &expected, TOLERANCE, &mistakes)
}

fn itself() -> Outcome {
    let p = log_of(&logits("teacher"));
    // A token that has no probability at all in either.
    let never: Vec<f32> = p.iter().copied().chain([f32::MIN]).collect();
    compare(&[answer::kl(&p, &p), answer::kl(&never, &never)], &[0.0, 0.0], TOLERANCE, &[])
}

fn gradient(reverse: bool) -> Outcome {
    let (teacher, student) = (logits("teacher"), logits("student"));
    let (p, q) = (log_of(&teacher), log_of(&student));
    let expected = fornax(reverse).1;
    let other = fornax(!reverse).1;
    let all = |term: &dyn Fn(f32, f32) -> f32| p.iter().zip(&q).map(|(p, q)| term(*p, *q)).collect::<Vec<f32>>();
    let found = match reverse {
        true => answer::reverse_gradient(&teacher, &student),
        false => answer::forward_gradient(&teacher, &student),
    };
    let minus: Vec<f32> = expected.iter().map(|g| -g).collect();
    let mut mistakes: Vec<Mistake<'_>> = vec![
        ("the sign is wrong: this is the direction downhill", minus),
        (
            if reverse {
                "this is the gradient of the forward one"
            } else {
                "this is the gradient of the reverse one"
            },
            other,
        ),
    ];
    match reverse {
        true => mistakes.extend([
            ("the divergence itself is missing: each difference is taken from its mean", all(&|p, q| q.exp() * (q - p))),
            ("softmax has a derivative too: what each token adds depends on all logits", all(&|p, q| q.exp() * (q - p + 1.0))),
        ]),
        false => mistakes.extend([
            ("this is the gradient of the teacher's average alone; what is left is softmax(student) - softmax(teacher)", all(&|p, _| -p.exp())),
            ("the logarithms are subtracted; the probabilities are", all(&|p, q| q - p)),
            ("the logits are subtracted, not the probabilities", student.iter().zip(&teacher).map(|(s, t)| s - t).collect()),
        ]),
    }
    compare(&found, &expected, TOLERANCE, &mistakes)
}

const LOGPS: [(f32, f32); 6] =
    [(-1.0, -1.0), (-0.5, -2.5), (-3.0, -1.25), (-0.1, -0.2), (-6.0, -5.5), (-2.0, -2.75)];

fn estimate() -> Outcome {
    let expected = fornax_estimate(&LOGPS);
    let all =
        |term: fn(f32) -> f32| LOGPS.iter().map(|(logp, reference)| term(reference - logp)).collect::<Vec<f32>>();
    let mistakes: [Mistake<'_>; 5] = [
        ("this is the plain estimate, model - reference: right on average, and often below 0", all(|d| -d)),
        (
            "this is half the square (the second estimate): never below 0, and wrong on average",
            all(|d| d * d / 2.0),
        ),
        ("model and reference are swapped: d is reference - model", all(|d| (-d).exp() + d - 1.0)),
        ("the 1 is missing: equal probabilities give 0", all(|d| d.exp() - d)),
        ("the sign of d is wrong in one of the two places", all(|d| d.exp() + d - 1.0)),
    ];
    compare(&LOGPS.map(|(logp, reference)| answer::estimate(logp, reference)), &expected, TOLERANCE, &mistakes)
}

fn unbiased() -> Outcome {
    let (model, reference) = (log_of(&logits("student")), log_of(&logits("teacher")));
    let mean = model.iter().zip(&reference).map(|(m, r)| m.exp() * answer::estimate(*m, *r)).sum::<f32>();
    compare(&[mean], &[fornax(true).0], TOLERANCE, &[])
}

/// Fornax's divergence, forward (teacher to student) or reverse, and its gradient by the student's logits: with the
/// identity as head, hidden states are logits.
fn fornax(reverse: bool) -> (f32, Vec<f32>) {
    let options = DivergenceOptions::new(if reverse { 1.0 } else { 0.0 }, 1.0, V);
    let identity = || Tensor::<2>::eye(V, &device());
    let row = |name: &str| tensor(&logits(name), [1, V]);
    let student = row("student").autodiff().require_grad();
    let headed = |hidden_nc: Tensor<2>| Headed { hidden_nc, head_vc: identity().autodiff() };
    let weights = tensor(&[1.0], [1]).autodiff();
    let divergence = ops::divergence(headed(student.clone()), headed(row("teacher").autodiff()), weights, options);
    let gradients = divergence.backward();
    let gradient = student.grad(&gradients).expect("a gradient of the student's logits");
    (values(divergence.without_autodiff())[0], values(gradient))
}

/// The KL term of single tokens in Fornax's GRPO.
fn fornax_estimate(logps: &[(f32, f32)]) -> Vec<f32> {
    let recipe = GrpoRecipe { beta: 1.0, use_bias_correction_kl: false, ..GrpoRecipe::new(Vec::new()) };
    let one = |(logp, reference): &(f32, f32)| {
        let given = PolicyTokens {
            advantages_n: tensor(&[0.0], [1]),
            weights_n: tensor(&[1.0], [1]),
            old_n: None,
            reference_n: Some(tensor(&[*reference], [1])),
        };
        values(recipe.policy_loss(tensor(&[*logp], [1]), &given).loss_sum)[0]
    };
    logps.iter().map(one).collect()
}
