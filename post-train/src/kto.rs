//! Kahneman-Tversky optimization (Ethayarajh et al. 2024, arXiv:2402.01306): single completions with a verdict.
//!
//! Shapes: r rows.

mod objective;

use burn::tensor::activation::sigmoid;
use burn::tensor::{Tensor, TensorData};
use fornax_train::recipe::{RecipeCheckError, number};
use serde::{Deserialize, Serialize};

pub use objective::KtoObjective;

/// `[kto]`: the loss of completions with a verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KtoRecipe {
    /// How far the policy may move from the reference: small lets it go far.
    #[serde(default = "default_beta")]
    pub beta: f64,
    /// The loss.
    #[serde(default)]
    pub loss: KtoLoss,
    /// Weight of desirable completions.
    #[serde(default = "one")]
    pub desirable_weight: f64,
    /// Weight of undesirable completions.
    #[serde(default = "one")]
    pub undesirable_weight: f64,
}

/// A loss of single completions, by TRL's name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KtoLoss {
    /// Gains and losses against the divergence from the reference, which is estimated on each micro-batch from prompts
    /// with the completions of others: 8 micro-batches of 1 are not 1 of 8.
    #[default]
    Kto,
    /// Gains and losses against 0 (APO, arXiv:2408.06266).
    ApoZeroUnpaired,
}

impl Default for KtoRecipe {
    fn default() -> Self {
        Self { beta: default_beta(), loss: KtoLoss::default(), desirable_weight: one(), undesirable_weight: one() }
    }
}

impl KtoRecipe {
    /// Checks every value; `rows` is `train.micro_batch`.
    ///
    /// # Errors
    /// The fault met, with both numbers.
    pub fn check(&self, rows: usize) -> Result<(), RecipeCheckError> {
        number("kto.beta", self.beta, "a number above 0", |x| x > 0.0)?;
        number("kto.desirable_weight", self.desirable_weight, "a number of at least 0", |x| x >= 0.0)?;
        number("kto.undesirable_weight", self.undesirable_weight, "a number of at least 0", |x| x >= 0.0)?;
        if self.estimates_kl() && rows < 2 {
            return Err(RecipeCheckError::OutOfRange {
                key: "train.micro_batch",
                found: rows.to_string(),
                expected:
                    "at least 2, for prompts with the completions of other rows, which the KL term of `kto` \
                           is estimated from,"
                        .to_owned(),
            });
        }
        Ok(())
    }

    /// Whether prompts are to be scored with the completions of other rows.
    pub fn estimates_kl(&self) -> bool {
        self.loss == KtoLoss::Kto
    }

    /// Losses of r rows from their log-ratios of policy and reference, their verdicts, and the divergence kl (1).
    pub fn losses(&self, ratios_r: Tensor<1>, desirable: &[bool], kl: Tensor<1>) -> Tensor<1> {
        let device = ratios_r.device();
        let vector = |of: &dyn Fn(bool) -> f64| -> Tensor<1> {
            let values: Vec<f32> = desirable.iter().map(|&desirable| of(desirable) as f32).collect();
            Tensor::from_data(TensorData::new(values, [desirable.len()]), &device)
        };
        let sign_r = vector(&|desirable| if desirable { 1.0 } else { -1.0 });
        let weight_r = vector(&|desirable| match desirable {
            true => self.desirable_weight,
            false => self.undesirable_weight,
        });
        let from = match self.loss {
            KtoLoss::Kto => ratios_r - kl.detach(),
            KtoLoss::ApoZeroUnpaired => ratios_r,
        };
        // 1 - sigmoid(x) = sigmoid(-x), without the loss of digits.
        sigmoid(-(from * sign_r) * self.beta) * weight_r
    }
}

/// Log-ratios of r mismatched rows -> the divergence that losses and gains are measured from (1), never below 0.
pub fn divergence(ratios_r: Tensor<1>) -> Tensor<1> {
    ratios_r.detach().mean().clamp_min(0.0)
}

fn default_beta() -> f64 {
    0.1
}

fn one() -> f64 {
    1.0
}
