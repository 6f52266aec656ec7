//! `fornax chat`: talk with a model on the terminal, or line by line through pipes.

mod lines;
mod prompt;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use fornax_base::exit::Exit;
use fornax_base::files::read_text_limited;
use fornax_data::chat_template::{Moment, RenderOptions};
use fornax_data::rendering::PromptStyle;
use fornax_infer::chat::{self, Answered, ChatError, ChatOptions, Ended};
use serde::Serialize;

use self::lines::Lines;
use self::prompt::Prompt;
use super::adapter;
use super::cache::{KvDtype, engine_failure};
use super::draft::DraftArguments;
use super::model_folder::{self, LoadedModel};
use super::place::Place;
use super::report::{Failure, say, stdout_failure};
use super::sampling::SamplingArguments;
use super::signals;

/// Longest system prompt read from a file.
const MAX_SYSTEM_BYTES: u64 = 1 << 20;

/// Talk with a model; /help lists what can be typed
#[derive(Debug, Args)]
pub(crate) struct Chat {
    /// Model folder in Hugging Face layout, or a run folder
    #[arg(long, value_name = "DIR|RUN")]
    model: PathBuf,
    /// Adapter folder in PEFT layout, trained on that model
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// What the model is told before everything else
    #[arg(long, value_name = "TEXT", conflicts_with = "system_file")]
    system: Option<String>,
    /// File holding what the model is told before everything else
    #[arg(long, value_name = "FILE")]
    system_file: Option<PathBuf>,
    /// How messages are written instead of the model's own template: chatml, alpaca, plain or a file
    #[arg(long, value_name = "NAME|FILE")]
    template: Option<String>,
    /// No template: the model continues what you type, as it stands
    #[arg(long, conflicts_with = "template")]
    raw: bool,
    /// Go on with a conversation that /save wrote
    #[arg(long, value_name = "FILE")]
    load: Option<PathBuf>,
    /// Tokens of an answer at most
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// Tokens of the conversation that the model sees at most; without it, the model's context up to 8192
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    context: Option<u32>,
    #[command(flatten)]
    sampling: SamplingArguments,
    /// What the cache stores of keys and values; auto is the dtype that is computed in
    #[arg(long, value_enum, default_value_t = KvDtype::Auto)]
    kv_dtype: KvDtype,
    #[command(flatten)]
    draft: DraftArguments,
    /// Keep the lines you type in this file, for the arrow keys of the next conversation
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
    /// Read messages from stdin and print one JSON object for each answer
    #[arg(long)]
    json: bool,
}

/// Context that is taken without being asked for.
const USUAL_CONTEXT: u32 = 8192;

