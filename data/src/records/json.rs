//! Rows of JSON Lines files and of JSON lists.

use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};

use super::{EachRow, MAX_LIST_BYTES, MAX_ROW_BYTES, Problem, Record, RowError, checked};
use crate::chat::Json;
use crate::error::DataError;
use crate::sources::{Lines, TextFile, in_line};

/// Rows of a JSON Lines file. Blank lines are passed over.
pub(super) fn read_lines(file: &TextFile, each: &mut EachRow<'_>) -> Result<(), DataError> {
    let mut lines = Lines::open(file)?;
    let shown: Arc<Path> = file.shown.as_path().into();
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let from = lines.offset;
        let read = lines.append(&mut bytes, MAX_ROW_BYTES);
        let wrong = |row: u64, problem| RowError { path: shown.to_path_buf(), row, problem };
        match read {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(DataError::Broken { after, reason, .. }) => {
                return Err(wrong(after + 1, Problem::CutOff { reason }).into());
            }
            Err(error) => return Err(error),
        }
        let row = lines.count;
        if bytes.len() as u64 > MAX_ROW_BYTES {
            if bytes.last() != Some(&b'\n') {
                lines.skip_line()?;
            }
            if !each(Err(wrong(row, Problem::TooLong { limit: MAX_ROW_BYTES })))? {
                return Ok(());
            }
            continue;
        }
        let line = match from {
            0 => bytes.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(&bytes),
            _ => &bytes,
        };
        // Without its line break, an unclosed string ends where the line does.
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let row = match std::str::from_utf8(line) {
            Err(error) => Err(wrong(row, Problem::Utf8 { at: error.valid_up_to() })),
            Ok(text) => match serde_json::from_str::<Json>(text) {
                Ok(json) => checked(&shown, row, json),
                Err(error) => Err(wrong(row, of_json(&error))),
            },
        };
        if !each(row)? {
            return Ok(());
        }
    }
}

/// Rows of a `.json` file: the elements of one list, or, since such files exist, the lines of JSON Lines.
pub(super) fn read(file: &TextFile, each: &mut EachRow<'_>) -> Result<(), DataError> {
    let mut bytes = Vec::new();
    let shown: Arc<Path> = file.shown.as_path().into();
    let wrong = |row: u64, problem| RowError { path: shown.to_path_buf(), row, problem };
    let mut lines = Lines::open(file)?;
    // What came before a stream broke tells the row at which it did.
    let broken = match lines.reader.by_ref().take(MAX_LIST_BYTES + 1).read_to_end(&mut bytes) {
        Ok(_) => None,
        Err(error) => match lines.broken(error) {
            DataError::Broken { reason, .. } => Some(reason),
            other => return Err(other),
        },
    };
    if bytes.len() as u64 > MAX_LIST_BYTES {
        return Err(wrong(0, Problem::ListTooLong { limit: MAX_LIST_BYTES }).into());
    }
    let text = bytes.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(&bytes).trim_ascii();
    if text.is_empty() && broken.is_none() {
        return Ok(());
    }
    if text.first() == Some(&b'{') {
        return read_lines(file, each);
    }
    let mut rows = 0;
    let mut stopped = None;
    let list = List {
        shown: &shown,
        each: if broken.is_none() { Some(each) } else { None },
        rows: &mut rows,
        stopped: &mut stopped,
    };
    let mut parser = serde_json::Deserializer::from_slice(text);
    let parsed = list.deserialize(&mut parser).and_then(|()| parser.end());
    match (stopped, broken, parsed) {
        (Some(stopped), _, _) => stopped,
        (None, Some(reason), _) => Err(wrong(rows + 1, Problem::CutOff { reason }).into()),
        (None, None, Ok(())) => Ok(()),
        (None, None, Err(_)) if text.first() != Some(&b'[') => Err(wrong(0, Problem::NoList).into()),
        (None, None, Err(error)) => Err(wrong(rows + 1, of_list(&error)).into()),
    }
}

fn of_json(error: &serde_json::Error) -> Problem {
    match error.to_string().starts_with("recursion limit") {
        true => Problem::TooDeep,
        false => Problem::Json { reason: in_line(error) },
    }
}

/// As [`of_json`], with the line of the file, which the number of the row does not tell.
fn of_list(error: &serde_json::Error) -> Problem {
    let text = error.to_string();
    match of_json(error) {
        Problem::Json { .. } if text.contains("unicode code point") => Problem::Utf8InList { line: error.line() },
        Problem::Json { .. } => Problem::Json { reason: text },
        other => other,
    }
}

/// A list whose elements are handed on one by one.
struct List<'a, 'b> {
    shown: &'a Arc<Path>,
    /// Nothing where rows are counted only.
    each: Option<&'a mut EachRow<'b>>,
    rows: &'a mut u64,
    stopped: &'a mut Option<Result<(), DataError>>,
}

impl<'de> DeserializeSeed<'de> for List<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(json) = list.next_element::<Json>()? {
            *self.rows += 1;
            let Some(each) = &mut self.each else { continue };
            let row: Result<Record, RowError> = checked(self.shown, *self.rows, json);
            match each(row) {
                Ok(true) => {}
                Ok(false) => *self.stopped = Some(Ok(())),
                Err(error) => *self.stopped = Some(Err(error)),
            }
            if self.stopped.is_some() {
                return Err(serde::de::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}
