//! What can be wrong with a row of post-training data, and what helps.

use std::path::PathBuf;

use crate::formats::Format;

/// A row that cannot be used: where it stands and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("`{}`{} {problem}", path.display(), place(*row))]
pub struct RowError {
    /// The file as given.
    pub path: PathBuf,
    /// The row, from 1: its line in a JSON Lines file, its place in a list or a Parquet file. 0 for the whole file.
    pub row: u64,
    /// What is wrong.
    pub problem: Problem,
}

fn place(row: u64) -> String {
    match row {
        0 => String::new(),
        row => format!(" row {row}:"),
    }
}

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Text that is no JSON.
    #[error("not JSON: {reason}")]
    Json {
        /// What the parser said, and where.
        reason: String,
    },
    /// Bytes that are not UTF-8.
    #[error("not UTF-8 at byte {at} of the text")]
    Utf8 {
        /// Offset of the bad byte in the row or field.
        at: usize,
    },
    /// Bytes of a JSON list that are not UTF-8.
    #[error("not UTF-8 (line {line} of the file)")]
    Utf8InList {
        /// Line of the file, from 1.
        line: usize,
    },
    /// JSON that is no object.
    #[error("a JSON object is expected, found {found}")]
    NotObject {
        /// What it is.
        found: String,
    },
    /// Lists and objects within one another beyond the parser's limit.
    #[error("nested deeper than 127 levels")]
    TooDeep,
    /// A row beyond the limit.
    #[error("longer than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: u64,
    },
    /// A JSON list beyond the limit.
    #[error("is a JSON list of more than {limit} bytes")]
    ListTooLong {
        /// The limit in bytes.
        limit: u64,
    },
    /// A `.json` file that opens with neither `[` nor `{`.
    #[error("holds neither a JSON list of objects nor JSON Lines")]
    NoList,
    /// A compressed file that ends too early or does not decompress.
    #[error("the gzip stream is cut off or damaged: {reason}")]
    CutOff {
        /// What the decoder said.
        reason: String,
    },
    /// A Parquet file that cannot be read on.
    #[error("the Parquet file is damaged: {reason}")]
    Parquet {
        /// What the decoder said.
        reason: String,
    },
    /// A file without a row.
    #[error("holds no rows")]
    NoRows,
    /// Fields that no format has.
    #[error("has the fields {keys}, which are those of no known format")]
    UnknownFormat {
        /// The fields, in order.
        keys: String,
    },
    /// A row of another format than those before it.
    #[error("{}, the rows before it are {expected}", looks_like(*found))]
    Mixed {
        /// What it looks like.
        found: Option<Format>,
        /// What the opening rows were.
        expected: Format,
    },
    /// Rows that an objective cannot learn from.
    #[error("{found} rows cannot be used here, {expected} are needed")]
    WrongKind {
        /// What the row is.
        found: Format,
        /// What the objective needs.
        expected: &'static str,
    },
    /// A field that is not there.
    #[error("field `{field}` is missing; there are {keys}")]
    Missing {
        /// The field.
        field: String,
        /// The fields that are there.
        keys: String,
    },
    /// A field of another type.
    #[error("field `{field}` is {found}, {expected} is expected")]
    WrongType {
        /// The field.
        field: String,
        /// What it is.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A role that is not known.
    #[error("field `{field}` is the unknown role {found:?}")]
    UnknownRole {
        /// The field.
        field: String,
        /// The role as it stands there.
        found: String,
    },
    /// Text to learn that is empty.
    #[error("field `{field}` is empty")]
    EmptyField {
        /// The field.
        field: String,
    },
    /// Two completions between which nothing can be preferred.
    #[error("`chosen` and `rejected` are the same")]
    Same,
    /// A conversation in which nobody answers.
    #[error("the conversation has no assistant message")]
    NoAssistant,
    /// A prompt that leaves nothing to answer.
    #[error("the prompt ends with an assistant message")]
    AnsweredPrompt,
    /// Something that rows may say elsewhere and that is not supported.
    #[error("{what} is not supported")]
    Unsupported {
        /// What it is.
        what: String,
    },
    /// A call of a tool, or a list of tools, that is not the JSON it should be.
    #[error("field `{field}` does not hold {expected}: {reason}")]
    Tools {
        /// The field.
        field: String,
        /// What it should hold.
        expected: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The chat template refused the conversation.
    #[error("{reason}")]
    Template {
        /// What it said.
        reason: String,
    },
    /// A conversation, and no way of writing it.
    #[error("it is a conversation, and there is no chat template to write it")]
    NoTemplate,
    /// An answer whose place in the rendering is not known.
    #[error(
        "the chat template leaves out the assistant's message {message}, or writes it where it cannot be found"
    )]
    Unplaced {
        /// Which message, from 1.
        message: usize,
    },
    /// An answer of which the template writes nothing, such as a call of a tool.
    #[error("the chat template writes nothing of the assistant's message {message}")]
    Unwritten {
        /// Which message, from 1.
        message: usize,
    },
    /// Tools that the template does not write.
    #[error("the row has tools, and the chat template does not write them")]
    UnwrittenTools,
    /// Text that the tokenizer cannot encode.
    #[error("cannot be encoded: {reason}")]
    Encode {
        /// What the tokenizer said.
        reason: String,
    },
    /// Nothing of the row is trained.
    #[error("no token is trained under the mask `{mask}`")]
    EmptyMask {
        /// Name of the mask.
        mask: &'static str,
    },
    /// Two tokens that open a text.
    #[error("opens with the beginning-of-text token {token:?} twice")]
    DoubledBos {
        /// The token.
        token: String,
    },
    /// A turn after which the model would not stop.
    #[error("the last trained turn does not end with a control token, it ends with {found:?}")]
    MissingEos {
        /// The last trained token.
        found: String,
    },
}

