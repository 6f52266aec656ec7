//! Checkpoints: everything a run needs to go on as if it had never stopped
//!
//! `checkpoints/step-00000500/` holds `model.safetensors`, `optimizer.safetensors`, `state.json` and `manifest.json`,
//! and appears complete or not at all. Knows named bytes, lengths and checksums; nothing of Burn, of the model or of
//! what a cursor means.

mod error;
mod folders;
mod manifest;
mod save;
mod state;
mod tensors;

use std::path::{Path, PathBuf};

use fornax_base::files::FileError;
use fornax_base::mmap::Mapped;

pub use error::CheckpointError;
pub use folders::{
    Pruned, Skipped, StepFolder, folder_name, folder_of, list, newest_valid, open_step, prune, set_aside_after,
    tidy,
};
pub use manifest::{Manifest, ManifestFile};
pub use safetensors::Dtype;
pub use save::save;
pub use state::{Best, RngPosition, State};
pub use tensors::NamedTensor;

use tensors::TensorIndex;

/// Folder of the checkpoints inside a run folder; beside them lies the `config.json` of the model they hold.
pub const FOLDER: &str = "checkpoints";
/// Name of the parameters' file in a checkpoint folder.
pub const MODEL_FILE: &str = "model.safetensors";
/// Name of the optimizer's file in a checkpoint folder.
pub const OPTIMIZER_FILE: &str = "optimizer.safetensors";
/// Name of the state's file in a checkpoint folder.
pub const STATE_FILE: &str = "state.json";
/// Name of the manifest, written last.
pub const MANIFEST_FILE: &str = "manifest.json";

/// A verified checkpoint: each file had the length and the sha-256 of its manifest when it was opened.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    state: State,
    model: TensorFile,
    optimizer: TensorFile,
}

#[derive(Debug)]
struct TensorFile {
    map: Mapped,
    index: TensorIndex,
}

impl Checkpoint {
    /// Opens a checkpoint folder, maps its files and verifies all of them. A folder named as a checkpoint must hold
    /// the state of that step.
    ///
    /// # Errors
    /// A [`CheckpointError`] naming the file and what was found and expected. Nothing is loaded in part.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let manifest = Manifest::read(path)?;
        let model = TensorFile::parse(verified(path, &manifest, MODEL_FILE)?)?;
        let optimizer = TensorFile::parse(verified(path, &manifest, OPTIMIZER_FILE)?)?;
        let state_bytes = verified(path, &manifest, STATE_FILE)?;
        let state = State::parse(&path.join(STATE_FILE), state_bytes.as_bytes())?;
        for file in &manifest.files {
            if ![MODEL_FILE, OPTIMIZER_FILE, STATE_FILE].contains(&file.name.as_str()) {
                verified(path, &manifest, &file.name)?;
            }
        }
        match folders::step_of(path) {
            Some(expected) if expected != state.step => {
                Err(CheckpointError::StepDiffers { path: path.to_path_buf(), found: state.step, expected })
            }
            _ => Ok(Checkpoint { path: path.to_path_buf(), state, model, optimizer }),
        }
    }

    /// The folder it was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the run stood.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The parameters, sorted by name within a dtype; bytes are read from the mapped file.
    pub fn model_tensors(&self) -> Vec<NamedTensor<'_>> {
        self.model.tensors()
    }

    /// The optimizer's tensors, sorted by name within a dtype; bytes are read from the mapped file.
    pub fn optimizer_tensors(&self) -> Vec<NamedTensor<'_>> {
        self.optimizer.tensors()
    }
}

impl TensorFile {
    fn parse(map: Mapped) -> Result<Self, CheckpointError> {
        let index = tensors::parse(map.path(), map.as_bytes())?;
        Ok(TensorFile { map, index })
    }

    fn tensors(&self) -> Vec<NamedTensor<'_>> {
        self.index.tensors(self.map.as_bytes())
    }
}

/// Maps a listed file and compares length, then checksum, with the manifest.
fn verified(folder: &Path, manifest: &Manifest, name: &str) -> Result<Mapped, CheckpointError> {
    let (path, expected) = manifest.locate(folder, name)?;
    let found = match std::fs::metadata(&path) {
        Ok(about) => about.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(CheckpointError::MissingFile { path });
        }
        Err(source) => {
            let op = "look at";
            return Err(FileError::Io { op, path, source }.into());
        }
    };
    if found != expected.bytes {
        return Err(CheckpointError::LengthDiffers { path, found, expected: expected.bytes });
    }
    let map = Mapped::open(&path)?;
    let found = fornax_base::files::sha256_hex(map.as_bytes());
    if found != expected.sha256 {
        return Err(CheckpointError::ChecksumDiffers { path, found, expected: expected.sha256.clone() });
    }
    Ok(map)
}

#[cfg(test)]
mod tests;
