//! The model a run starts from: where it lies, and whether it is still the same on resume.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fornax_base::files::{FileSystem, read_text_limited, sha256_file, write_atomic_bytes};
use fornax_data::hub::{Hub, is_hub};
use fornax_train::TrainError;
use fornax_train::run::MODEL_FOLDER;
use fornax_train::setup::Preparing;
use serde::{Deserialize, Serialize};

use crate::error::TuneError;
use crate::recipe::FinetuneRecipe;

/// What a run remembers of its base, inside the run folder.
pub(crate) const BASE_FILE: &str = "base.json";
/// Files whose content decides what a base computes.
const DECISIVE: [&str; 2] = ["config.json", "tokenizer.json"];

/// A base as a run remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Remembered {
    /// As the recipe names it.
    base: String,
    /// SHA-256 of each decisive file.
    files: BTreeMap<String, String>,
}

/// The folder of `model.base`: a model folder, the model of a run folder, or one of the hub, fetched where the cache
/// has none.
///
/// # Errors
/// When nothing is there.
pub fn folder(base: &str, progress: &mut dyn FnMut(Preparing)) -> Result<PathBuf, TrainError> {
    if is_hub(base) {
        let hub = Hub::from_env().map_err(fornax_data::DataError::from)?;
        let path = base.parse().map_err(fornax_data::DataError::from)?;
        let folder = hub.fetch_model(&path, &mut |part| progress(Preparing::Hub(part)));
        return Ok(folder.map_err(fornax_data::DataError::from)?);
    }
    local(Path::new(base))
}

/// The folder of a base on this machine.
pub fn local(path: &Path) -> Result<PathBuf, TrainError> {
    let exported = path.join(MODEL_FOLDER);
    match path {
        _ if path.join("config.json").exists() => Ok(path.to_path_buf()),
        _ if exported.join("config.json").exists() => Ok(exported),
        _ if !path.exists() => Err(TuneError::NoBase { path: path.to_path_buf() }.into()),
        _ => Err(TuneError::NotAModel { path: path.to_path_buf() }.into()),
    }
}

impl Remembered {
    /// The base as it lies there now.
    pub(crate) fn of(base: &str, folder: &Path) -> Result<Self, TrainError> {
        let mut files = BTreeMap::new();
        let entries = std::fs::read_dir(folder)
            .map_err(|source| fornax_data::DataError::Read { path: folder.to_path_buf(), source })?;
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if DECISIVE.contains(&name.as_str()) || name.ends_with(".safetensors") {
                files.insert(name, sha256_file(&entry.path())?.1);
            }
        }
        Ok(Self { base: base.to_owned(), files })
    }

    /// What tells this model, as the run begins with it, from others: its files, and how they are read.
    pub(crate) fn key(&self, recipe: &FinetuneRecipe) -> String {
        let files: Vec<String> = self.files.iter().map(|(name, sum)| format!("{name} {sum}")).collect();
        let read = (&recipe.model.packed, recipe.model.block, recipe.train.precision, &recipe.adapter);
        format!("{} {}", files.join(" "), serde_json::to_string(&read).unwrap_or_default())
    }

    /// Writes it into a run folder that has none, or compares it with what the run was made with.
    pub(crate) fn keep_or_compare(&self, fs: &dyn FileSystem, run: &Path) -> Result<(), TrainError> {
        let path = run.join(BASE_FILE);
        if !path.exists() {
            let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
            bytes.push(b'\n');
            return Ok(write_atomic_bytes(fs, &path, &bytes)?);
        }
        let text = read_text_limited(&path, 1 << 20)?;
        let kept: Remembered = serde_json::from_str(&text)
            .map_err(|error| TuneError::BadBaseFile { path: path.clone(), what: error.to_string() })?;
        for (file, expected) in &kept.files {
            let found = self.files.get(file);
            if found != Some(expected) {
                let found = found.map_or("no such file", String::as_str).to_owned();
                let (file, expected) = (file.clone(), expected.clone());
                return Err(TuneError::BaseChanged { base: self.base.clone(), file, found, expected }.into());
            }
        }
        Ok(())
    }
}
