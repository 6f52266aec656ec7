//! Supervised fine-tuning: cross-entropy of the trained tokens, over all of the step.

use burn::tensor::Tensor;
use fornax_data::batches::{Batch, Cursor};
use fornax_data::example_batches::ExampleBatches;
use fornax_model::Decoder;
use fornax_train::TrainError;
use fornax_train::objective::{Evaluation, LossTerm, Metric, Metrics, Objective, Ready};
use fornax_train::step::Reported;

use crate::logps::{hidden_at, last_hidden, targets_at, trained_places};

/// Supervised fine-tuning on examples.
pub struct Sft {
    batches: ExampleBatches,
    held_out: Vec<Batch>,
    micro_batches: usize,
    ready: Vec<Batch>,
}

impl Sft {
    /// Trains on `batches`, `micro_batches` of them a step, and measures on `held_out`.
    pub fn new(batches: ExampleBatches, held_out: Vec<Batch>, micro_batches: usize) -> Self {
        Self { batches, held_out, micro_batches, ready: Vec::new() }
    }
}

impl Objective for Sft {
    fn prepare(&mut self, _: &Decoder, _: u64, cursor: Cursor) -> Result<Ready, TrainError> {
        let mut after = cursor;
        self.ready = (0..self.micro_batches).map(|_| self.batches.next_from(&mut after)).collect();
        let tokens = self.ready.iter().map(inputs).sum();
        Ok(Ready { micro_batches: self.ready.len(), cursor: after, tokens, metrics: Metrics::new() })
    }

    fn term(&self, decoder: &Decoder, micro_batch: usize) -> Result<LossTerm, TrainError> {
        Ok(trained_tokens(decoder, &self.ready[micro_batch]))
    }

    fn evaluate(&mut self, plain: &Decoder) -> Result<Option<Evaluation>, TrainError> {
        let (mut reported, mut nats, mut n) = (Reported::default(), 0.0, 0u64);
        for batch in &self.held_out {
            let term = trained_tokens(plain, batch);
            let loss = term.loss_sum.try_into_vec_as::<f32>().map_err(TrainError::device)?;
            nats += loss.iter().copied().map(f64::from).sum::<f64>();
            n += term.weight as u64;
            reported.add(term.metrics)?;
        }
        let loss = nats / n.max(1) as f64;
        let evaluation = Evaluation { loss, bits_per_byte: None, weight: n, metrics: reported.means() };
        Ok((n > 0).then_some(evaluation))
    }
}

/// Cross-entropy of the trained targets, with TRL's `entropy` and `mean_token_accuracy` of them. The others, often most
/// of a batch, never reach the head.
fn trained_tokens(decoder: &Decoder, batch: &Batch) -> LossTerm {
    let mut places = trained_places(batch);
    let n = places.len();
    if places.is_empty() {
        // A product over no rows is not every backend's thing; this row counts nothing.
        places.push(0);
    }
    let hidden_nc = hidden_at(last_hidden(decoder, batch), &places);
    let scores = decoder.token_scores(hidden_nc, targets_at(batch, &places, &decoder.device()));
    let counted = if n == 0 { 0.0 } else { 1.0 };
    let metric = |name, x_n: Tensor<1>| Metric { name, sum: x_n.sum() * counted, weight: n as f64 };
    let metrics = vec![metric("entropy", scores.entropy_n), metric("mean_token_accuracy", scores.greedy_n)];
    LossTerm { metrics, ..LossTerm::new(scores.nll_n.sum() * counted, n as f64) }
}

/// Inputs of a batch that are no padding: up to the last target of each row that counts.
pub(crate) fn inputs(batch: &Batch) -> u64 {
    let filled = |row: &[bool]| row.iter().rposition(|trained| *trained).map_or(0, |last| last as u64 + 1);
    batch.mask.chunks(batch.columns.max(1)).map(filled).sum()
}
