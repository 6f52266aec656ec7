//! `state.json`: where a run stood, apart from its tensors

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::CheckpointError;
use crate::control::LrFactor;
use crate::loss_scale::LossScale;
use crate::recipe::ScheduleKind;

/// Where a run stood after `step` optimizer steps. Every float is finite and comes back bit for bit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Optimizer steps done.
    pub step: u64,
    /// Steps of the whole run when this was saved.
    pub total_steps: u64,
    /// Target and input positions seen since step 0.
    pub tokens_seen: u64,
    /// Updates applied by the optimizer: fewer than steps where every target of a step was masked.
    pub optimizer_updates: u64,
    /// The data cursor, as `fornax_data` writes it.
    pub cursor: Value,
    /// Position of all randomness.
    pub rng: RngPosition,
    /// Scale of the loss, under f16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<LossScale>,
    /// Kind of the schedule; its rate is a function of the step.
    pub schedule: ScheduleKind,
    /// What `lr` in the control file multiplied the schedule's rate by.
    #[serde(default)]
    pub lr_factor: LrFactor,
    /// Validation loss measured at this very step, nats per token.
    #[serde(default)]
    pub validation_loss: Option<f64>,
    /// Lowest validation loss so far.
    #[serde(default)]
    pub best: Option<Best>,
    /// Hash of the resolved recipe.
    pub recipe_hash: String,
    /// Version of the program that saved it.
    pub tool_version: String,
}

/// Position of all randomness: every random choice is a function of (seed, step, purpose).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RngPosition {
    /// The recipe's seed.
    pub seed: u64,
    /// The next step.
    pub step: u64,
}

/// The lowest validation loss of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// Steps done when it was measured.
    pub step: u64,
    /// The loss, nats per token.
    pub loss: f64,
}

impl State {
    pub(super) fn to_bytes(&self, path: &Path) -> Result<Vec<u8>, CheckpointError> {
        let bad = |what| CheckpointError::BadState { path: path.to_path_buf(), what };
        // JSON would turn such a number into null, which reads back as "not measured".
        let losses = [self.validation_loss, self.best.map(|best| best.loss)];
        if let Some(loss) = losses.into_iter().flatten().find(|loss| !loss.is_finite()) {
            return Err(bad(format!("its validation loss is {loss}, not a finite number")));
        }
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|error| bad(error.to_string()))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, CheckpointError> {
        serde_json::from_slice(bytes)
            .map_err(|error| CheckpointError::BadState { path: path.to_path_buf(), what: error.to_string() })
    }
}
