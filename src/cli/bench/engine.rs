//! `fornax bench engine`: requests of different lengths, batched in different ways.

use std::path::PathBuf;

use clap::Args;
use fornax_base::exit::Exit;
use fornax_eval::bench::Workload;
use fornax_eval::bench::mixed::{LONGEST, MixedBench, MixedReport, measure};
use fornax_model::KvElement;

use super::super::DeviceArgument;
use super::super::report::{Failure, print};
use super::generate::{Kv, Subject};
use super::table::markdown;
use super::{Precision, Threads, line, refuse_precision, tell};

/// Tokens per second of the engine on requests of different lengths: batched continuously, statically, and one by one
#[derive(Debug, Args)]
pub(crate) struct Engine {
    /// Model folder in Hugging Face layout, or a run folder
    #[arg(long, value_name = "DIR|RUN", required_unless_present = "workload")]
    model: Option<PathBuf>,
    /// A model of random weights instead: nano, small, story, gpt2 or m134
    #[arg(long, value_name = "NAME", conflicts_with = "model")]
    workload: Option<Workload>,
    /// Requests: prompts of 16 to 128 random tokens, answers of 8 to 256
    #[arg(long, value_name = "N", default_value_t = 64)]
    requests: usize,
    /// Sequences that run at once where requests are batched
    #[arg(long, value_name = "N", default_value_t = 16)]
    max_running: usize,
    /// Tokens of one pass of the model at most
    #[arg(long, value_name = "N", default_value_t = 512)]
    token_budget: usize,
    /// Rounds that count, in each of which every way has a turn; one before them does not
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Where keys and values lie
    #[arg(long, value_enum, value_name = "KIND", default_value = "paged")]
    kv: Kv,
    /// What is stored of keys and values: f32, bf16, f16 or int8; without it, what --precision says
    #[arg(long, value_name = "DTYPE")]
    kv_dtype: Option<KvElement>,
    #[command(flatten)]
    threads: Threads,
    /// Dtype of weights and matrix products
    #[arg(long, value_enum, value_name = "DTYPE", default_value_t = Precision::F32)]
    precision: Precision,
    #[command(flatten)]
    device: DeviceArgument,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Engine {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        self.threads.set()?;
        let (device, name) = self.device.open()?;
        refuse_precision(&device, name, self.precision)?;
        let dtype = self.precision.dtype();
        let subject = Subject::open(self.model.as_deref(), self.workload, LONGEST, dtype, &device)?;
        let bench = MixedBench {
            requests: self.requests,
            max_running: self.max_running,
            token_budget: self.token_budget,
            runs: self.runs.into(),
            cache: self.kv.with(self.kv_dtype.unwrap_or(KvElement::of(dtype))),
        };
        let report = measure(&bench, &subject.decoder, subject.name, (&device, name), &mut tell)?;
        print(&if self.json { line(&report)? } else { table(&report) })?;
        Ok(Exit::Done)
    }
}

fn table(report: &MixedReport) -> String {
    let rows: Vec<Vec<String>> = [
        ("continuous", report.continuous_tokens_per_second, 1.0),
        ("static", report.static_tokens_per_second, report.ratio_static),
        ("one by one", report.sequential_tokens_per_second, report.ratio_sequential),
    ]
    .into_iter()
    .zip(report.passes)
    .map(|((way, rate, ratio), passes)| {
        vec![
            way.to_string(),
            format!("{:.1}", rate.median),
            format!("{:.1}", rate.p10),
            format!("{:.1}", rate.p90),
            passes.to_string(),
            format!("{ratio:.2}"),
        ]
    })
    .collect();
    let heads = ["batching", "tok/s", "p10", "p90", "passes", "continuous is faster by"];
    markdown(&heads, &rows)
        + &format!(
            "\n{}: {} requests, {} prompt tokens, {} new tokens, {} at once, {} {}, {} {}, {} threads\n",
            report.model,
            report.requests,
            report.prompt_tokens,
            report.new_tokens,
            report.max_running,
            report.kv,
            report.kv_dtype,
            report.device,
            report.dtype,
            report.threads
        )
}
