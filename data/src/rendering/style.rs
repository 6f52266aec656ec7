//! How conversations are written: the template of a model, one of a file, or one that is built in.

use std::path::Path;

use minijinja::Value;

use super::of_template;
use crate::chat::{Conversation, Message};
use crate::chat_template::{ChatTemplate, EncodedChat, MAX_SOURCE, RenderOptions, TemplateError};
use crate::conversations::{Dialogue, Turn};
use crate::error::DataError;
use crate::records::Problem;
use crate::tokenizer::{CHAT_TEMPLATE, Tokenizer};

/// Names of the templates that are built in.
pub const BUILT_IN: [&str; 3] = ["chatml", "alpaca", "plain"];

/// Stanford Alpaca's prompt with and without an input; answers end with the end-of-text token.
const ALPACA: &str = "\
{{ bos_token or '' }}\
{% for message in messages %}\
{% if message.role == 'assistant' %}{{ message.content + eos_token }}\
{% else %}\
{% if loop.previtem and loop.previtem.role == 'assistant' %}{{ '\\n\\n' }}{% endif %}\
{% if message.role == 'system' %}{{ message.content + '\\n\\n' }}\
{% else %}\
{% if loop.first and message.input %}{{ 'Below is an instruction that describes a task, paired with an input that \
provides further context. Write a response that appropriately completes the request.\\n\\n' }}\
{% elif loop.first %}{{ 'Below is an instruction that describes a task. Write a response that appropriately completes \
the request.\\n\\n' }}{% endif %}\
{{ '### Instruction:\\n' + message.content + '\\n\\n' }}\
{% if message.input %}{{ '### Input:\\n' + message.input + '\\n\\n' }}{% endif %}\
{{ '### Response:\\n' }}\
{% endif %}{% endif %}{% endfor %}";

/// Each message on its own line; answers end with the end-of-text token.
const PLAIN: &str = "\
{{ bos_token or '' }}\
{% for message in messages %}\
{% if message.role == 'assistant' %}{{ message.content + eos_token }}{% else %}{{ message.content + '\\n' }}{% endif %}\
{% endfor %}";

/// A way of writing conversations.
#[derive(Debug)]
pub struct PromptStyle {
    template: ChatTemplate,
    /// Variables, documents and the time that the template is given.
    options: RenderOptions,
    name: String,
    /// Whether instruction and input of an Alpaca row stand under headings of their own.
    has_input: bool,
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
        Ok(PromptStyle::new(template, format!("the chat template `{}`", path.display())))
    }

    /// A template that is built in, by its name.
    ///
    /// # Errors
    /// For other names than those of [`BUILT_IN`].
    pub fn built_in(name: &str, tokenizer: &Tokenizer) -> Result<PromptStyle, DataError> {
        let source = match name {
            "chatml" => CHAT_TEMPLATE,
            "alpaca" => ALPACA,
            "plain" => PLAIN,
            _ => {
                let known = BUILT_IN.join(", ");
                return Err(DataError::Option(format!("no template `{name}` is built in, there are {known}")));
            }
        };
        let template = ChatTemplate::new(source, tokenizer)?;
        let style = PromptStyle::new(template, format!("the built-in chat template `{name}`"));
        Ok(PromptStyle { has_input: name == "alpaca", ..style })
    }

    fn new(template: ChatTemplate, name: String) -> PromptStyle {
        PromptStyle { template, options: RenderOptions::default(), name, has_input: false }
    }

    /// The same with variables (such as `enable_thinking`), documents, or the time.
    #[must_use]
    pub fn with(mut self, options: RenderOptions) -> PromptStyle {
        self.options = options;
        self
    }

    /// What is said about it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the template is given: instruction and input apart where it prints them so.
    pub(super) fn conversation(&self, dialogue: &Dialogue) -> Conversation {
        let mut conversation = dialogue.conversation();
        if self.has_input {
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
        let rendered = self.template.render(conversation, &self.options).map_err(|error| of_template(&error))?;
        // Leaving them out in silence would train less than the row says.
        if let Some(message) = rendered.unplaced().first() {
            return Err(Problem::Unplaced { message: message + 1 });
        }
        self.template.encode(&rendered, tokenizer).map_err(|error| of_template(&error))
    }

    /// A conversation to be answered, with the header of the answer.
    pub(super) fn encode_prompt(
        &self,
        conversation: &Conversation,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<u32>, Problem> {
        let options = RenderOptions { add_generation_prompt: true, ..self.options.clone() };
        let rendered = self.template.render_prompt(conversation, &options).map_err(|error| of_template(&error))?;
        Ok(self.template.encode(&rendered, tokenizer).map_err(|error| of_template(&error))?.ids)
    }
}

/// The message of an Alpaca row with its input beside the instruction.
fn parted(turn: &Turn) -> Option<Message> {
    let [instruction, input] = turn.parts.as_ref()?;
    let pairs = [("role", "user"), ("content", instruction.as_str()), ("input", input.as_str())];
    Message::from_json(Value::from_pairs(pairs))
}
