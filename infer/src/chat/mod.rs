//! A conversation with a model on a terminal that is handed in, or line by line where there is none.
//!
//! Knows messages, a template and a terminal that reads lines and takes text; nothing of flags and signals. The keys and
//! values of the conversation stay in the cache, so each question costs what is new in it.

mod command;
mod messages;
mod speaker;

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fornax_data::DataError;
use fornax_data::chat::{Conversation, Message};
use fornax_data::preferences::Question;
use fornax_data::records::Problem;
use fornax_data::rendering::{PromptStyle, Renderer};
use fornax_data::tokenizer::Tokenizer;
use fornax_model::Decoder;
use fornax_model::kv_cache::KvElement;

pub use self::command::HELP;
pub use self::messages::FileProblem;
pub use self::speaker::{Answer, Ended};

use self::command::Command;
use self::messages::Messages;
use self::speaker::Speaker;
use crate::detokenize::DetokenizeError;
use crate::engine::{EngineError, RequestError, SequenceError, SubmitError};
use crate::sampler::{SamplerError, SamplingOptions};
use crate::speculative::SpeculationOptions;
use crate::stop::StopStrings;
use crate::text::{TextOptions, TextStream};

/// What a person sees and types.
pub trait Terminal {
    /// The next line.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&mut self) -> io::Result<Input>;

    /// A piece of the answer, which may hold any character.
    ///
    /// # Errors
    /// When nobody takes it any more.
    fn piece(&mut self, text: &str) -> io::Result<()>;

    /// The answer is whole.
    ///
    /// # Errors
    /// As [`Terminal::piece`].
    fn answered(&mut self, answered: &Answered) -> io::Result<()>;

    /// Something about the conversation that is no part of it.
    fn note(&mut self, text: &str);

    /// A line could not be done. An error where that ends the conversation, because nobody is there to say it
    /// otherwise.
    ///
    /// # Errors
    /// The refusal, if the conversation ends.
    fn refused(&mut self, refusal: Refusal) -> Result<(), ChatError>;

    /// Whether the answer under way is no longer wanted. Asked after each token and each piece of the prompt.
    fn is_stopped(&mut self) -> bool;
}

/// What [`Terminal::read`] gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A line without its end.
    Line(String),
    /// Nothing comes any more, or the person leaves.
    End,
}

/// How it is talked.
#[derive(Debug, Clone)]
pub struct ChatOptions {
    /// How tokens are chosen and which of them end an answer; each answer has a seed of its own.
    pub sampling: SamplingOptions,
    /// Tokens of an answer at most.
    pub max_tokens: usize,
    /// Tokens of the conversation that the model may see; at most its own context.
    pub context: usize,
    /// What the model is told before everything else.
    pub system: Option<String>,
    /// Texts at which an answer ends.
    pub stop: StopStrings,
    /// What is stored of keys and values; `None` is the dtype that the model computes in.
    pub element: Option<KvElement>,
    /// What proposes tokens, where anything does.
    pub speculation: Option<SpeculationOptions>,
}

/// An answer and what it cost.
#[derive(Debug, Clone)]
pub struct Answered {
    /// The whole text.
    pub text: String,
    /// Tokens before it, and how many of them were in the cache.
    pub prompt_tokens: usize,
    /// Of those, tokens that were in the cache already.
    pub kept_tokens: usize,
    /// Tokens of the answer.
    pub tokens: usize,
    /// Why it ended.
    pub ended: Ended,
    /// Time until the tokens before it were computed.
    pub prefill: Duration,
    /// Time from there to its end.
    pub decode: Duration,
    /// Tokens that the model may see.
    pub context: usize,
}

