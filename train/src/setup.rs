//! From a recipe to what the loop needs: tokenizer, token shards, model.
//!
//! A run folder keeps its own tokenizer and shards, so that a resume reads exactly what the run read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{DType, Device};
use fornax_base::files::{FileSystem, write_folder_atomic};
use fornax_data::batches::mixed_validation_batches;
use fornax_data::corpus;
use fornax_data::dataset::{Manifest, PrepareOptions, PrepareProgress, prepare};
use fornax_data::error::DataError;
use fornax_data::hub::{Hub, HubProgress};
use fornax_data::intake::{Filters, Intake};
use fornax_data::mixture::{self, Mixture, PartEntry};
use fornax_data::sources::Source;
use fornax_data::tokenizer::Tokenizer;
use fornax_model::weights::{LoadOptions, TensorFile, from_tensors, load, read_config};
use fornax_model::{Decoder, ModelConfig};

use crate::checkpoint::{self, Checkpoint};
use crate::error::TrainError;
use crate::pretraining::{Pretraining, WholeModel};
use crate::recipe::{
    CORPUS, DEFAULT_VALIDATION_FRACTION, ModelShape, NO_TOKENIZER, Precision, Settings, TokenizerKind, TrainRecipe,
};
use crate::run::{Opened, RunRecipe, Surroundings};

/// What is being prepared, for a progress bar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preparing {
    /// Files of the hub are being fetched.
    Hub(HubProgress),
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

/// One of the sources a recipe trains on.
#[derive(Debug)]
pub(crate) struct Origin {
    /// As the recipe names it.
    name: String,
    weight: f64,
    from: From,
}

/// What a source is.
#[derive(Debug)]
enum From {
    /// Text that is still to be encoded.
    Text(Source),
    /// A folder that `data prepare` made, by an absolute path, and the fingerprint it is listed with.
    Prepared { folder: PathBuf, fingerprint: Option<String> },
}

/// What a recipe trains on; files of the hub are fetched.
pub(crate) fn sources(
    recipe: &TrainRecipe,
    progress: &mut dyn FnMut(Preparing),
) -> Result<Vec<Origin>, TrainError> {
    let data = &recipe.data;
    let mut origins = Vec::new();
    if data.mixture.is_empty() {
        add_origins(recipe, &data.source, data.text_field.as_deref(), 1.0, &mut origins, progress)?;
    }
    for part in &data.mixture {
        add_origins(recipe, &part.source, part.text_field.as_deref(), part.weight, &mut origins, progress)?;
    }
    let is_prepared = origins.iter().any(|origin| matches!(origin.from, From::Prepared { .. }));
    match recipe.model.init.is_none() && recipe.tokenizer.is_none() && !is_prepared {
        true => Err(NO_TOKENIZER.into()),
        false => Ok(origins),
    }
}

fn add_origins(
    recipe: &TrainRecipe,
    name: &str,
    field: Option<&str>,
    weight: f64,
    origins: &mut Vec<Origin>,
    progress: &mut dyn FnMut(Preparing),
) -> Result<(), TrainError> {
    let path = Path::new(name);
    if name == CORPUS {
        let bytes = recipe.data.corpus_bytes.unwrap_or(CORPUS_BYTES) as usize;
        let source = Source::Corpus { seed: recipe.seed, split: corpus::Split::Train, bytes };
        origins.push(Origin { name: name.to_owned(), weight, from: From::Text(source) });
        return Ok(());
    }
    if !mixture::is_prepared(path) {
        let source = Source::named(name, field, &Hub::from_env, &mut |part| progress(Preparing::Hub(part)))?;
        origins.push(Origin { name: name.to_owned(), weight, from: From::Text(source) });
        return Ok(());
    }
    check_prepared(recipe, name, field)?;
    // A run that is resumed from elsewhere must find it again.
    let folder = path.canonicalize().map_err(|source| DataError::Read { path: path.to_owned(), source })?;
    match mixture::read_list(&folder)? {
        None => {
            let from = From::Prepared { folder, fingerprint: None };
            origins.push(Origin { name: name.to_owned(), weight, from });
        }
        Some(parts) => {
            let all: f64 = parts.iter().map(|part| part.weight).sum();
            origins.extend(parts.into_iter().map(|part| Origin {
                name: format!("{name}: {}", part.name),
                weight: weight * part.weight / all,
                from: From::Prepared { folder: part.folder, fingerprint: Some(part.fingerprint) },
            }));
        }
    }
    Ok(())
}

