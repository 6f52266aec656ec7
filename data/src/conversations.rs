//! What a row teaches: a text, a prompt with its completion, or a conversation, from any of the formats.
//!
//! Knows nothing of tokens and templates. Strings stay strings and are learned as they stand; turns become a
//! [`Dialogue`], which a chat template renders.

mod turn;

use minijinja::Value;
use minijinja::value::ValueKind;

pub use self::turn::Turn;
use crate::chat::{Conversation, Json, Message};
use crate::formats::{Format, keys};
use crate::records::Problem;

/// A row that is learned by its text.
#[derive(Debug, Clone)]
pub enum Lesson {
    /// A text, as it stands.
    Text(String),
    /// A prompt and what follows it, as they stand.
    Completion {
        /// What is given.
        prompt: String,
        /// What is learned.
        completion: String,
    },
    /// Turns, to be rendered by a template.
    Dialogue(Dialogue),
}

/// Turns, of which those in front are the prompt.
#[derive(Debug, Clone)]
pub struct Dialogue {
    /// All turns in order.
    pub turns: Vec<Turn>,
    /// How many of them are the prompt; what assistants say behind it is the completion.
    pub n_prompt: usize,
    /// Tools that are offered: a list of schemas.
    pub tools: Option<Json>,
}

impl Dialogue {
    /// A dialogue whose completion is its last turn: what assistants say behind the last user message that anybody
    /// answers.
    ///
    /// # Errors
    /// [`Problem::NoAssistant`].
    pub fn of_turns(turns: Vec<Turn>, tools: Option<Json>) -> Result<Dialogue, Problem> {
        let answered = turns.iter().rposition(Turn::is_assistant).ok_or(Problem::NoAssistant)?;
        let asked = turns[..answered].iter().rposition(|turn| turn.message.role() == "user");
        Ok(Dialogue { turns, n_prompt: asked.map_or(answered, |asked| asked + 1), tools })
    }

    /// What a template renders.
    pub fn conversation(&self) -> Conversation {
        conversation(&self.turns, self.tools.as_ref())
    }

    /// The prompt alone.
    pub fn prompt(&self) -> Conversation {
        conversation(&self.turns[..self.n_prompt], self.tools.as_ref())
    }
}

fn conversation(turns: &[Turn], tools: Option<&Json>) -> Conversation {
    Conversation { messages: turns.iter().map(|turn| turn.message.clone()).collect(), tools: tools.cloned() }
}

impl Lesson {
    /// The lesson of a row of this format.
    ///
    /// # Errors
    /// What is wrong with the row; [`Problem::WrongKind`] for formats that hold no lesson.
    pub fn of(format: Format, row: &Json) -> Result<Lesson, Problem> {
        let fields = Fields::new(row)?;
        let lesson = match format {
            Format::Text => Lesson::Text(fields.full_text("text")?),
            Format::Messages | Format::Sharegpt => Lesson::Dialogue(fields.dialogue()?),
            Format::Alpaca => {
                let (mut turns, tools) = fields.alpaca_prompt()?;
                let n_prompt = turns.len();
                let name = if fields.get("output").is_some() { "output" } else { "response" };
                let name = if fields.get(name).is_some() { name } else { "output" };
                turns.push(Turn::assistant(&fields.full_text(name)?));
                Lesson::Dialogue(Dialogue { turns, n_prompt, tools })
            }
            Format::PromptCompletion => fields.completed("completion")?,
            Format::Preference | Format::Unpaired | Format::Prompt => {
                return Err(Problem::WrongKind {
                    found: format,
                    expected: "text, messages, sharegpt, alpaca or prompt-completion rows",
                });
            }
        };
        lesson.learnable()
    }

    /// The lesson, unless something that is to be learned is empty.
    fn learnable(self) -> Result<Lesson, Problem> {
        if let Lesson::Dialogue(dialogue) = &self {
            if !dialogue.turns.iter().any(Turn::is_assistant) {
                return Err(Problem::NoAssistant);
            }
            for (at, turn) in dialogue.turns.iter().enumerate() {
                if turn.is_assistant() && turn.trained != Some(false) && turn.says_nothing() {
                    return Err(Problem::EmptyField { field: format!("content of message {}", at + 1) });
                }
            }
        }
        Ok(self)
    }
}

/// A string or turns: what `prompt`, `completion`, `chosen` and `rejected` may be.
#[derive(Debug, Clone)]
pub(crate) enum Side {
    Text(String),
    Turns(Vec<Turn>),
}

