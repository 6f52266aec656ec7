//! What can go wrong between text and batches. One sentence per variant, with what was found and what was expected.

use std::path::PathBuf;

use fornax_base::exit::Exit;

use crate::shards::ShardError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or folder could not be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The path as given.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file could not be removed.
    #[error("cannot remove `{}`", path.display())]
    Remove {
        /// The path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// `fornax-base` refused or failed: a size limit, a path that leaves its folder, an atomic write.
    #[error(transparent)]
    File(#[from] fornax_base::files::FileError),
    /// A tokenizer could not be made from the bytes of its file.
    #[error("tokenizer `{}` is not usable: {reason}", path.display())]
    Tokenizer {
        /// The file as given.
        path: PathBuf,
        /// What the `tokenizers` library or a check said.
        reason: String,
    },
    /// Text could not be turned into ids, or ids into text.
    #[error("cannot {action}: {reason}")]
    Coding {
        /// `encode` or `decode`.
        action: &'static str,
        /// What the `tokenizers` library said.
        reason: String,
    },
    /// A character vocabulary meets a character it does not hold.
    #[error("character {character:?} (U+{:04X}) at byte {offset} is not among the {known} characters of the vocabulary", *character as u32)]
    UnknownCharacter {
        /// The character.
        character: char,
        /// Its offset in the encoded text, in bytes.
        offset: usize,
        /// Size of the vocabulary.
        known: usize,
    },
    /// A vocabulary was asked for that cannot exist.
    #[error("vocabulary size {found} is outside {least}..={most}")]
    VocabularySize {
        /// The size asked for.
        found: usize,
        /// Smallest possible.
        least: usize,
        /// Largest possible.
        most: usize,
    },
    /// A special token that cannot be one.
    #[error("the special token {0:?} is empty, or is a token already")]
    SpecialToken(String),
    /// There is no text to work on.
    #[error("{0} has no text")]
    NoText(String),
    /// A path is not something documents can be read from.
    #[error("`{}` is not a .txt, .jsonl or .parquet file (or .txt.gz, .jsonl.gz), nor a folder with such files", .0.display())]
    NotASource(PathBuf),
    /// A chat template, or what it says to a conversation.
    #[error(transparent)]
    Template(#[from] crate::chat_template::TemplateError),
    /// A path is not something rows can be read from.
    #[error("`{}` is not a .jsonl, .json or .parquet file (or .jsonl.gz, .json.gz), nor a folder with such files", .0.display())]
    NoRecords(PathBuf),
    /// A row of post-training data cannot be used.
    #[error(transparent)]
    Row(#[from] crate::records::RowError),
    /// No row of a file can be used.
    #[error("nothing is left of {files}: {read} rows read, {skipped} passed over, {dropped} too long{}", foremost(why.as_deref()))]
    NothingLeft {
        /// The files as given.
        files: String,
        /// Rows that were read.
        read: u64,
        /// Rows that cannot be used.
        skipped: u64,
        /// Rows that were left out because of their length.
        dropped: u64,
        /// What was wrong with the foremost row that was passed over.
        why: Option<String>,
    },
    /// Batches of no rows.
    #[error("{found} rows in batches of {rows} make no batch, at least 1 of both is needed")]
    NoRows {
        /// Rows that there are.
        found: usize,
        /// Rows asked for in a batch.
        rows: usize,
    },
    /// A compressed file or a Parquet file is cut off or damaged.
    #[error("`{}` is cut off or damaged after {what} {after}: {reason}", path.display())]
    Broken {
        /// The file as given.
        path: PathBuf,
        /// What is counted: `line` or `row`.
        what: &'static str,
        /// How many were read before.
        after: u64,
        /// What the decoder said.
        reason: String,
    },
    /// A Parquet file has no column of text by the name asked for.
    #[error("`{}` {reason}", path.display())]
    Column {
        /// The file as given.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A text file holds bytes that are not UTF-8.
    #[error("`{}` is not UTF-8 at byte {offset} (line {line})", path.display())]
    Utf8 {
        /// The file as given.
        path: PathBuf,
        /// Offset of the bad byte in the file.
        offset: u64,
        /// Its line, from 1.
        line: u64,
    },
    /// One document or line is too long.
    #[error("`{}` line {line}: a document of more than {limit} bytes", path.display())]
    DocumentTooLong {
        /// The file as given.
        path: PathBuf,
        /// The line on which the limit was passed, from 1.
        line: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A line of a JSON Lines file is not the object it should be.
    #[error("`{}` line {line}: {reason}", path.display())]
    JsonLine {
        /// The file as given.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// Files of the hub.
    #[error(transparent)]
    Hub(#[from] crate::hub::HubError),
    /// Documents are not those that were read before.
    #[error("the documents changed while they were being read")]
    Changed,
    /// An option that cannot be met.
    #[error("{0}")]
    Option(String),
    /// The share of validation documents is not a share.
    #[error("validation_fraction ({0}) is not between 0 and 1")]
    ValidationFraction(f64),
    /// `max_shard_tokens` is 0.
    #[error("max_shard_tokens is 0, at least 1 is needed")]
    ShardSize,
    /// A single document is too short to be cut in two.
    #[error("the sources hold a single document of {0} characters, too short to split into train and validation")]
    CannotSplit(usize),
    /// `dataset.json` is not what `prepare` writes.
    #[error("`{}` is damaged: {reason}", path.display())]
    Dataset {
        /// The file as given.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A token shard is damaged, missing, or not a token shard.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// Rows or columns of a batch are 0 or too many.
    #[error("a batch of {rows} rows x {columns} columns must hold between 1 and 2147483647 tokens")]
    BatchShape {
        /// Rows asked for.
        rows: usize,
        /// Columns asked for.
        columns: usize,
    },
    /// A split is shorter than one window.
    #[error("the split has {found} tokens, at least {needed} are needed for one window (columns + 1)")]
    TooFewTokens {
        /// Tokens in the split.
        found: u64,
        /// Tokens needed.
        needed: u64,
    },
    /// A validation slice of no tokens.
    #[error("a validation slice of 0 tokens measures nothing, at least 1 is needed")]
    EmptyValidation,
    /// The thread that makes batches ended.
    #[error("the thread that prepares batches stopped: {0}")]
    Prefetch(String),
}

fn foremost(why: Option<&str>) -> String {
    why.map(|why| format!("; the foremost: {why}")).unwrap_or_default()
}

impl DataError {
    /// Whether the error means damaged data (exit code 4) and not a wrong input or a failing machine.
    pub fn is_damage(&self) -> bool {
        match self {
            DataError::Shard(error) => error.is_damage(),
            DataError::Dataset { .. } | DataError::Broken { .. } => true,
            _ => false,
        }
    }

    /// Whether a single row cannot be used and those after it can.
    pub fn is_row(&self) -> bool {
        matches!(self, DataError::Utf8 { .. } | DataError::DocumentTooLong { .. } | DataError::JsonLine { .. })
    }

    /// File and line (or row) of an error in a single row.
    pub fn place(&self) -> Option<(PathBuf, u64)> {
        match self {
            DataError::Utf8 { path, line, .. }
            | DataError::DocumentTooLong { path, line, .. }
            | DataError::JsonLine { path, line, .. } => Some((path.clone(), *line)),
            _ => None,
        }
    }

    /// The exit code of a command that ends with this error.
    pub fn exit(&self) -> Exit {
        match self {
            error if error.is_damage() => Exit::Damaged,
            DataError::Prefetch(_) | DataError::Remove { .. } | DataError::Changed => Exit::Failed,
            DataError::File(error) if error.is_disk_full() => Exit::Failed,
            DataError::Shard(_) => Exit::Failed,
            DataError::Hub(error) => error.exit(),
            _ => Exit::BadInput,
        }
    }

    /// One action that helps, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            DataError::Column { .. } => {
                Some("`--text-field` (`data.text_field` in a recipe) names the field".into())
            }
            DataError::JsonLine { .. } => Some(
                "`--text-field` (`data.text_field` in a recipe) names the field; `--skip-bad-rows` \
                 (`data.clean.skip_bad_rows`) passes over rows that cannot be read"
                    .into(),
            ),
            DataError::Utf8 { .. } => Some(
                "`--replace-invalid` (`data.clean.replace_invalid`) puts U+FFFD in their place; `--skip-bad-rows` \
                 (`data.clean.skip_bad_rows`) passes over rows that cannot be read"
                    .into(),
            ),
            DataError::Row(error) => Some(error.problem.hint()),
            DataError::Hub(error) => error.hint(),
            _ => None,
        }
    }
}
