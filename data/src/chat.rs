//! Conversations: messages as JSON objects whose keys keep their order, since templates print them in that order.
//!
//! Shared by the readers of training rows and by the template renderer, and later by the server.

use minijinja::Value;

/// A JSON value whose objects keep the order of their keys.
pub type Json = Value;

/// One message: a JSON object that has at least a `role`.
#[derive(Debug, Clone)]
pub struct Message {
    role: String,
    json: Json,
}

impl Message {
    /// A message of plain text.
    pub fn new(role: &str, content: &str) -> Self {
        let json = Value::from_pairs([("role", Value::from(role)), ("content", Value::from(content))]);
        Self { role: role.to_owned(), json }
    }

    /// A message as it stands in a file or a request; `None` where it has no `role` string.
    pub fn from_json(json: Json) -> Option<Self> {
        let role = json.get_attr("role").ok()?.as_str()?.to_owned();
        Some(Self { role, json })
    }

    /// Who speaks.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// The content where it is one string.
    pub fn text(&self) -> Option<String> {
        self.json.get_attr("content").ok()?.as_str().map(str::to_owned)
    }

    /// The whole message, `role` included.
    pub fn json(&self) -> &Json {
        &self.json
    }
}

/// Messages in order, and the tools offered to the assistant.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    /// Messages in order.
    pub messages: Vec<Message>,
    /// A JSON list of tool schemas, where the row has one.
    pub tools: Option<Json>,
}
