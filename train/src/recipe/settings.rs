//! The sections of a recipe that the loop itself reads; they are the same for every kind of run

use serde::Serialize;

use super::check::{check_eval, check_schedule, check_steps, within};
use super::{
    CheckpointRecipe, DEFAULT_DECAY_FRACTION, DEFAULT_FINAL_FRACTION, EvalRecipe, LogRecipe, OptimizerRecipe,
    RecipeCheckError, ScheduleKind, ScheduleRecipe, StepsRecipe, canonical,
};
use crate::schedule::Schedule;

/// What the loop reads of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Settings {
    /// Seed of every random choice of the run.
    pub seed: u64,
    /// Length and size of the run.
    pub train: StepsRecipe,
    /// The rule of the updates.
    pub optimizer: OptimizerRecipe,
    /// The learning rate over the run.
    pub schedule: ScheduleRecipe,
    /// Validation and samples while training.
    pub eval: EvalRecipe,
    /// When checkpoints are saved and which are kept.
    pub checkpoint: CheckpointRecipe,
    /// How often a step is reported.
    pub log: LogRecipe,
}

impl Settings {
    /// Checks every value, in the order of the sections.
    ///
    /// # Errors
    /// The fault met, with both numbers.
    pub fn check(&self) -> Result<(), RecipeCheckError> {
        // TOML's integers end at 2^63 - 1, and the run folder stores the recipe as TOML.
        within("seed", self.seed, 0..=i64::MAX as u64)?;
        check_steps(&self.train)?;
        self.optimizer.check()?;
        check_schedule(&self.schedule, &self.schedule(), self.train.steps)?;
        check_eval(&self.eval)?;
        let checkpoint = &self.checkpoint;
        within("checkpoint.every", checkpoint.every, 1..=super::check::GREATEST_STEPS)?;
        within("checkpoint.keep_last", checkpoint.keep_last, 2..=1 << 20)?;
        if checkpoint.keep_best && self.eval.every == 0 {
            return Err(RecipeCheckError::NoEffect {
                key: "checkpoint.keep_best",
                because: "`eval.every` is 0, so no validation loss is measured",
            });
        }
        within("log.every", self.log.every, 1..=super::check::GREATEST_STEPS)
    }

    /// The same with every default that depends on another key written out.
    #[must_use]
    pub fn resolved(mut self) -> Self {
        self.train.micro_batch.get_or_insert(self.train.batch);
        self.optimizer = self.optimizer.resolved();
        if self.schedule.kind != ScheduleKind::Constant {
            self.schedule.final_lr_fraction.get_or_insert(DEFAULT_FINAL_FRACTION);
        }
        if self.schedule.kind == ScheduleKind::Wsd {
            self.schedule.decay_fraction.get_or_insert(DEFAULT_DECAY_FRACTION);
        }
        self
    }

    /// The learning-rate schedule of the run.
    pub fn schedule(&self) -> Schedule {
        let schedule = &self.schedule;
        Schedule {
            kind: schedule.kind,
            peak_lr: self.optimizer.lr,
            warmup_steps: schedule.warmup_steps,
            final_lr_fraction: schedule.final_lr_fraction.unwrap_or(DEFAULT_FINAL_FRACTION),
            decay_fraction: schedule.decay_fraction.unwrap_or(DEFAULT_DECAY_FRACTION),
        }
    }
}

/// SHA-256, as 64 hexadecimal digits, of a recipe as JSON with sorted keys.
pub fn hash_of(recipe: &impl Serialize) -> String {
    canonical::hash(recipe)
}
