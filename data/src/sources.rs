//! Where documents come from: text, JSON Lines and Parquet files, folders of them, the embedded corpus. Knows nothing
//! of tokens; files of the hub are fetched by [`crate::hub`] and read here.

mod json_lines;
mod parquet;
mod text;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;
use fornax_base::files::sha256_file;
use sha2::{Digest, Sha256};

use self::json_lines::JsonLineRows;
pub(crate) use self::json_lines::{in_line, json_values};
use self::parquet::ParquetRows;
use self::text::TextRows;
use crate::corpus;
use crate::digest;
use crate::error::DataError;
use crate::hub::{Hub, HubError, HubProgress, is_hub};

/// A longer document is refused: it must fit into memory, with its tokens, several times.
pub const MAX_DOCUMENT_BYTES: u64 = 512 << 20;
/// The field of a JSON Lines object, or the column of a Parquet file, that holds the text unless another is named.
pub const TEXT_FIELD: &str = "text";
/// What the names of readable files end in.
pub const ENDINGS: [&str; 5] = [".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".parquet"];

/// Documents in order, each as its text or as the reason why it cannot be read.
pub type Documents = Box<dyn Iterator<Item = Result<String, DataError>> + Send>;

/// Documents with their places. After an error of a single row ([`DataError::is_row`]) the next row follows; after any
/// other error there is no more.
pub type Rows = Box<dyn Iterator<Item = Result<Row, DataError>> + Send>;

/// A document and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The document.
    pub text: String,
    /// The file as the user knows it, or `corpus`.
    pub file: Arc<Path>,
    /// Line of a text or JSON Lines file at which the document begins, row of a Parquet file, number of a story: all
    /// from 1.
    pub number: u64,
    /// Whether bytes that are not UTF-8 were replaced by U+FFFD.
    pub repaired: bool,
}

/// How the text of a file is found in its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One document, or several divided by lines that hold `<|endoftext|>` and nothing else. The line break in front
    /// of such a line belongs to it; everything else, carriage returns included, is kept. A byte order mark at the
    /// start of the file is dropped.
    Text,
    /// One JSON object a line, one of whose fields is the text. Blank lines are passed over.
    JsonLines,
    /// A JSON list of objects; rows of post-training data alone come from it.
    Json,
    /// A column of strings, read page by page.
    Parquet,
}

/// A file documents are read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextFile {
    /// Where it lies.
    pub path: PathBuf,
    /// How messages and lists name it: the path as given, or its place in a repository of the hub.
    pub shown: PathBuf,
    /// How it is read.
    pub format: Format,
    /// Whether it is compressed with gzip, of one member or several.
    pub gzip: bool,
}

impl TextFile {
    /// The file at `path`, shown as `shown`, by the end of `shown`, which must be one of `endings`.
    pub(crate) fn new(path: PathBuf, shown: PathBuf, endings: &[&'static str]) -> Option<TextFile> {
        let name = shown.to_str()?;
        let ending = *endings.iter().filter(|ending| name.ends_with(**ending)).max_by_key(|e| e.len())?;
        let format = match ending {
            ".parquet" => Format::Parquet,
            ".json" | ".json.gz" => Format::Json,
            ".jsonl" | ".jsonl.gz" => Format::JsonLines,
            _ => Format::Text,
        };
        Some(TextFile { path, format, gzip: ending.ends_with(".gz"), shown })
    }
}

/// Files in the order they are read, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextFiles {
    /// The files; never empty.
    pub files: Vec<TextFile>,
    /// Field or column of the text.
    pub field: String,
    /// Replace bytes that are not UTF-8 by U+FFFD instead of reporting them as errors.
    pub replace_invalid: bool,
}

/// A place documents are read from, in an order that does not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Files, one after another.
    Files(TextFiles),
    /// The embedded corpus.
    Corpus {
        /// Decides the stories.
        seed: u64,
        /// Training stories or held-out ones.
        split: corpus::Split,
        /// How much of it, in bytes.
        bytes: usize,
    },
}

/// What a source held when it was read: equal fingerprints mean equal documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    /// The path as given, or the parameters of the corpus.
    pub(crate) name: String,
    /// Bytes of the file, or of the corpus's text.
    pub(crate) bytes: u64,
    /// Their SHA-256 in hexadecimal.
    pub(crate) sha256: String,
}

impl Source {
    /// The source a path stands for: a file with one of [`ENDINGS`], or a folder, whose files with such names are read
    /// in the order of their names (folders in it are not entered). `field` names the field or column of the text,
    /// [`TEXT_FIELD`] when absent.
    ///
    /// # Errors
    /// When nothing is there, or it is none of these.
    pub fn from_path(path: &Path, field: Option<&str>) -> Result<Source, DataError> {
        match files_at(path, &ENDINGS)? {
            files if files.is_empty() => Err(DataError::NotASource(path.to_owned())),
            files => Ok(Source::from_files(files, field)),
        }
    }

