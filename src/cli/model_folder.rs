//! `--model DIR|RUN`: a model folder, or a run folder whose exported model or newest checkpoint is meant.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{DType, Device};
use fornax_base::exit::Exit;
use fornax_data::tokenizer::Tokenizer;
use fornax_model::Decoder;
use fornax_model::weights::{LoadOptions, TensorFile, WeightsError, from_tensors, load, read_config};
use fornax_train::checkpoint;
use fornax_train::run::{MODEL_FOLDER, RECIPE_FILE};
use fornax_train::setup::TOKENIZER_FOLDER;

use super::report::{Failure, say};

/// A model ready to generate, with its tokenizer.
pub(crate) struct LoadedModel {
    pub(crate) decoder: Decoder,
    pub(crate) tokenizer: Arc<Tokenizer>,
    /// Where the tokenizer and a chat template lie.
    pub(crate) folder: PathBuf,
}

impl LoadedModel {
    /// End-of-text tokens of the configuration and of the tokenizer.
    pub(crate) fn end_ids(&self) -> Vec<u32> {
        let mut ids = self.decoder.config().eos_ids.clone();
        ids.extend(self.tokenizer.eos_id().filter(|id| !ids.contains(id)));
        ids
    }
}

/// Loads `path`; `dtype` `None` keeps the stored one.
pub(crate) fn open(path: &Path, dtype: Option<DType>, device: &Device) -> Result<LoadedModel, Failure> {
    let decoder = open_weights(path, dtype, device)?;
    Ok(LoadedModel { decoder, tokenizer: Arc::new(open_tokenizer(path)?), folder: text_folder(path)? })
}

/// The model of `path` alone: what measures it needs no tokenizer.
pub(crate) fn open_weights(path: &Path, dtype: Option<DType>, device: &Device) -> Result<Decoder, Failure> {
    let folder = match place(path)? {
        Place::Folder(folder) => folder,
        Place::Run => return from_checkpoint(path, dtype, device),
    };
    let options = LoadOptions { dtype, strict: false };
    let loaded = load(&folder, options, device).map_err(weights_failure)?;
    for warning in loaded.warnings {
        say(&format!("warning: {warning}\n"));
    }
    Ok(loaded.decoder)
}

/// The tokenizer of `path`.
pub(crate) fn open_tokenizer(path: &Path) -> Result<Tokenizer, Failure> {
    Tokenizer::load(&text_folder(path)?).map_err(|error| Failure::new(Exit::BadInput, error))
}

/// Where the tokenizer of `path` lies, and its chat template.
fn text_folder(path: &Path) -> Result<PathBuf, Failure> {
    Ok(match place(path)? {
        Place::Folder(folder) => folder,
        Place::Run => path.join(TOKENIZER_FOLDER),
    })
}

/// Where the model of a path is.
enum Place {
    /// In this model folder.
    Folder(PathBuf),
    /// In the checkpoints of the run folder.
    Run,
}

fn place(path: &Path) -> Result<Place, Failure> {
    let exported = path.join(MODEL_FOLDER);
    Ok(match path {
        _ if path.join("config.json").exists() => Place::Folder(path.to_path_buf()),
        _ if exported.join("config.json").exists() => Place::Folder(exported),
        _ if path.join(RECIPE_FILE).exists() => Place::Run,
        _ if !path.exists() => {
            return Err(Failure::input(format_args!("`{}` does not exist", path.display())));
        }
        _ if path.is_file() => return Err(not_a_folder(path)),
        _ => Place::Folder(path.to_path_buf()),
    })
}

fn not_a_folder(path: &Path) -> Failure {
    let pickle = path.extension().is_some_and(|e| ["bin", "pt", "pth", "ckpt"].iter().any(|p| e == *p));
    if pickle {
        return weights_failure(WeightsError::Pickle { path: path.to_path_buf() });
    }
    Failure::input(format_args!("`{}` is a file, but a model folder or run folder is expected", path.display()))
}

/// A run that has not finished: its newest whole checkpoint.
fn from_checkpoint(run: &Path, dtype: Option<DType>, device: &Device) -> Result<Decoder, Failure> {
    let failed = |error: checkpoint::CheckpointError| Failure::new(Exit::Damaged, error);
    let (found, _) = checkpoint::newest_valid(run).map_err(failed)?;
    let Some(found) = found else {
        return Err(Failure::input(format_args!("`{}` has no checkpoint yet", run.display()))
            .hint(format!("`fornax train --resume {}` continues it", run.display())));
    };
    let config = read_config(&run.join(checkpoint::FOLDER)).map_err(weights_failure)?;
    let file = TensorFile::open(&found.path().join(checkpoint::MODEL_FILE)).map_err(weights_failure)?;
    let mut decoder = from_tensors(&config, &file, device).map_err(weights_failure)?;
    decoder.set_compute(dtype.unwrap_or(DType::F32));
    say(&format!("the run has no exported model; using {}\n", found.path().display()));
    Ok(decoder)
}

/// A damaged weights file is damaged data; everything else is wrong input.
pub(crate) fn weights_failure(error: WeightsError) -> Failure {
    let pickle = matches!(error, WeightsError::Pickle { .. });
    let exit = match error {
        WeightsError::Format { .. } | WeightsError::NotFinite { .. } => Exit::Damaged,
        _ => Exit::BadInput,
    };
    let failure = Failure::new(exit, error);
    match pickle {
        true => failure.hint("convert it to safetensors, for example with transformers' save_pretrained"),
        false => failure,
    }
}

/// The folder to name in hints.
pub(crate) fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    match text.contains(' ') {
        true => format!("'{text}'"),
        false => text,
    }
}

/// `runs/<name>`, or `runs/<name>-2` and so on where those are taken.
pub(crate) fn unused_run(name: &str) -> PathBuf {
    let candidate = |n: u32| match n {
        1 => PathBuf::from("runs").join(name),
        _ => PathBuf::from("runs").join(format!("{name}-{n}")),
    };
    (1..).map(candidate).find(|path| !path.exists()).unwrap_or_else(|| candidate(1))
}
