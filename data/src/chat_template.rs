//! Conversations to token ids, with the Jinja templates that models bring, as transformers renders them.
//!
//! Training and serving use the same code. Beside the text, a rendering knows who wrote each character, so that text of
//! a conversation never becomes a control token, and which part of it each message of the assistant takes. See
//! `docs/concepts/chat-templates.md`.

mod clock;
mod encode;
mod environment;
mod error;
mod grammar;
mod input;
mod json;
mod marks;
mod objects;
mod operators;
mod rewrite;
mod sources;
mod spans;
mod strings;
mod tags;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use minijinja::{Environment, Value};

pub use self::clock::Moment;
pub use self::encode::EncodedChat;
pub use self::error::TemplateError;
use self::input::{Guard, Input};
use self::marks::{MOST_SOURCES, Source, TEMPLATE, Text};
use self::sources::Sources;
use crate::chat::{Conversation, Json, Message};
use crate::tokenizer::{ControlTokens, Tokenizer};

/// A template longer than this, in bytes, is refused.
pub const MAX_SOURCE: usize = 256 << 10;
/// A rendering may be this many times as long as the conversation,
const GROWTH: usize = 4;
/// and this many bytes longer: templates carry instructions of their own.
const FLOOR: usize = 64 << 10;

/// The chat templates of a model, ready to render.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Names in order; a single template is named `default`.
    names: Vec<String>,
    /// Variables of the template such as `bos_token`, with the tokens they stand for.
    special: BTreeMap<String, String>,
    controls: Arc<ControlTokens>,
}

/// What a rendering is asked for beside the conversation.
#[derive(Debug, Clone, Default)]
pub struct RenderOptions {
    /// Whether the header of an answer is written behind the messages.
    pub add_generation_prompt: bool,
    /// The template to use where a model has several; without it `tool_use` for conversations with tools if there is
    /// one, else `default`.
    pub template: Option<String>,
    /// A JSON list of documents to answer from.
    pub documents: Option<Json>,
    /// Further variables, such as `enable_thinking`. They take precedence over the names of special tokens.
    pub variables: Vec<(String, Json)>,
    /// The time, for templates that write it. One that asks for it without having it is an error.
    pub now: Option<Moment>,
}

/// Who wrote a part of a rendering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The template.
    Template,
    /// Tools, documents or variables.
    Data,
    /// The message with this index.
    Message(usize),
}

/// The part of a rendering that one message of the assistant takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssistantSpan {
    /// Index of the message.
    pub message: usize,
    /// Bytes of the text: from behind the header of the answer to the end of the token that ends the turn.
    pub range: Range<usize>,
}

/// A conversation as the template writes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    text: Text,
    /// Whether every character of the conversation is known as such; otherwise only what could become a control token.
    complete: bool,
    spans: Vec<AssistantSpan>,
    unplaced: Vec<usize>,
}

impl Rendered {
    /// The text.
    pub fn text(&self) -> &str {
        self.text.plain()
    }

    /// The parts of the text with their origins, in order and without gaps. Where a template changes text in ways that
    /// hide its origin, what could not become a control token counts as the template's.
    pub fn origins(&self) -> impl Iterator<Item = (Range<usize>, Origin)> + '_ {
        let mut start = 0;
        self.text.runs().iter().map(move |(end, source)| {
            let range = start..*end;
            start = *end;
            (range, origin_of(*source))
        })
    }

    /// Whether [`Rendered::origins`] knows the origin of every character.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Where the messages of the assistant stand, in order.
    pub fn assistant_spans(&self) -> &[AssistantSpan] {
        &self.spans
    }

    /// Messages of the assistant whose place could not be told, because the template leaves them out or writes them in
    /// a way that depends on what follows.
    pub fn unplaced(&self) -> &[usize] {
        &self.unplaced
    }

    /// The parts that the template wrote.
    fn literal(&self) -> Vec<Range<usize>> {
        self.origins().filter(|(_, origin)| *origin == Origin::Template).map(|(range, _)| range).collect()
    }
}

