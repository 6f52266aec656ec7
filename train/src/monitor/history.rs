//! What is known of a run: its curves, texts and state, built up event by event

use std::collections::VecDeque;

use crate::events::{StopReason, TrainEvent, metric};
use crate::plain::{harmless, sentence};

use super::series::Series;

/// Texts and messages kept; older ones go.
const TEXTS_KEPT: usize = 64;
const MESSAGES_KEPT: usize = 500;

/// What a run is doing, as far as its events tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// No event yet.
    #[default]
    Empty,
    /// Taking steps.
    Running,
    /// Waiting by command.
    Paused,
    /// Ended before its last step.
    Stopped(StopReason),
    /// All steps done.
    Finished,
}

impl Phase {
    /// The word for people and programs.
    pub fn word(self) -> &'static str {
        match self {
            Phase::Empty => "empty",
            Phase::Running => "running",
            Phase::Paused => "paused",
            Phase::Stopped(_) => "stopped",
            Phase::Finished => "finished",
        }
    }

    /// Whether no more steps can come without a resume.
    pub fn is_over(self) -> bool {
        matches!(self, Phase::Stopped(_) | Phase::Finished)
    }
}

/// How much a message weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// As expected.
    Note,
    /// Something the user should know.
    Warning,
}

/// A generated text.
#[derive(Debug, Clone, PartialEq)]
pub struct Text {
    /// Steps done.
    pub step: u64,
    /// The prompt, harmless to a terminal.
    pub prompt: String,
    /// The text after it, harmless to a terminal.
    pub text: String,
}

/// All that the monitor shows of one run, in bounded memory.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Curves by name, in the order of their appearance.
    series: Vec<(&'static str, Series)>,
    /// Newest last.
    pub texts: VecDeque<Text>,
    /// Newest last; each a line or more.
    pub messages: VecDeque<(Weight, String)>,
    /// What it is doing.
    pub phase: Phase,
    /// Steps done.
    pub step: u64,
    /// Steps of the whole run; 0 while unknown.
    pub total_steps: u64,
    /// Tokens seen since step 0.
    pub tokens: u64,
    /// Trainable parameters; 0 while unknown.
    pub n_parameters: u64,
    /// Device and precision, as the run was started.
    pub place: Option<(String, String)>,
    /// Seconds to the end at the present rate.
    pub eta_seconds: Option<f64>,
    /// What the schedule's learning rate is multiplied by.
    pub lr_factor: f64,
    /// Lowest validation loss as (step, loss).
    pub best: Option<(u64, f64)>,
}

impl History {
    /// Nothing is known yet.
    pub fn new() -> Self {
        History { lr_factor: 1.0, ..History::default() }
    }

    /// Takes an event in.
    pub fn absorb(&mut self, event: &TrainEvent) {
        self.step = self.step.max(event.step());
        for (name, value) in event.metrics() {
            self.series_mut(name).push(event.step(), value);
        }
        match event {
            TrainEvent::Step { tokens, eta_seconds, .. } => {
                (self.tokens, self.eta_seconds) = (*tokens, *eta_seconds);
                if self.phase != Phase::Paused {
                    self.phase = Phase::Running;
                }
            }
            TrainEvent::Started { total_steps, n_parameters, device, precision, .. } => {
                (self.total_steps, self.n_parameters) = (*total_steps, *n_parameters);
                self.place = Some((harmless(device), harmless(precision)));
                self.phase = Phase::Running;
            }
            TrainEvent::Validation { step, loss, .. } => {
                if self.best.is_none_or(|(_, best)| *loss < best) {
                    self.best = Some((*step, *loss));
                }
            }
            TrainEvent::Sample { step, prompt, text } => {
                keep(
                    &mut self.texts,
                    Text { step: *step, prompt: harmless(prompt), text: harmless(text) },
                    TEXTS_KEPT,
                );
            }
            TrainEvent::Paused { paused, .. } => {
                self.phase = if *paused { Phase::Paused } else { Phase::Running };
            }
            TrainEvent::LrFactor { factor, .. } => self.lr_factor = *factor,
            TrainEvent::Resumed { .. } => self.phase = Phase::Running,
            TrainEvent::Stopped { reason, .. } => self.phase = Phase::Stopped(*reason),
            TrainEvent::Finished { .. } => {
                (self.phase, self.eta_seconds) = (Phase::Finished, None);
            }
            TrainEvent::CheckpointSaved { .. } | TrainEvent::Warning { .. } => {}
        }
        if let Some(weight) = weight_of(event) {
            self.say(weight, sentence(event));
        }
    }

