//! Pairs as what a reward model learns from.
//!
//! Shapes: p pairs, r = 2 p rows, t tokens of the longest, c channels.

use burn::tensor::{Tensor, TensorData};
use fornax_data::batches::Cursor;
use fornax_data::examples::{Example, Pair};
use fornax_model::{Decoder, Layout, token_tensor};
use fornax_train::TrainError;
use fornax_train::objective::{Evaluation, LossTerm, Metric, Metrics, Objective, Ready};
use fornax_train::step::Reported;

use super::RewardRecipe;
use crate::dpo::Logps;
use crate::order::{Cut, draw};
use crate::pairs::{metric, total};

/// A reward model, from pairs; the decoder in training is one ([`Decoder::into_reward_model`]).
pub struct RewardObjective {
    recipe: RewardRecipe,
    train: Vec<Pair>,
    held_out: Vec<Pair>,
    cut: Cut,
    ready: Vec<Texts>,
}

/// The texts of one micro-batch: the chosen ones, then the rejected.
struct Texts {
    /// Row by row, padded on the right.
    ids: Vec<u32>,
    /// Tokens of each row.
    lengths: Vec<usize>,
    columns: usize,
}

impl RewardObjective {
    /// Learns from `train`, measures on `held_out`.
    ///
    /// # Panics
    /// When there is no pair to train on.
    pub fn new(recipe: RewardRecipe, train: Vec<Pair>, held_out: Vec<Pair>, cut: Cut) -> Self {
        assert!(!train.is_empty(), "there is no pair to train on");
        Self { recipe, train, held_out, cut, ready: Vec::new() }
    }

    fn term_of(&self, model: &Decoder, texts: &Texts) -> LossTerm {
        let rewards_r = texts.rewards(model);
        let pairs = texts.lengths.len() / 2;
        let side = |from: usize| rewards_r.clone().slice_dim(0, from..from + pairs);
        let rewards = Logps { chosen: side(0), rejected: side(pairs) };
        let metrics = metrics(&rewards_r, &rewards);
        LossTerm { metrics, ..LossTerm::new(total(self.recipe.losses(&rewards)), pairs as f64) }
    }
}

impl Texts {
    fn new(pairs: &[&Pair]) -> Texts {
        let rows: Vec<&Example> =
            pairs.iter().map(|pair| &pair.chosen).chain(pairs.iter().map(|pair| &pair.rejected)).collect();
        let columns = rows.iter().map(|row| row.ids.len()).max().unwrap_or(1);
        let mut ids = Vec::with_capacity(rows.len() * columns);
        for (number, row) in rows.iter().enumerate() {
            ids.extend_from_slice(&row.ids);
            ids.resize((number + 1) * columns, 0);
        }
        Texts { ids, lengths: rows.iter().map(|row| row.ids.len()).collect(), columns }
    }

    /// What the model says at the last token of each row: r. What fills up a row stands behind it, unseen.
    fn rewards(&self, model: &Decoder) -> Tensor<1> {
        let (r, t, device) = (self.lengths.len(), self.columns, model.device());
        let layout = Layout::contiguous(0, t, &device);
        let hidden_rtc = model.forward(token_tensor(&self.ids, r, &device), &layout, None);
        let c = hidden_rtc.dims()[2];
        let last: Vec<i32> =
            self.lengths.iter().enumerate().map(|(row, &n)| (row * t + n.saturating_sub(1)) as i32).collect();
        let last_r = Tensor::from_data(TensorData::new(last, [r]), &device);
        model.rewards(hidden_rtc.reshape([r * t, c]).select(0, last_r))
    }

    fn tokens(&self) -> u64 {
        self.lengths.iter().map(|&n| n as u64).sum()
    }
}

impl Objective for RewardObjective {
    fn prepare(&mut self, _: &Decoder, _: u64, cursor: Cursor) -> Result<Ready, TrainError> {
        let (rows, after) = draw(self.train.len(), self.cut.rows * self.cut.micro_batches, cursor, self.cut.seed);
        let picked: Vec<&Pair> = rows.iter().map(|&row| &self.train[row]).collect();
        self.ready = picked.chunks(self.cut.rows).map(Texts::new).collect();
        let tokens = self.ready.iter().map(Texts::tokens).sum();
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
        for pairs in self.held_out.chunks(self.cut.rows) {
            let term = self.term_of(plain, &Texts::new(&pairs.iter().collect::<Vec<_>>()));
            sum += f64::from(term.loss_sum.try_into_scalar::<f32>().map_err(TrainError::device)?);
            reported.add(term.metrics)?;
        }
        let weight = self.held_out.len() as u64;
        let (loss, metrics) = (sum / weight as f64, reported.means());
        Ok(Some(Evaluation { loss, bits_per_byte: None, weight, metrics }))
    }
}

/// TRL's numbers of a batch of rewards. The extremes are those of a micro-batch, averaged over the micro-batches.
fn metrics(rewards_r: &Tensor<1>, rewards: &Logps) -> Vec<Metric> {
    let [n, pairs] = [rewards_r.dims()[0] as f64, rewards.chosen.dims()[0] as f64];
    let won = rewards.chosen.clone().greater(rewards.rejected.clone()).float();
    vec![
        metric("min_reward", rewards_r.clone().detach().min(), 1.0),
        metric("mean_reward", rewards_r.clone(), n),
        metric("max_reward", rewards_r.clone().detach().max(), 1.0),
        metric("accuracy", won, pairs),
        metric("margin", rewards.chosen.clone() - rewards.rejected.clone(), pairs),
    ]
}
