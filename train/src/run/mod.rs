//! A run: its folder, and the loop that takes it from its first step to its last.
//!
//! The loop never draws and never prints. It writes `events.jsonl` and hands each event to a bounded channel;
//! a listener that is slow loses events, one that is gone is forgotten, and training goes on.

mod clock;
mod saving;
mod steps;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};

use burn::tensor::{Device, Tensor};
use fornax_base::files::{FileSystem, create_folder, remove_stale_temps, write_atomic_bytes};
use fornax_base::lock::FolderLock;
use fornax_data::batches::Cursor;
use fornax_model::Decoder;
use fornax_model::device::DeviceName;
use fornax_model::weights::TensorFile;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::checkpoint::{self, Best, Checkpoint};
use crate::control::{Control, Ending, LrFactor, Signal};
use crate::error::TrainError;
use crate::events::{EventLog, TrainEvent, cut_to_step, to_line};
use crate::gate::GradientGate;
use crate::loss_scale::LossScale;
use crate::objective::{Objective, Product};
use crate::optimizer::Optimizer;
use crate::recipe::{Precision, Settings, TrainRecipe, compare, hash_of};
use crate::setup::{self, Preparing};
use crate::tensorboard::{self, Tensorboard};

/// The resolved recipe inside a run folder.
pub const RECIPE_FILE: &str = "recipe.toml";
/// The event log inside a run folder.
pub const EVENTS_FILE: &str = "events.jsonl";
/// The exported model inside a run folder.
pub const MODEL_FOLDER: &str = "model";

/// What any run makes in its folder besides the recipe; without a recipe, none of it may be there.
const OWN_NAMES: [&str; 4] = [checkpoint::FOLDER, MODEL_FOLDER, EVENTS_FILE, tensorboard::FOLDER];

/// A recipe that a run can be made of: pretraining has one, post-training another.
pub trait RunRecipe: Clone + Serialize + DeserializeOwned {
    /// What the run learns from.
    type Objective: Objective;

    /// The same recipe, checked, with every default written out.
    ///
    /// # Errors
    /// The fault met.
    fn resolved(&self) -> Result<Self, TrainError>;

    /// The sections that the loop reads, of a resolved recipe.
    fn settings(&self) -> Settings;

    /// Names that it makes in the run folder besides those of every run.
    fn own_names() -> &'static [&'static str];

    /// Looks at everything that can be wrong before the folder holds a run; then calls `keep_recipe`, which writes
    /// the recipe, and keeps what must not be made twice.
    ///
    /// # Errors
    /// What is wrong; nothing is kept then.
    fn begin(
        &self,
        around: &Surroundings,
        folder: &Path,
        keep_recipe: &mut dyn FnMut() -> Result<(), TrainError>,
        progress: &mut dyn FnMut(Preparing),
    ) -> Result<(), TrainError>;

    /// Makes or takes up what the run works with: the model of `from`, or a new one.
    ///
    /// # Errors
    /// What cannot be read or does not fit.
    fn open(
        &self,
        around: &Surroundings,
        folder: &Path,
        from: Option<&Checkpoint>,
        progress: &mut dyn FnMut(Preparing),
    ) -> Result<Opened<Self::Objective>, TrainError>;
}

