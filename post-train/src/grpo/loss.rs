//! The clipped policy loss over the tokens of completions.
//!
//! Shapes: n tokens of completions.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::GrpoRecipe;

/// What the losses of tokens are divided by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossType {
    /// All tokens of all completions of the step (DAPO, arXiv:2503.14476): each token counts alike.
    #[default]
    Dapo,
    /// The tokens of each completion, then the completions (DeepSeekMath, arXiv:2402.03300): each completion counts
    /// alike.
    Grpo,
    /// Completions times their greatest length (Dr. GRPO, arXiv:2503.20783).
    DrGrpo,
}

/// What is known of the tokens of completions besides the model; n each, without a gradient.
#[derive(Debug, Clone)]
pub struct PolicyTokens {
    /// Advantage of the completion.
    pub advantages_n: Tensor<1>,
    /// What its loss is multiplied with: 1, or one by the tokens of the completion.
    pub weights_n: Tensor<1>,
    /// Log-probability under the model that wrote it; `None` where that is the model itself.
    pub old_n: Option<Tensor<1>>,
    /// Log-probability under the reference, where the loss has a KL term.
    pub reference_n: Option<Tensor<1>>,
}

/// The loss and what is counted beside it, (1) each.
#[derive(Debug)]
pub struct PolicyLoss {
    /// Weighted sum of the losses of the tokens.
    pub loss_sum: Tensor<1>,
    /// Sum of the KL estimates.
    pub kl_sum: Option<Tensor<1>>,
    /// Tokens whose ratio is below the range while their advantage is negative: they have no gradient.
    pub low: Tensor<1>,
    /// Tokens whose ratio is above the range while their advantage is positive: they have no gradient.
    pub high: Tensor<1>,
}

impl GrpoRecipe {
    /// `-min(ratio A, clip(ratio) A) + beta KL` for each token, with the ratio of its probability to that under the
    /// model that wrote it. The KL is the estimate k3 of Schulman (2020), times the ratio where
    /// `use_bias_correction_kl` is set.
    pub fn policy_loss(&self, logps_n: Tensor<1>, tokens: &PolicyTokens) -> PolicyLoss {
        let old_n = tokens.old_n.clone().unwrap_or_else(|| logps_n.clone().detach());
        let ratio_n = (logps_n.clone() - old_n).exp();
        let (least, most) = (1.0 - self.epsilon, 1.0 + self.epsilon_high());
        let advantages_n = tokens.advantages_n.clone();
        let low_n = ratio_n.clone().lower_elem(least).bool_and(advantages_n.clone().lower_elem(0.0));
        let high_n = ratio_n.clone().greater_elem(most).bool_and(advantages_n.clone().greater_elem(0.0));
        // What the smaller of the two products picks: inside of the range both are the same.
        let bounded_n = ratio_n.clone().mask_fill(low_n.clone(), least).mask_fill(high_n.clone(), most);
        let mut loss_n = -(bounded_n * advantages_n);
        let kl_n = tokens.reference_n.as_ref().map(|reference_n| {
            let apart_n = reference_n.clone() - logps_n;
            let kl_n = apart_n.clone().exp() - apart_n - 1.0;
            if self.use_bias_correction_kl { kl_n * ratio_n } else { kl_n }
        });
        if let Some(kl_n) = &kl_n {
            loss_n = loss_n + kl_n.clone() * self.beta;
        }
        PolicyLoss {
            loss_sum: (loss_n * tokens.weights_n.clone()).sum(),
            kl_sum: kl_n.map(|kl_n| kl_n.detach().sum()),
            low: low_n.float().sum(),
            high: high_n.float().sum(),
        }
    }
}
