//! Compares the reader's accuracy, its interval and the longer answer's share with those of `fornax_post_train`.

#[cfg_attr(feature = "solution", path = "solution/lib.rs")]
#[cfg_attr(all(feature = "start", not(feature = "solution")), path = "start/lib.rs")]
#[cfg_attr(not(any(feature = "start", feature = "solution")), path = "src/lib.rs")]
mod answer;

use std::process::ExitCode;

use answer::Count;
use fornax_learn::fornax_data::examples::{Example, Pair};
use fornax_learn::fornax_post_train::accuracy::{self, Verdicts};
use fornax_learn::{Checks, Mistake, Outcome, compare, normals};

/// Shares are compared to this.
const TOLERANCE: f32 = 1e-6;
/// Lengths of (chosen, rejected), some equal.
const LENGTHS: [(usize, usize); 9] =
    [(12, 7), (3, 30), (8, 8), (41, 40), (5, 5), (19, 2), (6, 6), (2, 11), (90, 17)];

fn main() -> ExitCode {
    let mut checks = Checks::new();
    checks.run("count: scores with draws", counts);
    checks.run("accuracy: a draw is not won", accuracy);
    checks.run("prefer_the_longer: 9 pairs, 3 of equal length", longer);
    checks.run("wilson: shares in the middle", || wilson(&[(52, 100), (270, 500), (3, 7)]));
    checks.run("wilson: none and all", || wilson(&[(0, 20), (20, 20), (1, 1)]));
    checks.finish()
}

fn scores() -> Vec<(f64, f64)> {
    let numbers: Vec<f64> = normals("scores", 40).iter().map(|x| f64::from(*x)).collect();
    let draws = [(0.25, 0.25), (-1.5, -1.5), (0.0, 0.0)];
    numbers.chunks(2).map(|pair| (pair[0] + 0.4, pair[1])).chain(draws).collect()
}

fn counts() -> Outcome {
    let scores = scores();
    let Verdicts { won, lost, drawn } = Verdicts::of(scores.iter().copied());
    let expected = Count { won: won as usize, lost: lost as usize, drawn: drawn as usize };
    let found = answer::count(&scores);
    let swapped = Count { won: expected.lost, lost: expected.won, ..expected };
    let draws_won = Count { won: expected.won + expected.drawn, drawn: 0, ..expected };
    let draws_won_too = Count { won: expected.won + expected.drawn, ..expected };
    let draws_lost_too = Count { lost: expected.lost + expected.drawn, ..expected };
    let draws_lost = Count { lost: expected.lost + expected.drawn, drawn: 0, ..expected };
    let words = match found {
        _ if found == expected => return Ok(format!("{expected:?}")),
        _ if found == swapped => "won and lost are swapped: the score of the chosen one stands in front",
        _ if found.won == expected.lost && found != expected => {
            "won counts the pairs in which the rejected one has the greater score"
        }
        _ if found == draws_won || found == draws_won_too => "equal scores are counted as won",
        _ if found == draws_lost || found == draws_lost_too => "equal scores are counted as lost",
        _ => "the numbers differ",
    };
    Err(format!("{words} ({found:?}, expected {expected:?})"))
}

fn accuracy() -> Outcome {
    let count = Count { won: 11, lost: 6, drawn: 3 };
    if answer::accuracy(Count { won: 0, lost: 0, drawn: 0 }) != 0.0 {
        return Err("without a pair it is 0, not 0 / 0".into());
    }
    let mistakes: [Mistake<'_>; 5] = [
        (
            "draws are left out; a model that gives every answer the same score would be as good as one that is right",
            vec![11.0 / 17.0],
        ),
        ("draws are won", vec![14.0 / 20.0]),
        ("a draw counts as half; that is for the coin of `prefer_the_longer`", vec![12.5 / 20.0]),
        ("this is won by lost", vec![11.0 / 6.0]),
        ("this is a percentage", vec![55.0]),
    ];
    let expected = Verdicts { won: 11, lost: 6, drawn: 3 }.accuracy() as f32;
    compare(&[answer::accuracy(count) as f32], &[expected], TOLERANCE, &mistakes)
}

