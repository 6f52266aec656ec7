//! The time of the steps alone.

use std::time::{Duration, Instant};

/// Time spent in steps, without validation, saving and pauses.
pub(super) struct Clock {
    since: Instant,
    spent: Duration,
    paused: bool,
    tokens: u64,
}

impl Clock {
    pub(super) fn new(tokens: u64) -> Self {
        Self { since: Instant::now(), spent: Duration::ZERO, paused: false, tokens }
    }

    pub(super) fn pause(&mut self) {
        if !self.paused {
            self.spent += self.since.elapsed();
            self.paused = true;
        }
    }

    pub(super) fn resume(&mut self) {
        self.since = Instant::now();
        self.paused = false;
    }

    /// Tokens per second since it was asked before.
    pub(super) fn rate(&mut self, tokens: u64) -> f64 {
        let was_paused = self.paused;
        self.pause();
        let rate = (tokens - self.tokens) as f64 / self.spent.as_secs_f64().max(1e-9);
        (self.spent, self.tokens) = (Duration::ZERO, tokens);
        if !was_paused {
            self.resume();
        }
        rate
    }
}
