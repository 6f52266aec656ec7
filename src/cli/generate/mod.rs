//! `fornax generate`: continue a text. The text goes to stdout and nothing else does.

mod output;

use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::Args;
use fornax_base::exit::Exit;
use fornax_base::files::read_text_limited;
use fornax_infer::engine::{
    Engine, EngineOptions, Memory, Request, RequestError, TokenEvent, TokenStream, ValidRequest,
};
use fornax_infer::generate::{Finish, GenerateError};
use fornax_infer::grammar::Grammar;
use fornax_infer::sampler::{Sampled, SamplingOptions};
use fornax_infer::speculative::SpeculationOptions;

use self::output::Output;
use super::adapter;
use super::cache::{Kv, KvDtype, engine_failure};
use super::draft::{self, DraftArguments};
use super::grammar::{self, GrammarArguments};
use super::model_folder::{self, LoadedModel};
use super::place::Place;
use super::report::{Failure, say};
use super::sampling::SamplingArguments;
use super::signals;

/// Longest prompt read from a file or stdin.
const MAX_PROMPT_BYTES: u64 = 64 << 20;
/// How often a signal is looked for while no token comes.
const PATIENCE: Duration = Duration::from_millis(50);

/// Continue a text
#[derive(Debug, Args)]
pub(crate) struct Generate {
    /// Model folder in Hugging Face layout, or a run folder
    #[arg(long, value_name = "DIR|RUN")]
    model: PathBuf,
    /// Adapter folder in PEFT layout, trained on that model, or the name of one that --lora loads
    #[arg(long, value_name = "DIR|NAME")]
    adapter: Option<PathBuf>,
    /// Load an adapter folder under a name; may be repeated. --adapter NAME uses one of them
    #[arg(long, value_name = "NAME=DIR", value_parser = named)]
    lora: Vec<(String, PathBuf)>,
    /// Text to continue; without it and --prompt-file, stdin is read
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt_file")]
    prompt: Option<String>,
    /// File holding the text to continue
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// Tokens to generate at most
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_tokens: usize,
    /// Texts to generate, each with a seed of its own; the prompt is computed once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    n: u16,
    #[command(flatten)]
    sampling: SamplingArguments,
    #[command(flatten)]
    grammar: GrammarArguments,
    /// Report the log-probability of each token, and of the N likeliest at its place
    #[arg(long, value_name = "N", requires = "json")]
    logprobs: Option<usize>,
    /// How keys and values lie: in pages that texts share, or in one piece for each
    #[arg(long, value_enum, default_value_t = Kv::Paged)]
    kv: Kv,
    /// What the cache stores of keys and values; auto is the dtype that is computed in
    #[arg(long, value_enum, default_value_t = KvDtype::Auto)]
    kv_dtype: KvDtype,
    #[command(flatten)]
    draft: DraftArguments,
    #[command(flatten)]
    place: Place,
    /// Print one JSON object instead of the text
    #[arg(long)]
    json: bool,
}

/// `NAME=DIR`.
fn named(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok((name.to_owned(), PathBuf::from(path))),
        _ => Err("write a name, `=` and the folder, for example polite=runs/polite/adapter".into()),
    }
}

