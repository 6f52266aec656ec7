//! `fornax bench context`: long prompts.

use std::path::PathBuf;

use clap::Args;
use fornax_base::exit::Exit;
use fornax_eval::bench::Workload;
use fornax_eval::bench::context::{ContextBench, ContextReport, measure};
use fornax_model::KvElement;
use fornax_train::monitor::plot::Plot;
use fornax_train::monitor::scale::Unit;

use super::super::DeviceArgument;
use super::super::report::{Failure, print};
use super::generate::{Kv, Subject};
use super::table::{draw, markdown};
use super::{Precision, Threads, line, refuse_precision, tell};

/// Time to the opening token, time of each further one, and memory, by the length of the prompt
#[derive(Debug, Args)]
pub(crate) struct Context {
    /// Model folder in Hugging Face layout, or a run folder
    #[arg(long, value_name = "DIR|RUN", required_unless_present = "workload")]
    model: Option<PathBuf>,
    /// A model of random weights instead, with room for the longest prompt: nano, small, story, gpt2 or m134
    #[arg(long, value_name = "NAME", conflicts_with = "model")]
    workload: Option<Workload>,
    /// Tokens of the prompt; several with commas, measured from the shortest to the longest
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1024,4096,16384,32768")]
    lengths: Vec<usize>,
    /// Tokens to generate after each prompt
    #[arg(long, value_name = "N", default_value_t = 32)]
    new_tokens: usize,
    /// Where keys and values lie; several with commas
    #[arg(long, value_enum, value_name = "KIND", value_delimiter = ',', default_value = "contiguous")]
    kv: Vec<Kv>,
    /// What is stored of keys and values: f32, bf16, f16 or int8; several with commas; without it, what --precision says
    #[arg(long, value_name = "DTYPE", value_delimiter = ',')]
    kv_dtype: Vec<KvElement>,
    /// Draw the curves into this PNG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    threads: Threads,
    /// Dtype of weights and matrix products
    #[arg(long, value_enum, value_name = "DTYPE", default_value_t = Precision::F32)]
    precision: Precision,
    #[command(flatten)]
    device: DeviceArgument,
    /// Print one JSON object a line, one for each measurement
    #[arg(long)]
    json: bool,
}

impl Context {
    pub(crate) fn run(mut self) -> Result<Exit, Failure> {
        self.threads.set()?;
        let (device, name) = self.device.open()?;
        refuse_precision(&device, name, self.precision)?;
        // Memory is that of the process, which gives little back: the shortest comes before the others.
        self.lengths.sort_unstable();
        let longest = self.lengths.last().copied().unwrap_or(0).saturating_add(self.new_tokens);
        let dtype = self.precision.dtype();
        let subject = Subject::open(self.model.as_deref(), self.workload, longest, dtype, &device)?;
        let elements = match self.kv_dtype.is_empty() {
            true => vec![KvElement::of(dtype)],
            false => self.kv_dtype.clone(),
        };
        let mut reports = Vec::new();
        for &length in &self.lengths {
            for (&kv, &element) in self.kv.iter().flat_map(|kv| elements.iter().map(move |element| (kv, element)))
            {
                let bench = ContextBench { length, new_tokens: self.new_tokens, cache: kv.with(element) };
                tell(&format!("{}: {length} tokens, {} {element}", subject.name, bench.cache.word()));
                let report = measure(&bench, &subject.decoder, subject.name.clone(), (&device, name))?;
                if self.json {
                    print(&line(&report)?)?;
                }
                reports.push(report);
            }
        }
        if !self.json {
            print(&table(&reports))?;
        }
        if let Some(path) = &self.plot {
            draw(&plots(&reports), path)?;
        }
        Ok(Exit::Done)
    }
}

fn table(reports: &[ContextReport]) -> String {
    let heads =
        ["model", "prompt", "kv", "TTFT s", "prompt tok/s", "TPOT ms", "p10", "p90", "cache MiB", "process MiB"];
    let row = |report: &ContextReport| {
        let token = report.token_seconds;
        vec![
            report.model.clone(),
            report.prompt_tokens.to_string(),
            format!("{} {}", report.kv, report.kv_dtype),
            format!("{:.3}", report.first_token_seconds),
            format!("{:.0}", report.prefill_tokens_per_second),
            format!("{:.2}", token.median * 1e3),
            format!("{:.2}", token.p10 * 1e3),
            format!("{:.2}", token.p90 * 1e3),
            format!("{:.1}", report.kv_bytes as f64 / f64::from(1 << 20)),
            report.rss_mb.map_or("-".into(), |mb| mb.to_string()),
        ]
    };
    let text = markdown(&heads, &reports.iter().map(row).collect::<Vec<_>>());
    let where_ = reports.first().map(|r| format!("\n{} {}, {} threads\n", r.device, r.dtype, r.threads));
    text + &where_.unwrap_or_default()
}

fn plots(reports: &[ContextReport]) -> Vec<Plot> {
    let plot = |title: &str, unit: Unit, of: &dyn Fn(&ContextReport) -> f64| {
        let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
        for report in reports {
            let name = format!("{} {}", report.kv, report.kv_dtype);
            let point = (report.prompt_tokens as f64, of(report));
            match lines.iter_mut().find(|(other, _)| *other == name) {
                Some((_, points)) => points.push(point),
                None => lines.push((name, vec![point])),
            }
        }
        Plot { title: title.into(), across: "tokens of the prompt".into(), log: true, unit, lines }
    };
    vec![
        plot("seconds to the opening token", Unit::Plain, &|report| report.first_token_seconds),
        plot("seconds of each further token", Unit::Plain, &|report| report.token_seconds.median),
        plot("bytes of the cache", Unit::Bytes, &|report| report.kv_bytes as f64),
    ]
}
