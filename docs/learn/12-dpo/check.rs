//! Compares the reader's DPO with that of `fornax_post_train`: losses, rewards, and gradients through autodiff.

#[cfg_attr(feature = "solution", path = "solution/lib.rs")]
#[cfg_attr(all(feature = "start", not(feature = "solution")), path = "start/lib.rs")]
#[cfg_attr(not(any(feature = "start", feature = "solution")), path = "src/lib.rs")]
mod answer;

use std::process::ExitCode;

use answer::Pair;
use fornax_learn::burn::tensor::Tensor;
use fornax_learn::fornax_data::batches::Batch;
use fornax_learn::fornax_data::examples::Example;
use fornax_learn::fornax_model::{Decoder, Layout, ModelConfig, token_tensor};
use fornax_learn::fornax_post_train::dpo::{DpoRecipe, Logps, Pairs};
use fornax_learn::fornax_post_train::logps::row_scores;
use fornax_learn::{Checks, Mistake, Outcome, compare, device, normals, tensor, values};

const BETA: f32 = 0.3;
const PAIRS: usize = 6;
/// Pairs of the other micro-batches of the step.
const OTHERS: usize = 5;
const TOLERANCE: f32 = 1e-5;

fn main() -> ExitCode {
    let mut checks = Checks::new();
    checks.run("answer_logp: the tokens of the answer", logp);
    checks.run("rewards: 6 pairs", rewards);
    checks.run("losses: a model that is its reference", || losses(&[at(-3.0, -9.0, -3.0, -9.0)]));
    checks.run("losses: 6 pairs", || losses(&pairs()));
    checks.run("losses: log-probabilities of whole documents", large);
    checks.run("gradient: 6 of the 11 pairs of a step", gradient);
    checks.finish()
}

fn at(chosen: f32, rejected: f32, reference_chosen: f32, reference_rejected: f32) -> Pair {
    Pair { chosen, rejected, reference_chosen, reference_rejected }
}

fn pairs() -> Vec<Pair> {
    let numbers = normals("pairs", 4 * PAIRS);
    numbers
        .chunks(4)
        .map(|n| at(-20.0 + 4.0 * n[0], -24.0 + 4.0 * n[1], -19.0 + 3.0 * n[2], -23.0 + 3.0 * n[3]))
        .collect()
}

/// A prompt of 4 tokens and an answer of 4 in a batch of 9 columns, so that 2 are padding.
fn batch() -> Batch {
    let ids = vec![3, 1, 4, 1, 5, 9, 2, 6];
    let trained = (0..ids.len()).map(|i| i >= 4).collect();
    Batch::padded(&[&Example { ids, trained, row: 1 }], 9)
}

fn logp() -> Outcome {
    let config = ModelConfig {
        vocab_size: 11,
        width: 12,
        n_heads: 3,
        n_kv_heads: 1,
        head_dim: 4,
        ffn_width: 20,
        context: 16,
        init_std: 0.5,
        ..ModelConfig::llama(1)
    };
    let (decoder, batch) = (Decoder::init(&config, 7, &device()), batch());
    let row = |ids: &[u32]| token_tensor(ids, 1, &device());
    let hidden = decoder.forward(row(&batch.inputs), &Layout::contiguous(0, batch.columns, &device()), None);
    let nll = values(decoder.token_nll(hidden, row(&batch.targets)));
    let logp: Vec<f32> = nll.iter().map(|nll| -nll).collect();
    let expected = values(row_scores(&decoder, &batch).logps_r)[0];
    let of = |from: usize, to: usize| logp[from..to].iter().sum::<f32>();
    // Targets 3 to 6 are the answer: the fifth token is predicted at the fourth.
    let product: f32 = logp[3..7].iter().product();
    let mistakes: [Mistake<'_>; 6] = [
        ("prompt and padding count too", vec![of(0, 9)]),
        ("it is the mean over the tokens; DPO takes the sum", vec![of(3, 7) / 4.0]),
        ("the logarithms are multiplied; probabilities multiply, logarithms add", vec![product]),
        ("this is the probability, not its logarithm", vec![of(3, 7).exp()]),
        ("this is what does not belong to the answer", vec![of(0, 9) - of(3, 7)]),
        ("the mask is one place off", vec![of(2, 6)]),
    ];
    compare(&[answer::answer_logp(&logp, &batch.mask)], &[expected], TOLERANCE, &mistakes)
}

