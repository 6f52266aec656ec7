//! The ways of writing conversations that need no control token but the end of a text.
//!
//! That token is put behind each answer as an id: a tokenizer may not find it in text (where it is marked as normalized,
//! and the normalizer puts a character in front), and needs no room in a template for it.

use minijinja::value::ValueKind;

use crate::chat::Conversation;
use crate::chat_template::EncodedChat;
use crate::error::DataError;
use crate::records::Problem;
use crate::tokenizer::Tokenizer;

/// How turns are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Stanford Alpaca's prompt, with and without an input.
    Alpaca,
    /// Each message that is no answer is a line of its own.
    Plain,
}

/// The same as Jinja, for programs that read templates; `BOS` stands for what the tokenizer puts in front of a text.
const ALPACA: &str = "BOS\
{% for message in messages %}\
{% if message.role == 'assistant' %}{{ message.content + eos_token }}\
{% elif message.role == 'system' %}{{ message.content + '\\n\\n' }}\
{% else %}\
{% if not loop.first and messages[loop.index0 - 1].role == 'assistant' %}{{ '\\n\\n' }}{% endif %}\
{% if loop.first and message.input %}{{ 'Below is an instruction that describes a task, paired with an input that \
provides further context. Write a response that appropriately completes the request.\\n\\n' }}\
{% elif loop.first %}{{ 'Below is an instruction that describes a task. Write a response that appropriately completes \
the request.\\n\\n' }}{% endif %}\
{{ '### Instruction:\\n' + message.content + '\\n\\n' }}\
{% if message.input %}{{ '### Input:\\n' + message.input + '\\n\\n' }}{% endif %}\
{{ '### Response:\\n' }}\
{% endif %}{% endfor %}";
const PLAIN: &str = "BOS\
{% for message in messages %}\
{% if message.role == 'assistant' %}{{ message.content + eos_token }}{% else %}{{ message.content + '\\n' }}{% endif %}\
{% endfor %}";

const WITH_INPUT: &str = "Below is an instruction that describes a task, paired with an input that provides further \
context. Write a response that appropriately completes the request.\n\n";
const WITHOUT_INPUT: &str = "Below is an instruction that describes a task. Write a response that appropriately \
completes the request.\n\n";

/// Text up to the end of an answer, or to the end of the conversation.
#[derive(Debug, Default)]
struct Stretch {
    text: String,
    /// The message that answers, and where it begins in the text.
    answer: Option<(usize, usize)>,
}

impl Form {
    pub(super) fn name(self) -> &'static str {
        match self {
            Form::Alpaca => "alpaca",
            Form::Plain => "plain",
        }
    }

    /// The form as a chat template.
    pub(super) fn source(self, tokenizer: &Tokenizer) -> Result<String, DataError> {
        let opens = if opening(tokenizer)?.is_empty() { "" } else { "{{ bos_token }}" };
        let source = if self == Form::Alpaca { ALPACA } else { PLAIN };
        Ok(source.replacen("BOS", opens, 1))
    }

    /// The conversation as tokens. Nothing in it is taken for a control token.
    pub(super) fn encode(
        self,
        conversation: &Conversation,
        tokenizer: &Tokenizer,
    ) -> Result<EncodedChat, Problem> {
        let Some(eos) = tokenizer.eos_id() else {
            return Err(Problem::Template {
                reason: format!(
                    "the template `{}` needs an end-of-text token, the tokenizer has none",
                    self.name()
                ),
            });
        };
        let mut encoded = EncodedChat::default();
        let mut push = |id: u32, message: Option<usize>, control: bool| {
            encoded.ids.push(id);
            encoded.message_of_token.push(message);
            encoded.control.push(control);
        };
        let opens = opening(tokenizer).map_err(|error| super::of_encoding(&error))?;
        opens.into_iter().for_each(|id| push(id, None, true));
        for Stretch { text, answer } in self.stretches(conversation)? {
            let tokens = tokenizer.encode_chat(&text, &[]).map_err(|error| super::of_encoding(&error))?;
            for token in tokens {
                let owner = answer.filter(|(_, from)| token.range.end > *from).map(|(message, _)| message);
                push(token.id, owner, false);
            }
            if let Some((message, _)) = answer {
                push(eos, Some(message), true);
            }
        }
        Ok(encoded)
    }

    fn stretches(self, conversation: &Conversation) -> Result<Vec<Stretch>, Problem> {
        let refused =
            |what: &str| Problem::Unsupported { what: format!("{what} in the template `{}`", self.name()) };
        if conversation.tools.is_some() {
            return Err(refused("a list of tools"));
        }
        let mut stretches = vec![Stretch::default()];
        for (at, message) in conversation.messages.iter().enumerate() {
            let calls = message.json().get_attr("tool_calls").is_ok_and(|calls| calls.kind() == ValueKind::Seq);
            let content = message.text().filter(|_| !calls).ok_or_else(|| refused("a call of a tool"))?;
            let opens = stretches.len() > 1;
            // Never empty: one is there from the beginning.
            let Some(last) = stretches.last_mut() else { continue };
            if message.role() == "assistant" {
                last.answer = Some((at, last.text.len()));
                last.text += &content;
                stretches.push(Stretch::default());
                continue;
            }
            match self {
                Form::Plain => last.text += &format!("{content}\n"),
                Form::Alpaca if message.role() == "system" => last.text += &format!("{content}\n\n"),
                Form::Alpaca => {
                    let input =
                        message.json().get_attr("input").ok().and_then(|input| input.as_str().map(str::to_owned));
                    let input = input.filter(|input| !input.is_empty());
                    last.text += if opens && last.text.is_empty() { "\n\n" } else { "" };
                    last.text += match (at, &input) {
                        (0, Some(_)) => WITH_INPUT,
                        (0, None) => WITHOUT_INPUT,
                        _ => "",
                    };
                    last.text += &format!("### Instruction:\n{content}\n\n");
                    last.text += &input.map(|input| format!("### Input:\n{input}\n\n")).unwrap_or_default();
                    last.text += "### Response:\n";
                }
            }
        }
        stretches.retain(|stretch| !stretch.text.is_empty() || stretch.answer.is_some());
        Ok(stretches)
    }
}

/// What the tokenizer puts in front of a text.
fn opening(tokenizer: &Tokenizer) -> Result<Vec<u32>, DataError> {
    let around = tokenizer.encode("", true)?;
    Ok(around.into_iter().take(1).filter(|id| Some(*id) == tokenizer.bos_id()).collect())
}
