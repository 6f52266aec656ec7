//! `fornax bench generate`: one sequence read and continued.

use std::path::PathBuf;

use clap::Args;
use fornax_base::exit::Exit;
use fornax_eval::bench::Workload;
use fornax_eval::bench::generate::{GenerateBench, GenerateReport, measure, random_model};

use super::super::DeviceArgument;
use super::super::model_folder::{self, shown};
use super::super::report::{Failure, print};
use super::{Precision, Threads, line, refuse_precision, tell};

/// Tokens per second of a prompt and of its continuation
#[derive(Debug, Args)]
pub(crate) struct Generate {
    /// Model folder in Hugging Face layout, or a run folder
    #[arg(long, value_name = "DIR|RUN", required_unless_present = "workload")]
    model: Option<PathBuf>,
    /// A model of random weights instead: nano, small, story or gpt2
    #[arg(long, value_name = "NAME", conflicts_with = "model")]
    workload: Option<Workload>,
    /// Tokens of the prompt, which is random
    #[arg(long, value_name = "N", default_value_t = 256)]
    prompt_tokens: usize,
    /// Tokens to generate
    #[arg(long, value_name = "N", default_value_t = 128)]
    new_tokens: usize,
    /// Runs that count; one before them does not
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    #[command(flatten)]
    threads: Threads,
    /// Dtype of weights, cache and matrix products
    #[arg(long, value_enum, value_name = "DTYPE", default_value_t = Precision::F32)]
    precision: Precision,
    #[command(flatten)]
    device: DeviceArgument,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Generate {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        self.threads.set()?;
        let (device, name) = self.device.open()?;
        let dtype = self.precision.dtype();
        refuse_precision(&device, name, self.precision)?;
        let (decoder, model) = match (&self.model, self.workload) {
            (Some(path), _) => (model_folder::open(path, Some(dtype), &device)?.decoder, shown(path)),
            (None, Some(workload)) => {
                let context = self.prompt_tokens.saturating_add(self.new_tokens);
                let workload = workload.with_batch(Some(1), Some(context))?;
                (random_model(&workload, dtype, &device), workload.name.to_string())
            }
            (None, None) => return Err(Failure::input("neither --model nor --workload was given")),
        };
        let bench = GenerateBench {
            prompt_tokens: self.prompt_tokens,
            new_tokens: self.new_tokens,
            runs: self.runs.into(),
        };
        let report = measure(&bench, &decoder, model, (&device, name), &mut tell)?;
        print(&if self.json { line(&report)? } else { plain(&report) })?;
        Ok(Exit::Done)
    }
}

/// One line for people.
fn plain(report: &GenerateReport) -> String {
    let (prefill, decode) = (report.prefill_tokens_per_second, report.decode_tokens_per_second);
    let mut text = format!(
        "{}: prompt {:.0} tokens/s ({} tokens, p10 {:.0}, p90 {:.0}), then {:.1} tokens/s ({}, p10 {:.1}, p90 {:.1}), \
         opening token after {:.1} ms",
        report.model,
        prefill.median,
        report.prompt_tokens,
        prefill.p10,
        prefill.p90,
        decode.median,
        report.new_tokens,
        decode.p10,
        decode.p90,
        report.first_token_seconds.median * 1e3
    );
    if let Some(mebibytes) = report.peak_rss_mb {
        text += &format!(", peak {mebibytes} MiB");
    }
    if let Some(mebibytes) = report.device_pool_mb {
        text += &format!(", device pool {mebibytes} MiB");
    }
    text + &format!(", {} {}\n", report.device, report.dtype)
}
