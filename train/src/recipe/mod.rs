//! The training recipe: what one run does, as one TOML file
//!
//! Knows keys, defaults and which keys contradict each other. Knows nothing of tensors, files on
//! disk or the loop; reading the file and "did you mean" belong to `fornax_base::recipe`.

mod canonical;
mod check;
mod error;
mod optimizer;
mod resume;
mod settings;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::schedule::Schedule;

pub use fornax_data::batches::Packing;
pub use fornax_data::clean::CleanOptions;
use fornax_data::hub::is_hub;
use fornax_data::sources::ENDINGS;

pub(crate) use check::NO_TOKENIZER;
pub use check::{no_effect, number, within};
pub use error::RecipeCheckError;
pub use optimizer::{AdjustLr, NewtonSchulzPrecision, OptimizerKind, OptimizerRecipe};
pub use resume::{ResumeChange, compare, compare_for_resume};
pub use settings::{Settings, hash_of};

/// A whole training run: `train --recipe FILE` reads it, the run folder stores it resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainRecipe {
    /// Seed of every random choice of the run; all of them are functions of (seed, step, purpose).
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// Free text for people; changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What is trained.
    pub model: ModelRecipe,
    /// How text becomes tokens; absent when `model.init` brings its own tokenizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<TokenizerRecipe>,
    /// The text trained on.
    pub data: DataRecipe,
    /// Length and size of the run.
    pub train: StepsRecipe,
    /// The rule of the updates.
    pub optimizer: OptimizerRecipe,
    /// The learning rate over the run.
    pub schedule: ScheduleRecipe,
    /// Validation and samples while training.
    #[serde(default)]
    pub eval: EvalRecipe,
    /// When checkpoints are saved and which are kept.
    #[serde(default)]
    pub checkpoint: CheckpointRecipe,
    /// How often a step is reported.
    #[serde(default)]
    pub log: LogRecipe,
}

/// `[model]`: either `init`, or a shape of the llama family.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRecipe {
    /// Model folder whose weights, shape and tokenizer the run continues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// Number of decoder blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_layers: Option<usize>,
    /// Number of query heads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_heads: Option<usize>,
    /// Number of key and value heads; default `n_heads`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_kv_heads: Option<usize>,
    /// Width of one head; default `width / n_heads`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// Width of the residual stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// Inner width of the SwiGLU block; default 8/3 of `width`, rounded up to a multiple of 32 as
    /// llama2.c does, so that quantization groups of 32 fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ffn_width: Option<usize>,
    /// One parameter for embedding and head; default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tied: Option<bool>,
    /// Base of the rotary embedding's wavelengths; default 10,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    /// Epsilon of the RMS norms; default 1e-5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub norm_eps: Option<f64>,
    /// Logits become `cap * tanh(logits / cap)` (Gemma 2, arXiv:2408.00118); default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logit_softcap: Option<f64>,
}

impl ModelRecipe {
    /// The shape of a new model with every default filled in; `None` when `init` brings it.
    ///
    /// # Errors
    /// A missing or impossible shape key, as [`TrainRecipe::check`] reports it.
    pub fn shape(&self) -> Result<Option<ModelShape>, RecipeCheckError> {
        check::model_shape(self)
    }
}

/// The shape of a new model, every default filled in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelShape {
    /// Number of decoder blocks.
    pub n_layers: usize,
    /// Number of query heads.
    pub n_heads: usize,
    /// Number of key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of one head; even.
    pub head_dim: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Inner width of the SwiGLU block.
    pub ffn_width: usize,
    /// One parameter for embedding and head.
    pub tied: bool,
    /// Base of the rotary embedding's wavelengths.
    pub rope_theta: f64,
    /// Epsilon of the RMS norms.
    pub norm_eps: f64,
    /// Cap of the logits; `None` leaves them as they are.
    pub logit_softcap: Option<f64>,
}

/// `[tokenizer]`: trained on the data, or read from a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerRecipe {
    /// Where the vocabulary comes from.
    pub kind: TokenizerKind,
    /// Number of tokens of a trained byte-level BPE, special tokens included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<usize>,
    /// A `tokenizer.json` or a `.gguf` file, for kind `file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

