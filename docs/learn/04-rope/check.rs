//! Compares the reader's rotation with `ops::rope` and its frequencies with `fornax_model::rope`.

#[cfg_attr(feature = "solution", path = "solution/lib.rs")]
#[cfg_attr(all(feature = "start", not(feature = "solution")), path = "start/lib.rs")]
#[cfg_attr(not(any(feature = "start", feature = "solution")), path = "src/lib.rs")]
mod answer;

use std::process::ExitCode;

use fornax_learn::fornax_model::ops;
use fornax_learn::fornax_model::rope::RopeScaling;
use fornax_learn::{Checks, Mistake, Outcome, compare, normals, tensor, values};

const D: usize = 10;
const THETA: f32 = 500.0;
/// Not from 0, not in steps of one: as a cache and packed documents give them.
const POSITIONS: [u32; 7] = [0, 1, 5, 6, 2, 40, 3];
const TOLERANCE: f32 = 1e-5;

fn main() -> ExitCode {
    let mut checks = Checks::new();
    checks.run("inverse_frequencies: 5 pairs", frequencies);
    checks.run("rope: 7 rows of 10 channels", rotation);
    checks.run("rope: lengths stay", lengths);
    checks.run("rope: a product depends on the distance alone", distance);
    checks.finish()
}

fn inverse() -> Vec<f32> {
    RopeScaling::None.inverse_frequencies(f64::from(THETA), D).0
}

fn frequencies() -> Outcome {
    let power = |exponent: &dyn Fn(f32) -> f32| -> Vec<f32> {
        (0..D / 2).map(|i| THETA.powf(exponent(i as f32))).collect()
    };
    let d = D as f32;
    let mistakes: [Mistake<'_>; 4] = [
        (
            "the exponent is i / d; it is 2i / d, so that the frequencies fall from 1 to nearly 1 / theta",
            power(&|i| -i / d),
        ),
        ("these are wavelengths (theta^(2i/d)); the inverse is wanted", power(&|i| 2.0 * i / d)),
        ("the exponent counts from 1; pair 0 turns by one radian a position", power(&|i| -2.0 * (i + 1.0) / d)),
        (
            "there is a number for each channel; two channels share one",
            (0..D).map(|i| THETA.powf(-((i / 2 * 2) as f32) / d)).collect(),
        ),
    ];
    compare(&answer::inverse_frequencies(THETA, D), &inverse(), 1e-6, &mistakes)
}

/// Rows turned by Fornax.
fn fornax(x_td: &[f32], positions: &[u32]) -> Vec<f32> {
    let t = positions.len();
    let angles: Vec<f32> =
        positions.iter().flat_map(|&p| inverse().into_iter().map(move |f| p as f32 * f)).collect();
    let of = |f: fn(f32) -> f32| tensor(&angles.iter().map(|a| f(*a)).collect::<Vec<_>>(), [1, t, D / 2]);
    values(ops::rope(tensor(x_td, [1, 1, t, D]), of(f32::cos), of(f32::sin)))
}

/// Pair i is the two channels `pair(i)`; row r stands at `position(r)`; `sign` is the direction.
fn wrong(
    x_td: &[f32],
    pair: impl Fn(usize) -> [usize; 2],
    position: impl Fn(usize) -> u32,
    sign: f32,
) -> Vec<f32> {
    let mut y = x_td.to_vec();
    for (r, row) in y.chunks_mut(D).enumerate() {
        for (i, f) in inverse().into_iter().enumerate() {
            let (sin, cos) = (sign * position(r) as f32 * f).sin_cos();
            let [left, right] = pair(i);
            let (a, b) = (row[left], row[right]);
            (row[left], row[right]) = (a * cos - b * sin, b * cos + a * sin);
        }
    }
    y
}

fn rotation() -> Outcome {
    let x_td = normals("x", POSITIONS.len() * D);
    let half = |i: usize| [i, i + D / 2];
    let at = |r: usize| POSITIONS[r];
    let cut: Vec<f32> = {
        // b cos + a sin with the new a in place of the old one.
        let mut y = x_td.clone();
        for (r, row) in y.chunks_mut(D).enumerate() {
            for (i, f) in inverse().into_iter().enumerate() {
                let (sin, cos) = (POSITIONS[r] as f32 * f).sin_cos();
                row[i] = row[i] * cos - row[i + D / 2] * sin;
                row[i + D / 2] = row[i + D / 2] * cos + row[i] * sin;
            }
        }
        y
    };
    let mistakes: [Mistake<'_>; 6] = [
        (
            "your output equals interleaved RoPE (GPT-J), not rotate-half: pair i is (x_i, x_(i + d/2))",
            wrong(&x_td, |i| [2 * i, 2 * i + 1], at, 1.0),
        ),
        ("the rotation goes backwards: the signs of the sines are swapped", wrong(&x_td, half, at, -1.0)),
        (
            "each row is turned by its number; use the positions that are given",
            wrong(&x_td, half, |r| r as u32, 1.0),
        ),
        ("positions are counted from 1 here; use them as they are", wrong(&x_td, half, |r| POSITIONS[r] + 1, 1.0)),
        ("the second channel of a pair is computed from the first after it was overwritten", cut),
        ("nothing is turned", x_td.clone()),
    ];
    compare(&answer::rope(&x_td, &POSITIONS, THETA, D), &fornax(&x_td, &POSITIONS), TOLERANCE, &mistakes)
}

fn lengths() -> Outcome {
    let x_td = normals("lengths", POSITIONS.len() * D);
    let length =
        |x: &[f32]| -> Vec<f32> { x.chunks(D).map(|r| r.iter().map(|x| x * x).sum::<f32>().sqrt()).collect() };
    compare(
        &length(&answer::rope(&x_td, &POSITIONS, THETA, D)),
        &length(&fornax(&x_td, &POSITIONS)),
        TOLERANCE,
        &[],
    )
}

/// q at position m against k at position n, for pairs of positions equally far apart.
fn distance() -> Outcome {
    let (q, k) = (normals("q", D), normals("k", D));
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let products = |rope: &dyn Fn(&[f32], u32) -> Vec<f32>| -> Vec<f32> {
        [(9, 2), (7, 0), (107, 100), (7, 9)].map(|(m, n)| dot(&rope(&q, m), &rope(&k, n))).to_vec()
    };
    let found = products(&|x, p| answer::rope(x, &[p], THETA, D));
    let expected = products(&|x, p| fornax(x, &[p]));
    compare(&found, &expected, 1e-4, &[])?;
    Ok(format!(
        "7 apart: {:.4}, {:.4}, {:.4}; 2 apart the other way: {:.4}",
        found[0], found[1], found[2], found[3]
    ))
}
