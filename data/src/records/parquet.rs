//! Rows of a Parquet file, all columns, nested ones included.

use std::path::Path;
use std::sync::Arc;

use minijinja::Value;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};

use super::{EachRow, Problem, RowError, checked};
use crate::chat::Json;
use crate::error::DataError;
use crate::sources::{TextFile, open};
use crate::tokenizer::guarded;

/// What is said where the library panics: it believes some numbers of a file.
const CONTRADICTS: &str = "its numbers contradict each other";

pub(super) fn read(file: &TextFile, each: &mut EachRow<'_>) -> Result<(), DataError> {
    let shown: Arc<Path> = file.shown.as_path().into();
    let broken = |row: u64, reason: String| -> DataError {
        RowError { path: shown.to_path_buf(), row, problem: Problem::Parquet { reason } }.into()
    };
    let opened = open(&file.path)?;
    let reader = guarded(|| SerializedFileReader::new(opened))
        .map_err(|_| broken(0, CONTRADICTS.to_owned()))?
        .map_err(|error| broken(0, error.to_string()))?;
    // Bounds what a damaged footer can ask for.
    let rows = u64::try_from(reader.metadata().file_metadata().num_rows()).unwrap_or(0);
    let mut iterator = RowIter::from_file_into(Box::new(reader));
    for row in 1..=rows {
        let next =
            guarded(|| iterator.next()).map_err(|_| broken(row, "its levels contradict each other".to_owned()))?;
        let found = match next {
            None => return Err(broken(row, format!("it ends here, {rows} rows are announced"))),
            Some(Err(error)) => return Err(broken(row, error.to_string())),
            Some(Ok(found)) => found,
        };
        let found = match object(found) {
            Ok(json) => checked(&shown, row, json),
            Err(problem) => Err(RowError { path: shown.to_path_buf(), row, problem }),
        };
        if !each(found)? {
            break;
        }
    }
    Ok(())
}

/// A Parquet file names every field in every row: those that are null are left out, as where a file of JSON has none,
/// except for `content`, which templates compare with none.
fn object(row: Row) -> Result<Json, Problem> {
    let mut pairs = Vec::new();
    for (name, field) in row.into_columns() {
        if !matches!(field, Field::Null) || name == "content" {
            pairs.push((name, value(field)?));
        }
    }
    Ok(Value::from_pairs(pairs))
}

fn value(field: Field) -> Result<Json, Problem> {
    Ok(match field {
        Field::Null => Value::from(()),
        Field::Bool(value) => Value::from(value),
        Field::Byte(value) => Value::from(value),
        Field::Short(value) => Value::from(value),
        Field::Int(value) => Value::from(value),
        Field::Long(value) => Value::from(value),
        Field::UByte(value) => Value::from(value),
        Field::UShort(value) => Value::from(value),
        Field::UInt(value) => Value::from(value),
        Field::ULong(value) => Value::from(value),
        Field::Float(value) => Value::from(value),
        Field::Double(value) => Value::from(value),
        Field::Str(text) => Value::from(text),
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => Value::from(text),
            Err(error) => return Err(Problem::Utf8 { at: error.valid_up_to() }),
        },
        Field::Group(row) => object(row)?,
        Field::ListInternal(list) => {
            let parts = (0..list.len()).map(|at| value(list.elements()[at].clone()));
            Value::from(parts.collect::<Result<Vec<_>, _>>()?)
        }
        Field::MapInternal(map) => {
            let mut pairs = Vec::new();
            for (key, field) in map.entries() {
                let key = match value(key.clone())? {
                    key if key.as_str().is_some() => key.to_string(),
                    key => format!("{key}"),
                };
                pairs.push((key, value(field.clone())?));
            }
            Value::from_pairs(pairs)
        }
        // Times, dates and decimals as they are printed.
        other => Value::from(other.to_string()),
    })
}
