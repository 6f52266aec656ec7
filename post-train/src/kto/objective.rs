//! Completions with a verdict as something a run learns from.
//!
//! Shapes: r rows.

use burn::tensor::{Tensor, TensorData};
use fornax_data::batches::{Batch, Cursor};
use fornax_data::examples::{Example, Labelled};
use fornax_model::Decoder;
use fornax_train::TrainError;
use fornax_train::objective::{Evaluation, LossTerm, Metric, Metrics, Objective, Ready};
use fornax_train::step::Reported;

use super::{KtoRecipe, divergence};
use crate::logps::{RowSums, row_scores};
use crate::order::{Cut, draw};
use crate::pairs::{metric, padded, total};
use crate::reference::Reference;

/// Verdicts on single completions, against a reference model.
pub struct KtoObjective {
    recipe: KtoRecipe,
    train: Vec<Labelled>,
    held_out: Vec<Labelled>,
    reference: Reference,
    /// Tokens of a row at most.
    context: usize,
    cut: Cut,
    ready: Vec<KtoBatch>,
}

/// The rows of one micro-batch.
struct KtoBatch {
    batch: Batch,
    desirable: Vec<bool>,
    /// Each prompt with the completion of the row before it, the opening one's with the last.
    turned: Option<Batch>,
    tokens: u64,
}

impl KtoObjective {
    /// Learns from `train`, measures on `held_out`. Rows that are mixed for the KL term are cut at `context` tokens.
    ///
    /// # Panics
    /// When there is no row to train on.
    pub fn new(
        recipe: KtoRecipe,
        train: Vec<Labelled>,
        held_out: Vec<Labelled>,
        reference: Reference,
        context: usize,
        cut: Cut,
    ) -> Self {
        assert!(!train.is_empty(), "there is no row to train on");
        Self { recipe, train, held_out, reference, context, cut, ready: Vec::new() }
    }

    fn batch(&self, rows: &[&Labelled]) -> KtoBatch {
        let examples: Vec<&Example> = rows.iter().map(|row| &row.example).collect();
        let (batch, _) = padded(&examples);
        let turned = self.recipe.estimates_kl().then(|| {
            let last = examples.len() - 1;
            let before = |i: usize| examples[i.checked_sub(1).unwrap_or(last)];
            let mixed: Vec<Example> =
                examples.iter().enumerate().map(|(i, row)| mix(row, before(i), self.context)).collect();
            padded(&mixed.iter().collect::<Vec<_>>()).0
        });
        let tokens = examples.iter().map(|row| row.ids.len() as u64).sum();
        KtoBatch { batch, desirable: rows.iter().map(|row| row.desirable).collect(), turned, tokens }
    }

    fn term_of(&self, policy: &Decoder, rows: &KtoBatch) -> LossTerm {
        let reference = self.reference.model(policy);
        let kl = match &rows.turned {
            // Neither model gets a gradient here.
            Some(turned) => {
                let logps = |model: &Decoder| row_scores(model, turned).logps_r.without_autodiff();
                divergence(logps(&policy.clone().trainable(false)) - logps(&reference))
            }
            None => Tensor::zeros([1], &policy.device()),
        };
        let scores = row_scores(policy, &rows.batch);
        let ratios_r = scores.logps_r.clone() - row_scores(&reference, &rows.batch).logps_r.detach();
        let losses_r = self.recipe.losses(ratios_r.clone(), &rows.desirable, kl.clone());
        let rewards_r = (ratios_r * self.recipe.beta).detach();
        let metrics = metrics(&scores, &rewards_r, &rows.desirable, kl);
        LossTerm { metrics, ..LossTerm::new(total(losses_r), rows.desirable.len() as f64) }
    }
}

impl Objective for KtoObjective {
    fn prepare(&mut self, _: &Decoder, _: u64, cursor: Cursor) -> Result<Ready, TrainError> {
        let (rows, after) = draw(self.train.len(), self.cut.rows * self.cut.micro_batches, cursor, self.cut.seed);
        let picked: Vec<&Labelled> = rows.iter().map(|&row| &self.train[row]).collect();
        let ready: Vec<KtoBatch> = picked.chunks(self.cut.rows).map(|rows| self.batch(rows)).collect();
        self.ready = ready;
        let tokens = self.ready.iter().map(|rows| rows.tokens).sum();
        Ok(Ready { micro_batches: self.ready.len(), cursor: after, tokens, metrics: Metrics::new() })
    }

