//! From a post-training recipe to what the loop needs: base, adapter, rows, objective, and what the run leaves.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor};
use fornax_base::files::{FileSystem, read_text_limited};
use fornax_data::example_batches::{Arrangement, ExampleBatches};
use fornax_data::examples::Example;
use fornax_data::held_out::HeldOut;
use fornax_data::hub::Hub;
use fornax_data::loading::{FitOptions, LoadReport, Loaded, ReadOptions};
use fornax_data::records::Records;
use fornax_data::rendering::{PromptStyle, Renderer};
use fornax_data::tokenizer::Tokenizer;
use fornax_model::adapter::{AdapterConfig, Init, Targets};
use fornax_model::weights::peft::{self, AdapterFolder};
use fornax_model::weights::{LoadOptions, TensorFile, load, read_config, save as save_model};
use fornax_model::Decoder;
use fornax_train::TrainError;
use fornax_train::checkpoint::{self, Checkpoint};
use fornax_train::objective::{Evaluation, LossTerm, Objective, Product, Ready};
use fornax_train::pretraining::SHARD_BYTES;
use fornax_train::recipe::Settings;
use fornax_train::run::{MODEL_FOLDER, Opened, RunRecipe, Surroundings};
use fornax_train::setup::{Preparing, compute};

use crate::base::{self, Remembered};
use crate::error::TuneError;
use crate::recipe::{
    AdapterRecipe, CORPUS, CORPUS_ROWS, DataRecipe, FinetuneRecipe, InitRecipe, ObjectiveKind, TargetsRecipe,
};
use crate::sft::Sft;

/// Folder of the adapter inside a run folder.
pub const ADAPTER_FOLDER: &str = "adapter";

impl RunRecipe for FinetuneRecipe {
    type Objective = Box<dyn Objective>;

    fn resolved(&self) -> Result<Self, TrainError> {
        FinetuneRecipe::resolved(self)
    }

    fn settings(&self) -> Settings {
        FinetuneRecipe::settings(self)
    }

    fn own_names() -> &'static [&'static str] {
        &[ADAPTER_FOLDER, base::BASE_FILE]
    }

    fn begin(
        &self,
        _: &Surroundings,
        _: &Path,
        keep_recipe: &mut dyn FnMut() -> Result<(), TrainError>,
        _: &mut dyn FnMut(Preparing),
    ) -> Result<(), TrainError> {
        // What can be wrong with base and rows is seen in `open`, after which a refused run leaves nothing.
        keep_recipe()
    }

    fn open(
        &self,
        around: &Surroundings,
        folder: &Path,
        from: Option<&Checkpoint>,
        progress: &mut dyn FnMut(Preparing),
    ) -> Result<Opened<Self::Objective>, TrainError> {
        let base = Base::open(self, &around.device, progress)?;
        Remembered::of(&self.model.base, &base.folder)?.keep_or_compare(&*around.fs, folder)?;
        let mut facts = Vec::new();
        let objective = objective(self, &base, &mut facts, progress)?;
        let Base { mut decoder, tokenizer, style, warnings, .. } = base;
        attach(&mut decoder, self)?;
        decoder.set_compute(compute(self.train.precision));
        decoder.set_activation_checkpointing(self.train.activation_checkpointing);
        let mut decoder = decoder.trainable(true);
        if let Some(checkpoint) = from {
            take_up(&mut decoder, checkpoint, &around.device)?;
        }
        facts.push(decoder.trainable_line());
        let Prepared { objective, rows_per_epoch } = objective;
        let steps = self.train.epochs.map(|epochs| {
            (rows_per_epoch as f64 * epochs / self.train.batch as f64).ceil().max(1.0) as u64
        });
        let product = Box::new(Tuned { tokenizer, style, adapter: self.adapter.is_some() });
        let objective: Box<dyn Objective> = match decoder.active_adapter() {
            Some(_) => Box::new(WithDropout { objective, seed: self.seed, step: 0 }),
            None => objective,
        };
        Ok(Opened { decoder, objective, product, steps, facts, warnings })
    }
}

