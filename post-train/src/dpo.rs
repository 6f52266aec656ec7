//! Direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290) and its relatives, as TRL has them.
//!
//! Shapes: p pairs. A log-probability is that of a whole completion, the sum over its tokens.

use burn::tensor::Tensor;
use burn::tensor::activation::{log_sigmoid, relu, sigmoid};
use fornax_train::recipe::{RecipeCheckError, number};
use serde::{Deserialize, Serialize};

use crate::losses::one_or_more;

/// Label smoothing of `exo_pair` where none is given: TRL's, since its loss is infinite without.
const EXO_SMOOTHING: f64 = 1e-3;
const DISCOPOP_TAU: f64 = 0.05;

/// `[dpo]`: the loss of pairs, and what it is measured against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DpoRecipe {
    /// How far the policy may move from the reference: small lets it go far. For `ipo` it is the paper's tau.
    #[serde(default = "default_beta")]
    pub beta: f64,
    /// The loss, or a list of losses that are added up.
    #[serde(default = "default_loss", deserialize_with = "one_or_more")]
    pub loss: Vec<DpoLoss>,
    /// A factor for each loss of the list; default 1 for each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_weights: Option<Vec<f64>>,
    /// Share of the pairs that are taken to be labelled wrongly, for `sigmoid` (cDPO), `robust`, `exo_pair`, `aot` and
    /// `aot_unpaired`; default 0, for `exo_pair` 0.001.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_smoothing: Option<f64>,
    /// Temperature of the blend in `discopop`; default 0.05.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discopop_tau: Option<f64>,
    /// Whether the reference finds every completion equally likely instead of being a model.
    #[serde(default)]
    pub reference_free: bool,
    /// Whether the reference's log-probabilities are computed once, before training, and kept in the run folder.
    #[serde(default)]
    pub precompute_ref_log_probs: bool,
}

/// A loss of pairs, by TRL's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DpoLoss {
    /// DPO; with label smoothing cDPO (Mitchell 2023).
    Sigmoid,
    /// A hinge on the margin (RSO, arXiv:2309.06657; SLiC, arXiv:2305.10425).
    Hinge,
    /// A square of the margin of the means over tokens (IPO, arXiv:2310.12036).
    Ipo,
    /// The estimate that noise in the labels leaves unbiased (arXiv:2403.00409).
    Robust,
    /// Reverse KL to the smoothed preference (EXO, arXiv:2402.00856).
    ExoPair,
    /// Noise contrast: also keeps the chosen likely (NCA, arXiv:2402.05369).
    NcaPair,
    /// Each side by itself as a binary choice (BCO, arXiv:2404.04656), without its running mean, as in TRL.
    BcoPair,
    /// Self-play with sure winners (SPPO, arXiv:2405.00675).
    SppoHard,
    /// Sorted margins of the micro-batch against the reference's (AOT, arXiv:2406.05882).
    Aot,
    /// Sorted log-ratios of the chosen against those of the rejected (AOT for unpaired data).
    AotUnpaired,
    /// Chosen up, rejected down (APO, arXiv:2408.06266).
    ApoZero,
    /// Both down, rejected further (APO).
    ApoDown,
    /// A blend found by search (DiscoPOP, arXiv:2406.08414).
    Discopop,
    /// Likelihood of the chosen tokens, for mixes such as MPO (arXiv:2411.10442).
    Sft,
    /// DPO on means over tokens instead of sums.
    SigmoidNorm,
}

/// Log-probabilities of both completions of p pairs.
#[derive(Debug, Clone)]
pub struct Logps {
    /// Of the preferred ones, p.
    pub chosen: Tensor<1>,
    /// Of the others, p.
    pub rejected: Tensor<1>,
}

impl Logps {
    /// The same without a gradient.
    #[must_use]
    pub fn detached(self) -> Self {
        Self { chosen: self.chosen.detach(), rejected: self.rejected.detach() }
    }
}

/// What the losses of p pairs are computed from.
#[derive(Debug, Clone)]
pub struct Pairs {
    /// The model in training.
    pub policy: Logps,
    /// What it is measured against, without a gradient.
    pub reference: Logps,
    /// Tokens of the completions, in f32.
    pub tokens: Logps,
    /// Pairs by chosen tokens, both of the whole step: what makes the token mean of `sft` a sum over pairs.
    pub pairs_per_chosen_token: f64,
}

