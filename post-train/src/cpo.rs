//! Contrastive preference optimization (Xu et al. 2024, arXiv:2401.08417) and SimPO (Meng et al. 2024,
//! arXiv:2405.14734): losses of pairs without a reference.
//!
//! Shapes: p pairs.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use fornax_train::recipe::{RecipeCheckError, number};
use serde::{Deserialize, Serialize};

use crate::dpo::{Logps, smoothed};

/// `[cpo]`: the loss of pairs and the likelihood beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpoRecipe {
    /// Factor of the difference of log-probabilities; SimPO wants 2 to 2.5.
    #[serde(default = "default_beta")]
    pub beta: f64,
    /// The loss.
    #[serde(default)]
    pub loss: CpoLoss,
    /// Share of the pairs that are taken to be labelled wrongly, for `sigmoid` and `simpo`; default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_smoothing: Option<f64>,
    /// Weight of the likelihood of the chosen completions beside the loss; 0 for SimPO as it was published.
    #[serde(default = "default_cpo_alpha")]
    pub cpo_alpha: f64,
    /// Margin that `simpo` asks for; default 0.5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub simpo_gamma: Option<f64>,
    /// Bend of the reward, `(1 - p^-alpha) / alpha` (AlphaPO, arXiv:2501.03884); 0 is the log-probability itself.
    #[serde(default)]
    pub alpha: f64,
}

/// A loss of pairs without a reference, by TRL's name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CpoLoss {
    /// CPO's own.
    #[default]
    Sigmoid,
    /// A hinge on the margin.
    Hinge,
    /// A square of the margin of the means over tokens.
    Ipo,
    /// A margin on the means over tokens.
    Simpo,
}

impl Default for CpoRecipe {
    fn default() -> Self {
        Self {
            beta: default_beta(),
            loss: CpoLoss::default(),
            label_smoothing: None,
            cpo_alpha: default_cpo_alpha(),
            simpo_gamma: None,
            alpha: 0.0,
        }
    }
}

impl CpoRecipe {
    /// Checks every value, and that the loss reads it.
    ///
    /// # Errors
    /// The fault met, with both numbers.
    pub fn check(&self) -> Result<(), RecipeCheckError> {
        number("cpo.beta", self.beta, "a number above 0", |x| x > 0.0)?;
        number("cpo.cpo_alpha", self.cpo_alpha, "a number of at least 0", |x| x >= 0.0)?;
        number("cpo.alpha", self.alpha, "a number from -10 to 10", |x| x.abs() <= 10.0)?;
        if let Some(smoothing) = self.label_smoothing {
            if !matches!(self.loss, CpoLoss::Sigmoid | CpoLoss::Simpo) {
                let because = "`cpo.loss` is neither `sigmoid` nor `simpo`";
                return Err(RecipeCheckError::NoEffect { key: "cpo.label_smoothing", because });
            }
            let expected = "a number from 0 to below 0.5";
            number("cpo.label_smoothing", smoothing, expected, |x| (0.0..0.5).contains(&x))?;
        }
        if let Some(gamma) = self.simpo_gamma {
            if self.loss != CpoLoss::Simpo {
                let because = "`cpo.loss` is not `simpo`";
                return Err(RecipeCheckError::NoEffect { key: "cpo.simpo_gamma", because });
            }
            number("cpo.simpo_gamma", gamma, "a number of at least 0", |x| x >= 0.0)?;
        }
        Ok(())
    }

    /// Whether the loss compares means over tokens and not sums.
    pub fn compares_means(&self) -> bool {
        matches!(self.loss, CpoLoss::Ipo | CpoLoss::Simpo)
    }

    /// Losses of p pairs, without the likelihood of the chosen completions; `logps` are sums or means, as
    /// [`CpoRecipe::compares_means`] says.
    pub fn losses(&self, logps: &Logps) -> Tensor<1> {
        let logits = self.bent(&logps.chosen) - self.bent(&logps.rejected);
        let (beta, noise) = (self.beta, self.label_smoothing.unwrap_or(0.0));
        match self.loss {
            CpoLoss::Sigmoid => smoothed(logits * beta, noise),
            CpoLoss::Simpo => smoothed(logits * beta - self.simpo_gamma.unwrap_or(0.5), noise),
            CpoLoss::Hinge => relu(-logits * beta + 1.0),
            CpoLoss::Ipo => (logits - 0.5 / beta).square(),
        }
    }

    /// What the metrics call rewards.
    pub fn rewards(&self, logps: &Logps) -> Logps {
        let times = |x: &Tensor<1>| (self.bent(x) * self.beta).detach();
        Logps { chosen: times(&logps.chosen), rejected: times(&logps.rejected) }
    }

    fn bent(&self, logps: &Tensor<1>) -> Tensor<1> {
        match self.alpha == 0.0 {
            true => logps.clone(),
            false => (-(-logps.clone() * self.alpha).exp() + 1.0) / self.alpha,
        }
    }
}

fn default_beta() -> f64 {
    0.1
}

fn default_cpo_alpha() -> f64 {
    1.0
}
