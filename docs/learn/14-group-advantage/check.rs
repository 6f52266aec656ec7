//! Compares the reader's advantages and loss with those of `fornax_post_train::grpo`.

#[cfg_attr(feature = "solution", path = "solution/lib.rs")]
#[cfg_attr(all(feature = "start", not(feature = "solution")), path = "start/lib.rs")]
#[cfg_attr(not(any(feature = "start", feature = "solution")), path = "src/lib.rs")]
mod answer;

use std::process::ExitCode;

use answer::Answer;
use fornax_learn::fornax_post_train::grpo::{self, Advantages, GrpoRecipe, PolicyTokens, ScaleRewards};
use fornax_learn::{Checks, Mistake, Outcome, compare, normals, tensor, values};

const GROUP: usize = 4;
/// Four prompts: all wrong, one right of four, three of four, shades.
const REWARDS: [f32; 16] = [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.25, 0.5, 2.0, 0.25];
const CLIP: f32 = 0.2;
const TOLERANCE: f32 = 1e-5;

fn main() -> ExitCode {
    let mut checks = Checks::new();
    checks.run("advantages: less the mean of the group", || advantages(false));
    checks.run("advantages: by its deviation", || advantages(true));
    checks.run("without_signal: groups of equal rewards", without_signal);
    checks.run("loss: answers just written", || loss(false));
    checks.run("loss: ratios beyond the clip", || loss(true));
    checks.finish()
}

fn mean(values: &[f32]) -> f32 {
    values.iter().sum::<f32>() / values.len() as f32
}

/// Standard deviation with `n - less` in the divisor.
fn deviation(values: &[f32], less: f32) -> f32 {
    let mean = mean(values);
    (values.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / (values.len() as f32 - less)).sqrt()
}

fn groups(of: impl Fn(&[f32], f32) -> f32) -> Vec<f32> {
    REWARDS.chunks(GROUP).flat_map(|group| group.iter().map(|r| of(group, *r)).collect::<Vec<_>>()).collect()
}

fn advantages(scaled: bool) -> Outcome {
    let found = answer::advantages(&REWARDS, GROUP, scaled);
    if found.iter().any(|a| a.is_nan()) {
        return Err("a group of equal rewards gives NaN: 0 is divided by 0, which the 1e-4 prevents".into());
    }
    let expected = fornax_advantages(scaled);
    let by = |less: f32, floor: f32| groups(|group, r| (r - mean(group)) / (deviation(group, less) + floor));
    let of_batch = deviation(&REWARDS, 1.0) + 1e-4;
    let (whole, count) = (mean(&REWARDS), GROUP as f32);
    let mistakes = [
        ("the mean is missing: answers that are all right would all be pushed up", groups(|_, r| r)),
        ("the mean is that of all prompts; each group has its own", groups(|_, r| r - whole)),
        ("the deviation is missing", by_mean()),
        ("the deviations are divided although `scaled` is false", by(1.0, 1e-4)),
        ("the deviation divides by n; as of a sample it is n - 1", by(0.0, 1e-4)),
        ("the deviation is that of all prompts; each group has its own", groups(|g, r| (r - mean(g)) / of_batch)),
        ("the rewards are divided by the variance; the root is missing", {
            groups(|g, r| (r - mean(g)) / (deviation(g, 1.0).powi(2) + 1e-4))
        }),
        ("the sign is wrong: what is better than its group has an advantage above 0", {
            expected.iter().map(|a| -a).collect()
        }),
        ("the mean leaves out the answer itself (as in RLOO)", {
            groups(|g, r| (r - mean(g)) * count / (count - 1.0))
        }),
    ];
    // What is a mistake where it is scaled is right where it is not.
    let shows = |(_, values): &Mistake<'_>| compare(values, &expected, TOLERANCE, &[]).is_err();
    let mistakes: Vec<Mistake<'_>> = mistakes.into_iter().filter(shows).collect();
    compare(&found, &expected, TOLERANCE, &mistakes)
}

fn by_mean() -> Vec<f32> {
    groups(|group, r| r - mean(group))
}

fn without_signal() -> Outcome {
    let all_right = [1.0f32; 8];
    let found = [
        answer::without_signal(&REWARDS, GROUP),
        answer::without_signal(&all_right, GROUP),
        answer::without_signal(&REWARDS[4..], GROUP),
    ];
    let mistakes: [Mistake<'_>; 4] = [
        ("groups in which all are right teach as little as those in which all are wrong", vec![0.25, 0.0, 0.0]),
        ("this is the share of the groups that teach", vec![0.75, 0.0, 1.0]),
        ("this is a number of groups; the share is wanted", vec![1.0, 2.0, 0.0]),
        ("this is the share of the answers with reward 0", vec![0.5, 0.0, 4.0 / 12.0]),
    ];
    let share = |rewards: &[f32]| of_fornax(rewards, ScaleRewards::Group).zero_std as f32;
    compare(&found, &[share(&REWARDS), share(&all_right), share(&REWARDS[4..])], 1e-6, &mistakes)
}

