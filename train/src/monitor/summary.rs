//! The state of a run in words and numbers, for pipes and programs

use serde::Serialize;

use crate::events::metric;
use crate::plain::{duration, grouped};

use super::history::{History, Phase};
use super::view::Watched;

/// What `monitor --json` prints of a run; field names stay.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Run folder as it was given.
    pub run: String,
    /// `empty`, `running`, `paused`, `stopped`, `finished`, or `no_process` for a run that nobody works on though its
    /// log does not say that it ended.
    pub state: &'static str,
    /// Steps done.
    pub step: u64,
    /// Steps of the whole run; `None` while unknown.
    pub total_steps: Option<u64>,
    /// Tokens seen since step 0.
    pub tokens: u64,
    /// Newest training loss, nats per target token.
    pub loss: Option<f64>,
    /// Newest validation loss.
    pub validation_loss: Option<f64>,
    /// Lowest validation loss.
    pub best_validation_loss: Option<f64>,
    /// Steps done when it was measured.
    pub best_step: Option<u64>,
    /// Newest learning rate.
    pub lr: Option<f64>,
    /// What the schedule's learning rate is multiplied by.
    pub lr_factor: f64,
    /// Newest gradient norm.
    pub grad_norm: Option<f64>,
    /// Newest speed.
    pub tokens_per_second: Option<f64>,
    /// Newest memory use.
    pub memory_bytes: Option<u64>,
    /// Seconds to the end at the present rate; `None` when the run is over.
    pub eta_seconds: Option<f64>,
}

impl Summary {
    /// The state of a run.
    pub fn of(run: &Watched) -> Self {
        let history: &History = &run.history;
        let state = match (history.phase, run.is_alive) {
            (Phase::Running | Phase::Paused, Some(false)) => "no_process",
            (phase, _) => phase.word(),
        };
        let [loss, validation_loss, tokens_per_second] = history.newest();
        let goes_on = matches!(state, "running" | "paused");
        Summary {
            run: run.name.clone(),
            state,
            step: history.step,
            total_steps: (history.total_steps > 0).then_some(history.total_steps),
            tokens: history.tokens,
            loss,
            validation_loss,
            best_validation_loss: history.best.map(|(_, loss)| loss),
            best_step: history.best.map(|(step, _)| step),
            lr: history.last(metric::LR),
            lr_factor: history.lr_factor,
            grad_norm: history.last(metric::GRAD_NORM),
            tokens_per_second,
            memory_bytes: history.last(metric::MEMORY_BYTES).map(|bytes| bytes as u64),
            eta_seconds: history.eta_seconds.filter(|_| goes_on),
        }
    }

    /// The state as one line for people.
    pub fn line(&self) -> String {
        let of = self.total_steps.map(|total| format!("/{total}")).unwrap_or_default();
        let mut parts = vec![format!("{}: {}", self.run, self.state.replace('_', " "))];
        parts.push(format!("step {}{of}", self.step));
        parts.extend(self.loss.map(|loss| format!("loss {loss:.4}")));
        parts.extend(self.validation_loss.map(|loss| format!("validation loss {loss:.4}")));
        if let (Some(loss), Some(step)) = (self.best_validation_loss, self.best_step) {
            parts.push(format!("best {loss:.4} at step {step}"));
        }
        parts.extend(self.lr.map(|lr| format!("lr {lr:.2e}")));
        if self.lr_factor != 1.0 {
            parts.push(format!("lr factor {}", self.lr_factor));
        }
        parts.extend(self.grad_norm.map(|norm| format!("norm {norm:.2}")));
        parts.extend(self.tokens_per_second.map(|rate| format!("{} tok/s", grouped(rate as u64))));
        parts.extend(self.eta_seconds.map(|seconds| format!("eta {}", duration(seconds))));
        parts.join(" | ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::testing;

    #[test]
    fn the_state_in_a_line_and_in_json() {
        let mut run = Watched { name: "runs/a".into(), history: History::new(), is_alive: Some(true) };
        assert_eq!(Summary::of(&run).line(), "runs/a: empty | step 0");
        testing::run("a", 150, 200, 0.0).iter().for_each(|event| run.history.absorb(event));
        let summary = Summary::of(&run);
        assert_eq!(
            summary.line(),
            "runs/a: running | step 150/200 | loss 1.4767 | validation loss 1.6920 | best 1.6920 at step 140 | \
             lr 2.89e-4 | norm 0.70 | 50 tok/s | eta 1 h 01 m"
        );
        let json = serde_json::to_value(&summary).unwrap();
        assert_eq!((json["state"].as_str(), json["step"].as_u64()), (Some("running"), Some(150)));
        assert_eq!(json["best_step"], 140);
        run.is_alive = Some(false);
        let summary = Summary::of(&run);
        assert_eq!((summary.state, summary.eta_seconds), ("no_process", None));
    }
}