/// Where a vocabulary comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenizerKind {
    /// Byte-level BPE trained on the training text.
    Bpe,
    /// One token for each character of the text.
    Characters,
    /// A `tokenizer.json` of any model.
    File,
}

/// `[data]`: the text and how it is cut into rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecipe {
    /// `corpus` (the embedded stories), a text, JSON Lines or Parquet file, a folder of them, a dataset of the hub
    /// (`hf:owner/name`), or a folder made by `data prepare`; empty when `mixture` is given.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Field of a JSON line holding the text; default `text` for a `.jsonl` source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_field: Option<String>,
    /// Bytes generated by the embedded corpus; default 8,000,000 for source `corpus`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corpus_bytes: Option<u64>,
    /// Share of the documents held out for validation, in (0, 1).
    #[serde(default = "default_validation_fraction")]
    pub validation_fraction: f64,
    /// How documents become rows.
    #[serde(default)]
    pub packing: Packing,
    /// What is asked of documents before they are encoded.
    #[serde(default, skip_serializing_if = "CleanOptions::is_empty")]
    pub clean: CleanOptions,
    /// Several sources with their weights, instead of `source`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mixture: Vec<MixtureRecipe>,
}

impl DataRecipe {
    /// Whether text comes from the embedded corpus.
    pub fn is_corpus(&self) -> bool {
        self.source == CORPUS || self.mixture.iter().any(|part| part.source == CORPUS)
    }

    /// Whether one of the sources may be a folder of `data prepare`: it is neither the corpus, nor of the hub, nor
    /// named as a file of text.
    pub(crate) fn may_be_prepared(&self) -> bool {
        let is_text =
            |name: &str| name == CORPUS || is_hub(name) || ENDINGS.iter().any(|ending| name.ends_with(ending));
        std::iter::once(&self.source)
            .filter(|source| !source.is_empty())
            .chain(self.mixture.iter().map(|part| &part.source))
            .any(|source| !is_text(source))
    }
}

/// The name of the embedded corpus among sources.
pub const CORPUS: &str = "corpus";

/// `[[data.mixture]]`: one of several sources.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixtureRecipe {
    /// As `data.source`.
    pub source: String,
    /// Its share of the tokens trained on, relative to the other weights.
    pub weight: f64,
    /// As `data.text_field`, for this source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_field: Option<String>,
}

/// `[train]`: length and size of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepsRecipe {
    /// Optimizer steps of the whole run.
    pub steps: u64,
    /// Tokens in one row.
    pub context: usize,
    /// Rows in one optimizer step.
    pub batch: usize,
    /// Rows in one forward pass; divides `batch`; default `batch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<usize>,
    /// Compute precision of the projections; parameters stay f32.
    #[serde(default)]
    pub precision: Precision,
    /// Coefficient of `log(Z)^2` in the loss that is trained on (PaLM, arXiv:2204.02311); 0 turns it off.
    /// Reported losses are without it.
    #[serde(default)]
    pub z_loss: f64,
    /// Keep the input of each block alone and run the blocks again in backward: less memory, more time, the
    /// same numbers.
    #[serde(default)]
    pub activation_checkpointing: bool,
}

impl StepsRecipe {
    /// Rows in one forward pass.
    pub fn micro_batch(&self) -> usize {
        self.micro_batch.unwrap_or(self.batch)
    }
}

/// Compute precision of the projections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// bfloat16: the exponent range of f32.
    Bf16,
    /// IEEE half precision.
    F16,
}

/// `[schedule]`: the learning rate over the run; see [`Schedule`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleRecipe {
    /// Form of the curve after warm-up.
    pub kind: ScheduleKind,
    /// Steps of linear warm-up.
    #[serde(default)]
    pub warmup_steps: u64,
    /// Last learning rate as a share of the peak; default 0.1, not for kind `constant`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_lr_fraction: Option<f64>,
    /// Share of the steps in which the rate falls, for kind `wsd`; default 0.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay_fraction: Option<f64>,
}

/// Form of the learning rate after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Half a cosine from the peak to the final rate.
    Cosine,
    /// Warm-up, stable, decay: constant, then a linear fall over the last `decay_fraction`.
    Wsd,
    /// A straight line from the peak to the final rate.
    Linear,
    /// The peak rate to the end.
    Constant,
}

