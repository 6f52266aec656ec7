//! What a running training says: one value for each thing that happened, one JSON line each
//!
//! The loop sends events on a bounded channel; the monitor, the plain log and `events.jsonl` are
//! listeners. A `step` counts finished optimizer steps: the event after the k-th update, and the
//! checkpoint saved there, carry `step = k`. Every float is finite: numbers that are not are
//! reported as text in [`TrainEvent::Stopped`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fornax_base::files::{self, AppendLog, FileError, FileSystem};
use serde::{Deserialize, Serialize};

use crate::objective::Metrics;

/// One thing that happened in a run. Field names are stable; floats survive JSON bit for bit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum TrainEvent {
    /// The loop is about to take its next step, in a new or a resumed run.
    Started {
        /// Run folder as the user gave it.
        run: PathBuf,
        /// Steps done before.
        step: u64,
        /// Steps of the whole run.
        total_steps: u64,
        /// Trainable parameters.
        n_parameters: u64,
        /// Device in the form of `--device`.
        device: String,
        /// Compute precision in the recipe's words.
        precision: String,
        /// Tokens in one optimizer step.
        tokens_per_step: u64,
        /// The optimizer's groups in words: rule, peak rate, parameters.
        #[serde(default)]
        optimizer: String,
        /// Recipe hash.
        recipe_hash: String,
    },
    /// An optimizer step was applied.
    Step {
        /// Steps done.
        step: u64,
        /// Mean training loss of the step, nats per target token.
        loss: f64,
        /// Learning rate applied.
        lr: f64,
        /// Global gradient norm before clipping.
        grad_norm: f64,
        /// Tokens seen since step 0.
        tokens: u64,
        /// Tokens per second since the event before, without validation and saving.
        tokens_per_second: f64,
        /// Share of the matmul rate measured on this device, in [0, 1].
        matmul_share: Option<f64>,
        /// Model FLOPs utilization, on devices whose peak is known.
        mfu: Option<f64>,
        /// Memory in use, where the device tells.
        memory_bytes: Option<u64>,
        /// Seconds to the end at the present rate.
        eta_seconds: Option<f64>,
        /// What the objective reports beside the loss, by TRL's names.
        #[serde(default, skip_serializing_if = "Metrics::is_empty")]
        metrics: Metrics,
    },
    /// Loss on the fixed validation slice.
    Validation {
        /// Steps done.
        step: u64,
        /// Mean loss, nats per target token; of preferences: per pair.
        loss: f64,
        /// Loss in bits per byte of text, comparable between tokenizers, where it is a language model's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bits_per_byte: Option<f64>,
        /// Target tokens measured; of preferences: pairs.
        tokens: u64,
        /// What the objective measures beside the loss, by TRL's names without `eval_`.
        #[serde(default, skip_serializing_if = "Metrics::is_empty")]
        metrics: Metrics,
    },
    /// Text generated from a fixed prompt.
    Sample {
        /// Steps done.
        step: u64,
        /// The prompt.
        prompt: String,
        /// The text after it.
        text: String,
    },
    /// A checkpoint is complete on disk.
    CheckpointSaved {
        /// Steps done.
        step: u64,
        /// Checkpoint folder.
        path: PathBuf,
        /// Time the save took.
        seconds: f64,
    },
    /// Something the user should know that does not stop the run.
    Warning {
        /// Steps done.
        step: u64,
        /// One sentence.
        message: String,
    },
    /// The run continues from a checkpoint.
    Resumed {
        /// Steps done in that checkpoint.
        step: u64,
        /// Checkpoint folder.
        from: PathBuf,
        /// Newer folders passed over, each with its reason.
        skipped: Vec<String>,
        /// Recipe keys that changed harmlessly, as `key: was -> is`.
        changed: Vec<String>,
    },
    /// The loop waits, or goes on, by command.
    Paused {
        /// Steps done.
        step: u64,
        /// True when waiting begins, false when it ends.
        paused: bool,
    },
    /// From the next step on the schedule's learning rate is multiplied by another factor.
    LrFactor {
        /// Steps done.
        step: u64,
        /// The factor, above 0 and at most 100; 1 is the schedule itself.
        factor: f64,
    },
    /// The run ended before its last step.
    Stopped {
        /// Steps done.
        step: u64,
        /// Why, for programs.
        reason: StopReason,
        /// Why, for people: one sentence with the numbers.
        message: String,
    },
    /// All steps are done and the model folder is written.
    Finished {
        /// Steps done.
        step: u64,
        /// Time of the loop since the run was started or resumed.
        seconds: f64,
        /// Tokens seen since step 0.
        tokens: u64,
        /// Last validation loss, nats per target token.
        validation_loss: Option<f64>,
        /// Model folder.
        model: PathBuf,
    },
}

