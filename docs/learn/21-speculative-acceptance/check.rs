//! Compares the distribution of what the reader's rule lets through with the target's own.

#[cfg_attr(feature = "solution", path = "solution/lib.rs")]
#[cfg_attr(all(feature = "start", not(feature = "solution")), path = "start/lib.rs")]
#[cfg_attr(not(any(feature = "start", feature = "solution")), path = "src/lib.rs")]
mod answer;

use std::process::ExitCode;

use fornax_learn::{Checks, Mistake, Outcome, compare, normals};

const V: usize = 5;
const TOLERANCE: f32 = 1e-5;
/// Each pair of drafted tokens is verified with so many sets of evenly spread numbers.
const POINTS: usize = 4000;

fn main() -> ExitCode {
    let mut checks = Checks::new();
    checks.run("acceptance: the share that stays", acceptance);
    checks.run("residual: what a rejected token is replaced from", residual);
    checks.run("verify: the token is distributed as the target's", first);
    checks.run("verify: and so is the one after it", second);
    checks.run("verify: how many tokens come", lengths);
    checks.run("tokens_per_pass and speedup", speed);
    checks.finish()
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let sum: f32 = logits.iter().map(|l| l.exp()).sum();
    logits.iter().map(|l| l.exp() / sum).collect()
}

/// A distribution of its own for each place and each token before it; the draft's has a token that the target's does
/// not have, and lacks one.
fn at(model: &str, before: &[u32]) -> Vec<f32> {
    let logits = normals(&format!("{model} {before:?}"), V);
    let mut p = softmax(&logits.iter().map(|l| 1.2 * l).collect::<Vec<f32>>());
    let none = if model == "target" { 1 } else { 3 };
    let lost = 1.0 - p[none];
    p[none] = 0.0;
    p.iter_mut().for_each(|p| *p /= lost);
    p
}

fn acceptance() -> Outcome {
    let pairs = [(0.2, 0.5), (0.5, 0.2), (0.3, 0.3), (0.0, 0.4), (1.0, 0.25)];
    let of = |rule: fn(f32, f32) -> f32| pairs.map(|(p, q)| rule(p, q)).to_vec();
    let mistakes: [Mistake<'_>; 4] = [
        ("it is above 1 where the target is above the draft", of(|p, q| p / q)),
        ("the ratio is upside down: target by draft", of(|p, q| (q / p).min(1.0))),
        ("it is the target's probability itself", of(|p, _| p)),
        ("it is 1 or 0; a token that the target likes less stays sometimes", of(|p, q| f32::from(p >= q))),
    ];
    compare(&of(answer::acceptance), &[0.4, 1.0, 1.0, 0.0, 1.0], TOLERANCE, &mistakes)
}

fn residual() -> Outcome {
    let (p, q) = (at("target", &[]), at("draft", &[]));
    let normal = |x: Vec<f32>| {
        let sum: f32 = x.iter().sum();
        x.iter().map(|x| x / sum).collect::<Vec<f32>>()
    };
    let of = |rule: fn(f32, f32) -> f32| p.iter().zip(&q).map(|(p, q)| rule(*p, *q)).collect::<Vec<f32>>();
    let expected = normal(of(|p, q| (p - q).max(0.0)));
    let mistakes: [Mistake<'_>; 5] = [
        ("it does not sum to 1", of(|p, q| (p - q).max(0.0))),
        ("it is the target itself: the tokens that the draft likes come too often then", p.clone()),
        ("the difference is the wrong way round", normal(of(|p, q| (q - p).max(0.0)))),
        ("what is below 0 stays below 0", normal(of(|p, q| p - q + 1e-9))),
        ("the difference counts where it is below 0 too", normal(of(|p, q| (p - q).abs()))),
    ];
    let found = answer::residual(&p, &q);
    let shows = |(_, values): &Mistake<'_>| values.iter().all(|v| v.is_finite() && v.abs() < 1e3);
    let mistakes: Vec<Mistake<'_>> = mistakes.into_iter().filter(shows).collect();
    compare(&found, &expected, TOLERANCE, &mistakes)?;
    let same = answer::residual(&p, &p);
    if same.iter().any(|p| p.is_nan()) {
        return Err("where draft and target agree, 0 is divided by 0".into());
    }
    compare(&same, &p, TOLERANCE, &[]).map_err(|difference| format!("of a draft that is the target: {difference}"))
}

/// A verification: target, draft, drafted, uniform numbers.
type Verify<'a> = &'a dyn Fn(&[Vec<f32>], &[Vec<f32>], &[u32], &mut dyn FnMut() -> f32) -> Vec<u32>;