/// What a run works with.
pub struct Opened<O> {
    /// The model, on the autodiff device as far as it learns.
    pub decoder: Decoder,
    /// What it learns from.
    pub objective: O,
    /// What it leaves.
    pub product: Box<dyn Product>,
    /// Steps of the whole run, where the data decides it.
    pub steps: Option<u64>,
    /// What was found and what learns, one sentence each.
    pub facts: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Where a run happens and who listens.
pub struct Surroundings {
    /// Writes every file of the run.
    pub fs: Arc<dyn FileSystem>,
    /// Where the model is trained.
    pub device: Device,
    /// Its name, for the log.
    pub device_name: DeviceName,
    /// The device as its driver calls it, for its published peak.
    pub device_description: String,
    /// A signal that asks the run to end.
    pub signal: Signal,
    /// Who wants to know; training does not wait for it.
    pub listener: Option<SyncSender<TrainEvent>>,
    /// Version of the program, for the checkpoint.
    pub tool_version: String,
}

impl Surroundings {
    /// Refuses a precision the device does not compute in, before anything is made or moved.
    pub(crate) fn check_precision(&self, settings: &Settings) -> Result<(), TrainError> {
        let asked = [settings.train.precision, settings.optimizer.ns_precision().precision()];
        match asked.into_iter().find(|&precision| !self.device.supports_dtype(setup::compute(precision))) {
            None => Ok(()),
            Some(precision) => {
                let precision = setup::word(precision);
                Err(TrainError::Precision { device: self.device_name.to_string(), precision })
            }
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Steps done.
    pub step: u64,
    /// `None` when all steps are done, or why it stopped, after saving.
    pub ending: Option<Ending>,
    /// The exported model, when all steps are done.
    pub model: Option<PathBuf>,
    /// Last validation loss.
    pub validation_loss: Option<f64>,
}

/// A run, ready for its next step.
pub struct Run<R: RunRecipe = TrainRecipe> {
    around: Surroundings,
    folder: PathBuf,
    recipe: R,
    settings: Settings,
    recipe_hash: String,
    objective: R::Objective,
    product: Box<dyn Product>,
    decoder: Decoder,
    optimizer: Optimizer,
    gate: GradientGate,
    /// Under f16.
    loss_scale: Option<LossScale>,
    cursor: Cursor,
    step: u64,
    tokens_seen: u64,
    lr_factor: LrFactor,
    best: Option<Best>,
    validated: Option<(u64, f64)>,
    saved: Option<u64>,
    failed_saves: u32,
    log: EventLog,
    /// Events that the disk refused, in order; written before any later one.
    unlogged: VecDeque<TrainEvent>,
    /// Event files, where the recipe asks for them and their disk takes them.
    tensorboard: Option<Tensorboard>,
    matmul_rate: Option<f64>,
    facts: Vec<String>,
    /// Held until the run is dropped.
    lock: Option<FolderLock>,
}

impl<R: RunRecipe> Run<R> {
    /// Begins a run in `folder`, which must not hold one: prepares tokenizer, shards and model.
    ///
    /// # Errors
    /// Anything of [`TrainError`]; nothing is trained then.
    pub fn start(
        around: Surroundings,
        folder: &Path,
        recipe: &R,
        progress: &mut dyn FnMut(Preparing),
    ) -> Result<Self, TrainError> {
        let recipe = recipe.resolved()?;
        around.check_precision(&recipe.settings())?;
        let path = folder.join(RECIPE_FILE);
        create_folder(&*around.fs, folder)?;
        // Before looking: a run that is under way in the folder is named by its process.
        let lock = FolderLock::acquire(folder)?;
        if path.exists() {
            return Err(TrainError::RunExists { folder: folder.to_path_buf() });
        }
        if let Some(found) = own_names::<R>().find(|name| folder.join(name).exists()) {
            return Err(TrainError::Occupied { folder: folder.to_path_buf(), found });
        }
        remove_stale_temps(&*around.fs, folder)?;
        let text = fornax_base::recipe::to_toml(&recipe)?;
        let mut keep_recipe = || Ok(write_atomic_bytes(&*around.fs, &path, text.as_bytes())?);
        recipe.begin(&around, folder, &mut keep_recipe, progress)?;
        let fs = Arc::clone(&around.fs);
        let mut run = Run::open(around, folder, recipe, None, progress).inspect_err(|_| {
            // Nothing was trained: the same folder is to serve the corrected recipe.
            remove_beginnings::<R>(&*fs, folder);
        })?;
        run.lock = Some(lock);
        Ok(run)
    }

    /// Continues the run in `folder` from its newest whole checkpoint, or from exactly `step`. `change` may
    /// alter harmless keys of the recipe.
    ///
    /// # Errors
    /// Anything of [`TrainError`]; the run folder is as it was, but for leftovers of a crash.
    pub fn resume(
        around: Surroundings,
        folder: &Path,
        step: Option<u64>,
        change: &dyn Fn(&str, &Path) -> Result<R, TrainError>,
        progress: &mut dyn FnMut(Preparing),
    ) -> Result<Self, TrainError> {
        let path = folder.join(RECIPE_FILE);
        if !path.exists() {
            return Err(TrainError::NotARun { folder: folder.to_path_buf() });
        }
        let lock = FolderLock::acquire(folder)?;
        remove_stale_temps(&*around.fs, folder)?;
        checkpoint::tidy(&*around.fs, folder)?;
        let text = fornax_base::files::read_text_limited(&path, 1 << 20)?;
        let old: R = fornax_base::recipe::load(&text, &path.display().to_string(), &[])?;
        let (old, new) = (old.resolved()?, change(&text, &path)?.resolved()?);
        let settings = new.settings();
        around.check_precision(&settings)?;
        let (found, mut skipped) = find_checkpoint(folder, step)?;
        let done = found.as_ref().map_or(0, |checkpoint| checkpoint.state().step);
        let changes = compare(&old, &new, &old.settings(), &settings, done);
        if !changes.refused.is_empty() {
            let folder = folder.to_path_buf();
            return Err(TrainError::ResumeRefused { folder, changes: changes.refused });
        }
        // Before the log is cut: were they left, a plain resume would take them over a log that ends earlier.
        if let Some(step) = step {
            let aside = checkpoint::set_aside_after(&*around.fs, folder, step)?;
            skipped.extend(aside.iter().map(|path| format!("{}: set aside, it is later", path.display())));
        }
        let mut run = Run::open(around, folder, new, found.as_ref(), progress)?;
        run.lock = Some(lock);
        if !changes.allowed.is_empty() {
            let text = fornax_base::recipe::to_toml(&run.recipe)?;
            write_atomic_bytes(&*run.around.fs, &path, text.as_bytes())?;
        }
        if let Some(checkpoint) = found {
            run.restore(&checkpoint)?;
            run.emit(TrainEvent::Resumed {
                step: run.step,
                from: checkpoint.path().to_path_buf(),
                skipped,
                changed: changes.allowed,
            })?;
        }
        Ok(run)
    }

    fn open(
        around: Surroundings,
        folder: &Path,
        recipe: R,
        from: Option<&Checkpoint>,
        progress: &mut dyn FnMut(Preparing),
    ) -> Result<Self, TrainError> {
        let fs = &*around.fs;
        let opened = recipe.open(&around, folder, from, progress)?;
        let mut settings = recipe.settings();
        settings.train.steps = opened.steps.unwrap_or(settings.train.steps);
        let decoder = opened.decoder;
        let checkpoints = folder.join(checkpoint::FOLDER);
        create_folder(fs, &checkpoints)?;
        let shape = decoder.config().to_hf_json();
        write_atomic_bytes(fs, &checkpoints.join("config.json"), shape.as_bytes())?;
        let log_path = folder.join(EVENTS_FILE);
        let done = from.map(|checkpoint| checkpoint.state().step);
        let logged_factor = match done {
            Some(step) => cut_to_step(fs, &log_path, step)?.lr_factor,
            // Killed before its opening checkpoint: nothing of it counts.
            None => cut_everything(fs, &log_path).map(|()| None)?,
        };
        let tensorboard = match settings.log.tensorboard {
            true => Some(Tensorboard::open(Arc::clone(&around.fs), &folder.join(tensorboard::FOLDER), done)?),
            false => None,
        };
        let lr_factor = from.map(|checkpoint| checkpoint.state().lr_factor).unwrap_or_default();
        let log = EventLog::open(Arc::clone(&around.fs), &log_path)?;
        Control::new(folder, around.signal.clone()).discard_stale(fs)?;
        let mut run = Run {
            folder: folder.to_path_buf(),
            recipe_hash: hash_of(&recipe),
            objective: opened.objective,
            product: opened.product,
            optimizer: Optimizer::new(&settings.optimizer),
            gate: GradientGate::default(),
            loss_scale: (settings.train.precision == Precision::F16).then(LossScale::default),
            cursor: Cursor::default(),
            step: 0,
            tokens_seen: 0,
            lr_factor,
            best: None,
            validated: None,
            saved: None,
            failed_saves: 0,
            log,
            unlogged: VecDeque::new(),
            tensorboard,
            matmul_rate: None,
            decoder,
            around,
            recipe,
            settings,
            facts: opened.facts,
            lock: None,
        };
        for message in opened.warnings {
            run.emit(TrainEvent::Warning { step: 0, message })?;
        }
        // The checkpoint of a step may have been saved before or after the command of that step was logged.
        if logged_factor.unwrap_or(1.0) != lr_factor.get() {
            run.emit(TrainEvent::LrFactor { step: done.unwrap_or(0), factor: lr_factor.get() })?;
        }
        Ok(run)
    }

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        let state = checkpoint.state();
        let stored = TensorFile::open(&checkpoint.path().join(checkpoint::OPTIMIZER_FILE))?;
        let shapes = self.shapes();
        let damaged =
            |message: String| TrainError::OptimizerState { path: checkpoint.path().to_path_buf(), message };
        self.optimizer
            .restore(state.optimizer_updates, &shapes, |name| stored.vector(name, &self.around.device))
            .map_err(damaged)?;
        self.cursor = serde_json::from_value(state.cursor.clone()).map_err(|e| damaged(e.to_string()))?;
        self.step = state.step;
        self.loss_scale = state.loss_scale.or(self.loss_scale);
        self.tokens_seen = state.tokens_seen;
        self.best = state.best;
        self.validated = state.validation_loss.map(|loss| (state.step, loss));
        self.saved = Some(state.step);
        Ok(())
    }

    /// Name and shape of every parameter that learns.
    fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        self.learning().into_iter().map(|(name, shape, _)| (name, shape)).collect()
    }

