//! How conversations are written: the template of a model, one of a file, or one that is built in.

use std::path::Path;

use minijinja::Value;

use super::built_in::Form;
use super::of_template;
use crate::chat::{Conversation, Message};
use crate::chat_template::{ChatTemplate, EncodedChat, MAX_SOURCE, RenderOptions, TemplateError};
use crate::conversations::{Dialogue, Turn};
use crate::error::DataError;
use crate::records::Problem;
use crate::tokenizer::{CHAT_TEMPLATE, Tokenizer};

/// Names of the templates that are built in.
pub const BUILT_IN: [&str; 3] = ["chatml", "alpaca", "plain"];

/// A way of writing conversations.
#[derive(Debug)]
pub struct PromptStyle {
    writer: Writer,
    name: String,
    foreign_source: Option<String>,
}

/// What writes.
#[derive(Debug)]
enum Writer {
    /// A template, with the variables, documents and time that it is given.
    Template(Box<ChatTemplate>, RenderOptions),
    /// Code of this crate.
    BuiltIn(Form),
}

impl PromptStyle {
    /// The template of a model folder, whose tokenizer is `tokenizer`; none where it has none.
    ///
    /// # Errors
    /// When the template cannot be read or used.
    pub fn of_folder(folder: &Path, tokenizer: &Tokenizer) -> Result<Option<PromptStyle>, DataError> {
        let name = format!("the chat template of `{}`", folder.display());
        match ChatTemplate::of_folder(folder, tokenizer) {
            Ok(template) => Ok(Some(PromptStyle::new(template, name))),
            Err(TemplateError::Absent(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A template from a file with its source.
    ///
    /// # Errors
    /// When the file cannot be read, or is no template that can be used.
    pub fn of_file(path: &Path, tokenizer: &Tokenizer) -> Result<PromptStyle, DataError> {
        let source = fornax_base::files::read_text_limited(path, MAX_SOURCE as u64)?;
        let template = ChatTemplate::new(&source, tokenizer)?;
        let style = PromptStyle::new(template, format!("the chat template `{}`", path.display()));
        Ok(PromptStyle { foreign_source: Some(source), ..style })
    }

    /// A template that is built in, by its name.
    ///
    /// # Errors
    /// For other names than those of [`BUILT_IN`].
    pub fn built_in(name: &str, tokenizer: &Tokenizer) -> Result<PromptStyle, DataError> {
        let form = match name {
            "alpaca" => Some(Form::Alpaca),
            "plain" => Some(Form::Plain),
            "chatml" => None,
            _ => {
                let known = BUILT_IN.join(", ");
                return Err(DataError::Option(format!("no template `{name}` is built in, there are {known}")));
            }
        };
        let (writer, source) = match form {
            Some(form) => (Writer::BuiltIn(form), form.source(tokenizer)?),
            None => {
                let template = Box::new(ChatTemplate::new(CHAT_TEMPLATE, tokenizer)?);
                (Writer::Template(template, RenderOptions::default()), CHAT_TEMPLATE.to_owned())
            }
        };
        let name = format!("the built-in chat template `{name}`");
        Ok(PromptStyle { writer, name, foreign_source: Some(source) })
    }

    /// A file's template, or a built-in one where `name` is one of [`BUILT_IN`].
    ///
    /// # Errors
    /// As [`PromptStyle::of_file`].
    pub fn named(name: &str, tokenizer: &Tokenizer) -> Result<PromptStyle, DataError> {
        match BUILT_IN.contains(&name) {
            true => PromptStyle::built_in(name, tokenizer),
            false => PromptStyle::of_file(Path::new(name), tokenizer),
        }
    }

    fn new(template: ChatTemplate, name: String) -> PromptStyle {
        let writer = Writer::Template(Box::new(template), RenderOptions::default());
        PromptStyle { writer, name, foreign_source: None }
    }

    /// The same with variables (such as `enable_thinking`), documents, or the time, where a template writes.
    #[must_use]
    pub fn with(mut self, options: RenderOptions) -> PromptStyle {
        if let Writer::Template(_, given) = &mut self.writer {
            *given = options;
        }
        self
    }

    /// The text of a template that is not the model's own, for the folder of a tuned model: other programs then write
    /// prompts as training did.
    pub fn foreign_source(&self) -> Option<&str> {
        self.foreign_source.as_deref()
    }

    /// The ids of one message of the user, with the header of the answer.
    ///
    /// # Errors
    /// When the template refuses it.
    pub fn user_turn(&self, text: &str, tokenizer: &Tokenizer) -> Result<Vec<u32>, DataError> {
        let conversation = Conversation { messages: vec![Message::new("user", text)], tools: None };
        self.encode_prompt(&conversation, tokenizer).map_err(|problem| DataError::Option(problem.to_string()))
    }

    /// The token that ends an answer, where the template writes one.
    pub fn end_of_turn(&self, tokenizer: &Tokenizer) -> Option<u32> {
        let messages = vec![Message::new("user", "a"), Message::new("assistant", "b")];
        let encoded = self.encode(&Conversation { messages, tools: None }, tokenizer).ok()?;
        let last = encoded.message_of_token.iter().rposition(Option::is_some)?;
        encoded.control[last].then(|| encoded.ids[last])
    }

    /// What is said about it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the template is given: instruction and input apart where it prints them so.
    pub(super) fn conversation(&self, dialogue: &Dialogue) -> Conversation {
        let mut conversation = dialogue.conversation();
        if matches!(self.writer, Writer::BuiltIn(Form::Alpaca)) {
            for (message, turn) in conversation.messages.iter_mut().zip(&dialogue.turns) {
                *message = parted(turn).unwrap_or_else(|| message.clone());
            }
        }
        conversation
    }

    /// A conversation with its answers.
    pub(super) fn encode(
        &self,
        conversation: &Conversation,
        tokenizer: &Tokenizer,
    ) -> Result<EncodedChat, Problem> {
        let (template, options) = match &self.writer {
            Writer::BuiltIn(form) => return form.encode(conversation, tokenizer),
            Writer::Template(template, options) => (template, options),
        };
        let rendered = template.render(conversation, options).map_err(|error| of_template(&error))?;
        if conversation.tools.is_some() {
            let without = Conversation { tools: None, ..conversation.clone() };
            let without = template.render_prompt(&without, options).map_err(|error| of_template(&error))?;
            if without.text() == rendered.text() {
                return Err(Problem::UnwrittenTools);
            }
        }
        // Leaving them out in silence would train less than the row says.
        if let Some(message) = rendered.unplaced().first() {
            return Err(Problem::Unplaced { message: message + 1 });
        }
        template.encode(&rendered, tokenizer).map_err(|error| of_template(&error))
    }

    /// A conversation to be answered, with the header of the answer.
    pub(super) fn encode_prompt(
        &self,
        conversation: &Conversation,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<u32>, Problem> {
        let (template, options) = match &self.writer {
            Writer::BuiltIn(form) => return Ok(form.encode(conversation, tokenizer)?.ids),
            Writer::Template(template, options) => (template, options),
        };
        let options = RenderOptions { add_generation_prompt: true, ..options.clone() };
        let rendered = template.render_prompt(conversation, &options).map_err(|error| of_template(&error))?;
        Ok(template.encode(&rendered, tokenizer).map_err(|error| of_template(&error))?.ids)
    }
}

/// The message of an Alpaca row with its input beside the instruction.
fn parted(turn: &Turn) -> Option<Message> {
    let [instruction, input] = turn.parts.as_ref()?;
    let pairs = [("role", "user"), ("content", instruction.as_str()), ("input", input.as_str())];
    Message::from_json(Value::from_pairs(pairs))
}