/// The base of a run, off the autodiff device, in f32 or packed.
pub struct Base {
    /// Where it lies.
    pub folder: PathBuf,
    /// The model.
    pub decoder: Decoder,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// How conversations are written for it.
    pub style: Option<PromptStyle>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Base {
    fn open(
        recipe: &FinetuneRecipe,
        device: &Device,
        progress: &mut dyn FnMut(Preparing),
    ) -> Result<Self, TrainError> {
        let folder = base::folder(&recipe.model.base, progress)?;
        let config = read_config(&folder)?;
        if recipe.train.context > config.context {
            let (context, limit) = (recipe.train.context, config.context);
            return Err(TrainError::Context { context, model: folder, limit });
        }
        let tokenizer = Arc::new(Tokenizer::load(&folder)?);
        if tokenizer.vocab_size() > config.vocab_size {
            let (tokenizer, model) = (tokenizer.vocab_size(), config.vocab_size);
            return Err(TrainError::Vocabulary { tokenizer, model });
        }
        let style = match &recipe.data.template {
            Some(template) => Some(PromptStyle::named(template, &tokenizer)?),
            None => PromptStyle::of_folder(&folder)?,
        };
        let options = LoadOptions { dtype: Some(DType::F32), strict: true };
        let loaded = load(&folder, options, device)?;
        let mut decoder = loaded.decoder;
        end_turns(&mut decoder, &tokenizer, style.as_ref());
        Ok(Self { folder, decoder, tokenizer, style, warnings: loaded.warnings })
    }
}

/// A model that learns to end its turns with a token stops there when it generates, too.
fn end_turns(decoder: &mut Decoder, tokenizer: &Tokenizer, style: Option<&PromptStyle>) {
    let Some(end) = style.and_then(|style| style.end_of_turn(tokenizer)) else { return };
    decoder.add_eos_id(end);
}

/// Puts the recipe's adapter on the model.
fn attach(decoder: &mut Decoder, recipe: &FinetuneRecipe) -> Result<(), TrainError> {
    let Some(adapter) = &recipe.adapter else { return Ok(()) };
    let attached = match &adapter.from {
        Some(folder) => AdapterFolder::open(folder).and_then(|folder| folder.attach(decoder, "default")),
        None => {
            let config = config(adapter, &recipe.model.base);
            config.check().and_then(|()| decoder.attach("default", config, recipe.seed))
        }
    };
    attached.map(|_| ()).map_err(|error| TuneError::Adapter(error).into())
}

/// The adapter's settings in the model's words.
fn config(adapter: &AdapterRecipe, base: &str) -> AdapterConfig {
    let targets = |targets: &TargetsRecipe| match targets {
        TargetsRecipe::Word(word) if word == "all-linear" => Targets::AllLinear,
        TargetsRecipe::Word(pattern) => Targets::Regex(pattern.clone()),
        TargetsRecipe::Names(names) => Targets::Names(names.clone()),
    };
    AdapterConfig {
        dropout: adapter.dropout,
        rslora: adapter.rslora,
        dora: adapter.dora,
        exclude: adapter.exclude.as_ref().map(targets),
        layers_to_transform: adapter.layers_to_transform.clone(),
        rank_pattern: adapter.rank_pattern.clone().into_iter().collect(),
        alpha_pattern: adapter.alpha_pattern.clone().into_iter().collect(),
        modules_to_save: adapter.modules_to_save.clone(),
        init: match adapter.init {
            InitRecipe::Kaiming => Init::Kaiming,
            InitRecipe::Gaussian => Init::Gaussian,
        },
        base_model: Some(base.trim_start_matches("hf:").to_owned()),
        ..AdapterConfig::lora(adapter.r, adapter.alpha(), targets(&adapter.targets))
    }
}

/// Gives what learns the values of a checkpoint.
fn take_up(decoder: &mut Decoder, checkpoint: &Checkpoint, device: &Device) -> Result<(), TrainError> {
    let unfit = |source| TrainError::CheckpointModel { path: checkpoint.path().to_path_buf(), source };
    let file = TensorFile::open(&checkpoint.path().join(checkpoint::MODEL_FILE)).map_err(unfit)?;
    let mut lacking = Vec::new();
    decoder.visit_mut(&mut |name, mut parameter| {
        if !parameter.is_trainable() {
            return;
        }
        let n: usize = parameter.shape().iter().product();
        match file.vector(name, device).filter(|values: &Tensor<1>| values.dims()[0] == n) {
            Some(values) => parameter.set_flat(values),
            None => lacking.push(name.to_owned()),
        }
    });
    match lacking.is_empty() {
        true => Ok(()),
        false => Err(TuneError::CheckpointLacks { path: checkpoint.path().to_path_buf(), names: lacking }.into()),
    }
}

/// An objective and how many of its rows are an epoch.
struct Prepared {
    objective: Box<dyn Objective>,
    rows_per_epoch: u64,
}

/// Reads the rows and makes the recipe's objective.
fn objective(
    recipe: &FinetuneRecipe,
    base: &Base,
    facts: &mut Vec<String>,
    progress: &mut dyn FnMut(Preparing),
) -> Result<Prepared, TrainError> {
    let reader = Reader { recipe, base };
    let (rows, micro) = (recipe.train.micro_batch(), recipe.train.batch / recipe.train.micro_batch());
    match recipe.objective {
        ObjectiveKind::Sft => {
            let (train, held) = reader.examples(facts, progress)?;
            let arrangement = match recipe.data.packing.unwrap_or(true) {
                true => Arrangement::Packed,
                false => Arrangement::Padded,
            };
            let context = recipe.train.context;
            let batches =
                |rows_of, rows| ExampleBatches::new(Arc::new(rows_of), rows, context, arrangement, recipe.seed);
            let held_out = match held.is_empty() {
                true => Vec::new(),
                false => batches(held, rows)?.in_order(),
            };
            let batches = batches(train, rows)?;
            facts.push(format!(
                "{} rows an epoch, {:.1} % of their places padding",
                batches.windows(),
                100.0 * batches.padding()
            ));
            let rows_per_epoch = batches.windows();
            let objective = Box::new(Sft::new(batches, held_out, micro));
            Ok(Prepared { objective, rows_per_epoch })
        }
    }
}

/// Reads the recipe's rows for its base.
struct Reader<'a> {
    recipe: &'a FinetuneRecipe,
    base: &'a Base,
}