/// The fields of a row.
pub(crate) struct Fields<'a> {
    row: &'a Json,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(row: &'a Json) -> Result<Fields<'a>, Problem> {
        match row.kind() {
            ValueKind::Map => Ok(Fields { row }),
            _ => Err(Problem::NotObject { found: type_name(row) }),
        }
    }

    /// A field that is there and not null.
    pub(crate) fn get(&self, name: &str) -> Option<Json> {
        self.row.get_attr(name).ok().filter(|value| !value.is_undefined() && !value.is_none())
    }

    pub(crate) fn required(&self, name: &str) -> Result<Json, Problem> {
        self.get(name).ok_or_else(|| Problem::Missing { field: name.to_owned(), keys: keys(self.row) })
    }

    /// The string of a field, where it is there.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, Problem> {
        self.get(name).map(|value| string(&value, name)).transpose()
    }

    /// A string that must not be empty.
    pub(crate) fn full_text(&self, name: &str) -> Result<String, Problem> {
        match string(&self.required(name)?, name)? {
            text if text.trim().is_empty() => Err(Problem::EmptyField { field: name.to_owned() }),
            text => Ok(text),
        }
    }

    /// A string, a message or a list of messages.
    pub(crate) fn side(&self, name: &str) -> Result<Side, Problem> {
        let value = self.required(name)?;
        match value.kind() {
            ValueKind::String => Ok(Side::Text(value.to_string())),
            ValueKind::Map => Ok(Side::Turns(vec![Turn::read(&value, name)?])),
            ValueKind::Seq => Ok(Side::Turns(Turn::read_all(&value, name)?)),
            _ => Err(wrong_type(name, &value, "a string or a list of messages")),
        }
    }

    /// `messages` or `conversations`, with a `system` prompt and `tools` beside them.
    pub(crate) fn dialogue(&self) -> Result<Dialogue, Problem> {
        let turns = self.turns()?;
        Dialogue::of_turns(turns, self.tools()?)
    }

    /// The turns of `messages` or `conversations`, behind the `system` prompt of the row.
    pub(crate) fn turns(&self) -> Result<Vec<Turn>, Problem> {
        self.refuse_media()?;
        let name = if self.get("messages").is_some() { "messages" } else { "conversations" };
        let name = if self.get(name).is_some() { name } else { "messages" };
        self.with_system(Turn::read_all(&self.required(name)?, name)?)
    }

    /// The turns behind the `system` prompt of the row, unless they open with one.
    pub(crate) fn with_system(&self, mut turns: Vec<Turn>) -> Result<Vec<Turn>, Problem> {
        let instructs = |turn: &Turn| matches!(turn.message.role(), "system" | "developer");
        match self.text("system")? {
            Some(system) if !system.is_empty() && !turns.first().is_some_and(instructs) => {
                turns.insert(0, Turn::new(Message::new("system", &system)));
            }
            _ => {}
        }
        Ok(turns)
    }

    /// The turns in front of an Alpaca row's answer, as LLaMA-Factory makes them: the history, then instruction and
    /// input with a line break between them.
    pub(crate) fn alpaca_prompt(&self) -> Result<(Vec<Turn>, Option<Json>), Problem> {
        self.refuse_media()?;
        let mut turns = Vec::new();
        if let Some(history) = self.get("history") {
            let pairs = list(&history, "history")?;
            for (at, pair) in (1..).zip(pairs) {
                let field = format!("history[{}]", at - 1);
                match list(&pair, &field)?.as_slice() {
                    [asked, answered] => {
                        turns.push(Turn::new(Message::new("user", &string(asked, &field)?)));
                        turns.push(Turn::assistant(&string(answered, &field)?));
                    }
                    _ => return Err(wrong_type(&field, &pair, "a list of a question and its answer")),
                }
            }
        }
        let instruction = string(&self.required("instruction")?, "instruction")?;
        let input = self.text("input")?.unwrap_or_default();
        if instruction.is_empty() && input.is_empty() {
            return Err(Problem::EmptyField { field: "instruction".to_owned() });
        }
        let parts: Vec<&str> =
            [&instruction, &input].into_iter().map(String::as_str).filter(|p| !p.is_empty()).collect();
        let asked = Message::new("user", &parts.join("\n"));
        turns.push(Turn { parts: Some([instruction, input]), ..Turn::new(asked) });
        Ok((self.with_system(turns)?, self.tools()?))
    }

    /// `prompt` with what is in `answer`: strings as they stand, unless either is turns or the row has a system prompt.
    pub(crate) fn completed(&self, answer: &str) -> Result<Lesson, Problem> {
        let (prompt, completion) = (self.side("prompt")?, self.side(answer)?);
        self.joined(prompt, completion, answer)
    }

    /// A prompt and its completion, which stands in the field `answer`.
    pub(crate) fn joined(&self, prompt: Side, completion: Side, answer: &str) -> Result<Lesson, Problem> {
        self.refuse_media()?;
        let tools = self.tools()?;
        let system = self.text("system")?.is_some_and(|system| !system.is_empty());
        if says_nothing(&completion) {
            return Err(Problem::EmptyField { field: answer.to_owned() });
        }
        let (prompt, completion) = match (prompt, completion) {
            (Side::Text(prompt), Side::Text(completion)) if !system && tools.is_none() => {
                return Ok(Lesson::Completion { prompt, completion });
            }
            sides => sides,
        };
        let mut turns = match prompt {
            Side::Text(prompt) => vec![Turn::new(Message::new("user", &prompt))],
            Side::Turns(turns) => turns,
        };
        turns = self.with_system(turns)?;
        let n_prompt = turns.len();
        match completion {
            Side::Text(completion) => turns.push(Turn::assistant(&completion)),
            Side::Turns(completion) => turns.extend(completion),
        }
        if !turns[n_prompt..].iter().any(Turn::is_assistant) {
            return Err(Problem::NoAssistant);
        }
        Ok(Lesson::Dialogue(Dialogue { turns, n_prompt, tools }))
    }

    /// `tools`: a list of schemas, or its JSON text; each as `{"type": "function", "function": {...}}`.
    pub(crate) fn tools(&self) -> Result<Option<Json>, Problem> {
        let Some(tools) = self.get("tools") else { return Ok(None) };
        let wrong = |reason: String| Problem::Tools {
            field: "tools".to_owned(),
            expected: "a list of tool schemas",
            reason,
        };
        let tools = match tools.as_str() {
            Some(text) if text.trim().is_empty() => return Ok(None),
            Some(text) => serde_json::from_str::<Json>(text).map_err(|error| wrong(error.to_string()))?,
            None => tools,
        };
        if tools.kind() != ValueKind::Seq {
            return Err(wrong(format!("it is {}", type_name(&tools))));
        }
        let mut schemas = Vec::new();
        for schema in tools.try_iter().into_iter().flatten() {
            let is_wrapped = schema.get_attr("function").is_ok_and(|inner| inner.kind() == ValueKind::Map);
            schemas.push(match schema.kind() {
                ValueKind::Map if is_wrapped => schema,
                ValueKind::Map => Value::from_pairs([("type", Value::from("function")), ("function", schema)]),
                _ => return Err(wrong(format!("it holds {}", type_name(&schema)))),
            });
        }
        Ok(if schemas.is_empty() { None } else { Some(Value::from(schemas)) })
    }

    /// Pictures, films and sounds beside the text.
    fn refuse_media(&self) -> Result<(), Problem> {
        for name in ["images", "image", "videos", "audios"] {
            if self.get(name).is_some_and(|media| media.len() != Some(0)) {
                return Err(Problem::Unsupported { what: format!("field `{name}`") });
            }
        }
        Ok(())
    }
}

