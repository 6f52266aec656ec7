//! A run: its folder, and the loop that takes it from its first step to its last.
//!
//! The loop never draws and never prints. It writes `events.jsonl` and hands each event to a bounded channel;
//! a listener that is slow loses events, one that is gone is forgotten, and training goes on.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant};

use burn::tensor::{DType, Device};
use fornax_base::exit::Exit;
use fornax_base::files::{FileSystem, create_folder, remove_stale_temps, write_atomic_bytes};
use fornax_base::lock::FolderLock;
use fornax_data::batches::{Batch, Batches, Cursor, validation_batches};
use fornax_data::prefetch::Prefetch;
use fornax_data::tokenizer::Tokenizer;
use fornax_model::Decoder;
use fornax_model::device::DeviceName;
use fornax_model::weights::{TensorFile, save as save_model};

use crate::checkpoint::{self, Best, Checkpoint, NamedTensor, RngPosition, State};
use crate::control::{Control, Ending, Signal};
use crate::error::TrainError;
use crate::events::{EventLog, StopReason, TrainEvent, cut_to_step, to_line};
use crate::gate::GradientGate;
use crate::optimizer::AdamW;
use crate::rate;
use crate::recipe::{TrainRecipe, compare_for_resume};
use crate::setup::{self, Inputs, Preparing};
use crate::step::{Objective, train_step};
use crate::validation;

/// Failed saves in a row after which a run gives up.
const SAVE_ATTEMPTS: u32 = 3;
/// Micro-batches made ahead of the training thread.
const PREFETCH: usize = 4;
/// How often a paused run looks for commands.
const PAUSE_POLL: Duration = Duration::from_millis(100);
/// Largest file of an exported model.
const SHARD_BYTES: u64 = 5_000_000_000;

/// The resolved recipe inside a run folder.
pub const RECIPE_FILE: &str = "recipe.toml";
/// The event log inside a run folder.
pub const EVENTS_FILE: &str = "events.jsonl";
/// The exported model inside a run folder.
pub const MODEL_FOLDER: &str = "model";

/// What a run makes in its folder besides the recipe; without a recipe, none of it may be there.
const OWN_NAMES: [&str; 5] =
    [setup::TOKENIZER_FOLDER, setup::DATA_FOLDER, checkpoint::FOLDER, MODEL_FOLDER, EVENTS_FILE];

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
pub struct Run {
    around: Surroundings,
    folder: PathBuf,
    recipe: TrainRecipe,
    recipe_hash: String,
    inputs: Inputs,
    validation: Vec<Batch>,
    decoder: Decoder,
    optimizer: AdamW,
    gate: GradientGate,
    cursor: Cursor,
    step: u64,
    tokens_seen: u64,
    best: Option<Best>,
    validated: Option<(u64, f64)>,
    saved: Option<u64>,
    failed_saves: u32,
    log: EventLog,
    /// Events that the disk refused, in order; written before any later one.
    unlogged: VecDeque<TrainEvent>,
    matmul_rate: Option<f64>,
    /// Held until the run is dropped.
    lock: Option<FolderLock>,
}