    /// Name, shape and values of every parameter that learns: what a checkpoint keeps.
    fn learning(&self) -> Vec<(String, Vec<usize>, Tensor<1>)> {
        let mut all = Vec::new();
        self.decoder.clone().visit_mut(&mut |name, parameter| {
            if parameter.is_trainable() {
                all.push((name.to_string(), parameter.shape(), parameter.flat()));
            }
        });
        all
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Steps of the whole run.
    pub fn steps(&self) -> u64 {
        self.settings.train.steps
    }

    /// What the run learns from.
    pub fn objective(&self) -> &R::Objective {
        &self.objective
    }

    /// What was found and what learns, one sentence each.
    pub fn facts(&self) -> &[String] {
        &self.facts
    }

    /// The resolved recipe.
    pub fn recipe(&self) -> &R {
        &self.recipe
    }

    /// Parameters that learn.
    pub fn n_parameters(&self) -> u64 {
        self.shapes().iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).sum()
    }

    /// Writes an event to the log and offers it to the listener. A disk that refuses does not stop the run:
    /// the event waits in memory, and no checkpoint is saved before it is written.
    fn emit(&mut self, event: TrainEvent) -> Result<(), TrainError> {
        to_line(&event)?;
        let was_behind = !self.unlogged.is_empty();
        self.unlogged.push_back(event.clone());
        let written = self.write_log();
        if let Some(Err(error)) = self.tensorboard.as_mut().map(|file| file.write(&event)) {
            self.tensorboard = None;
            let message = format!("no more TensorBoard events: {}", sentence(&error.into()));
            self.emit(TrainEvent::Warning { step: self.step, message })?;
        }
        self.tell(event);
        match written {
            Err(error) if !was_behind => {
                let message = format!("the event log waits for the disk: {}", sentence(&error));
                self.tell(TrainEvent::Warning { step: self.step, message });
            }
            _ => {}
        }
        Ok(())
    }

