//! Model folders: the Hugging Face layout, read into a [`Decoder`] and written back.
//!
//! A stranger's file is checked whole before anything is allocated: every missing, extra or mis-shaped
//! tensor stands in one error. Nothing here executes what it reads; pickles are refused.

mod container;
pub mod mlx;
pub mod peft;
mod read;
mod write;

use std::path::PathBuf;

use burn::tensor::{DType, Device};
use fornax_base::files::FileError;
use fornax_base::paths::PathError;

use crate::config::{ConfigError, ModelConfig};
use crate::decoder::Decoder;
use crate::packed::Packing;

pub use container::{StoredTensor, TensorFile, write_tensors};
pub use write::save;

/// How to load a model folder.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    /// Dtype of the parameters in memory; `None` keeps the stored one.
    pub dtype: Option<DType>,
    /// Refuse weights that hold NaN or infinities instead of warning.
    pub strict: bool,
}

/// A loaded model and what was odd about it.
#[derive(Debug)]
pub struct Loaded {
    /// The model, on the device it was loaded to.
    pub decoder: Decoder,
    /// Sentences for the user, for example tensors with values that are not finite.
    pub warnings: Vec<String>,
}

/// Why a model folder cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// The folder holds no `config.json`.
    #[error("`{folder}` is not a model folder: it has no config.json")]
    NotAModelFolder {
        /// The folder as given.
        folder: PathBuf,
    },
    /// The configuration cannot be used.
    #[error("`{path}`")]
    Config {
        /// Path of `config.json`.
        path: PathBuf,
        /// What is wrong with it.
        source: ConfigError,
    },
    /// Neither `model.safetensors` nor an index is there.
    #[error("`{folder}` has no model.safetensors and no model.safetensors.index.json")]
    NoWeights {
        /// The folder as given.
        folder: PathBuf,
    },
    /// Only pickle files are there; loading one runs its code.
    #[error("`{path}` is a pickle, which can run code when loaded; only safetensors are read")]
    Pickle {
        /// The file.
        path: PathBuf,
    },
    /// A safetensors file breaks its format.
    #[error("`{path}` is not a valid safetensors file: {message}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, with both numbers.
        message: String,
    },
    /// The shard index is malformed.
    #[error("`{path}` is not a valid shard index: {message}")]
    Index {
        /// The index file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The shard index names a file outside its folder.
    #[error("`{path}` names a shard that is not inside its folder")]
    Shard {
        /// The index file.
        path: PathBuf,
        /// Which name, and why it is refused.
        source: PathError,
    },
    /// The tensors do not fit the configuration; all differences in one message.
    #[error("the weights in `{folder}` do not fit its config.json:{}", list(problems))]
    Mismatch {
        /// The model folder.
        folder: PathBuf,
        /// One sentence for each tensor.
        problems: Vec<String>,
    },
    /// A model without logits where one with logits is wanted.
    #[error("`{folder}` is a reward model: it gives a text one number, and has no next tokens")]
    RewardModel {
        /// The model folder.
        folder: PathBuf,
    },
    /// A model with logits where a reward model is wanted.
    #[error("`{folder}` is not a reward model: its architecture is {found}, expected {expected}")]
    NoRewardModel {
        /// The model folder.
        folder: PathBuf,
        /// Its class.
        found: &'static str,
        /// The class wanted.
        expected: &'static str,
    },
    /// A model folder holds one set of weights; adapters would be missing from it.
    #[error(
        "a model with {adapters} loaded adapters is not written to `{folder}` as a model: save the adapter, or merge it"
    )]
    Adapted {
        /// The folder as given.
        folder: PathBuf,
        /// How many are loaded.
        adapters: usize,
    },
    /// A model folder holds dense weights; packed ones would be missing from it.
    #[error(
        "a model with {packed} packed weights is not written to `{folder}`: save its adapters alone, or merge them into a dense model"
    )]
    Packed {
        /// The folder as given.
        folder: PathBuf,
        /// How many weights are packed.
        packed: usize,
    },
    /// Weights hold NaN or infinities and `strict` was asked for.
    #[error("the weights in `{folder}` are not finite:{}", list(problems))]
    NotFinite {
        /// The model folder.
        folder: PathBuf,
        /// One sentence for each tensor.
        problems: Vec<String>,
    },
}

/// At most this many differences are spelled out, half from each end; the rest are counted. Missing tensors
/// stand before those that are too many, so both kinds are seen.
const LISTED: usize = 20;

pub(crate) fn list(problems: &[String]) -> String {
    let lines = |some: &[String]| -> String { some.iter().map(|p| format!("\n  {p}")).collect() };
    match problems.len().checked_sub(LISTED) {
        None | Some(0) => lines(problems),
        Some(hidden) => {
            let (head, tail) = (&problems[..LISTED / 2], &problems[problems.len() - LISTED / 2..]);
            format!("{}\n  and {hidden} more, up to{}", lines(head), lines(tail))
        }
    }
}

/// Reads the configuration of a model folder.
///
/// # Errors
/// See [`WeightsError`].
pub fn read_config(folder: &std::path::Path) -> Result<ModelConfig, WeightsError> {
    read::config(folder)
}

/// Loads a model folder onto `device`.
///
/// # Errors
/// See [`WeightsError`]; everything but the values is checked before memory is taken.
pub fn load(folder: &std::path::Path, options: LoadOptions, device: &Device) -> Result<Loaded, WeightsError> {
    read::load(folder, options, None, device)
}

/// As [`load`], with the linear layers of the blocks packed as they come (see [`Decoder::quantized`]): beside the packed
/// model no more than one dense matrix is held at a time.
///
/// # Errors
/// As [`load`].
pub fn load_packed(
    folder: &std::path::Path,
    options: LoadOptions,
    packing: Packing,
    device: &Device,
) -> Result<Loaded, WeightsError> {
    read::load(folder, options, Some(packing), device)
}

/// As [`load`], of a reward model (transformers' `...ForSequenceClassification` with one label).
///
/// # Errors
/// See [`WeightsError`].
pub fn load_reward_model(
    folder: &std::path::Path,
    options: LoadOptions,
    device: &Device,
) -> Result<Loaded, WeightsError> {
    read::load_reward_model(folder, options, device)
}

/// Loads the parameters of `config` from tensors already at hand (a checkpoint), in f32.
///
/// # Errors
/// [`WeightsError::Mismatch`] when they do not fit the configuration.
pub fn from_tensors(config: &ModelConfig, file: &TensorFile, device: &Device) -> Result<Decoder, WeightsError> {
    read::from_file(config, file, device)
}

/// Puts the values of tensors at hand (a checkpoint) into the parameters that [`Decoder::trainable`] trains: those of
/// the active adapter, or all.
///
/// # Errors
/// [`WeightsError::Mismatch`] when names or shapes differ; the decoder is unchanged then.
pub fn restore_trainable(decoder: &mut Decoder, file: &TensorFile) -> Result<(), WeightsError> {
    read::restore_trainable(decoder, file)
}
