//! What a policy is measured against: a model that does not learn, or its log-probabilities, computed once and kept in
//! the run folder.
//!
//! `reference/` of a run folder holds `logps.safetensors`, one pair of numbers for each pair of rows, and
//! `reference.json`, which names what they were computed from. It appears complete or not at all.

use std::io;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor, TensorData};
use fornax_base::exit::Exit;
use fornax_base::files::{
    FileError, FileSystem, read_limited, remove_folder_atomic, sha256_file, sha256_hex, write_file_synced,
    write_folder_atomic,
};
use fornax_data::examples::Example;
use fornax_model::Decoder;
use fornax_model::weights::{TensorFile, write_tensors};
use fornax_train::TrainError;
use serde::{Deserialize, Serialize};

use crate::dpo::Logps;

/// Folder of the cache inside a run folder.
pub const FOLDER: &str = "reference";
const TENSORS: &str = "logps.safetensors";
const ABOUT: &str = "reference.json";
const FORMAT_VERSION: u32 = 1;
const MAX_ABOUT_BYTES: u64 = 1 << 16;

/// Log-probabilities of both completions of each pair, the chosen one's before the other's.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReferenceLogps {
    /// Of the rows trained on.
    pub train: Vec<[f32; 2]>,
    /// Of those held out.
    pub held_out: Vec<[f32; 2]>,
}

/// A cache that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// The file system.
    #[error(transparent)]
    File(#[from] FileError),
    /// Computed from another model or from other rows than this run's.
    #[error("the reference log-probabilities in `{folder}` are of {found}, this run's are of {expected}")]
    Foreign {
        /// The cache folder.
        folder: PathBuf,
        /// Key in the cache.
        found: String,
        /// Key of the run.
        expected: String,
    },
}

impl ReferenceError {
    /// The exit code of a command that ends with this error.
    pub fn exit(&self) -> Exit {
        match self {
            ReferenceError::File(_) => Exit::Failed,
            ReferenceError::Foreign { .. } => Exit::BadInput,
        }
    }

    /// One action that helps, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            ReferenceError::File(_) => None,
            ReferenceError::Foreign { folder, .. } => Some(format!(
                "base model, rows or chat template changed since the run began: put them back, or start a new run \
                 (without `{}` they are computed again from what is there now)",
                folder.display()
            )),
        }
    }
}

impl From<ReferenceError> for TrainError {
    fn from(error: ReferenceError) -> Self {
        TrainError::Objective { exit: error.exit(), hint: error.hint(), inner: Box::new(error) }
    }
}

/// `reference.json`. Fields are written in this order, which is that of their names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    format_version: u32,
    held_out: usize,
    held_out_key: String,
    sha256: String,
    train: usize,
    train_key: String,
}

/// Rows of a run, by what their log-probabilities depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// How many there are.
    pub n: usize,
    /// Their [`key`].
    pub key: String,
}

/// Names what log-probabilities depend on: the model (`model` is any text that tells one from another, for example the
/// checksum of its files and how it is packed) and the tokens of every row, with them template and tokenizer.
pub fn key<'a>(model: &str, rows: impl IntoIterator<Item = &'a Example>) -> String {
    let mut bytes = model.as_bytes().to_vec();
    for row in rows {
        bytes.extend((row.ids.len() as u64).to_le_bytes());
        bytes.extend(row.ids.iter().flat_map(|id| id.to_le_bytes()));
        bytes.extend(row.trained.iter().map(|&trained| u8::from(trained)));
    }
    sha256_hex(&bytes)
}

/// The cache of a run folder, or what `compute` gives, which is then kept there. A damaged cache is computed again, and
/// so is one of other held-out rows; the sentence that comes with it says what was wrong.
///
/// # Errors
/// [`ReferenceError::Foreign`] when the cache is of another model or other rows to train on, the file system's, and what `compute`
/// reports.
pub fn open_or_compute<E: From<ReferenceError>>(
    fs: &dyn FileSystem,
    run: &Path,
    train: &Rows,
    held_out: &Rows,
    compute: impl FnOnce() -> Result<ReferenceLogps, E>,
) -> Result<(ReferenceLogps, Option<String>), E> {
    let folder = run.join(FOLDER);
    let damage = match read(&folder, train, held_out) {
        Ok(logps) => return Ok((logps, None)),
        Err(Unusable::Foreign { found }) => {
            return Err(ReferenceError::Foreign { folder, found, expected: train.key.clone() }.into());
        }
        Err(Unusable::Absent) => None,
        Err(Unusable::Damaged(why)) => {
            remove_folder_atomic(fs, &folder).map_err(ReferenceError::from)?;
            Some(format!("the reference log-probabilities in `{}` are computed again: {why}", folder.display()))
        }
    };
    let logps = compute()?;
    write(fs, &folder, (&train.key, &held_out.key), &logps)?;
    Ok((logps, damage))
}

