//! Bounded reading of regular files, and their sha-256.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use super::FileError;

/// Reads a whole regular file of at most `limit_bytes`.
///
/// # Errors
/// [`FileError::NotAFile`] for a folder, pipe or device (which is never opened in a way that waits),
/// [`FileError::TooLarge`] with both lengths, or the operating system's refusal.
pub fn read_limited(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, FileError> {
    let (file, found) = open_regular(path)?;
    let too_large = |found| FileError::TooLarge { path: path.to_path_buf(), found, limit: limit_bytes };
    if found > limit_bytes {
        return Err(too_large(found));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(found).unwrap_or(0));
    // One byte more than allowed tells a file that grew since its length was asked.
    let read = file.take(limit_bytes.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(FileError::io("read", path))?;
    if bytes.len() as u64 > limit_bytes {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
}

/// [`read_limited`], as UTF-8 text.
///
/// # Errors
/// Those of [`read_limited`], and [`FileError::NotText`].
pub fn read_text_limited(path: &Path, limit_bytes: u64) -> Result<String, FileError> {
    into_text(path, read_limited(path, limit_bytes)?)
}

/// The sha-256 of some bytes in 64 lower-case hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Length in bytes and sha-256 (64 lower-case hexadecimal digits) of a regular file, read in pieces of constant size.
///
/// # Errors
/// [`FileError::NotAFile`], or the operating system's refusal.
pub fn sha256_file(path: &Path) -> Result<(u64, String), FileError> {
    let (mut file, _) = open_regular(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => return Ok((total, hex(&hasher.finalize()))),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(FileError::io("read", path)(error)),
        };
        hasher.update(&buffer[..read]);
        total += read as u64;
    }
}

/// Opens a regular file for reading and tells its length in bytes.
///
/// # Errors
/// [`FileError::NotAFile`] for a folder, pipe or device (which is never opened in a way that waits), or the operating
/// system's refusal.
pub fn open_regular(path: &Path) -> Result<(File, u64), FileError> {
    let check = |about: &Metadata| match kind_name(about) {
        None => Ok(about.len()),
        Some(found) => Err(FileError::NotAFile { path: path.to_path_buf(), found }),
    };
    // Looking before opening keeps devices untouched; O_NONBLOCK keeps a pipe that appears in between from waiting.
    check(&fs::metadata(path).map_err(FileError::io("open", path))?)?;
    let flags = OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.map_err(FileError::io("open", path))?;
    let len = check(&file.metadata().map_err(FileError::io("look at", path))?)?;
    Ok((file, len))
}

pub(super) fn into_text(path: &Path, bytes: Vec<u8>) -> Result<String, FileError> {
    String::from_utf8(bytes).map_err(|error| FileError::NotText {
        path: path.to_path_buf(),
        valid: error.utf8_error().valid_up_to(),
        found: error.as_bytes().len(),
    })
}

fn kind_name(about: &Metadata) -> Option<&'static str> {
    let kind = about.file_type();
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("a folder")
    } else if kind.is_fifo() {
        Some("a pipe")
    } else if kind.is_socket() {
        Some("a socket")
    } else {
        Some("a device")
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