impl Chat {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        self.sampling.check()?;
        let system = match &self.system_file {
            Some(path) => {
                let text = read_text_limited(path, MAX_SYSTEM_BYTES);
                Some(text.map_err(|e| Failure::new(Exit::BadInput, e))?.trim_end().to_owned())
            }
            None => self.system.clone(),
        };
        let (device, dtype) = self.place.open()?;
        let mut model = model_folder::open(&self.model, dtype, &device)?;
        if let Some(folder) = &self.adapter {
            adapter::attach(&mut model.decoder, folder)?;
        }
        let style = self.style(&model)?;
        let speculation = self.draft.options(&model.decoder, dtype, &device)?;
        let options = ChatOptions { speculation, ..self.options(&model, style.as_ref(), system)? };
        let context = options.context;
        let LoadedModel { decoder, tokenizer, .. } = model;
        let mut chat = chat::Chat::new(decoder, tokenizer, style, options).map_err(chat_failure)?;
        if let Some(path) = &self.load {
            chat.load(path).map_err(|refusal| chat_failure(refusal.into()))?;
        }
        let asked = Arc::new(AtomicUsize::new(0));
        if self.json || !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            signals::ask_through(Arc::clone(&asked))?;
            let talked = chat.run(&mut Lines::new(Arc::clone(&asked), self.json));
            talked.map_err(chat_failure)?;
            return Ok(match asked.load(Ordering::SeqCst) {
                0 => Exit::Done,
                130 => Exit::Interrupted,
                _ => Exit::Terminated,
            });
        }
        let mut terminal = Prompt::open(asked, self.history.clone())?;
        say(&format!("{} tokens of context; /help lists the commands, Ctrl-D leaves\n", context));
        let talked = chat.run(&mut terminal);
        let exit = terminal.close();
        talked.map_err(chat_failure)?;
        exit
    }

    fn style(&self, model: &LoadedModel) -> Result<Option<PromptStyle>, Failure> {
        let failure = |error| Failure::new(Exit::BadInput, error);
        if self.raw {
            return Ok(None);
        }
        let style = match &self.template {
            Some(name) => Some(PromptStyle::named(name, &model.tokenizer).map_err(failure)?),
            None => PromptStyle::of_folder(&model.folder, &model.tokenizer).map_err(failure)?,
        };
        let style = style.ok_or_else(|| {
            let hint = "`--template chatml` writes messages as training does without another template; `--raw` \
                        continues what you type, for models that were never tuned to answer";
            Failure::input(format_args!("`{}` has no chat template", self.model.display())).hint(hint)
        })?;
        // One moment for the whole conversation: another one in each prompt would make each prompt new.
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64);
        Ok(Some(style.with(RenderOptions { now: Some(Moment::from_unix(seconds)), ..RenderOptions::default() })))
    }

    fn options(
        &self,
        model: &LoadedModel,
        style: Option<&PromptStyle>,
        system: Option<String>,
    ) -> Result<ChatOptions, Failure> {
        let config = model.decoder.config();
        let mut sampling = self.sampling.options(&model.tokenizer, config.vocab_size)?;
        if !sampling.ignore_eos {
            sampling.stop_ids.extend(model.end_ids());
            sampling.stop_ids.extend(style.and_then(|style| style.end_of_turn(&model.tokenizer)));
        }
        let stop = self.sampling.stop_strings()?;
        if let Some(asked) = self.context.filter(|asked| *asked as usize > config.context) {
            let context = config.context;
            return Err(Failure::input(format_args!("--context is {asked}, the model's context holds {context}"))
                .hint(format!("give --context {context} or less")));
        }
        let context = (self.context.unwrap_or(USUAL_CONTEXT) as usize).min(config.context);
        let (max_tokens, element) = (self.max_tokens as usize, self.kv_dtype.element());
        Ok(ChatOptions { sampling, max_tokens, context, system, stop, element, speculation: None })
    }
}

fn chat_failure(error: ChatError) -> Failure {
    match error {
        ChatError::Refused(refusal) => {
            let hint = refusal.hint();
            Failure::new(Exit::BadInput, refusal).hint(hint)
        }
        ChatError::Sampling(error) => Failure::new(Exit::BadInput, error),
        ChatError::Engine(error) => engine_failure(error),
        ChatError::Terminal(error) if error.kind() == io::ErrorKind::InvalidData => {
            Failure::new(Exit::BadInput, error)
        }
        ChatError::Terminal(error) => stdout_failure(error),
        other => Failure::new(Exit::Failed, other),
    }
}

/// One answer of `--json`.
#[derive(Serialize)]
struct JsonAnswer<'a> {
    text: &'a str,
    finish: &'static str,
    prompt_tokens: usize,
    kept_tokens: usize,
    tokens: usize,
    prefill_seconds: f64,
    decode_seconds: f64,
}

impl<'a> From<&'a Answered> for JsonAnswer<'a> {
    fn from(answered: &'a Answered) -> Self {
        Self {
            text: &answered.text,
            finish: match answered.ended {
                Ended::Stop => "stop",
                Ended::Length => "length",
                Ended::Context => "context",
                Ended::Stopped => "cancelled",
            },
            prompt_tokens: answered.prompt_tokens,
            kept_tokens: answered.kept_tokens,
            tokens: answered.tokens,
            prefill_seconds: answered.prefill.as_secs_f64(),
            decode_seconds: answered.decode.as_secs_f64(),
        }
    }
}

/// What an answer cost, in one line.
fn cost(answered: &Answered) -> String {
    let Answered { prompt_tokens, kept_tokens, tokens, prefill, decode, context, .. } = answered;
    let rate = *tokens as f64 / decode.as_secs_f64().max(1e-9);
    let new = prompt_tokens - kept_tokens;
    let end = match answered.ended {
        Ended::Stop => String::new(),
        Ended::Length => "; --max-tokens reached".into(),
        Ended::Context => format!("; the context of {context} tokens is full"),
        Ended::Stopped => "; stopped".into(),
    };
    let (prefill, used) = (prefill.as_secs_f64(), prompt_tokens + tokens);
    format!(
        "[{tokens} tokens, {rate:.1} tok/s; {new} new of {prompt_tokens} before them in {prefill:.3} s; {used} of {context}{end}]"
    )
}
