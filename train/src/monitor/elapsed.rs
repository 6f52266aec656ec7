//! The time a log tells of: its events carry no clock, but tokens and a rate

use crate::events::TrainEvent;

/// Seconds of training, validation and pauses left out, reckoned event by event.
#[derive(Debug, Clone, Copy, Default)]
pub struct Elapsed {
    tokens: u64,
    seconds: f64,
}

impl Elapsed {
    /// Seconds of training and saving from the start of the log to the end of this event.
    pub fn after(&mut self, event: &TrainEvent) -> f64 {
        match *event {
            TrainEvent::Started { step, tokens_per_step, .. } => {
                self.tokens = step.saturating_mul(tokens_per_step)
            }
            TrainEvent::Step { tokens, tokens_per_second, .. } => {
                let seconds = tokens.saturating_sub(self.tokens) as f64 / tokens_per_second;
                // A step within less than the clock's tick has no rate that means anything.
                if seconds.is_finite() && seconds > 0.0 {
                    self.seconds += seconds;
                }
                self.tokens = tokens;
            }
            TrainEvent::CheckpointSaved { seconds, .. } if seconds > 0.0 => self.seconds += seconds,
            _ => {}
        }
        self.seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::testing::step;

    #[test]
    fn tokens_over_rate_by_hand() {
        let mut elapsed = Elapsed::default();
        // 100 tokens a step, 50 a second: 2 s each.
        assert_eq!(elapsed.after(&step(1, 3.0)), 2.0);
        assert_eq!(elapsed.after(&step(3, 3.0)), 6.0);
        let saved = TrainEvent::CheckpointSaved { step: 3, path: "c".into(), seconds: 0.5 };
        assert_eq!(elapsed.after(&saved), 6.5);
    }
}
