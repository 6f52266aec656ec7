//! What can go wrong between a name on the hub and files on the disk.

use std::path::{Path, PathBuf};

use fornax_base::exit::Exit;

/// Why the files of a hub dataset are not there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The source is not of the form `hf:owner/name...`.
    #[error("`{source_name}` is not a dataset of the hub: {reason}")]
    Name {
        /// The source as given.
        source_name: String,
        /// What is wrong.
        reason: String,
    },
    /// Neither a home folder nor a variable that names a cache.
    #[error("there is no folder for files of the hub: no home folder is known")]
    NoHome,
    /// The hub wants a token, or a better one.
    #[error("the hub at {endpoint} does not give `{repo}` to {}", bearer(token.as_ref()))]
    Denied {
        /// The repository as given.
        repo: String,
        /// Address of the hub.
        endpoint: String,
        /// Where the token came from.
        token: Option<String>,
    },
    /// There is no such repository, revision or file, or it is hidden.
    #[error("the hub at {endpoint} has no dataset `{repo}`, or hides it from {}", bearer(token.as_ref()))]
    Absent {
        /// The repository as given.
        repo: String,
        /// Address of the hub.
        endpoint: String,
        /// Where the token came from.
        token: Option<String>,
    },
    /// Another refusal.
    #[error("the hub at {endpoint} answered {status} for `{repo}`")]
    Status {
        /// The repository as given.
        repo: String,
        /// Address of the hub.
        endpoint: String,
        /// The HTTP status.
        status: u16,
    },
    /// An answer that is not one of the hub.
    #[error("the answer of {endpoint} for `{repo}` cannot be used: {reason}")]
    Answer {
        /// The repository as given.
        repo: String,
        /// Address of the hub.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The hub cannot be reached.
    #[error("the hub at {endpoint} cannot be reached: {reason}")]
    Unreachable {
        /// Its address.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// The connection broke again and again.
    #[error("the download of `{file}` stopped at {bytes} of {total} bytes: {reason}")]
    Interrupted {
        /// The file.
        file: String,
        /// Bytes that are kept.
        bytes: u64,
        /// Length of the file.
        total: u64,
        /// Why.
        reason: String,
    },
    /// A downloaded file is not the one the hub lists; it was removed.
    #[error("the downloaded `{file}` has {what} {found}, the hub lists {expected}; it was removed")]
    Corrupt {
        /// The file.
        file: String,
        /// What differs.
        what: &'static str,
        /// On the disk.
        found: String,
        /// On the hub.
        expected: String,
    },
    /// No file of the repository is meant.
    #[error("`{repo}` has no readable file for `{asked}`; it holds {found}")]
    NoFile {
        /// The repository as given.
        repo: String,
        /// What was asked for.
        asked: String,
        /// What is there.
        found: String,
    },
    /// Several sets of files could be meant.
    #[error("`{repo}` holds several configurations: {found}")]
    Ambiguous {
        /// The repository as given.
        repo: String,
        /// Their names.
        found: String,
    },
    /// The hub sent a word that cannot be part of a path.
    #[error("the hub sent the {what} {found:?}, letters, digits, `-` and `_` are expected")]
    Word {
        /// What it should be.
        what: &'static str,
        /// What came.
        found: String,
    },
    /// The cache folder cannot be written.
    #[error("the cache folder `{}` cannot be written", folder.display())]
    Cache {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The client could not be made.
    #[error("requests to the hub cannot be made: {reason}")]
    Client {
        /// Why.
        reason: String,
    },
}

fn bearer(token: Option<&String>) -> String {
    match token {
        Some(from) => format!("the token of {from}"),
        None => "a request without a token".to_owned(),
    }
}

impl HubError {
    pub(super) fn cache(folder: &Path, source: std::io::Error) -> HubError {
        HubError::Cache { folder: folder.to_owned(), source }
    }

    /// The exit code of a command that ends with this error.
    pub fn exit(&self) -> Exit {
        match self {
            HubError::Interrupted { .. }
            | HubError::Unreachable { .. }
            | HubError::Status { .. }
            | HubError::Answer { .. }
            | HubError::Word { .. }
            | HubError::Cache { .. }
            | HubError::Client { .. } => Exit::Failed,
            HubError::Corrupt { .. } => Exit::Damaged,
            _ => Exit::BadInput,
        }
    }

    /// One action that helps, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            HubError::Denied { .. } => Some(
                "accept the conditions of the dataset on its page, and set HF_TOKEN to a token that may read it"
                    .into(),
            ),
            HubError::Absent { token: None, .. } => {
                Some("check owner, name, path and revision; a private dataset needs HF_TOKEN".into())
            }
            HubError::Absent { .. } => Some("check owner, name, path and revision".into()),
            HubError::Name { .. } => Some(
                "write hf:owner/name, hf:owner/name/path, or hf:owner/name?config/split; @revision after the name"
                    .into(),
            ),
            HubError::Unreachable { .. } => Some(
                "HF_ENDPOINT names another address; a path to a single file that is in the cache needs no network"
                    .into(),
            ),
            HubError::Interrupted { .. } | HubError::Corrupt { .. } => {
                Some("run the same command again; what is there is kept".into())
            }
            HubError::Ambiguous { repo, .. } => Some(format!("choose one with `{repo}?config/split`")),
            HubError::NoHome => Some("set HF_HOME".into()),
            _ => None,
        }
    }
}