/// Shares of (token 0) and of (token 0, token 1) that come out of drafts of two tokens. Where the opening token alone comes out,
/// the target's own next token follows.
fn shares(verify: Verify<'_>) -> (Vec<f32>, Vec<f32>) {
    let (mut one, mut two) = (vec![0.0f64; V], vec![0.0f64; V * V]);
    let q = at("draft", &[]);
    for x in 0..V as u32 {
        let then = at("draft", &[x]);
        let target = [at("target", &[]), at("target", &[x])];
        for y in 0..V as u32 {
            let weight = f64::from(q[x as usize] * then[y as usize]) / POINTS as f64;
            if weight == 0.0 {
                continue;
            }
            let target = [&target[..], &[at("target", &[x, y])]].concat();
            let draft = [q.clone(), then.clone()];
            for point in 0..POINTS {
                // An additive recurrence: evenly spread in three dimensions (Roberts 2018).
                let spread = [0.819_172_5, 0.671_043_6, 0.549_700_5];
                let mut numbers = spread.iter().map(|a: &f64| (0.5 + a * point as f64).fract() as f32).cycle();
                let ids = verify(&target, &draft, &[x, y], &mut || numbers.next().unwrap_or(0.5));
                let Some(&id) = ids.first() else { continue };
                let id = (id as usize).min(V - 1);
                one[id] += weight;
                match ids.get(1) {
                    Some(&next) => two[id * V + (next as usize).min(V - 1)] += weight,
                    None => {
                        let rest = at("target", &[id as u32]);
                        (0..V).for_each(|next| two[id * V + next] += weight * f64::from(rest[next]));
                    }
                }
            }
        }
    }
    let single = |of: Vec<f64>| of.into_iter().map(|x| x as f32).collect();
    (single(one), single(two))
}

/// What may be wrong with the rule.
#[derive(Clone, Copy)]
struct Wrong {
    stays: fn(p: &[f32], q: &[f32], id: usize, uniform: f32) -> bool,
    instead: fn(p: &[f32], q: &[f32]) -> Vec<f32>,
    /// The number that has rejected the token also draws the other one.
    same_number: bool,
    /// A token after a rejected one may stay.
    goes_on: bool,
}

fn right_residual(p: &[f32], q: &[f32]) -> Vec<f32> {
    let above: Vec<f32> = p.iter().zip(q).map(|(p, q)| (p - q).max(0.0)).collect();
    let sum: f32 = above.iter().sum();
    above.iter().map(|a| a / sum).collect()
}

fn draw(p: &[f32], uniform: f32) -> u32 {
    let mut sum = 0.0;
    let found = p.iter().position(|p| {
        sum += p;
        sum > uniform
    });
    found.unwrap_or(p.len() - 1) as u32
}

fn verified(
    wrong: Wrong,
    target: &[Vec<f32>],
    draft: &[Vec<f32>],
    drafted: &[u32],
    uniform: &mut dyn FnMut() -> f32,
) -> Vec<u32> {
    let mut ids = Vec::new();
    for (i, &id) in drafted.iter().enumerate() {
        let number = uniform();
        if (wrong.stays)(&target[i], &draft[i], id as usize, number) {
            ids.push(id);
            continue;
        }
        let again = if wrong.same_number { number } else { uniform() };
        ids.push(draw(&(wrong.instead)(&target[i], &draft[i]), again));
        if !wrong.goes_on {
            return ids;
        }
    }
    ids.push(draw(&target[drafted.len()], uniform()));
    ids
}

const RIGHT: Wrong = Wrong {
    stays: |p, q, id, uniform| uniform < p[id] / q[id],
    instead: right_residual,
    same_number: false,
    goes_on: false,
};

fn likeliest(p: &[f32]) -> usize {
    (0..p.len()).max_by(|&a, &b| p[a].total_cmp(&p[b])).unwrap_or(0)
}

fn known() -> [(&'static str, Wrong); 7] {
    [
        (
            "a rejected token is replaced from the target, not from the residual: what the draft likes comes too often",
            { Wrong { instead: |p, _| p.to_vec(), ..RIGHT } },
        ),
        ("every drafted token stays: this is the draft's text", Wrong { stays: |_, _, _, _| true, ..RIGHT }),
        ("a token stays where the target is not below the draft, and else never", {
            Wrong { stays: |p, q, id, _| p[id] >= q[id], ..RIGHT }
        }),
        ("a token stays with the target's probability; it is divided by the draft's", {
            Wrong { stays: |p, _, id, uniform| uniform < p[id], ..RIGHT }
        }),
        ("the ratio is upside down: target by draft", {
            Wrong { stays: |p, q, id, uniform| uniform < q[id] / p[id], ..RIGHT }
        }),
        ("a token stays where it is the target's likeliest: that is right for greedy decoding only", {
            Wrong { stays: |p, _, id, _| likeliest(p) == id, ..RIGHT }
        }),
        ("the number that rejected the token draws the next one too: it is large by then", {
            Wrong { same_number: true, ..RIGHT }
        }),
    ]
}

/// What a check looks at, of the pair that `shares` finds.
type Residual = fn((Vec<f32>, Vec<f32>)) -> Vec<f32>;

fn mistakes(of: Residual) -> Vec<Mistake<'static>> {
    let shares_of = |wrong: Wrong| shares(&|p, q, ids, uniform| verified(wrong, p, q, ids, uniform));
    known().into_iter().map(|(words, wrong)| (words, of(shares_of(wrong)))).collect()
}

