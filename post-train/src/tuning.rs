//! From a post-training recipe to what the loop needs: base, adapter, rows, objective, and what the run leaves.

mod rows;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{DType, Device};
use fornax_base::files::{FileSystem, write_atomic_bytes};
use fornax_data::batches::Cursor;
use fornax_data::example_batches::{Arrangement, ExampleBatches};
use fornax_data::rendering::PromptStyle;
use fornax_data::tokenizer::Tokenizer;
use fornax_model::Decoder;
use fornax_model::adapter::{AdapterConfig, Init, Targets};
use fornax_model::weights::peft::{self, AdapterFolder};
use fornax_model::weights::{
    LoadOptions, TensorFile, load, load_packed, read_config, restore_trainable, save as save_model,
};
use fornax_train::TrainError;
use fornax_train::checkpoint::{self, Checkpoint};
use fornax_train::objective::{Evaluation, LossTerm, Objective, Product, Ready};
use fornax_train::pretraining::SHARD_BYTES;
use fornax_train::recipe::{RecipeCheckError, Settings};
use fornax_train::run::{MODEL_FOLDER, Opened, RunRecipe, Surroundings};
use fornax_train::setup::{Preparing, compute};

use crate::accuracy::Verdicts;
use crate::base::{self, Remembered};
use crate::distill::{Distill, DistillParts};
use crate::error::TuneError;
use crate::grpo::{Grpo, GrpoParts};
use crate::kto::KtoObjective;
use crate::order::Cut;
use crate::preference::{PairLoss, PairObjective, Start};
use crate::recipe::{AdapterRecipe, FinetuneRecipe, InitRecipe, ObjectiveKind, TargetsRecipe};
use crate::reference;
use crate::reward::RewardObjective;
use crate::rewards::Rewards;
use crate::sft::Sft;
pub(crate) use rows::Rows;

