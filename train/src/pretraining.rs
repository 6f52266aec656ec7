//! Pretraining: next tokens of text, from shards.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::DType;
use fornax_base::files::FileSystem;
use fornax_data::batches::{Batch, Batches, Cursor};
use fornax_data::mixture::{Mixture, Part};
use fornax_data::prefetch::Prefetch;
use fornax_data::tokenizer::Tokenizer;
use fornax_model::Decoder;
use fornax_model::weights::save as save_model;

use crate::error::TrainError;
use crate::objective::{Evaluation, LossTerm, Metrics, Objective, Product, Ready};
use crate::recipe::TrainRecipe;
use crate::run::MODEL_FOLDER;
use crate::step::next_token_with_z;
use crate::validation;

/// Micro-batches made ahead of the training thread.
const PREFETCH: usize = 4;
/// Largest file of an exported model.
pub const SHARD_BYTES: u64 = 5_000_000_000;

/// The next-token objective over the shards of a run.
pub struct Pretraining {
    tokenizer: Arc<Tokenizer>,
    dataset: Mixture,
    batches: Batches,
    prefetch: Option<Prefetch>,
    validation: Vec<Batch>,
    micro_batches: usize,
    z_loss: f64,
    ready: Vec<Batch>,
}

/// A source of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceShare {
    /// Its name.
    pub name: String,
    /// Its share of the tokens trained on.
    pub share: f64,
    /// Its training tokens.
    pub tokens: u64,
    /// Passes over them in the whole run.
    pub passes: f64,
}

impl Pretraining {
    pub(crate) fn new(
        recipe: &TrainRecipe,
        tokenizer: Arc<Tokenizer>,
        dataset: Mixture,
        validation: Vec<Batch>,
    ) -> Result<Self, TrainError> {
        let (rows, context) = (recipe.train.micro_batch(), recipe.train.context);
        let batches = Batches::mixed(dataset.train(), rows, context, recipe.data.packing, recipe.seed)?;
        Ok(Self {
            tokenizer,
            dataset,
            batches,
            prefetch: None,
            validation,
            micro_batches: recipe.train.batch / rows,
            z_loss: recipe.train.z_loss,
            ready: Vec::new(),
        })
    }

    /// The micro-batches of the present step.
    pub(crate) fn ready(&self) -> &[Batch] {
        &self.ready
    }

    /// For each source its share, its tokens, and how often a run of `rows` rows passes over them.
    pub(crate) fn sources(&self, rows: u64) -> Vec<SourceShare> {
        let parts = self.dataset.parts();
        let all: f64 = parts.iter().map(|part| part.weight).sum();
        let share = |(part, passes): (&Part, f64)| SourceShare {
            name: part.name.clone(),
            share: part.weight / all,
            tokens: part.dataset.manifest().train.tokens,
            passes,
        };
        parts.iter().zip(self.batches.passes(rows)).map(share).collect()
    }
}

impl Objective for Pretraining {
    fn prepare(&mut self, _: &Decoder, _: u64, cursor: Cursor) -> Result<Ready, TrainError> {
        // The thread goes on from where the loop began; the loop takes every batch, so their cursors agree.
        let prefetch = match &mut self.prefetch {
            Some(prefetch) => prefetch,
            none => none.insert(Prefetch::start(self.batches.clone(), cursor, PREFETCH)?),
        };
        self.ready.clear();
        let mut after = cursor;
        for _ in 0..self.micro_batches {
            let (batch, cursor) = prefetch.recv()?;
            self.ready.push(batch);
            after = cursor;
        }
        let tokens = self.ready.iter().map(|batch| (batch.rows * batch.columns) as u64).sum();
        Ok(Ready { micro_batches: self.ready.len(), cursor: after, tokens, metrics: Metrics::new() })
    }

    fn term(&self, decoder: &Decoder, micro_batch: usize) -> Result<LossTerm, TrainError> {
        Ok(next_token_with_z(decoder, &self.ready[micro_batch], self.z_loss))
    }

    fn evaluate(&mut self, plain: &Decoder) -> Result<Option<Evaluation>, TrainError> {
        let measured = validation::measure(plain, &self.validation, &self.tokenizer)?;
        let validation::Measured { loss, bits_per_byte, tokens } = measured;
        Ok(Some(Evaluation { loss, bits_per_byte: Some(bits_per_byte), weight: tokens, metrics: Metrics::new() }))
    }
}

/// A whole model: what pretraining leaves.
pub struct WholeModel {
    tokenizer: Arc<Tokenizer>,
}

impl WholeModel {
    /// The model of this tokenizer.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer }
    }
}

impl Product for WholeModel {
    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn prompt_ids(&self, prompt: &str) -> Result<Vec<u32>, TrainError> {
        Ok(self.tokenizer.encode(prompt, true)?)
    }

    fn stop_ids(&self, decoder: &Decoder) -> Vec<u32> {
        decoder.config().eos_ids.clone()
    }

    fn folder(&self) -> &'static str {
        MODEL_FOLDER
    }

    fn export(&self, fs: &dyn FileSystem, decoder: &Decoder, folder: &Path) -> Result<(), TrainError> {
        self.tokenizer.save(fs, folder)?;
        Ok(save_model(fs, decoder, DType::F32, SHARD_BYTES, folder)?)
    }
}
