//! The forms in which models write calls.

use fornax_data::Tokenizer;
use fornax_data::chat::{Conversation, Message};
use fornax_data::chat_template::{ChatTemplate, Moment, RenderOptions};
use serde_json::json;

use super::ToolError;
use super::definition::as_json;

/// How a model writes calls of tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolFormat {
    /// `<tool_call>` and `</tool_call>` around `{"name": ..., "arguments": {...}}`, one pair a call: Hermes, Qwen 2.5 and 3.
    Hermes,
    /// `{"name": ..., "parameters": {...}}` instead of text, `<|python_tag|>` before it or not, `;` between several:
    /// Llama 3.1 to 3.3.
    Llama3,
    /// `[TOOL_CALLS]` and a list of `{"name": ..., "arguments": {...}}`: Mistral.
    Mistral,
    /// `[TOOL_CALLS]name[ARGS]{...}`, once for each call: Mistral since its eleventh tokenizer.
    MistralNamed,
}

/// What stands for a call while a template is asked for its form.
const NAME: &str = "get_probe";
const KEY: &str = "probe_key";

impl ToolFormat {
    /// The form in which this template writes a call, found by having it write one.
    ///
    /// # Errors
    /// [`ToolError::Format`] for templates that refuse calls, leave them out, or write them in another way.
    pub fn of_template(template: &ChatTemplate) -> Result<ToolFormat, ToolError> {
        let fail = |reason: String| ToolError::Format { reason };
        let function = json!({"name": NAME, "arguments": {KEY: "v"}});
        let call = json!({"id": "probe1234", "type": "function", "function": function});
        let message = json!({"role": "assistant", "content": "", "tool_calls": [call]});
        let message =
            Message::from_json(as_json(&message)).ok_or_else(|| fail("a message without a role".to_owned()))?;
        let parameters = json!({"type": "object", "properties": {KEY: {"type": "string"}}});
        let tool = json!({"type": "function", "function": {
            "name": NAME, "description": "A probe.", "parameters": parameters,
        }});
        let conversation = Conversation {
            messages: vec![Message::new("user", "?"), message],
            tools: Some(as_json(&json!([tool]))),
        };
        // Some templates write the date; which does not matter here.
        let options = RenderOptions { now: Some(Moment::from_unix(0)), ..RenderOptions::default() };
        let rendered = template.render_prompt(&conversation, &options).map_err(|error| fail(error.to_string()))?;
        ToolFormat::of_written(rendered.text())
            .ok_or_else(|| fail(format!("it wrote {:?}", ending(rendered.text()))))
    }

    fn of_written(text: &str) -> Option<ToolFormat> {
        let at = text.rfind(KEY)?;
        let before: String = text[..at].chars().filter(|character| !character.is_whitespace()).collect();
        let object = |arguments: &str| format!("{{\"name\":\"{NAME}\",\"{arguments}\":{{\"");
        if before.ends_with(&format!("<tool_call>{}", object("arguments"))) {
            return Some(ToolFormat::Hermes);
        }
        if before.ends_with(&object("parameters")) {
            return Some(ToolFormat::Llama3);
        }
        let calls = before.rfind("[TOOL_CALLS]").map(|at| &before[at + "[TOOL_CALLS]".len()..])?;
        if calls.starts_with("[{") {
            return Some(ToolFormat::Mistral);
        }
        calls.starts_with(NAME).then_some(ToolFormat::MistralNamed)
    }

    /// What begins a call, where something always does.
    pub(super) fn opening(self) -> Option<&'static str> {
        match self {
            ToolFormat::Hermes => Some("<tool_call>"),
            ToolFormat::Llama3 => None,
            ToolFormat::Mistral | ToolFormat::MistralNamed => Some("[TOOL_CALLS]"),
        }
    }

    /// Special tokens of this vocabulary that belong to calls. A text given to [`super::ToolParser`] must have them in it,
    /// although special tokens are left out of texts for people.
    pub fn special_tokens(self, tokenizer: &Tokenizer) -> Vec<u32> {
        let written: &[&str] = match self {
            ToolFormat::Hermes => &["<tool_call>", "</tool_call>"],
            ToolFormat::Llama3 => &["<|python_tag|>"],
            ToolFormat::Mistral | ToolFormat::MistralNamed => &["[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"],
        };
        let ids = written.iter().filter_map(|token| tokenizer.id_of(token));
        ids.filter(|id| tokenizer.is_special(*id)).collect()
    }
}

/// The end of a text, for a message.
fn ending(text: &str) -> &str {
    let start = text.char_indices().rev().nth(120).map_or(0, |(at, _)| at);
    &text[start..]
}