/// Where transformers looks for a chat template first.
const TEMPLATE_FILE: &str = "chat_template.jinja";
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
        &[ADAPTER_FOLDER, base::BASE_FILE, reference::FOLDER]
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
        let mut base = Base::open(self, &around.device, progress)?;
        let remembered = Remembered::of(&self.model.base, &base.folder)?;
        remembered.keep_or_compare(&*around.fs, folder)?;
        attach(&mut base.decoder, self)?;
        if self.objective == ObjectiveKind::Reward {
            base.decoder = base.decoder.into_reward_model(self.seed);
        }
        base.decoder.set_compute(compute(self.train.precision));
        let mut facts = Vec::new();
        let model = remembered.key(self);
        let start = Start {
            decoder: &base.decoder,
            is_new_adapter: self.adapter.as_ref().is_some_and(|adapter| adapter.from.is_none()),
            model: &model,
            fs: &*around.fs,
            run: folder,
        };
        let mut rows = Rows { recipe: self, base: &base, facts: &mut facts, progress };
        let Prepared { objective, rows_per_epoch, warning } = objective(self, &start, &mut rows)?;
        let Base { mut decoder, tokenizer, style, mut warnings, .. } = base;
        warnings.extend(warning);
        decoder.set_activation_checkpointing(self.train.activation_checkpointing);
        let mut decoder = decoder.trainable(true);
        if let Some(checkpoint) = from {
            let unfit = |source| TrainError::CheckpointModel { path: checkpoint.path().to_path_buf(), source };
            let file = TensorFile::open(&checkpoint.path().join(checkpoint::MODEL_FILE)).map_err(unfit)?;
            restore_trainable(&mut decoder, &file).map_err(unfit)?;
        }
        facts.push(decoder.trainable_line());
        let steps = self.train.epochs.map(|epochs| self.steps_of(rows_per_epoch, epochs));
        let objective: Box<dyn Objective> = match decoder.active_adapter() {
            Some(_) => Box::new(WithDropout { objective, seed: self.seed, step: 0 }),
            None => objective,
        };
        let product = Box::new(Tuned { tokenizer, style, adapter: self.adapter.is_some() });
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
    pub(crate) fn open(
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
            None => PromptStyle::of_folder(&folder, &tokenizer)?,
        };
        let options = LoadOptions { dtype: Some(DType::F32), strict: true };
        let loaded = match recipe.model.packing().map_err(TuneError::from)? {
            Some(packing) => load_packed(&folder, options, packing, device)?,
            None => load(&folder, options, device)?,
        };
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
pub(crate) fn attach(decoder: &mut Decoder, recipe: &FinetuneRecipe) -> Result<(), TrainError> {
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

/// An objective, how many of its rows are an epoch, and what the user should know.
struct Prepared {
    objective: Box<dyn Objective>,
    rows_per_epoch: u64,
    warning: Option<String>,
}

impl Prepared {
    fn new(objective: impl Objective + 'static, rows_per_epoch: usize) -> Self {
        Self { objective: Box::new(objective), rows_per_epoch: rows_per_epoch as u64, warning: None }
    }
}

/// Reads the rows and makes the recipe's objective.
fn objective(recipe: &FinetuneRecipe, start: &Start<'_>, rows: &mut Rows<'_>) -> Result<Prepared, TrainError> {
    let (micro_batch, seed, context) = (recipe.train.micro_batch(), recipe.seed, recipe.train.context);
    let micro_batches = recipe.train.batch / micro_batch;
    let cut = Cut { rows: micro_batch, micro_batches, seed };
    let stop_ids = start.decoder.config().eos_ids.clone();
    let tokenizer = Arc::clone(&rows.base.tokenizer);
    match recipe.objective {
        ObjectiveKind::Sft => sft(recipe, rows),
        ObjectiveKind::Dpo => pairs(PairLoss::Dpo(recipe.dpo.clone().unwrap_or_default()), start, cut, rows),
        ObjectiveKind::Orpo => pairs(PairLoss::Orpo(recipe.orpo.clone().unwrap_or_default()), start, cut, rows),
        ObjectiveKind::Cpo => pairs(PairLoss::Cpo(recipe.cpo.clone().unwrap_or_default()), start, cut, rows),
        ObjectiveKind::Kto => {
            let (train, held_out) = rows.labelled()?;
            let n = train.len();
            let kto = recipe.kto.clone().unwrap_or_default();
            Ok(Prepared::new(KtoObjective::new(kto, train, held_out, start.reference(), context, cut), n))
        }
        ObjectiveKind::Reward => {
            let (train, held_out) = rows.pairs()?;
            let n = train.len();
            let reward = recipe.reward.clone().unwrap_or_default();
            Ok(Prepared::new(RewardObjective::new(reward, train, held_out, cut), n))
        }
        ObjectiveKind::Grpo => {
            let (train, held_out) = rows.prompts()?;
            let grpo =
                recipe.grpo.clone().ok_or(RecipeCheckError::Missing { key: "grpo", because: NO_SECTION })?;
            // A row of a step is a completion, and a prompt has several.
            let n = train.len() * grpo.num_generations;
            let rewards = Rewards::new(&grpo.rewards).map_err(TuneError::Reward)?;
            let reference = (grpo.beta != 0.0).then(|| start.reference());
            let parts = GrpoParts {
                recipe: grpo,
                rewards,
                tokenizer,
                train,
                held_out,
                reference,
                context,
                stop_ids,
                rows: micro_batch,
                micro_batches,
                seed,
            };
            Ok(Prepared::new(Grpo::new(parts, start.decoder)?, n))
        }
        ObjectiveKind::Distill => {
            let distill =
                recipe.distill.clone().ok_or(RecipeCheckError::Missing { key: "distill", because: NO_SECTION })?;
            let (train, held_out) = rows.examples()?;
            let folder = base::folder(&distill.teacher, rows.progress)?;
            let options = LoadOptions { dtype: Some(DType::F32), strict: true };
            let device = start.decoder.device();
            let loaded = match distill.packing().map_err(TuneError::from)? {
                Some(packing) => load_packed(&folder, options, packing, &device)?,
                None => load(&folder, options, &device)?,
            };
            let mut teacher = loaded.decoder;
            teacher.set_compute(compute(recipe.train.precision));
            let its_tokenizer = Tokenizer::load(&folder)?;
            let n = train.len();
            let parts = DistillParts {
                recipe: distill,
                teacher,
                train,
                held_out,
                context,
                stop_ids,
                rows: micro_batch,
                micro_batches,
                seed,
            };
            Ok(Prepared::new(Distill::new(parts, start.decoder, (&tokenizer, &its_tokenizer))?, n))
        }
    }
}

const NO_SECTION: &str = "`objective` names it";

fn sft(recipe: &FinetuneRecipe, rows: &mut Rows<'_>) -> Result<Prepared, TrainError> {
    let (train, held) = rows.examples()?;
    let arrangement = match recipe.data.packing.unwrap_or(true) {
        true => Arrangement::Packed,
        false => Arrangement::Padded,
    };
    let (micro_batch, context, seed) = (recipe.train.micro_batch(), recipe.train.context, recipe.seed);
    let batches = |examples| ExampleBatches::new(Arc::new(examples), micro_batch, context, arrangement, seed);
    let held_out = match held.is_empty() {
        true => Vec::new(),
        false => batches(held)?.in_order(),
    };
    let batches = batches(train)?;
    let rows_per_epoch = batches.windows() as usize;
    let padding = 100.0 * batches.padding();
    rows.facts.push(format!("{rows_per_epoch} rows of {context} tokens an epoch, {padding:.1} % of them padding"));
    Ok(Prepared::new(Sft::new(batches, held_out, recipe.train.batch / micro_batch), rows_per_epoch))
}

fn pairs(loss: PairLoss, start: &Start<'_>, cut: Cut, rows: &mut Rows<'_>) -> Result<Prepared, TrainError> {
    let (train, held_out) = rows.pairs()?;
    let n = train.len();
    if !held_out.is_empty() {
        let longer = Verdicts::of_the_longer(&held_out);
        rows.facts.push(format!(
            "of {} held-out pairs the longer answer is preferred in {:.1} %, the shorter in {:.1} %",
            held_out.len(),
            100.0 * longer.accuracy(),
            100.0 * longer.reversed().accuracy()
        ));
    }
    let (objective, warning) = PairObjective::open(loss, (train, held_out), start, cut)?;
    Ok(Prepared { warning, ..Prepared::new(objective, n) })
}

/// An objective whose model drops some of its adapter's inputs while it learns.
struct WithDropout {
    objective: Box<dyn Objective>,
    seed: u64,
    step: u64,
}

impl Objective for WithDropout {
    fn prepare(&mut self, decoder: &Decoder, step: u64, cursor: Cursor) -> Result<Ready, TrainError> {
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
            Some(adapter) => peft::save(fs, decoder, adapter, DType::F32, folder)
                .map_err(|error| TuneError::Adapter(error).into()),
            None => {
                self.tokenizer.save(fs, folder)?;
                // What the model was trained with is what it is to be served with.
                if let Some(source) = self.style.as_ref().and_then(PromptStyle::foreign_source) {
                    write_atomic_bytes(fs, &folder.join(TEMPLATE_FILE), source.as_bytes())?;
                }
                Ok(save_model(fs, decoder, DType::F32, SHARD_BYTES, folder)?)
            }
        }
    }
}
