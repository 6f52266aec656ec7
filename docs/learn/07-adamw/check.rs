//! Compares the reader's update with that of `fornax_train::optimizer`.

#[cfg_attr(feature = "solution", path = "solution/lib.rs")]
#[cfg_attr(all(feature = "start", not(feature = "solution")), path = "start/lib.rs")]
#[cfg_attr(not(any(feature = "start", feature = "solution")), path = "src/lib.rs")]
mod answer;

use std::process::ExitCode;

use answer::Settings;
use fornax_learn::fornax_base::recipe;
use fornax_learn::fornax_model::parameters::ParameterMut;
use fornax_learn::fornax_train::optimizer::Optimizer;
use fornax_learn::fornax_train::recipe::OptimizerRecipe;
use fornax_learn::{Checks, Mistake, Outcome, compare, normals, tensor, values};

const ROWS: usize = 3;
const COLUMNS: usize = 5;
const N: usize = ROWS * COLUMNS;
const UPDATES: u32 = 7;
/// Far from the usual values, so that each of them shows.
const SETTINGS: Settings = Settings { lr: 0.1, beta1: 0.8, beta2: 0.95, eps: 0.05, weight_decay: 0.3 };
const TOLERANCE: f32 = 1e-5;

fn main() -> ExitCode {
    let mut checks = Checks::new();
    checks.run("adamw: the very first update of a matrix", || matrix(1));
    checks.run("adamw: 7 updates of a matrix", || matrix(UPDATES));
    checks.run("adamw: 7 updates of a vector, which is not decayed", vector);
    checks.run("adamw: the running means", moments);
    checks.finish()
}

fn gradient(update: u32) -> Vec<f32> {
    normals(&format!("gradient {update}"), N).iter().map(|g| 0.3 * g).collect()
}

fn rate(update: u32) -> f64 {
    SETTINGS.lr / f64::from(update)
}

/// Parameter and running means after `updates` of Fornax's optimizer.
fn fornax(updates: u32, as_matrix: bool) -> [Vec<f32>; 3] {
    let Settings { lr, beta1, beta2, eps, weight_decay } = SETTINGS;
    let text = format!(
        "lr = {lr}\nbeta1 = {beta1}\nbeta2 = {beta2}\neps = {eps}\nweight_decay = {weight_decay}\nclip_norm = 0.0"
    );
    let recipe: OptimizerRecipe = recipe::load(&text, "this check", &[]).expect("a recipe of AdamW");
    let mut optimizer = Optimizer::new(&recipe);
    let start = normals("parameter", N);
    let (mut matrix, mut vector) = (tensor(&start, [ROWS, COLUMNS]), tensor(&start, [N]));
    for update in 1..=updates {
        optimizer.begin();
        let mut parameter = match as_matrix {
            true => ParameterMut::Matrix(&mut matrix),
            false => ParameterMut::Vector(&mut vector),
        };
        optimizer.update("w", &mut parameter, tensor(&gradient(update), [N]), 1.0, rate(update));
    }
    let moment = |end: &str| {
        let mut all = optimizer.tensors().into_iter();
        all.find(|(name, ..)| name.ends_with(end)).map(|(_, _, moment)| values(moment)).unwrap_or_default()
    };
    [if as_matrix { values(matrix) } else { values(vector) }, moment("exp_avg"), moment("exp_avg_sq")]
}

/// An update as the exercise has it.
type Update = fn(&mut [f32], &mut [f32], &mut [f32], &[f32], u32, Settings);

fn updated(update_with: Update, updates: u32, weight_decay: f64) -> [Vec<f32>; 3] {
    let (mut parameter, mut mean, mut square) = (normals("parameter", N), vec![0.0; N], vec![0.0; N]);
    for update in 1..=updates {
        let settings = Settings { lr: rate(update), weight_decay, ..SETTINGS };
        update_with(&mut parameter, &mut mean, &mut square, &gradient(update), update, settings);
    }
    [parameter, mean, square]
}

