//! What a run learns from: the seam between the loop and what is trained.
//!
//! Pretraining is one objective ([`crate::pretraining`]); `post-train` has the others. The loop knows steps, learning
//! rate, checkpoints and events; an objective knows its data and its loss.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Tensor;
use fornax_base::files::FileSystem;
use fornax_data::batches::Cursor;
use fornax_data::tokenizer::Tokenizer;
use fornax_model::Decoder;

use crate::error::TrainError;

/// What an objective says of one micro-batch: the summed loss (1, on the autodiff device) and the weight it
/// is a sum over. Dividing by the weights of the whole step, not of each micro-batch, makes micro-batches of
/// unequal masks count rightly.
#[derive(Debug)]
pub struct LossTerm {
    /// Sum of the weighted losses.
    pub loss_sum: Tensor<1>,
    /// The part of `loss_sum` that is trained on but not reported (1), without a gradient: z-loss.
    pub unreported: Option<Tensor<1>>,
    /// Target tokens for language-model losses, pairs for preference losses.
    pub weight: f64,
    /// Numbers to report beside the loss.
    pub metrics: Vec<Metric>,
}

impl LossTerm {
    /// A loss with nothing to report beside it.
    pub fn new(loss_sum: Tensor<1>, weight: f64) -> Self {
        Self { loss_sum, unreported: None, weight, metrics: Vec::new() }
    }
}

/// A number reported beside the loss, as a sum (1, in f32, without a gradient) and what it is divided by; both are
/// added up over the micro-batches of a step.
#[derive(Debug, Clone)]
pub struct Metric {
    /// Its name, as TRL spells it.
    pub name: &'static str,
    /// The sum.
    pub sum: Tensor<1>,
    /// What it is divided by.
    pub weight: f64,
}

/// Reported numbers by name.
pub type Metrics = BTreeMap<String, f64>;

/// The micro-batches of a step are ready.
#[derive(Debug, Clone, Default)]
pub struct Ready {
    /// How many there are.
    pub micro_batches: usize,
    /// Where the data stands behind them.
    pub cursor: Cursor,
    /// Tokens in them, without padding.
    pub tokens: u64,
    /// What is known of the step before its loss, for example the rewards of its samples.
    pub metrics: Metrics,
}

/// Numbers over held-out data.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evaluation {
    /// Mean loss.
    pub loss: f64,
    /// The same in bits per byte of text, where the loss is a language model's.
    pub bits_per_byte: Option<f64>,
    /// What the loss is a mean over: tokens or pairs.
    pub weight: u64,
    /// The objective's other numbers, by TRL's names without the prefix `eval_`.
    pub metrics: Metrics,
}

/// What a run learns from and lowers.
pub trait Objective {
    /// Makes ready the micro-batches of step `step` (counting from 0), whose data begins at `cursor`. The model, on
    /// the autodiff device, is there for objectives that sample from it.
    ///
    /// # Errors
    /// When the data cannot be had.
    fn prepare(&mut self, decoder: &Decoder, step: u64, cursor: Cursor) -> Result<Ready, TrainError>;

    /// The loss of one of the micro-batches that are ready.
    ///
    /// # Errors
    /// When the device fails.
    fn term(&self, decoder: &Decoder, micro_batch: usize) -> Result<LossTerm, TrainError>;

    /// Measures held-out data with `plain`, which is off the autodiff device; `None` where none is held out.
    ///
    /// # Errors
    /// When the device fails.
    fn evaluate(&mut self, plain: &Decoder) -> Result<Option<Evaluation>, TrainError>;
}

impl<O: Objective + ?Sized> Objective for Box<O> {
    fn prepare(&mut self, decoder: &Decoder, step: u64, cursor: Cursor) -> Result<Ready, TrainError> {
        (**self).prepare(decoder, step, cursor)
    }

    fn term(&self, decoder: &Decoder, micro_batch: usize) -> Result<LossTerm, TrainError> {
        (**self).term(decoder, micro_batch)
    }

    fn evaluate(&mut self, plain: &Decoder) -> Result<Option<Evaluation>, TrainError> {
        (**self).evaluate(plain)
    }
}

/// What a run leaves, and how its model is spoken to: a whole model with its tokenizer, or an adapter.
pub trait Product {
    /// The tokenizer of the run.
    fn tokenizer(&self) -> &Tokenizer;

    /// The ids that a prompt of `eval.prompts` becomes.
    ///
    /// # Errors
    /// When the text cannot be encoded.
    fn prompt_ids(&self, prompt: &str) -> Result<Vec<u32>, TrainError>;

    /// Ids that end a sample.
    fn stop_ids(&self, decoder: &Decoder) -> Vec<u32>;

    /// Name of the folder inside the run folder that [`Product::export`] fills.
    fn folder(&self) -> &'static str;

    /// Writes what was trained into `folder`, which exists.
    ///
    /// # Errors
    /// When a file cannot be written.
    fn export(&self, fs: &dyn FileSystem, decoder: &Decoder, folder: &Path) -> Result<(), TrainError>;
}