    fn term(&self, decoder: &Decoder, micro_batch: usize) -> Result<LossTerm, TrainError> {
        Ok(self.term_of(decoder, &self.ready[micro_batch]))
    }

    fn evaluate(&mut self, plain: &Decoder) -> Result<Option<Evaluation>, TrainError> {
        if self.held_out.is_empty() {
            return Ok(None);
        }
        let (mut sum, mut reported) = (0.0, Reported::default());
        for rows in self.held_out.chunks(self.cut.rows) {
            let term = self.term_of(plain, &self.batch(&rows.iter().collect::<Vec<_>>()));
            sum += f64::from(term.loss_sum.try_into_scalar::<f32>().map_err(TrainError::device)?);
            reported.add(term.metrics)?;
        }
        let weight = self.held_out.len() as u64;
        let (loss, metrics) = (sum / weight as f64, reported.means());
        Ok(Some(Evaluation { loss, bits_per_byte: None, weight, metrics }))
    }
}

/// The prompt of `row` with the completion of `other`, at most `context` targets long.
fn mix(row: &Example, other: &Example, context: usize) -> Example {
    let start = |of: &Example| of.trained.iter().position(|&trained| trained).unwrap_or(of.ids.len());
    let (prompt, from) = (start(row), start(other));
    let mut ids = [&row.ids[..prompt], &other.ids[from..]].concat();
    let mut trained = [&row.trained[..prompt], &other.trained[from..]].concat();
    ids.truncate(context + 1);
    trained.truncate(context + 1);
    Example { ids, trained, row: row.row }
}

/// TRL's numbers of a batch of verdicts: `chosen` are the desirable rows.
fn metrics(scores: &RowSums, rewards_r: &Tensor<1>, desirable: &[bool], kl: Tensor<1>) -> Vec<Metric> {
    let mut all = vec![metric("kl", kl, 1.0)];
    let tokens = |side: bool| -> usize {
        scores.tokens.iter().zip(desirable).filter(|(_, desirable)| **desirable == side).map(|(n, _)| n).sum()
    };
    let mut means = Vec::new();
    for (side, [rewards, logps, logits]) in [
        (true, ["rewards/chosen", "logps/chosen", "logits/chosen"]),
        (false, ["rewards/rejected", "logps/rejected", "logits/rejected"]),
    ] {
        let picked: Vec<f32> = desirable.iter().map(|&desirable| f32::from(desirable == side)).collect();
        let n = picked.iter().sum::<f32>();
        if n == 0.0 {
            continue;
        }
        let picked_r: Tensor<1> =
            Tensor::from_data(TensorData::new(picked, [desirable.len()]), &rewards_r.device());
        let of = |x_r: &Tensor<1>| x_r.clone() * picked_r.clone();
        means.push(of(rewards_r).sum() / f64::from(n));
        all.extend([
            metric(rewards, of(rewards_r), f64::from(n)),
            metric(logps, of(&scores.logps_r), f64::from(n)),
            metric(logits, of(&scores.mean_logit_r), tokens(side) as f64),
        ]);
    }
    if let [chosen, rejected] = &means[..] {
        // A difference of two means is not the mean of anything: it is averaged over the micro-batches that have both.
        all.push(metric("rewards/margins", chosen.clone() - rejected.clone(), 1.0));
    }
    let n: usize = scores.tokens.iter().sum();
    all.push(metric("entropy", scores.entropy_r.clone(), n as f64));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_takes_the_completion_of_another_row() {
        let row = |ids: &[u32], prompt: usize| Example {
            ids: ids.to_vec(),
            trained: (0..ids.len()).map(|at| at >= prompt).collect(),
            row: 1,
        };
        let mixed = mix(&row(&[1, 2, 3], 2), &row(&[4, 5, 6, 7], 1), 9);
        assert_eq!((mixed.ids, mixed.trained), (vec![1, 2, 5, 6, 7], vec![false, false, true, true, true]));
        let cut = mix(&row(&[1, 2, 3], 2), &row(&[4, 5, 6, 7], 1), 3);
        assert_eq!((cut.ids, cut.trained), (vec![1, 2, 5, 6], vec![false, false, true, true]));
    }
}
