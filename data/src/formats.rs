//! What rows of post-training data look like: the formats, and how one is recognised by its fields.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::chat::Json;
use crate::records::Problem;

/// Rows that are looked at before a format is believed.
pub const OPENING_ROWS: usize = 16;

/// What the rows of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// `text`: a text that is learned as it stands.
    Text,
    /// `messages`: turns with `role` and `content`.
    Messages,
    /// `conversations`: turns with `from` and `value`.
    Sharegpt,
    /// `instruction`, perhaps `input`, `system` and `history`, and `output`.
    Alpaca,
    /// `prompt` and `completion`: strings or messages.
    PromptCompletion,
    /// `chosen` and `rejected`, with a prompt of their own or a common one.
    Preference,
    /// A completion and whether it is a good one: `label` or `kto_tag`.
    Unpaired,
    /// `prompt`, and columns that rewards read.
    Prompt,
}

impl Format {
    /// All of them, in the order in which they are recognised.
    pub const ALL: [Format; 8] = [
        Format::Preference,
        Format::Unpaired,
        Format::Messages,
        Format::Sharegpt,
        Format::Alpaca,
        Format::PromptCompletion,
        Format::Text,
        Format::Prompt,
    ];

    /// Its name in recipes and flags.
    pub fn name(self) -> &'static str {
        match self {
            Format::Text => "text",
            Format::Messages => "messages",
            Format::Sharegpt => "sharegpt",
            Format::Alpaca => "alpaca",
            Format::PromptCompletion => "prompt-completion",
            Format::Preference => "preference",
            Format::Unpaired => "unpaired",
            Format::Prompt => "prompt",
        }
    }

    /// The format of a row, and the fields that tell.
    pub fn of(row: &Json) -> Option<(Format, &'static str)> {
        let has = |name: &str| row.get_attr(name).is_ok_and(|value| !value.is_undefined() && !value.is_none());
        let is_bool =
            |name: &str| row.get_attr(name).is_ok_and(|value| value.kind() == minijinja::value::ValueKind::Bool);
        let judged = is_bool("label") || is_bool("kto_tag");
        let completed = has("prompt") && has("completion");
        let answered = has("instruction") && (has("output") || has("response"));
        Some(match () {
            () if has("chosen") && has("rejected") => (Format::Preference, "`chosen` and `rejected`"),
            () if completed && has("label") => (Format::Unpaired, "`prompt`, `completion` and `label`"),
            () if judged && (completed || answered) => (Format::Unpaired, "a completion and a truth value"),
            () if judged && (has("messages") || has("conversations")) => {
                (Format::Unpaired, "turns and a truth value")
            }
            () if has("messages") => turns(row, "messages"),
            () if has("conversations") => turns(row, "conversations"),
            () if has("instruction") => (Format::Alpaca, "`instruction`"),
            () if completed => (Format::PromptCompletion, "`prompt` and `completion`"),
            () if has("text") => (Format::Text, "`text`"),
            () if has("prompt") => (Format::Prompt, "`prompt` without a completion"),
            () => return None,
        })
    }
}

/// Which of the two ways of writing turns a list has; the name of the list decides where it is empty.
fn turns(row: &Json, list: &str) -> (Format, &'static str) {
    let opening = row.get_attr(list).and_then(|list| list.get_item_by_index(0));
    let has = |name: &str| {
        opening.as_ref().is_ok_and(|turn| turn.get_attr(name).is_ok_and(|value| !value.is_undefined()))
    };
    match (has("from"), has("role"), list) {
        (true, false, _) => (Format::Sharegpt, "turns with `from` and `value`"),
        (false, true, _) => (Format::Messages, "turns with `role` and `content`"),
        (_, _, "messages") => (Format::Messages, "`messages`"),
        _ => (Format::Sharegpt, "`conversations`"),
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Format, String> {
        Format::ALL.into_iter().find(|format| format.name() == text).ok_or_else(|| {
            let known: Vec<&str> = Format::ALL.iter().map(|format| format.name()).collect();
            format!("unknown format `{text}`, known are {}", known.join(", "))
        })
    }
}

/// What was recognised, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detected {
    /// The format.
    pub format: Format,
    /// A sentence for people.
    pub sentence: String,
}

impl Detected {
    /// The format that was named instead of recognised.
    pub fn named(format: Format) -> Detected {
        Detected { format, sentence: format!("format {format}, as it was named") }
    }

    /// The format of the opening rows of a file.
    ///
    /// # Errors
    /// When the opening row has the fields of no format.
    pub fn of(opening: &Json, rows: usize) -> Result<Detected, Problem> {
        let (format, why) = Format::of(opening).ok_or_else(|| Problem::UnknownFormat { keys: keys(opening) })?;
        let rows = match rows {
            1 => "the opening row has".to_owned(),
            rows => format!("the {rows} opening rows have"),
        };
        Ok(Detected { format, sentence: format!("format {format}: {rows} {why}") })
    }
}

/// The fields of a row as messages list them.
pub(crate) fn keys(row: &Json) -> String {
    let keys: Vec<String> = row.try_iter().into_iter().flatten().take(12).map(|key| format!("`{key}`")).collect();
    match keys.is_empty() {
        true => "none".to_owned(),
        false => keys.join(", "),
    }
}
