//! A reward model (Ouyang et al. 2022, arXiv:2203.02155): one number for a text, higher for the preferred of two.
//!
//! Shapes: p pairs.

mod objective;

use burn::tensor::Tensor;
use burn::tensor::activation::log_sigmoid;
use fornax_train::recipe::{RecipeCheckError, number};
use serde::{Deserialize, Serialize};

use crate::dpo::Logps;

pub use objective::RewardObjective;

/// `[reward]`: the loss of a reward model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardRecipe {
    /// Coefficient of the square of a pair's summed rewards, which keeps them near 0 (arXiv:2312.09244, TRL proposes
    /// 0.01); default 0.
    #[serde(default)]
    pub center_rewards_coefficient: f64,
}

impl RewardRecipe {
    /// Checks the coefficient.
    ///
    /// # Errors
    /// The fault, with both numbers.
    pub fn check(&self) -> Result<(), RecipeCheckError> {
        let key = "reward.center_rewards_coefficient";
        number(key, self.center_rewards_coefficient, "a number of at least 0", |x| x >= 0.0)
    }

    /// Losses of p pairs with the rewards of both sides (Bradley and Terry 1952).
    pub fn losses(&self, rewards: &Logps) -> Tensor<1> {
        let (chosen, rejected) = (rewards.chosen.clone(), rewards.rejected.clone());
        let loss = -log_sigmoid(chosen.clone() - rejected.clone());
        match self.center_rewards_coefficient == 0.0 {
            true => loss,
            false => loss + (chosen + rejected).square() * self.center_rewards_coefficient,
        }
    }
}
