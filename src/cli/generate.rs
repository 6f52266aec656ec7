//! `fornax generate`: continue a text. The text goes to stdout and nothing else does.

use std::io::{self, IsTerminal, Read, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::DType;
use clap::{Args, ValueEnum};
use fornax_base::exit::Exit;
use fornax_base::files::read_text_limited;
use fornax_infer::detokenize::Detokenizer;
use fornax_infer::generate::{Finish, GenerateError, Limits, Report, generate};
use fornax_infer::sampler::{Chain, SamplingOptions};
use serde::Serialize;

use super::DeviceArgument;
use super::adapter;
use super::model_folder::{self, LoadedModel};
use super::report::{Failure, print, say, stdout_failure};
use super::signals;

/// Longest prompt read from a file or stdin.
const MAX_PROMPT_BYTES: u64 = 64 << 20;

/// Continue a text
#[derive(Debug, Args)]
pub(crate) struct Generate {
    /// Model folder in Hugging Face layout, or a run folder
    #[arg(long, value_name = "DIR|RUN")]
    model: PathBuf,
    /// Adapter folder in PEFT layout, trained on that model
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Text to continue; without it and --prompt-file, stdin is read
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt_file")]
    prompt: Option<String>,
    /// File holding the text to continue
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// Tokens to generate at most
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_tokens: usize,
    /// 0 always takes the likeliest token; higher is more varied
    #[arg(long, value_name = "T", default_value_t = 0.8, allow_negative_numbers = true)]
    temperature: f32,
    /// Sample from the K likeliest tokens; 0 is off
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Sample from the likeliest tokens that together have this probability; 1 is off
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true)]
    top_p: f32,
    /// Drop tokens less likely than this share of the likeliest; 0 is off
    #[arg(long, value_name = "P", default_value_t = 0.0, allow_negative_numbers = true)]
    min_p: f32,
    /// The same seed gives the same text
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Go on after the end-of-text token
    #[arg(long)]
    ignore_eos: bool,
    /// Dtype to compute in; auto is f32 on the processor and the stored dtype elsewhere
    #[arg(long, value_enum, default_value_t = Precision::Auto)]
    precision: Precision,
    #[command(flatten)]
    device: DeviceArgument,
    /// Print one JSON object instead of the text
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Precision {
    Auto,
    F32,
    Bf16,
    F16,
}

