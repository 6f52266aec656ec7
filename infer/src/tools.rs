//! Calls of tools: which form a model writes them in, reading them while the text comes, and grammars that force them.
//!
//! A model knows one form from its training, and its chat template writes that form; [`ToolFormat::of_template`] finds out
//! which. Knows texts and templates; running a tool is the caller's. See `docs/guide/structured-output.md`.

mod call;
mod definition;
mod force;
mod format;
mod parser;

pub use definition::Tool;
pub use force::{ToolChoice, force};
pub use format::ToolFormat;
pub use parser::{ToolCall, ToolEvent, ToolParser};

/// Why tools cannot be offered or forced.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// The list of tools is not as it should be.
    #[error("tool {index} cannot be used: {reason}")]
    Definition {
        /// Its place in the list, from 0.
        index: usize,
        /// What is wrong.
        reason: String,
    },
    /// The list of tools is no list.
    #[error("the tools are not a JSON list")]
    NoList,
    /// A tool that was asked for is not among those offered.
    #[error("there is no tool {name:?}, only {known}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The template does not write calls in a form that can be read.
    #[error("the chat template writes calls of tools in no known form: {reason}")]
    Format {
        /// What it wrote instead, or why it wrote nothing.
        reason: String,
    },
}

#[cfg(test)]
mod tests;
