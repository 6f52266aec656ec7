//! Can this recipe learn one batch by heart? A model that cannot will not learn a text either, and this shows it
//! in a minute (Karpathy 2019, "A Recipe for Training Neural Networks").

use std::ops::ControlFlow;
use std::path::Path;

use fornax_data::batches::{Batches, Cursor};
use serde::Serialize;

use crate::error::TrainError;
use crate::gate::GradientGate;
use crate::optimizer::Optimizer;
use crate::recipe::TrainRecipe;
use crate::run::Surroundings;
use crate::setup::{self, Preparing};
use crate::step::{BatchLoss, train_step};

/// Steps in which the rate rises to the recipe's peak, where it stays.
const WARMUP: u64 = 10;

/// When to end.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Steps at most.
    pub steps: u64,
    /// The loss, in nats per target, below which the batch counts as learned.
    pub target_loss: f64,
}

/// One step on the batch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct OverfitStep {
    /// Steps done.
    pub step: u64,
    /// Loss before the update, nats per target.
    pub loss: f64,
    /// Learning rate.
    pub lr: f64,
    /// Norm of all gradients before clipping.
    pub grad_norm: f64,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Overfit {
    /// Whether the loss fell below the target.
    pub reached: bool,
    /// Steps done.
    pub steps: u64,
    /// Rows of the batch.
    pub rows: usize,
    /// Targets of the batch that count.
    pub targets: usize,
    /// Each loss, in order.
    #[serde(skip)]
    pub losses: Vec<f64>,
    /// The last loss.
    pub loss: f64,
    /// The loss asked for.
    pub target_loss: f64,
}

/// Trains a new model of `recipe` on the run's opening micro-batch alone, again and again, until its loss is below
/// `limits.target_loss`. The learning rate is the recipe's peak after a short warm-up. Tokenizer and shards are made in
/// `scratch`, which belongs to the caller; nothing is validated, and no checkpoint is saved.
///
/// # Errors
/// Anything of [`TrainError`] that a run can meet.
pub fn overfit(
    around: &Surroundings,
    scratch: &Path,
    recipe: &TrainRecipe,
    loss: BatchLoss<'_>,
    limits: Limits,
    progress: &mut dyn FnMut(Preparing),
    on_step: &mut dyn FnMut(&OverfitStep) -> ControlFlow<()>,
) -> Result<Overfit, TrainError> {
    let recipe = recipe.resolved()?;
    around.check_precision(&recipe.settings())?;
    let sources = setup::sources(&recipe, progress)?;
    let tokenizer = setup::new_tokenizer(&recipe, &sources, progress)?;
    setup::config(&recipe, &tokenizer)?;
    let dataset = setup::dataset(&*around.fs, scratch, &recipe, &sources, &tokenizer, progress)?;
    let (rows, context) = (recipe.train.micro_batch(), recipe.train.context);
    let batches = Batches::mixed(dataset.train(), rows, context, recipe.data.packing, recipe.seed)?;
    let batch = [batches.next_from(&mut Cursor::default())];
    let (decoder, _) = setup::decoder(&recipe, &tokenizer, &around.device)?;
    let mut decoder = decoder.trainable(true);
    let (mut optimizer, mut gate) = (Optimizer::new(&recipe.optimizer), GradientGate::default());
    let mut losses = Vec::new();
    for step in 0..limits.steps {
        let lr = recipe.optimizer.lr * ((step + 1) as f64 / WARMUP as f64).min(1.0);
        let clip = recipe.optimizer.clip_norm;
        let report = train_step(&mut decoder, &mut optimizer, &mut gate, loss, &batch, lr, clip)?;
        losses.push(report.loss);
        let seen = OverfitStep { step: step + 1, loss: report.loss, lr, grad_norm: report.grad_norm };
        if on_step(&seen).is_break() || report.loss < limits.target_loss {
            break;
        }
    }
    let loss = losses.last().copied().unwrap_or(f64::NAN);
    Ok(Overfit {
        reached: loss < limits.target_loss,
        steps: losses.len() as u64,
        rows,
        targets: batch[0].n_targets(),
        losses,
        loss,
        target_loss: limits.target_loss,
    })
}

impl Overfit {
    /// What to look at when the loss was not reached.
    pub fn advice(&self) -> &'static str {
        let (Some(&first), Some(&before)) = (self.losses.first(), self.losses.get(self.losses.len() * 3 / 4))
        else {
            return "give it at least one step";
        };
        if self.targets == 0 {
            "every target of the batch is masked: look at data.packing and at the text"
        } else if self.loss < 0.9 * before {
            "the loss is still falling: give it more steps, or a higher optimizer.lr"
        } else if self.loss > 0.9 * first {
            "the loss hardly moves: look at optimizer.lr, tenfold lower and higher, and at the tokens of the batch"
        } else {
            "the loss fell and stays: try a lower optimizer.lr, no weight decay, and a wider model"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(losses: &[f64], targets: usize) -> Overfit {
        let loss = losses.last().copied().unwrap_or(f64::NAN);
        let steps = losses.len() as u64;
        Overfit { reached: false, steps, rows: 1, targets, losses: losses.to_vec(), loss, target_loss: 0.1 }
    }

    #[test]
    fn advice_follows_the_shape_of_the_curve() {
        for (losses, targets, word) in [
            (&[][..], 8, "at least one step"),
            (&[4.0, 3.0, 2.0, 1.5, 1.0], 8, "still falling"),
            (&[4.0, 4.1, 3.9, 4.0, 4.0], 8, "hardly moves"),
            (&[4.0, 1.0, 1.0, 1.0, 1.0], 8, "fell and stays"),
            (&[0.0, 0.0], 0, "masked"),
        ] {
            assert!(ended(losses, targets).advice().contains(word), "{losses:?}");
        }
    }
}
