//! Names of what is being built, and the removal of what a dead process left half built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{FileError, FileSystem, parent_of};
use crate::process::is_alive;

const MARK: &str = ".tmp-";

/// The longest file name that Linux and macOS file systems take, in bytes.
const NAME_MAX: usize = 255;

/// `.<name>.tmp-<pid>-<counter>` in the folder of `path`; a new one at each call.
pub(super) fn file_beside(path: &Path) -> Result<PathBuf, FileError> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let end = format!("{MARK}{}-{count}", process::id());
    Ok(parent_of(path).join(format!(".{}{end}", name_cut(path, NAME_MAX - 1 - end.len())?)))
}

/// `<name>.tmp-<pid>` in the folder of `path`; the same at each call of one process.
pub(super) fn folder_beside(path: &Path) -> Result<PathBuf, FileError> {
    let end = format!("{MARK}{}", process::id());
    Ok(parent_of(path).join(format!("{}{end}", name_cut(path, NAME_MAX - end.len())?)))
}

/// Removes what earlier processes left half built directly in `folder`: files `.<name>.tmp-<pid>-<counter>` and
/// folders `<name>.tmp-<pid>` whose process is dead, or which carry this process's own id (a container starts with
/// the same id each time). Call it at start, under the folder's lock, before anything is being written there.
///
/// Returns the removed paths in name order.
///
/// # Errors
/// When the folder cannot be listed or a leftover cannot be removed.
pub fn remove_stale_temps(fs: &dyn FileSystem, folder: &Path) -> Result<Vec<PathBuf>, FileError> {
    let mut stale = Vec::new();
    for entry in fs::read_dir(folder).map_err(FileError::io("list", folder))? {
        let entry = entry.map_err(FileError::io("list", folder))?;
        let kind = entry.file_type().map_err(FileError::io("look at", &entry.path()))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let pid = if kind.is_dir() {
            folder_pid(&name)
        } else if kind.is_file() {
            file_pid(&name)
        } else {
            None
        };
        if pid.is_some_and(|pid| pid == process::id() || !is_alive(pid)) {
            stale.push((entry.path(), kind.is_dir()));
        }
    }
    stale.sort();
    for (path, is_folder) in &stale {
        let removed = if *is_folder { fs.remove_folder(path) } else { fs.remove_file(path) };
        removed.map_err(FileError::io("remove", path))?;
    }
    Ok(stale.into_iter().map(|(path, _)| path).collect())
}

fn file_pid(name: &str) -> Option<u32> {
    let (_, end) = name.strip_prefix('.')?.rsplit_once(MARK)?;
    let (pid, count) = end.split_once('-')?;
    digits::<u64>(count)?;
    digits(pid)
}

fn folder_pid(name: &str) -> Option<u32> {
    digits(name.rsplit_once(MARK)?.1)
}

fn digits<N: std::str::FromStr>(text: &str) -> Option<N> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

fn name_cut(path: &Path, longest: usize) -> Result<String, FileError> {
    let name = path.file_name().ok_or_else(|| FileError::NoName { path: path.to_path_buf() })?;
    let mut name = name.to_string_lossy().into_owned();
    name.truncate(name.floor_char_boundary(longest));
    Ok(name)
}
