//! Grammars: which tokens may come next, so that the text of an answer has a given form.
//!
//! The automata are those of `llguidance`. This module gives it our vocabularies, keeps its work within limits, refuses by
//! name what it does not do, and turns GBNF into its grammar language. Knows token ids and texts; nothing of models.
//! See `docs/guide/structured-output.md`.

mod automaton;
mod cache;
mod compiler;
mod error;
mod gbnf;
mod lark;
mod limits;
mod schema;
mod spec;
mod vocabulary;

pub use automaton::{Grammar, Mask};
pub use compiler::GrammarCompiler;
pub use error::GrammarError;
pub(crate) use lark::string as lark_string;
pub use limits::GrammarLimits;
pub use spec::{GrammarSpec, NamedSchema};

#[cfg(test)]
pub(crate) mod tests;