fn flat(pairs: &[(f32, f32)]) -> Vec<f32> {
    pairs.iter().flat_map(|(a, b)| [*a, *b]).collect()
}

/// Log-ratios of (chosen, rejected).
fn ratios(pair: &Pair) -> (f32, f32) {
    (pair.chosen - pair.reference_chosen, pair.rejected - pair.reference_rejected)
}

fn rewards() -> Outcome {
    let pairs = pairs();
    let of = |reward: &dyn Fn(&Pair) -> (f32, f32)| flat(&pairs.iter().map(reward).collect::<Vec<_>>());
    let expected = fornax(&pairs).rewards;
    let found = of(&|pair| answer::rewards(*pair, BETA));
    let mistakes: [Mistake<'_>; 4] = [
        ("beta is missing", of(&ratios)),
        ("the reference is missing", of(&|p| (BETA * p.chosen, BETA * p.rejected))),
        (
            "the sign is wrong: an answer that became more likely has a reward above 0",
            expected.iter().map(|r| -r).collect(),
        ),
        ("beta divides; it multiplies", of(&|p| (ratios(p).0 / BETA, ratios(p).1 / BETA))),
    ];
    compare(&found, &expected, TOLERANCE, &mistakes)
}

fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn losses(pairs: &[Pair]) -> Outcome {
    let expected = fornax(pairs).losses;
    let of = |loss: &dyn Fn(&Pair) -> f32| pairs.iter().map(loss).collect::<Vec<f32>>();
    let margin = |p: &Pair| ratios(p).0 - ratios(p).1;
    let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
    let mistakes = [
        ("the reference is missing", of(&|p| softplus(-BETA * (p.chosen - p.rejected)))),
        (
            "chosen and rejected are swapped: the model learns what was refused",
            of(&|p| softplus(BETA * margin(p))),
        ),
        ("beta is missing", of(&|p| softplus(-margin(p)))),
        ("the rewards are added, not subtracted", of(&|p| softplus(-BETA * (ratios(p).0 + ratios(p).1)))),
        ("the sign is wrong: the loss is minus the logarithm", expected.iter().map(|loss| -loss).collect()),
        ("the logarithm is missing", of(&|p| -sigmoid(BETA * margin(p)))),
        (
            "the logarithm is of base 2; nats are wanted",
            of(&|p| softplus(-BETA * margin(p)) / std::f32::consts::LN_2),
        ),
        ("this is the hinge loss", of(&|p| (1.0 - BETA * margin(p)).max(0.0))),
        ("the losses are averaged already", vec![expected.iter().sum::<f32>() / pairs.len() as f32; pairs.len()]),
    ];
    // Not every mistake shows in every pair.
    let shows = |(_, values): &Mistake<'_>| compare(values, &expected, TOLERANCE, &[]).is_err();
    let mistakes: Vec<Mistake<'_>> = mistakes.into_iter().filter(shows).collect();
    compare(&answer::losses(pairs, BETA), &expected, TOLERANCE, &mistakes)
}

fn large() -> Outcome {
    let pairs = [at(-2000.0, -7000.0, -6000.0, -3000.0), at(-7000.0, -2000.0, -3000.0, -6000.0)];
    let found = answer::losses(&pairs, BETA);
    match found.iter().all(|loss| loss.is_finite()) {
        true => compare(&found, &fornax(&pairs).losses, TOLERANCE, &[]),
        false => Err(format!(
            "margins of 2,400 and -2,400 give {found:?}: sigmoid rounds to 0, or exp overflows; ln sigmoid(x) is \
             min(x, 0) - ln(1 + exp(-|x|))"
        )),
    }
}

