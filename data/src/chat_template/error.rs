//! What can go wrong between a conversation and its ids.

use std::path::PathBuf;

/// An error of a chat template or of a conversation rendered with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] fornax_base::files::FileError),
    /// A folder or tokenizer has no chat template.
    #[error("`{}` has no chat template: neither chat_template.jinja nor `chat_template` in tokenizer_config.json", .0.display())]
    Absent(PathBuf),
    /// A template cannot be used.
    #[error("chat template `{}` is not usable: {reason}", path.display())]
    Unusable {
        /// The file as given.
        path: PathBuf,
        /// What is wrong, with its line.
        reason: String,
    },
    /// No template by the name asked for.
    #[error("there is no chat template named {name:?}; there are {known}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The template does not take the conversation.
    #[error("the chat template refuses the conversation: {0}")]
    Refused(String),
    /// The template writes far more than it was given.
    #[error("the chat template writes more than {limit} bytes for {given} bytes of conversation")]
    TooLong {
        /// The bytes allowed.
        limit: usize,
        /// The bytes of the conversation.
        given: usize,
    },
    /// More messages than can be told apart.
    #[error("the conversation has {found} messages, at most {most} can be rendered")]
    TooManyMessages {
        /// Messages in the conversation.
        found: usize,
        /// The most there may be.
        most: usize,
    },
    /// A value of the conversation that is no JSON, is nested too deeply, or holds what nobody writes.
    #[error("{place}: {reason}")]
    Input {
        /// Which message, or what beside the messages.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The template changes text in a way that hides where it came from, and the text could become a control token.
    #[error(
        "{place} holds text that could become the control token {token:?}: the template changes it in a way that hides \
         where it came from"
    )]
    Origin {
        /// Which message, or what beside the messages.
        place: String,
        /// The token.
        token: String,
    },
}
