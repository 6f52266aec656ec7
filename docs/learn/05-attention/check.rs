//! Compares the reader's attention with `ops::attention`.

#[cfg_attr(feature = "solution", path = "solution/lib.rs")]
#[cfg_attr(all(feature = "start", not(feature = "solution")), path = "start/lib.rs")]
#[cfg_attr(not(any(feature = "start", feature = "solution")), path = "src/lib.rs")]
mod answer;

use std::process::ExitCode;

use answer::Sizes;
use fornax_learn::fornax_model::ops::{self, AttentionMask};
use fornax_learn::{Checks, Mistake, Outcome, compare, device, normals, tensor, values};

const TOLERANCE: f32 = 2e-5;

fn main() -> ExitCode {
    let mut checks = Checks::new();
    checks.run("attention: one head, 5 tokens", || check("plain", Sizes { h: 1, g: 1, t: 5, s: 5, d: 3 }, 1.0));
    checks.run("attention: 6 heads on 2 key-value heads", || {
        check("grouped", Sizes { h: 6, g: 2, t: 5, s: 5, d: 3 }, 1.0)
    });
    checks.run("attention: 3 new tokens after 4 in the cache", || {
        check("cached", Sizes { h: 6, g: 3, t: 3, s: 7, d: 4 }, 1.0)
    });
    checks
        .run("attention: scores in the hundreds", || check("large", Sizes { h: 2, g: 1, t: 4, s: 4, d: 3 }, 40.0));
    checks.finish()
}

/// What may be wrong with an attention.
#[derive(Clone, Copy)]
struct Wrong {
    /// Whether query j of t sees key i of s.
    sees: fn(j: usize, i: usize, past: usize) -> bool,
    scale: f32,
    /// Key-value head of a query head.
    group: fn(head: usize, h: usize, g: usize) -> usize,
    /// Softmax over the queries of a key.
    over_queries: bool,
    divides: bool,
}

fn causal(j: usize, i: usize, past: usize) -> bool {
    i <= past + j
}

fn check(name: &str, sizes: Sizes, size: f32) -> Outcome {
    let Sizes { h, g, t, s, d } = sizes;
    let past = s - t;
    let scaled = |part: &str, n: usize| -> Vec<f32> {
        normals(&format!("{name} {part}"), n).iter().map(|x| x * size).collect()
    };
    let (q, k) = (scaled("q", h * t * d), scaled("k", g * s * d));
    let v = normals(&format!("{name} v"), g * s * d);
    let scale = 1.0 / (d as f32).sqrt();
    let mask = AttentionMask::new(past, t, None, None, &device());
    let expected = values(ops::attention(
        tensor(&q, [1, h, t, d]),
        tensor(&k, [1, g, s, d]),
        tensor(&v, [1, g, s, d]),
        &mask,
        scale,
    ));
    let right =
        Wrong { sees: causal, scale, group: |head, h, g| head / (h / g), over_queries: false, divides: true };
    let known: [(&str, Wrong); 9] = [
        ("nothing is masked: a token sees those after it", Wrong { sees: |_, _, _| true, ..right }),
        ("the mask lets position t see t + 1", Wrong { sees: |j, i, past| i <= past + j + 1, ..right }),
        ("a token does not see itself", Wrong { sees: |j, i, past| i < (past + j).max(1), ..right }),
        ("the mask forgets the cache: query j is token s - t + j", Wrong { sees: |j, i, _| i <= j, ..right }),
        ("the scale is missing", Wrong { scale: 1.0, ..right }),
        (
            "the scores are multiplied by 1/d, not by the scale that is given",
            Wrong { scale: 1.0 / d as f32, ..right },
        ),
        (
            "query head i reads key-value head i % g; it is i / (h / g)",
            Wrong { group: |head, _, g| head % g, ..right },
        ),
        (
            "softmax runs over the queries; it belongs to the keys of one query",
            Wrong { over_queries: true, ..right },
        ),
        ("the weights are not divided by their sum", Wrong { divides: false, ..right }),
    ];
    let found = answer::attention(&q, &k, &v, sizes, scale);
    if size > 1.0 && found.iter().any(|x| x.is_nan()) {
        return Err("large scores give NaN: exp overflows; subtract the greatest score before".into());
    }
    let mistakes: Vec<Mistake<'_>> = known
        .iter()
        .map(|(words, wrong)| (*words, computed(&q, &k, &v, sizes, *wrong)))
        // Not every mistake shows in every shape.
        .filter(|(_, values)| compare(values, &expected, TOLERANCE, &[]).is_err())
        .collect();
    compare(&found, &expected, TOLERANCE, &mistakes)
}

fn computed(q: &[f32], k: &[f32], v: &[f32], sizes: Sizes, wrong: Wrong) -> Vec<f32> {
    let Sizes { h, g, t, s, d } = sizes;
    let mut out = vec![0.0; h * t * d];
    for head in 0..h {
        let group = (wrong.group)(head, h, g);
        let mut scores = vec![vec![f32::NEG_INFINITY; s]; t];
        for (j, row) in scores.iter_mut().enumerate() {
            for (i, score) in row.iter_mut().enumerate().filter(|(i, _)| (wrong.sees)(j, *i, s - t)) {
                *score = (0..d).map(|c| q[(head * t + j) * d + c] * k[(group * s + i) * d + c]).sum::<f32>()
                    * wrong.scale;
            }
        }
        for j in 0..t {
            for i in 0..s {
                let others: Vec<f32> = match wrong.over_queries {
                    true => scores.iter().map(|row| row[i]).collect(),
                    false => scores[j].clone(),
                };
                let max = others.iter().copied().fold(f32::MIN, f32::max);
                let sum: f32 = others.iter().map(|x| (x - max).exp()).sum();
                let weight = match wrong.divides {
                    true => (scores[j][i] - max).exp() / sum,
                    false => scores[j][i].exp(),
                };
                for c in 0..d {
                    out[(head * t + j) * d + c] += weight * v[(group * s + i) * d + c];
                }
            }
        }
    }
    out
}
