//! `fornax bench parity`: a device held to recorded logits, losses and gradients.

use std::path::PathBuf;

use clap::Args;
use fornax_base::exit::Exit;
use fornax_eval::parity::{ParityError, ParityReport, Tolerance, compare, fixtures};

use super::super::DeviceArgument;
use super::super::report::{Failure, print};
use super::{Precision, line, refuse_precision};

/// Hold a device to recorded logits, losses and gradients
#[derive(Debug, Args)]
pub(crate) struct Parity {
    /// Folder of recorded models, such as tests/fixtures/parity, or one of them
    #[arg(long, value_name = "DIR")]
    fixtures: PathBuf,
    /// Dtype of the matrix products; logits are computed with weights stored in it, gradients with weights in f32
    #[arg(long, value_enum, value_name = "DTYPE", default_value_t = Precision::F32)]
    precision: Precision,
    /// Difference of logits that is allowed, by the greatest recorded one; without it, by dtype
    #[arg(long, value_name = "X", allow_negative_numbers = true, value_parser = tolerance)]
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
        let folders = fixtures(&self.fixtures).map_err(failed)?;
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
        if off.is_empty() {
            return Ok(Exit::Done);
        }
        let (n, all) = (off.len(), folders.len());
        let sentence = format!("{n} of {all} models differ by more than allowed: {}", off.join(", "));
        Err(Failure::new(Exit::GateNotMet, anyhow::anyhow!(sentence)))
    }
}

fn failed(error: ParityError) -> Failure {
    Failure::new(error.exit(), error)
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