fn longer() -> Outcome {
    let found = answer::prefer_the_longer(&LENGTHS) as f32;
    let mistakes: [Mistake<'_>; 5] = [
        ("this prefers the shorter answer", vec![3.5 / 9.0]),
        ("equal lengths are lost; a judge who must choose throws a coin", vec![4.0 / 9.0]),
        ("equal lengths are won", vec![7.0 / 9.0]),
        ("equal lengths are left out of the division", vec![4.0 / 6.0]),
        ("equal lengths count as half, and are left out of the division", vec![5.5 / 6.0]),
    ];
    compare(&[found], &[fornax_longer(&LENGTHS)], TOLERANCE, &mistakes)
}

/// An interval with another formula: of (share, n, z).
type Interval = fn(f64, f64, f64) -> (f64, f64);

fn of_wilson(seen: f64, n: f64, z: f64) -> (f64, f64) {
    let divisor = 1.0 + z * z / n;
    let middle = (seen + z * z / (2.0 * n)) / divisor;
    let half = z / divisor * (seen * (1.0 - seen) / n + z * z / (4.0 * n * n)).sqrt();
    (middle - half, middle + half)
}

fn normal(seen: f64, n: f64, z: f64) -> (f64, f64) {
    let half = z * (seen * (1.0 - seen) / n).sqrt();
    (seen - half, seen + half)
}

const Z: f64 = 1.959_963_984_540_054;

fn wilson(cases: &[(usize, usize)]) -> Outcome {
    let all = |interval: Interval, z: f64| {
        let ends = cases.iter().map(|&(won, all)| interval(won as f64 / all as f64, all as f64, z));
        ends.flat_map(|(low, high)| [low as f32, high as f32]).collect::<Vec<f32>>()
    };
    let expected: Vec<f32> = cases.iter().flat_map(|&(won, all)| fornax_wilson(won, all)).collect();
    let halves: Interval = |seen, n, z| {
        let (low, high) = of_wilson(seen, n, z);
        ((low + high) / 2.0, (high - low) / 2.0)
    };
    let outside: Interval = |seen, n, z| {
        let (low, high) = of_wilson(seen, n, z);
        let divisor = 1.0 + z * z / n;
        let (middle, half) = ((low + high) / 2.0, (high - low) / 2.0 * divisor);
        (middle - half, middle + half)
    };
    let undivided: Interval = |seen, n, z| {
        let (low, high) = of_wilson(seen, n, z);
        let divisor = 1.0 + z * z / n;
        (low * divisor, high * divisor)
    };
    let mistakes: [Mistake<'_>; 8] = [
        (
            "this is the plain interval share +- 1.96 deviations: it leaves 0..1 and has no width at 0 and 1",
            all(normal, Z),
        ),
        ("this is an interval of one deviation, 68 %", all(of_wilson, 1.0)),
        ("this is an interval of 90 %", all(of_wilson, 1.644_853_626_951_472)),
        ("this is an interval of 99 %", all(of_wilson, 2.575_829_303_548_901)),
        ("these are the middle and half the width; the ends are wanted", all(halves, Z)),
        ("the width is not divided by 1 + z^2 / n", all(outside, Z)),
        ("middle and width are not divided by 1 + z^2 / n", all(undivided, Z)),
        (
            "the ends are swapped",
            all(
                |seen, n, z| {
                    let (low, high) = of_wilson(seen, n, z);
                    (high, low)
                },
                Z,
            ),
        ),
    ];
    let found: Vec<f32> = cases
        .iter()
        .map(|&(won, all)| answer::wilson(won, all))
        .flat_map(|(low, high)| [low as f32, high as f32])
        .collect();
    compare(&found, &expected, 2e-5, &mistakes)
}

/// Fornax's judge, which is given pairs of tokenized answers behind a prompt of 4 tokens.
fn fornax_longer(lengths: &[(usize, usize)]) -> f32 {
    let example =
        |n: usize| Example { ids: vec![0; 4 + n], trained: [vec![false; 4], vec![true; n]].concat(), row: 1 };
    let pairs: Vec<Pair> =
        lengths.iter().map(|&(c, r)| Pair { chosen: example(c), rejected: example(r) }).collect();
    Verdicts::of_the_longer(&pairs).with_a_coin() as f32
}

fn fornax_wilson(won: usize, all: usize) -> [f32; 2] {
    let (low, high) = accuracy::wilson(won as u64, all as u64);
    [low as f32, high as f32]
}
