//! What a template is given, with or without marks.

use std::collections::BTreeMap;

use minijinja::Value;
use minijinja::value::ValueKind;

use super::error::TemplateError;
use super::json::MAX_DEPTH;
use super::marks::{Source, StandIn, Text, marked};
use super::objects::{Dict, List};
use super::{DATA, MOST_MESSAGES, RenderOptions, source_of};
use crate::chat::{Json, Message};
use crate::tokenizer::ControlTokens;

/// Which texts carry marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// None.
    None,
    /// All that is said, and names that could take part in a control token.
    All,
    /// What could take part in a control token.
    Risky,
}

/// Roles that templates know; they may become part of a header such as `<|user|>`.
const ROLES: [&str; 10] = [
    "system",
    "developer",
    "user",
    "assistant",
    "tool",
    "function",
    "ipython",
    "model",
    "observation",
    "environment",
];
/// Variables that every template is given.
const GIVEN: [&str; 6] =
    ["messages", "tools", "documents", "add_generation_prompt", "strftime_now", "raise_exception"];
/// Names under which a message keeps what the assistant thought, the one templates read being the first.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// A conversation, and what stands beside it.
pub(super) struct Input<'a> {
    messages: &'a [Message],
    tools: Option<&'a Json>,
    options: &'a RenderOptions,
    stand_in: StandIn,
    /// Bytes of all texts and names.
    pub(super) bytes: usize,
}

impl<'a> Input<'a> {
    pub(super) fn new(
        messages: &'a [Message],
        tools: Option<&'a Json>,
        options: &'a RenderOptions,
    ) -> Result<Input<'a>, TemplateError> {
        if messages.len() > MOST_MESSAGES {
            return Err(TemplateError::TooManyMessages { found: messages.len(), most: MOST_MESSAGES });
        }
        if let Some((name, _)) = options.variables.iter().find(|(name, _)| GIVEN.contains(&name.as_str())) {
            let reason = "templates call something else by this name".to_owned();
            return Err(TemplateError::Input { place: Place::Variable(name).name(), reason });
        }
        let mut input = Input { messages, tools, options, stand_in: StandIn::NONE, bytes: 0 };
        let mut texts = Vec::new();
        let mut bytes = 0;
        for (place, value) in input.values() {
            let visit = &mut |text: &str| {
                bytes += text.len();
                // Only these can hold what marks are made of.
                if text.bytes().any(|byte| byte >= 0xF3) {
                    texts.push(text.to_owned());
                }
            };
            walk(value, 0, visit).map_err(|reason| TemplateError::Input { place: place.name(), reason })?;
        }
        input.bytes = bytes;
        input.stand_in =
            StandIn::for_texts(texts.iter().map(String::as_str)).ok_or_else(|| TemplateError::Input {
                place: "the conversation".to_owned(),
                reason: "it holds characters of every part of Unicode's supplementary private use areas"
                    .to_owned(),
            })?;
        Ok(input)
    }

    /// Everything given, with its place.
    fn values(&self) -> impl Iterator<Item = (Place<'a>, &'a Value)> + use<'a> {
        let messages = self.messages.iter().enumerate().map(|(at, message)| (Place::Message(at), message.json()));
        let variables = self.options.variables.iter().map(|(name, value)| (Place::Variable(name), value));
        let tools = self.tools.map(|tools| (Place::Tools, tools));
        let documents = self.options.documents.as_ref().map(|documents| (Place::Documents, documents));
        messages.chain(tools).chain(documents).chain(variables)
    }

    /// The variables of a template.
    pub(super) fn context(&self, guard: Guard, controls: &ControlTokens) -> BTreeMap<String, Value> {
        let dress = |source| Dress { guard, source, controls, stand_in: self.stand_in };
        let messages =
            self.messages.iter().enumerate().map(|(at, message)| dress(source_of(at)).message(message.json()));
        let mut context = BTreeMap::from([
            ("messages".to_owned(), Value::from_object(List(messages.collect()))),
            (
                "tools".to_owned(),
                self.tools.map_or_else(|| Value::from(()), |tools| dress(DATA).value(tools, Kind::Said)),
            ),
            (
                "documents".to_owned(),
                self.options
                    .documents
                    .as_ref()
                    .map_or_else(|| Value::from(()), |documents| dress(DATA).value(documents, Kind::Said)),
            ),
            ("add_generation_prompt".to_owned(), Value::from(self.options.add_generation_prompt)),
        ]);
        let variables = self.options.variables.iter();
        context.extend(variables.map(|(name, value)| (name.clone(), dress(DATA).value(value, Kind::Name))));
        context
    }

    /// The text as it would be had nothing stood in for other characters.
    pub(super) fn restore(&self, text: Text) -> Text {
        if self.stand_in == StandIn::NONE { text } else { text.map(|piece| self.stand_in.undo(piece)) }
    }

    /// The first place that holds text which could become a control token, and that token.
    pub(super) fn riskiest(&self, controls: &ControlTokens) -> (String, String) {
        for (place, value) in self.values() {
            let mut token = None;
            let visit =
                &mut |text: &str| token = token.take().or_else(|| controls.could_join(text).map(str::to_owned));
            if walk(value, 0, visit).is_ok()
                && let Some(token) = token
            {
                return (place.name(), token);
            }
        }
        ("the conversation".to_owned(), String::new())
    }
}