/// How far policy and reference are apart.
struct Ratios<'a> {
    pairs: &'a Pairs,
    /// Log-ratio of the chosen completions, p.
    chosen: Tensor<1>,
    /// Log-ratio of the rejected completions, p.
    rejected: Tensor<1>,
    /// Their difference.
    margin: Tensor<1>,
}

impl Default for DpoRecipe {
    fn default() -> Self {
        Self {
            beta: default_beta(),
            loss: default_loss(),
            loss_weights: None,
            label_smoothing: None,
            discopop_tau: None,
            reference_free: false,
            precompute_ref_log_probs: false,
        }
    }
}

impl DpoRecipe {
    /// Checks every value, and that each is read by a loss of the list.
    ///
    /// # Errors
    /// The fault met, with both numbers.
    pub fn check(&self) -> Result<(), RecipeCheckError> {
        number("dpo.beta", self.beta, "a number above 0", |x| x > 0.0)?;
        let has = |loss| self.loss.contains(&loss);
        let out_of_range = |key, found: String, expected: &str| {
            Err(RecipeCheckError::OutOfRange { key, found, expected: expected.to_owned() })
        };
        if self.loss.is_empty() {
            return out_of_range("dpo.loss", "an empty list".into(), "at least one loss");
        }
        if let Some(weights) = &self.loss_weights {
            if weights.len() != self.loss.len() {
                let found = format!("a list of {}", weights.len());
                let expected = format!("one number for each of the {} losses of `dpo.loss`", self.loss.len());
                return out_of_range("dpo.loss_weights", found, &expected);
            }
            for &weight in weights {
                number("dpo.loss_weights", weight, "a list of numbers of at least 0", |x| x >= 0.0)?;
            }
        }
        self.check_smoothing()?;
        if let Some(tau) = self.discopop_tau {
            if !has(DpoLoss::Discopop) {
                let because = "`dpo.loss` does not name `discopop`";
                return Err(RecipeCheckError::NoEffect { key: "dpo.discopop_tau", because });
            }
            number("dpo.discopop_tau", tau, "a number above 0", |x| x > 0.0)?;
        }
        if self.reference_free && self.precompute_ref_log_probs {
            return Err(RecipeCheckError::Both {
                one: "dpo.reference_free",
                other: "dpo.precompute_ref_log_probs",
                because: "without a reference there is nothing to compute",
            });
        }
        Ok(())
    }

    fn check_smoothing(&self) -> Result<(), RecipeCheckError> {
        use DpoLoss::{Aot, AotUnpaired, ExoPair, Robust, Sigmoid};
        const KEY: &str = "dpo.label_smoothing";
        let Some(smoothing) = self.label_smoothing else { return Ok(()) };
        if !self.loss.iter().any(|loss| [Sigmoid, Robust, ExoPair, Aot, AotUnpaired].contains(loss)) {
            let because = "no loss of `dpo.loss` reads it: those that do are sigmoid, robust, exo_pair, aot and \
                           aot_unpaired";
            return Err(RecipeCheckError::NoEffect { key: KEY, because });
        }
        if self.loss.contains(&ExoPair) {
            return number(KEY, smoothing, "a number above 0 and below 0.5", |x| x > 0.0 && x < 0.5);
        }
        number(KEY, smoothing, "a number from 0 to below 0.5", |x| (0.0..0.5).contains(&x))
    }

    /// Losses of p pairs: the weighted sum over the list.
    pub fn losses(&self, pairs: &Pairs) -> Tensor<1> {
        let ratios = Ratios::new(pairs);
        let weight = |i: usize| self.loss_weights.as_ref().map_or(1.0, |weights| weights[i]);
        let terms = self.loss.iter().enumerate().map(|(i, &loss)| self.one(loss, &ratios) * weight(i));
        terms.reduce(|sum, term| sum + term).unwrap_or_else(|| ratios.margin.zeros_like())
    }

    /// beta times the log-ratios of policy and reference: what the metrics call rewards.
    pub fn rewards(&self, pairs: &Pairs) -> Logps {
        let ratios = Ratios::new(pairs);
        Logps { chosen: (ratios.chosen * self.beta).detach(), rejected: (ratios.rejected * self.beta).detach() }
    }