impl Reader<'_> {
    /// Rows to train on and rows held out.
    fn examples(
        &self,
        facts: &mut Vec<String>,
        progress: &mut dyn FnMut(Preparing),
    ) -> Result<(Vec<Example>, Vec<Example>), TrainError> {
        self.split(facts, progress, fornax_data::loading::examples)
    }

    fn split<T>(
        &self,
        facts: &mut Vec<String>,
        progress: &mut dyn FnMut(Preparing),
        load: fn(&Records, &ReadOptions, &Renderer<'_>, FitOptions) -> Result<Loaded<T>, fornax_data::DataError>,
    ) -> Result<(Vec<T>, Vec<T>), TrainError> {
        let data = &self.recipe.data;
        let renderer = Renderer::new(&self.base.tokenizer, self.base.style.as_ref());
        let fit = FitOptions { mask: data.mask, context: self.recipe.train.context, truncate: data.truncate };
        let mut read = |source: &str, limit| -> Result<Loaded<T>, TrainError> {
            let records = self.records(source, progress)?;
            let options = ReadOptions {
                format: data.format,
                fields: data.fields.clone(),
                skip_bad_rows: data.skip_bad_rows,
                limit,
            };
            let loaded = load(&records, &options, &renderer, fit)?;
            facts.extend(told(source, &loaded.report));
            Ok(loaded)
        };
        let limit = data.rows.filter(|_| data.source != CORPUS);
        let train = read(&data.source, limit)?;
        let measured = self.recipe.eval.rows;
        if let Some(source) = &data.validation {
            let held = read(source, None)?;
            return Ok((train.rows, held.rows.into_iter().take(measured).collect()));
        }
        let part = match data.validation_fraction {
            0.0 => HeldOut::Nothing,
            fraction => HeldOut::Fraction(fraction),
        };
        let (train, mut held) = train.split(self.recipe.seed, part)?;
        held.truncate(measured);
        Ok((train, held))
    }

    fn records(&self, source: &str, progress: &mut dyn FnMut(Preparing)) -> Result<Records, TrainError> {
        if source == CORPUS {
            let rows = self.recipe.data.rows.unwrap_or(CORPUS_ROWS);
            return Ok(crate::corpus::records(self.recipe.objective, self.recipe.seed, rows));
        }
        let mut report = |part| progress(Preparing::Hub(part));
        Ok(Records::named(source, &Hub::from_env, &mut report)?)
    }
}

