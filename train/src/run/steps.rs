//! The loop: steps, commands, validation and samples, until the last step or a reason to end.

use std::time::{Duration, Instant};

use fornax_base::exit::Exit;
use fornax_infer::generate::Limits;
use fornax_model::Decoder;

use super::clock::Clock;
use super::{Outcome, Run, RunRecipe, sentence};
use crate::checkpoint;
use crate::control::{Control, Ending, LrFactor};
use crate::error::TrainError;
use crate::events::{StopReason, TrainEvent};
use crate::loss_scale::LossScale;
use crate::objective::{Evaluation, LossTerm, Objective};
use crate::pretraining::SourceShare;
use crate::rate;
use crate::recipe::TrainRecipe;
use crate::setup;
use crate::step::{BatchLoss, StepReport, step_over};
use crate::validation;

/// How often a paused run looks for commands.
const PAUSE_POLL: Duration = Duration::from_millis(100);

/// The loss of a micro-batch by its number, as a run's objective gives it.
type Term<'a, R> = &'a dyn Fn(&<R as RunRecipe>::Objective, &Decoder, usize) -> Result<LossTerm, TrainError>;

impl Run<TrainRecipe> {
    /// What the run reads: for each source its name, its share of the tokens, the tokens it holds, and how many
    /// passes over them the run makes in all.
    pub fn sources(&self) -> Vec<SourceShare> {
        self.objective.sources(self.settings.train.steps.saturating_mul(self.settings.train.batch as u64))
    }

    /// As [`Run::train`], with a loss of one's own instead of the next-token loss.
    ///
    /// # Errors
    /// As [`Run::train`].
    pub fn fit(&mut self, loss: BatchLoss<'_>) -> Result<Outcome, TrainError> {
        self.train_on(&|pretraining, decoder, number| Ok(loss(decoder, &pretraining.ready()[number])))
    }
}

impl<R: RunRecipe> Run<R> {
    /// Takes steps until the recipe's last one, or until a signal or a command ends the run after saving.
    ///
    /// # Errors
    /// [`TrainError`]; for numbers that are not finite [`TrainError::StoppedAt`], with no update applied.
    pub fn train(&mut self) -> Result<Outcome, TrainError> {
        self.train_on(&|objective, decoder, number| objective.term(decoder, number))
    }

    fn train_on(&mut self, term: Term<'_, R>) -> Result<Outcome, TrainError> {
        let started = Instant::now();
        let result = self.take_steps(term, started);
        if let Err(error) = &result {
            let event = TrainEvent::Stopped { step: self.step, reason: reason(error), message: sentence(error) };
            // The error itself is what the caller must see, even when the log cannot be written.
            let _ = self.emit(event).and_then(|()| Ok(self.log.sync()?));
        }
        result
    }

