//! Pairs of completions as one batch: the chosen rows, then the rejected ones, and what is reported of both.
//!
//! Shapes: p pairs, r = 2 p rows.

use burn::tensor::Tensor;
use fornax_data::batches::Batch;
use fornax_data::examples::{Example, Pair};
use fornax_model::Decoder;
use fornax_train::objective::Metric;

use crate::dpo::Logps;
use crate::logps::{RowSums, Score, TargetScores, last_hidden};

/// The pairs of one micro-batch.
#[derive(Debug, Clone)]
pub struct PairBatch {
    /// 2 p rows, padded on the right to the longest; completions are trained, prompts and padding are not.
    pub batch: Batch,
    /// Number of pairs.
    pub pairs: usize,
    /// For each target whether it is no padding.
    real: Vec<bool>,
}

impl PairBatch {
    /// Batches pairs.
    pub fn new(pairs: &[&Pair]) -> PairBatch {
        let chosen = pairs.iter().map(|pair| &pair.chosen);
        let rows: Vec<&Example> = chosen.chain(pairs.iter().map(|pair| &pair.rejected)).collect();
        let (batch, real) = padded(&rows);
        PairBatch { batch, pairs: pairs.len(), real }
    }

    /// Log-probabilities of the completions.
    pub fn logps(&self, decoder: &Decoder) -> Logps {
        self.score(decoder, false).logps()
    }

    /// Scores of the completions, and of prompt and completion of the chosen rows where `with_prompts`.
    pub(crate) fn score(&self, decoder: &Decoder, with_prompts: bool) -> PairScores {
        let hidden_rtc = last_hidden(decoder, &self.batch);
        self.score_hidden(hidden_rtc, with_prompts, &|hidden_nc, targets_n| {
            decoder.token_scores(hidden_nc, targets_n)
        })
    }

    pub(crate) fn score_hidden(&self, hidden_rtc: Tensor<3>, with_prompts: bool, score: Score<'_>) -> PairScores {
        let half = self.batch.mask.len() / 2;
        let chosen_text: Vec<bool> =
            self.real.iter().enumerate().map(|(at, &real)| with_prompts && real && at < half).collect();
        let scored: Vec<bool> = self.batch.mask.iter().zip(&chosen_text).map(|(&a, &b)| a || b).collect();
        let scores = TargetScores::new(hidden_rtc, &self.batch, &scored, score);
        let completions = scores.row_sums(&self.batch.mask);
        let chosen_text = with_prompts.then(|| scores.row_sums(&chosen_text));
        PairScores { pairs: self.pairs, completions, chosen_text }
    }

    /// Targets of the chosen completions; with their prompts where asked for.
    pub(crate) fn chosen_tokens(&self, with_prompts: bool) -> usize {
        let half = self.batch.mask.len() / 2;
        let counted = if with_prompts { &self.real } else { &self.batch.mask };
        counted[..half].iter().filter(|counted| **counted).count()
    }

    /// Tokens without padding.
    pub(crate) fn tokens(&self) -> u64 {
        (self.real.iter().filter(|real| **real).count() + self.batch.rows) as u64
    }
}

/// One row for each example, padded on the right to the longest, and which targets are no padding.
pub(crate) fn padded(rows: &[&Example]) -> (Batch, Vec<bool>) {
    let targets = |row: &Example| row.ids.len().saturating_sub(1);
    let columns = rows.iter().map(|row| targets(row)).max().unwrap_or(0).max(1);
    let real = rows.iter().flat_map(|row| (0..columns).map(move |at| at < targets(row))).collect();
    (Batch::padded(rows, columns), real)
}

/// What a model says of a batch of pairs.
pub(crate) struct PairScores {
    pairs: usize,
    /// Of the completions.
    pub(crate) completions: RowSums,
    /// Of the chosen rows with their prompts.
    pub(crate) chosen_text: Option<RowSums>,
}

impl PairScores {
    /// Number of pairs.
    pub(crate) fn pairs(&self) -> usize {
        self.pairs
    }

    /// Negative log-likelihood of each chosen completion, or text where its prompt was scored, too; and the tokens.
    pub(crate) fn chosen_nll(&self) -> (Tensor<1>, f64) {
        let sums = self.chosen_text.as_ref().unwrap_or(&self.completions);
        let tokens: usize = sums.tokens[..self.pairs].iter().sum();
        (-self.halves(&sums.logps_r).chosen, tokens as f64)
    }