enum Unusable {
    Absent,
    Foreign { found: String },
    Damaged(String),
}

fn read(folder: &Path, train: &Rows, held_out: &Rows) -> Result<ReferenceLogps, Unusable> {
    if !folder.exists() {
        return Err(Unusable::Absent);
    }
    let damaged = |error: &dyn std::fmt::Display| Unusable::Damaged(error.to_string());
    let bytes = read_limited(&folder.join(ABOUT), MAX_ABOUT_BYTES).map_err(|e| damaged(&e))?;
    let about: About = serde_json::from_slice(&bytes).map_err(|error| damaged(&format!("`{ABOUT}`: {error}")))?;
    if about.format_version != FORMAT_VERSION {
        let found = about.format_version;
        return Err(damaged(&format!("`{ABOUT}` has format_version {found}, expected {FORMAT_VERSION}")));
    }
    let path = folder.join(TENSORS);
    let (_, sha256) = sha256_file(&path).map_err(|e| damaged(&e))?;
    if sha256 != about.sha256 {
        return Err(damaged(&format!("`{TENSORS}` has SHA-256 {sha256}, `{ABOUT}` says {}", about.sha256)));
    }
    if about.train_key != train.key {
        return Err(Unusable::Foreign { found: about.train_key });
    }
    if about.held_out_key != held_out.key {
        return Err(damaged(&"other rows are held out now"));
    }
    let file = TensorFile::open(&path).map_err(|e| damaged(&e))?;
    let split = |name: &str, expected: usize| -> Result<Vec<[f32; 2]>, Unusable> {
        let values: Vec<f32> = match file.vector(name, &Device::flex()).map(Tensor::into_data) {
            Some(data) => data.try_to_vec().map_err(|error| damaged(&format!("{error:?}")))?,
            None => return Err(damaged(&format!("`{TENSORS}` has no f32 tensor `{name}`"))),
        };
        let pairs = values.as_chunks::<2>().0.to_vec();
        match pairs.len() == expected && values.iter().all(|x| x.is_finite()) {
            true => Ok(pairs),
            false => {
                Err(damaged(&format!("`{name}` holds {} pairs of numbers, expected {expected}", pairs.len())))
            }
        }
    };
    Ok(ReferenceLogps { train: split("train", train.n)?, held_out: split("held_out", held_out.n)? })
}

fn write(
    fs: &dyn FileSystem,
    folder: &Path,
    (train_key, held_out_key): (&str, &str),
    logps: &ReferenceLogps,
) -> Result<(), ReferenceError> {
    let tensor = |name: &str, pairs: &[[f32; 2]]| {
        let data = TensorData::new(pairs.as_flattened().to_vec(), [2 * pairs.len()]);
        (name.to_owned(), vec![pairs.len(), 2], Tensor::<1>::from_data(data, (&Device::flex(), DType::F32)))
    };
    let tensors = [tensor("held_out", &logps.held_out), tensor("train", &logps.train)];
    let mut bytes = Vec::new();
    let in_memory = |error: io::Error| FileError::Io { op: "write", path: folder.join(TENSORS), source: error };
    write_tensors(&tensors, DType::F32, &mut bytes).map_err(in_memory)?;
    let about = About {
        format_version: FORMAT_VERSION,
        held_out: logps.held_out.len(),
        held_out_key: held_out_key.to_owned(),
        sha256: sha256_hex(&bytes),
        train: logps.train.len(),
        train_key: train_key.to_owned(),
    };
    let mut json = serde_json::to_vec_pretty(&about).map_err(|error| in_memory(error.into()))?;
    json.push(b'\n');
    write_folder_atomic::<FileError>(fs, folder, &mut |folder| {
        write_file_synced(fs, &folder.join(TENSORS), &mut |out| out.write_all(&bytes))?;
        write_file_synced(fs, &folder.join(ABOUT), &mut |out| out.write_all(&json))
    })?;
    Ok(())
}

/// A model that does not learn.
pub enum Reference {
    /// The policy without its adapters: no second copy.
    WithoutAdapters,
    /// A copy, off the autodiff device.
    Copy(Box<Decoder>),
}

impl Reference {
    /// The model, where `policy` is the one in training. Handles only: nothing is copied.
    pub(crate) fn model(&self, policy: &Decoder) -> Decoder {
        match self {
            Reference::WithoutAdapters => policy.without_adapters(),
            Reference::Copy(decoder) => (**decoder).clone(),
        }
    }
}

/// Numbers of some pairs as tensors on `device`.
pub(crate) fn on_device(pairs: &[[f32; 2]], device: &Device) -> Logps {
    let side = |k: usize| {
        let values: Vec<f32> = pairs.iter().map(|pair| pair[k]).collect();
        Tensor::from_data(TensorData::new(values, [pairs.len()]), (device, DType::F32))
    };
    Logps { chosen: side(0), rejected: side(1) }
}

#[cfg(test)]
mod tests;
