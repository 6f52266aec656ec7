//! `fornax bench generate`: sequences read and continued, over every combination of what was asked for.

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device};
use clap::{Args, ValueEnum};
use fornax_base::exit::Exit;
use fornax_base::files::read_text_limited;
use fornax_eval::bench::bandwidth::memory_rate;
use fornax_eval::bench::generate::{GenerateBench, GenerateReport, measure, random_model};
use fornax_eval::bench::{CacheKind, Workload};
use fornax_infer::speculative::SpeculationOptions;
use fornax_model::device::{DeviceName, Kind};
use fornax_model::{Decoder, KvElement};
use fornax_train::monitor::plot::Plot;
use fornax_train::monitor::scale::Unit;

use super::super::model_folder::{self, shown};
use super::super::report::{Failure, print};
use super::super::{DeviceArgument, draft};
use super::table::{draw, markdown};
use super::{Precision, Threads, line, refuse_precision, tell};

/// Tokens of a page of a paged cache.
const PAGE_LEN: usize = 16;
/// Longest text that prompts are cut from.
const MAX_TEXT_BYTES: u64 = 64 << 20;

/// Tokens per second of prompts and of their continuations
#[derive(Debug, Args)]
pub(crate) struct Generate {
    /// Model folder in Hugging Face layout, or a run folder
    #[arg(long, value_name = "DIR|RUN", required_unless_present = "workload")]
    model: Option<PathBuf>,
    /// A model of random weights instead: nano, small, story, gpt2 or m134
    #[arg(long, value_name = "NAME", conflicts_with = "model")]
    workload: Option<Workload>,
    /// Tokens of each prompt; several with commas, as with the next five flags, and every combination is measured
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "256")]
    prompt_tokens: Vec<usize>,
    /// Tokens to generate
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "128")]
    new_tokens: Vec<usize>,
    /// Sequences at once
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1")]
    batch: Vec<usize>,
    /// Where keys and values lie
    #[arg(long, value_enum, value_name = "KIND", value_delimiter = ',', default_value = "contiguous")]
    kv: Vec<Kv>,
    /// What is stored of keys and values: f32, bf16, f16 or int8; without it, what --precision says
    #[arg(long, value_name = "DTYPE", value_delimiter = ',')]
    kv_dtype: Vec<KvElement>,
    /// What proposes tokens: off; lookup (what followed the same tokens before); exit:N (the model's N leading layers); or
    /// the folder of a smaller model with the same vocabulary
    #[arg(long, value_name = "DRAFT", value_delimiter = ',', default_value = "off")]
    speculate: Vec<String>,
    /// Propose so many tokens always; without it, as many as pay, up to 8
    #[arg(long, value_name = "N")]
    draft_length: Option<usize>,
    /// Text that prompts are cut from; without it they are random
    #[arg(long, value_name = "FILE", requires = "model")]
    prompt_file: Option<PathBuf>,
    /// Runs that count; one before them does not
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Draw the rates into this PNG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    threads: Threads,
    /// Dtype of weights and matrix products
    #[arg(long, value_enum, value_name = "DTYPE", default_value_t = Precision::F32)]
    precision: Precision,
    #[command(flatten)]
    device: DeviceArgument,
    /// Print one JSON object a line, one for each combination
    #[arg(long)]
    json: bool,
}

/// `--kv`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kv {
    Contiguous,
    Paged,
}

impl Kv {
    pub(super) fn with(self, element: KvElement) -> CacheKind {
        CacheKind { page_len: (self == Kv::Paged).then_some(PAGE_LEN), element }
    }
}

impl Generate {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        self.threads.set()?;
        let (device, name) = self.device.open()?;
        let dtype = self.precision.dtype();
        refuse_precision(&device, name, self.precision)?;
        let longest = |lengths: &[usize]| lengths.iter().copied().max().unwrap_or(0);
        let context = longest(&self.prompt_tokens).saturating_add(longest(&self.new_tokens));
        let subject = Subject::open(self.model.as_deref(), self.workload, context, dtype, &device)?;
        let text = self.text()?;
        let rate = memory_rate(&device, matches!(name, DeviceName::Named(Kind::Cpu, _)));
        let mut reports = Vec::new();
        for bench in self.cells(&text, rate, &device)? {
            let report = measure(&bench, &subject.decoder, subject.name.clone(), (&device, name), &mut tell)?;
            if self.json {
                print(&line(&report)?)?;
            }
            reports.push(report);
        }
        if !self.json {
            print(&table(&reports))?;
        }
        if let Some(path) = &self.plot {
            draw(&plots(&reports), path)?;
        }
        Ok(Exit::Done)
    }

    /// Every combination.
    fn cells(&self, text: &[u32], rate: Option<f64>, device: &Device) -> Result<Vec<GenerateBench>, Failure> {
        let elements = match self.kv_dtype.is_empty() {
            true => vec![KvElement::of(self.precision.dtype())],
            false => self.kv_dtype.clone(),
        };
        let mut cells = Vec::new();
        for word in &self.speculate {
            let speculation = self.speculation(word, device)?;
            for (&kv, &element) in self.kv.iter().flat_map(|kv| elements.iter().map(move |element| (kv, element)))
            {
                for (&batch, &prompt_tokens) in
                    self.batch.iter().flat_map(|batch| self.prompt_tokens.iter().map(move |n| (batch, n)))
                {
                    cells.extend(self.new_tokens.iter().map(|&new_tokens| GenerateBench {
                        prompt_tokens,
                        new_tokens,
                        batch,
                        runs: self.runs.into(),
                        cache: kv.with(element),
                        text: text.to_vec(),
                        speculation: speculation.clone(),
                        memory_rate: rate,
                    }));
                }
            }
        }
        Ok(cells)
    }

    fn speculation(&self, word: &str, device: &Device) -> Result<Option<(SpeculationOptions, String)>, Failure> {
        if word == "off" {
            return Ok(None);
        }
        let draft = draft::named("--speculate", word, Some(self.precision.dtype()), device)?;
        let mut options = SpeculationOptions::new(draft);
        if let Some(length) = self.draft_length {
            (options.most, options.fixed) = (length, true);
        }
        Ok(Some((options, word.to_string())))
    }

    /// Ids of the text that prompts are cut from.
    fn text(&self) -> Result<Vec<u32>, Failure> {
        let (Some(path), Some(model)) = (&self.prompt_file, &self.model) else { return Ok(Vec::new()) };
        let text = read_text_limited(path, MAX_TEXT_BYTES).map_err(|error| Failure::new(Exit::BadInput, error))?;
        let tokenizer = model_folder::open_tokenizer(model)?;
        let ids = tokenizer.encode(&text, false).map_err(|error| Failure::new(Exit::BadInput, error))?;
        match ids.is_empty() {
            true => Err(Failure::input(format_args!("`{}` holds no text", path.display()))),
            false => Ok(ids),
        }
    }
}

