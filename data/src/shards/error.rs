//! What can be wrong with a token shard.

use std::path::PathBuf;

use fornax_base::files::FileError;

/// Why a token shard cannot be used or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShardError {
    /// The file is absent, not a regular file, or could not be written.
    #[error("token shard `{}` is not usable", path.display())]
    File {
        /// The file as given.
        path: PathBuf,
        /// What stopped us.
        source: FileError,
    },
    /// The file has another length than its header says.
    #[error("token shard `{}` has {found} bytes, its header needs {expected}", path.display())]
    Length {
        /// The file as given.
        path: PathBuf,
        /// Bytes in the file.
        found: u64,
        /// Bytes needed.
        expected: u64,
    },
    /// A field of the header cannot be right.
    #[error("token shard `{}` has {field} {found}, expected {expected}", path.display())]
    Header {
        /// The file as given.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// What the file says.
        found: String,
        /// What would be right.
        expected: String,
    },
    /// A document starts where none can.
    #[error("token shard `{}`: document {document} starts at token {found}, expected {expected}", path.display())]
    DocumentStart {
        /// The file as given.
        path: PathBuf,
        /// The document, from 0.
        document: u64,
        /// Where it starts.
        found: u64,
        /// Where it may start.
        expected: String,
    },
    /// The bytes are not those that were written.
    #[error("token shard `{}` has sha-256 {found}, its header says {expected}", path.display())]
    Checksum {
        /// The file as given.
        path: PathBuf,
        /// Computed from the bytes.
        found: String,
        /// Stored in the header.
        expected: String,
    },
    /// A token id is outside the vocabulary.
    #[error("token shard `{}`: token {offset} has id {id}, the vocabulary ends at {vocab_size}", path.display())]
    TokenId {
        /// The file as given.
        path: PathBuf,
        /// Index of the token in the shard.
        offset: u64,
        /// The id found.
        id: u32,
        /// Ids are below this.
        vocab_size: u64,
    },
    /// The shard was made for another dataset: its checksum or tokenizer is not the one listed.
    #[error("token shard `{}` has {what} {found}, the dataset lists {expected}", path.display())]
    NotListed {
        /// The file as given.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// In the shard.
        found: String,
        /// In `dataset.json`.
        expected: String,
    },
    /// There is nothing to write.
    #[error("token shard `{}` would hold 0 tokens, at least 1 is needed", .0.display())]
    Empty(PathBuf),
}

impl ShardError {
    /// Whether the shard is damaged (exit code 4), as opposed to one that could not be written.
    pub fn is_damage(&self) -> bool {
        match self {
            ShardError::File { source, .. } => {
                source.is_not_found() || matches!(source, FileError::Empty { .. } | FileError::NotAFile { .. })
            }
            ShardError::Empty(_) => false,
            _ => true,
        }
    }
}
