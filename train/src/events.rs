//! What a running training says: one value for each thing that happened, one JSON line each
//!
//! The loop sends events on a bounded channel; the monitor, the plain log and `events.jsonl` are
//! listeners. A `step` counts finished optimizer steps: the event after the k-th update, and the
//! checkpoint saved there, carry `step = k`. Every float is finite: numbers that are not are
//! reported as text in [`TrainEvent::Stopped`].

use std::path::{Path, PathBuf};

use fornax_base::files::{self, FileSystem};
use serde::{Deserialize, Serialize};

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
    },
    /// Loss on the fixed validation slice.
    Validation {
        /// Steps done.
        step: u64,
        /// Mean loss, nats per target token.
        loss: f64,
        /// Loss in bits per byte of text, comparable between tokenizers.
        bits_per_byte: f64,
        /// Target tokens measured.
        tokens: u64,
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
            | TrainEvent::Stopped { step, .. }
            | TrainEvent::Finished { step, .. } => step,
        }
    }
}