/// Answers of 2, 7, 1 and 4 tokens. `moved`: the model has changed since they were written.
fn answers(moved: bool) -> Vec<Answer> {
    let of = |(number, n): (usize, usize)| {
        let old_logp: Vec<f32> = normals(&format!("old {number}"), n).iter().map(|x| -x.abs() - 0.1).collect();
        let change = normals(&format!("change {number}"), n);
        let change = |i: usize| if moved { 0.4 * change[i] } else { 0.0 };
        Answer { logp: (0..n).map(|i| old_logp[i] + change(i)).collect(), old_logp }
    };
    [2, 7, 1, 4].into_iter().enumerate().map(of).collect()
}

/// Advantages of those answers.
const PUSH: [f32; 4] = [1.2, -0.5, 0.9, -1.1];

/// What each token adds, answer by answer.
fn tokens(answers: &[Answer], of: impl Fn(f32, f32) -> f32) -> Vec<Vec<f32>> {
    let one = |(answer, advantage): (&Answer, f32)| {
        answer.logp.iter().zip(&answer.old_logp).map(|(logp, old)| of(logp - old, advantage)).collect()
    };
    answers.iter().zip(PUSH).map(one).collect()
}

fn loss(moved: bool) -> Outcome {
    let answers = answers(moved);
    let clipped = |ratio: f32| ratio.clamp(1.0 - CLIP, 1.0 + CLIP);
    let right = |d: f32, a: f32| -(d.exp() * a).min(clipped(d.exp()) * a);
    let total = |of: &dyn Fn(f32, f32) -> f32| -> f32 { tokens(&answers, of).concat().iter().sum() };
    let count: usize = answers.iter().map(|answer| answer.logp.len()).sum();
    let per = |of: &dyn Fn(f32, f32) -> f32| vec![total(of) / count as f32];
    let expected = fornax_loss(&answers);
    let mistakes = [
        (
            "the means of the answers are averaged: the tokens of a long answer weigh less than those of a short one",
            {
                vec![tokens(&answers, right).iter().map(|tokens| mean(tokens)).sum::<f32>() / answers.len() as f32]
            },
        ),
        (
            "the sum is divided by the answers; it is divided by the tokens",
            vec![total(&right) / answers.len() as f32],
        ),
        ("the division is missing", vec![total(&right)]),
        ("the sign is wrong: a lower loss has to make good answers likelier", vec![-expected]),
        ("the ratio is not clipped", per(&|d, a| -d.exp() * a)),
        (
            "the clipped ratio is taken always; of the two products the smaller counts",
            per(&|d, a| -clipped(d.exp()) * a),
        ),
        ("of the two products the greater is taken", per(&|d, a| -(d.exp() * a).max(clipped(d.exp()) * a))),
        ("the ratio is upside down: it is now by then", per(&|d, a| right(-d, a))),
        ("the ratio is a difference of logarithms; exp is missing", per(&|d, a| -(d * a).min(clipped(d) * a))),
        ("the advantages are missing", per(&|d, _| right(d, 1.0))),
    ];
    // As long as nothing has moved, clipping shows nowhere.
    let shows = |(_, values): &Mistake<'_>| compare(values, &[expected], TOLERANCE, &[]).is_err();
    let mistakes: Vec<Mistake<'_>> = mistakes.into_iter().filter(shows).collect();
    compare(&[answer::loss(&answers, &PUSH, CLIP)], &[expected], TOLERANCE, &mistakes)
}

/// Fornax's, and the share of answers in groups without a deviation.
fn of_fornax(rewards: &[f32], scale: ScaleRewards) -> Advantages {
    grpo::advantages(&rewards.iter().map(|r| f64::from(*r)).collect::<Vec<_>>(), GROUP, scale)
}

fn fornax_advantages(scaled: bool) -> Vec<f32> {
    let scale = if scaled { ScaleRewards::Group } else { ScaleRewards::None };
    of_fornax(&REWARDS, scale).values.iter().map(|a| *a as f32).collect()
}

fn fornax_loss(answers: &[Answer]) -> f32 {
    let recipe = GrpoRecipe { epsilon: f64::from(CLIP), ..GrpoRecipe::new(Vec::new()) };
    let of = |part: &dyn Fn(&Answer) -> Vec<f32>| answers.iter().flat_map(part).collect::<Vec<f32>>();
    let (logp, old) = (of(&|answer| answer.logp.clone()), of(&|answer| answer.old_logp.clone()));
    let push: Vec<f32> = answers.iter().zip(PUSH).flat_map(|(answer, a)| vec![a; answer.logp.len()]).collect();
    let n = logp.len();
    let given = PolicyTokens {
        advantages_n: tensor(&push, [n]),
        weights_n: tensor(&vec![1.0; n], [n]),
        old_n: Some(tensor(&old, [n])),
        reference_n: None,
    };
    values(recipe.policy_loss(tensor(&logp, [n]), &given).loss_sum)[0] / n as f32
}