/// Refuses keys that say what was decided when the dataset was prepared.
fn check_prepared(recipe: &TrainRecipe, name: &str, field: Option<&str>) -> Result<(), TrainError> {
    let refuse = |key: &'static str| TrainError::Prepared { source_name: name.to_owned(), key };
    if field.is_some() {
        return Err(refuse("data.text_field"));
    }
    let is_alone = recipe.data.mixture.is_empty();
    if is_alone && !recipe.data.clean.is_empty() {
        return Err(refuse("data.clean"));
    }
    match &recipe.tokenizer {
        Some(tokenizer) if tokenizer.kind != TokenizerKind::File => Err(refuse("tokenizer.kind")),
        _ => Ok(()),
    }
}

/// The texts among the sources.
fn texts(origins: &[Origin]) -> Vec<Source> {
    let text = |origin: &Origin| match &origin.from {
        From::Text(source) => Some(source.clone()),
        From::Prepared { .. } => None,
    };
    origins.iter().filter_map(text).collect()
}

/// The tokenizer of the run: the one kept in its folder, or made now and kept.
pub(crate) fn tokenizer(
    fs: &dyn FileSystem,
    folder: &Path,
    recipe: &TrainRecipe,
    sources: &[Origin],
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

/// The tokenizer a recipe asks for, made anew; that of a prepared dataset where one is among the sources.
pub(crate) fn new_tokenizer(
    recipe: &TrainRecipe,
    origins: &[Origin],
    progress: &mut dyn FnMut(Preparing),
) -> Result<Tokenizer, TrainError> {
    progress(Preparing::Tokenizer);
    let prepared = origins.iter().find_map(|origin| match &origin.from {
        From::Prepared { folder, .. } => Some(folder),
        From::Text(_) => None,
    });
    let sources = texts(origins);
    let filters = filters(recipe);
    let documents = || Intake::documents(&sources, &filters);
    let made = match (&recipe.model.init, &recipe.tokenizer, prepared) {
        (Some(model), _, _) => Tokenizer::load(model)?,
        (None, None, Some(folder)) => Tokenizer::load(mixture::tokenizer_folder(folder).unwrap_or(folder))?,
        (None, Some(tokenizer), _) => match (tokenizer.kind, &tokenizer.path) {
            (TokenizerKind::Bpe, _) => {
                let size = tokenizer.vocab_size.unwrap_or(DEFAULT_VOCABULARY);
                Tokenizer::train_bpe(&mut documents()?, size, &mut |_| {})?
            }
            (TokenizerKind::Characters, _) => Tokenizer::characters(&mut documents()?)?,
            (TokenizerKind::File, path) => Tokenizer::load(path.as_deref().unwrap_or(Path::new("")))?,
        },
        (None, None, None) => return Err(NO_TOKENIZER.into()),
    };
    Ok(made)
}

fn filters(recipe: &TrainRecipe) -> Filters {
    Filters { clean: recipe.data.clean.clone(), ..Filters::default() }
}

const DEFAULT_VOCABULARY: usize = 4096;

/// Whether the run keeps token shards already, or the list of those it reads.
pub(crate) fn has_dataset(folder: &Path) -> bool {
    mixture::is_prepared(&folder.join(DATA_FOLDER))
}

/// The token shards of the run: those kept in its folder or listed there, verified, or encoded now.
pub(crate) fn dataset(
    fs: &dyn FileSystem,
    folder: &Path,
    recipe: &TrainRecipe,
    origins: &[Origin],
    tokenizer: &Tokenizer,
    progress: &mut dyn FnMut(Preparing),
) -> Result<Mixture, TrainError> {
    let kept = folder.join(DATA_FOLDER);
    if !has_dataset(folder) {
        fornax_base::files::create_folder(fs, &kept)?;
        prepare_origins(fs, &kept, recipe, origins, tokenizer, progress)?;
    }
    let mixture = Mixture::open(&kept)?;
    let (found, expected) = (tokenizer.fingerprint(), mixture.tokenizer().to_owned());
    match found == expected {
        true => Ok(mixture),
        false => Err(TrainError::TokenizerDiffers { folder: folder.to_path_buf(), found, expected }),
    }
}

/// Encodes the texts of the sources below `kept`, and lists them there with the prepared ones. A single text lies in
/// `kept` itself.
fn prepare_origins(
    fs: &dyn FileSystem,
    kept: &Path,
    recipe: &TrainRecipe,
    origins: &[Origin],
    tokenizer: &Tokenizer,
    progress: &mut dyn FnMut(Preparing),
) -> Result<(), TrainError> {
    let mut options = PrepareOptions::new(recipe.seed);
    options.validation_fraction = recipe.data.validation_fraction;
    options.filters = filters(recipe);
    let mut encode = |source: &Source, folder: &Path| {
        let report = &mut |part| progress(Preparing::Data(part));
        prepare(fs, std::slice::from_ref(source), tokenizer, folder, &options, report)
    };
    if let [Origin { from: From::Text(source), .. }] = origins {
        encode(source, kept)?;
        return Ok(());
    }
    let mut parts = Vec::new();
    for (index, origin) in origins.iter().enumerate() {
        let (folder, fingerprint) = match &origin.from {
            From::Prepared { folder, fingerprint } => {
                let manifest = Manifest::read(folder)?;
                let (found, asked) = (manifest.validation_fraction, recipe.data.validation_fraction);
                if asked != DEFAULT_VALIDATION_FRACTION && asked != found {
                    let key = "data.validation_fraction";
                    return Err(TrainError::Prepared { source_name: origin.name.clone(), key });
                }
                (folder.clone(), fingerprint.clone().unwrap_or(manifest.fingerprint))
            }
            From::Text(source) => {
                let name = PathBuf::from(format!("part-{index:03}"));
                let prepared = encode(source, &kept.join(&name))?;
                (name, prepared.dataset.manifest().fingerprint.clone())
            }
        };
        parts.push(PartEntry { fingerprint, folder, name: origin.name.clone(), weight: origin.weight });
    }
    Ok(mixture::write_list(fs, kept, parts)?)
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

impl RunRecipe for TrainRecipe {
    type Objective = Pretraining;

    fn resolved(&self) -> Result<Self, TrainError> {
        Ok(TrainRecipe::resolved(self)?)
    }

    fn settings(&self) -> Settings {
        TrainRecipe::settings(self)
    }

    fn own_names() -> &'static [&'static str] {
        &[TOKENIZER_FOLDER, DATA_FOLDER]
    }

    fn begin(
        &self,
        around: &Surroundings,
        folder: &Path,
        keep_recipe: &mut dyn FnMut() -> Result<(), TrainError>,
        progress: &mut dyn FnMut(Preparing),
    ) -> Result<(), TrainError> {
        let sources = sources(self, progress)?;
        let tokenizer = new_tokenizer(self, &sources, progress)?;
        config(self, &tokenizer)?;
        keep_recipe()?;
        // After the recipe: a tokenizer without its recipe would be taken for that of the next run here.
        keep_tokenizer(&*around.fs, folder, &tokenizer)
    }

    fn open(
        &self,
        around: &Surroundings,
        folder: &Path,
        from: Option<&Checkpoint>,
        progress: &mut dyn FnMut(Preparing),
    ) -> Result<Opened<Pretraining>, TrainError> {
        let fs = &*around.fs;
        let sources = if has_dataset(folder) {
            Vec::new() // the shards are there; the text may be gone
        } else {
            sources(self, progress)?
        };
        let tokenizer = tokenizer(fs, folder, self, &sources, progress)?;
        if from.is_none() {
            config(self, &tokenizer)?;
        }
        let dataset = dataset(fs, folder, self, &sources, &tokenizer, progress)?;
        let rows = self.train.micro_batch();
        let validation = match self.eval.every {
            0 => Vec::new(),
            _ => mixed_validation_batches(
                &dataset.validation(),
                rows,
                self.train.context,
                self.eval.tokens,
                self.data.packing,
            )?,
        };
        // Built on the plain device; the parameters alone go to the autodiff device.
        let (decoder, warnings) = match from {
            Some(checkpoint) => (saved_decoder(self, checkpoint, &around.device)?, Vec::new()),
            None => decoder(self, &tokenizer, &around.device)?,
        };
        let tokenizer = Arc::new(tokenizer);
        let objective = Pretraining::new(self, Arc::clone(&tokenizer), dataset, validation)?;
        let product = Box::new(WholeModel::new(tokenizer));
        Ok(Opened {
            decoder: decoder.trainable(true),
            objective,
            product,
            steps: None,
            facts: Vec::new(),
            warnings,
        })
    }
}
