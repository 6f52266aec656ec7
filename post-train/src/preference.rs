//! Losses of pairs, from what a model says of both completions to one number and TRL's metrics.
//!
//! Shapes: p pairs.

mod objective;
mod opening;

use fornax_model::Decoder;
use fornax_train::objective::LossTerm;

use crate::cpo::CpoRecipe;
use crate::dpo::{DpoRecipe, Logps, Pairs};
use crate::orpo::{OrpoRecipe, odds};
use crate::pairs::{PairBatch, PairScores, metric, total};

pub use objective::{PairObjective, PairReference, reference_logps};
pub use opening::Start;

/// A loss of pairs.
#[derive(Debug, Clone, PartialEq)]
pub enum PairLoss {
    /// DPO and its relatives, against a reference.
    Dpo(DpoRecipe),
    /// ORPO.
    Orpo(OrpoRecipe),
    /// CPO and SimPO.
    Cpo(CpoRecipe),
}

/// How many pairs and chosen tokens a whole step has: a likelihood that is a mean over the tokens of a step becomes a
/// sum over its pairs by their ratio, so that it does not matter how the step is cut into micro-batches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pairs.
    pub pairs: usize,
    /// Chosen tokens that the likelihood is a mean over.
    pub chosen_tokens: usize,
}

impl Counts {
    /// Of these micro-batches together.
    pub fn of<'a>(loss: &PairLoss, batches: impl IntoIterator<Item = &'a PairBatch>) -> Counts {
        batches.into_iter().fold(Counts::default(), |sum, batch| Counts {
            pairs: sum.pairs + batch.pairs,
            chosen_tokens: sum.chosen_tokens + batch.chosen_tokens(loss.reads_prompts()),
        })
    }

    fn pairs_per_token(&self) -> f64 {
        self.pairs as f64 / self.chosen_tokens.max(1) as f64
    }
}

impl PairLoss {
    /// Whether the loss compares with a reference model.
    pub fn wants_reference(&self) -> bool {
        matches!(self, PairLoss::Dpo(recipe) if !recipe.reference_free)
    }

    /// ORPO's likelihood is that of the whole chosen text.
    fn reads_prompts(&self) -> bool {
        matches!(self, PairLoss::Orpo(_))
    }

    /// The loss of a micro-batch of pairs, summed; `reference` has the log-probabilities of both completions, without
    /// it they are taken for 0.
    pub fn term(
        &self,
        decoder: &Decoder,
        batch: &PairBatch,
        reference: Option<Logps>,
        counts: Counts,
    ) -> LossTerm {
        self.of_scores(&batch.score(decoder, self.reads_prompts()), reference, counts)
    }

    pub(crate) fn of_scores(&self, scores: &PairScores, reference: Option<Logps>, counts: Counts) -> LossTerm {
        let (losses, metrics) = match self {
            PairLoss::Dpo(recipe) => {
                let policy = scores.logps();
                let zero = || policy.chosen.zeros_like().detach();
                let pairs = Pairs {
                    reference: reference.unwrap_or_else(|| Logps { chosen: zero(), rejected: zero() }),
                    tokens: scores.tokens(),
                    pairs_per_chosen_token: counts.pairs_per_token(),
                    policy,
                };
                (recipe.losses(&pairs), scores.metrics(&recipe.rewards(&pairs), &pairs.policy))
            }
            PairLoss::Orpo(recipe) => {
                let means = scores.mean_logps();
                let odds = odds(&means);
                let (nll, tokens) = scores.chosen_nll();
                let mut metrics = scores.metrics(&recipe.rewards(&means), &means);
                let pairs = scores.pairs() as f64;
                metrics.extend([
                    metric("nll_loss", nll.clone(), tokens),
                    metric("log_odds_ratio", odds.ratio.clone(), pairs),
                    metric("log_odds_chosen", odds.log_odds.clone(), pairs),
                ]);
                (recipe.losses(&odds) + nll * counts.pairs_per_token(), metrics)
            }
            PairLoss::Cpo(recipe) => {
                let logps = if recipe.compares_means() { scores.mean_logps() } else { scores.logps() };
                let mut metrics = scores.metrics(&recipe.rewards(&logps), &logps);
                let mut losses = recipe.losses(&logps);
                if recipe.cpo_alpha != 0.0 {
                    let (nll, tokens) = scores.chosen_nll();
                    metrics.push(metric("nll_loss", nll.clone(), tokens));
                    losses = losses + nll * (counts.pairs_per_token() * recipe.cpo_alpha);
                }
                (losses, metrics)
            }
        };
        LossTerm { metrics, ..LossTerm::new(total(losses), scores.pairs() as f64) }
    }
}

#[cfg(test)]
mod tests;
