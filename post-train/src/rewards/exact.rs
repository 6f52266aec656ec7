//! The completion is the row's answer, letter by letter after what is named to be passed over.

use fornax_data::chat::Json;
use serde::{Deserialize, Serialize};

use super::{Verdict, after_last, column, default_column, default_weight, plain_text};

/// A reward of kind `exact`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExactRecipe {
    /// Name in the metrics; default `exact`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is multiplied with; default 1.
    #[serde(default = "default_weight")]
    pub weight: f64,
    /// Column of the row with the answer: a string, a number, or a list of them of which any is right; default
    /// `answer`.
    #[serde(default = "default_column")]
    pub column: String,
    /// Compare what stands behind the last occurrence of this text, in the completion and, where it occurs there, in
    /// the answer. A completion without it is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Whether it is enough that an answer stands somewhere in the completion; default false.
    #[serde(default)]
    pub contains: bool,
    /// What is passed over; default `["trim"]`.
    #[serde(default = "default_normalize")]
    pub normalize: Vec<Normalize>,
}

fn default_normalize() -> Vec<Normalize> {
    vec![Normalize::Trim]
}

/// What a comparison passes over, applied in the order given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalize {
    /// White space at both ends.
    Trim,
    /// Upper and lower case.
    Case,
    /// The length of white space.
    Spaces,
    /// ASCII punctuation.
    Punctuation,
}

impl Normalize {
    fn apply(self, text: &str) -> String {
        match self {
            Normalize::Trim => text.trim().to_owned(),
            Normalize::Case => text.to_lowercase(),
            Normalize::Spaces => text.split_whitespace().collect::<Vec<_>>().join(" "),
            Normalize::Punctuation => text.chars().filter(|c| !c.is_ascii_punctuation()).collect(),
        }
    }
}

/// The rule.
#[derive(Debug)]
pub struct Exact {
    column: String,
    after: Option<String>,
    contains: bool,
    normalize: Vec<Normalize>,
}

impl Exact {
    pub(super) fn new(recipe: &ExactRecipe) -> Exact {
        let ExactRecipe { column, after, contains, normalize, .. } = recipe.clone();
        Exact { column, after, contains, normalize }
    }

    /// The right answers of a row, as compared.
    pub(super) fn answers(&self, columns: &Json) -> Result<Vec<String>, String> {
        let value = column(columns, &self.column)?;
        let texts = match plain_text(&value) {
            Some(text) => Some(vec![text]),
            None => value.as_array().and_then(|items| items.iter().map(plain_text).collect()),
        };
        let texts: Vec<String> = texts
            .filter(|texts| !texts.is_empty())
            .ok_or_else(|| format!("has neither text, a number nor a list of them in column `{}`", self.column))?;
        let part = |text: &String| match &self.after {
            Some(marker) => after_last(text, marker).unwrap_or(text).to_owned(),
            None => text.clone(),
        };
        Ok(texts.iter().map(|text| self.normal(&part(text))).collect())
    }

    pub(super) fn score(&self, columns: &Json, completion: &str) -> Result<Verdict, String> {
        let answers = self.answers(columns)?;
        let said = match &self.after {
            Some(marker) => after_last(completion, marker),
            None => Some(completion),
        };
        Ok(Verdict::of(said.is_some_and(|said| {
            let said = self.normal(said);
            answers.iter().any(|answer| if self.contains { said.contains(answer) } else { &said == answer })
        })))
    }

    fn normal(&self, text: &str) -> String {
        self.normalize.iter().fold(text.to_owned(), |text, step| step.apply(&text))
    }
}
