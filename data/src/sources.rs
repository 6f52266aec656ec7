//! Where documents come from: text files, folders of them, JSON Lines, the embedded corpus. Knows nothing of tokens.

mod json_lines;
mod text;

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use fornax_base::files::sha256_file;
use sha2::{Digest, Sha256};

use self::json_lines::JsonLineDocuments;
use self::text::TextDocuments;
use crate::corpus;
use crate::digest;
use crate::error::DataError;

/// A longer document is refused: it must fit into memory, with its tokens, several times.
pub const MAX_DOCUMENT_BYTES: u64 = 512 << 20;
/// The field of a JSON Lines object that holds the text unless another is named.
pub const TEXT_FIELD: &str = "text";

/// Documents in order, each as its text or as the reason why it cannot be read. After an error there is no more.
pub type Documents = Box<dyn Iterator<Item = Result<String, DataError>> + Send>;

/// A place documents are read from, in an order that does not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A text file: one document, or several divided by lines that hold `<|endoftext|>` and nothing else. The line
    /// break in front of such a line belongs to it; everything else, carriage returns included, is kept. A byte order
    /// mark at the start of the file is dropped.
    TextFile(PathBuf),
    /// The `.txt` files of a folder (not of folders in it), sorted by name.
    TextFolder(PathBuf),
    /// A JSON Lines file: one object a line, whose field `field` is the text. Blank lines are passed over.
    JsonLines {
        /// The file.
        path: PathBuf,
        /// Name of the field.
        field: String,
    },
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
    /// The source a path stands for: a folder, a `.jsonl` file, or a `.txt` file. `field` names the text field of JSON
    /// Lines, [`TEXT_FIELD`] when absent.
    ///
    /// # Errors
    /// When nothing is there, or it is none of these.
    pub fn from_path(path: &Path, field: Option<&str>) -> Result<Source, DataError> {
        let about = std::fs::metadata(path).map_err(read_error(path))?;
        let extension = path.extension().and_then(|extension| extension.to_str());
        match extension {
            _ if about.is_dir() => Ok(Source::TextFolder(path.to_owned())),
            Some("jsonl") => {
                Ok(Source::JsonLines { path: path.to_owned(), field: field.unwrap_or(TEXT_FIELD).to_owned() })
            }
            Some("txt") => Ok(Source::TextFile(path.to_owned())),
            _ => Err(DataError::NotASource(path.to_owned())),
        }
    }

    /// The documents. Files are read as the iterator advances, one document in memory at a time.
    ///
    /// # Errors
    /// When the source cannot be opened, or a folder holds no `.txt` file. What is wrong further in comes out of the
    /// iterator, naming file and line.
    pub fn documents(&self) -> Result<Documents, DataError> {
        match self {
            Source::Corpus { seed, split, bytes } => {
                Ok(Box::new(corpus::documents(*seed, *split, *bytes).map(Ok)))
            }
            Source::JsonLines { path, field } => {
                Ok(Box::new(JsonLineDocuments::new(path, open(path)?, field.clone())))
            }
            Source::TextFile(_) | Source::TextFolder(_) => {
                let files = self.files()?;
                for file in &files {
                    open(file)?;
                }
                Ok(Box::new(files.into_iter().flat_map(text_documents)))
            }
        }
    }

    /// The files behind the source, sorted; none for the corpus.
    ///
    /// # Errors
    /// When a folder cannot be read or holds no `.txt` file.
    pub fn files(&self) -> Result<Vec<PathBuf>, DataError> {
        match self {
            Source::Corpus { .. } => Ok(Vec::new()),
            Source::TextFile(path) | Source::JsonLines { path, .. } => Ok(vec![path.clone()]),
            Source::TextFolder(folder) => {
                let files = text_files(folder)?;
                if files.is_empty() { Err(DataError::NotASource(folder.clone())) } else { Ok(files) }
            }
        }
    }

    /// What the source holds now, file by file.
    pub(crate) fn content(&self) -> Result<Vec<Content>, DataError> {
        if let Source::Corpus { seed, split, bytes } = self {
            let name = format!("embedded corpus, seed {seed}, split {split:?}, {bytes} bytes");
            return Ok(vec![corpus_content(name, self.documents()?)?]);
        }
        let field = match self {
            Source::JsonLines { field, .. } => format!(" field {field}"),
            _ => String::new(),
        };
        let describe = |path: &PathBuf| -> Result<Content, DataError> {
            let (bytes, sha256) = sha256_file(path)?;
            Ok(Content { name: format!("{}{field}", path.display()), bytes, sha256 })
        };
        self.files()?.iter().map(describe).collect()
    }
}

/// All documents of `sources`, in order.
///
/// # Errors
/// As [`Source::documents`].
pub fn documents(sources: &[Source]) -> Result<Documents, DataError> {
    let parts = sources.iter().map(Source::documents).collect::<Result<Vec<_>, _>>()?;
    Ok(Box::new(parts.into_iter().flatten()))
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

fn text_files(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(read_error(folder))? {
        let path = entry.map_err(read_error(folder))?.path();
        if path.extension().is_some_and(|extension| extension == "txt") && path.is_file() {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn text_documents(path: PathBuf) -> Documents {
    match open(&path) {
        Ok(reader) => Box::new(TextDocuments::new(path, reader)),
        Err(error) => Box::new(std::iter::once(Err(error))),
    }
}

/// Opens a regular file; opening a pipe would wait for its writer.
fn open(path: &Path) -> Result<BufReader<File>, DataError> {
    if !std::fs::metadata(path).map_err(read_error(path))?.is_file() {
        return Err(DataError::NotASource(path.to_owned()));
    }
    Ok(BufReader::with_capacity(1 << 18, File::open(path).map_err(read_error(path))?))
}

fn read_error(path: &Path) -> impl FnOnce(std::io::Error) -> DataError + use<> {
    let path = path.to_owned();
    move |source| DataError::Read { path, source }
}

/// Appends bytes up to and including the next line break to `buffer`, at most so many that one more than `limit` is
/// never exceeded. Returns how many came.
fn read_line(reader: &mut BufReader<File>, buffer: &mut Vec<u8>, limit: u64) -> std::io::Result<usize> {
    use std::io::BufRead;
    let room = (limit + 1).saturating_sub(buffer.len() as u64);
    reader.by_ref().take(room).read_until(b'\n', buffer)
}

#[cfg(test)]
mod tests;
