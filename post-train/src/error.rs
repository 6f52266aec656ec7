//! Why a post-training run cannot start or go on, beyond what any run can meet.

use std::path::PathBuf;

use fornax_base::exit::Exit;
use fornax_model::adapter::AdapterError;
use fornax_train::TrainError;

use crate::rewards::RewardError;

/// A failure of post-training; becomes a [`TrainError`] with its exit code and hint.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// There is nothing at `model.base`.
    #[error("the base `{path}` does not exist")]
    NoBase {
        /// As given.
        path: PathBuf,
    },
    /// The base has no model.
    #[error("the base `{path}` is neither a model folder nor a run folder with a finished model")]
    NotAModel {
        /// As given.
        path: PathBuf,
    },
    /// The base cannot be packed so.
    #[error(transparent)]
    Packed(#[from] fornax_model::packed::PackedError),
    /// The base is another one than the run began with.
    #[error("`{file}` of the base `{base}` has checksum {found}, the run began with {expected}")]
    BaseChanged {
        /// As the recipe names it.
        base: String,
        /// The file.
        file: String,
        /// What is there.
        found: String,
        /// What was there.
        expected: String,
    },
    /// `base.json` cannot be read.
    #[error("`{path}` is damaged: {what}")]
    BadBaseFile {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        what: String,
    },
    /// The adapter cannot be made, read or written.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// A reward of `[[grpo.rewards]]`.
    #[error(transparent)]
    Reward(#[from] RewardError),
    /// The rows are of a kind that the objective does not read.
    #[error("objective `{objective}` reads {expected}, but the rows of `{source_name}` are {found}")]
    Rows {
        /// The objective.
        objective: &'static str,
        /// What it reads.
        expected: &'static str,
        /// The source as the recipe names it.
        source_name: String,
        /// What the rows are.
        found: String,
    },
}

impl TuneError {
    fn exit(&self) -> Exit {
        match self {
            TuneError::BaseChanged { .. } | TuneError::BadBaseFile { .. } => Exit::Damaged,
            TuneError::Adapter(AdapterError::File(error)) if error.is_disk_full() => Exit::Failed,
            _ => Exit::BadInput,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            TuneError::NoBase { .. } => Some("a model of the hub is named `hf:owner/name`".into()),
            TuneError::NotAModel { .. } => Some(
                "a run that is still training has no model yet: let it finish, or name its model folder".into(),
            ),
            TuneError::BaseChanged { .. } => Some("put the base back, or start a new run with `--run`".into()),
            _ => None,
        }
    }
}

impl From<TuneError> for TrainError {
    fn from(error: TuneError) -> Self {
        TrainError::Objective { exit: error.exit(), hint: error.hint(), inner: Box::new(error) }
    }
}
