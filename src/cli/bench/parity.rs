//! `fornax bench parity`: a device held to recorded logits, losses and gradients, or to recorded steps of tuning.

use std::path::{Path, PathBuf};

use clap::Args;
use fornax_base::exit::Exit;
use fornax_eval::parity::engine::{self, EngineReport};
use fornax_eval::parity::post::{ModelLoss, Preferences, StepReport, StepTolerance, steps};
use fornax_eval::parity::{ParityError, ParityReport, Tolerance, compare, fixtures};
use fornax_model::Decoder;
use fornax_post_train::dpo::DpoRecipe;
use fornax_post_train::pairs::PairBatch;
use fornax_post_train::preference::{Counts, PairLoss};

use super::super::DeviceArgument;
use super::super::report::{Failure, print};
use super::{Precision, line, refuse_precision};

/// Hold a device to recorded logits, losses and gradients
#[derive(Debug, Args)]
pub(crate) struct Parity {
    /// Take one step each of SFT, LoRA, rsLoRA, DoRA, QLoRA and DPO instead, and compare loss, gradients, parameters
    /// after it, and the frozen base
    #[arg(long)]
    post: bool,
    /// Hold every cache (contiguous, paged, int8) and every kind of draft to the forward without a cache instead
    #[arg(long, conflicts_with_all = ["post", "tolerance", "gradient_tolerance"])]
    engine: bool,
    /// Folder of recorded models or one of them [default: tests/fixtures/parity]; with --post, the folder that holds
    /// sft, peft, preference and the models they name [default: tests/fixtures]
    #[arg(long, value_name = "DIR")]
    fixtures: Option<PathBuf>,
    /// Dtype of the matrix products; logits are computed with weights stored in it, gradients with weights in f32
    #[arg(long, value_enum, value_name = "DTYPE", default_value_t = Precision::F32)]
    precision: Precision,
    /// Difference of logits that is allowed, by the greatest recorded one; without it, by dtype
    #[arg(long, value_name = "X", allow_negative_numbers = true, value_parser = tolerance, conflicts_with = "post")]
    tolerance: Option<f64>,
    /// The same for the loss and each gradient
    #[arg(long, value_name = "X", allow_negative_numbers = true, value_parser = tolerance)]
    gradient_tolerance: Option<f64>,
    #[command(flatten)]
    device: DeviceArgument,
    /// Print one JSON object a line, one for each model
    #[arg(long)]
    json: bool,
}

fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x.is_finite() && x >= 0.0 => Ok(x),
        _ => Err("expected a number, 0 or more".to_string()),
    }
}

impl Parity {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let fixtures = self.fixtures.clone();
        match self.post {
            _ if self.engine => self.engine(&fixtures.unwrap_or_else(|| "tests/fixtures/parity".into())),
            true => self.steps(&fixtures.unwrap_or_else(|| "tests/fixtures".into())),
            false => self.models(&fixtures.unwrap_or_else(|| "tests/fixtures/parity".into())),
        }
    }

    fn models(self, folder: &Path) -> Result<Exit, Failure> {
        let folders = fixtures(folder).map_err(failed)?;
        let (device, name) = self.device.open()?;
        refuse_precision(&device, name, self.precision)?;
        let dtype = self.precision.dtype();
        let usual = Tolerance::of(dtype);
        let allowed = Tolerance {
            logits: self.tolerance.unwrap_or(usual.logits),
            gradients: self.gradient_tolerance.unwrap_or(usual.gradients),
        };
        let mut off = Vec::new();
        for folder in &folders {
            let report = compare(folder, &device, &name.to_string(), dtype, allowed).map_err(failed)?;
            print(&if self.json { line(&report)? } else { plain(&report) })?;
            if !report.passed {
                off.push(report.fixture);
            }
        }
        gate("models", folders.len(), &off)
    }

    fn engine(self, folder: &Path) -> Result<Exit, Failure> {
        let folders = fixtures(folder).map_err(failed)?;
        let (device, name) = self.device.open()?;
        refuse_precision(&device, name, self.precision)?;
        let (mut off, mut all) = (Vec::new(), 0);
        for folder in &folders {
            for report in
                engine::compare(folder, &device, &name.to_string(), self.precision.dtype()).map_err(failed)?
            {
                print(&if self.json { line(&report)? } else { plain_engine(&report) })?;
                all += 1;
                if !report.passed {
                    off.push(format!("{} {} {}", report.fixture, report.path, report.kind));
                }
            }
        }
        gate("ways of decoding", all, &off)
    }

    fn steps(self, folder: &Path) -> Result<Exit, Failure> {
        let steps = steps(folder).map_err(failed)?;
        let (device, name) = self.device.open()?;
        refuse_precision(&device, name, self.precision)?;
        let dtype = self.precision.dtype();
        let mut allowed = StepTolerance::of(dtype);
        if let Some(tolerance) = self.gradient_tolerance {
            (allowed.loss, allowed.gradients) = (tolerance, tolerance);
        }
        let (mut off, device_name) = (Vec::new(), name.to_string());
        for step in &steps {
            let report = step.compare((&device, &device_name), dtype, allowed, &pairs_loss).map_err(failed)?;
            print(&if self.json { line(&report)? } else { plain_step(&report) })?;
            if !report.passed {
                off.push(report.fixture);
            }
        }
        gate("steps", steps.len(), &off)
    }
}