/// Names of the curves that [`TrainEvent::metrics`] gives.
pub mod metric {
    use std::collections::BTreeSet;
    use std::sync::{Mutex, PoisonError};

    /// Mean training loss of a step.
    pub const TRAIN_LOSS: &str = "loss/train";
    /// Loss on the validation slice.
    pub const VALIDATION_LOSS: &str = "loss/validation";
    /// Validation loss in bits per byte.
    pub const BITS_PER_BYTE: &str = "bits_per_byte/validation";
    /// Learning rate applied.
    pub const LR: &str = "lr";
    /// Global gradient norm before clipping.
    pub const GRAD_NORM: &str = "grad_norm";
    /// Training speed.
    pub const TOKENS_PER_SECOND: &str = "tokens_per_second";
    /// Memory in use.
    pub const MEMORY_BYTES: &str = "memory_bytes";
    /// Share of the published peak.
    pub const MFU: &str = "mfu";
    /// Share of the measured matmul rate.
    pub const MATMUL_SHARE: &str = "matmul_share";

    /// Distinct names of objectives' numbers that get a curve; a log may hold anything.
    const MOST_NAMES: usize = 128;
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

    /// The name of an objective's number, kept for the life of the process; `None` once there are too many.
    pub(super) fn named(name: &str) -> Option<&'static str> {
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(name) {
            return Some(known);
        }
        if names.len() == MOST_NAMES || name.len() > 64 || name.chars().any(char::is_control) {
            return None;
        }
        let kept: &'static str = String::leak(name.to_owned());
        names.insert(kept);
        Some(kept)
    }
}

/// Why a run ended before its last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// SIGINT; a checkpoint was saved.
    Interrupted,
    /// SIGTERM; a checkpoint was saved.
    Terminated,
    /// `stop` in the control file; a checkpoint was saved.
    Command,
    /// Loss or gradient not finite; no update was applied.
    NonFinite,
    /// A trainable parameter without gradient, or a gradient on a frozen one.
    GradientGate,
    /// Checkpoints could not be saved three times in a row.
    CheckpointsFailing,
    /// Any other failure.
    Failed,
}

impl TrainEvent {
    /// Steps done when the event happened.
    pub fn step(&self) -> u64 {
        match *self {
            TrainEvent::Started { step, .. }
            | TrainEvent::Step { step, .. }
            | TrainEvent::Validation { step, .. }
            | TrainEvent::Sample { step, .. }
            | TrainEvent::CheckpointSaved { step, .. }
            | TrainEvent::Warning { step, .. }
            | TrainEvent::Resumed { step, .. }
            | TrainEvent::Paused { step, .. }
            | TrainEvent::LrFactor { step, .. }
            | TrainEvent::Stopped { step, .. }
            | TrainEvent::Finished { step, .. } => step,
        }
    }

    /// The numbers of the event that make a curve, by the names that other tools use for them. The monitor's charts
    /// and the TensorBoard file show whatever stands here.
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        let mut all: Vec<(&'static str, f64)> = match *self {
            TrainEvent::Step {
                loss, lr, grad_norm, tokens_per_second, matmul_share, mfu, memory_bytes, ..
            } => {
                let mut metrics = vec![
                    (metric::TRAIN_LOSS, loss),
                    (metric::LR, lr),
                    (metric::GRAD_NORM, grad_norm),
                    (metric::TOKENS_PER_SECOND, tokens_per_second),
                ];
                metrics.extend(memory_bytes.map(|bytes| (metric::MEMORY_BYTES, bytes as f64)));
                metrics.extend(mfu.map(|share| (metric::MFU, share)));
                metrics.extend(matmul_share.map(|share| (metric::MATMUL_SHARE, share)));
                metrics
            }
            TrainEvent::Validation { loss, bits_per_byte, .. } => {
                let bits = bits_per_byte.map(|bits| (metric::BITS_PER_BYTE, bits));
                std::iter::once((metric::VALIDATION_LOSS, loss)).chain(bits).collect()
            }
            _ => Vec::new(),
        };
        match self {
            TrainEvent::Step { metrics, .. } => {
                all.extend(metrics.iter().filter_map(|(name, &value)| Some((metric::named(name)?, value))));
            }
            TrainEvent::Validation { metrics, .. } => {
                let named = |name: &str| metric::named(&format!("eval_{name}"));
                all.extend(metrics.iter().filter_map(|(name, &value)| Some((named(name)?, value))));
            }
            _ => {}
        }
        all
    }

    fn not_finite(&self) -> Option<(String, f64)> {
        let fields = match *self {
            TrainEvent::Step {
                loss, lr, grad_norm, tokens_per_second, matmul_share, mfu, eta_seconds, ..
            } => vec![
                ("loss", Some(loss)),
                ("lr", Some(lr)),
                ("grad_norm", Some(grad_norm)),
                ("tokens_per_second", Some(tokens_per_second)),
                ("matmul_share", matmul_share),
                ("mfu", mfu),
                ("eta_seconds", eta_seconds),
            ],
            TrainEvent::Validation { loss, bits_per_byte, .. } => {
                vec![("loss", Some(loss)), ("bits_per_byte", bits_per_byte)]
            }
            TrainEvent::CheckpointSaved { seconds, .. } => vec![("seconds", Some(seconds))],
            TrainEvent::LrFactor { factor, .. } => vec![("factor", Some(factor))],
            TrainEvent::Finished { seconds, validation_loss, .. } => {
                vec![("seconds", Some(seconds)), ("validation_loss", validation_loss)]
            }
            _ => Vec::new(),
        };
        let metrics = match self {
            TrainEvent::Step { metrics, .. } | TrainEvent::Validation { metrics, .. } => Some(metrics),
            _ => None,
        };
        let metrics = metrics.into_iter().flatten().map(|(name, &value)| (name.as_str(), value));
        let fields = fields.into_iter().filter_map(|(field, value)| Some((field, value?)));
        fields.chain(metrics).find(|(_, value)| !value.is_finite()).map(|(field, value)| (field.to_owned(), value))
    }
}

