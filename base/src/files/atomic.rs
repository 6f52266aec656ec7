//! Files and folders that appear complete or not at all: temporary name in the same folder, write, `fsync`, rename,
//! `fsync` of the folder.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::{FileError, FileSystem, WritableFile, parent_of, temps};

const BUFFER_BYTES: usize = 256 * 1024;

/// Writes `path` through `write` so that a reader, at any moment and after any crash, finds the old file or the new
/// one. The file keeps the mode that the umask gives; a file already there is replaced.
///
/// # Errors
/// The operation that failed, with `path`. The old file is then intact, unless the last step alone failed (waiting for
/// the folder to reach the disk), when the new one is already in place.
pub fn write_atomic(
    fs: &dyn FileSystem,
    path: &Path,
    write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
) -> Result<(), FileError> {
    let (temp, file) = create_temp(fs, path)?;
    let placed =
        fill(file, path, write).and_then(|()| fs.rename(&temp, path).map_err(FileError::io("replace", path)));
    if let Err(error) = placed {
        // The error that counts is the one above; what stays behind is cleaned by `remove_stale_temps`.
        let _ = fs.remove_file(&temp);
        return Err(error);
    }
    fs.sync_folder(parent_of(path)).map_err(FileError::io("sync the folder of", path))
}

/// [`write_atomic`] of bytes already in memory.
///
/// # Errors
/// Those of [`write_atomic`].
pub fn write_atomic_bytes(fs: &dyn FileSystem, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write_atomic(fs, path, &mut |out| out.write_all(bytes))
}

/// Writes a new file and waits until it has reached the disk, without the rename: for use inside the `build` of
/// [`write_folder_atomic`], where nobody looks yet.
///
/// # Errors
/// The operation that failed; also when `path` exists.
pub fn write_file_synced(
    fs: &dyn FileSystem,
    path: &Path,
    write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
) -> Result<(), FileError> {
    let file = fs.create_new(path).map_err(FileError::io("create", path))?;
    fill(file, path, write)
}

/// Builds a folder that appears complete or not at all. `build` receives the temporary folder `<name>.tmp-<pid>`
/// beside `final_path`, writes into it with [`write_file_synced`], and the folder is renamed afterwards. A leftover of
/// the same temporary name is removed beforehand.
///
/// # Errors
/// [`FileError::Exists`] when `final_path` exists; what `build` returned; or the operation that failed. The temporary
/// folder is removed again, and nothing stands at `final_path`, unless the last step alone failed (waiting for the
/// parent folder to reach the disk), when the complete folder is already in place.
pub fn write_folder_atomic<E: From<FileError>>(
    fs: &dyn FileSystem,
    final_path: &Path,
    build: &mut dyn FnMut(&Path) -> Result<(), E>,
) -> Result<(), E> {
    refuse_existing(final_path)?;
    let temp = temps::folder_beside(final_path)?;
    remove_if_there(fs, &temp)?;
    let placed = build_and_rename(fs, &temp, final_path, build);
    if let Err(error) = placed {
        let _ = fs.remove_folder(&temp);
        return Err(error);
    }
    fs.sync_folder(parent_of(final_path)).map_err(FileError::io("sync the folder of", final_path))?;
    Ok(())
}

/// Removes a folder so that a crash leaves it whole or not there: renamed to a temporary name beforehand, which
/// [`super::remove_stale_temps`] finishes off after a crash.
///
/// # Errors
/// The operation that failed.
pub fn remove_folder_atomic(fs: &dyn FileSystem, path: &Path) -> Result<(), FileError> {
    let temp = temps::folder_beside(path)?;
    remove_if_there(fs, &temp)?;
    fs.rename(path, &temp).map_err(FileError::io("remove", path))?;
    fs.sync_folder(parent_of(path)).map_err(FileError::io("sync the folder of", path))?;
    fs.remove_folder(&temp).map_err(FileError::io("remove", path))
}

/// Creates a folder and those above it, and waits until its entry has reached the disk; no error when it exists.
///
/// # Errors
/// The operation that failed.
pub fn create_folder(fs: &dyn FileSystem, path: &Path) -> Result<(), FileError> {
    fs.create_folder(path).map_err(FileError::io("create the folder", path))?;
    fs.sync_folder(parent_of(path)).map_err(FileError::io("sync the folder of", path))
}

fn create_temp(fs: &dyn FileSystem, path: &Path) -> Result<(PathBuf, Box<dyn WritableFile>), FileError> {
    loop {
        let temp = temps::file_beside(path)?;
        match fs.create_new(&temp) {
            Ok(file) => return Ok((temp, file)),
            // A leftover of a dead process that had our process id; the next counter is free.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(FileError::io("create", path)(error)),
        }
    }
}

fn fill(
    file: Box<dyn WritableFile>,
    path: &Path,
    write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
) -> Result<(), FileError> {
    let mut buffer = BufWriter::with_capacity(BUFFER_BYTES, file);
    let written = write(&mut buffer).and_then(|()| buffer.flush());
    // Taking the file out keeps a failed buffer from being written once more when it is dropped.
    let (mut file, _) = buffer.into_parts();
    written.map_err(FileError::io("write", path))?;
    file.sync().map_err(FileError::io("sync", path))
}

fn build_and_rename<E: From<FileError>>(
    fs: &dyn FileSystem,
    temp: &Path,
    final_path: &Path,
    build: &mut dyn FnMut(&Path) -> Result<(), E>,
) -> Result<(), E> {
    fs.create_folder(temp).map_err(FileError::io("create the folder", final_path))?;
    build(temp)?;
    sync_folder_tree(fs, temp).map_err(FileError::io("sync", final_path))?;
    refuse_existing(final_path)?;
    fs.rename(temp, final_path).map_err(FileError::io("create the folder", final_path))?;
    Ok(())
}

fn sync_folder_tree(fs: &dyn FileSystem, folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folder_tree(fs, &entry.path())?;
        }
    }
    fs.sync_folder(folder)
}

fn refuse_existing(path: &Path) -> Result<(), FileError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Err(FileError::Exists { path: path.to_path_buf() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(FileError::io("look at", path)(error)),
    }
}

fn remove_if_there(fs: &dyn FileSystem, folder: &Path) -> Result<(), FileError> {
    match fs::symlink_metadata(folder) {
        Ok(_) => fs.remove_folder(folder).map_err(FileError::io("remove", folder)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(FileError::io("look at", folder)(error)),
    }
}
