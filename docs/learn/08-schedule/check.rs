//! Compares the reader's learning rates with `fornax_train::schedule`.

#[cfg_attr(feature = "solution", path = "solution/lib.rs")]
#[cfg_attr(all(feature = "start", not(feature = "solution")), path = "start/lib.rs")]
#[cfg_attr(not(any(feature = "start", feature = "solution")), path = "src/lib.rs")]
mod answer;

use std::f64::consts::PI;
use std::process::ExitCode;

use answer::{Kind, Schedule};
use fornax_learn::fornax_train::recipe::ScheduleKind;
use fornax_learn::fornax_train::schedule as fornax;
use fornax_learn::{Checks, Mistake, Outcome, compare};

const TOLERANCE: f32 = 1e-6;

fn main() -> ExitCode {
    let cosine = Schedule { kind: Kind::Cosine, peak: 0.3, warmup: 5, final_fraction: 0.1, decay_fraction: 0.0 };
    let wsd = Schedule { kind: Kind::Wsd, peak: 0.3, warmup: 5, final_fraction: 0.2, decay_fraction: 0.3 };
    let mut checks = Checks::new();
    checks.run("lr_at: the warm-up", || check(&cosine, 23, 0..5));
    checks.run("lr_at: a cosine of 23 steps, and after it", || check(&cosine, 23, 0..40));
    checks.run("lr_at: a cosine without warm-up", || check(&Schedule { warmup: 0, ..cosine }, 7, 0..12));
    checks.run("lr_at: warm-up, stable, decay in 23 steps, and after them", || check(&wsd, 23, 0..40));
    checks.run("lr_at: a decay shorter than a step", || {
        check(&Schedule { decay_fraction: 0.001, ..wsd }, 23, 0..30)
    });
    checks.run("lr_at: a decay that would start within the warm-up", || {
        check(&Schedule { decay_fraction: 0.95, warmup: 9, ..wsd }, 13, 0..20)
    });
    checks.run("lr_at: a warm-up longer than the run", || check(&Schedule { warmup: 8, ..cosine }, 5, 0..12));
    checks.finish()
}

/// A mistake: the rate with one thing changed.
#[derive(Clone, Copy, PartialEq)]
enum Wrong {
    WarmupFromZero,
    WarmupFull,
    NoWarmup,
    CosineOverAll,
    EndsEarly,
    FallsToZero,
    PastTheEnd,
    WholeCosine,
    FallsFromWarmup,
    DecayCut,
    LinearCosine,
}

const KNOWN: [(&str, Wrong); 11] = [
    (
        "warm-up starts at rate 0, a step that changes nothing: (i + 1) / (warmup + 1) is wanted",
        Wrong::WarmupFromZero,
    ),
    ("warm-up reaches the peak one step early: it divides by warmup, not by warmup + 1", Wrong::WarmupFull),
    ("there is no warm-up", Wrong::NoWarmup),
    ("the fall is measured over the whole run; it starts where warm-up ends", Wrong::CosineOverAll),
    ("the last rate is reached at the last step; it is reached at step `total`, one after it", Wrong::EndsEarly),
    ("the rate falls to 0; it falls to final_fraction of the peak", Wrong::FallsToZero),
    ("after the end the curve goes on; the last rate stays", Wrong::PastTheEnd),
    ("a whole cosine is run through: the rate falls and rises again", Wrong::WholeCosine),
    (
        "the rate falls from the end of warm-up on; it is stable until the last decay_fraction of the run",
        Wrong::FallsFromWarmup,
    ),
    ("the number of decay steps is cut off, not rounded to at least 1", Wrong::DecayCut),
    ("the fall is a straight line, not a cosine", Wrong::LinearCosine),
];

fn check(schedule: &Schedule, total: u64, steps: std::ops::Range<u64>) -> Outcome {
    let Schedule { kind, peak, warmup, final_fraction, decay_fraction } = *schedule;
    let kind = if kind == Kind::Cosine { ScheduleKind::Cosine } else { ScheduleKind::Wsd };
    let ours = fornax::Schedule {
        kind,
        peak_lr: peak,
        warmup_steps: warmup,
        final_lr_fraction: final_fraction,
        decay_fraction,
    };
    let expected: Vec<f32> = steps.clone().map(|step| ours.lr_at(step, total) as f32).collect();
    let found: Vec<f32> = steps.clone().map(|step| answer::lr_at(schedule, step, total) as f32).collect();
    let mistakes: Vec<Mistake<'_>> = KNOWN
        .iter()
        .map(|(words, how)| {
            (*words, steps.clone().map(|step| wrong(schedule, step, total, *how) as f32).collect())
        })
        // Not every mistake shows in every schedule.
        .filter(|(_, values): &Mistake<'_>| compare(values, &expected, TOLERANCE, &[]).is_err())
        .collect();
    match compare(&found, &expected, TOLERANCE, &mistakes) {
        Err(message) if steps.start == 0 => Err(message.replace("element", "step")),
        outcome => outcome,
    }
}

fn wrong(schedule: &Schedule, step: u64, total: u64, how: Wrong) -> f64 {
    let Schedule { kind, peak, warmup, final_fraction, decay_fraction } = *schedule;
    if step < warmup && how != Wrong::NoWarmup {
        let (above, below) = match how {
            Wrong::WarmupFromZero => (step, warmup),
            Wrong::WarmupFull => (step + 1, warmup),
            _ => (step + 1, warmup + 1),
        };
        return peak * above as f64 / below as f64;
    }
    let last = if how == Wrong::FallsToZero { 0.0 } else { peak * final_fraction };
    let falling = match how {
        Wrong::DecayCut => (decay_fraction * total as f64) as u64,
        _ => ((decay_fraction * total as f64).round() as u64).max(1),
    };
    let start = match (kind, how) {
        (_, Wrong::NoWarmup | Wrong::CosineOverAll) if kind == Kind::Cosine => 0,
        (Kind::Wsd, how) if how != Wrong::FallsFromWarmup => total.saturating_sub(falling).max(warmup),
        _ => warmup,
    };
    let end = if how == Wrong::EndsEarly { total.saturating_sub(1) } else { total };
    if step < start {
        return peak;
    }
    if step >= end && how != Wrong::PastTheEnd || end <= start {
        return last;
    }
    let done = (step - start) as f64 / (end - start) as f64;
    let left = match (kind, how) {
        (Kind::Cosine, Wrong::LinearCosine) => 1.0 - done,
        (Kind::Cosine, Wrong::WholeCosine) => (1.0 + (2.0 * PI * done).cos()) / 2.0,
        (Kind::Cosine, _) => (1.0 + (PI * done).cos()) / 2.0,
        (Kind::Wsd, _) => 1.0 - done,
    };
    last + (peak - last) * left
}