impl Generate {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        self.sampling.check()?;
        let spec = self.grammar.spec()?;
        let prompt = self.read_prompt()?;
        let (device, dtype) = self.place.open()?;
        let mut model = model_folder::open(&self.model, dtype, &device)?;
        self.adapters(&mut model)?;
        let ids = model.tokenizer.encode(&prompt, true).map_err(|e| Failure::new(Exit::BadInput, e))?;
        let config = model.decoder.config();
        let (context, vocab_size) = (config.context, config.vocab_size);
        if ids.len() >= context && !ids.is_empty() {
            return Err(generate_failure(GenerateError::PromptTooLong { tokens: ids.len(), context }));
        }
        let mut options = self.sampling.options(&model.tokenizer, vocab_size)?;
        options.top_log_probs = self.logprobs.unwrap_or(0);
        if !options.ignore_eos {
            options.stop_ids.extend(model.end_ids());
        }
        options.check_ids(vocab_size).map_err(|e| Failure::new(Exit::BadInput, e))?;
        let grammar = spec.map(|spec| grammar::compile(&spec, &model)).transpose()?;
        let speculation = self.draft.options(&model.decoder, dtype, &device)?;
        self.continue_text(model, &ids, options, grammar, speculation)
    }

    /// Loads what --lora names, and makes what --adapter names the one that computes.
    fn adapters(&self, model: &mut LoadedModel) -> Result<(), Failure> {
        let mut chosen = None;
        for (name, folder) in &self.lora {
            let id = adapter::attach_as(&mut model.decoder, folder, name)?;
            if self.adapter.as_deref() == Some(Path::new(name)) {
                chosen = Some(id);
            }
        }
        match (&self.adapter, chosen) {
            (_, Some(id)) => model.decoder.activate(Some(id)),
            (Some(folder), None) => {
                adapter::attach(&mut model.decoder, folder)?;
            }
            // Loaded and not asked for: the base model computes.
            (None, None) => model.decoder.activate(None),
        }
        Ok(())
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

    fn continue_text(
        self,
        model: LoadedModel,
        ids: &[u32],
        options: SamplingOptions,
        grammar: Option<Grammar>,
        speculation: Option<SpeculationOptions>,
    ) -> Result<Exit, Failure> {
        let asked = Arc::new(AtomicUsize::new(0));
        signals::ask_through(Arc::clone(&asked))?;
        let n = usize::from(self.n);
        let room = model.decoder.config().context - ids.len();
        let max_tokens = self.max_tokens.min(room);
        let mut output = Output::new(&model, ids, n, self.json, self.logprobs.is_some(), &|| {
            Ok(fornax_infer::text::TextOptions {
                skip_special: true,
                stop: self.sampling.stop_strings()?,
                min_tokens: options.min_tokens,
            })
        })?;
        let engine = EngineOptions {
            layout: self.kv.layout(),
            element: self.kv_dtype.element(),
            // Each text in whole pages, at worst.
            memory: Memory::Tokens(n * (ids.len() + max_tokens + 16)),
            max_running: n,
            speculation,
            ..EngineOptions::default()
        };
        let engine = Engine::start(model.decoder, &engine).map_err(engine_failure)?;
        let request = Request { max_tokens: Some(max_tokens), n, grammar, ..Request::new(ids.to_vec(), options) };
        let request = ValidRequest::new(request, engine.facts()).map_err(request_failure)?;
        let stream = engine.submit(request).map_err(|e| Failure::new(Exit::Failed, e))?;
        let context_ends = max_tokens < self.max_tokens;
        follow(stream, &mut output, context_ends, &asked)?;
        say(&output.timing());
        let speculation = engine.speculation();
        if let Some(stats) = &speculation {
            say(&draft::told(stats));
        }
        output.finish(ids, speculation.as_ref())?;
        Ok(match asked.load(Ordering::SeqCst) {
            0 => Exit::Done,
            130 => Exit::Interrupted,
            _ => Exit::Terminated,
        })
    }
}

/// Hands the events on until all texts are complete, nobody reads them any more, or a signal came.
fn follow(
    mut stream: TokenStream,
    output: &mut Output,
    context_ends: bool,
    asked: &AtomicUsize,
) -> Result<(), Failure> {
    loop {
        match stream.recv_timeout(PATIENCE) {
            Err(_) => {}
            Ok(Some(TokenEvent::Token { sample, id, log_prob, top })) => {
                output.push(sample, Sampled { id, log_prob, top })?;
            }
            Ok(Some(TokenEvent::Finished { sample, finish, usage, .. })) => {
                let finish = match finish {
                    Finish::Length if context_ends => Finish::Context,
                    finish => finish,
                };
                output.finished(sample, finish, usage)?;
            }
            Ok(Some(TokenEvent::Failed(error))) => return Err(Failure::new(Exit::Failed, error)),
            Ok(Some(TokenEvent::Started { .. } | TokenEvent::PromptLogProbs(_))) => {}
            Ok(None) => return Ok(()),
        }
        // The stream is dropped, which cancels what is left.
        if output.is_complete() || asked.load(Ordering::SeqCst) != 0 {
            return Ok(());
        }
    }
}

fn request_failure(error: RequestError) -> Failure {
    match error {
        RequestError::EmptyPrompt => generate_failure(GenerateError::EmptyPrompt),
        RequestError::UnknownToken { id, vocab_size } => {
            generate_failure(GenerateError::UnknownToken { id, vocab_size })
        }
        other => Failure::new(Exit::BadInput, other),
    }
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
