//! Tools as requests state them.

use fornax_data::chat::Json;
use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use super::ToolError;

/// Names may be this long, as OpenAI has it.
const LONGEST_NAME: usize = 64;

/// A function that a model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// Its name: letters, digits, `_`, `-` and `.`, at most 64.
    pub name: String,
    /// JSON schema of its arguments, an object.
    pub parameters: Value,
    /// The whole as templates expect it: `{"type": "function", "function": {...}}`.
    json: Value,
}

impl Tool {
    /// The tools of a JSON list, each as OpenAI has it or its `function` alone.
    ///
    /// # Errors
    /// [`ToolError::NoList`], or [`ToolError::Definition`] for the leading tool that is wrong.
    pub fn list(tools: &Value) -> Result<Vec<Tool>, ToolError> {
        let list = tools.as_array().ok_or(ToolError::NoList)?;
        let mut read: Vec<Tool> = Vec::with_capacity(list.len());
        for (index, value) in list.iter().enumerate() {
            let wrong = |reason: String| ToolError::Definition { index, reason };
            let tool = Tool::read(value).map_err(wrong)?;
            if read.iter().any(|other| other.name == tool.name) {
                return Err(wrong(format!("its name {:?} is taken", tool.name)));
            }
            read.push(tool);
        }
        Ok(read)
    }

    fn read(value: &Value) -> Result<Tool, String> {
        let function = value.get("function").unwrap_or(value);
        let name = function.get("name").and_then(Value::as_str).ok_or("it has no name")?;
        let known = |character: char| character.is_ascii_alphanumeric() || "_-.".contains(character);
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(known) {
            return Err(format!("its name {name:?} is not 1 to {LONGEST_NAME} letters, digits, `_`, `-` or `.`"));
        }
        let parameters = match function.get("parameters") {
            None | Some(Value::Null) => json!({"type": "object", "properties": {}, "additionalProperties": false}),
            Some(Value::Object(map)) => Value::Object(with_type(map)?),
            Some(_) => return Err("its parameters are not a JSON schema".to_owned()),
        };
        let json = json!({"type": "function", "function": function});
        Ok(Tool { name: name.to_owned(), parameters, json })
    }

    /// The tools as [`fornax_data::chat::Conversation::tools`] wants them.
    pub fn for_template(tools: &[Tool]) -> Json {
        as_json(&Value::Array(tools.iter().map(|tool| tool.json.clone()).collect()))
    }
}

/// A JSON value as templates take it; every one can be.
pub(super) fn as_json(value: &Value) -> Json {
    Json::deserialize(value).unwrap_or_default()
}

/// Arguments are an object, said or not.
fn with_type(schema: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    let mut schema = schema.clone();
    match schema.get("type") {
        Some(kind) if kind != "object" => Err(format!("its parameters have the type {kind}, expected \"object\"")),
        Some(_) => Ok(schema),
        None => {
            schema.insert("type".to_owned(), json!("object"));
            Ok(schema)
        }
    }
}
