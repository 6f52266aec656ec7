//! Compares the reader's stages, one by one and as a chain, with those of `fornax_infer::sampler`.

#[cfg_attr(feature = "solution", path = "solution/lib.rs")]
#[cfg_attr(all(feature = "start", not(feature = "solution")), path = "start/lib.rs")]
#[cfg_attr(not(any(feature = "start", feature = "solution")), path = "src/lib.rs")]
mod answer;

use std::process::ExitCode;

use answer::Options;
use fornax_learn::fornax_infer::sampler::{Chain, SamplingOptions};
use fornax_learn::{Checks, Mistake, Outcome, compare, normals};

const V: usize = 24;
const K: usize = 5;
const TOLERANCE: f32 = 1e-5;
const OFF: Options = Options { penalty: 1.0, temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0 };
const OUT: f32 = f32::NEG_INFINITY;

fn main() -> ExitCode {
    let mut checks = Checks::new();
    checks.run("softmax: 24 logits, some ruled out, some of a thousand", softmax);
    checks.run("penalize: tokens that were there before", penalize);
    checks.run("keep_top_k: 5 of 24, two equal at the border", top_k);
    checks.run("keep_top_p: what reaches 0.7 together", top_p);
    checks.run("keep_min_p: a tenth of the likeliest", min_p);
    checks.run("distribution: penalty, temperature, top-k, top-p", || chain(9, 0.85, 0.0));
    checks.run("distribution: penalty, temperature, top-p, min-p", || chain(0, 0.95, 0.5));
    checks.run("draw: 4,000 draws, evenly spread", draw);
    checks.finish()
}

/// Logits of which the fifth and the sixth greatest are equal.
fn logits() -> Vec<f32> {
    let mut logits: Vec<f32> = normals("logits", V).iter().map(|x| 1.5 * x).collect();
    let order = order(&logits);
    logits[order[K]] = logits[order[K - 1]];
    logits
}

/// Ids, the likeliest at the front.
fn order(logits: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    order
}

/// Tokens that were there before, one of them twice, with logits on both sides of 0.
fn seen() -> Vec<u32> {
    let order = order(&logits());
    [order[0], order[2], order[0], order[V - 2], order[V - 5]].map(|id| id as u32).to_vec()
}

/// The distribution of Fornax's chain behind these tokens.
fn behind(seen: &[u32], logits: &[f32], options: Options) -> Vec<f32> {
    let Options { penalty: repetition_penalty, temperature, top_k, top_p, min_p } = options;
    let options =
        SamplingOptions { repetition_penalty, temperature, top_k, top_p, min_p, ..SamplingOptions::default() };
    let mut chain = Chain::new(&options, seen, logits.len(), &[]).expect("options in their range");
    match chain.distribution(logits, None) {
        Ok(distribution) => (0..logits.len() as u32).map(|id| distribution.probability(id) as f32).collect(),
        // Everything is ruled out.
        Err(_) => vec![0.0; logits.len()],
    }
}

fn fornax(logits: &[f32], options: Options) -> Vec<f32> {
    behind(&[], logits, options)
}

fn plain(logits: &[f32]) -> Vec<f32> {
    fornax(logits, OFF)
}

/// Logits after one of the reader's stages, as probabilities.
fn after(stage: impl Fn(&mut [f32])) -> Vec<f32> {
    let mut logits = logits();
    stage(&mut logits);
    plain(&logits)
}

/// Keeps the tokens for which `stays` holds.
fn kept(stays: impl Fn(usize) -> bool) -> Vec<f32> {
    let mut logits = logits();
    (0..V).filter(|&id| !stays(id)).for_each(|id| logits[id] = OUT);
    plain(&logits)
}

fn softmax() -> Outcome {
    let mut logits = logits();
    logits[3] = OUT;
    logits[11] = OUT;
    let large: Vec<f32> = logits.iter().map(|l| l + 1000.0).collect();
    let sum: f32 = logits.iter().map(|l| l.exp()).sum();
    let all: f32 = logits.iter().filter(|l| l.is_finite()).sum();
    let mistakes: [Mistake<'_>; 3] = [
        ("the division by the sum is missing", logits.iter().map(|l| l.exp()).collect()),
        ("exp is missing: the logits themselves are divided by their sum", {
            logits.iter().map(|l| if l.is_finite() { l / all } else { 0.0 }).collect()
        }),
        ("these are logarithms of probabilities", {
            logits.iter().map(|l| if l.is_finite() { l - sum.ln() } else { OUT }).collect()
        }),
    ];
    compare(&answer::softmax(&logits), &plain(&logits), TOLERANCE, &mistakes)?;
    let found = answer::softmax(&large);
    if found.iter().any(|p| p.is_nan()) {
        return Err("logits of 1,000 overflow: subtract the greatest before exp".into());
    }
    compare(&found, &plain(&large), 1e-3, &[])
}