    /// The source a text stands for: `hf:owner/name...` is fetched through `hub`, asked for when it is needed; anything
    /// else is a path, as in [`Source::from_path`].
    ///
    /// # Errors
    /// As [`Source::from_path`] and [`Hub::fetch`].
    pub fn named(
        name: &str,
        field: Option<&str>,
        hub: &dyn Fn() -> Result<Hub, HubError>,
        progress: &mut dyn FnMut(HubProgress),
    ) -> Result<Source, DataError> {
        match is_hub(name) {
            true => Ok(Source::from_files(hub()?.fetch(&name.parse()?, progress)?, field)),
            false => Source::from_path(Path::new(name), field),
        }
    }

    /// A source of these files, in this order.
    pub(crate) fn from_files(files: Vec<TextFile>, field: Option<&str>) -> Source {
        Source::Files(TextFiles { files, field: field.unwrap_or(TEXT_FIELD).to_owned(), replace_invalid: false })
    }

    /// The same source, in which bytes that are not UTF-8 become U+FFFD.
    #[must_use]
    pub fn replacing_invalid(mut self, replace: bool) -> Source {
        if let Source::Files(files) = &mut self {
            files.replace_invalid = replace;
        }
        self
    }

    /// The documents. Files are read as the iterator advances, one document in memory at a time.
    ///
    /// # Errors
    /// When a file cannot be opened. What is wrong further in comes out of the iterator, naming file and line.
    pub fn documents(&self) -> Result<Documents, DataError> {
        Ok(Box::new(self.rows()?.map(|row| Ok(row?.text))))
    }

    /// The documents with their places.
    ///
    /// # Errors
    /// As [`Source::documents`].
    pub fn rows(&self) -> Result<Rows, DataError> {
        match self {
            Source::Corpus { seed, split, bytes } => {
                let file: Arc<Path> = Path::new("corpus").into();
                let row = move |(text, number)| Ok(Row { text, file: Arc::clone(&file), number, repaired: false });
                Ok(Box::new(corpus::documents(*seed, *split, *bytes).zip(1..).map(row)))
            }
            Source::Files(files) => {
                for file in &files.files {
                    open(&file.path)?;
                }
                let TextFiles { files, field, replace_invalid } = files.clone();
                let rows = files.into_iter().map(move |file| file_rows(&file, &field, replace_invalid));
                Ok(Box::new(UntilError { rows: Box::new(rows.flatten()), ended: false }))
            }
        }
    }

    /// The files behind the source, in order; none for the corpus.
    pub fn files(&self) -> &[TextFile] {
        match self {
            Source::Corpus { .. } => &[],
            Source::Files(files) => &files.files,
        }
    }

    /// What the source holds now, file by file.
    pub(crate) fn content(&self) -> Result<Vec<Content>, DataError> {
        let files = match self {
            Source::Corpus { seed, split, bytes } => {
                let name = format!("embedded corpus, seed {seed}, split {split:?}, {bytes} bytes");
                return Ok(vec![corpus_content(name, self.documents()?)?]);
            }
            Source::Files(files) => files,
        };
        let describe = |file: &TextFile| -> Result<Content, DataError> {
            let (bytes, sha256) = sha256_file(&file.path)?;
            let field = match file.format {
                Format::Text => String::new(),
                _ => format!(" field {}", files.field),
            };
            let invalid = if files.replace_invalid { ", invalid UTF-8 replaced" } else { "" };
            Ok(Content { name: format!("{}{field}{invalid}", file.shown.display()), bytes, sha256 })
        };
        files.files.iter().map(describe).collect()
    }
}

/// All documents of `sources`, in order.
///
/// # Errors
/// As [`Source::documents`].
pub fn documents(sources: &[Source]) -> Result<Documents, DataError> {
    Ok(Box::new(rows(sources)?.map(|row| Ok(row?.text))))
}

/// All documents of `sources` with their places, in order.
///
/// # Errors
/// As [`Source::documents`].
pub fn rows(sources: &[Source]) -> Result<Rows, DataError> {
    let parts = sources.iter().map(Source::rows).collect::<Result<Vec<_>, _>>()?;
    Ok(Box::new(UntilError { rows: Box::new(parts.into_iter().flatten()), ended: false }))
}

/// Rows up to an error that is not that of a single row.
struct UntilError {
    rows: Rows,
    ended: bool,
}

impl Iterator for UntilError {
    type Item = Result<Row, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let row = self.rows.next()?;
        self.ended = matches!(&row, Err(error) if !error.is_row());
        Some(row)
    }
}

fn corpus_content(name: String, documents: Documents) -> Result<Content, DataError> {
    let mut hash = Sha256::new();
    let mut bytes = 0;
    for document in documents {
        let document = document?;
        bytes += document.len() as u64;
        hash.update(document.as_bytes());
        // Keeps the places of the cuts in the hash; no text holds this byte.
        hash.update([0xFF]);
    }
    Ok(Content { name, bytes, sha256: digest::hex(&hash.finalize()) })
}

