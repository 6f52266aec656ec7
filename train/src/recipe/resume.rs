//! Which keys of a recipe may change between a run and its resume

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::{RecipeCheckError, Settings, TrainRecipe, canonical};

/// The keys that differ between the recipe of a run and the one it is resumed with, as `key: was -> is`, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResumeChange {
    /// Changes that would make the result neither the one run nor the other.
    pub refused: Vec<String>,
    /// Changes that leave the steps already done as they were; to be logged.
    pub allowed: Vec<String>,
}

/// Compares two recipes for a resume after `steps_done` steps.
///
/// A change is allowed when a run with the new recipe from step 0 would have taken the same steps so far:
/// - `description`, `log.*`, `checkpoint.*`, and of `eval` what is reported when (`every`, `sample_*`, `prompts`,
///   `temperature`); but not `eval.tokens`, since losses on another slice do not compare with the best so far;
/// - `train.micro_batch`, so that a run which is short of memory can go on: the same sums in another order, equal up
///   to rounding; `train.activation_checkpointing` for the same reason, with the same bits;
/// - `train.steps`, when it is no smaller than `steps_done` and the rates of the steps done stay the same: always for
///   `constant`, before the decay for `wsd`, within warm-up for `cosine` and `linear`.
///
/// Every other key (shape, tokenizer, data, seed, batch, precision, optimizer, schedule) is refused.
///
/// # Errors
/// When either recipe does not pass its check.
pub fn compare_for_resume(
    old: &TrainRecipe,
    new: &TrainRecipe,
    steps_done: u64,
) -> Result<ResumeChange, RecipeCheckError> {
    let (old, new) = (old.resolved()?, new.resolved()?);
    Ok(compare(&old, &new, &old.settings(), &new.settings(), steps_done))
}

/// As [`compare_for_resume`], for two resolved recipes of any kind with the sections the loop reads.
pub fn compare<R: Serialize>(
    old: &R,
    new: &R,
    old_settings: &Settings,
    new_settings: &Settings,
    steps_done: u64,
) -> ResumeChange {
    let (was, is) = (flat(old), flat(new));
    let keys: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    let mut change = ResumeChange::default();
    for key in keys {
        let (was, is) = (was.get(key), is.get(key));
        if was == is {
            continue;
        }
        let shown = |value: Option<&String>| value.map_or("(not given)".to_owned(), Clone::clone);
        let line = format!("{key}: {} -> {}", shown(was), shown(is));
        if is_harmless(key) || (key == "train.steps" && same_past(old_settings, new_settings, steps_done)) {
            change.allowed.push(line);
        } else {
            change.refused.push(line);
        }
    }
    change
}

fn is_harmless(key: &str) -> bool {
    const KEYS: [&str; 8] = [
        "description",
        "train.micro_batch",
        "train.activation_checkpointing",
        "eval.every",
        "eval.sample_every",
        "eval.sample_tokens",
        "eval.prompts",
        "eval.temperature",
    ];
    KEYS.contains(&key) || key.starts_with("log.") || key.starts_with("checkpoint.")
}

fn same_past(old: &Settings, new: &Settings, steps_done: u64) -> bool {
    let (was, is) = (old.train.steps, new.train.steps);
    let before_the_fall = old.schedule().steps_before_the_fall(was).min(new.schedule().steps_before_the_fall(is));
    steps_done <= is && steps_done <= before_the_fall
}

fn flat(recipe: &impl Serialize) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    collect(String::new(), &canonical::to_json(recipe), &mut keys);
    keys
}

fn collect(key: String, value: &Value, keys: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            for (part, inner) in map {
                let dot = if key.is_empty() { "" } else { "." };
                collect(format!("{key}{dot}{part}"), inner, keys);
            }
        }
        leaf => {
            keys.insert(key, leaf.to_string());
        }
    }
}
