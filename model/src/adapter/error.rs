//! Why an adapter cannot be made, read or used.

use std::path::PathBuf;

use fornax_base::files::FileError;

use crate::weights::{WeightsError, list};

/// Why an adapter cannot be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// A weights file is malformed.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The folder holds no `adapter_config.json`.
    #[error("`{folder}` is not an adapter folder: it has no adapter_config.json")]
    NotAnAdapterFolder {
        /// The folder as given.
        folder: PathBuf,
    },
    /// The configuration file is malformed.
    #[error("`{path}` is not a valid adapter configuration: {message}")]
    Config {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The configuration asks for arithmetic that is not implemented.
    #[error("`{path}` sets `{key}` to {value}, which changes what the adapter computes and is not supported")]
    Unsupported {
        /// Path of the file.
        path: PathBuf,
        /// The setting.
        key: String,
        /// Its value, as JSON.
        value: String,
    },
    /// A setting cannot be used, alone or with this model.
    #[error("adapter setting `{key}`: {message}")]
    Setting {
        /// The setting, as PEFT names it.
        key: &'static str,
        /// What is wrong, with both numbers.
        message: String,
    },
    /// The stored tensors do not fit the configuration and the model; all differences in one message.
    #[error("the adapter in `{folder}` does not fit the model:{}", list(problems))]
    Mismatch {
        /// The adapter folder.
        folder: PathBuf,
        /// One sentence for each tensor.
        problems: Vec<String>,
    },
    /// Two adapters of one name.
    #[error("an adapter named `{name}` is loaded already")]
    Taken {
        /// The name.
        name: String,
    },
    /// A name that cannot be part of a parameter's name.
    #[error("`{name}` cannot name an adapter: letters, digits, `_` and `-` can")]
    Name {
        /// The name.
        name: String,
    },
    /// No adapter is active.
    #[error("the model has no active adapter")]
    NoneActive,
}
