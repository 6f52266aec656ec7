//! Rows of JSON objects, which post-training data is read from: JSON Lines, JSON lists, Parquet files, folders of them,
//! and datasets of the hub. Knows nothing of what the rows mean.
//!
//! A row is numbered by its line in a JSON Lines file, by its place in a list or a Parquet file: from 1.

mod json;
mod parquet;
mod problem;

use std::path::Path;
use std::sync::Arc;

pub use self::problem::{Problem, RowError};
use crate::chat::Json;
use crate::error::DataError;
use crate::hub::{Hub, HubError, HubProgress, is_hub};
use crate::sources::{Format, TextFile};

/// What the names of files with rows end in.
pub const ENDINGS: [&str; 5] = [".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet"];
/// A longer row is refused: no model reads the millions of tokens that it holds.
pub const MAX_ROW_BYTES: u64 = 16 << 20;
/// A longer JSON list is refused, since it is parsed in memory.
pub const MAX_LIST_BYTES: u64 = 512 << 20;

/// One row and where it stands.
#[derive(Debug, Clone)]
pub struct Record {
    /// The file as the user knows it.
    pub file: Arc<Path>,
    /// Its number in the file, from 1.
    pub row: u64,
    /// What it holds; keys in the order of the file.
    pub json: Json,
}

impl Record {
    /// An error of this row.
    pub fn error(&self, problem: Problem) -> RowError {
        RowError { path: self.file.to_path_buf(), row: self.row, problem }
    }
}

/// Files of rows, in the order they are read.
#[derive(Debug, Clone)]
pub struct Records {
    files: Vec<TextFile>,
    /// Rows that come from no file.
    made: Vec<Record>,
}

/// What becomes of each row, or of what stands where a row should be: whether to go on; an error ends the reading.
pub type EachRow<'a> = dyn FnMut(Result<Record, RowError>) -> Result<bool, DataError> + 'a;

impl Records {
    /// The rows a path stands for: a file with one of [`ENDINGS`], or a folder, whose files with such names are read in
    /// the order of their names (folders in it are not entered).
    ///
    /// # Errors
    /// When nothing is there, or it is none of these.
    pub fn from_path(path: &Path) -> Result<Records, DataError> {
        match crate::sources::files_at(path, &ENDINGS)? {
            files if files.is_empty() => Err(DataError::NoRecords(path.to_owned())),
            files => Ok(Records { files, made: Vec::new() }),
        }
    }

    /// Rows that were made and not read; `name` stands for their file in messages.
    pub fn made(name: &str, rows: impl IntoIterator<Item = Json>) -> Records {
        let file: Arc<Path> = Path::new(name).into();
        let record = |(row, json)| Record { file: Arc::clone(&file), row, json };
        Records { files: Vec::new(), made: (1..).zip(rows).map(record).collect() }
    }

    /// The rows a text stands for: `hf:owner/name...` is fetched through `hub`, asked for when it is needed; anything
    /// else is a path.
    ///
    /// # Errors
    /// As [`Records::from_path`] and [`Hub::fetch_rows`].
    pub fn named(
        name: &str,
        hub: &dyn Fn() -> Result<Hub, HubError>,
        progress: &mut dyn FnMut(HubProgress),
    ) -> Result<Records, DataError> {
        match is_hub(name) {
            true => {
                let files = hub()?.fetch_rows(&name.parse()?, progress)?;
                Ok(Records { files, made: Vec::new() })
            }
            false => Records::from_path(Path::new(name)),
        }
    }

    /// The files, in order.
    pub fn files(&self) -> &[TextFile] {
        &self.files
    }

    /// Hands the rows to `each`, in order, until it does not go on.
    ///
    /// # Errors
    /// What `each` returns; a file that cannot be opened or read; a file without rows.
    pub fn read(&self, each: &mut EachRow<'_>) -> Result<(), DataError> {
        for record in &self.made {
            if !each(Ok(record.clone()))? {
                return Ok(());
            }
        }
        for file in &self.files {
            let (mut rows, mut goes_on) = (0u64, true);
            let mut counted = |row: Result<Record, RowError>| {
                rows += 1;
                goes_on = each(row)?;
                Ok(goes_on)
            };
            match file.format {
                Format::Parquet => parquet::read(file, &mut counted)?,
                Format::Json => json::read(file, &mut counted)?,
                Format::JsonLines | Format::Text => json::read_lines(file, &mut counted)?,
            }
            if rows == 0 {
                let path = file.shown.clone();
                return Err(RowError { path, row: 0, problem: Problem::NoRows }.into());
            }
            if !goes_on {
                break;
            }
        }
        Ok(())
    }
}

/// Bytes of text in a value, and a little for each part, to be held against [`MAX_ROW_BYTES`].
fn weight(json: &Json) -> u64 {
    let own = json.as_str().map_or(0, str::len) as u64 + 8;
    let keys = |key: &Json| match json.kind() {
        minijinja::value::ValueKind::Map => weight(key) + json.get_item(key).map_or(0, |value| weight(&value)),
        _ => weight(key),
    };
    match json.kind() {
        minijinja::value::ValueKind::Map | minijinja::value::ValueKind::Seq => {
            own + json.try_iter().map_or(0, |parts| parts.map(|part| keys(&part)).sum())
        }
        _ => own,
    }
}

/// The row, unless it is too long.
fn checked(file: &Arc<Path>, row: u64, json: Json) -> Result<Record, RowError> {
    let record = Record { file: Arc::clone(file), row, json };
    match weight(&record.json) {
        bytes if bytes > MAX_ROW_BYTES => Err(record.error(Problem::TooLong { limit: MAX_ROW_BYTES })),
        _ => Ok(record),
    }
}

#[cfg(test)]
mod tests;
