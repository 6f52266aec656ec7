//! Documents of a text file.

use super::{Lines, MAX_DOCUMENT_BYTES, Row};
use crate::error::DataError;
use crate::tokenizer::END_OF_TEXT;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

pub(super) struct TextRows {
    lines: Lines,
    replace_invalid: bool,
    ended: bool,
}

impl TextRows {
    pub(super) fn new(lines: Lines, replace_invalid: bool) -> TextRows {
        TextRows { lines, replace_invalid, ended: false }
    }

    /// The next document, empty ones included; `None` at the end of the file.
    fn read(&mut self) -> Result<Option<Row>, DataError> {
        let (offset, line) = (self.lines.offset, self.lines.count + 1);
        let mut bytes = Vec::new();
        loop {
            let start = bytes.len();
            let n = self.lines.append(&mut bytes, MAX_DOCUMENT_BYTES)?;
            if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
                // What follows belongs to the same document: there is no next one to go on with.
                self.ended = true;
                let (path, line) = (self.lines.shown.to_path_buf(), self.lines.count);
                return Err(DataError::DocumentTooLong { path, line, limit: MAX_DOCUMENT_BYTES });
            }
            if n == 0 {
                self.ended = true;
                break;
            }
            let body = if offset == 0 && start == 0 { after_mark(&bytes) } else { &bytes[start..] };
            if is_separator(body) {
                bytes.truncate(start);
                drop_line_break(&mut bytes);
                break;
            }
        }
        if self.ended && bytes.is_empty() {
            return Ok(None);
        }
        let (text, repaired) = self.text(bytes, offset, line)?;
        Ok(Some(self.lines.row(text, line, repaired)))
    }

    /// The text of a document that begins at byte `offset` of the file, in `line`, and whether it had to be repaired.
    fn text(&self, bytes: Vec<u8>, offset: u64, line: u64) -> Result<(String, bool), DataError> {
        let (mut text, repaired) = match String::from_utf8(bytes) {
            Ok(text) => (text, false),
            Err(error) if self.replace_invalid => (String::from_utf8_lossy(error.as_bytes()).into_owned(), true),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let breaks = error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count() as u64;
                let path = self.lines.shown.to_path_buf();
                return Err(DataError::Utf8 { path, offset: offset + valid as u64, line: line + breaks });
            }
        };
        if offset == 0 && text.starts_with('\u{FEFF}') {
            text.remove(0);
        }
        Ok((text, repaired))
    }
}

impl Iterator for TextRows {
    type Item = Result<Row, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            match self.read() {
                Ok(Some(row)) if row.text.is_empty() => {}
                Ok(Some(row)) => return Some(Ok(row)),
                Ok(None) => {}
                Err(error) => {
                    self.ended |= !error.is_row();
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

fn after_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
}

fn is_separator(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line) == END_OF_TEXT.as_bytes()
}

fn drop_line_break(bytes: &mut Vec<u8>) {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
}