/// Why a line was not done. The conversation is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A line with a slash that is no command.
    #[error("`/{word}` is no command")]
    Unknown {
        /// What stood behind the slash.
        word: String,
        /// A question about a command with a similar name.
        hint: Option<String>,
    },
    /// A command without what it needs, or with what it does not take.
    #[error("{0}")]
    Usage(&'static str),
    /// There is no answer to write anew.
    #[error("there is no answer yet that could be written anew")]
    NoAnswer,
    /// What has to be seen is longer than the context.
    #[error("the message is {tokens} tokens long with what has to go before it, the context holds {context}")]
    TooLong {
        /// Tokens that are needed, one for the answer included.
        tokens: usize,
        /// Tokens of the context.
        context: usize,
    },
    /// The template does not write this conversation.
    #[error("the conversation cannot be written for the model")]
    Rendering(#[source] Problem),
    /// The text does not become tokens.
    #[error("the text cannot be turned into tokens")]
    Encoding(#[source] DataError),
    /// A file of messages cannot be read or written.
    #[error(transparent)]
    File(#[from] FileProblem),
}

impl Refusal {
    /// One action that helps.
    pub fn hint(&self) -> String {
        match self {
            Refusal::Unknown { hint: Some(hint), .. } => hint.clone(),
            Refusal::Unknown { .. } => {
                "`/help` lists the commands; `//` at the beginning sends a text that begins with a slash".into()
            }
            Refusal::Usage(_) => "`/help` lists the commands".into(),
            Refusal::NoAnswer => "ask something".into(),
            Refusal::TooLong { .. } => "shorten the message or the system prompt".into(),
            Refusal::Rendering(problem) => problem.hint(),
            Refusal::Encoding(_) => "the tokenizer of this model cannot read it; write it otherwise".into(),
            Refusal::File(problem) => problem.hint().into(),
        }
    }
}

/// Why a conversation cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The terminal cannot be read or written.
    #[error("the terminal cannot be used")]
    Terminal(#[from] io::Error),
    /// The engine cannot start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// It refuses what is asked.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// It takes nothing more.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// An answer failed.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// The options are wrong.
    #[error(transparent)]
    Sampling(#[from] SamplerError),
    /// Tokens of the answer do not become text.
    #[error(transparent)]
    Detokenize(#[from] DetokenizeError),
    /// A line was refused where nobody can say it otherwise.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// A conversation with one model.
#[derive(Debug)]
pub struct Chat {
    speaker: Speaker,
    tokenizer: Arc<Tokenizer>,
    /// How messages are written; without it they stand one behind the other as they are.
    style: Option<PromptStyle>,
    options: ChatOptions,
    messages: Messages,
    /// Answers so far, those that were written anew included.
    answers: usize,
}

impl Chat {
    /// A conversation in which nothing was said yet.
    ///
    /// # Errors
    /// When the options are wrong.
    pub fn new(
        decoder: Decoder,
        tokenizer: Arc<Tokenizer>,
        style: Option<PromptStyle>,
        options: ChatOptions,
    ) -> Result<Chat, ChatError> {
        options.sampling.check()?;
        options.sampling.check_ids(decoder.config().vocab_size)?;
        let messages = Messages::new(options.system.as_deref());
        let context = options.context.min(decoder.config().context);
        let options = ChatOptions { context, ..options };
        let speaker = Speaker::new(decoder, context, options.element, options.speculation.clone())?;
        Ok(Chat { speaker, tokenizer, style, options, messages, answers: 0 })
    }

    /// Takes up the messages of a file.
    ///
    /// # Errors
    /// When it cannot be read, or holds something else.
    pub fn load(&mut self, path: &Path) -> Result<(), Refusal> {
        self.messages = Messages::load(path)?;
        Ok(())
    }

    /// Talks until nothing comes any more or the person leaves.
    ///
    /// # Errors
    /// See [`ChatError`].
    pub fn run(&mut self, terminal: &mut dyn Terminal) -> Result<(), ChatError> {
        while let Input::Line(line) = terminal.read()? {
            let done = match Command::read(&line) {
                Ok(Some(Command::Quit)) => return Ok(()),
                Ok(Some(command)) => self.obey(command, terminal)?,
                Ok(None) => Ok(()),
                Err(refusal) => Err(refusal),
            };
            if let Err(refusal) = done {
                terminal.refused(refusal)?;
            }
        }
        Ok(())
    }

    /// The outer error ends the conversation, the inner one the command.
    fn obey(&mut self, command: Command, terminal: &mut dyn Terminal) -> Result<Result<(), Refusal>, ChatError> {
        match command {
            Command::Say(text) => {
                self.messages.push("user", &text);
                let done = self.answer(terminal)?;
                if done.is_err() {
                    self.messages.pop();
                }
                return Ok(done);
            }
            Command::Again => {
                let Some(answer) = self.messages.pop_answer() else { return Ok(Err(Refusal::NoAnswer)) };
                if self.options.sampling.temperature == 0.0 {
                    terminal.note("with --temperature 0 the answer is the same each time");
                }
                let done = self.answer(terminal)?;
                if done.is_err() {
                    self.messages.push("assistant", &answer);
                }
                return Ok(done);
            }
            Command::Save(path) => match self.messages.save(&path) {
                Ok(count) => terminal.note(&format!("{count} messages saved in {}", path.display())),
                Err(problem) => return Ok(Err(problem.into())),
            },
            Command::Load(path) => match self.load(&path) {
                Ok(()) => {
                    let count = self.messages.len();
                    terminal.note(&format!("{count} messages loaded from {}", path.display()));
                }
                Err(refusal) => return Ok(Err(refusal)),
            },
            Command::System(Some(text)) => {
                self.messages.set_system(&text);
                terminal.note("from the next answer on");
            }
            Command::System(None) => match self.messages.system() {
                Some(text) => terminal.note(&text),
                None => terminal.note("there is no system prompt; `/system TEXT` sets one"),
            },
            Command::Clear => {
                self.messages.clear();
                terminal.note("forgotten; the system prompt stays");
            }
            Command::Help => terminal.note(HELP),
            Command::Quit => {}
        }
        Ok(Ok(()))
    }

    /// Answers the last message.
    fn answer(&mut self, terminal: &mut dyn Terminal) -> Result<Result<(), Refusal>, ChatError> {
        let (prompt, left_out) = match self.prompt() {
            Ok(prompt) => prompt,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if left_out > self.messages.left_out {
            let (newly, context) = (left_out - self.messages.left_out, self.options.context);
            terminal.note(&format!(
                "the conversation is longer than the context of {context} tokens: the oldest {newly} messages are left out \
                 from here on ({left_out} in all)"
            ));
        }
        self.messages.left_out = left_out;
        let sampling = self.options.sampling.for_sample(self.answers);
        self.answers += 1;
        let text_options =
            TextOptions { skip_special: true, stop: self.options.stop.clone(), min_tokens: sampling.min_tokens };
        let mut stream = TextStream::new(Arc::clone(&self.tokenizer), &prompt, text_options)?;
        let (mut text, mut broken) = (String::new(), None);
        let lengths = (self.options.max_tokens, self.options.context);
        let mut answer = self.speaker.answer(&prompt, sampling, lengths, &mut |sampled| {
            let Some(sampled) = sampled else { return flow(terminal.is_stopped()) };
            let said = stream.push(sampled).map_err(ChatError::from).and_then(|piece| {
                let piece = piece.unwrap_or_default();
                text.push_str(&piece.text);
                if piece.text.is_empty() { Ok(()) } else { terminal.piece(&piece.text).map_err(ChatError::from) }
            });
            broken = said.err();
            flow(broken.is_some() || stream.stopped().is_some() || terminal.is_stopped())
        })?;
        if let Some(error) = broken {
            return Err(error);
        }
        if stream.stopped().is_some() {
            answer.ended = Ended::Stop;
        }
        let rest = stream.finish()?.text;
        text.push_str(&rest);
        if !rest.is_empty() {
            terminal.piece(&rest)?;
        }
        self.messages.push("assistant", &text);
        terminal.answered(&Answered {
            text,
            prompt_tokens: prompt.len(),
            kept_tokens: answer.kept,
            tokens: answer.tokens,
            ended: answer.ended,
            prefill: answer.prefill,
            decode: answer.decode,
            context: self.options.context,
        })?;
        Ok(Ok(()))
    }

    /// The ids to answer, and how many messages had to be left out for them to fit.
    fn prompt(&self) -> Result<(Vec<u32>, usize), Refusal> {
        let context = self.options.context;
        // Something has to be left for the answer.
        let room = self.options.max_tokens.min(context / 8).max(1);
        let mut left_out = self.messages.left_out;
        loop {
            let ids = self.encode(&self.messages.seen(left_out))?;
            if ids.len() + room <= context {
                return Ok((ids, left_out));
            }
            match self.messages.next_beginning(left_out) {
                Some(next) => left_out = next,
                // Alone, it may take what room there is.
                None if ids.len() < context => return Ok((ids, left_out)),
                None => return Err(Refusal::TooLong { tokens: ids.len() + 1, context }),
            }
        }
    }

    fn encode(&self, messages: &[Message]) -> Result<Vec<u32>, Refusal> {
        let Some(style) = &self.style else {
            let text: Vec<String> = messages.iter().filter_map(Message::text).collect();
            return self.tokenizer.encode(&text.concat(), true).map_err(Refusal::Encoding);
        };
        let conversation = Conversation { messages: messages.to_vec(), tools: None };
        let renderer = Renderer::new(&self.tokenizer, Some(style));
        renderer.question(&Question::Dialogue(conversation)).map_err(Refusal::Rendering)
    }
}

fn flow(ends: bool) -> ControlFlow<()> {
    if ends { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

#[cfg(test)]
mod tests;
