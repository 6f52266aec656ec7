//! One turn of a conversation, from any of the ways in which files write it.

use minijinja::Value;
use minijinja::value::ValueKind;

use super::{list, string, type_name, wrong_type};
use crate::chat::{Json, Message};
use crate::formats::keys;
use crate::records::Problem;

/// A message, and whether its row says that it is trained.
#[derive(Debug, Clone)]
pub struct Turn {
    /// The message as templates read it.
    pub message: Message,
    /// `train`, `weight` or `loss_weight` of the message; `None` where it has none.
    pub trained: Option<bool>,
    /// Instruction and input of an Alpaca row, for the template that prints them under headings of their own.
    pub parts: Option<[String; 2]>,
}

/// Keys that say whether a message is trained; no template sees them.
const TRAIN_KEYS: [&str; 3] = ["train", "weight", "loss_weight"];

/// Who speaks, and how the content is written.
enum Speaker {
    As(&'static str),
    /// An assistant, whose content is the JSON of a tool call.
    Caller,
}

impl Speaker {
    fn of(tag: &str) -> Option<Speaker> {
        Some(match tag {
            "system" => Speaker::As("system"),
            "developer" => Speaker::As("developer"),
            "user" | "human" => Speaker::As("user"),
            "assistant" | "gpt" | "chatgpt" | "bot" | "model" => Speaker::As("assistant"),
            "function_call" | "tool_call" => Speaker::Caller,
            "tool" | "observation" | "function_response" | "tool_response" => Speaker::As("tool"),
            "function" => Speaker::As("function"),
            "ipython" => Speaker::As("ipython"),
            _ => return None,
        })
    }
}

impl Turn {
    pub(crate) fn new(message: Message) -> Turn {
        Turn { message, trained: None, parts: None }
    }

    pub(crate) fn assistant(content: &str) -> Turn {
        Turn::new(Message::new("assistant", content))
    }

    /// Whether an assistant speaks.
    pub fn is_assistant(&self) -> bool {
        self.message.role() == "assistant"
    }

    /// Whether there is neither text nor a call of a tool.
    pub(crate) fn says_nothing(&self) -> bool {
        let calls = self.message.json().get_attr("tool_calls").ok().and_then(|calls| calls.len());
        self.message.text().is_none_or(|text| text.trim().is_empty()) && calls.unwrap_or(0) == 0
    }

    /// The turns of a list, which stands in the field `field`.
    pub(crate) fn read_all(value: &Json, field: &str) -> Result<Vec<Turn>, Problem> {
        let turns = list(value, field)?;
        if turns.is_empty() {
            return Err(Problem::EmptyField { field: field.to_owned() });
        }
        turns.iter().enumerate().map(|(at, turn)| Turn::read(turn, &format!("{field}[{at}]"))).collect()
    }