    /// Sums over the tokens of each completion.
    pub(crate) fn logps(&self) -> Logps {
        self.halves(&self.completions.logps_r)
    }

    /// Tokens of each completion, in f32; at least 1.
    pub(crate) fn tokens(&self) -> Logps {
        let tokens: Vec<f32> = self.completions.tokens.iter().map(|&n| n.max(1) as f32).collect();
        let tokens_r = Tensor::from_data(tokens.as_slice(), &self.completions.logps_r.device());
        self.halves(&tokens_r)
    }

    /// Means over the tokens of each completion.
    pub(crate) fn mean_logps(&self) -> Logps {
        let (sums, tokens) = (self.logps(), self.tokens());
        Logps { chosen: sums.chosen / tokens.chosen, rejected: sums.rejected / tokens.rejected }
    }

    fn halves(&self, x_r: &Tensor<1>) -> Logps {
        let p = self.pairs;
        Logps { chosen: x_r.clone().slice_dim(0, 0..p), rejected: x_r.clone().slice_dim(0, p..2 * p) }
    }

    /// TRL's numbers of a batch of pairs; `logps` are what the loss compared.
    pub(crate) fn metrics(&self, rewards: &Logps, logps: &Logps) -> Vec<Metric> {
        let pairs = self.pairs as f64;
        let won = rewards.chosen.clone().greater(rewards.rejected.clone()).float();
        let mut all = vec![
            metric("rewards/chosen", rewards.chosen.clone(), pairs),
            metric("rewards/rejected", rewards.rejected.clone(), pairs),
            metric("rewards/margins", rewards.chosen.clone() - rewards.rejected.clone(), pairs),
            metric("rewards/accuracies", won, pairs),
            metric("logps/chosen", logps.chosen.clone(), pairs),
            metric("logps/rejected", logps.rejected.clone(), pairs),
        ];
        let (sums, n) = (&self.completions, |range: std::ops::Range<usize>| -> f64 {
            self.completions.tokens[range].iter().sum::<usize>() as f64
        });
        let p = self.pairs;
        let (chosen, rejected) = (n(0..p), n(p..2 * p));
        let logits = self.halves(&sums.mean_logit_r);
        all.extend([
            metric("logits/chosen", logits.chosen, chosen),
            metric("logits/rejected", logits.rejected, rejected),
            metric("entropy", sums.entropy_r.clone(), chosen + rejected),
            metric("mean_token_accuracy", self.halves(&sums.greedy_r).chosen, chosen),
        ]);
        all
    }
}

/// x_r -> its sum (1).
pub(crate) fn total(x_r: Tensor<1>) -> Tensor<1> {
    let n = x_r.dims()[0];
    x_r.reshape([1, n]).sum_dim(1).reshape([1])
}

/// Values of single rows as a number to report: their sum over `weight`.
pub(crate) fn metric(name: &'static str, values: Tensor<1>, weight: f64) -> Metric {
    Metric { name, sum: total(values.detach()), weight }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(ids: &[u32], prompt: usize) -> Example {
        Example { ids: ids.to_vec(), trained: (0..ids.len()).map(|at| at >= prompt).collect(), row: 1 }
    }

    #[test]
    fn chosen_rows_stand_before_the_rejected() {
        let pair = |a: &[u32], b: &[u32]| Pair { chosen: example(a, 2), rejected: example(b, 2) };
        let pairs = [pair(&[1, 2, 3], &[1, 2, 4, 5]), pair(&[6, 7, 8, 9, 10], &[6, 7, 11])];
        let batch = PairBatch::new(&[&pairs[0], &pairs[1]]);
        assert_eq!((batch.pairs, batch.batch.rows, batch.batch.columns), (2, 4, 4));
        assert_eq!(batch.batch.inputs, [1, 2, 0, 0, 6, 7, 8, 9, 1, 2, 4, 0, 6, 7, 0, 0]);
        let mask: Vec<u8> = batch.batch.mask.iter().map(|&trained| u8::from(trained)).collect();
        assert_eq!(mask, [0, 1, 0, 0, 0, 1, 1, 1, 0, 1, 1, 0, 0, 1, 0, 0]);
        assert_eq!((batch.chosen_tokens(false), batch.chosen_tokens(true), batch.tokens()), (4, 6, 15));
    }
}
