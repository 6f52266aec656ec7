//! Pairs as something a run learns from.

use fornax_data::batches::Cursor;
use fornax_data::examples::Pair;
use fornax_model::Decoder;
use fornax_train::TrainError;
use fornax_train::objective::{Evaluation, LossTerm, Metrics, Objective, Ready};
use fornax_train::step::Reported;

use super::{Counts, PairLoss};
use crate::accuracy::wilson;
use crate::dpo::Logps;
use crate::order::{Cut, draw};
use crate::pairs::PairBatch;
use crate::reference::{Reference, ReferenceLogps, on_device};

/// Preferences of pairs, by any of [`PairLoss`].
pub struct PairObjective {
    loss: PairLoss,
    train: Vec<Pair>,
    held_out: Vec<Pair>,
    reference: Option<PairReference>,
    /// What a reference model said of the held-out pairs; empty until it was asked.
    held_out_logps: Vec<[f32; 2]>,
    /// Pairs of one micro-batch.
    rows: usize,
    micro_batches: usize,
    seed: u64,
    ready: Vec<Drawn>,
    counts: Counts,
}

/// What the policy is measured against.
pub enum PairReference {
    /// A model, asked for every micro-batch.
    Model(Reference),
    /// Its log-probabilities of every pair.
    Computed(ReferenceLogps),
}

/// A micro-batch, and which pairs of the rows it holds.
struct Drawn {
    batch: PairBatch,
    pairs: Vec<usize>,
}

impl PairObjective {
    /// Learns from `train`, measures on `held_out`, against `reference` where the loss wants one.
    ///
    /// # Panics
    /// When there is no pair to train on, or the loss wants a reference and there is none.
    pub fn new(
        loss: PairLoss,
        train: Vec<Pair>,
        held_out: Vec<Pair>,
        reference: Option<PairReference>,
        cut: Cut,
    ) -> Self {
        assert!(!train.is_empty(), "there is no pair to train on");
        assert!(reference.is_some() || !loss.wants_reference(), "{loss:?} wants a reference");
        let Cut { rows, micro_batches, seed } = cut;
        Self {
            loss,
            train,
            held_out,
            reference,
            held_out_logps: Vec::new(),
            rows,
            micro_batches,
            seed,
            ready: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// What the reference says of the pairs of a micro-batch.
    fn against(&self, policy: &Decoder, drawn: &Drawn) -> Option<Logps> {
        Some(match self.reference.as_ref()? {
            PairReference::Model(reference) => {
                drawn.batch.score(&reference.model(policy), false).logps().detached()
            }
            PairReference::Computed(logps) => drawn.of(&logps.train, policy),
        })
    }

    /// What the reference says of the held-out pairs, which is computed once; none where the loss wants none.
    fn held_out_reference(&mut self, plain: &Decoder) -> Result<&[[f32; 2]], TrainError> {
        let model = match &self.reference {
            None => return Ok(&[]),
            Some(PairReference::Computed(logps)) => return Ok(&logps.held_out),
            Some(PairReference::Model(reference)) => reference.model(plain),
        };
        if self.held_out_logps.is_empty() {
            self.held_out_logps = reference_logps(&model, &self.held_out, self.rows)?;
        }
        Ok(&self.held_out_logps)
    }
}

impl Objective for PairObjective {
    fn prepare(&mut self, _: &Decoder, _: u64, cursor: Cursor) -> Result<Ready, TrainError> {
        let (pairs, after) = draw(self.train.len(), self.rows * self.micro_batches, cursor, self.seed);
        self.ready = pairs.chunks(self.rows).map(|pairs| Drawn::new(&self.train, pairs.to_vec())).collect();
        self.counts = Counts::of(&self.loss, self.ready.iter().map(|drawn| &drawn.batch));
        let tokens = self.ready.iter().map(|drawn| drawn.batch.tokens()).sum();
        Ok(Ready { micro_batches: self.ready.len(), cursor: after, tokens, metrics: Metrics::new() })
    }

    fn term(&self, decoder: &Decoder, micro_batch: usize) -> Result<LossTerm, TrainError> {
        let drawn = &self.ready[micro_batch];
        let reference = self.against(decoder, drawn);
        Ok(self.loss.term(decoder, &drawn.batch, reference, self.counts))
    }

    fn evaluate(&mut self, plain: &Decoder) -> Result<Option<Evaluation>, TrainError> {
        if self.held_out.is_empty() {
            return Ok(None);
        }
        let reference = self.held_out_reference(plain)?.to_vec();
        let all = in_order(&self.held_out, self.rows);
        let counts = Counts::of(&self.loss, all.iter().map(|drawn| &drawn.batch));
        let (mut sum, mut reported) = (0.0, Reported::default());
        for drawn in &all {
            let reference = (!reference.is_empty()).then(|| drawn.of(&reference, plain));
            let term = self.loss.term(plain, &drawn.batch, reference, counts);
            sum += f64::from(term.loss_sum.try_into_scalar::<f32>().map_err(TrainError::device)?);
            reported.add(term.metrics)?;
        }
        let weight = self.held_out.len() as u64;
        let (loss, mut metrics) = (sum / weight as f64, reported.means());
        if let Some(accuracy) = metrics.get("rewards/accuracies") {
            let (low, high) = wilson((accuracy * weight as f64).round() as u64, weight);
            metrics.insert("rewards/accuracies_low".to_owned(), low);
            metrics.insert("rewards/accuracies_high".to_owned(), high);
        }
        Ok(Some(Evaluation { loss, bits_per_byte: None, weight, metrics }))
    }
}

impl Drawn {
    fn new(all: &[Pair], pairs: Vec<usize>) -> Drawn {
        let picked: Vec<&Pair> = pairs.iter().map(|&pair| &all[pair]).collect();
        Drawn { batch: PairBatch::new(&picked), pairs }
    }

    /// The numbers of these pairs among those of all.
    fn of(&self, all: &[[f32; 2]], policy: &Decoder) -> Logps {
        let pairs: Vec<[f32; 2]> = self.pairs.iter().map(|&pair| all[pair]).collect();
        on_device(&pairs, &policy.device())
    }
}

/// All pairs in their order, `rows` at a time.
fn in_order(pairs: &[Pair], rows: usize) -> Vec<Drawn> {
    let numbers: Vec<usize> = (0..pairs.len()).collect();
    numbers.chunks(rows.max(1)).map(|chunk| Drawn::new(pairs, chunk.to_vec())).collect()
}

/// Log-probabilities that `reference` (off the autodiff device) gives every pair, `rows` at a time.
///
/// # Errors
/// When the device fails.
pub fn reference_logps(reference: &Decoder, pairs: &[Pair], rows: usize) -> Result<Vec<[f32; 2]>, TrainError> {
    let mut all = Vec::with_capacity(pairs.len());
    for drawn in in_order(pairs, rows) {
        let logps = drawn.batch.score(reference, false).logps();
        let side = |x: burn::tensor::Tensor<1>| x.try_into_vec_as::<f32>().map_err(TrainError::device);
        let (chosen, rejected) = (side(logps.chosen)?, side(logps.rejected)?);
        all.extend(chosen.into_iter().zip(rejected).map(|(chosen, rejected)| [chosen, rejected]));
    }
    Ok(all)
}