/// The exit code, and which of `all` are off.
fn gate(what: &str, all: usize, off: &[String]) -> Result<Exit, Failure> {
    if off.is_empty() {
        return Ok(Exit::Done);
    }
    let sentence = format!("{} of {all} {what} differ by more than allowed: {}", off.len(), off.join(", "));
    Err(Failure::new(Exit::GateNotMet, anyhow::anyhow!(sentence)))
}

/// DPO's loss of recorded pairs, the reference the same model with the adapter off.
fn pairs_loss(recorded: Preferences) -> Result<ModelLoss<'static>, String> {
    let read = |name: &String| serde_json::from_value(name.clone().into()).map_err(|error| error.to_string());
    let recipe = DpoRecipe {
        beta: recorded.beta,
        loss: recorded.losses.iter().map(read).collect::<Result<_, _>>()?,
        loss_weights: Some(recorded.weights),
        ..DpoRecipe::default()
    };
    let (loss, pairs) = (PairLoss::Dpo(recipe), PairBatch::new(&recorded.pairs.iter().collect::<Vec<_>>()));
    Ok(Box::new(move |decoder: &Decoder| {
        let reference = pairs.logps(&decoder.without_adapters());
        loss.term(decoder, &pairs, Some(reference), Counts::of(&loss, [&pairs]))
    }))
}

fn failed(error: ParityError) -> Failure {
    let absent = matches!(error, ParityError::List { .. } | ParityError::NoStep { .. });
    let failure = Failure::new(error.exit(), error);
    match absent {
        true => failure
            .hint("the recorded numbers are in tests/fixtures of the sources; give the folder with --fixtures"),
        false => failure,
    }
}

fn plain(report: &ParityReport) -> String {
    let mut text = format!(
        "{:<16} logits {:.1e}, {}/{} tops equal",
        report.fixture, report.logits_error, report.same_top, report.tokens
    );
    if let (Some(loss), Some(gradient)) = (report.loss_error, report.gradient_error) {
        let worst = report.gradient_worst.as_deref().unwrap_or_default();
        text += &format!(", loss {loss:.1e}, gradients {gradient:.1e} ({worst})");
    }
    text + &format!(", {} {}: {}\n", report.device, report.dtype, if report.passed { "ok" } else { "OFF" })
}

fn plain_engine(report: &EngineReport) -> String {
    let found = match (report.logits_error, report.other_texts) {
        (Some(error), _) => format!("logits {error:.1e}"),
        (None, other) => format!("{} other texts", other.unwrap_or(0)),
    };
    let verdict = if report.passed { "ok" } else { "OFF" };
    format!(
        "{:<16} {:<11} {:<16} {found} over {} tokens, {} {}: {verdict}\n",
        report.fixture, report.path, report.kind, report.tokens, report.device, report.dtype
    )
}

fn plain_step(report: &StepReport) -> String {
    let mut text = format!(
        "{:<12} loss {:.1e}, gradients {:.1e} ({}), parameters {:.1e}, their changes {:.1e} ({})",
        report.fixture,
        report.loss_error,
        report.gradient_error,
        report.gradient_worst,
        report.parameter_error,
        report.change_error,
        report.change_worst
    );
    if let Some(frozen) = report.frozen_error {
        text += &format!(", frozen {frozen:.1e}");
    }
    if let Some(reason) = &report.refused {
        text += &format!(", refused: {reason}");
    }
    text + &format!(", {} {}: {}\n", report.device, report.dtype, if report.passed { "ok" } else { "OFF" })
}