/// Why an event could not be written or a log not be read.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// JSON has no word for the number, so the line could not be read back.
    #[error("`{field}` of the event at step {step} is {value}, but a finite number is expected")]
    NotFinite {
        /// Steps done.
        step: u64,
        /// The field.
        field: String,
        /// The number found.
        value: f64,
    },
    /// A line is not an event of this version.
    #[error("line {line} of `{}` is not an event: {what}", path.display())]
    BadLine {
        /// The log.
        path: PathBuf,
        /// Line number from 1.
        line: usize,
        /// What the parser says.
        what: String,
    },
}

/// `events.jsonl` of a run folder, open at its end.
pub struct EventLog {
    log: AppendLog,
}

impl EventLog {
    /// Opens the log, creating it when absent and cutting off a torn last line.
    ///
    /// # Errors
    /// Those of [`AppendLog::open`].
    pub fn open(fs: Arc<dyn FileSystem>, path: &Path) -> Result<Self, EventError> {
        let log = AppendLog::open(fs, path)?;
        Ok(EventLog { log })
    }

    /// Appends one event as one line.
    ///
    /// # Errors
    /// [`EventError::NotFinite`], or the failed write; the log still holds whole lines.
    pub fn append(&mut self, event: &TrainEvent) -> Result<(), EventError> {
        Ok(self.log.append_line(&to_line(event)?)?)
    }

    /// Waits until every event appended so far has reached the disk.
    ///
    /// # Errors
    /// The operating system's refusal.
    pub fn sync(&mut self) -> Result<(), EventError> {
        Ok(self.log.sync()?)
    }
}

/// One event as one line of JSON, without the line break.
///
/// # Errors
/// [`EventError::NotFinite`].
pub fn to_line(event: &TrainEvent) -> Result<String, EventError> {
    if let Some((field, value)) = event.not_finite() {
        return Err(EventError::NotFinite { step: event.step(), field, value });
    }
    let line = serde_json::to_string(event).map_err(io::Error::from);
    Ok(line.map_err(|source| FileError::Io {
        op: "write an event as JSON for",
        path: PathBuf::from("events.jsonl"),
        source,
    })?)
}

/// All events of a log in order; a torn last line is dropped.
///
/// # Errors
/// [`EventError::BadLine`] for a line that is no event, or what reading met.
pub fn read_events(path: &Path) -> Result<Vec<TrainEvent>, EventError> {
    let lines = files::read_log_lines(path)?;
    let parse = |(index, line): (usize, &String)| {
        serde_json::from_str(line).map_err(|error| EventError::BadLine {
            path: path.to_path_buf(),
            line: index + 1,
            what: error.to_string(),
        })
    };
    lines.iter().enumerate().map(parse).collect()
}

/// What [`cut_to_step`] took out of a log, and what it left in force.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cut {
    /// Events of steps after the checkpoint's.
    pub later: usize,
    /// Lines that carry no step that can be read.
    pub unreadable: usize,
    /// Factor of the last `lr_factor` event that stays.
    pub lr_factor: Option<f64>,
}