/// The source of data beside the messages.
const DATA: Source = 1;

fn origin_of(source: Source) -> Origin {
    match source {
        TEMPLATE => Origin::Template,
        DATA => Origin::Data,
        message => Origin::Message(usize::from(message) - 2),
    }
}

fn source_of(message: usize) -> Source {
    // At most MOST_SOURCES messages are rendered.
    (message + 2) as Source
}

impl ChatTemplate {
    /// The templates of a model folder: `chat_template.jinja` and `additional_chat_templates/*.jinja`, or else
    /// `chat_template` of `tokenizer_config.json`, as transformers chooses. `tokenizer` is that of the folder.
    ///
    /// # Errors
    /// [`TemplateError::Absent`] without any, or what is wrong with one.
    pub fn of_folder(folder: &Path, tokenizer: &Tokenizer) -> Result<ChatTemplate, TemplateError> {
        ChatTemplate::from_sources(Sources::of_folder(folder, tokenizer)?, tokenizer)
    }

    /// The templates that came with a tokenizer.
    ///
    /// # Errors
    /// As [`ChatTemplate::of_folder`].
    pub fn of_tokenizer(tokenizer: &Tokenizer) -> Result<ChatTemplate, TemplateError> {
        ChatTemplate::from_sources(Sources::of_tokenizer(tokenizer)?, tokenizer)
    }

    /// A template from its source.
    ///
    /// # Errors
    /// When it cannot be used: longer than 256 KiB, wrong syntax, an unknown filter, other templates included.
    pub fn new(source: &str, tokenizer: &Tokenizer) -> Result<ChatTemplate, TemplateError> {
        ChatTemplate::from_sources(Sources::single(source, tokenizer), tokenizer)
    }

    /// The same templates with a special token by this name, such as `bos_token`, where the tokenizer states none.
    pub fn with_special_token(mut self, name: &str, token: &str) -> ChatTemplate {
        self.special.insert(name.to_owned(), token.to_owned());
        self
    }

    fn from_sources(sources: Sources, tokenizer: &Tokenizer) -> Result<ChatTemplate, TemplateError> {
        let mut environment = environment::environment();
        let mut names = Vec::new();
        for (name, path, source) in sources.templates {
            let unusable = |reason: String| TemplateError::Unusable { path: path.clone(), reason };
            if source.len() > MAX_SOURCE {
                return Err(unusable(format!("{} bytes, at most {MAX_SOURCE} are allowed", source.len())));
            }
            let rewritten = rewrite::rewrite(&source).map_err(unusable)?;
            environment
                .add_template_owned(name.clone(), rewritten)
                .map_err(|error| unusable(environment::explain(&error)))?;
            names.push(name);
        }
        Ok(ChatTemplate {
            environment,
            names,
            special: sources.special,
            controls: Arc::clone(tokenizer.control_tokens()),
        })
    }

    /// Names of the templates; a single one is `default`.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Renders a conversation, and finds the messages of the assistant in it.
    ///
    /// # Errors
    /// When the template refuses the conversation or goes beyond its limits, and [`TemplateError::Origin`] where text
    /// of the conversation cannot be told from control tokens.
    pub fn render(&self, conversation: &Conversation, options: &RenderOptions) -> Result<Rendered, TemplateError> {
        let mut rendered = self.render_prompt(conversation, options)?;
        spans::find(self, conversation, options, &mut rendered);
        Ok(rendered)
    }

