//! What a run leaves on disk: checkpoints on the way, the model folder at the end.

use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::tensor::Tensor;
use fornax_base::exit::Exit;
use fornax_base::files::{create_folder, remove_stale_temps};

use super::{Outcome, RECIPE_FILE, Run, RunRecipe, sentence};
use crate::checkpoint::{self, Best, NamedTensor, RngPosition, State};
use crate::control::Ending;
use crate::error::TrainError;
use crate::events::{StopReason, TrainEvent};
use crate::tensorboard::Tensorboard;

/// Failed saves in a row after which a run gives up.
const SAVE_ATTEMPTS: u32 = 3;

impl<R: RunRecipe> Run<R> {
    /// Saves a checkpoint of the present step. A failure is a warning, tried again at the next occasion; the
    /// third in a row ends the run.
    pub(super) fn save(&mut self) -> Result<(), TrainError> {
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
        if let Some(Err(error)) = self.tensorboard.as_mut().map(Tensorboard::sync) {
            self.tensorboard = None;
            let message = format!("no more TensorBoard events: {}", sentence(&error.into()));
            self.emit(TrainEvent::Warning { step: self.step, message })?;
        }
        let loss = self.validated.filter(|(step, _)| *step == self.step).map(|(_, loss)| loss);
        // The best of the steps that have a checkpoint: another one could not be kept.
        let present = loss.map(|loss| Best { step: self.step, loss });
        let best = present.filter(|now| self.best.is_none_or(|best| now.loss < best.loss)).or(self.best);
        let state = State {
            step: self.step,
            total_steps: self.settings.train.steps,
            tokens_seen: self.tokens_seen,
            optimizer_updates: self.optimizer.updates(),
            cursor: serde_json::to_value(self.cursor).map_err(TrainError::device)?,
            rng: RngPosition { seed: self.settings.seed, step: self.step },
            loss_scale: self.loss_scale,
            schedule: self.settings.schedule.kind,
            lr_factor: self.lr_factor,
            validation_loss: loss,
            best,
            recipe_hash: self.recipe_hash.clone(),
            tool_version: self.around.tool_version.clone(),
        };
        let model = named_bytes(self.learning())?;
        let optimizer = named_bytes(self.optimizer.tensors())?;
        let fs = &*self.around.fs;
        let path = checkpoint::save(fs, &self.folder, self.step, &model, &optimizer, &state)?;
        self.best = best;
        let keep_best = self.settings.checkpoint.keep_best;
        let best = best.filter(|_| keep_best).map(|best| best.step);
        let pruned = checkpoint::prune(fs, &self.folder, self.settings.checkpoint.keep_last, best)?;
        for warning in pruned.warnings {
            let message = format!("an old checkpoint was not removed: {warning}");
            self.emit(TrainEvent::Warning { step: self.step, message })?;
        }
        Ok(path)
    }

    /// Saves, trying again at once, since there is no later occasion.
    pub(super) fn save_at_the_end(&mut self) -> Result<(), TrainError> {
        while self.saved != Some(self.step) {
            self.save()?;
        }
        Ok(())
    }

    pub(super) fn stop(&mut self, ending: Ending) -> Result<Outcome, TrainError> {
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

    pub(super) fn finish(&mut self, started: Instant) -> Result<Outcome, TrainError> {
        self.save_at_the_end()?;
        let model = self.folder.join(self.product.folder());
        self.export(&model)
            .map_err(|source| TrainError::Export { folder: model.clone(), source: Box::new(source) })?;
        if let Some(message) = self.decoder.config().transformers_differs() {
            self.emit(TrainEvent::Warning { step: self.step, message })?;
        }
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
        self.product.export(fs, &self.decoder, model)
    }
}

fn named_bytes(tensors: Vec<(String, Vec<usize>, Tensor<1>)>) -> Result<Vec<NamedTensor<'static>>, TrainError> {
    let read = |(name, shape, tensor): (String, Vec<usize>, Tensor<1>)| {
        let data = tensor.try_into_data().map_err(TrainError::device)?;
        Ok(NamedTensor::f32(name, shape, data.as_bytes().to_vec()))
    };
    tensors.into_iter().map(read).collect()
}