    fn one(&self, loss: DpoLoss, ratios: &Ratios<'_>) -> Tensor<1> {
        let beta = self.beta;
        let (chosen, rejected) = (ratios.chosen.clone(), ratios.rejected.clone());
        let margin = ratios.margin.clone() * beta;
        match loss {
            DpoLoss::Sigmoid => smoothed(margin, self.smoothing(0.0)),
            DpoLoss::Hinge => relu(-margin + 1.0),
            DpoLoss::Ipo => (ratios.mean_margin() - 0.5 / beta).square(),
            DpoLoss::SigmoidNorm => -log_sigmoid(ratios.mean_margin() * beta),
            DpoLoss::Robust => {
                let noise = self.smoothing(0.0);
                let clean = -log_sigmoid(margin.clone()) * (1.0 - noise);
                (clean + log_sigmoid(-margin) * noise) / (1.0 - 2.0 * noise)
            }
            DpoLoss::ExoPair => {
                let noise = self.smoothing(EXO_SMOOTHING);
                let win = sigmoid(margin.clone()) * (log_sigmoid(margin.clone()) - (-noise).ln_1p());
                win + sigmoid(-margin.clone()) * (log_sigmoid(-margin) - noise.ln())
            }
            DpoLoss::NcaPair => {
                let (chosen, rejected) = (chosen * beta, rejected * beta);
                let away = log_sigmoid(-chosen.clone()) + log_sigmoid(-rejected);
                -log_sigmoid(chosen) - away * 0.5
            }
            DpoLoss::BcoPair => -log_sigmoid(chosen * beta) - log_sigmoid(-rejected * beta),
            DpoLoss::SppoHard => (chosen - 0.5 / beta).square() + (rejected + 0.5 / beta).square(),
            DpoLoss::Aot => smoothed(ratios.sorted_margins() * beta, self.smoothing(0.0)),
            DpoLoss::AotUnpaired => smoothed((chosen.sort(0) - rejected.sort(0)) * beta, self.smoothing(0.0)),
            DpoLoss::ApoZero => -sigmoid(chosen * beta) + 1.0 + sigmoid(rejected * beta),
            DpoLoss::ApoDown => sigmoid(chosen * beta) + 1.0 - sigmoid(margin),
            DpoLoss::Discopop => {
                let tau = self.discopop_tau.unwrap_or(DISCOPOP_TAU);
                let share = sigmoid(margin.clone() / tau);
                let logistic = -log_sigmoid(margin.clone()) * (-share.clone() + 1.0);
                logistic + (-margin).exp() * share
            }
            DpoLoss::Sft => -ratios.pairs.policy.chosen.clone() * ratios.pairs.pairs_per_chosen_token,
        }
    }

    fn smoothing(&self, default: f64) -> f64 {
        self.label_smoothing.unwrap_or(default)
    }
}

impl<'a> Ratios<'a> {
    fn new(pairs: &'a Pairs) -> Self {
        let chosen = pairs.policy.chosen.clone() - pairs.reference.chosen.clone();
        let rejected = pairs.policy.rejected.clone() - pairs.reference.rejected.clone();
        Self { pairs, margin: chosen.clone() - rejected.clone(), chosen, rejected }
    }

    /// Difference of the means over tokens.
    fn mean_margin(&self) -> Tensor<1> {
        let tokens = &self.pairs.tokens;
        self.chosen.clone() / tokens.chosen.clone() - self.rejected.clone() / tokens.rejected.clone()
    }

    /// Sorted margins of the policy less those of the reference.
    fn sorted_margins(&self) -> Tensor<1> {
        let margins = |logps: &Logps| (logps.chosen.clone() - logps.rejected.clone()).sort(0);
        margins(&self.pairs.policy) - margins(&self.pairs.reference)
    }
}

/// `-(1 - noise) log sigmoid(x) - noise log sigmoid(-x)`.
pub(crate) fn smoothed(x: Tensor<1>, noise: f64) -> Tensor<1> {
    if noise == 0.0 {
        return -log_sigmoid(x);
    }
    -log_sigmoid(x.clone()) * (1.0 - noise) - log_sigmoid(-x) * noise
}

fn default_beta() -> f64 {
    0.1
}

fn default_loss() -> Vec<DpoLoss> {
    vec![DpoLoss::Sigmoid]
}
