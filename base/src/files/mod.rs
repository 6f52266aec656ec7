//! The sole writer of files of the whole project, and the careful reader beside it.
//!
//! A file appears complete or not at all ([`write_atomic`], [`write_folder_atomic`]), or grows by whole lines
//! ([`AppendLog`]). Every change goes through a [`FileSystem`], so that a test can fail its k-th operation
//! ([`crate::testing::FailingFs`]) and look at what a crash there leaves behind.

mod atomic;
mod log;
mod read;
mod temps;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub use atomic::{
    create_folder, remove_folder_atomic, write_atomic, write_atomic_bytes, write_file_synced, write_folder_atomic,
};
pub use log::{AppendFile, AppendLog, cut_log, read_log_lines};
pub use read::{open_regular, read_limited, read_text_limited, sha256_file, sha256_hex};
pub use temps::remove_stale_temps;

/// What can go wrong with a file; `path` is always the path as the caller gave it.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused an operation.
    #[error("cannot {op} `{}`", path.display())]
    Io {
        /// The verb: `write`, `rename`, `read`, ...
        op: &'static str,
        /// The file or folder concerned.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A folder, pipe, socket or device stands where a regular file is expected.
    #[error("`{}` is {found}, but a regular file is expected", path.display())]
    NotAFile {
        /// The path looked at.
        path: PathBuf,
        /// What it is instead: `a folder`, `a pipe`, ...
        found: &'static str,
    },
    /// The file is longer than its reader accepts.
    #[error("`{}` is {found} bytes long, but at most {limit} bytes are accepted here", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        found: u64,
        /// The greatest accepted length in bytes.
        limit: u64,
    },
    /// The file holds no bytes where some are needed.
    #[error("`{}` is 0 bytes long, but at least 1 byte is expected", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file is not UTF-8.
    #[error("`{}` is not UTF-8 text: {valid} of its {found} bytes are valid before the bad byte", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// Length of the valid text at its start, in bytes.
        valid: usize,
        /// Length of what was read, in bytes.
        found: usize,
    },
    /// The destination exists and is not overwritten.
    #[error("`{}` exists already and is not overwritten", path.display())]
    Exists {
        /// The destination.
        path: PathBuf,
    },
    /// A path without a last component (`/`, `..`) names no file.
    #[error("`{}` names no file", path.display())]
    NoName {
        /// The path.
        path: PathBuf,
    },
    /// A log line holds a line break, which would read back as two lines.
    #[error("a line for `{}` holds a line break at byte {at} of {len}", path.display())]
    LineBreak {
        /// The log.
        path: PathBuf,
        /// Offset of the line break in bytes.
        at: usize,
        /// Length of the line in bytes.
        len: usize,
    },
}

impl FileError {
    /// True when the cause is that the file or folder does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// True when the cause is a full disk or quota.
    pub fn is_disk_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    pub(crate) fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { op, path, source }
    }
}

/// An open file being written.
pub trait WritableFile: Write + Send {
    /// Waits until content and length have reached the disk (`fsync`).
    fn sync(&mut self) -> io::Result<()>;
}

/// Every change to the disk that Fornax makes. New files and folders take their mode from the umask.
pub trait FileSystem: Send + Sync {
    /// Opens a new file for writing; `AlreadyExists` when there is one.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn WritableFile>>;
    /// Opens a file for writing at its end, creating it when absent.
    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WritableFile>>;
    /// Sets a file's length in bytes.
    fn set_len(&self, path: &Path, len: u64) -> io::Result<()>;
    /// Renames a file or folder; a file already at `to` is replaced in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Waits until the entries of a folder have reached the disk.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// Creates a folder and those above it; no error when it exists.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder with everything in it.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
}

/// The disk itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

impl WritableFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

impl FileSystem for RealFs {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn WritableFile>> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        Ok(Box::new(file))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WritableFile>> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        Ok(Box::new(file))
    }

    fn set_len(&self, path: &Path, len: u64) -> io::Result<()> {
        OpenOptions::new().write(true).open(path)?.set_len(len)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }
}

/// Opens a lock file for reading and writing, creating it when absent and keeping what it holds.
pub(crate) fn open_lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

/// The folder a path lies in; `.` for a bare name.
pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests;
