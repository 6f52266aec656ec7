//! The post-training recipe: what one run does, as one TOML file.
//!
//! The sections `[schedule]`, `[checkpoint]` and `[log]` are those of pretraining; `[train]`, `[optimizer]` and
//! `[eval]` have the defaults of TRL instead. Knows keys, defaults and which keys contradict each other; nothing of
//! tensors, files or the loop.

mod adapter;
mod check;
mod data;
mod sections;

use serde::{Deserialize, Serialize};

use fornax_train::TrainError;
use fornax_train::recipe::{CheckpointRecipe, LogRecipe, ScheduleKind, ScheduleRecipe, Settings};

use crate::cpo::CpoRecipe;
use crate::distill::DistillRecipe;
use crate::dpo::DpoRecipe;
use crate::grpo::GrpoRecipe;
use crate::kto::KtoRecipe;
use crate::orpo::OrpoRecipe;
use crate::reward::RewardRecipe;

pub use adapter::{AdapterRecipe, InitRecipe, TargetsRecipe};
pub use data::{CORPUS, CORPUS_ROWS, DataRecipe};
pub(crate) use sections::packing_of;
pub use sections::{BaseRecipe, TuneEval, TuneOptimizer, TuneSteps};

/// A whole post-training run: `finetune RECIPE` reads it, the run folder stores it resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinetuneRecipe {
    /// What is lowered.
    pub objective: ObjectiveKind,
    /// Seed of every random choice of the run; all of them are functions of (seed, step, purpose).
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// Free text for people; changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The model to start from.
    pub model: BaseRecipe,
    /// Trains a low-rank adapter instead of the whole model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterRecipe>,
    /// The rows trained on.
    pub data: DataRecipe,
    /// Length and size of the run.
    pub train: TuneSteps,
    /// The rule of the updates.
    #[serde(default)]
    pub optimizer: TuneOptimizer,
    /// The loss of pairs, for objective `dpo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dpo: Option<DpoRecipe>,
    /// The weight of the odds, for objective `orpo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orpo: Option<OrpoRecipe>,
    /// The loss of pairs without a reference, for objective `cpo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpo: Option<CpoRecipe>,
    /// The loss of verdicts, for objective `kto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kto: Option<KtoRecipe>,
    /// The loss of a reward model, for objective `reward`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward: Option<RewardRecipe>,
    /// Sampling, rewards and loss, for objective `grpo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpo: Option<GrpoRecipe>,
    /// Teacher and divergence, for objective `distill`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distill: Option<DistillRecipe>,
    /// The learning rate over the run; default linear to 0 without warm-up.
    #[serde(default = "linear_to_zero")]
    pub schedule: ScheduleRecipe,
    /// Validation and samples while training.
    #[serde(default)]
    pub eval: TuneEval,
    /// When checkpoints are saved and which are kept.
    #[serde(default)]
    pub checkpoint: CheckpointRecipe,
    /// How often a step is reported.
    #[serde(default)]
    pub log: LogRecipe,
}

/// What a run lowers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectiveKind {
    /// Supervised fine-tuning: cross-entropy of the trained tokens.
    Sft,
    /// Preferences of pairs against a reference.
    Dpo,
    /// Preferences of pairs by odds, with the likelihood of the chosen text.
    Orpo,
    /// Preferences of pairs without a reference: CPO and SimPO.
    Cpo,
    /// Verdicts on single completions.
    Kto,
    /// A reward model of pairs.
    Reward,
    /// Rewards of sampled completions.
    Grpo,
    /// The predictions of another model.
    Distill,
}

impl ObjectiveKind {
    /// As recipes spell it.
    pub fn word(self) -> &'static str {
        match self {
            ObjectiveKind::Sft => "sft",
            ObjectiveKind::Dpo => "dpo",
            ObjectiveKind::Orpo => "orpo",
            ObjectiveKind::Cpo => "cpo",
            ObjectiveKind::Kto => "kto",
            ObjectiveKind::Reward => "reward",
            ObjectiveKind::Grpo => "grpo",
            ObjectiveKind::Distill => "distill",
        }
    }
}