/// What was read, as sentences.
fn told(source: &str, report: &LoadReport) -> Vec<String> {
    let mut lines = vec![format!(
        "{source}: {}; {} rows, {} tokens, {} of them trained, the longest {}, {} bytes in memory",
        report.detected, report.rows, report.tokens, report.trained, report.longest, report.bytes
    )];
    let cut = &report.truncated;
    if cut.any() {
        lines.push(format!(
            "{source}: {} rows lost their end, {} the beginning of their prompt, {} were left out, to fit the context",
            cut.end, cut.prompt, cut.dropped
        ));
    }
    if report.skipped > 0 {
        lines.push(format!("{source}: {} rows were passed over: {}", report.skipped, report.skipped_because.join("; ")));
    }
    lines
}

/// An objective whose model drops some of its adapter's inputs while it learns.
struct WithDropout {
    objective: Box<dyn Objective>,
    seed: u64,
    step: u64,
}

impl Objective for WithDropout {
    fn prepare(
        &mut self,
        decoder: &Decoder,
        step: u64,
        cursor: fornax_data::batches::Cursor,
    ) -> Result<Ready, TrainError> {
        self.step = step;
        self.objective.prepare(decoder, step, cursor)
    }

    fn term(&self, decoder: &Decoder, micro_batch: usize) -> Result<LossTerm, TrainError> {
        let decoder = decoder.with_dropout(self.seed, self.step, micro_batch as u64);
        self.objective.term(&decoder, micro_batch)
    }

    fn evaluate(&mut self, plain: &Decoder) -> Result<Option<Evaluation>, TrainError> {
        self.objective.evaluate(plain)
    }
}

/// What a post-training run leaves: a whole model, or the adapter that was trained.
struct Tuned {
    tokenizer: Arc<Tokenizer>,
    style: Option<PromptStyle>,
    adapter: bool,
}

impl Product for Tuned {
    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn prompt_ids(&self, prompt: &str) -> Result<Vec<u32>, TrainError> {
        match &self.style {
            Some(style) => Ok(style.user_turn(prompt, &self.tokenizer)?),
            None => Ok(self.tokenizer.encode(prompt, true)?),
        }
    }

    fn stop_ids(&self, decoder: &Decoder) -> Vec<u32> {
        decoder.config().eos_ids.clone()
    }

    fn folder(&self) -> &'static str {
        if self.adapter { ADAPTER_FOLDER } else { MODEL_FOLDER }
    }

    fn export(&self, fs: &dyn FileSystem, decoder: &Decoder, folder: &Path) -> Result<(), TrainError> {
        match decoder.active_adapter() {
            Some(adapter) => {
                peft::save(fs, decoder, adapter, DType::F32, folder).map_err(|error| TuneError::Adapter(error).into())
            }
            None => {
                self.tokenizer.save(fs, folder)?;
                Ok(save_model(fs, decoder, DType::F32, SHARD_BYTES, folder)?)
            }
        }
    }
}