    fn write_log(&mut self) -> Result<(), TrainError> {
        while let Some(event) = self.unlogged.front() {
            self.log.append(event)?;
            self.unlogged.pop_front();
        }
        Ok(())
    }

    fn tell(&mut self, event: TrainEvent) {
        if let Some(listener) = &self.around.listener
            && let Err(TrySendError::Disconnected(_)) = listener.try_send(event)
        {
            self.around.listener = None;
        }
    }
}

/// The checkpoint to continue from, and sentences about newer ones that were passed over.
fn find_checkpoint(folder: &Path, step: Option<u64>) -> Result<(Option<Checkpoint>, Vec<String>), TrainError> {
    if let Some(step) = step {
        return Ok((Some(checkpoint::open_step(folder, step)?), Vec::new()));
    }
    let (found, skipped) = checkpoint::newest_valid(folder)?;
    let skipped: Vec<String> = skipped.iter().map(|s| format!("{}: {}", s.path.display(), s.why)).collect();
    match found.is_none() && !skipped.is_empty() {
        true => Err(TrainError::AllDamaged { folder: folder.to_path_buf(), skipped }),
        false => Ok((found, skipped)),
    }
}

fn own_names<R: RunRecipe>() -> impl Iterator<Item = &'static str> {
    R::own_names().iter().copied().chain(OWN_NAMES)
}

/// Takes back what a run that could not begin has made.
fn remove_beginnings<R: RunRecipe>(fs: &dyn FileSystem, folder: &Path) {
    // The error that counts is the one that stopped it; what stays is named by the next start.
    for path in own_names::<R>().chain([RECIPE_FILE]).map(|name| folder.join(name)) {
        let _ = if path.is_dir() { fs.remove_folder(&path) } else { fs.remove_file(&path) };
    }
}

fn cut_everything(fs: &dyn FileSystem, path: &Path) -> Result<(), TrainError> {
    match path.exists() {
        true => Ok(fornax_base::files::cut_log(fs, path, &mut |_| false)?),
        false => Ok(()),
    }
}

/// An error and its causes in one line.
fn sentence(error: &TrainError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}
