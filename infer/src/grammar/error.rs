//! What can be wrong with a grammar, before generation and during it.

use std::path::PathBuf;

use fornax_base::files::FileError;

/// Why a grammar cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GrammarError {
    /// The vocabulary cannot be used with grammars.
    #[error("this tokenizer cannot be used with grammars: {reason}")]
    Vocabulary {
        /// Why.
        reason: String,
    },
    /// The grammar is longer or deeper than a server can let it be.
    #[error("the {kind} has {what} of {found}, at most {limit} is allowed")]
    TooLarge {
        /// Kind of the grammar.
        kind: &'static str,
        /// What is too large.
        what: &'static str,
        /// How large it is.
        found: usize,
        /// How large it may be.
        limit: usize,
    },
    /// The grammar has a mistake.
    #[error("the {kind} cannot be used: {reason}")]
    Invalid {
        /// Kind of the grammar.
        kind: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A GBNF grammar has a mistake at a known place.
    #[error("the GBNF grammar has a mistake in line {line}, column {column}: {reason}")]
    Gbnf {
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What is wrong.
        reason: String,
    },
    /// A part of JSON schema that cannot be enforced.
    #[error("the JSON schema uses {keyword:?} at {place}, which is not supported")]
    Unsupported {
        /// The keyword, or the format.
        keyword: String,
        /// JSON pointer of the schema that has it; `#` is the whole.
        place: String,
    },
    /// Compiling, or a step, needed more work than the limits allow.
    #[error("the {kind} needs more work than is allowed: {reason}")]
    TooComplex {
        /// Kind of the grammar.
        kind: &'static str,
        /// What ran out.
        reason: String,
    },
    /// No token can follow, and the text may not end here.
    #[error("the {kind} allows none of the model's tokens after {tokens} tokens")]
    Stuck {
        /// Kind of the grammar.
        kind: &'static str,
        /// Tokens that were accepted before.
        tokens: usize,
    },
    /// A token was given that the grammar does not allow; the state is as it was.
    #[error("token {id} is not allowed by the {kind} after {tokens} tokens")]
    NotAllowed {
        /// Kind of the grammar.
        kind: &'static str,
        /// The token.
        id: u32,
        /// Tokens that were accepted before.
        tokens: usize,
    },
    /// More tokens were to be taken back than were accepted.
    #[error("{asked} tokens were to be taken back, {tokens} were accepted")]
    Rollback {
        /// Tokens to be taken back.
        asked: usize,
        /// Tokens accepted.
        tokens: usize,
    },
    /// The automaton failed; this grammar cannot go on.
    #[error("the {kind} failed: {reason}")]
    Failed {
        /// Kind of the grammar.
        kind: &'static str,
        /// Its words.
        reason: String,
    },
    /// The file of a grammar cannot be read.
    #[error("{reason}")]
    File {
        /// What happened, with the path.
        reason: String,
    },
    /// The file of a grammar has a name that does not tell what it holds.
    #[error("`{}` does not tell what kind of grammar it is, expected .json, .gbnf, .lark or .regex", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
    },
}

impl GrammarError {
    /// A short name that does not change, for clients.
    pub fn code(&self) -> &'static str {
        match self {
            GrammarError::Vocabulary { .. } => "grammar_vocabulary",
            GrammarError::TooLarge { .. } => "grammar_too_large",
            GrammarError::Invalid { .. } | GrammarError::Gbnf { .. } | GrammarError::Kind { .. } => {
                "grammar_invalid"
            }
            GrammarError::Unsupported { .. } => "grammar_unsupported",
            GrammarError::TooComplex { .. } => "grammar_too_complex",
            GrammarError::Stuck { .. } => "grammar_stuck",
            GrammarError::NotAllowed { .. } => "grammar_not_allowed",
            GrammarError::Rollback { .. } => "grammar_rollback",
            GrammarError::Failed { .. } => "grammar_failed",
            GrammarError::File { .. } => "grammar_file",
        }
    }
}

impl From<FileError> for GrammarError {
    fn from(error: FileError) -> GrammarError {
        GrammarError::File { reason: error.to_string() }
    }
}

/// Words of the library, or of a grammar, fit for a message: without traces, on one line of at most 400 characters, control
/// characters escaped.
pub(super) fn plain(reason: &str) -> String {
    let kept = reason.split("\n<").next().unwrap_or_default();
    let words = kept.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut line = String::new();
    for (at, character) in words.chars().enumerate() {
        if at == 400 {
            line.push('…');
            break;
        }
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}
