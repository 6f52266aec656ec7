//! Documents of a JSON Lines file.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{MAX_DOCUMENT_BYTES, read_error, read_line};
use crate::error::DataError;

pub(super) struct JsonLineDocuments {
    path: PathBuf,
    reader: BufReader<File>,
    field: String,
    /// Bytes and lines read so far.
    offset: u64,
    lines: u64,
    ended: bool,
}

impl JsonLineDocuments {
    pub(super) fn new(path: &Path, reader: BufReader<File>, field: String) -> JsonLineDocuments {
        JsonLineDocuments { path: path.to_owned(), reader, field, offset: 0, lines: 0, ended: false }
    }

    /// The text of the next line that is not blank; `None` at the end of the file.
    fn read(&mut self) -> Result<Option<String>, DataError> {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let n = read_line(&mut self.reader, &mut bytes, MAX_DOCUMENT_BYTES).map_err(read_error(&self.path))?;
            if n == 0 {
                return Ok(None);
            }
            let from = self.offset;
            self.offset += n as u64;
            self.lines += 1;
            if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
                let (path, line) = (self.path.clone(), self.lines);
                return Err(DataError::DocumentTooLong { path, line, limit: MAX_DOCUMENT_BYTES });
            }
            let line = std::str::from_utf8(&bytes).map_err(|error| DataError::Utf8 {
                path: self.path.clone(),
                offset: from + error.valid_up_to() as u64,
                line: self.lines,
            })?;
            let line = if from == 0 { line.strip_prefix('\u{FEFF}').unwrap_or(line) } else { line };
            if !line.trim().is_empty() {
                return self.text(line).map(Some);
            }
        }
    }

    fn text(&self, line: &str) -> Result<String, DataError> {
        let wrong = |reason: String| DataError::JsonLine { path: self.path.clone(), line: self.lines, reason };
        let mut object: Map<String, Value> =
            serde_json::from_str(line).map_err(|error| wrong(format!("not a JSON object: {error}")))?;
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

impl Iterator for JsonLineDocuments {
    type Item = Result<String, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            match self.read() {
                Ok(Some(text)) if text.is_empty() => {}
                Ok(Some(text)) => return Some(Ok(text)),
                Ok(None) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