/// The file at a path, or the files of a folder in the order of their names, whose names end in one of `endings`.
pub(crate) fn files_at(path: &Path, endings: &[&'static str]) -> Result<Vec<TextFile>, DataError> {
    match std::fs::metadata(path).map_err(read_error(path))?.is_dir() {
        true => files_in(path, endings),
        false => Ok(TextFile::new(path.to_owned(), path.to_owned(), endings).into_iter().collect()),
    }
}

fn files_in(folder: &Path, endings: &[&'static str]) -> Result<Vec<TextFile>, DataError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(read_error(folder))? {
        let path = entry.map_err(read_error(folder))?.path();
        if path.is_file() {
            files.extend(TextFile::new(path.clone(), path, endings));
        }
    }
    files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn file_rows(file: &TextFile, field: &str, replace_invalid: bool) -> Rows {
    let reader = match file.format {
        Format::Parquet => {
            return match ParquetRows::open(file, field) {
                Ok(rows) => Box::new(rows.replacing_invalid(replace_invalid)),
                Err(error) => Box::new(std::iter::once(Err(error))),
            };
        }
        _ => Lines::open(file),
    };
    match (reader, file.format) {
        (Err(error), _) => Box::new(std::iter::once(Err(error))),
        (Ok(lines), Format::JsonLines) => Box::new(JsonLineRows::new(lines, field.to_owned(), replace_invalid)),
        (Ok(lines), _) => Box::new(TextRows::new(lines, replace_invalid)),
    }
}

/// Opens a regular file; opening a pipe would wait for its writer.
pub(crate) fn open(path: &Path) -> Result<File, DataError> {
    if !std::fs::metadata(path).map_err(read_error(path))?.is_file() {
        return Err(DataError::NotASource(path.to_owned()));
    }
    File::open(path).map_err(read_error(path))
}

fn read_error(path: &Path) -> impl FnOnce(std::io::Error) -> DataError + use<> {
    let path = path.to_owned();
    move |source| DataError::Read { path, source }
}

/// The lines of a file, decompressed where needed, counted.
pub(crate) struct Lines {
    shown: Arc<Path>,
    pub(crate) reader: Box<dyn BufRead + Send>,
    gzip: bool,
    /// Bytes (after decompression) and lines read so far.
    pub(crate) offset: u64,
    pub(crate) count: u64,
}

const BUFFER_BYTES: usize = 1 << 18;

impl Lines {
    pub(crate) fn open(file: &TextFile) -> Result<Lines, DataError> {
        let plain = BufReader::with_capacity(BUFFER_BYTES, open(&file.path)?);
        let reader: Box<dyn BufRead + Send> = match file.gzip {
            true => Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(plain))),
            false => Box::new(plain),
        };
        Ok(Lines { shown: file.shown.as_path().into(), reader, gzip: file.gzip, offset: 0, count: 0 })
    }

    /// Appends bytes up to and including the next line break to `buffer`, at most so many that one more than `limit`
    /// is never exceeded. Returns how many came: 0 at the end of the file.
    pub(crate) fn append(&mut self, buffer: &mut Vec<u8>, limit: u64) -> Result<usize, DataError> {
        let room = (limit + 1).saturating_sub(buffer.len() as u64);
        let n = self.reader.by_ref().take(room).read_until(b'\n', buffer).map_err(|e| self.broken(e))?;
        self.offset += n as u64;
        self.count += u64::from(n > 0);
        Ok(n)
    }

    /// Passes over the rest of a line of which a part was read.
    pub(crate) fn skip_line(&mut self) -> Result<(), DataError> {
        loop {
            let piece = match self.reader.fill_buf() {
                Ok(piece) => piece,
                Err(error) => return Err(self.broken(error)),
            };
            let (n, ended) = match piece.iter().position(|byte| *byte == b'\n') {
                Some(at) => (at + 1, true),
                None => (piece.len(), piece.is_empty()),
            };
            self.reader.consume(n);
            self.offset += n as u64;
            if ended {
                return Ok(());
            }
        }
    }

    /// A gzip stream that does not decompress is damaged; other failures are those of the disk.
    pub(crate) fn broken(&self, error: std::io::Error) -> DataError {
        let path = self.shown.to_path_buf();
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof
            | std::io::ErrorKind::InvalidInput
            | std::io::ErrorKind::InvalidData
                if self.gzip =>
            {
                DataError::Broken { path, what: "line", after: self.count, reason: error.to_string() }
            }
            _ => DataError::Read { path, source: error },
        }
    }

    fn row(&self, text: String, number: u64, repaired: bool) -> Row {
        Row { text, file: Arc::clone(&self.shown), number, repaired }
    }
}

#[cfg(test)]
mod tests;