fn first() -> Outcome {
    let found = shares(&answer::verify).0;
    compare(&found, &at("target", &[]), 3e-3, &mistakes(|(one, _)| one))
}

fn second() -> Outcome {
    let p = at("target", &[]);
    let of = |x: u32| at("target", &[x]).into_iter().map(move |next| (x, next));
    let expected: Vec<f32> = (0..V as u32).flat_map(of).map(|(x, next)| p[x as usize] * next).collect();
    let mut mistakes = mistakes(|(_, two)| two);
    let on = Wrong { goes_on: true, ..RIGHT };
    mistakes.push((
        "tokens behind a rejected one stay: they were drafted behind another token",
        shares(&|p, q, ids, uniform| verified(on, p, q, ids, uniform)).1,
    ));
    compare(&shares(&answer::verify).1, &expected, 3e-3, &mistakes)
}

fn lengths() -> Outcome {
    let (p, other) = (vec![0.0, 0.0, 1.0, 0.0, 0.0], vec![0.0, 1.0, 0.0, 0.0, 0.0]);
    let [sure, none] = [vec![p.clone(); 4], vec![other.clone(), p.clone(), p.clone(), p.clone()]];
    let draft = vec![p; 3];
    let verify = |target: &[Vec<f32>], k: usize| answer::verify(target, &draft[..k], &[2, 2, 2][..k], &mut || 0.7);
    match (verify(&sure, 3).as_slice(), verify(&none, 3).as_slice(), verify(&sure[..1], 0).as_slice()) {
        ([2, 2, 2, 2], [1], [2]) => Ok("all of 3 and one more; the other one at once; one without a draft".into()),
        ([2, 2, 2], _, _) => {
            Err("3 of 3 stay and nothing follows: the pass has computed the place behind them too".into())
        }
        (_, [1, 2, ..], _) => Err("tokens behind a rejected one stay".into()),
        (_, [2, ..], _) => Err("a token that the target rules out stays".into()),
        (all, none, alone) => {
            Err(format!("{all:?}, {none:?} and {alone:?} came; [2, 2, 2, 2], [1] and [2] is right"))
        }
    }
}

fn speed() -> Outcome {
    let cases = [(0.8f32, 4u32, 0.05f32), (0.5, 3, 0.1), (0.0, 5, 0.1), (1.0, 2, 0.0), (0.3, 8, 0.2)];
    let of = |rule: &dyn Fn(f32, u32) -> f32| -> Vec<f32> {
        let tokens = cases.iter().map(|&(rate, k, _)| rule(rate, k));
        let speeds = cases.iter().map(|&(rate, k, cost)| rule(rate, k) / (1.0 + cost * k as f32));
        tokens.chain(speeds).collect()
    };
    let sum = |rate: f32, from: u32, to: u32| (from..=to).map(|i| rate.powi(i as i32)).sum::<f32>();
    let right = |rate: f32, k: u32| sum(rate, 0, k);
    let tokens = cases.iter().map(|&(rate, k, _)| answer::tokens_per_pass(rate, k));
    let found: Vec<f32> =
        tokens.chain(cases.iter().map(|&(rate, k, cost)| answer::speedup(rate, k, cost))).collect();
    if found.iter().any(|x| x.is_nan()) {
        return Err("at rate 1, (1 - rate^(k + 1)) / (1 - rate) divides 0 by 0".into());
    }
    let free: Vec<f32> = of(&right)[..5].repeat(2);
    let mistakes: [Mistake<'_>; 4] = [
        ("the token drawn behind them is not counted", of(&|rate, k| sum(rate, 1, k))),
        ("each place is counted with `rate`; a token stays only where all before it did", {
            of(&|rate, k| 1.0 + rate * k as f32)
        }),
        ("one place too many is counted", of(&|rate, k| sum(rate, 0, k + 1))),
        ("drafting costs nothing", free),
    ];
    compare(&found, &of(&right), TOLERANCE, &mistakes)
}