/// Takes the events after `step` out of a log, in one atomic rewrite, so that a resumed run writes them anew. The
/// order of the rest stays. A log that does not exist is left so.
///
/// # Errors
/// Those of [`files::cut_log`].
pub fn cut_to_step(fs: &dyn FileSystem, path: &Path, step: u64) -> Result<Cut, EventError> {
    /// No other event has a `factor`.
    #[derive(Deserialize)]
    struct Part {
        step: u64,
        factor: Option<f64>,
    }
    let mut cut = Cut::default();
    let done = files::cut_log(fs, path, &mut |line| match serde_json::from_str(line) {
        Ok(Part { step: at, factor }) if at <= step => {
            cut.lr_factor = factor.or(cut.lr_factor);
            true
        }
        Ok(_) => {
            cut.later += 1;
            false
        }
        Err(_) => {
            cut.unreadable += 1;
            false
        }
    });
    match done {
        Err(error) if error.is_not_found() => Ok(Cut::default()),
        done => Ok(done.map(|()| cut)?),
    }
}

#[cfg(test)]
mod tests {
    use fornax_base::files::RealFs;
    use proptest::prelude::*;

    use super::*;

    fn step_event(step: u64, loss: f64) -> TrainEvent {
        TrainEvent::Step {
            step,
            loss,
            lr: loss / 3.0,
            grad_norm: loss.sqrt(),
            tokens: u64::MAX,
            tokens_per_second: 0.1 + 0.2,
            matmul_share: Some(1.0 / 3.0),
            mfu: None,
            memory_bytes: Some(1),
            eta_seconds: None,
            metrics: Metrics::new(),
        }
    }

    #[test]
    fn names_on_the_wire_are_stable() {
        let line = to_line(&step_event(7, 4.0)).unwrap();
        assert!(
            line.starts_with(
                r#"{"event":"step","step":7,"loss":4.0,"lr":1.3333333333333333,"grad_norm":2.0,"tokens":"#
            ),
            "{line}"
        );
        let stopped = TrainEvent::Stopped { step: 3, reason: StopReason::NonFinite, message: "m".to_owned() };
        assert_eq!(
            to_line(&stopped).unwrap(),
            r#"{"event":"stopped","step":3,"reason":"non_finite","message":"m"}"#
        );
    }

    #[test]
    fn a_number_that_json_cannot_hold_is_refused() {
        let error = to_line(&step_event(7, f64::NAN)).unwrap_err();
        assert_eq!(error.to_string(), "`loss` of the event at step 7 is NaN, but a finite number is expected");
    }

    #[test]
    fn the_log_is_cut_back_to_a_step_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        assert_eq!(cut_to_step(&RealFs, &path, 3).unwrap(), Cut::default());
        assert!(!path.exists());
        let mut log = EventLog::open(Arc::new(RealFs), &path).unwrap();
        for step in [1, 2, 3, 4, 3, 5] {
            log.append(&step_event(step, step as f64)).unwrap();
        }
        log.sync().unwrap();
        log.append(&TrainEvent::LrFactor { step: 2, factor: 0.5 }).unwrap();
        log.append(&TrainEvent::LrFactor { step: 4, factor: 2.0 }).unwrap();
        drop(log);
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("not json\n{\"event\":\"st");
        std::fs::write(&path, text).unwrap();
        let cut = cut_to_step(&RealFs, &path, 3).unwrap();
        assert_eq!(cut, Cut { later: 3, unreadable: 1, lr_factor: Some(0.5) });
        let steps: Vec<u64> = read_events(&path).unwrap().iter().map(TrainEvent::step).collect();
        assert_eq!(steps, [1, 2, 3, 3, 2]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn floats_survive_the_log_bit_for_bit(
            bits in any::<u64>(), small in any::<f32>(), tokens in any::<u64>()
        ) {
            let loss = f64::from_bits(bits);
            let single = f64::from(small);
            prop_assume!(loss.is_finite() && single.is_finite());
            let event = TrainEvent::Step {
                step: 1, loss, lr: single, grad_norm: loss / 3.0, tokens,
                tokens_per_second: single / 7.0, matmul_share: Some(loss), mfu: Some(single),
                memory_bytes: Some(tokens), eta_seconds: Some(loss),
                metrics: Metrics::from([("rewards/margins".to_owned(), loss)]),
            };
            let back: TrainEvent = serde_json::from_str(&to_line(&event).unwrap()).unwrap();
            let TrainEvent::Step { loss: l, lr, grad_norm, matmul_share, .. } = back else {
                return Err(TestCaseError::fail("another event"));
            };
            prop_assert_eq!(l.to_bits(), loss.to_bits());
            prop_assert_eq!(lr.to_bits(), single.to_bits());
            prop_assert_eq!(grad_norm.to_bits(), (loss / 3.0).to_bits());
            prop_assert_eq!(matmul_share.unwrap().to_bits(), loss.to_bits());
        }
    }
}
