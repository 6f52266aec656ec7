//! Supervised fine-tuning: cross-entropy of the trained tokens, over all of the step.

use fornax_data::batches::{Batch, Cursor};
use fornax_data::example_batches::ExampleBatches;
use fornax_model::Decoder;
use fornax_train::TrainError;
use fornax_train::objective::{Evaluation, LossTerm, Metrics, Objective, Ready};
use fornax_train::step::{layout, next_token, tokens};

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
        Ok(next_token(decoder, &self.ready[micro_batch]))
    }

    fn evaluate(&mut self, plain: &Decoder) -> Result<Option<Evaluation>, TrainError> {
        language_model_loss(plain, &self.held_out)
    }
}

/// Inputs of a batch that are no padding: up to the last target of each row that counts.
pub(crate) fn inputs(batch: &Batch) -> u64 {
    let filled = |row: &[bool]| row.iter().rposition(|trained| *trained).map_or(0, |last| last as u64 + 1);
    batch.mask.chunks(batch.columns.max(1)).map(filled).sum()
}

/// Loss and accuracy of the trained tokens of `batches`; `None` where there are none.
pub(crate) fn language_model_loss(plain: &Decoder, batches: &[Batch]) -> Result<Option<Evaluation>, TrainError> {
    let (mut nats, mut n) = (0.0, 0u64);
    let device = plain.device();
    for batch in batches {
        let hidden = plain.forward(tokens(&batch.inputs, batch, &device), &layout(batch, &device), None);
        let nll = plain.token_nll(hidden, tokens(&batch.targets, batch, &device));
        let nll = nll.try_into_vec_as::<f32>().map_err(TrainError::device)?;
        for (nll, _) in nll.iter().zip(&batch.mask).filter(|(_, trained)| **trained) {
            nats += f64::from(*nll);
            n += 1;
        }
    }
    let evaluation =
        Evaluation { loss: nats / n.max(1) as f64, bits_per_byte: None, weight: n, metrics: Metrics::new() };
    Ok((n > 0).then_some(evaluation))
}