impl FinetuneRecipe {
    /// The same recipe, checked, with every default written out.
    ///
    /// # Errors
    /// The fault met, in the order of the file's sections, with both numbers in its sentence.
    pub fn resolved(&self) -> Result<Self, TrainError> {
        check::check(self)?;
        let mut full = self.clone();
        full.optimizer.lr.get_or_insert(self.default_lr());
        full.optimizer.beta2.get_or_insert(sections::BETA2);
        full.train.micro_batch.get_or_insert(self.train.batch);
        match full.objective {
            // `grpo` and `distill` have keys without a default: `check` has seen their sections.
            ObjectiveKind::Sft | ObjectiveKind::Grpo | ObjectiveKind::Distill => {}
            ObjectiveKind::Dpo => drop(full.dpo.get_or_insert_default()),
            ObjectiveKind::Orpo => drop(full.orpo.get_or_insert_default()),
            ObjectiveKind::Cpo => drop(full.cpo.get_or_insert_default()),
            ObjectiveKind::Kto => drop(full.kto.get_or_insert_default()),
            ObjectiveKind::Reward => drop(full.reward.get_or_insert_default()),
        }
        if full.schedule.kind != ScheduleKind::Constant {
            full.schedule.final_lr_fraction.get_or_insert(0.0);
        }
        Ok(full)
    }

    /// TRL's rates: an adapter learns with about ten times that of the whole model.
    fn default_lr(&self) -> f64 {
        let whole = match self.objective {
            ObjectiveKind::Sft => 2e-5,
            ObjectiveKind::Dpo
            | ObjectiveKind::Orpo
            | ObjectiveKind::Cpo
            | ObjectiveKind::Kto
            | ObjectiveKind::Grpo
            | ObjectiveKind::Distill => 1e-6,
            ObjectiveKind::Reward => 1e-4,
        };
        if self.adapter.is_some() { 10.0 * whole } else { whole }
    }

    /// Steps of so many passes over `n` rows.
    pub fn steps_of(&self, n: u64, epochs: f64) -> u64 {
        (n as f64 * epochs / self.train.batch as f64).ceil().max(1.0) as u64
    }

    /// Whether a model that does not learn is asked for every batch.
    pub(crate) fn asks_a_reference(&self) -> bool {
        match self.objective {
            ObjectiveKind::Dpo => {
                self.dpo.as_ref().is_none_or(|dpo| !dpo.reference_free && !dpo.precompute_ref_log_probs)
            }
            ObjectiveKind::Grpo => self.grpo.as_ref().is_some_and(|grpo| grpo.beta != 0.0),
            ObjectiveKind::Kto | ObjectiveKind::Distill => true,
            ObjectiveKind::Sft | ObjectiveKind::Orpo | ObjectiveKind::Cpo | ObjectiveKind::Reward => false,
        }
    }

    /// Whether that model is held beside the one that learns.
    pub(crate) fn keeps_a_copy(&self) -> bool {
        let new_adapter = self.adapter.as_ref().is_some_and(|adapter| adapter.from.is_none());
        self.asks_a_reference() && self.objective != ObjectiveKind::Distill && !new_adapter
    }

    /// Tokens of a row of the data at most: `train.context`, of which a prompt leaves `grpo.max_completion_length`, or
    /// half of it where that is less, to its completions.
    pub fn row_context(&self) -> usize {
        let context = self.train.context;
        match &self.grpo {
            Some(grpo) => context.saturating_sub(grpo.max_completion_length).max(context / 2),
            None => context,
        }
    }

    /// The sections that the loop reads. Where `train.epochs` decides the length, `steps` is not known before the
    /// data is, and the greatest number stands for it.
    pub fn settings(&self) -> Settings {
        Settings {
            seed: self.seed,
            train: self.train.steps_recipe(),
            optimizer: self.optimizer.recipe(self.default_lr()),
            schedule: self.schedule.clone(),
            eval: self.eval.recipe(),
            checkpoint: self.checkpoint.clone(),
            log: self.log.clone(),
        }
    }
}

fn default_seed() -> u64 {
    // TRL's.
    42
}

fn linear_to_zero() -> ScheduleRecipe {
    ScheduleRecipe {
        kind: ScheduleKind::Linear,
        warmup_steps: 0,
        final_lr_fraction: Some(0.0),
        decay_fraction: None,
    }
}