fn gradient() -> Outcome {
    let pairs = pairs();
    let counted = PAIRS + OTHERS;
    let expected = fornax(&pairs).gradient.iter().map(|g| g / counted as f32).collect::<Vec<f32>>();
    let found = flat(&answer::gradient(&pairs, BETA, counted));
    let times = |factor: f32| expected.iter().map(|g| g * factor).collect::<Vec<f32>>();
    let right_wrong = |p: &Pair| {
        let sure = 1.0 / (1.0 + (-BETA * (ratios(p).0 - ratios(p).1)).exp());
        (-BETA * sure / counted as f32, BETA * sure / counted as f32)
    };
    let constant = BETA / counted as f32;
    let mistakes: [Mistake<'_>; 7] = [
        ("beta is missing", times(1.0 / BETA)),
        (
            "the gradient is divided by the pairs of this micro-batch; the step has more",
            times(counted as f32 / PAIRS as f32),
        ),
        ("the division by the pairs of the step is missing", times(counted as f32)),
        ("the sign is wrong: this is the direction downhill", times(-1.0)),
        (
            "pairs that are right already push most; the push is the share sigmoid(-margin) by which a pair is wrong",
            flat(&pairs.iter().map(right_wrong).collect::<Vec<_>>()),
        ),
        ("every pair pushes equally; the push is the share sigmoid(-margin) by which a pair is wrong", {
            [-constant, constant].repeat(PAIRS)
        }),
        ("the rejected answer is pushed up like the chosen one", {
            expected.chunks(2).flat_map(|pair| [pair[0], pair[0]]).collect()
        }),
    ];
    compare(&found, &expected, 1e-6, &mistakes)
}

/// What Fornax says of some pairs.
struct Fornax {
    losses: Vec<f32>,
    /// Chosen and rejected of each pair.
    rewards: Vec<f32>,
    /// Of the summed loss, by chosen and rejected of each pair.
    gradient: Vec<f32>,
}

fn fornax(pairs: &[Pair]) -> Fornax {
    let recipe = DpoRecipe { beta: f64::from(BETA), ..DpoRecipe::default() };
    let of = |number: fn(&Pair) -> f32| tensor(&pairs.iter().map(number).collect::<Vec<_>>(), [pairs.len()]);
    let [chosen, rejected] = [of(|p| p.chosen), of(|p| p.rejected)].map(|logps| logps.autodiff().require_grad());
    let [reference_chosen, reference_rejected] =
        [of(|p| p.reference_chosen), of(|p| p.reference_rejected)].map(Tensor::autodiff);
    let tokens = || Tensor::<1>::ones([pairs.len()], &device()).autodiff();
    let all = Pairs {
        policy: Logps { chosen: chosen.clone(), rejected: rejected.clone() },
        reference: Logps { chosen: reference_chosen, rejected: reference_rejected },
        tokens: Logps { chosen: tokens(), rejected: tokens() },
        pairs_per_chosen_token: 1.0,
    };
    let (losses, rewards) = (recipe.losses(&all), recipe.rewards(&all));
    let gradients = losses.clone().sum().backward();
    let by = |logps: &Tensor<1>| values(logps.grad(&gradients).expect("a gradient of each log-probability"));
    let interleaved = |a: Vec<f32>, b: Vec<f32>| a.into_iter().zip(b).flat_map(|(a, b)| [a, b]).collect();
    let plain = |x: Tensor<1>| values(x.without_autodiff());
    Fornax {
        losses: plain(losses),
        rewards: interleaved(plain(rewards.chosen), plain(rewards.rejected)),
        gradient: interleaved(by(&chosen), by(&rejected)),
    }
}
