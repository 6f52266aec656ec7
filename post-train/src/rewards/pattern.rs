//! The completion matches a pattern.

use fancy_regex::{CompileError, Error, Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use super::{RewardError, Verdict, default_weight};

/// Steps of backtracking after which a match is given up.
const BACKTRACK_LIMIT: usize = 1_000_000;

/// A reward of kind `regex`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatternRecipe {
    /// Name in the metrics; default `regex`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is multiplied with; default 1.
    #[serde(default = "default_weight")]
    pub weight: f64,
    /// The pattern, in the syntax of the crate fancy-regex (Rust's regex with look-around and back-references).
    pub pattern: String,
    /// Whether it must match the whole completion and not a part of it; default false.
    #[serde(default)]
    pub whole: bool,
}

/// The rule.
#[derive(Debug)]
pub struct Pattern {
    regex: Regex,
}

impl Pattern {
    pub(super) fn new(recipe: &PatternRecipe, name: &str) -> Result<Pattern, RewardError> {
        // By itself before it is wrapped, so that an error tells the user's place.
        let own = compile(&recipe.pattern, &recipe.pattern, name)?;
        let regex = match recipe.whole {
            true => compile(&format!("\\A(?:{})\\z", recipe.pattern), &recipe.pattern, name)?,
            false => own,
        };
        Ok(Pattern { regex })
    }

    pub(super) fn score(&self, completion: &str) -> Verdict {
        match self.regex.is_match(completion) {
            Ok(matches) => Verdict::of(matches),
            Err(_) => Verdict::gave_up(),
        }
    }
}

fn compile(pattern: &str, own: &str, name: &str) -> Result<Regex, RewardError> {
    let mut builder = RegexBuilder::new(pattern);
    builder.backtrack_limit(BACKTRACK_LIMIT);
    builder.build().map_err(|error| {
        let (place, what) = match error {
            Error::ParseError(at, what) => {
                let character = own.get(..at).map_or(at, |before| before.chars().count()) + 1;
                (format!(" at character {character}"), what.to_string())
            }
            Error::CompileError(inner) => match *inner {
                CompileError::InnerError(inner) => (String::new(), inner.to_string()),
                other => (String::new(), other.to_string()),
            },
            other => (String::new(), other.to_string()),
        };
        let what = what.trim().replace('\n', ", ");
        RewardError::Pattern { name: name.to_owned(), pattern: own.to_owned(), place, what }
    })
}
