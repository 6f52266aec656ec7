//! Documents of a text file.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use super::{MAX_DOCUMENT_BYTES, read_error, read_line};
use crate::error::DataError;
use crate::tokenizer::END_OF_TEXT;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

pub(super) struct TextDocuments {
    path: PathBuf,
    reader: BufReader<File>,
    /// Bytes and lines read so far.
    offset: u64,
    lines: u64,
    ended: bool,
}

impl TextDocuments {
    pub(super) fn new(path: PathBuf, reader: BufReader<File>) -> TextDocuments {
        TextDocuments { path, reader, offset: 0, lines: 0, ended: false }
    }

    /// The next document, empty ones included; `None` at the end of the file.
    fn read(&mut self) -> Result<Option<String>, DataError> {
        let (offset, line) = (self.offset, self.lines + 1);
        let mut bytes = Vec::new();
        loop {
            let start = bytes.len();
            let n = read_line(&mut self.reader, &mut bytes, MAX_DOCUMENT_BYTES).map_err(read_error(&self.path))?;
            if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
                let (path, line) = (self.path.clone(), self.lines + 1);
                return Err(DataError::DocumentTooLong { path, line, limit: MAX_DOCUMENT_BYTES });
            }
            self.offset += n as u64;
            self.lines += 1;
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
        self.text(bytes, offset, line).map(Some)
    }

    /// The text of a document that begins at byte `offset` of the file, in `line`.
    fn text(&self, bytes: Vec<u8>, offset: u64, line: u64) -> Result<String, DataError> {
        let mut text = String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let breaks = error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count() as u64;
            DataError::Utf8 { path: self.path.clone(), offset: offset + valid as u64, line: line + breaks }
        })?;
        if offset == 0 && text.starts_with('\u{FEFF}') {
            text.remove(0);
        }
        Ok(text)
    }
}

impl Iterator for TextDocuments {
    type Item = Result<String, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            match self.read() {
                Ok(Some(text)) if text.is_empty() => {}
                Ok(Some(text)) => return Some(Ok(text)),
                Ok(None) => {}
                Err(error) => {
                    self.ended = true;
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
