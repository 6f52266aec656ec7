//! Verifiable rewards: what a completion is worth is computed from its text and the row it answers.
//!
//! Knows rows and text; nothing of models or training.

mod arithmetic;
mod command;
mod exact;
mod pattern;
mod rational;
mod schema;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use fornax_data::chat::Json;
use fornax_data::examples::Prompt;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use arithmetic::{Arithmetic, ArithmeticRecipe, Extract};
pub use command::{CommandRecipe, Input, UnitCommand};
pub use exact::{Exact, ExactRecipe, Normalize};
pub use pattern::{Pattern, PatternRecipe};
pub use schema::{Schema, SchemaRecipe};

/// `[[grpo.rewards]]`: one reward. Each kind has keys of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RewardRecipe {
    /// The completion is the row's answer.
    Exact(ExactRecipe),
    /// The completion matches a pattern.
    Regex(PatternRecipe),
    /// The completion is JSON that a schema allows.
    JsonSchema(SchemaRecipe),
    /// A number in the completion equals the row's answer.
    Arithmetic(ArithmeticRecipe),
    /// A command accepts the completion: it is run once for each.
    Command(CommandRecipe),
}

impl RewardRecipe {
    /// The word of its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            RewardRecipe::Exact(_) => "exact",
            RewardRecipe::Regex(_) => "regex",
            RewardRecipe::JsonSchema(_) => "json_schema",
            RewardRecipe::Arithmetic(_) => "arithmetic",
            RewardRecipe::Command(_) => "command",
        }
    }

    fn name_and_weight(&self) -> (Option<&String>, f64) {
        match self {
            RewardRecipe::Exact(recipe) => (recipe.name.as_ref(), recipe.weight),
            RewardRecipe::Regex(recipe) => (recipe.name.as_ref(), recipe.weight),
            RewardRecipe::JsonSchema(recipe) => (recipe.name.as_ref(), recipe.weight),
            RewardRecipe::Arithmetic(recipe) => (recipe.name.as_ref(), recipe.weight),
            RewardRecipe::Command(recipe) => (recipe.name.as_ref(), recipe.weight),
        }
    }

    /// The name under which it is reported: its own, or its kind.
    pub fn name(&self) -> &str {
        self.name_and_weight().0.map_or(self.kind(), String::as_str)
    }

    /// What it is multiplied with before the rewards are added up.
    pub fn weight(&self) -> f64 {
        self.name_and_weight().1
    }
}

pub(crate) fn default_weight() -> f64 {
    1.0
}

pub(crate) fn default_column() -> String {
    "answer".into()
}

/// Why a reward cannot be computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RewardError {
    /// There is nothing to learn from.
    #[error("`grpo.rewards` is empty, at least 1 reward is needed")]
    None,
    /// Two rewards are reported under one name.
    #[error("two rewards are named `{name}`; `name` tells them apart")]
    SameName {
        /// The name.
        name: String,
    },
    /// A key of a reward is wrong.
    #[error("reward `{name}`: {what}")]
    Key {
        /// The reward.
        name: String,
        /// The key and what is wrong with it.
        what: String,
    },
    /// A pattern that cannot be compiled.
    #[error("reward `{name}`: the pattern `{pattern}` is wrong{place}: {what}")]
    Pattern {
        /// The reward.
        name: String,
        /// The pattern.
        pattern: String,
        /// Where, in words; empty where it is not known.
        place: String,
        /// What is wrong there.
        what: String,
    },
    /// A schema that cannot be read or compiled.
    #[error("reward `{name}`: the schema {} cannot be used: {what}", path.display())]
    Schema {
        /// The reward.
        name: String,
        /// The schema's file.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// A row without what the reward compares with.
    #[error("reward `{name}`: row {row} {what}")]
    Row {
        /// The reward.
        name: String,
        /// The row, from 1.
        row: u64,
        /// What is wrong with it.
        what: String,
    },
    /// A command that cannot be run.
    #[error("reward `{name}`: `{command}` cannot be run: {what}")]
    Command {
        /// The reward.
        name: String,
        /// The command.
        command: String,
        /// Why.
        what: String,
    },
}