/// Where a value stands.
#[derive(Debug, Clone, Copy)]
enum Place<'a> {
    Message(usize),
    Tools,
    Documents,
    Variable(&'a str),
}

impl Place<'_> {
    fn name(self) -> String {
        match self {
            Place::Message(at) => format!("message {}", at + 1),
            Place::Tools => "the list of tools".to_owned(),
            Place::Documents => "the list of documents".to_owned(),
            Place::Variable(name) => format!("the variable {name:?}"),
        }
    }
}

/// Visits every text and every key of a JSON value.
fn walk(value: &Value, depth: usize, visit: &mut dyn FnMut(&str)) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("nested deeper than {MAX_DEPTH}"));
    }
    match value.kind() {
        ValueKind::String => visit(value.as_str().unwrap_or_default()),
        ValueKind::Map => {
            for key in value.try_iter().map_err(|error| error.to_string())? {
                visit(key.as_str().ok_or("a key that is no string")?);
                walk(&value.get_item(&key).unwrap_or_default(), depth + 1, visit)?;
            }
        }
        ValueKind::Seq => {
            for item in value.try_iter().map_err(|error| error.to_string())? {
                walk(&item, depth + 1, visit)?;
            }
        }
        ValueKind::None | ValueKind::Bool | ValueKind::Number => {}
        kind => return Err(format!("a value of type {kind}, which is no JSON")),
    }
    Ok(())
}

/// What a text is, which decides whether it carries marks.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// Said by someone.
    Said,
    /// The name of something, which templates compare with names of their own.
    Name,
    /// The role of a message.
    Role,
}

/// Values as a template sees them.
struct Dress<'a> {
    guard: Guard,
    source: Source,
    controls: &'a ControlTokens,
    stand_in: StandIn,
}

impl Dress<'_> {
    /// A message. As in transformers, keys without a value are left out, and what was thought stands under the name
    /// that templates read.
    fn message(&self, json: &Value) -> Value {
        let keys: Vec<Value> = json.try_iter().into_iter().flatten().collect();
        let value = |key: &Value| json.get_item(key).unwrap_or_default();
        let mut entries: Vec<(Value, Value)> =
            keys.into_iter().map(|key| (key.clone(), value(&key))).filter(|(_, value)| !value.is_none()).collect();
        let has = |entries: &[(Value, Value)], name: &str| {
            entries.iter().position(|(key, _)| key.as_str() == Some(name))
        };
        if let Some(at) = REASONING.iter().find_map(|name| has(&entries, name)) {
            let thought = entries[at].1.clone();
            if has(&entries, REASONING[1]).is_none() {
                entries.insert(0, (Value::from(REASONING[1]), thought.clone()));
            }
            match has(&entries, REASONING[0]) {
                Some(at) => entries[at].1 = thought,
                None => entries.push((Value::from(REASONING[0]), thought)),
            }
        }
        let entries = entries.into_iter().map(|(key, value)| self.entry(&key, &value, Kind::Said, true));
        Value::from_object(Dict::new(entries))
    }

    fn entry(&self, key: &Value, value: &Value, kind: Kind, top: bool) -> (String, Value, Value) {
        let name = self.stand_in.put(key.as_str().unwrap_or_default());
        let kind = match name.as_str() {
            "role" if top => Kind::Role,
            "type" => Kind::Name,
            _ => kind,
        };
        let shown = Value::from(self.text(&name, Kind::Name));
        let value = self.value(value, kind);
        (name, shown, value)
    }

    fn value(&self, value: &Value, kind: Kind) -> Value {
        match value.kind() {
            ValueKind::String => {
                Value::from(self.text(&self.stand_in.put(value.as_str().unwrap_or_default()), kind))
            }
            ValueKind::Map => {
                let keys = value.try_iter().into_iter().flatten();
                let entry = |key: Value| self.entry(&key, &value.get_item(&key).unwrap_or_default(), kind, false);
                Value::from_object(Dict::new(keys.map(entry)))
            }
            ValueKind::Seq => {
                let items = value.try_iter().into_iter().flatten();
                Value::from_object(List(items.map(|item| self.value(&item, kind)).collect()))
            }
            _ => value.clone(),
        }
    }

    fn text(&self, text: &str, kind: Kind) -> String {
        let risky = || self.controls.could_join(text).is_some();
        let wears = match (self.guard, kind) {
            (Guard::None, _) => false,
            (_, Kind::Role) if ROLES.contains(&text) => false,
            (Guard::All, Kind::Said) => true,
            _ => risky(),
        };
        if wears { marked(text, self.source) } else { text.to_owned() }
    }
}