impl Generate {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let options = SamplingOptions {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            seed: self.seed,
            ..SamplingOptions::default()
        };
        options.check().map_err(|e| Failure::new(Exit::BadInput, e))?;
        let prompt = self.read_prompt()?;
        let (device, name) = self.device.open()?;
        let dtype = match self.precision {
            Precision::Auto if name.to_string() == "cpu" => Some(DType::F32),
            Precision::Auto => None,
            Precision::F32 => Some(DType::F32),
            Precision::Bf16 => Some(DType::BF16),
            Precision::F16 => Some(DType::F16),
        };
        if let Some(dtype) = dtype.filter(|dtype| !device.supports_dtype(*dtype)) {
            return Err(Failure::input(format_args!("`{name}` does not compute in {dtype:?}"))
                .hint("`fornax doctor` lists the dtypes of each device"));
        }
        let mut model = model_folder::open(&self.model, dtype, &device)?;
        if let Some(folder) = &self.adapter {
            adapter::attach(&mut model.decoder, folder)?;
        }
        let ids = model.tokenizer.encode(&prompt, true).map_err(|e| Failure::new(Exit::BadInput, e))?;
        let vocab_size = model.decoder.config().vocab_size;
        let chain = Chain::new(&options, &ids, vocab_size, &[]).map_err(|e| Failure::new(Exit::BadInput, e))?;
        self.continue_text(&model, &ids, chain)
    }

    fn read_prompt(&self) -> Result<String, Failure> {
        if let Some(text) = &self.prompt {
            return Ok(text.clone());
        }
        if let Some(path) = &self.prompt_file {
            return read_text_limited(path, MAX_PROMPT_BYTES).map_err(|e| Failure::new(Exit::BadInput, e));
        }
        if io::stdin().is_terminal() {
            return Err(Failure::input("no prompt was given")
                .hint("give --prompt TEXT or --prompt-file FILE, or pipe the text in"));
        }
        let mut bytes = Vec::new();
        let read = io::stdin().take(MAX_PROMPT_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|error| Failure::new(Exit::Failed, error))?;
        if bytes.len() as u64 > MAX_PROMPT_BYTES {
            return Err(Failure::input(format_args!("stdin holds more than {MAX_PROMPT_BYTES} bytes")));
        }
        String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            Failure::input(format_args!("stdin is not UTF-8 text: byte {at} does not belong to a character"))
        })
    }

    fn continue_text(&self, model: &LoadedModel, ids: &[u32], chain: Chain) -> Result<Exit, Failure> {
        let asked = Arc::new(AtomicUsize::new(0));
        signals::ask_through(Arc::clone(&asked))?;
        let stop_ids = match self.ignore_eos {
            true => Vec::new(),
            false => stop_ids(model),
        };
        let limits = Limits { max_tokens: self.max_tokens, stop_ids };
        let mut text = Text::new(model, ids, self.json)?;
        let report = generate(&model.decoder, ids, &chain, &limits, &mut |id| {
            text.push(id);
            match text.broken() || asked.load(Ordering::SeqCst) != 0 {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        let report = report.map_err(generate_failure)?;
        text.finish(ids, &report)?;
        say(&timing(&report));
        Ok(match asked.load(Ordering::SeqCst) {
            0 => Exit::Done,
            130 => Exit::Interrupted,
            _ => Exit::Terminated,
        })
    }
}

/// End-of-text tokens of the configuration and of the tokenizer.
fn stop_ids(model: &LoadedModel) -> Vec<u32> {
    let mut ids = model.decoder.config().eos_ids.clone();
    ids.extend(model.tokenizer.eos_id().filter(|id| !ids.contains(id)));
    ids
}

pub(crate) fn generate_failure(error: GenerateError) -> Failure {
    match error {
        GenerateError::EmptyPrompt => Failure::new(Exit::BadInput, error)
            .hint("give at least one character; this tokenizer adds no beginning-of-text token"),
        GenerateError::PromptTooLong { .. } => Failure::new(Exit::BadInput, error).hint("shorten the prompt"),
        GenerateError::UnknownToken { .. } => Failure::new(Exit::BadInput, error)
            .hint("the tokenizer and the weights of this folder do not belong together"),
        other => Failure::new(Exit::Failed, other),
    }
}

/// Prefill and decoding apart: they are limited by different parts of the machine.
fn timing(report: &Report) -> String {
    let rate = |n: usize, seconds: f64| n as f64 / seconds.max(1e-9);
    let (prefill, decode) = (report.prefill.as_secs_f64(), report.decode.as_secs_f64());
    format!(
        "prefill: {} tokens in {prefill:.3} s ({:.1} tok/s); decode: {} tokens in {decode:.3} s ({:.1} tok/s); {}\n",
        report.prompt_tokens,
        rate(report.prompt_tokens, prefill),
        report.generated_tokens,
        rate(report.generated_tokens, decode),
        match report.finish {
            Finish::Stop => "ended by the model",
            Finish::Length => "--max-tokens reached",
            Finish::Context => "the model's context is full",
            Finish::Cancelled => "stopped",
        }
    )
}

/// The generated text on its way to stdout.
struct Text {
    detokenizer: Detokenizer,
    json: bool,
    ids: Vec<u32>,
    /// The whole text, kept for `--json` alone.
    whole: String,
    written: Result<(), Failure>,
}

#[derive(Serialize)]
struct JsonReport<'a> {
    text: &'a str,
    prompt_ids: &'a [u32],
    ids: &'a [u32],
    finish: &'static str,
    prefill_tokens: usize,
    prefill_seconds: f64,
    decode_tokens: usize,
    decode_seconds: f64,
}

impl Text {
    fn new(model: &LoadedModel, prompt: &[u32], json: bool) -> Result<Self, Failure> {
        // Behind the prompt, so that a space between it and the text is kept.
        let detokenizer = Detokenizer::after_prompt(Arc::clone(&model.tokenizer), prompt, true)
            .map_err(|error| Failure::new(Exit::Failed, error))?;
        Ok(Self { detokenizer, json, ids: Vec::new(), whole: String::new(), written: Ok(()) })
    }

    fn push(&mut self, id: u32) {
        self.ids.push(id);
        match self.detokenizer.push(id) {
            Ok(piece) => self.write(piece.as_deref().unwrap_or_default()),
            Err(error) => self.written = Err(Failure::new(Exit::Failed, error)),
        }
    }

    fn write(&mut self, piece: &str) {
        if self.json {
            self.whole.push_str(piece);
        } else if self.written.is_ok() && !piece.is_empty() {
            let mut out = io::stdout().lock();
            self.written = out.write_all(piece.as_bytes()).and_then(|()| out.flush()).map_err(stdout_failure);
        }
    }

    fn broken(&self) -> bool {
        self.written.is_err()
    }

    fn finish(mut self, prompt: &[u32], report: &Report) -> Result<(), Failure> {
        let rest = self.detokenizer.clone().finish().map_err(|e| Failure::new(Exit::Failed, e))?;
        self.write(&rest);
        std::mem::replace(&mut self.written, Ok(()))?;
        let last = match self.json {
            true => self.json_object(prompt, report)?,
            false => String::new(),
        };
        // One line break ends the text for the shell's prompt.
        print(&(last + "\n"))
    }

    fn json_object(&self, prompt: &[u32], report: &Report) -> Result<String, Failure> {
        let object = JsonReport {
            text: &self.whole,
            prompt_ids: prompt,
            ids: &self.ids,
            finish: match report.finish {
                Finish::Stop => "stop",
                Finish::Length => "length",
                Finish::Context => "context",
                Finish::Cancelled => "cancelled",
            },
            prefill_tokens: report.prompt_tokens,
            prefill_seconds: report.prefill.as_secs_f64(),
            decode_tokens: report.generated_tokens,
            decode_seconds: report.decode.as_secs_f64(),
        };
        serde_json::to_string(&object).map_err(|error| Failure::new(Exit::Failed, error))
    }
}
