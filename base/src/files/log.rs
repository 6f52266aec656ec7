//! A log that grows by whole lines and survives a crash in the middle of one.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::read::{into_text, open_regular};
use super::{FileError, FileSystem, WritableFile, parent_of, read_limited, write_atomic};

/// A line log open at its end. One writer at a time: take the folder's lock before opening it.
pub struct AppendLog {
    fs: Arc<dyn FileSystem>,
    path: PathBuf,
    file: Box<dyn WritableFile>,
    /// Length of the whole lines in bytes.
    len: u64,
    /// True after a failed write, when part of a line may stand behind `len`.
    torn: bool,
}

impl AppendLog {
    /// Opens a log, creating it when absent and cutting off a torn last line.
    ///
    /// # Errors
    /// [`FileError::NotAFile`], or the operation that failed.
    pub fn open(fs: Arc<dyn FileSystem>, path: &Path) -> Result<Self, FileError> {
        let len = match whole_lines_len(path) {
            Ok((whole, found)) => {
                if whole < found {
                    fs.set_len(path, whole).map_err(FileError::io("cut the torn last line of", path))?;
                }
                Some(whole)
            }
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let file = fs.open_append(path).map_err(FileError::io("open", path))?;
        if len.is_none() {
            fs.sync_folder(parent_of(path)).map_err(FileError::io("sync the folder of", path))?;
        }
        Ok(Self { fs, path: path.to_path_buf(), file, len: len.unwrap_or(0), torn: false })
    }

    /// Appends one line in one write; the line break is added here.
    ///
    /// # Errors
    /// [`FileError::LineBreak`] when `line` holds one; or the failed write. After a failed write the log still holds
    /// whole lines only: the torn one is cut off before the next, or at the next opening.
    pub fn append_line(&mut self, line: &str) -> Result<(), FileError> {
        if let Some(at) = line.find('\n') {
            return Err(FileError::LineBreak { path: self.path.clone(), at, len: line.len() });
        }
        if self.torn {
            self.fs
                .set_len(&self.path, self.len)
                .map_err(FileError::io("cut the torn last line of", &self.path))?;
            self.torn = false;
        }
        let bytes = format!("{line}\n");
        if let Err(error) = self.file.write_all(bytes.as_bytes()) {
            self.torn = true;
            return Err(FileError::io("append to", &self.path)(error));
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Waits until every line appended so far has reached the disk.
    ///
    /// # Errors
    /// The operating system's refusal.
    pub fn sync(&mut self) -> Result<(), FileError> {
        self.file.sync().map_err(FileError::io("sync", &self.path))
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

/// Length of the whole lines of a file and its full length, in bytes.
fn whole_lines_len(path: &Path) -> Result<(u64, u64), FileError> {
    let (mut file, found) = open_regular(path)?;
    let whole = last_break_end(&mut file, found).map_err(FileError::io("read", path))?;
    Ok((whole, found))
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
