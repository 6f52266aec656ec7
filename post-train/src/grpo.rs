//! Group relative policy optimization (Shao et al. 2024, arXiv:2402.03300): the model answers each prompt several
//! times, and learns from the answers that are better than the others.
//!
//! [`advantages()`] and [`GrpoRecipe::policy_loss`] are the formulas, as TRL has them; [`Grpo`] is the objective, which
//! samples with [`crate::rollout`] and judges with [`crate::rewards`].

mod advantages;
mod error;
mod loss;
mod objective;

use fornax_infer::sampler::SamplingOptions;
use fornax_train::recipe::{RecipeCheckError, number, within};
use serde::{Deserialize, Serialize};

use crate::rewards::RewardRecipe;

pub use advantages::{Advantages, ScaleRewards, advantages};
pub use error::GrpoError;
pub use loss::{LossType, PolicyLoss, PolicyTokens};
pub use objective::{Grpo, GrpoParts};

/// `[grpo]`: how completions are drawn and learned from. Names and defaults are TRL's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrpoRecipe {
    /// Completions of each prompt; divides `train.batch`, which counts completions.
    #[serde(default = "default_generations")]
    pub num_generations: usize,
    /// Tokens of a completion at most; the context may end it sooner.
    #[serde(default = "default_length")]
    pub max_completion_length: usize,
    /// Temperature of the samples; the loss is that of the distribution they are drawn from before filters.
    #[serde(default = "default_temperature")]
    pub temperature: f64,
    /// Samples are drawn from the k most probable tokens; 0 is off.
    #[serde(default)]
    pub top_k: usize,
    /// Samples are drawn from the most probable tokens that together reach this probability; 1 is off.
    #[serde(default = "default_top_p")]
    pub top_p: f64,
    /// Samples are drawn from the tokens of at least this share of the largest probability; 0 is off.
    #[serde(default)]
    pub min_p: f64,
    /// Factor of the KL divergence from the model before training; 0 is off and needs no reference.
    #[serde(default)]
    pub beta: f64,
    /// Whether the KL estimate is multiplied with the ratio, which makes its gradient that of the KL divergence.
    #[serde(default = "default_true")]
    pub use_bias_correction_kl: bool,
    /// How far below 1 a ratio may fall before it is cut off.
    #[serde(default = "default_epsilon")]
    pub epsilon: f64,
    /// How far above 1 it may rise; default `epsilon`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epsilon_high: Option<f64>,
    /// Steps that learn from the same completions.
    #[serde(default = "default_iterations")]
    pub num_iterations: u64,
    /// What the losses of tokens are divided by.
    #[serde(default)]
    pub loss_type: LossType,
    /// What advantages are divided by.
    #[serde(default)]
    pub scale_rewards: ScaleRewards,
    /// Whether nothing is learned from completions that were cut off by their length.
    #[serde(default)]
    pub mask_truncated_completions: bool,
    /// Completions drawn of each held-out prompt for `pass@k`, beside the greedy one of `pass@1`; 0 is off.
    #[serde(default)]
    pub eval_samples: usize,
    /// What a completion is worth: the weighted sum of these.
    pub rewards: Vec<RewardRecipe>,
}

impl GrpoRecipe {
    /// A recipe with TRL's defaults.
    pub fn new(rewards: Vec<RewardRecipe>) -> Self {
        Self {
            num_generations: default_generations(),
            max_completion_length: default_length(),
            temperature: default_temperature(),
            top_k: 0,
            top_p: default_top_p(),
            min_p: 0.0,
            beta: 0.0,
            use_bias_correction_kl: true,
            epsilon: default_epsilon(),
            epsilon_high: None,
            num_iterations: default_iterations(),
            loss_type: LossType::Dapo,
            scale_rewards: ScaleRewards::Group,
            mask_truncated_completions: false,
            eval_samples: 0,
            rewards,
        }
    }

    /// `epsilon_high` or its default.
    pub fn epsilon_high(&self) -> f64 {
        self.epsilon_high.unwrap_or(self.epsilon)
    }

    /// The sampler's options, without a seed.
    pub fn sampler(&self) -> SamplingOptions {
        SamplingOptions {
            temperature: self.temperature as f32,
            top_k: self.top_k,
            top_p: self.top_p as f32,
            min_p: self.min_p as f32,
            ..SamplingOptions::default()
        }
    }

    /// Checks every key; `batch` is `train.batch` and `every` is `checkpoint.every`. The rewards are checked when they
    /// are compiled.
    ///
    /// # Errors
    /// The fault met, with both numbers.
    pub fn check(&self, batch: usize, every: u64) -> Result<(), RecipeCheckError> {
        within("grpo.num_generations", self.num_generations, 2..=1 << 16)?;
        if !batch.is_multiple_of(self.num_generations) {
            return Err(RecipeCheckError::NotMultiple {
                key: "train.batch",
                found: batch,
                by_key: "grpo.num_generations",
                by: self.num_generations,
            });
        }
        within("grpo.max_completion_length", self.max_completion_length, 1..=1 << 24)?;
        // At 0 all completions of a prompt are the same, and nothing can be learned.
        let warm = "a number above 0 and at most 2";
        number("grpo.temperature", self.temperature, warm, |x| x > 0.0 && x <= 2.0)?;
        number("grpo.top_p", self.top_p, "a number above 0 and at most 1", |x| x > 0.0 && x <= 1.0)?;
        number("grpo.min_p", self.min_p, "a number from 0 to 1", |x| (0.0..=1.0).contains(&x))?;
        number("grpo.beta", self.beta, "a number of at least 0", |x| x >= 0.0)?;
        number("grpo.epsilon", self.epsilon, "a number above 0 and below 1", |x| x > 0.0 && x < 1.0)?;
        number("grpo.epsilon_high", self.epsilon_high(), "a number above 0", |x| x > 0.0)?;
        within("grpo.num_iterations", self.num_iterations, 1..=1000)?;
        within("grpo.eval_samples", self.eval_samples, 0..=1 << 16)?;
        // A run that resumes among the steps of one set of completions cannot have them again.
        if !every.is_multiple_of(self.num_iterations) {
            return Err(RecipeCheckError::NotMultiple {
                key: "checkpoint.every",
                found: every as usize,
                by_key: "grpo.num_iterations",
                by: self.num_iterations as usize,
            });
        }
        Ok(())
    }
}

fn default_generations() -> usize {
    8
}

fn default_length() -> usize {
    512
}

fn default_temperature() -> f64 {
    1.0
}

fn default_top_p() -> f64 {
    1.0
}

fn default_true() -> bool {
    true
}

fn default_epsilon() -> f64 {
    0.2
}

fn default_iterations() -> u64 {
    1
}

#[cfg(test)]
mod tests;