/// Logits under a penalty, by the rule `of` (logit, how often the token was there).
fn penalized(of: impl Fn(f32, i32) -> f32) -> Vec<f32> {
    let (mut logits, seen) = (logits(), seen());
    for (id, logit) in logits.iter_mut().enumerate() {
        let times = seen.iter().filter(|&&s| s as usize == id).count() as i32;
        if times > 0 {
            *logit = of(*logit, times);
        }
    }
    logits
}

fn rule(logit: f32) -> f32 {
    if logit > 0.0 { logit / 1.3 } else { logit * 1.3 }
}

fn penalize() -> Outcome {
    let expected = behind(&seen(), &logits(), Options { penalty: 1.3, ..OFF });
    let mut found = logits();
    answer::penalize(&mut found, &seen(), 1.3);
    let mut others = logits();
    let seen_ids = seen();
    (0..V).filter(|id| !seen_ids.contains(&(*id as u32))).for_each(|id| others[id] = rule(others[id]));
    let mistakes: [Mistake<'_>; 5] = [
        ("a negative logit is divided: its token became likelier", plain(&penalized(|l, _| l / 1.3))),
        ("a token that was there twice is punished twice", {
            plain(&penalized(|l, times| if l > 0.0 { l / 1.3f32.powi(times) } else { l * 1.3f32.powi(times) }))
        }),
        ("the penalty is subtracted; that is what a presence penalty does", plain(&penalized(|l, _| l - 1.3))),
        ("the tokens that were not there are punished", plain(&others)),
        ("it is the wrong way round: what was there became likelier", {
            plain(&penalized(|l, _| if l > 0.0 { l * 1.3 } else { l / 1.3 }))
        }),
    ];
    compare(&plain(&found), &expected, TOLERANCE, &mistakes)
}

fn top_k() -> Outcome {
    let order = order(&logits());
    let expected = fornax(&logits(), Options { top_k: K, ..OFF });
    let rank = |id: usize| order.iter().position(|&i| i == id).unwrap_or(V);
    let zeros = {
        let mut logits = logits();
        order[K + 1..].iter().for_each(|&id| logits[id] = 0.0);
        plain(&logits)
    };
    let mistakes: [Mistake<'_>; 5] = [
        (
            "what equals the k-th is dropped: which of two equal tokens stays is chance then",
            kept(|id| rank(id) < K),
        ),
        ("the least likely are kept", kept(|id| rank(id) >= V - K)),
        ("what is dropped has logit 0, which is not even unlikely; minus infinity rules it out", zeros),
        ("one too few is kept", kept(|id| rank(id) < K - 1)),
        ("nothing is dropped", plain(&logits())),
    ];
    compare(&after(|logits| answer::keep_top_k(logits, K)), &expected, TOLERANCE, &mistakes)?;
    for (k, words) in [(0, "k = 0 is off, and keeps all"), (V + 7, "k beyond the vocabulary keeps all")] {
        compare(&after(|logits| answer::keep_top_k(logits, k)), &plain(&logits()), TOLERANCE, &[])
            .map_err(|difference| format!("{words}: {difference}"))?;
    }
    Ok("5 kept and the one equal to the fifth; 0 and 31 keep all".into())
}

/// What p keeps, by the rule `stays` (sum before the token, its probability).
fn nucleus(stays: impl Fn(f32, f32) -> bool) -> Vec<f32> {
    let (p, mut before, mut keep) = (plain(&logits()), 0.0, [false; V]);
    for id in order(&logits()) {
        keep[id] = stays(before, p[id]);
        before += p[id];
    }
    kept(|id| keep[id])
}

fn top_p() -> Outcome {
    let expected = fornax(&logits(), Options { top_p: 0.7, ..OFF });
    let mut up: Vec<usize> = order(&logits());
    up.reverse();
    let p = plain(&logits());
    let mut sum = 0.0;
    let from_below: Vec<usize> = up
        .into_iter()
        .take_while(|&id| {
            sum += p[id];
            sum - p[id] < 0.7
        })
        .collect();
    let mistakes: [Mistake<'_>; 4] = [
        ("the token with which p is reached is dropped; it stays", nucleus(|before, p| before + p < 0.7)),
        ("each token is compared with p by itself; their sum is meant", nucleus(|_, p| p >= 0.7)),
        ("the sum begins at the least likely token", kept(|id| from_below.contains(&id))),
        ("nothing is dropped", plain(&logits())),
    ];
    compare(&after(|logits| answer::keep_top_p(logits, 0.7)), &expected, TOLERANCE, &mistakes)?;
    // Far below the likeliest one's probability, that one stays.
    let one = fornax(&logits(), Options { top_p: 0.01, ..OFF });
    compare(&after(|logits| answer::keep_top_p(logits, 0.01)), &one, TOLERANCE, &[])
        .map_err(|difference| format!("p = 0.01 keeps the likeliest token: {difference}"))
}

