//! Rows of a JSON Lines file.

use serde_json::{Map, Value};

use super::{Lines, MAX_DOCUMENT_BYTES, Row, TextFile};
use crate::error::DataError;

pub(super) struct JsonLineRows {
    lines: Lines,
    field: String,
    replace_invalid: bool,
    /// Longest line in bytes.
    limit: u64,
    ended: bool,
}

impl JsonLineRows {
    pub(super) fn new(lines: Lines, field: String, replace_invalid: bool) -> JsonLineRows {
        JsonLineRows { lines, field, replace_invalid, limit: MAX_DOCUMENT_BYTES, ended: false }
    }

    /// Rows no longer than `limit` bytes, for tests of the limit.
    #[cfg(test)]
    pub(super) fn with_limit(mut self, limit: u64) -> JsonLineRows {
        self.limit = limit;
        self
    }

    fn read(&mut self) -> Result<Option<Row>, DataError> {
        let Some((line, repaired)) = self.line()? else { return Ok(None) };
        let text = self.text(&line)?;
        Ok(Some(self.lines.row(text, self.lines.count, repaired)))
    }

    /// The next line that is not blank, and whether it was repaired; `None` at the end of the file.
    fn line(&mut self) -> Result<Option<(String, bool)>, DataError> {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let from = self.lines.offset;
            if self.lines.append(&mut bytes, self.limit)? == 0 {
                return Ok(None);
            }
            let line = self.lines.count;
            if bytes.len() as u64 > self.limit {
                if bytes.last() != Some(&b'\n') {
                    self.lines.skip_line()?;
                }
                let path = self.lines.shown.to_path_buf();
                return Err(DataError::DocumentTooLong { path, line, limit: self.limit });
            }
            let (text, repaired) = match std::str::from_utf8(&bytes) {
                Ok(text) => (text.to_owned(), false),
                Err(_) if self.replace_invalid => (String::from_utf8_lossy(&bytes).into_owned(), true),
                Err(error) => {
                    let path = self.lines.shown.to_path_buf();
                    return Err(DataError::Utf8 { path, offset: from + error.valid_up_to() as u64, line });
                }
            };
            let text = if from == 0 { text.strip_prefix('\u{FEFF}').unwrap_or(&text) } else { &text };
            // Without its line break, an unclosed string ends where the line does.
            let text = text.trim_end_matches(['\n', '\r']);
            if !text.trim().is_empty() {
                return Ok(Some((text.to_owned(), repaired)));
            }
        }
    }

    fn text(&self, line: &str) -> Result<String, DataError> {
        let path = || self.lines.shown.to_path_buf();
        let wrong = |reason: String| DataError::JsonLine { path: path(), line: self.lines.count, reason };
        let mut object: Map<String, Value> = serde_json::from_str(line)
            .map_err(|error| wrong(format!("not a JSON object: {}", in_line(&error))))?;
        match object.remove(&self.field) {
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(wrong(format!("field `{}` is not a string", self.field))),
            None => {
                let found: Vec<&str> = object.keys().map(String::as_str).take(10).collect();
                Err(wrong(format!("field `{}` is missing, found: {}", self.field, found.join(", "))))
            }
        }
    }
}

/// What is wrong with a line, and at which byte of it: the parser's own count of lines says nothing here.
pub(crate) fn in_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let reason = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason);
    match error.column() {
        0 => reason.to_owned(),
        column => format!("{reason} (column {column})"),
    }
}

/// The objects of a JSON Lines file, whole.
///
/// # Errors
/// When the file cannot be opened; what is wrong with a line comes out of the iterator.
pub(crate) fn json_values(
    file: &TextFile,
) -> Result<impl Iterator<Item = Result<Value, DataError>> + use<>, DataError> {
    let mut rows = JsonLineRows::new(Lines::open(file)?, String::new(), false);
    Ok(std::iter::from_fn(move || {
        let line = match rows.line() {
            Ok(line) => line?.0,
            Err(error) => return Some(Err(error)),
        };
        let (path, number) = (rows.lines.shown.to_path_buf(), rows.lines.count);
        Some(serde_json::from_str(&line).map_err(|error| DataError::JsonLine {
            path,
            line: number,
            reason: format!("not JSON: {}", in_line(&error)),
        }))
    }))
}

impl Iterator for JsonLineRows {
    type Item = Result<Row, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            match self.read() {
                Ok(Some(row)) if row.text.is_empty() => {}
                Ok(Some(row)) => return Some(Ok(row)),
                Ok(None) => self.ended = true,
                Err(error) => {
                    self.ended = !error.is_row();
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
