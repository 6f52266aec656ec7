//! Odds-ratio preference optimization (Hong et al. 2024, arXiv:2403.07691): likelihood of the chosen text and, with
//! it, a push of its odds over those of the rejected one. No reference.
//!
//! Shapes: p pairs.

use burn::tensor::Tensor;
use burn::tensor::activation::log_sigmoid;
use fornax_train::recipe::{RecipeCheckError, number};
use serde::{Deserialize, Serialize};

use crate::dpo::Logps;

/// The closest to 0 that a mean log-probability is taken to be: at 0 the odds are infinite.
const LARGEST_LOGP: f64 = -1e-6;

/// `[orpo]`: the weight of the odds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrpoRecipe {
    /// Weight of the odds ratio beside the likelihood, the paper's lambda.
    #[serde(default = "default_beta")]
    pub beta: f64,
}

impl Default for OrpoRecipe {
    fn default() -> Self {
        Self { beta: default_beta() }
    }
}

/// The odds of p pairs.
#[derive(Debug, Clone)]
pub struct Odds {
    /// Logarithm of the odds of the chosen completions over those of the rejected, p.
    pub log_odds: Tensor<1>,
    /// Its log-sigmoid, p.
    pub ratio: Tensor<1>,
}

impl OrpoRecipe {
    /// Checks the weight.
    ///
    /// # Errors
    /// The fault, with both numbers.
    pub fn check(&self) -> Result<(), RecipeCheckError> {
        number("orpo.beta", self.beta, "a number above 0", |x| x > 0.0)
    }

    /// Losses of p pairs, without the likelihood of the chosen text.
    pub fn losses(&self, odds: &Odds) -> Tensor<1> {
        -odds.ratio.clone() * self.beta
    }

    /// What the metrics call rewards: beta times the mean log-probabilities.
    pub fn rewards(&self, means: &Logps) -> Logps {
        let times = |x: &Tensor<1>| (x.clone() * self.beta).detach();
        Logps { chosen: times(&means.chosen), rejected: times(&means.rejected) }
    }
}

/// Mean log-probabilities of a token -> the odds of p pairs.
pub fn odds(means: &Logps) -> Odds {
    let log_odds = means.chosen.clone() - means.rejected.clone() - log_not(means.chosen.clone())
        + log_not(means.rejected.clone());
    Odds { ratio: log_sigmoid(log_odds.clone()), log_odds }
}

/// log(1 - e^x) for x below 0, exact where e^x is near 1: 1 - e^x = -2 t / (1 - t) with t = tanh(x / 2).
fn log_not(x: Tensor<1>) -> Tensor<1> {
    let t = (x.clamp_max(LARGEST_LOGP) * 0.5).tanh();
    (-t.clone() * 2.0).log() - (-t).log1p()
}

fn default_beta() -> f64 {
    0.1
}