fn looks_like(found: Option<Format>) -> String {
    match found {
        Some(found) => format!("looks like {found}"),
        None => "has the fields of no known format".to_owned(),
    }
}

impl Problem {
    /// One action that helps.
    pub fn hint(&self) -> String {
        match self {
            Problem::Json { .. } => "each row must be one whole JSON object; `skip_bad_rows` passes over rows like this",
            Problem::Utf8 { .. } | Problem::Utf8InList { .. } => "write the file as UTF-8",
            Problem::NotObject { .. } => "write each row as an object, such as {\"messages\": [...]}",
            Problem::TooDeep => "take lists and objects out of one another",
            Problem::TooLong { .. } => "cut the row into several; no context holds that much",
            Problem::ListTooLong { .. } => "write the rows as JSON Lines (.jsonl), which are read one by one",
            Problem::NoList => "write `[{...}, {...}]`, or one object a line",
            Problem::CutOff { .. } | Problem::Parquet { .. } => "fetch or write the file again",
            Problem::NoRows => "give a file with at least one row",
            Problem::UnknownFormat { .. } => {
                "known are `text`, `messages`, `conversations`, `instruction` and `output`, `prompt` and `completion`, \
                 `chosen` and `rejected`, `prompt`; the key `fields` of a recipe gives other names"
            }
            Problem::Mixed { .. } => "keep each format in files of its own, or name the format with `format`",
            Problem::WrongKind { .. } => "choose another objective, or another file",
            Problem::Missing { .. } | Problem::WrongType { .. } => {
                "see the formats in docs/guide/post-training-data.md; the key `fields` of a recipe gives other names"
            }
            Problem::UnknownRole { .. } => {
                "roles are system, developer, user, assistant, tool and function; in ShareGPT also human, gpt, \
                 function_call and observation"
            }
            Problem::EmptyField { .. } => "remove the row, or pass over rows like it with `skip_bad_rows`",
            Problem::Same => "remove the pair, or pass over pairs like it with `skip_bad_rows`",
            Problem::NoAssistant => "add the answer that is to be learned",
            Problem::AnsweredPrompt => "let the prompt end with a user or tool message",
            Problem::Unsupported { .. } => "remove it, or pass over rows like it with `skip_bad_rows`",
            Problem::Tools { .. } => "a call is {\"name\": ..., \"arguments\": {...}}, tools are a list of such schemas",
            Problem::NoTemplate => {
                "name one: `template = \"chatml\"`, `\"alpaca\"`, `\"plain\"` or a file (`--template`)"
            }
            Problem::Unwritten { .. } | Problem::UnwrittenTools => {
                "use the template of a model that calls tools, or pass over rows like this with `skip_bad_rows`"
            }
            Problem::Template { .. } | Problem::Unplaced { .. } => {
                "change the row, or name another template: `template = \"chatml\"`, `\"alpaca\"`, `\"plain\"` or a file"
            }
            Problem::Encode { .. } => "use a tokenizer that knows these characters",
            Problem::EmptyMask { .. } => "choose another `mask`, or remove the row",
            Problem::DoubledBos { .. } => "remove the token from the text: the tokenizer adds it",
            Problem::MissingEos { .. } => {
                "use a template that ends assistant turns with a token of the tokenizer, such as `template = \"plain\"`"
            }
        }
        .to_owned()
    }
}
