//! From a recipe to what the loop needs: tokenizer, token shards, model.
//!
//! A run folder keeps its own tokenizer and shards, so that a resume reads exactly what the run read.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::{DType, Device};
use fornax_base::files::{FileSystem, write_folder_atomic};
use fornax_data::corpus;
use fornax_data::dataset::{DATASET_FILE, Dataset, PrepareOptions, PrepareProgress, prepare};
use fornax_data::error::DataError;
use fornax_data::sources::{Source, documents};
use fornax_data::tokenizer::Tokenizer;
use fornax_model::weights::{LoadOptions, TensorFile, from_tensors, load, read_config};
use fornax_model::{Decoder, ModelConfig};

use crate::checkpoint::{self, Checkpoint};
use crate::error::TrainError;
use crate::recipe::{ModelShape, Precision, TokenizerKind, TrainRecipe};

/// What is being prepared, for a progress bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preparing {
    /// The tokenizer is being trained.
    Tokenizer,
    /// Text is being counted and encoded.
    Data(PrepareProgress),
}

/// Bytes of the embedded corpus where the recipe does not say.
const CORPUS_BYTES: u64 = 8_000_000;

/// Folder of the tokenizer inside a run folder.
pub const TOKENIZER_FOLDER: &str = "tokenizer";
/// Folder of the token shards inside a run folder.
pub const DATA_FOLDER: &str = "data";

/// The text a recipe trains on.
pub(crate) fn sources(recipe: &TrainRecipe) -> Result<Vec<Source>, TrainError> {
    let data = &recipe.data;
    if data.is_corpus() {
        let bytes = data.corpus_bytes.unwrap_or(CORPUS_BYTES) as usize;
        return Ok(vec![Source::Corpus { seed: recipe.seed, split: corpus::Split::Train, bytes }]);
    }
    let field = data.text_field.as_deref();
    Ok(vec![Source::from_path(Path::new(&data.source), field)?])
}

/// The tokenizer of the run: the one kept in its folder, or made now and kept.
pub(crate) fn tokenizer(
    fs: &dyn FileSystem,
    folder: &Path,
    recipe: &TrainRecipe,
    sources: &[Source],
    progress: &mut dyn FnMut(Preparing),
) -> Result<Tokenizer, TrainError> {
    let kept = folder.join(TOKENIZER_FOLDER);
    if !kept.exists() {
        keep_tokenizer(fs, folder, &new_tokenizer(recipe, sources, progress)?)?;
    }
    // Read back, so that a new and a resumed run work with the same tokenizer, kept byte for byte.
    Ok(Tokenizer::load(&kept)?)
}

/// Keeps the tokenizer of a run in its folder, where none is yet.
pub(crate) fn keep_tokenizer(fs: &dyn FileSystem, folder: &Path, tokenizer: &Tokenizer) -> Result<(), TrainError> {
    let kept = folder.join(TOKENIZER_FOLDER);
    Ok(write_folder_atomic::<DataError>(fs, &kept, &mut |temporary| tokenizer.save(fs, temporary))?)
}

/// The tokenizer a recipe asks for, made anew.
pub(crate) fn new_tokenizer(
    recipe: &TrainRecipe,
    sources: &[Source],
    progress: &mut dyn FnMut(Preparing),
) -> Result<Tokenizer, TrainError> {
    progress(Preparing::Tokenizer);
    let made = match (&recipe.model.init, &recipe.tokenizer) {
        (Some(model), _) => Tokenizer::load(model)?,
        (None, Some(tokenizer)) => match (tokenizer.kind, &tokenizer.path) {
            (TokenizerKind::Bpe, _) => {
                let size = tokenizer.vocab_size.unwrap_or(DEFAULT_VOCABULARY);
                Tokenizer::train_bpe(&mut documents(sources)?, size, &mut |_| {})?
            }
            (TokenizerKind::Characters, _) => Tokenizer::characters(&mut documents(sources)?)?,
            (TokenizerKind::File, path) => Tokenizer::load(path.as_deref().unwrap_or(Path::new("")))?,
        },
        (None, None) => Tokenizer::train_bpe(&mut documents(sources)?, DEFAULT_VOCABULARY, &mut |_| {})?,
    };
    Ok(made)
}

const DEFAULT_VOCABULARY: usize = 4096;

/// Whether the run keeps token shards already.
pub(crate) fn has_dataset(folder: &Path) -> bool {
    folder.join(DATA_FOLDER).join(DATASET_FILE).exists()
}

