//! The learning rate of each step: warm-up, then a cosine, or a plateau with a decay at the end.

/// Form of the curve after warm-up.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    /// Falls along half a cosine, from the end of warm-up to the end of the run.
    Cosine,
    /// Warm-up, stable, decay: stays at the peak and falls in a straight line over the last steps.
    Wsd,
}

/// A schedule.
#[derive(Clone, Copy)]
pub struct Schedule {
    /// Form of the curve.
    pub kind: Kind,
    /// The highest rate.
    pub peak: f64,
    /// Steps of warm-up.
    pub warmup: u64,
    /// The last rate as a share of the peak.
    pub final_fraction: f64,
    /// Share of all steps in which a `Wsd` rate falls.
    pub decay_fraction: f64,
}

/// The rate of step `step`, counted from 0, in a run of `total` steps.
///
/// - Warm-up: step i has `peak * (i + 1) / (warmup + 1)`, so that no step has rate 0 and step `warmup` has the peak.
/// - `Cosine`: with `done` the share of the way from step `warmup` to step `total`, the rate is
///   `last + (peak - last) * (1 + cos(pi * done)) / 2`, where `last = peak * final_fraction`.
/// - `Wsd`: the rate falls in the last `decay_fraction * total` steps, rounded to a whole number and at least 1, and
///   never before warm-up ends: `last + (peak - last) * (1 - done)`, with `done` the share of the way from where the
///   fall starts to step `total`.
/// - From step `total` on the rate is `last`.
pub fn lr_at(schedule: &Schedule, step: u64, total: u64) -> f64 {
    todo!("warm-up, plateau, fall, end")
}