impl Run {
    /// Begins a run in `folder`, which must not hold one: prepares tokenizer, shards and model.
    ///
    /// # Errors
    /// Anything of [`TrainError`]; nothing is trained then.
    pub fn start(
        around: Surroundings,
        folder: &Path,
        recipe: &TrainRecipe,
        progress: &mut dyn FnMut(Preparing),
    ) -> Result<Run, TrainError> {
        let recipe = recipe.resolved()?;
        let path = folder.join(RECIPE_FILE);
        create_folder(&*around.fs, folder)?;
        // Before looking: a run that is under way in the folder is named by its process.
        let lock = FolderLock::acquire(folder)?;
        if path.exists() {
            return Err(TrainError::RunExists { folder: folder.to_path_buf() });
        }
        if let Some(found) = OWN_NAMES.into_iter().find(|name| folder.join(name).exists()) {
            return Err(TrainError::Occupied { folder: folder.to_path_buf(), found });
        }
        remove_stale_temps(&*around.fs, folder)?;
        let sources = setup::sources(&recipe)?;
        let tokenizer = setup::new_tokenizer(&recipe, &sources, progress)?;
        setup::config(&recipe, &tokenizer)?;
        write_atomic_bytes(&*around.fs, &path, recipe.resolved_toml()?.as_bytes())?;
        // After the recipe: a tokenizer without its recipe would be taken for that of the next run here.
        setup::keep_tokenizer(&*around.fs, folder, &tokenizer)?;
        let fs = Arc::clone(&around.fs);
        let mut run = Run::open(around, folder, recipe, None, progress).inspect_err(|_| {
            // Nothing was trained: the same folder is to serve the corrected recipe.
            remove_beginnings(&*fs, folder);
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
        change: &dyn Fn(&str, &Path) -> Result<TrainRecipe, TrainError>,
        progress: &mut dyn FnMut(Preparing),
    ) -> Result<Run, TrainError> {
        let path = folder.join(RECIPE_FILE);
        if !path.exists() {
            return Err(TrainError::NotARun { folder: folder.to_path_buf() });
        }
        let lock = FolderLock::acquire(folder)?;
        remove_stale_temps(&*around.fs, folder)?;
        checkpoint::tidy(&*around.fs, folder)?;
        let text = fornax_base::files::read_text_limited(&path, 1 << 20)?;
        let old: TrainRecipe = fornax_base::recipe::load(&text, &path.display().to_string(), &[])?;
        let new = change(&text, &path)?.resolved()?;
        let (found, skipped) = find_checkpoint(folder, step)?;
        let done = found.as_ref().map_or(0, |checkpoint| checkpoint.state().step);
        let changes = compare_for_resume(&old, &new, done)?;
        if !changes.refused.is_empty() {
            let folder = folder.to_path_buf();
            return Err(TrainError::ResumeRefused { folder, changes: changes.refused });
        }
        let mut run = Run::open(around, folder, new, found.as_ref(), progress)?;
        run.lock = Some(lock);
        if !changes.allowed.is_empty() {
            write_atomic_bytes(&*run.around.fs, &path, run.recipe.resolved_toml()?.as_bytes())?;
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
        recipe: TrainRecipe,
        from: Option<&Checkpoint>,
        progress: &mut dyn FnMut(Preparing),
    ) -> Result<Run, TrainError> {
        let fs = &*around.fs;
        let sources = if folder.join(setup::DATA_FOLDER).join(fornax_data::dataset::DATASET_FILE).exists() {
            Vec::new() // the shards are there; the text may be gone
        } else {
            setup::sources(&recipe)?
        };
        let tokenizer = setup::tokenizer(fs, folder, &recipe, &sources, progress)?;
        if from.is_none() {
            setup::config(&recipe, &tokenizer)?;
        }
        let dataset = setup::dataset(fs, folder, &recipe, &sources, &tokenizer, progress)?;
        let rows = recipe.train.micro_batch();
        let validation = match recipe.eval.every {
            0 => Vec::new(),
            _ => validation_batches(
                &dataset.validation(),
                rows,
                recipe.train.context,
                recipe.eval.tokens,
                recipe.data.packing,
            )?,
        };
        // Built on the plain device; the parameters alone go to the autodiff device.
        let (decoder, warnings) = match from {
            Some(checkpoint) => (setup::saved_decoder(&recipe, checkpoint, &around.device)?, Vec::new()),
            None => setup::decoder(&recipe, &tokenizer, &around.device)?,
        };
        let checkpoints = folder.join(checkpoint::FOLDER);
        create_folder(fs, &checkpoints)?;
        let shape = decoder.config().to_hf_json();
        write_atomic_bytes(fs, &checkpoints.join("config.json"), shape.as_bytes())?;
        let log_path = folder.join(EVENTS_FILE);
        match from {
            Some(checkpoint) => drop(cut_to_step(fs, &log_path, checkpoint.state().step)?),
            // Killed before its opening checkpoint: nothing of it counts.
            None => cut_everything(fs, &log_path)?,
        }
        let log = EventLog::open(Arc::clone(&around.fs), &log_path)?;
        Control::new(folder, around.signal.clone()).discard_stale(fs)?;
        let mut run = Run {
            folder: folder.to_path_buf(),
            recipe_hash: recipe.hash()?,
            inputs: Inputs { tokenizer: Arc::new(tokenizer), dataset },
            validation,
            optimizer: AdamW::new(&recipe.optimizer),
            gate: GradientGate::default(),
            cursor: Cursor::default(),
            step: 0,
            tokens_seen: 0,
            best: None,
            validated: None,
            saved: None,
            failed_saves: 0,
            log,
            unlogged: VecDeque::new(),
            matmul_rate: None,
            decoder: decoder.trainable(true),
            around,
            recipe,
            lock: None,
        };
        for message in warnings {
            run.emit(TrainEvent::Warning { step: 0, message })?;
        }
        Ok(run)
    }

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        let state = checkpoint.state();
        let stored = TensorFile::open(&checkpoint.path().join(checkpoint::OPTIMIZER_FILE))?;
        let sizes: Vec<(String, usize)> =
            self.decoder.parameters().into_iter().map(|(name, shape, _)| (name, shape.iter().product())).collect();
        let damaged =
            |message: String| TrainError::OptimizerState { path: checkpoint.path().to_path_buf(), message };
        self.optimizer
            .restore(state.optimizer_updates, &sizes, |name| stored.vector(name, &self.around.device))
            .map_err(damaged)?;
        self.cursor = serde_json::from_value(state.cursor.clone()).map_err(|e| damaged(e.to_string()))?;
        self.step = state.step;
        self.tokens_seen = state.tokens_seen;
        self.best = state.best;
        self.validated = state.validation_loss.map(|loss| (state.step, loss));
        self.saved = Some(state.step);
        Ok(())
    }

    /// The run's tokenizer.
    pub fn tokenizer(&self) -> Arc<Tokenizer> {
        Arc::clone(&self.inputs.tokenizer)
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The resolved recipe.
    pub fn recipe(&self) -> &TrainRecipe {
        &self.recipe
    }

    /// Trainable parameters.
    pub fn n_parameters(&self) -> u64 {
        self.decoder.config().n_parameters()
    }

    /// Takes steps until the recipe's last one, or until a signal or a command ends the run after saving.
    ///
    /// # Errors
    /// [`TrainError`]; for numbers that are not finite [`TrainError::StoppedAt`], with no update applied.
    pub fn fit(&mut self, objective: Objective<'_>) -> Result<Outcome, TrainError> {
        let started = Instant::now();
        let result = self.take_steps(objective, started);
        if let Err(error) = &result {
            let event = TrainEvent::Stopped { step: self.step, reason: reason(error), message: sentence(error) };
            // The error itself is what the caller must see, even when the log cannot be written.
            let _ = self.emit(event).and_then(|()| Ok(self.log.sync()?));
        }
        result
    }

    fn take_steps(&mut self, objective: Objective<'_>, started: Instant) -> Result<Outcome, TrainError> {
        let total = self.recipe.train.steps;
        let mut control = Control::new(&self.folder, self.around.signal.clone());
        let mut prefetch = Prefetch::start(self.batches()?, self.cursor, PREFETCH)?;
        self.matmul_rate = rate::matmul_rate(&self.around.device, self.decoder.compute());
        self.announce(total)?;
        // A checkpoint of step 0 was saved after this, so a run resumed from it has it behind it.
        if self.step == 0 && self.saved.is_none() {
            self.validate_and_sample(true)?;
        }
        let mut clock = Clock::new(self.tokens_seen);
        while self.step < total {
            let ending = self.obey(&mut control, &mut clock)?;
            if let Some(ending) = ending {
                return self.stop(ending);
            }
            let mut micro_batches = Vec::new();
            let mut after = self.cursor;
            for _ in 0..self.recipe.train.batch / self.recipe.train.micro_batch() {
                let (batch, cursor) = prefetch.recv()?;
                micro_batches.push(batch);
                after = cursor;
            }
            let lr = self.recipe.schedule().lr_at(self.step, total);
            let clip = self.recipe.optimizer.clip_norm;
            let report = train_step(
                &mut self.decoder,
                &mut self.optimizer,
                &mut self.gate,
                objective,
                &micro_batches,
                lr,
                clip,
            )
            .map_err(|error| self.locate(error))?;
            self.cursor = after;
            self.step += 1;
            self.tokens_seen += micro_batches.iter().map(|b| (b.rows * b.columns) as u64).sum::<u64>();
            if report.weight == 0.0 {
                let message = "every target of this step is masked; nothing was learned from it".to_string();
                self.emit(TrainEvent::Warning { step: self.step, message })?;
            } else if report.grad_norm == 0.0 {
                let message = "every gradient of this step is zero; nothing was learned from it".to_string();
                self.emit(TrainEvent::Warning { step: self.step, message })?;
            }
            if self.step.is_multiple_of(self.recipe.log.every) || self.step == 1 || self.step == total {
                let event = self.step_event(report.loss, report.grad_norm, lr, &mut clock);
                self.emit(event)?;
            }
            clock.pause();
            self.validate_and_sample(false)?;
            if self.step.is_multiple_of(self.recipe.checkpoint.every) || self.step == total {
                self.save()?;
            }
            clock.resume();
        }
        self.finish(started)
    }

    fn batches(&self) -> Result<Batches, TrainError> {
        let (rows, context) = (self.recipe.train.micro_batch(), self.recipe.train.context);
        let stream = self.inputs.dataset.train();
        Ok(Batches::new(stream, rows, context, self.recipe.data.packing, self.recipe.seed)?)
    }

    fn announce(&mut self, total: u64) -> Result<(), TrainError> {
        let precision = match self.decoder.compute() {
            DType::BF16 => "bf16",
            DType::F16 => "f16",
            _ => "f32",
        };
        self.emit(TrainEvent::Started {
            run: self.folder.clone(),
            step: self.step,
            total_steps: total,
            n_parameters: self.n_parameters(),
            device: self.around.device_name.to_string(),
            precision: precision.to_string(),
            tokens_per_step: (self.recipe.train.batch * self.recipe.train.context) as u64,
            recipe_hash: self.recipe_hash.clone(),
        })
    }

    /// Looks at commands and signals; waits while paused. Gives the reason to end, if there is one.
    fn obey(&mut self, control: &mut Control, clock: &mut Clock) -> Result<Option<Ending>, TrainError> {
        loop {
            let orders = control.poll(&*self.around.fs);
            for message in orders.warnings {
                self.emit(TrainEvent::Warning { step: self.step, message })?;
            }
            if orders.save || orders.ending.is_some() {
                clock.pause();
                self.save()?;
                if !control.is_paused() {
                    clock.resume();
                }
            }
            if orders.pause_changed {
                let paused = control.is_paused();
                self.emit(TrainEvent::Paused { step: self.step, paused })?;
                if paused { clock.pause() } else { clock.resume() }
            }
            if orders.ending.is_some() || !control.is_paused() {
                return Ok(orders.ending);
            }
            std::thread::sleep(PAUSE_POLL);
        }
    }

    fn step_event(&self, loss: f64, grad_norm: f64, lr: f64, clock: &mut Clock) -> TrainEvent {
        let tokens_per_second = clock.rate(self.tokens_seen);
        let per_token = self.decoder.config().training_flops_per_token(self.recipe.train.context);
        let used = per_token * tokens_per_second;
        let peak = rate::published_peak(&self.around.device_description, self.decoder.compute());
        let left = (self.recipe.train.steps - self.step) as f64;
        let tokens_per_step = (self.recipe.train.batch * self.recipe.train.context) as f64;
        TrainEvent::Step {
            step: self.step,
            loss,
            lr,
            grad_norm,
            tokens: self.tokens_seen,
            tokens_per_second,
            matmul_share: self.matmul_rate.map(|rate| used / rate),
            mfu: peak.map(|peak| used / peak),
            memory_bytes: self.memory(),
            eta_seconds: (tokens_per_second > 0.0).then(|| left * tokens_per_step / tokens_per_second),
        }
    }

    fn memory(&self) -> Option<u64> {
        match self.around.device.memory_pool_usage() {
            Some(usage) => Some(usage.bytes_reserved),
            None => rate::resident_bytes(),
        }
    }

    /// Validates and samples where this step is one for it; `at_start` is before any step.
    fn validate_and_sample(&mut self, at_start: bool) -> Result<(), TrainError> {
        let eval = self.recipe.eval.clone();
        let last = self.step == self.recipe.train.steps;
        let due = |every: u64| every > 0 && (at_start || last || self.step.is_multiple_of(every));
        let (validate, sample) = (due(eval.every), due(eval.sample_every));
        if !validate && !sample {
            return Ok(());
        }
        let plain = self.decoder.clone().trainable(false);
        if validate {
            let measured = validation::measure(&plain, &self.validation, &self.inputs.tokenizer)?;
            let validation::Measured { loss, bits_per_byte, tokens } = measured;
            if !loss.is_finite() {
                return Err(TrainError::ValidationNotFinite { step: self.step, loss });
            }
            self.validated = Some((self.step, loss));
            self.emit(TrainEvent::Validation { step: self.step, loss, bits_per_byte, tokens })?;
        }
        for prompt in eval.prompts.iter().filter(|_| sample) {
            let event = self.sample(&plain, prompt);
            self.emit(event)?;
        }
        Ok(())
    }

    /// The text after `prompt`; a prompt that cannot be continued costs a warning, not the run.
    fn sample(&self, plain: &Decoder, prompt: &str) -> TrainEvent {
        let (step, eval) = (self.step, &self.recipe.eval);
        let position = (self.recipe.seed, step);
        let tokenizer = &self.inputs.tokenizer;
        match validation::sample(plain, tokenizer, prompt, eval.sample_tokens, eval.temperature, position) {
            Ok(text) => TrainEvent::Sample { step, prompt: prompt.to_string(), text },
            Err(error) => {
                let message = format!("no sample of the prompt {prompt:?}: {}", sentence(&error));
                TrainEvent::Warning { step, message }
            }
        }
    }

    /// Saves a checkpoint of the present step. A failure is a warning, tried again at the next occasion; the
    /// third in a row ends the run.
    fn save(&mut self) -> Result<(), TrainError> {
        if self.saved == Some(self.step) {
            return Ok(());
        }
        let start = Instant::now();
        match self.try_save() {
            Ok(path) => {
                self.saved = Some(self.step);
                self.failed_saves = 0;
                let seconds = start.elapsed().as_secs_f64();
                self.emit(TrainEvent::CheckpointSaved { step: self.step, path, seconds })
            }
            // Trying again cannot help, and no later step can be sound.
            Err(error) if error.exit() == Exit::NotFinite => Err(error),
            Err(error) => {
                self.failed_saves += 1;
                let times = self.failed_saves;
                let message = format!("checkpoint at step {} was not saved: {}", self.step, sentence(&error));
                if times == SAVE_ATTEMPTS {
                    return Err(TrainError::SavesFailing { times, source: Box::new(error) });
                }
                self.emit(TrainEvent::Warning { step: self.step, message })
            }
        }
    }

    fn try_save(&mut self) -> Result<PathBuf, TrainError> {
        if !self.folder.join(RECIPE_FILE).exists() {
            // Deleted while it runs: a folder made anew for this checkpoint could not be resumed.
            return Err(TrainError::NotARun { folder: self.folder.clone() });
        }
        // The events of the steps before must be on disk before a checkpoint says they are done.
        self.write_log()?;
        self.log.sync()?;
        let loss = self.validated.filter(|(step, _)| *step == self.step).map(|(_, loss)| loss);
        // The best of the steps that have a checkpoint: another one could not be kept.
        let present = loss.map(|loss| Best { step: self.step, loss });
        let best = present.filter(|now| self.best.is_none_or(|best| now.loss < best.loss)).or(self.best);
        let state = State {
            step: self.step,
            total_steps: self.recipe.train.steps,
            tokens_seen: self.tokens_seen,
            optimizer_updates: self.optimizer.updates(),
            cursor: serde_json::to_value(self.cursor).map_err(TrainError::device)?,
            rng: RngPosition { seed: self.recipe.seed, step: self.step },
            schedule: self.recipe.schedule.kind,
            validation_loss: loss,
            best,
            recipe_hash: self.recipe_hash.clone(),
            tool_version: self.around.tool_version.clone(),
        };
        let model = named_bytes(self.decoder.parameters())?;
        let optimizer = named_bytes(self.optimizer.tensors())?;
        let fs = &*self.around.fs;
        let path = checkpoint::save(fs, &self.folder, self.step, &model, &optimizer, &state)?;
        self.best = best;
        let keep_best = self.recipe.checkpoint.keep_best;
        let best = best.filter(|_| keep_best).map(|best| best.step);
        let pruned = checkpoint::prune(fs, &self.folder, self.recipe.checkpoint.keep_last, best)?;
        for warning in pruned.warnings {
            let message = format!("an old checkpoint was not removed: {warning}");
            self.emit(TrainEvent::Warning { step: self.step, message })?;
        }
        Ok(path)
    }

    /// Saves, trying again at once, since there is no later occasion.
    fn save_at_the_end(&mut self) -> Result<(), TrainError> {
        while self.saved != Some(self.step) {
            self.save()?;
        }
        Ok(())
    }

    fn stop(&mut self, ending: Ending) -> Result<Outcome, TrainError> {
        self.save_at_the_end()?;
        let (reason, message) = match ending {
            Ending::Command => (StopReason::Command, "stopped by command after saving"),
            Ending::Signal(Exit::Interrupted) => (StopReason::Interrupted, "interrupted after saving"),
            Ending::Signal(_) => (StopReason::Terminated, "terminated after saving"),
        };
        self.emit(TrainEvent::Stopped { step: self.step, reason, message: message.into() })?;
        self.log.sync()?;
        let validation_loss = self.validated.map(|(_, loss)| loss);
        Ok(Outcome { step: self.step, ending: Some(ending), model: None, validation_loss })
    }

    fn finish(&mut self, started: Instant) -> Result<Outcome, TrainError> {
        self.save_at_the_end()?;
        let model = self.folder.join(MODEL_FOLDER);
        self.export(&model)
            .map_err(|source| TrainError::Export { folder: model.clone(), source: Box::new(source) })?;
        let validation_loss = self.validated.map(|(_, loss)| loss);
        self.emit(TrainEvent::Finished {
            step: self.step,
            seconds: started.elapsed().as_secs_f64(),
            tokens: self.tokens_seen,
            validation_loss,
            model: model.clone(),
        })?;
        self.log.sync()?;
        Ok(Outcome { step: self.step, ending: None, model: Some(model), validation_loss })
    }

    fn export(&self, model: &Path) -> Result<(), TrainError> {
        let fs = &*self.around.fs;
        create_folder(fs, model)?;
        remove_stale_temps(fs, model)?;
        self.inputs.tokenizer.save(fs, model)?;
        save_model(fs, &self.decoder, DType::F32, SHARD_BYTES, model)?;
        Ok(())
    }

    /// Writes an event to the log and offers it to the listener. A disk that refuses does not stop the run:
    /// the event waits in memory, and no checkpoint is saved before it is written.
    fn emit(&mut self, event: TrainEvent) -> Result<(), TrainError> {
        to_line(&event)?;
        let was_behind = !self.unlogged.is_empty();
        self.unlogged.push_back(event.clone());
        let written = self.write_log();
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

    fn locate(&self, error: TrainError) -> TrainError {
        match error {
            TrainError::NotFinite { .. } => {
                let last = checkpoint::list(&self.folder).ok().and_then(|mut all| all.pop());
                TrainError::StoppedAt {
                    step: self.step + 1,
                    epoch: self.cursor.epoch,
                    window: self.cursor.window,
                    last: last.map_or("none".into(), |folder| folder.path.display().to_string()),
                    source: Box::new(error),
                }
            }
            other => other,
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

/// Takes back what a run that could not begin has made.
fn remove_beginnings(fs: &dyn FileSystem, folder: &Path) {
    // The error that counts is the one that stopped it; what stays is named by the next start.
    for path in OWN_NAMES.into_iter().chain([RECIPE_FILE]).map(|name| folder.join(name)) {
        let _ = if path.is_dir() { fs.remove_folder(&path) } else { fs.remove_file(&path) };
    }
}

fn cut_everything(fs: &dyn FileSystem, path: &Path) -> Result<(), TrainError> {
    match path.exists() {
        true => Ok(fornax_base::files::cut_log(fs, path, &mut |_| false)?),
        false => Ok(()),
    }
}

fn named_bytes(
    tensors: Vec<(String, Vec<usize>, burn::tensor::Tensor<1>)>,
) -> Result<Vec<NamedTensor<'static>>, TrainError> {
    let read = |(name, shape, tensor): (String, Vec<usize>, burn::tensor::Tensor<1>)| {
        let data = tensor.try_into_data().map_err(TrainError::device)?;
        Ok(NamedTensor::f32(name, shape, data.as_bytes().to_vec()))
    };
    tensors.into_iter().map(read).collect()
}

fn reason(error: &TrainError) -> StopReason {
    match error {
        error if error.exit() == Exit::NotFinite => StopReason::NonFinite,
        TrainError::Gate(_) => StopReason::GradientGate,
        TrainError::SavesFailing { .. } => StopReason::CheckpointsFailing,
        _ => StopReason::Failed,
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

/// Time spent in steps, without validation, saving and pauses.
struct Clock {
    since: Instant,
    spent: Duration,
    paused: bool,
    tokens: u64,
}

impl Clock {
    fn new(tokens: u64) -> Self {
        Self { since: Instant::now(), spent: Duration::ZERO, paused: false, tokens }
    }

    fn pause(&mut self) {
        if !self.paused {
            self.spent += self.since.elapsed();
            self.paused = true;
        }
    }

    fn resume(&mut self) {
        self.since = Instant::now();
        self.paused = false;
    }

    /// Tokens per second since it was asked before.
    fn rate(&mut self, tokens: u64) -> f64 {
        let was_paused = self.paused;
        self.pause();
        let rate = (tokens - self.tokens) as f64 / self.spent.as_secs_f64().max(1e-9);
        (self.spent, self.tokens) = (Duration::ZERO, tokens);
        if !was_paused {
            self.resume();
        }
        rate
    }
}
