//! Why a model cannot learn from rewards.

use fornax_base::exit::Exit;
use fornax_infer::generate::GenerateError;
use fornax_train::TrainError;

use crate::rewards::RewardError;
use crate::rollout::RolloutError;

/// A failure of GRPO; becomes a [`TrainError`] with its exit code and hint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GrpoError {
    /// There is nothing to answer.
    #[error("there are 0 prompts to train on")]
    NoPrompts,
    /// A prompt leaves no room for an answer.
    #[error("row {row} has a prompt of {tokens} tokens, but a row holds {context} with at least one to generate")]
    Prompt {
        /// The row, from 1.
        row: u64,
        /// Tokens of the prompt.
        tokens: usize,
        /// The least of `train.context` and the model's.
        context: usize,
    },
    /// The distribution of the samples cannot be computed from the loss's.
    #[error("`grpo.temperature` is {temperature}, but a model with a cap on its logits ({cap}) is trained at 1")]
    CapAndTemperature {
        /// The temperature.
        temperature: f64,
        /// The cap.
        cap: f64,
    },
    /// A reward cannot be computed.
    #[error(transparent)]
    Reward(#[from] RewardError),
    /// No completions.
    #[error("completions could not be sampled")]
    Rollout(#[from] RolloutError),
}

impl GrpoError {
    fn exit(&self) -> Exit {
        match self {
            GrpoError::Reward(RewardError::Command { .. }) => Exit::Failed,
            GrpoError::Rollout(RolloutError::Generate(
                GenerateError::Device { .. } | GenerateError::Sample { .. },
            )) => Exit::Failed,
            _ => Exit::BadInput,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            GrpoError::Prompt { .. } => Some("raise `train.context`, or shorten or drop such rows".into()),
            GrpoError::Reward(RewardError::Row { .. }) => {
                Some("`column` of the reward names the column with the answer".into())
            }
            GrpoError::Reward(RewardError::Command { .. }) => Some(
                "`command` is a program and its arguments, each a string of its own; no shell reads them".into(),
            ),
            _ => None,
        }
    }
}

impl From<GrpoError> for TrainError {
    fn from(error: GrpoError) -> Self {
        TrainError::Objective { exit: error.exit(), hint: error.hint(), inner: Box::new(error) }
    }
}
