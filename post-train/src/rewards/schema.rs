//! The completion is JSON that a schema allows.

use std::path::PathBuf;

use fornax_base::files::read_text_limited;
use jsonschema::Validator;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{RewardError, Verdict, default_weight};

/// The largest schema file.
const SCHEMA_BYTES: u64 = 1 << 20;
/// What opens and closes a fenced block.
const FENCE: &str = "```";

/// A reward of kind `json_schema`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemaRecipe {
    /// Name in the metrics; default `json_schema`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is multiplied with; default 1.
    #[serde(default = "default_weight")]
    pub weight: f64,
    /// File with the schema. References to other files or the network are not followed.
    pub schema: PathBuf,
    /// Whether the JSON may stand in a fenced block, of which the last counts; default false: the whole completion is
    /// the JSON.
    #[serde(default)]
    pub fenced: bool,
}

/// The rule.
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
    fenced: bool,
}

impl Schema {
    pub(super) fn new(recipe: &SchemaRecipe, name: &str) -> Result<Schema, RewardError> {
        let wrong =
            |what: String| RewardError::Schema { name: name.to_owned(), path: recipe.schema.clone(), what };
        let text = read_text_limited(&recipe.schema, SCHEMA_BYTES).map_err(|error| wrong(error.to_string()))?;
        let schema: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let validator = jsonschema::validator_for(&schema)
            .map_err(|error| wrong(format!("{error} (at `{}`)", error.instance_path())))?;
        Ok(Schema { validator, fenced: recipe.fenced })
    }

    pub(super) fn score(&self, completion: &str) -> Verdict {
        let text = match self.fenced {
            true => last_block(completion).unwrap_or(completion),
            false => completion,
        };
        let json = serde_json::from_str::<Value>(text);
        Verdict::of(json.is_ok_and(|json| self.validator.is_valid(&json)))
    }
}

/// What stands in the last block between two fences that begin lines, without the word behind the opening one.
fn last_block(text: &str) -> Option<&str> {
    let (mut open, mut found, mut at) = (None, None, 0);
    for line in text.split_inclusive('\n') {
        let start = at;
        at += line.len();
        if !line.trim_start().starts_with(FENCE) {
            continue;
        }
        match open.take() {
            Some(from) => found = Some(&text[from..start]),
            None => open = Some(at),
        }
    }
    found
}
