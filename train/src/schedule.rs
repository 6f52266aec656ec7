//! The learning rate of each step
//!
//! Knows numbers alone: `step` counts from 0, and the same (schedule, step, total) gives the same bits.

use std::f64::consts::PI;

use crate::recipe::ScheduleKind;

/// Warm-up, then one of four curves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Form of the curve after warm-up.
    pub kind: ScheduleKind,
    /// Learning rate at the end of warm-up.
    pub peak_lr: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Last learning rate as a share of the peak; unused by `constant`.
    pub final_lr_fraction: f64,
    /// Share of the steps in which the rate falls; used by `wsd`.
    pub decay_fraction: f64,
}

impl Schedule {
    /// Learning rate of step `step` (from 0) in a run of `total_steps`.
    ///
    /// Warm-up follows nanoGPT: `peak * (step + 1) / (warmup + 1)`, so that no step has rate 0. The falling part
    /// reaches the final rate at `step = total_steps`, one after the last, as nanoGPT's cosine and nanochat's
    /// warm-down do; from there on the rate stays.
    pub fn lr_at(&self, step: u64, total_steps: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak_lr * (step + 1) as f64 / (self.warmup_steps + 1) as f64;
        }
        if self.kind == ScheduleKind::Constant {
            return self.peak_lr;
        }
        let start = self.fall_start(total_steps);
        if step < start {
            return self.peak_lr;
        }
        let final_lr = self.peak_lr * self.final_lr_fraction;
        if step >= total_steps {
            return final_lr;
        }
        let done = (step - start) as f64 / (total_steps - start) as f64;
        let left = match self.kind {
            ScheduleKind::Cosine => 0.5 * (1.0 + (PI * done).cos()),
            ScheduleKind::Linear | ScheduleKind::Wsd | ScheduleKind::Constant => 1.0 - done,
        };
        final_lr + left * (self.peak_lr - final_lr)
    }

    /// Steps in which a `wsd` rate falls: `decay_fraction` of the run, rounded, at least 1; 0 for other kinds.
    pub fn decay_steps(&self, total_steps: u64) -> u64 {
        if self.kind != ScheduleKind::Wsd {
            return 0;
        }
        let steps = (self.decay_fraction * total_steps as f64).round() as u64;
        steps.clamp(1, total_steps.max(1))
    }

    /// Number of steps, from 0, whose rate does not depend on `total_steps`: a run of another length that is no
    /// shorter than this has the same rates there.
    pub fn steps_before_the_fall(&self, total_steps: u64) -> u64 {
        match self.kind {
            ScheduleKind::Constant => u64::MAX,
            _ => self.fall_start(total_steps),
        }
    }

    fn fall_start(&self, total_steps: u64) -> u64 {
        let stable_end = match self.kind {
            ScheduleKind::Wsd => total_steps - self.decay_steps(total_steps).min(total_steps),
            _ => 0,
        };
        stable_end.max(self.warmup_steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: ScheduleKind, warmup_steps: u64) -> Schedule {
        Schedule { kind, peak_lr: 1.0, warmup_steps, final_lr_fraction: 0.1, decay_fraction: 0.2 }
    }

    #[track_caller]
    fn check(schedule: Schedule, total: u64, expected: &[(u64, f64)]) {
        for &(step, lr) in expected {
            let found = schedule.lr_at(step, total);
            assert!((found - lr).abs() < 1e-12, "step {step}: {found}, not {lr}");
        }
    }

    #[test]
    fn warm_up_is_nanogpts() {
        for kind in [ScheduleKind::Cosine, ScheduleKind::Wsd, ScheduleKind::Linear, ScheduleKind::Constant] {
            check(schedule(kind, 4), 20, &[(0, 0.2), (1, 0.4), (3, 0.8), (4, 1.0)]);
        }
    }

    #[test]
    fn cosine_by_hand() {
        // Quarter: 0.1 + 0.9 * 0.5 * (1 + cos(pi/4)); half: 0.1 + 0.45; third of the way: cos(pi/3) = 1/2.
        let quarter = 0.1 + 0.45 * (1.0 + 0.5_f64.sqrt());
        check(
            schedule(ScheduleKind::Cosine, 4),
            16,
            &[(7, quarter), (8, 0.775), (10, 0.55), (16, 0.1), (1000, 0.1)],
        );
    }

    #[test]
    fn linear_by_hand() {
        check(schedule(ScheduleKind::Linear, 0), 10, &[(0, 1.0), (1, 0.91), (5, 0.55), (9, 0.19), (10, 0.1)]);
    }

    #[test]
    fn wsd_by_hand() {
        check(
            schedule(ScheduleKind::Wsd, 2),
            20,
            &[(2, 1.0), (15, 1.0), (16, 1.0), (17, 0.775), (18, 0.55), (19, 0.325), (20, 0.1)],
        );
    }

    #[test]
    fn constant_stays() {
        check(schedule(ScheduleKind::Constant, 0), 3, &[(0, 1.0), (2, 1.0), (u64::MAX, 1.0)]);
    }

    #[test]
    fn boundaries_give_finite_rates() {
        for kind in [ScheduleKind::Cosine, ScheduleKind::Wsd, ScheduleKind::Linear, ScheduleKind::Constant] {
            check(schedule(kind, 0), 1, &[(0, 1.0)]);
            check(schedule(kind, 1), 1, &[(0, 0.5)]);
            for (warmup, total) in [(0, 0), (0, 1), (1, 1), (5, 1), (3, 3), (2, 3)] {
                for step in 0..8 {
                    let lr = schedule(kind, warmup).lr_at(step, total);
                    assert!((0.1..=1.0).contains(&lr), "{kind:?} {warmup} {total} {step}: {lr}");
                }
            }
        }
    }

    #[test]
    fn the_rate_before_the_fall_does_not_depend_on_the_length() {
        for kind in [ScheduleKind::Cosine, ScheduleKind::Wsd, ScheduleKind::Linear] {
            let schedule = schedule(kind, 10);
            for (short, long) in [(100, 150), (50, 1000)] {
                let same = schedule.steps_before_the_fall(short);
                assert!(same >= 10 && same <= schedule.steps_before_the_fall(long));
                for step in 0..same {
                    assert_eq!(schedule.lr_at(step, short), schedule.lr_at(step, long));
                }
                assert_ne!(schedule.lr_at(same + 1, short), schedule.lr_at(same + 1, long));
            }
        }
    }
}