/// AdamW with one thing in it changed by `W`.
fn wrong<const W: usize>(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], update: u32, s: Settings) {
    let corrections = match W {
        NO_CORRECTION => [1.0, 1.0],
        FROM_ZERO => [s.beta1, s.beta2].map(|b| 1.0 - b.powi(update as i32 - 1)),
        FIRST_ONLY => [1.0 - s.beta1.powi(update as i32), 1.0],
        _ => [s.beta1, s.beta2].map(|b| 1.0 - b.powi(update as i32)),
    };
    for i in 0..p.len() {
        let mut gradient = f64::from(g[i]);
        if W == L2 {
            gradient += s.weight_decay * f64::from(p[i]);
        }
        let (b1, b2) = if W == BETAS_SWAPPED { (s.beta2, s.beta1) } else { (s.beta1, s.beta2) };
        let mean = b1 * f64::from(m[i]) + (1.0 - b1) * gradient;
        let square =
            b2 * f64::from(v[i]) + (1.0 - b2) * if W == NOT_SQUARED { gradient } else { gradient * gradient };
        let corrected = (square / corrections[1]).max(0.0);
        let divisor = match W {
            EPS_INSIDE => (corrected + s.eps).sqrt(),
            NO_EPS => corrected.sqrt(),
            EPS_EARLY => (square.sqrt() + s.eps) / corrections[1].sqrt(),
            NO_ROOT => corrected + s.eps,
            _ => corrected.sqrt() + s.eps,
        };
        let decay = match W {
            NO_DECAY | L2 => 0.0,
            DECAY_WITHOUT_LR => s.weight_decay,
            _ => s.lr * s.weight_decay,
        };
        let change = s.lr * mean / corrections[0] / divisor;
        p[i] = match W {
            UPHILL => f64::from(p[i]) * (1.0 - decay) + change,
            _ => f64::from(p[i]) * (1.0 - decay) - change,
        } as f32;
        [m[i], v[i]] = match W {
            STORES_CORRECTED => [mean / corrections[0], square / corrections[1]],
            _ => [mean, square],
        }
        .map(|x| x as f32);
    }
}

const NO_CORRECTION: usize = 0;
const FROM_ZERO: usize = 1;
const FIRST_ONLY: usize = 2;
const L2: usize = 3;
const BETAS_SWAPPED: usize = 4;
const NOT_SQUARED: usize = 5;
const EPS_INSIDE: usize = 6;
const NO_EPS: usize = 7;
const EPS_EARLY: usize = 8;
const NO_ROOT: usize = 9;
const NO_DECAY: usize = 10;
const DECAY_WITHOUT_LR: usize = 11;
const UPHILL: usize = 12;
const STORES_CORRECTED: usize = 13;

const KNOWN: [(&str, Update); 14] = [
    ("bias correction missing: both means start at 0 and are too small at the beginning", wrong::<NO_CORRECTION>),
    ("the correction counts updates from 0; the first one is 1", wrong::<FROM_ZERO>),
    ("the mean of squares is not corrected", wrong::<FIRST_ONLY>),
    ("the decay is added to the gradient (Adam with L2); AdamW takes it off the parameter", wrong::<L2>),
    ("beta1 and beta2 are swapped", wrong::<BETAS_SWAPPED>),
    ("the second mean is of the gradient; it is of its square", wrong::<NOT_SQUARED>),
    ("epsilon stands under the root; it is added to the root", wrong::<EPS_INSIDE>),
    ("epsilon is missing", wrong::<NO_EPS>),
    ("epsilon is added before the correction of the squares; it comes after", wrong::<EPS_EARLY>),
    ("the root is missing", wrong::<NO_ROOT>),
    ("the weight decay is missing", wrong::<NO_DECAY>),
    ("the decay is not multiplied by the learning rate", wrong::<DECAY_WITHOUT_LR>),
    ("the update goes uphill: the change is subtracted", wrong::<UPHILL>),
    ("the corrected means are stored; what is stored is not corrected", wrong::<STORES_CORRECTED>),
];

fn against(found: &[f32], expected: &[f32], updates: u32, decay: f64, part: usize) -> Outcome {
    let mistakes: Vec<Mistake<'_>> = KNOWN
        .iter()
        .map(|(words, update)| (*words, updated(*update, updates, decay)[part].clone()))
        // Not every mistake shows in every part or after a single update.
        .filter(|(_, values)| compare(values, expected, TOLERANCE, &[]).is_err())
        .collect();
    compare(found, expected, TOLERANCE, &mistakes)
}

fn matrix(updates: u32) -> Outcome {
    let expected = fornax(updates, true);
    let found = updated(answer::adamw, updates, SETTINGS.weight_decay);
    against(&found[0], &expected[0], updates, SETTINGS.weight_decay, 0)
}

fn vector() -> Outcome {
    let found = updated(answer::adamw, UPDATES, 0.0);
    against(&found[0], &fornax(UPDATES, false)[0], UPDATES, 0.0, 0)
}

fn moments() -> Outcome {
    let expected = fornax(UPDATES, true);
    let found = updated(answer::adamw, UPDATES, SETTINGS.weight_decay);
    against(&found[1], &expected[1], UPDATES, SETTINGS.weight_decay, 1)?;
    against(&found[2], &expected[2], UPDATES, SETTINGS.weight_decay, 2)
}