    /// A turn with `role` and `content`, or with `from` and `value`.
    pub(crate) fn read(value: &Json, field: &str) -> Result<Turn, Problem> {
        if value.kind() != ValueKind::Map {
            return Err(wrong_type(field, value, "an object"));
        }
        let has = |name: &str| value.get_attr(name).is_ok_and(|value| !value.is_undefined());
        let (role_key, content_key) = match has("from") && !has("role") {
            true => ("from", "value"),
            false => ("role", "content"),
        };
        if !has(role_key) {
            return Err(Problem::Missing { field: format!("{field}.{role_key}"), keys: keys(value) });
        }
        let role_field = format!("{field}.{role_key}");
        let tag = string(&value.get_attr(role_key).unwrap_or_default(), &role_field)?;
        let speaker = Speaker::of(&tag).ok_or(Problem::UnknownRole { field: role_field, found: tag })?;
        let content = value.get_attr(content_key).unwrap_or_default();
        let content_field = format!("{field}.{content_key}");
        let (role, own) = match speaker {
            Speaker::Caller => {
                let calls = calls_of(&string(&content, &content_field)?, &content_field)?;
                ("assistant", vec![("content", Value::from("")), ("tool_calls", calls)])
            }
            Speaker::As(role) => {
                let calls = calls_given(value, field)?;
                let content = content_of(content, &content_field, calls.is_some())?;
                let mut own: Vec<(&str, Json)> = content.map(|content| ("content", content)).into_iter().collect();
                own.extend(calls.map(|calls| ("tool_calls", calls)));
                (role, own)
            }
        };
        let trained = trained(value, field, role)?;
        Ok(Turn { message: message(value, role, [role_key, content_key], own), trained, parts: None })
    }
}

/// The message with its keys in their order: role and content under the names that templates use, what is new at the end.
fn message(value: &Json, role: &str, [role_key, content_key]: [&str; 2], own: Vec<(&str, Json)>) -> Message {
    let mut pairs: Vec<(String, Json)> = Vec::new();
    let mut own: Vec<(&str, Option<Json>)> = own.into_iter().map(|(key, value)| (key, Some(value))).collect();
    let mut take = |key: &str| own.iter_mut().find(|(name, _)| *name == key).and_then(|(_, value)| value.take());
    for key in value.try_iter().into_iter().flatten() {
        let name = key.to_string();
        match name.as_str() {
            name if name == role_key => pairs.push(("role".to_owned(), Value::from(role))),
            name if name == content_key => {
                pairs.extend(take("content").map(|content| ("content".to_owned(), content)));
            }
            name if TRAIN_KEYS.contains(&name) => {}
            other => {
                let kept = take(other).or_else(|| value.get_item(&key).ok());
                pairs.extend(kept.map(|kept| (name.clone(), kept)));
            }
        }
    }
    let rest = own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    pairs.extend(rest);
    // The role was just written: what cannot be is a message without one.
    Message::from_json(Value::from_pairs(pairs)).unwrap_or_else(|| Message::new(role, ""))
}

/// Content as a string: parts of text are joined; none where a call stands in its place.
fn content_of(content: Json, field: &str, calls: bool) -> Result<Option<Json>, Problem> {
    match content.kind() {
        ValueKind::String => Ok(Some(content)),
        ValueKind::None if calls => Ok(Some(content)),
        ValueKind::Undefined if calls => Ok(None),
        ValueKind::Seq => {
            let mut text = String::new();
            for (at, part) in list(&content, field)?.iter().enumerate() {
                text += &text_part(part, &format!("{field}[{at}]"))?;
            }
            Ok(Some(Value::from(text)))
        }
        _ => Err(wrong_type(field, &content, "a string")),
    }
}

fn text_part(part: &Json, field: &str) -> Result<String, Problem> {
    if let Some(text) = part.as_str() {
        return Ok(text.to_owned());
    }
    if part.kind() != ValueKind::Map {
        return Err(wrong_type(field, part, "a part of the content"));
    }
    let get = |name: &str| part.get_attr(name).unwrap_or_default();
    match get("type").as_str() {
        Some("text") => {}
        other => {
            let kind = other.unwrap_or("without a type");
            return Err(Problem::Unsupported { what: format!("the part `{field}` of type `{kind}`") });
        }
    }
    if !get("train").is_undefined() {
        return Err(Problem::Unsupported { what: format!("`train` on the part `{field}` of a message") });
    }
    // LLaMA-Factory writes `value` where everybody else writes `text`.
    let text = if get("text").is_undefined() { get("value") } else { get("text") };
    string(&text, &format!("{field}.text"))
}

/// `tool_calls` of a message; arguments that are JSON text become the object that templates print.
fn calls_given(value: &Json, field: &str) -> Result<Option<Json>, Problem> {
    let calls = value.get_attr("tool_calls").unwrap_or_default();
    if calls.is_undefined() || calls.is_none() || calls.len() == Some(0) {
        return Ok(None);
    }
    let field = format!("{field}.tool_calls");
    let parsed = list(&calls, &field)?.into_iter().map(|call| with_arguments(call, &field));
    Ok(Some(Value::from(parsed.collect::<Result<Vec<_>, _>>()?)))
}

fn with_arguments(call: Json, field: &str) -> Result<Json, Problem> {
    let wrong = |reason: String| Problem::Tools { field: field.to_owned(), expected: "tool calls", reason };
    if call.kind() != ValueKind::Map {
        return Err(wrong(format!("it holds {}", type_name(&call))));
    }
    let inner = call.get_attr("function").unwrap_or_default();
    let function = if inner.kind() == ValueKind::Map { inner } else { call.clone() };
    let name = function.get_attr("name").unwrap_or_default();
    if name.as_str().is_none() {
        return Err(wrong("a call has no `name`".to_owned()));
    }
    let arguments = function.get_attr("arguments").unwrap_or_default();
    let Some(text) = arguments.as_str() else { return Ok(call) };
    let parsed: Json = match text.trim() {
        "" => Value::from_pairs(std::iter::empty::<(&str, Json)>()),
        text => serde_json::from_str(text).map_err(|error| wrong(format!("arguments: {error}")))?,
    };
    let function = with(&function, "arguments", parsed);
    Ok(match call.get_attr("function").is_ok_and(|inner| inner.kind() == ValueKind::Map) {
        true => with(&call, "function", function),
        false => function,
    })
}

/// The same object with another value under a key that it has.
fn with(object: &Json, key: &str, new: Json) -> Json {
    let pairs = object.try_iter().into_iter().flatten().map(|name| {
        let value =
            if name.as_str() == Some(key) { new.clone() } else { object.get_item(&name).unwrap_or_default() };
        (name, value)
    });
    Value::from_pairs(pairs)
}

/// Tool calls from the text of a `function_call`: one `{"name", "arguments"}`, or a list of them.
fn calls_of(text: &str, field: &str) -> Result<Json, Problem> {
    let wrong = |reason: String| Problem::Tools { field: field.to_owned(), expected: "a tool call", reason };
    let parsed: Json = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let calls = match parsed.kind() {
        ValueKind::Seq => list(&parsed, field)?,
        _ => vec![parsed],
    };
    if calls.is_empty() {
        return Err(wrong("the list is empty".to_owned()));
    }
    let mut given = Vec::new();
    for call in calls {
        let call = with_arguments(call, field)?;
        let function = call.get_attr("function").unwrap_or_default();
        given.push(match function.kind() {
            ValueKind::Map => call,
            _ => Value::from_pairs([("type", Value::from("function")), ("function", call)]),
        });
    }
    Ok(Value::from(given))
}

/// What the message says about its training.
fn trained(value: &Json, field: &str, role: &str) -> Result<Option<bool>, Problem> {
    let get = |name: &str| value.get_attr(name).ok().filter(|value| !value.is_undefined() && !value.is_none());
    if get("train_detail").is_some() {
        return Err(Problem::Unsupported { what: format!("`{field}.train_detail`") });
    }
    let mut said = None;
    for key in TRAIN_KEYS {
        let Some(found) = get(key) else { continue };
        let field = format!("{field}.{key}");
        let trained = match (found.kind(), f64::try_from(found.clone())) {
            (ValueKind::Bool, _) if key == "train" => found.is_true(),
            (ValueKind::Number, Ok(weight)) if key != "train" && (weight == 0.0 || weight == 1.0) => weight == 1.0,
            (ValueKind::Number, Ok(weight)) if key != "train" => {
                return Err(Problem::Unsupported { what: format!("`{field}` {weight}, other than 0 and 1,") });
            }
            _ if key == "train" => return Err(wrong_type(&field, &found, "true or false")),
            _ => return Err(wrong_type(&field, &found, "0 or 1")),
        };
        if trained && role != "assistant" {
            return Err(Problem::Unsupported { what: format!("`{field}` on a message of role {role}") });
        }
        said = Some(trained);
    }
    Ok(said)
}