/// The token shards of the run: those kept in its folder, verified, or encoded now.
pub(crate) fn dataset(
    fs: &dyn FileSystem,
    folder: &Path,
    recipe: &TrainRecipe,
    sources: &[Source],
    tokenizer: &Tokenizer,
    progress: &mut dyn FnMut(Preparing),
) -> Result<Dataset, TrainError> {
    let kept = folder.join(DATA_FOLDER);
    if has_dataset(folder) {
        let dataset = Dataset::open(&kept)?;
        let (found, expected) = (tokenizer.fingerprint(), dataset.manifest().tokenizer.clone());
        return match found == expected {
            true => Ok(dataset),
            false => Err(TrainError::TokenizerDiffers { folder: folder.to_path_buf(), found, expected }),
        };
    }
    fornax_base::files::create_folder(fs, &kept)?;
    let mut options = PrepareOptions::new(recipe.seed);
    options.validation_fraction = recipe.data.validation_fraction;
    let report = &mut |part| progress(Preparing::Data(part));
    Ok(prepare(fs, sources, tokenizer, &kept, &options, report)?.dataset)
}

/// The model a recipe starts from, off the autodiff device, in f32.
pub(crate) fn decoder(
    recipe: &TrainRecipe,
    tokenizer: &Tokenizer,
    device: &Device,
) -> Result<(Decoder, Vec<String>), TrainError> {
    let (mut decoder, warnings) = match &recipe.model.init {
        Some(folder) => {
            let options = LoadOptions { dtype: Some(DType::F32), strict: true };
            let loaded = load(folder, options, device)?;
            (loaded.decoder, loaded.warnings)
        }
        None => (Decoder::init(&config(recipe, tokenizer)?, recipe.seed, device), Vec::new()),
    };
    set_up(&mut decoder, recipe);
    Ok((decoder, warnings))
}

/// The model of a checkpoint, off the autodiff device. Its shape lies beside the checkpoints, so that a resume
/// needs no `model.init` folder.
pub(crate) fn saved_decoder(
    recipe: &TrainRecipe,
    saved: &Checkpoint,
    device: &Device,
) -> Result<Decoder, TrainError> {
    let unfit = |source| TrainError::CheckpointModel { path: saved.path().to_path_buf(), source };
    let config = read_config(saved.path().parent().unwrap_or(Path::new(""))).map_err(unfit)?;
    let file = TensorFile::open(&saved.path().join(checkpoint::MODEL_FILE)).map_err(unfit)?;
    let mut decoder = from_tensors(&config, &file, device).map_err(unfit)?;
    set_up(&mut decoder, recipe);
    Ok(decoder)
}

/// What a recipe says of a model besides its weights.
fn set_up(decoder: &mut Decoder, recipe: &TrainRecipe) {
    decoder.set_compute(compute(recipe.train.precision));
    decoder.set_activation_checkpointing(recipe.train.activation_checkpointing);
}

/// The configuration of the run's model.
pub(crate) fn config(recipe: &TrainRecipe, tokenizer: &Tokenizer) -> Result<ModelConfig, TrainError> {
    let config = match (&recipe.model.init, recipe.model_shape()?) {
        (Some(folder), _) => read_config(folder)?,
        (None, Some(shape)) => ModelConfig {
            bos_id: tokenizer.bos_id(),
            eos_ids: tokenizer.eos_id().into_iter().collect(),
            pad_id: tokenizer.pad_id(),
            ..shaped(&shape, recipe.train.context, tokenizer.vocab_size())
        },
        (None, None) => return Err(recipe.check().err().map_or_else(missing_shape, Into::into)),
    };
    config.check()?;
    if recipe.train.context > config.context {
        let model = recipe.model.init.clone().unwrap_or_default();
        return Err(TrainError::Context { context: recipe.train.context, model, limit: config.context });
    }
    if tokenizer.vocab_size() > config.vocab_size {
        let (tokenizer, model) = (tokenizer.vocab_size(), config.vocab_size);
        return Err(TrainError::Vocabulary { tokenizer, model });
    }
    Ok(config)
}

fn missing_shape() -> TrainError {
    TrainError::Config(fornax_model::ConfigError::Missing { key: "num_hidden_layers" })
}

/// A new model of this shape, without special tokens.
pub(crate) fn shaped(shape: &ModelShape, context: usize, vocab_size: usize) -> ModelConfig {
    ModelConfig {
        vocab_size,
        width: shape.width,
        n_heads: shape.n_heads,
        n_kv_heads: shape.n_kv_heads,
        head_dim: shape.head_dim,
        ffn_width: shape.ffn_width,
        context,
        norm_eps: shape.norm_eps,
        logit_softcap: shape.logit_softcap,
        rope_theta: shape.rope_theta,
        tied: shape.tied,
        ..ModelConfig::llama(shape.n_layers)
    }
}

/// Dtype of a precision.
pub fn compute(precision: Precision) -> DType {
    match precision {
        Precision::F32 => DType::F32,
        Precision::Bf16 => DType::BF16,
        Precision::F16 => DType::F16,
    }
}

/// A precision in the recipe's words.
pub(crate) fn word(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "f32",
        Precision::Bf16 => "bf16",
        Precision::F16 => "f16",
    }
}

/// What a run reads and measures with.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) dataset: Dataset,
}