/// What is measured: a model, and what to call it.
pub(super) struct Subject {
    pub(super) decoder: Decoder,
    pub(super) name: String,
}

impl Subject {
    /// The model at `path`, or one of a workload's shape with random weights for sequences of `context` tokens.
    pub(super) fn open(
        path: Option<&Path>,
        workload: Option<Workload>,
        context: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Self, Failure> {
        match (path, workload) {
            (Some(path), _) => {
                Ok(Self { decoder: model_folder::open_weights(path, Some(dtype), device)?, name: shown(path) })
            }
            (None, Some(workload)) => {
                let workload = workload.with_batch(Some(1), Some(context))?;
                Ok(Self { decoder: random_model(&workload, dtype, device), name: workload.name.to_string() })
            }
            (None, None) => Err(Failure::input("neither --model nor --workload was given")),
        }
    }
}

fn table(reports: &[GenerateReport]) -> String {
    let heads = [
        "model",
        "prompt",
        "new",
        "batch",
        "kv",
        "proposals",
        "prompt tok/s",
        "tok/s",
        "p10",
        "p90",
        "first ms",
        "MB/token",
        "of memory",
        "accepted",
        "per round",
        "speed-up",
    ];
    let optional = |value: Option<f64>, digits: usize| value.map_or("-".into(), |x| format!("{x:.digits$}"));
    let percent = |value: Option<f64>| value.map_or("-".into(), |x| format!("{:.0} %", x * 100.0));
    let row = |report: &GenerateReport| {
        let decode = report.decode_tokens_per_second;
        vec![
            report.model.clone(),
            report.prompt_tokens.to_string(),
            report.new_tokens.to_string(),
            report.batch.to_string(),
            format!("{} {}", report.kv, report.kv_dtype),
            report.speculation.clone(),
            format!("{:.0}", report.prefill_tokens_per_second.median),
            format!("{:.1}", decode.median),
            format!("{:.1}", decode.p10),
            format!("{:.1}", decode.p90),
            format!("{:.1}", report.first_token_seconds.median * 1e3),
            format!("{:.2}", report.bytes_per_token as f64 / 1e6),
            percent(report.memory_share),
            percent(report.acceptance),
            optional(report.mean_length, 2),
            optional(report.speed_up, 2),
        ]
    };
    let mut text = markdown(&heads, &reports.iter().map(row).collect::<Vec<_>>());
    if let Some(report) = reports.first() {
        let memory = report.memory_gbps.map_or(String::new(), |rate| format!(", memory {rate:.1} GB/s"));
        let peak = report.peak_rss_mb.map_or(String::new(), |mb| format!(", peak {mb} MiB"));
        text += &format!("\n{} {}, {} threads{memory}{peak}\n", report.device, report.dtype, report.threads);
    }
    text
}

/// Decoding and reading by the length of the prompt, or by the batch where that varies; a line for each of the rest.
fn plots(reports: &[GenerateReport]) -> Vec<Plot> {
    let batches = reports.iter().any(|report| report.batch != reports[0].batch);
    let plot = |title: &str, of: &dyn Fn(&GenerateReport) -> f64| {
        let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
        for report in reports {
            let (at, rest) = match batches {
                true => (report.batch, format!("prompt {}", report.prompt_tokens)),
                false => (report.prompt_tokens, format!("batch {}", report.batch)),
            };
            let name = format!(
                "{rest}, {} new, {} {}, proposals {}",
                report.new_tokens, report.kv, report.kv_dtype, report.speculation
            );
            let point = (at as f64, of(report));
            match lines.iter_mut().find(|(other, _)| *other == name) {
                Some((_, points)) => points.push(point),
                None => lines.push((name, vec![point])),
            }
        }
        lines.iter_mut().for_each(|(_, points)| points.sort_by(|a, b| a.0.total_cmp(&b.0)));
        let across = if batches { "sequences at once" } else { "tokens of the prompt" };
        Plot { title: title.into(), across: across.into(), log: false, unit: Unit::Count, lines }
    };
    vec![
        plot("tokens/s after the prompt", &|report| report.decode_tokens_per_second.median),
        plot("tokens/s of the prompt", &|report| report.prefill_tokens_per_second.median),
    ]
}