fn min_p() -> Outcome {
    let expected = fornax(&logits(), Options { min_p: 0.1, ..OFF });
    let p = plain(&logits());
    let greatest = p.iter().fold(0.0f32, |most, p| most.max(*p));
    let mistakes: [Mistake<'_>; 3] = [
        (
            "the share is compared with the probability itself; it is a share of the greatest",
            kept(|id| p[id] >= 0.1),
        ),
        ("what is likelier than the share is dropped", kept(|id| p[id] < 0.1 * greatest)),
        ("nothing is dropped", p.clone()),
    ];
    compare(&after(|logits| answer::keep_min_p(logits, 0.1)), &expected, TOLERANCE, &mistakes)
}

fn chain(top_k: usize, top_p: f32, min_p: f32) -> Outcome {
    let options = Options { penalty: 1.3, temperature: 1.8, top_k, top_p, min_p };
    let expected = behind(&seen(), &logits(), options);
    let hot = |logits: Vec<f32>| logits.iter().map(|l| l / options.temperature).collect::<Vec<f32>>();
    let logarithms = |p: Vec<f32>| p.iter().map(|p| p.ln()).collect::<Vec<f32>>();
    let punished = penalized(|l, _| rule(l));
    let late = logarithms(fornax(&punished, Options { temperature: 1.0, ..options }));
    let unpunished = fornax(&logits(), options);
    let squared = fornax(&punished, Options { temperature: 1.0 / options.temperature, ..options });
    let p_before_k = {
        let p = logarithms(fornax(&hot(punished.clone()), Options { top_p: options.top_p, ..OFF }));
        fornax(&p, Options { top_k: options.top_k, min_p: options.min_p, ..OFF })
    };
    let cold = logarithms(fornax(&logits(), options));
    let late_penalty = {
        let mut p = cold;
        seen().iter().for_each(|&id| p[id as usize] = rule(p[id as usize]));
        plain(&p)
    };
    let mistakes = [
        ("the temperature comes after the filters; it goes before them", plain(&hot(late))),
        ("the penalty is missing", unpunished),
        ("the temperature is missing", fornax(&punished, Options { temperature: 1.0, ..options })),
        ("the logits are multiplied by the temperature; a higher one is flatter", squared),
        ("min-p is missing", fornax(&punished, Options { min_p: 0.0, ..options })),
        ("top-k is missing", fornax(&punished, Options { top_k: 0, ..options })),
        ("top-p is missing", fornax(&punished, Options { top_p: 1.0, ..options })),
        ("top-p goes before top-k", p_before_k),
        ("the penalty comes last", late_penalty),
    ];
    // Some are no mistakes where a stage is off.
    let shows = |(_, values): &Mistake<'_>| compare(values, &expected, TOLERANCE, &[]).is_err();
    let mistakes: Vec<Mistake<'_>> = mistakes.into_iter().filter(shows).collect();
    assert!(mistakes.len() > 5, "this check sees {} mistakes", mistakes.len());
    compare(&answer::distribution(&logits(), &seen(), &options), &expected, TOLERANCE, &mistakes)
}

fn draw() -> Outcome {
    const DRAWS: usize = 4000;
    let p = fornax(&logits(), Options { top_k: 9, ..OFF });
    let shares = |draw: &dyn Fn(f32) -> u32| {
        let mut shares = vec![0.0f32; V];
        for i in 0..DRAWS {
            shares[(draw((i as f32 + 0.5) / DRAWS as f32) as usize).min(V - 1)] += 1.0 / DRAWS as f32;
        }
        shares
    };
    let sums: Vec<f32> = (1..=V).map(|n| p[..n].iter().sum()).collect();
    let before = |u: f32| sums.iter().position(|sum| *sum > u).unwrap_or(V - 1).saturating_sub(1) as u32;
    let mistakes: [Mistake<'_>; 4] = [
        ("the likeliest token is taken always", shares(&|_| order(&p)[0] as u32)),
        (
            "the number is compared with each probability by itself; the sum up to it is meant",
            shares(&|u| p.iter().position(|p| *p > u).unwrap_or(V - 1) as u32),
        ),
        ("every token is drawn alike: the probabilities are not looked at", shares(&|u| (u * V as f32) as u32)),
        ("the token before the one meant is drawn", shares(&before)),
    ];
    compare(&shares(&|u| answer::draw(&p, u)), &p, 1e-3, &mistakes)?;
    // The edges: a dropped token in front, and a sum that rounding leaves below 1.
    let edges = [answer::draw(&[0.0, 0.0, 0.5, 0.5], 0.0), answer::draw(&[0.25, 0.25, 0.49, 0.0], 0.999)];
    match edges {
        [2, 2] => Ok(format!("{DRAWS} draws, shares within 0.001; both edges")),
        [0 | 1, _] => Err("uniform 0 draws a token of probability 0: the sum has to exceed the number".into()),
        [_, other] => Err(format!("where the sum stays below 1, token {other} is drawn, 2 is the last with any")),
    }
}
