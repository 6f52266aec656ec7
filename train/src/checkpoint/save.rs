//! Writing a checkpoint: files, manifest, re-reading, and only then the name

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;

use fornax_base::files::{self, FileError, FileSystem};
use sha2::{Digest, Sha256};

use super::{
    Checkpoint, CheckpointError, MANIFEST_FILE, MODEL_FILE, Manifest, ManifestFile, NamedTensor, OPTIMIZER_FILE,
    STATE_FILE, State, folders, tensors,
};

/// Saves the checkpoint of `step` into `run_folder/checkpoints/` and returns its folder.
///
/// Every file is written and synced under a temporary name, then the manifest, then everything is read again and
/// compared; the folder gets its name last. A checkpoint of the same step that is already there (a run resumed from
/// before it) is replaced, and goes away after the new one is complete. No other checkpoint is touched.
///
/// # Errors
/// A tensor that is not finite or does not fill its shape, the failed operation, or what re-reading found. The
/// checkpoints there before are intact.
pub fn save(
    fs: &dyn FileSystem,
    run_folder: &Path,
    step: u64,
    model: &[NamedTensor<'_>],
    optimizer: &[NamedTensor<'_>],
    state: &State,
) -> Result<PathBuf, CheckpointError> {
    let path = folders::folder_of(run_folder, step);
    if state.step != step {
        return Err(CheckpointError::StepDiffers { path, found: state.step, expected: step });
    }
    tensors::check(model)?;
    tensors::check(optimizer)?;
    let state = state.to_bytes(&path.join(STATE_FILE))?;
    let mut build = |folder: &Path| build(fs, folder, model, optimizer, &state);
    let parent = folders::checkpoints_folder(run_folder);
    if !parent.is_dir() {
        files::create_folder(fs, &parent)?;
    }
    if std::fs::symlink_metadata(&path).is_err() {
        files::write_folder_atomic(fs, &path, &mut build)?;
        return Ok(path);
    }
    let new = folders::replacement_of(&path);
    if std::fs::symlink_metadata(&new).is_ok() {
        files::remove_folder_atomic(fs, &new)?;
    }
    files::write_folder_atomic(fs, &new, &mut build)?;
    replace(fs, &parent, &path, &new)?;
    Ok(path)
}

/// Puts `new` in the place of `path`. After a crash between the two renames, [`super::tidy`] completes the second.
fn replace(fs: &dyn FileSystem, parent: &Path, path: &Path, new: &Path) -> Result<(), CheckpointError> {
    let failed = |source| FileError::Io { op: "replace", path: path.to_path_buf(), source };
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".old.tmp-{}", process::id()));
    let aside = PathBuf::from(aside);
    if std::fs::symlink_metadata(&aside).is_ok() {
        fs.remove_folder(&aside).map_err(failed)?;
    }
    fs.rename(path, &aside).map_err(failed)?;
    if let Err(source) = fs.rename(new, path) {
        // The error that counts is the rename's; the old checkpoint gets its name back where that is possible.
        let _ = fs.rename(&aside, path);
        return Err(failed(source).into());
    }
    fs.sync_folder(parent).map_err(failed)?;
    // A leftover under a temporary name is cleaned at the next start, so it does not make the save a failure.
    let _ = fs.remove_folder(&aside);
    Ok(())
}

fn build(
    fs: &dyn FileSystem,
    folder: &Path,
    model: &[NamedTensor<'_>],
    optimizer: &[NamedTensor<'_>],
    state: &[u8],
) -> Result<(), CheckpointError> {
    let listed = vec![
        write_hashed(fs, folder, MODEL_FILE, &|out| tensors::write(out, model))?,
        write_hashed(fs, folder, OPTIMIZER_FILE, &|out| tensors::write(out, optimizer))?,
        write_hashed(fs, folder, STATE_FILE, &|out| out.write_all(state))?,
    ];
    let manifest = Manifest::new(listed);
    files::write_file_synced(fs, &folder.join(MANIFEST_FILE), &mut |out| out.write_all(&manifest.to_bytes()?))?;
    Checkpoint::open(folder).map(drop)
}

/// Writes a file and takes the checksum of what was meant to be written, so that re-reading finds what the disk made
/// of it.
fn write_hashed(
    fs: &dyn FileSystem,
    folder: &Path,
    name: &str,
    content: &dyn Fn(&mut dyn Write) -> io::Result<()>,
) -> Result<ManifestFile, CheckpointError> {
    let (mut hasher, mut bytes) = (Sha256::new(), 0);
    files::write_file_synced(fs, &folder.join(name), &mut |out| {
        let mut hashing = Hashing { out, hasher: Sha256::new(), bytes: 0 };
        content(&mut hashing)?;
        (hasher, bytes) = (hashing.hasher, hashing.bytes);
        Ok(())
    })?;
    let digest = hasher.finalize();
    Ok(ManifestFile {
        name: name.to_owned(),
        bytes,
        sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
    })
}

struct Hashing<'a> {
    out: &'a mut dyn Write,
    hasher: Sha256,
    bytes: u64,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
