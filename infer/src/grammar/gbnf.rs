//! llama.cpp's grammar language, written as Lark.
//!
//! GBNF has no tokens: a rule is read character by character. Lark's terminals are read as long as they go. What of a
//! grammar is regular becomes terminals, as large as they can be without changing what the grammar accepts, because every
//! character that is a symbol of its own costs the parser a row.

mod characters;
mod convert;
mod parse;
mod regular;

use super::error::GrammarError;
use super::limits::GrammarLimits;

/// A part of a rule.
#[derive(Debug, Clone, PartialEq)]
enum Expr {
    /// Text as it is written.
    Literal(String),
    /// One character of a set.
    Class(characters::Set),
    /// A token of the vocabulary.
    Token(u32),
    /// Another rule, by its index.
    Rule(usize),
    /// One after another.
    Sequence(Vec<Expr>),
    /// One of several.
    Choice(Vec<Expr>),
    /// At least so many times, at most so many.
    Repeat(Box<Expr>, u32, Option<u32>),
}

/// A grammar as it was read: names of rules with what they are; the root is at 0.
#[derive(Debug)]
struct Rules {
    rules: Vec<(String, Expr)>,
}

/// The grammar as Lark.
///
/// # Errors
/// [`GrammarError::Gbnf`] with the place of a mistake, [`GrammarError::TooLarge`].
pub(super) fn to_lark(text: &str, limits: &GrammarLimits) -> Result<String, GrammarError> {
    let rules = parse::parse(text, limits)?;
    Ok(convert::to_lark(&rules))
}

#[cfg(test)]
mod tests;
