//! Why a training run cannot start, go on, or end well.

use std::path::PathBuf;

use fornax_base::exit::Exit;
use fornax_base::files::FileError;
use fornax_base::lock::LockError;
use fornax_base::recipe::RecipeError;
use fornax_data::DataError;
use fornax_infer::generate::GenerateError;
use fornax_infer::sampler::SamplerError;
use fornax_model::ConfigError;
use fornax_model::weights::WeightsError;

use crate::checkpoint::CheckpointError;
use crate::events::EventError;
use crate::gate::GateError;
use crate::recipe::RecipeCheckError;

/// Every failure of a run; [`TrainError::exit`] gives the exit code the contract promises.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The recipe contradicts itself.
    #[error("the recipe cannot be run")]
    Recipe(#[from] RecipeCheckError),
    /// The recipe of a run folder cannot be read.
    #[error(transparent)]
    RecipeFile(#[from] RecipeError),
    /// The model's shape is impossible.
    #[error("the model cannot be built")]
    Config(#[from] ConfigError),
    /// Tokenizer, text or shards.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A model folder cannot be read or written.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A checkpoint cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The event log.
    #[error(transparent)]
    Event(#[from] EventError),
    /// The file system.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another process works in the run folder.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A run is there already.
    #[error("`{folder}` already holds a run")]
    RunExists {
        /// The run folder.
        folder: PathBuf,
    },
    /// Something that only a run makes is there, but no recipe.
    #[error("`{folder}` has no recipe.toml, but holds `{found}`, which a new run would mix with its own")]
    Occupied {
        /// The run folder.
        folder: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// Nothing to resume.
    #[error("`{folder}` is not a run folder: it has no recipe.toml")]
    NotARun {
        /// The folder as given.
        folder: PathBuf,
    },
    /// Checkpoints are there and all of them are damaged.
    #[error("no checkpoint of `{folder}` is whole:{}", skipped.iter().map(|s| format!("\n  {s}")).collect::<String>())]
    AllDamaged {
        /// The run folder.
        folder: PathBuf,
        /// Each with its reason.
        skipped: Vec<String>,
    },
    /// Keys that cannot change between a run and its resume.
    #[error("the recipe of `{folder}` cannot be changed so on resume:{}", changes.iter().map(|c| format!("\n  {c}")).collect::<String>())]
    ResumeRefused {
        /// The run folder.
        folder: PathBuf,
        /// `key: was -> is`.
        changes: Vec<String>,
    },
    /// The optimizer state of a checkpoint does not fit the model.
    #[error("the optimizer state in `{path}` does not fit the model: {message}")]
    OptimizerState {
        /// The checkpoint folder.
        path: PathBuf,
        /// The tensor and both numbers.
        message: String,
    },
    /// The parameters of a verified checkpoint do not fit the model beside it.
    #[error("the checkpoint `{path}` does not fit its model")]
    CheckpointModel {
        /// The checkpoint folder.
        path: PathBuf,
        /// What differs.
        source: WeightsError,
    },
    /// The tokenizer of a run folder is not the one its shards were made with.
    #[error("the tokenizer in `{folder}` has checksum {found}, the shards were made with {expected}")]
    TokenizerDiffers {
        /// The run folder.
        folder: PathBuf,
        /// SHA-256 of its `tokenizer.json`.
        found: String,
        /// SHA-256 in its `dataset.json`.
        expected: String,
    },
    /// Rows longer than the model can hold.
    #[error("train.context ({context}) is longer than the context of `{model}` ({limit})")]
    Context {
        /// Tokens in a row of the recipe.
        context: usize,
        /// The model folder of `model.init`.
        model: PathBuf,
        /// Its `max_position_embeddings`.
        limit: usize,
    },
    /// The device cannot compute in the recipe's precision.
    #[error("`{device}` does not compute in {precision}")]
    Precision {
        /// The device's name.
        device: String,
        /// `train.precision` of the recipe.
        precision: &'static str,
    },
    /// Token ids the model has no embedding for.
    #[error("the tokenizer has {tokenizer} tokens, the model's vocabulary {model}")]
    Vocabulary {
        /// Size of the tokenizer.
        tokenizer: usize,
        /// Size of the model's vocabulary.
        model: usize,
    },
    /// Loss or gradient stopped being a number; no update was applied.
    #[error(
        "the numbers are no longer finite: loss {loss}, gradient norm {grad_norm}, lr {lr}{}",
        parameter.as_ref().map(|name| format!(", gradient of `{name}`")).unwrap_or_default()
    )]
    NotFinite {
        /// Mean loss of the step.
        loss: f64,
        /// Global gradient norm.
        grad_norm: f64,
        /// Learning rate that would have been applied.
        lr: f64,
        /// A parameter whose gradient is not finite.
        parameter: Option<String>,
    },
    /// The same, with where the run stood.
    #[error("step {step} was not applied (batch at epoch {epoch}, window {window}; last checkpoint: {last})")]
    StoppedAt {
        /// The step that was refused, counting from 1.
        step: u64,
        /// Epoch of the batch.
        epoch: u64,
        /// Window of the batch.
        window: u64,
        /// The newest checkpoint, or `none`.
        last: String,
        /// What was not finite.
        source: Box<TrainError>,
    },
    /// The validation loss is not a number although the steps before it were finite.
    #[error("the validation loss at step {step} is {loss}, a finite number is expected")]
    ValidationNotFinite {
        /// Steps done.
        step: u64,
        /// The loss.
        loss: f64,
    },
    /// A key that was decided when a dataset was prepared.
    #[error("`{key}` is given, but `{source_name}` is a prepared dataset, which has it already")]
    Prepared {
        /// The source as the recipe names it.
        source_name: String,
        /// The dotted key.
        key: &'static str,
    },
    /// A parameter that should learn does not.
    #[error("the gradients show that this model cannot be trained so")]
    Gate(#[from] GateError),
    /// Sampling.
    #[error("a sample could not be generated")]
    Generate(#[from] GenerateError),
    /// Sampling options.
    #[error("the sampling options of the recipe are wrong")]
    Sampler(#[from] SamplerError),
    /// The device failed.
    #[error("the device failed: {message}")]
    Device {
        /// The driver's words.
        message: String,
    },
    /// Three saves in a row failed.
    #[error("checkpoints could not be saved {times} times in a row")]
    SavesFailing {
        /// How often.
        times: u32,
        /// The last reason.
        source: Box<TrainError>,
    },
    /// What an objective outside of this crate says.
    #[error("{inner}")]
    Objective {
        /// The exit code.
        exit: Exit,
        /// One action that helps.
        hint: Option<String>,
        /// The failure.
        inner: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The steps are done and saved, but the model folder could not be written.
    #[error("the model could not be written to `{folder}`")]
    Export {
        /// The model folder.
        folder: PathBuf,
        /// Why.
        source: Box<TrainError>,
    },
}

impl TrainError {
    /// What a device reported.
    pub fn device(error: impl std::fmt::Display) -> Self {
        TrainError::Device { message: error.to_string() }
    }

    /// The exit code of a command that ends with this error.
    pub fn exit(&self) -> Exit {
        match self {
            TrainError::NotFinite { .. }
            | TrainError::StoppedAt { .. }
            | TrainError::ValidationNotFinite { .. } => Exit::NotFinite,
            TrainError::AllDamaged { .. }
            | TrainError::OptimizerState { .. }
            | TrainError::CheckpointModel { .. }
            | TrainError::TokenizerDiffers { .. } => Exit::Damaged,
            TrainError::Objective { exit, .. } => *exit,
            TrainError::Data(error) => error.exit(),
            TrainError::Checkpoint(error) => error.exit(),
            TrainError::Gate(_)
            | TrainError::Device { .. }
            | TrainError::Generate(_)
            | TrainError::Event(_)
            | TrainError::SavesFailing { .. }
            | TrainError::Export { .. } => Exit::Failed,
            TrainError::File(error) if error.is_disk_full() => Exit::Failed,
            _ => Exit::BadInput,
        }
    }

    /// One action that helps, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            TrainError::RunExists { folder } => Some(format!(
                "continue it with `fornax train --resume {}` or choose another folder with `--run`",
                folder.display()
            )),
            TrainError::Occupied { .. } => Some("choose another folder with `--run`".into()),
            TrainError::NotARun { .. } => {
                Some("begin a run there with `fornax train RECIPE --run` and the folder".into())
            }
            TrainError::RecipeFile(error) => error.hint(),
            TrainError::Data(error) => error.hint(),
            TrainError::Objective { hint, .. } => hint.clone(),
            TrainError::Precision { .. } => {
                Some("`fornax doctor` lists the dtypes of each device; f32 is always there".into())
            }
            TrainError::Export { .. } => {
                Some("the checkpoint is saved; `train --resume` writes the model again".into())
            }
            TrainError::ResumeRefused { .. } => Some("start a new run with `--run` to change these keys".into()),
            TrainError::StoppedAt { .. } => Some("resume with a lower optimizer.lr in a new run".into()),
            TrainError::Weights(WeightsError::Pickle { .. }) => {
                Some("convert it to safetensors with transformers' save_pretrained".into())
            }
            _ => None,
        }
    }
}
