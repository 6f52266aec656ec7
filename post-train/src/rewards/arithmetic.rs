//! A number in the completion equals the row's answer.

use fornax_data::chat::Json;
use serde::{Deserialize, Serialize};

use super::rational::{Rational, evaluate, last_number, leading_number};
use super::{Verdict, after_last, column, default_column, default_weight, plain_text};

/// What stands before the answer in GSM8K (Cobbe et al., arXiv:2110.14168).
const MARKER: &str = "####";

/// A reward of kind `arithmetic`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArithmeticRecipe {
    /// Name in the metrics; default `arithmetic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is multiplied with; default 1.
    #[serde(default = "default_weight")]
    pub weight: f64,
    /// Column of the row with the answer: a number, an expression, or text with `#### 42` in it; default `answer`.
    #[serde(default = "default_column")]
    pub column: String,
    /// Where the completion has its answer; default `marker`.
    #[serde(default)]
    pub extract: Extract,
    /// Whether an expression (`6 * 7`) counts as its value; default false: a model would repeat the question.
    #[serde(default)]
    pub expression: bool,
    /// Numbers this far apart are equal; default none: they are compared as exact fractions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<f64>,
}

/// Where a completion has its answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extract {
    /// Behind the last `####`, on that line, as in GSM8K.
    #[default]
    Marker,
    /// The last number of the text.
    Last,
    /// The whole text.
    Whole,
}

/// The rule.
#[derive(Debug)]
pub struct Arithmetic {
    column: String,
    extract: Extract,
    expression: bool,
    tolerance: Option<f64>,
}

impl Arithmetic {
    pub(super) fn new(recipe: &ArithmeticRecipe) -> Result<Arithmetic, String> {
        let ArithmeticRecipe { column, extract, expression, tolerance, .. } = recipe.clone();
        if let Some(tolerance) = tolerance.filter(|tolerance| !(tolerance.is_finite() && *tolerance >= 0.0)) {
            return Err(format!("`tolerance` is {tolerance}, but a number of at least 0 is expected"));
        }
        if expression && extract == Extract::Last {
            return Err("`expression` is true, but `extract` is `last`, which finds numbers".into());
        }
        Ok(Arithmetic { column, extract, expression, tolerance })
    }

    /// The row's answer.
    pub(super) fn answer(&self, columns: &Json) -> Result<Rational, String> {
        let value = column(columns, &self.column)?;
        let text = plain_text(&value);
        let number = text.as_deref().and_then(|text| evaluate(line_behind_marker(text).unwrap_or(text)));
        number.ok_or_else(|| {
            let found: String = text.unwrap_or_else(|| value.to_string()).chars().take(40).collect();
            format!("has no number in column `{}`: `{found}`", self.column)
        })
    }

    pub(super) fn score(&self, columns: &Json, completion: &str) -> Result<Verdict, String> {
        let answer = self.answer(columns)?;
        let said = match self.extract {
            Extract::Marker => line_behind_marker(completion).and_then(|line| self.leading(line)),
            Extract::Whole if self.expression => evaluate(completion),
            Extract::Whole => {
                let trimmed = leading_number(completion).filter(|(_, rest)| matches!(rest.trim(), "" | "."));
                trimmed.map(|(value, _)| value)
            }
            Extract::Last => last_number(completion),
        };
        Ok(Verdict::of(said.is_some_and(|said| self.equal(said, answer))))
    }

    fn leading(&self, line: &str) -> Option<Rational> {
        let whole = if self.expression { evaluate(line) } else { None };
        whole.or_else(|| leading_number(line).map(|(value, _)| value))
    }

    fn equal(&self, said: Rational, answer: Rational) -> bool {
        match self.tolerance {
            Some(tolerance) => (said.to_f64() - answer.to_f64()).abs() <= tolerance,
            None => said == answer,
        }
    }
}

fn line_behind_marker(text: &str) -> Option<&str> {
    after_last(text, MARKER).map(|rest| rest.lines().next().unwrap_or(""))
}