/// `[eval]`: validation and samples while training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvalRecipe {
    /// Steps between validations; 0 turns them off.
    pub every: u64,
    /// Tokens of the fixed validation slice.
    pub tokens: u64,
    /// Steps between samples; 0 turns them off.
    pub sample_every: u64,
    /// Tokens generated for each prompt.
    pub sample_tokens: usize,
    /// Fixed prompts sampled from.
    pub prompts: Vec<String>,
    /// Sampling temperature; 0 is greedy.
    pub temperature: f64,
}

impl Default for EvalRecipe {
    fn default() -> Self {
        EvalRecipe {
            every: 250,
            tokens: 16_384,
            sample_every: 0,
            sample_tokens: 64,
            prompts: Vec::new(),
            temperature: 0.8,
        }
    }
}

/// `[checkpoint]`: when checkpoints are saved and which are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointRecipe {
    /// Steps between checkpoints; one is always saved at the end.
    pub every: u64,
    /// Newest checkpoints kept; at least 2, since the newest may be the one a crash damaged
    /// (torchtitan refuses 1 for the same reason).
    pub keep_last: usize,
    /// Also keep the checkpoint with the lowest validation loss measured at its own step.
    pub keep_best: bool,
}

impl Default for CheckpointRecipe {
    fn default() -> Self {
        CheckpointRecipe { every: 500, keep_last: 2, keep_best: false }
    }
}

/// `[log]`: how often a step is reported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogRecipe {
    /// Steps between step events.
    pub every: u64,
    /// Also write the numbers as TensorBoard event files, in `tensorboard/` of the run folder.
    pub tensorboard: bool,
}

impl Default for LogRecipe {
    fn default() -> Self {
        LogRecipe { every: 1, tensorboard: false }
    }
}

impl TrainRecipe {
    /// Checks every value and every pair of keys that could contradict each other.
    ///
    /// # Errors
    /// The fault met, in the order of the file's sections, with both numbers in its sentence.
    pub fn check(&self) -> Result<(), RecipeCheckError> {
        check::check(self)
    }

    /// The shape of a new model with every default filled in; `None` when `model.init` brings it.
    ///
    /// # Errors
    /// A missing or impossible shape key, as [`TrainRecipe::check`] reports it.
    pub fn model_shape(&self) -> Result<Option<ModelShape>, RecipeCheckError> {
        self.model.shape()
    }

    /// The sections that the loop reads.
    pub fn settings(&self) -> Settings {
        Settings {
            seed: self.seed,
            train: self.train.clone(),
            optimizer: self.optimizer.clone(),
            schedule: self.schedule.clone(),
            eval: self.eval.clone(),
            checkpoint: self.checkpoint.clone(),
            log: self.log.clone(),
        }
    }

    /// The learning-rate schedule of this run.
    pub fn schedule(&self) -> Schedule {
        self.settings().schedule()
    }

    /// The same recipe with every default that depends on another key written out.
    ///
    /// # Errors
    /// As [`TrainRecipe::check`].
    pub fn resolved(&self) -> Result<TrainRecipe, RecipeCheckError> {
        canonical::resolve(self)
    }

    /// The resolved recipe as TOML, sections in the order of [`TrainRecipe`]; loading it again
    /// gives an equal recipe.
    ///
    /// # Errors
    /// As [`TrainRecipe::check`].
    pub fn resolved_toml(&self) -> Result<String, RecipeCheckError> {
        canonical::to_toml(&self.resolved()?)
    }

    /// SHA-256, as 64 hexadecimal digits, of the resolved recipe as JSON with sorted keys.
    ///
    /// # Errors
    /// As [`TrainRecipe::check`].
    pub fn hash(&self) -> Result<String, RecipeCheckError> {
        Ok(hash_of(&self.resolved()?))
    }
}

const DEFAULT_FINAL_FRACTION: f64 = 0.1;
const DEFAULT_DECAY_FRACTION: f64 = 0.2;
const DEFAULT_CORPUS_BYTES: u64 = 8_000_000;

fn default_seed() -> u64 {
    1337
}

/// Share of the documents held out where a recipe does not say.
pub(crate) const DEFAULT_VALIDATION_FRACTION: f64 = 0.1;

fn default_validation_fraction() -> f64 {
    DEFAULT_VALIDATION_FRACTION
}

#[cfg(test)]
mod tests;