    /// Adds a message of the monitor's own.
    pub fn say(&mut self, weight: Weight, message: String) {
        keep(&mut self.messages, (weight, message), MESSAGES_KEPT);
    }

    /// The curve of a name, where the run has one.
    pub fn series(&self, name: &str) -> Option<&Series> {
        self.series.iter().find(|(of, _)| *of == name).map(|(_, series)| series)
    }

    /// Names of all curves, in the order of their appearance.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.series.iter().map(|(name, _)| *name)
    }

    /// The newest value of a curve.
    pub fn last(&self, name: &str) -> Option<f64> {
        Some(self.series(name)?.last()?.1)
    }

    /// The newest training loss, validation loss and rate, for a line of text.
    pub fn newest(&self) -> [Option<f64>; 3] {
        [metric::TRAIN_LOSS, metric::VALIDATION_LOSS, metric::TOKENS_PER_SECOND].map(|name| self.last(name))
    }

    /// The last step that any curve reaches.
    pub fn end(&self) -> u64 {
        self.series.iter().filter_map(|(_, series)| series.span()).map(|(_, last)| last).max().unwrap_or(0)
    }

    fn series_mut(&mut self, name: &'static str) -> &mut Series {
        let at = match self.series.iter().position(|(of, _)| *of == name) {
            Some(at) => at,
            None => {
                self.series.push((name, Series::default()));
                self.series.len() - 1
            }
        };
        &mut self.series[at].1
    }
}

/// Whether an event belongs into the list of messages.
fn weight_of(event: &TrainEvent) -> Option<Weight> {
    match event {
        TrainEvent::Step { .. } | TrainEvent::Sample { .. } => None,
        TrainEvent::Warning { .. } => Some(Weight::Warning),
        TrainEvent::Stopped { reason, .. } => match reason {
            StopReason::Command | StopReason::Interrupted | StopReason::Terminated => Some(Weight::Note),
            _ => Some(Weight::Warning),
        },
        _ => Some(Weight::Note),
    }
}

fn keep<T>(list: &mut VecDeque<T>, new: T, most: usize) {
    if list.len() == most {
        list.pop_front();
    }
    list.push_back(new);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::testing::{run, step};

    #[test]
    fn a_run_is_told_by_its_events() {
        let mut history = History::new();
        assert_eq!((history.phase, history.end()), (Phase::Empty, 0));
        run("a", 120, 200, 0.0).iter().for_each(|event| history.absorb(event));
        assert_eq!((history.phase, history.step, history.total_steps), (Phase::Running, 120, 200));
        assert_eq!(history.tokens, 12_000);
        assert_eq!(history.best.unwrap().0, 120);
        assert_eq!(history.texts.len(), 2);
        assert_eq!(history.series(metric::TRAIN_LOSS).unwrap().span(), Some((1, 120)));
        assert!(history.names().any(|name| name == metric::MATMUL_SHARE), "whatever the events tell has a curve");
        history.absorb(&TrainEvent::LrFactor { step: 120, factor: 0.5 });
        history.absorb(&TrainEvent::Paused { step: 120, paused: true });
        history.absorb(&step(121, 2.0));
        assert_eq!((history.phase, history.lr_factor), (Phase::Paused, 0.5));
        history.absorb(&TrainEvent::Paused { step: 121, paused: false });
        let stopped =
            TrainEvent::Stopped { step: 121, reason: StopReason::NonFinite, message: "loss \x1b[2J".into() };
        history.absorb(&stopped);
        assert!(history.phase.is_over());
        let (weight, message) = history.messages.back().unwrap();
        assert_eq!((*weight, message.as_str()), (Weight::Warning, "step 00121 | loss \u{fffd}[2J"));
    }

    #[test]
    fn texts_and_messages_are_bounded() {
        let mut history = History::new();
        for step in 0..2000 {
            history.absorb(&TrainEvent::Warning { step, message: "w".into() });
            history.absorb(&TrainEvent::Sample { step, prompt: "p".into(), text: "t".into() });
        }
        assert_eq!((history.messages.len(), history.texts.len()), (MESSAGES_KEPT, TEXTS_KEPT));
        assert_eq!(history.texts.back().unwrap().step, 1999);
    }
}
