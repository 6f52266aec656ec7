//! A log that grows by whole lines and survives a crash in the middle of one.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::read::{into_text, open_regular};
use super::{FileError, FileSystem, WritableFile, parent_of, read_limited, write_atomic};

/// A file open at its end that grows by whole records, whatever a record is. One writer at a time: take the folder's
/// lock before opening it.
pub struct AppendFile {
    fs: Arc<dyn FileSystem>,
    path: PathBuf,
    file: Box<dyn WritableFile>,
    /// Length of the whole records in bytes.
    len: u64,
    /// True after a failed write, when part of a record may stand behind `len`.
    torn: bool,
}

impl AppendFile {
    /// Opens a file whose opening `len` bytes are whole records and cuts off what stands behind them; creates it when
    /// absent.
    ///
    /// # Errors
    /// [`FileError::NotAFile`], or the operation that failed.
    pub fn open(fs: Arc<dyn FileSystem>, path: &Path, len: u64) -> Result<Self, FileError> {
        let found = match open_regular(path) {
            Ok((_, found)) => Some(found),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        if found.is_some_and(|found| found > len) {
            fs.set_len(path, len).map_err(FileError::io("cut the torn end of", path))?;
        }
        let file = fs.open_append(path).map_err(FileError::io("open", path))?;
        if found.is_none() {
            fs.sync_folder(parent_of(path)).map_err(FileError::io("sync the folder of", path))?;
        }
        let len = found.map_or(0, |found| found.min(len));
        Ok(Self { fs, path: path.to_path_buf(), file, len, torn: false })
    }

    /// Appends one record in one write.
    ///
    /// # Errors
    /// The failed write. The file still holds whole records only: the torn one is cut off before the next, or at the
    /// next opening.
    pub fn append(&mut self, record: &[u8]) -> Result<(), FileError> {
        if self.torn {
            self.fs.set_len(&self.path, self.len).map_err(FileError::io("cut the torn end of", &self.path))?;
            self.torn = false;
        }
        if let Err(error) = self.file.write_all(record) {
            self.torn = true;
            return Err(FileError::io("append to", &self.path)(error));
        }
        self.len += record.len() as u64;
        Ok(())
    }

    /// Waits until every record appended so far has reached the disk.
    ///
    /// # Errors
    /// The operating system's refusal.
    pub fn sync(&mut self) -> Result<(), FileError> {
        self.file.sync().map_err(FileError::io("sync", &self.path))
    }
}

/// A line log open at its end. One writer at a time, as for [`AppendFile`].
pub struct AppendLog {
    file: AppendFile,
}

impl AppendLog {
    /// Opens a log, creating it when absent and cutting off a torn last line.
    ///
    /// # Errors
    /// [`FileError::NotAFile`], or the operation that failed.
    pub fn open(fs: Arc<dyn FileSystem>, path: &Path) -> Result<Self, FileError> {
        let whole = match whole_lines_len(path) {
            Ok(whole) => whole,
            Err(error) if error.is_not_found() => 0,
            Err(error) => return Err(error),
        };
        Ok(Self { file: AppendFile::open(fs, path, whole)? })
    }

    /// Appends one line in one write; the line break is added here.
    ///
    /// # Errors
    /// [`FileError::LineBreak`] when `line` holds one; or the failed write, as of [`AppendFile::append`].
    pub fn append_line(&mut self, line: &str) -> Result<(), FileError> {
        if let Some(at) = line.find('\n') {
            return Err(FileError::LineBreak { path: self.file.path.clone(), at, len: line.len() });
        }
        self.file.append(format!("{line}\n").as_bytes())
    }

    /// Waits until every line appended so far has reached the disk.
    ///
    /// # Errors
    /// The operating system's refusal.
    pub fn sync(&mut self) -> Result<(), FileError> {
        self.file.sync()
    }
}

/// The whole lines of a log, without their line breaks; a torn last line is dropped.
///
/// # Errors
/// [`FileError::NotAFile`], [`FileError::NotText`], or the operating system's refusal.
pub fn read_log_lines(path: &Path) -> Result<Vec<String>, FileError> {
    let mut bytes = read_limited(path, u64::MAX)?;
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    bytes.truncate(whole);
    let text = into_text(path, bytes)?;
    Ok(text.split_terminator('\n').map(str::to_owned).collect())
}

/// Rewrites a log atomically with the lines that `keep` accepts, asked once for each in order. Cut a log before it is
/// opened: an [`AppendLog`] open at that moment would go on writing to the old file.
///
/// # Errors
/// Those of [`read_log_lines`] and [`write_atomic`].
pub fn cut_log(fs: &dyn FileSystem, path: &Path, keep: &mut dyn FnMut(&str) -> bool) -> Result<(), FileError> {
    let mut lines = read_log_lines(path)?;
    lines.retain(|line| keep(line));
    write_atomic(fs, path, &mut |out| lines.iter().try_for_each(|line| writeln!(out, "{line}")))
}

/// Length of the whole lines of a file in bytes.
fn whole_lines_len(path: &Path) -> Result<u64, FileError> {
    let (mut file, found) = open_regular(path)?;
    last_break_end(&mut file, found).map_err(FileError::io("read", path))
}

/// Looks for the last line break backwards, because a log may be long and its last line is short.
fn last_break_end(file: &mut (impl Read + Seek), len: u64) -> io::Result<u64> {
    const PIECE: u64 = 64 * 1024;
    let mut end = len;
    while end > 0 {
        let start = end.saturating_sub(PIECE);
        let mut piece = vec![0; (end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut piece)?;
        if let Some(at) = piece.iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}