fn says_nothing(side: &Side) -> bool {
    match side {
        Side::Text(text) => text.trim().is_empty(),
        Side::Turns(turns) => turns.iter().filter(|turn| turn.is_assistant()).all(Turn::says_nothing),
    }
}

/// The elements of a list.
pub(crate) fn list(value: &Json, field: &str) -> Result<Vec<Json>, Problem> {
    match value.kind() {
        ValueKind::Seq => Ok(value.try_iter().into_iter().flatten().collect()),
        _ => Err(wrong_type(field, value, "a list")),
    }
}

/// The string that a value is.
pub(crate) fn string(value: &Json, field: &str) -> Result<String, Problem> {
    value.as_str().map(str::to_owned).ok_or_else(|| wrong_type(field, value, "a string"))
}

pub(crate) fn wrong_type(field: &str, found: &Json, expected: &'static str) -> Problem {
    Problem::WrongType { field: field.to_owned(), found: type_name(found), expected }
}

/// What a value is, as messages say it.
pub(crate) fn type_name(value: &Json) -> String {
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => "null".to_owned(),
        ValueKind::Bool => format!("the truth value {value}"),
        ValueKind::Number => format!("the number {value}"),
        ValueKind::String => "a string".to_owned(),
        ValueKind::Seq => "a list".to_owned(),
        ValueKind::Map => "an object".to_owned(),
        other => format!("{other}"),
    }
}

#[cfg(test)]
mod tests;