    fn take_steps(&mut self, term: Term<'_, R>, started: Instant) -> Result<Outcome, TrainError> {
        let total = self.settings.train.steps;
        let mut control = Control::new(&self.folder, self.around.signal.clone());
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
            let ready = self.objective.prepare(&self.decoder, self.step, self.cursor)?;
            let lr = self.settings.schedule().lr_at(self.step, total) * self.lr_factor.get();
            let report = self.update(term, ready.micro_batches, lr)?;
            self.cursor = ready.cursor;
            self.step += 1;
            self.tokens_seen += ready.tokens;
            for message in report.iter().filter_map(unlearned) {
                self.emit(TrainEvent::Warning { step: self.step, message: message.into() })?;
            }
            if let Some(mut report) = report
                && (self.step.is_multiple_of(self.settings.log.every) || self.step == 1 || self.step == total)
            {
                report.metrics.extend(ready.metrics);
                let event = self.step_event(report, lr, &mut clock);
                self.emit(event)?;
            }
            clock.pause();
            self.validate_and_sample(false)?;
            if self.step.is_multiple_of(self.settings.checkpoint.every) || self.step == total {
                self.save()?;
            }
            clock.resume();
        }
        self.finish(started)
    }

    /// One update; `None` where f16 overflowed and the step is passed over with a smaller loss scale.
    fn update(
        &mut self,
        term: Term<'_, R>,
        micro_batches: usize,
        lr: f64,
    ) -> Result<Option<StepReport>, TrainError> {
        let (scale, tokens) = (self.loss_scale, self.tokens_per_step());
        let clip = self.settings.optimizer.clip_norm;
        let Self { decoder, optimizer, gate, objective, .. } = self;
        let scaled = |decoder: &Decoder, number: usize| {
            let term = term(objective, decoder, number)?;
            Ok(match scale {
                Some(scale) => scale.scaled(term, tokens),
                None => term,
            })
        };
        let result = step_over(decoder, optimizer, gate, &scaled, micro_batches, lr, clip);
        let error = match result {
            Err(error) => error,
            Ok(report) => {
                if let Some(scale) = self.loss_scale.as_mut().filter(|_| report.weight != 0.0) {
                    scale.applied();
                }
                return Ok(Some(report));
            }
        };
        // A loss that is not finite is no matter of scale.
        let overflow = matches!(error, TrainError::NotFinite { loss, .. } if loss.is_finite());
        match self.loss_scale.as_mut().filter(|_| overflow).and_then(LossScale::halved) {
            None => Err(self.locate(error)),
            Some(scale) => {
                let message = format!(
                    "a gradient overflowed f16; the step was passed over, and the loss scale is {scale} from here"
                );
                self.emit(TrainEvent::Warning { step: self.step + 1, message })?;
                Ok(None)
            }
        }
    }

    /// Tokens of a step whose rows are all full.
    fn tokens_per_step(&self) -> u64 {
        (self.settings.train.batch * self.settings.train.context) as u64
    }

    fn announce(&mut self, total: u64) -> Result<(), TrainError> {
        self.emit(TrainEvent::Started {
            run: self.folder.clone(),
            step: self.step,
            total_steps: total,
            n_parameters: self.n_parameters(),
            device: self.around.device_name.to_string(),
            precision: setup::word(self.settings.train.precision).to_string(),
            tokens_per_step: self.tokens_per_step(),
            optimizer: self.optimizer.describe(&self.shapes()),
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
            let lr_changes = match orders.lr_factor {
                Some(factor) => self.change_lr(factor)?,
                None => false,
            };
            if orders.save || lr_changes || orders.ending.is_some() {
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

    /// Takes a new factor of the learning rate; false when it is the present one. A checkpoint must follow, so that
    /// a resume after a crash has it too.
    fn change_lr(&mut self, factor: LrFactor) -> Result<bool, TrainError> {
        if factor == self.lr_factor {
            return Ok(false);
        }
        self.lr_factor = factor;
        // One saved at this very step holds the factor of before.
        self.saved = None;
        self.emit(TrainEvent::LrFactor { step: self.step, factor: factor.get() })?;
        Ok(true)
    }

    fn step_event(&self, report: StepReport, lr: f64, clock: &mut Clock) -> TrainEvent {
        let tokens_per_second = clock.rate(self.tokens_seen);
        let per_token = self.decoder.config().training_flops_per_token(self.settings.train.context);
        let used = per_token * tokens_per_second;
        let peak = rate::published_peak(&self.around.device_description, self.decoder.compute());
        let left = (self.settings.train.steps - self.step) as f64;
        let tokens_per_step = self.tokens_seen as f64 / self.step as f64;
        TrainEvent::Step {
            step: self.step,
            loss: report.loss,
            lr,
            grad_norm: report.grad_norm,
            tokens: self.tokens_seen,
            tokens_per_second,
            matmul_share: self.matmul_rate.map(|rate| used / rate),
            mfu: peak.map(|peak| used / peak),
            memory_bytes: self.memory(),
            eta_seconds: (tokens_per_second > 0.0).then(|| left * tokens_per_step / tokens_per_second),
            metrics: report.metrics,
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
        let eval = self.settings.eval.clone();
        let last = self.step == self.settings.train.steps;
        let due = |every: u64| every > 0 && (at_start || last || self.step.is_multiple_of(every));
        let (validate, sample) = (due(eval.every), due(eval.sample_every));
        if !validate && !sample {
            return Ok(());
        }
        let plain = self.decoder.clone().trainable(false);
        if validate && let Some(evaluation) = self.objective.evaluate(&plain)? {
            let Evaluation { loss, bits_per_byte, weight, metrics } = evaluation;
            if !loss.is_finite() {
                return Err(TrainError::ValidationNotFinite { step: self.step, loss });
            }
            self.validated = Some((self.step, loss));
            self.emit(TrainEvent::Validation { step: self.step, loss, bits_per_byte, tokens: weight, metrics })?;
        }
        for prompt in eval.prompts.iter().filter(|_| sample) {
            let event = self.sample(&plain, prompt);
            self.emit(event)?;
        }
        Ok(())
    }

    /// The text after `prompt`; a prompt that cannot be continued costs a warning, not the run.
    fn sample(&self, plain: &Decoder, prompt: &str) -> TrainEvent {
        let (step, eval) = (self.step, &self.settings.eval);
        let position = (self.settings.seed, step);
        let tokenizer = self.product.tokenizer();
        let limits = Limits { max_tokens: eval.sample_tokens, stop_ids: self.product.stop_ids(plain) };
        let text = self
            .product
            .prompt_ids(prompt)
            .and_then(|ids| validation::sample(plain, tokenizer, &ids, &limits, eval.temperature, position));
        match text {
            Ok(text) => TrainEvent::Sample { step, prompt: prompt.to_string(), text },
            Err(error) => {
                let message = format!("no sample of the prompt {prompt:?}: {}", sentence(&error));
                TrainEvent::Warning { step, message }
            }
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

/// Why a step taught nothing, where it did not.
fn unlearned(report: &StepReport) -> Option<&'static str> {
    if report.weight == 0.0 {
        return Some("every target of this step is masked; nothing was learned from it");
    }
    (report.grad_norm == 0.0).then_some("every gradient of this step is zero; nothing was learned from it")
}

fn reason(error: &TrainError) -> StopReason {
    match error {
        error if error.exit() == Exit::NotFinite => StopReason::NonFinite,
        TrainError::Gate(_) => StopReason::GradientGate,
        TrainError::SavesFailing { .. } => StopReason::CheckpointsFailing,
        _ => StopReason::Failed,
    }
}