    /// Renders a conversation without looking for the messages of the assistant, for a prompt to be answered.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render_prompt(
        &self,
        conversation: &Conversation,
        options: &RenderOptions,
    ) -> Result<Rendered, TemplateError> {
        let name = self.template_for(conversation, options)?;
        let input = Input::new(&conversation.messages, conversation.tools.as_ref(), options)?;
        let written = self.execute(name, &input, Guard::None, options)?;
        let plain = Text::read(&written);
        for guard in [Guard::All, Guard::Risky] {
            let marked = self.execute(name, &input, guard, options).ok();
            let text = marked.and_then(|marked| Text::read_whole(&marked));
            if let Some(text) = text.filter(|text| text.plain() == plain.plain()) {
                let text = input.restore(text);
                return Ok(Rendered {
                    text,
                    complete: guard == Guard::All,
                    spans: Vec::new(),
                    unplaced: Vec::new(),
                });
            }
        }
        let (place, token) = input.riskiest(&self.controls);
        Err(TemplateError::Origin { place, token })
    }

    /// The beginning of a conversation, rendered with marks; `None` where the template refuses it.
    fn render_part(
        &self,
        messages: &[Message],
        conversation: &Conversation,
        add_generation_prompt: bool,
        options: &RenderOptions,
    ) -> Option<Text> {
        let name = self.template_for(conversation, options).ok()?;
        let options = RenderOptions { add_generation_prompt, ..options.clone() };
        let input = Input::new(messages, conversation.tools.as_ref(), &options).ok()?;
        let marked = self.execute(name, &input, Guard::All, &options).ok()?;
        Some(input.restore(Text::read_whole(&marked)?))
    }

    fn template_for(&self, conversation: &Conversation, options: &RenderOptions) -> Result<&str, TemplateError> {
        let find = |name: &str| self.names.iter().find(|known| *known == name).map(String::as_str);
        let found = match &options.template {
            Some(name) => find(name),
            None => conversation.tools.as_ref().and_then(|_| find("tool_use")).or_else(|| find("default")),
        };
        found.ok_or_else(|| TemplateError::Unknown {
            name: options.template.clone().unwrap_or_else(|| "default".to_owned()),
            known: self.names.join(", "),
        })
    }

    /// Runs the template; what it writes holds marks unless `guard` is none.
    fn execute(
        &self,
        name: &str,
        input: &Input<'_>,
        guard: Guard,
        options: &RenderOptions,
    ) -> Result<String, TemplateError> {
        let refused = |error: &minijinja::Error| TemplateError::Refused(environment::explain(error));
        let template = self.environment.get_template(name).map_err(|error| refused(&error))?;
        let mut context: BTreeMap<String, Value> =
            self.special.iter().map(|(name, token)| (name.clone(), Value::from(token))).collect();
        context.extend(input.context(guard, &self.controls));
        context.insert("strftime_now".to_owned(), clock(options.now));
        let limit = input.bytes * GROWTH + FLOOR;
        let mut out = Limited { text: Vec::new(), left: limit };
        operators::begin(input.bytes);
        let result = template.render_captured_to(Value::from_pairs(context), &mut out);
        match result {
            Ok(_) => Ok(String::from_utf8_lossy(&out.text).into_owned()),
            Err(_) if out.left == 0 => Err(TemplateError::TooLong { limit, given: input.bytes }),
            Err(error) => Err(refused(&error)),
        }
    }
}

/// The function `strftime_now`.
fn clock(now: Option<Moment>) -> Value {
    Value::from_function(move |format: &str| -> Result<String, minijinja::Error> {
        let moment = now.ok_or_else(|| operators::invalid("it writes the time, which is not given"))?;
        let format = Text::read(format);
        moment
            .format(format.plain())
            .ok_or_else(|| operators::invalid(format!("the format of time {:?} is not supported", format.plain())))
    })
}

/// Takes text up to a limit. Marks do not count.
struct Limited {
    text: Vec<u8>,
    left: usize,
}

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = std::str::from_utf8(bytes).map_err(io::Error::other)?;
        let length = if marks::has_marks(text) { Text::read(text).plain().len() } else { text.len() };
        if length > self.left {
            self.left = 0;
            return Err(io::Error::other("the output is too long"));
        }
        self.left -= length;
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where a template that was handed over as text claims to come from.
fn given() -> PathBuf {
    PathBuf::from("chat_template")
}

/// More sources than marks can tell apart.
const MOST_MESSAGES: usize = MOST_SOURCES - 2;

#[cfg(test)]
mod tests;