/// What one reward says of one completion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// 0 to 1.
    pub value: f64,
    /// Whether it is 0 because a limit was met (backtracking, time, output) and not because the answer is wrong.
    pub gave_up: bool,
}

impl Verdict {
    fn of(right: bool) -> Verdict {
        Verdict { value: f64::from(u8::from(right)), gave_up: false }
    }

    fn gave_up() -> Verdict {
        Verdict { value: 0.0, gave_up: true }
    }
}

/// A reward, ready to be computed.
#[derive(Debug)]
pub struct Reward {
    name: String,
    weight: f64,
    rule: Rule,
}

#[derive(Debug)]
enum Rule {
    Exact(Exact),
    Pattern(Pattern),
    Schema(Schema),
    Arithmetic(Arithmetic),
    Command(UnitCommand),
}

impl Reward {
    /// Compiles patterns and schemas.
    ///
    /// # Errors
    /// [`RewardError`] for what cannot be compiled.
    pub fn new(recipe: &RewardRecipe) -> Result<Reward, RewardError> {
        let (name, weight) = (recipe.name().to_owned(), recipe.weight());
        let wrong = |what: String| RewardError::Key { name: name.clone(), what };
        if name.is_empty() || name.contains(['/', '\n']) {
            return Err(wrong("`name` must have a character and no `/`".into()));
        }
        if !weight.is_finite() {
            return Err(wrong(format!("`weight` is {weight}, but a number is expected")));
        }
        let rule = match recipe {
            RewardRecipe::Exact(recipe) => Rule::Exact(Exact::new(recipe)),
            RewardRecipe::Regex(recipe) => Rule::Pattern(Pattern::new(recipe, &name)?),
            RewardRecipe::JsonSchema(recipe) => Rule::Schema(Schema::new(recipe, &name)?),
            RewardRecipe::Arithmetic(recipe) => Rule::Arithmetic(Arithmetic::new(recipe).map_err(wrong)?),
            RewardRecipe::Command(recipe) => Rule::Command(UnitCommand::new(recipe, &name).map_err(wrong)?),
        };
        Ok(Reward { name, weight, rule })
    }

    /// The name under which it is reported.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is multiplied with.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// Whether it runs a program.
    pub fn runs_a_command(&self) -> bool {
        matches!(self.rule, Rule::Command(_))
    }

    /// Whether the row has what the reward compares with.
    ///
    /// # Errors
    /// [`RewardError::Row`].
    pub fn check(&self, prompt: &Prompt) -> Result<(), RewardError> {
        let result = match &self.rule {
            Rule::Exact(rule) => rule.answers(&prompt.columns).map(drop),
            Rule::Arithmetic(rule) => rule.answer(&prompt.columns).map(drop),
            Rule::Pattern(_) | Rule::Schema(_) | Rule::Command(_) => Ok(()),
        };
        result.map_err(|what| RewardError::Row { name: self.name.clone(), row: prompt.row, what })
    }

    /// What the completion of a prompt is worth, before the weight.
    ///
    /// # Errors
    /// [`RewardError::Row`] for a row that [`Reward::check`] refuses, [`RewardError::Command`] for a command that
    /// cannot be started.
    pub fn score(&self, prompt: &Prompt, completion: &str) -> Result<Verdict, RewardError> {
        let row = |what| RewardError::Row { name: self.name.clone(), row: prompt.row, what };
        match &self.rule {
            Rule::Exact(rule) => rule.score(&prompt.columns, completion).map_err(row),
            Rule::Pattern(rule) => Ok(rule.score(completion)),
            Rule::Schema(rule) => Ok(rule.score(completion)),
            Rule::Arithmetic(rule) => rule.score(&prompt.columns, completion).map_err(row),
            Rule::Command(rule) => rule.score(&prompt.columns, completion),
        }
    }
}

