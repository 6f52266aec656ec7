//! Rows of a Parquet file: one column of strings, a page at a time.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use parquet::basic::{ConvertedType, LogicalType, Type};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::ColumnDescPtr;

use super::{MAX_DOCUMENT_BYTES, Row, TextFile, open};
use crate::error::DataError;

/// Values decoded at once: what is held beside them is their page, and the dictionary of their row group.
const BATCH: usize = 256;

pub(super) struct ParquetRows {
    file: TextFile,
    reader: SerializedFileReader<File>,
    column: usize,
    /// Definition level of a value that is there.
    defined: i16,
    replace_invalid: bool,
    /// Row groups opened so far, and the column of the last one.
    groups: usize,
    open: Option<ColumnReaderImpl<ByteArrayType>>,
    /// Decoded values in reverse order; `None` is null.
    values: Vec<Option<ByteArray>>,
    /// Rows given so far.
    rows: u64,
    ended: bool,
}

impl ParquetRows {
    pub(super) fn open(file: &TextFile, field: &str) -> Result<ParquetRows, DataError> {
        let shown = || file.shown.clone();
        let reader = SerializedFileReader::new(open(&file.path)?).map_err(|error| broken(shown(), 0, &error))?;
        let schema = reader.metadata().file_metadata().schema_descr();
        let wrong = |reason: String| DataError::Column { path: shown(), reason };
        let named = |column: &&ColumnDescPtr| column.path().string() == field;
        let Some(found) = schema.columns().iter().find(named) else {
            let names: Vec<String> = schema.columns().iter().map(|column| column.path().string()).collect();
            return Err(wrong(format!("has no column `{field}`; its columns are {}", names.join(", "))));
        };
        if found.physical_type() != Type::BYTE_ARRAY || found.max_rep_level() > 0 || !is_text(found) {
            return Err(wrong(format!("column `{field}` holds {}, strings are expected", type_name(found))));
        }
        let column = schema.columns().iter().position(|column| Arc::ptr_eq(column, found)).unwrap_or(0);
        let defined = found.max_def_level();
        let file = file.clone();
        Ok(ParquetRows {
            file,
            reader,
            column,
            defined,
            replace_invalid: false,
            groups: 0,
            open: None,
            values: Vec::new(),
            rows: 0,
            ended: false,
        })
    }

    pub(super) fn replacing_invalid(mut self, replace: bool) -> ParquetRows {
        self.replace_invalid = replace;
        self
    }

    fn read(&mut self) -> Result<Option<Row>, DataError> {
        loop {
            while let Some(value) = self.values.pop() {
                self.rows += 1;
                match value {
                    Some(value) if !value.is_empty() => return self.row(&value).map(Some),
                    _ => {}
                }
            }
            if !self.fill().map_err(|error| broken(self.file.shown.clone(), self.rows, &error))? {
                return Ok(None);
            }
        }
    }

    /// Decodes the next values; false when the file has no more.
    fn fill(&mut self) -> Result<bool, ParquetError> {
        loop {
            if let Some(column) = &mut self.open {
                let (mut levels, mut values) = (Vec::new(), Vec::new());
                let (records, _, _) = column.read_records(BATCH, Some(&mut levels), None, &mut values)?;
                if records > 0 {
                    self.values = in_reverse(records, &levels, values, self.defined)?;
                    return Ok(true);
                }
            }
            if self.groups == self.reader.num_row_groups() {
                return Ok(false);
            }
            let group = self.reader.get_row_group(self.groups)?;
            self.groups += 1;
            self.open = match group.get_column_reader(self.column)? {
                ColumnReader::ByteArrayColumnReader(column) => Some(column),
                _ => return Err(ParquetError::General("a column that changes its type".to_owned())),
            };
        }
    }

    fn row(&self, value: &ByteArray) -> Result<Row, DataError> {
        let (path, line) = (self.file.shown.clone(), self.rows);
        if value.len() as u64 > MAX_DOCUMENT_BYTES {
            return Err(DataError::DocumentTooLong { path, line, limit: MAX_DOCUMENT_BYTES });
        }
        let (text, repaired) = match std::str::from_utf8(value.data()) {
            Ok(text) => (text.to_owned(), false),
            Err(_) if self.replace_invalid => (String::from_utf8_lossy(value.data()).into_owned(), true),
            Err(error) => return Err(DataError::Utf8 { path, offset: error.valid_up_to() as u64, line }),
        };
        Ok(Row { text, file: self.file.shown.as_path().into(), number: self.rows, repaired })
    }
}

impl Iterator for ParquetRows {
    type Item = Result<Row, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let row = self.read().transpose();
        self.ended = match &row {
            None => true,
            Some(row) => matches!(row, Err(error) if !error.is_row()),
        };
        row
    }
}

/// Values with nulls in their places, last first.
fn in_reverse(
    records: usize,
    levels: &[i16],
    values: Vec<ByteArray>,
    defined: i16,
) -> Result<Vec<Option<ByteArray>>, ParquetError> {
    if defined == 0 {
        return Ok(values.into_iter().rev().map(Some).collect());
    }
    let mut values = values.into_iter().rev();
    let mut all = Vec::with_capacity(records);
    for level in levels.iter().rev() {
        all.push(match *level == defined {
            true => Some(values.next().ok_or_else(|| ParquetError::General("fewer values than rows".to_owned()))?),
            false => None,
        });
    }
    Ok(all)
}

/// Whether the bytes are text: strings, JSON, enums, or bytes without a meaning of their own.
fn is_text(column: &ColumnDescPtr) -> bool {
    match column.logical_type_ref() {
        Some(LogicalType::String | LogicalType::Json | LogicalType::Enum) => true,
        Some(_) => false,
        None => !matches!(column.converted_type(), ConvertedType::DECIMAL | ConvertedType::BSON),
    }
}

fn type_name(column: &ColumnDescPtr) -> String {
    let list = if column.max_rep_level() > 0 { "lists of " } else { "" };
    match column.logical_type_ref() {
        Some(logical) => format!("{list}{:?} ({logical:?})", column.physical_type()),
        None => format!("{list}{:?}", column.physical_type()),
    }
}

fn broken(path: PathBuf, after: u64, error: &ParquetError) -> DataError {
    DataError::Broken { path, what: "row", after, reason: error.to_string() }
}
