//! What was said, and the files that keep it: one JSON object a line with `role` and `content`.

use std::path::{Path, PathBuf};

use fornax_base::files::{FileError, RealFs, read_text_limited, write_atomic_bytes};
use fornax_data::chat::{Json, Message};

/// Longest file of messages that is read.
const MAX_BYTES: u64 = 64 << 20;

/// Why a file of messages cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileProblem {
    /// The file itself.
    #[error(transparent)]
    File(#[from] FileError),
    /// A line is no message.
    #[error("`{}` line {line}: {reason}", path.display())]
    NotAMessage {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// There is none.
    #[error("`{}` holds no message", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Writing would destroy something else.
    #[error("`{}` exists and holds something else than a conversation", path.display())]
    Taken {
        /// The file.
        path: PathBuf,
    },
}

impl FileProblem {
    /// One action that helps.
    pub fn hint(&self) -> &'static str {
        match self {
            FileProblem::File(_) => "check the name of the file",
            FileProblem::NotAMessage { .. } | FileProblem::Empty { .. } => {
                "each line is {\"role\": \"user\", \"content\": \"...\"}; roles are system, user and assistant"
            }
            FileProblem::Taken { .. } => "save under another name",
        }
    }
}

/// The messages of a conversation, in order; a system prompt stands in front.
#[derive(Debug, Clone)]
pub(super) struct Messages {
    all: Vec<Message>,
    /// How many of those behind the system prompt the model does not see any more.
    pub(super) left_out: usize,
}

impl Messages {
    pub(super) fn new(system: Option<&str>) -> Messages {
        let all = system.map(|text| Message::new("system", text)).into_iter().collect();
        Messages { all, left_out: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn push(&mut self, role: &str, text: &str) {
        self.all.push(Message::new(role, text));
    }

    pub(super) fn pop(&mut self) {
        self.all.pop();
    }

    /// Takes the last answer away, if the conversation ends with one that a user asked for.
    pub(super) fn pop_answer(&mut self) -> Option<String> {
        let [.., before, last] = &self.all[..] else { return None };
        let answer =
            (last.role() == "assistant" && before.role() == "user").then(|| last.text().unwrap_or_default());
        if answer.is_some() {
            self.all.pop();
        }
        answer
    }

    /// Forgets all but the system prompt.
    pub(super) fn clear(&mut self) {
        self.all.truncate(self.beginning());
        self.left_out = 0;
    }

    pub(super) fn system(&self) -> Option<String> {
        self.all.first().filter(|message| message.role() == "system").and_then(Message::text)
    }

    pub(super) fn set_system(&mut self, text: &str) {
        let beginning = self.beginning();
        self.all.splice(..beginning, [Message::new("system", text)]);
    }

    /// Messages in front that always stay.
    fn beginning(&self) -> usize {
        usize::from(self.all.first().is_some_and(|message| message.role() == "system"))
    }

    /// What the model sees when so many are left out.
    pub(super) fn seen(&self, left_out: usize) -> Vec<Message> {
        let beginning = self.beginning();
        [&self.all[..beginning], &self.all[beginning + left_out..]].concat()
    }

    /// The next greater number of messages to leave out, such that the user begins; `None` where none is left then.
    pub(super) fn next_beginning(&self, left_out: usize) -> Option<usize> {
        let said = &self.all[self.beginning()..];
        (left_out + 1..said.len()).find(|&at| said[at].role() == "user")
    }

    /// Reads a file.
    pub(super) fn load(path: &Path) -> Result<Messages, FileProblem> {
        let text = read_text_limited(path, MAX_BYTES)?;
        let mut all = Vec::new();
        for (line, text) in (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty()) {
            let wrong = |reason: String| FileProblem::NotAMessage { path: path.to_path_buf(), line, reason };
            all.push(message(text, all.is_empty()).map_err(wrong)?);
        }
        match all.is_empty() {
            true => Err(FileProblem::Empty { path: path.to_path_buf() }),
            false => Ok(Messages { all, left_out: 0 }),
        }
    }

    /// Writes all messages; returns how many. What is there is replaced if it is a conversation too.
    pub(super) fn save(&self, path: &Path) -> Result<usize, FileProblem> {
        let taken = || FileProblem::Taken { path: path.to_path_buf() };
        let is_empty = std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == 0);
        if path.exists() && !is_empty && Messages::load(path).is_err() {
            return Err(taken());
        }
        let mut text = String::new();
        for message in &self.all {
            // Keys in this order, as everybody writes them.
            let content = serde_json::Value::from(message.text().unwrap_or_default());
            let role = serde_json::Value::from(message.role());
            text += &format!("{{\"role\": {role}, \"content\": {content}}}\n");
        }
        write_atomic_bytes(&RealFs, path, text.as_bytes())?;
        Ok(self.all.len())
    }
}

/// A message of text by somebody whom templates know.
fn message(line: &str, is_first: bool) -> Result<Message, String> {
    let json: Json = serde_json::from_str(line).map_err(|error| format!("not JSON: {error}"))?;
    let message = Message::from_json(json).ok_or("an object with a `role` is expected")?;
    match message.role() {
        "user" | "assistant" => {}
        "system" if is_first => {}
        "system" => return Err("a system message stands in front of all others".into()),
        other => {
            let other: String = other.chars().filter(|c| !c.is_control()).take(32).collect();
            return Err(format!("the role is `{other}`, expected system, user or assistant"));
        }
    }
    let text = message.text().ok_or("`content` is to be one text")?;
    Ok(Message::new(message.role(), &text))
}