/// Several rewards, added up by their weights.
#[derive(Debug)]
pub struct Rewards {
    all: Vec<Reward>,
}

impl Rewards {
    /// Compiles every reward.
    ///
    /// # Errors
    /// [`RewardError`] for the leading one that is wrong, for none, or for two of one name.
    pub fn new(recipes: &[RewardRecipe]) -> Result<Rewards, RewardError> {
        if recipes.is_empty() {
            return Err(RewardError::None);
        }
        let all: Vec<Reward> = recipes.iter().map(Reward::new).collect::<Result<_, _>>()?;
        for (i, reward) in all.iter().enumerate() {
            if all[..i].iter().any(|other| other.name == reward.name) {
                return Err(RewardError::SameName { name: reward.name.clone() });
            }
        }
        Ok(Rewards { all })
    }

    /// The rewards, in the order of the recipe.
    pub fn all(&self) -> &[Reward] {
        &self.all
    }

    /// Whether every row has what the rewards compare with.
    ///
    /// # Errors
    /// [`RewardError::Row`] for the leading one that has not.
    pub fn check(&self, prompts: &[Prompt]) -> Result<(), RewardError> {
        prompts.iter().try_for_each(|prompt| self.all.iter().try_for_each(|reward| reward.check(prompt)))
    }

    /// The weighted sum of the verdicts on one completion, as [`Rewards::score`] gives them.
    pub fn total(&self, verdicts: &[Verdict]) -> f64 {
        self.all.iter().zip(verdicts).map(|(reward, verdict)| reward.weight * verdict.value).sum()
    }

    /// For each completion of a prompt the verdict of each reward. Commands run side by side, as many at a time as
    /// there are processors; the order of the results does not depend on it.
    ///
    /// # Errors
    /// As [`Reward::score`]; for the leading completion that has one.
    pub fn score(&self, answers: &[(&Prompt, &str)]) -> Result<Vec<Vec<Verdict>>, RewardError> {
        let one = |(prompt, text): &(&Prompt, &str)| -> Result<Vec<Verdict>, RewardError> {
            self.all.iter().map(|reward| reward.score(prompt, text)).collect()
        };
        if !self.all.iter().any(Reward::runs_a_command) {
            return answers.iter().map(one).collect();
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(answers.len());
        let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(answers.len())));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some((place, answer)) = take(&next, answers) {
                        let result = one(answer);
                        results.lock().unwrap_or_else(PoisonError::into_inner).push((place, result));
                    }
                });
            }
        });
        let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.sort_by_key(|(place, _)| *place);
        results.into_iter().map(|(_, result)| result).collect()
    }
}

fn take<'a, T>(next: &AtomicUsize, items: &'a [T]) -> Option<(usize, &'a T)> {
    let place = next.fetch_add(1, Ordering::Relaxed);
    items.get(place).map(|item| (place, item))
}

/// What stands in a column of a row.
///
/// # Errors
/// A sentence about the row that goes on after its number.
pub(crate) fn column(columns: &Json, name: &str) -> Result<Value, String> {
    let row = serde_json::to_value(columns).map_err(|error| format!("cannot be read: {error}"))?;
    match row.get(name) {
        Some(value) if !value.is_null() => Ok(value.clone()),
        _ => {
            let names: Vec<&str> = row.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
            Err(format!("has no column `{name}` (it has {})", names.join(", ")))
        }
    }
}

/// A string as it is, a number or a truth value as JSON spells it.
pub(crate) fn plain_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// The text behind the last occurrence of `marker`.
pub(crate) fn after_last<'a>(text: &'a str, marker: &str) -> Option<&'a str> {
    text.rfind(marker).map(|at| &text[at + marker.len()..])
}

#[cfg(test)]
mod tests;
