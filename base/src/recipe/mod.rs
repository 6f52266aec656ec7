//! Recipes: TOML text, changed by dotted overrides, read into the caller's own struct.
//!
//! The caller's structs carry `#[serde(deny_unknown_fields)]` and no default for a field that must be given. What
//! serde finds wrong comes back as a sentence with the full dotted key, and with "did you mean" where that helps.

mod error;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

pub use error::{RecipeError, did_you_mean};

/// Reads a recipe: parses `text`, applies each of `sets` (`a.b=c`) in order, and deserializes.
///
/// `origin` names the recipe in errors, usually its path as the user gave it. The value of an override is read as
/// TOML, and taken as a string when it is none: `optimizer.lr=3e-4`, `model.tied=true`, `data.path=some/file.txt`.
/// A number picks an element of an array: `data.sources.0.weight=2`.
///
/// ```
/// #[derive(Debug, serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Recipe {
///     steps: u64,
/// }
///
/// let recipe: Recipe = fornax_base::recipe::load("steps = 100", "tiny.toml", &["steps=20".to_owned()]).unwrap();
/// assert_eq!(recipe.steps, 20);
/// let error = fornax_base::recipe::load::<Recipe>("stepz = 100", "tiny.toml", &[]).unwrap_err();
/// assert_eq!(error.to_string(), "recipe `tiny.toml` has an unknown key `stepz`");
/// assert_eq!(error.hint().unwrap(), "did you mean `steps`?");
/// ```
///
/// # Errors
/// One [`RecipeError`] for the text, for an override, or for the key that does not fit the struct.
pub fn load<T: DeserializeOwned>(text: &str, origin: &str, sets: &[String]) -> Result<T, RecipeError> {
    let mut table = parse(text, origin)?;
    for set in sets {
        apply(&mut table, set)?;
    }
    let value = Value::Table(table);
    serde_path_to_error::deserialize(value.clone()).map_err(|error| {
        let path = error.path().clone();
        error::from_serde(origin, &path, error.inner().message(), &value)
    })
}

/// The names at the top of a recipe, whatever they hold: tells kinds of recipes apart.
#[derive(Debug, serde::Deserialize)]
pub struct Keys(std::collections::BTreeMap<String, Value>);

impl Keys {
    /// Whether the recipe has this key.
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }
}

/// The TOML text of a resolved recipe, for the run folder; [`load`] reads it back.
///
/// # Errors
/// [`RecipeError::NotToml`] for what cannot be written as TOML or not be read back, such as an integer above 2^63 - 1.
pub fn to_toml<T: Serialize>(recipe: &T) -> Result<String, RecipeError> {
    let text = toml::to_string(recipe).map_err(|error| RecipeError::NotToml { what: error.to_string() })?;
    // The writer takes integers that the reader refuses; a run that cannot be resumed must not start.
    match text.parse::<Table>() {
        Ok(_) => Ok(text),
        Err(error) => Err(RecipeError::NotToml { what: error.message().trim().replace('\n', ", ") }),
    }
}

fn parse(text: &str, origin: &str) -> Result<Table, RecipeError> {
    text.parse().map_err(|error: toml::de::Error| {
        let at = error.span().map_or(0, |span| text.floor_char_boundary(span.start));
        let before = &text[..at];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        RecipeError::Syntax {
            origin: origin.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            what: error.message().trim().replace('\n', ", "),
        }
    })
}

fn apply(table: &mut Table, set: &str) -> Result<(), RecipeError> {
    let bad = |what: String| RecipeError::BadOverride { set: set.to_owned(), what };
    let (key, value) = set.split_once('=').ok_or_else(|| bad("it has no `=`".to_owned()))?;
    let (key, value) = (key.trim(), value.trim());
    let parts: Vec<&str> = key.split('.').map(str::trim).collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(bad(format!("its key `{key}` has an empty part")));
    }
    let value = value.parse().unwrap_or_else(|_| Value::String(value.to_owned()));
    let (last, path) = parts.split_last().ok_or_else(|| bad("it has no key".to_owned()))?;
    let Some((head, rest)) = path.split_first() else {
        table.insert((*last).to_owned(), value);
        return Ok(());
    };
    let mut place = table.entry(*head).or_insert_with(|| Value::Table(Table::new()));
    for (depth, part) in rest.iter().chain([last]).enumerate() {
        place =
            step_into(place, part).map_err(|found| bad(format!("`{}` is {found}", parts[..=depth].join("."))))?;
    }
    *place = value;
    Ok(())
}

/// The place of `part` in a table (made when absent) or array; otherwise what stands there instead.
fn step_into<'a>(place: &'a mut Value, part: &str) -> Result<&'a mut Value, String> {
    match place {
        Value::Table(table) => Ok(table.entry(part).or_insert_with(|| Value::Table(Table::new()))),
        Value::Array(items) => {
            let len = items.len();
            let item = part.parse().ok().and_then(|index: usize| items.get_mut(index));
            item.ok_or_else(|| format!("an array of {len} elements without an element `{part}`"))
        }
        other => Err(format!("{} and has no key `{part}`", error::type_words(other))),
    }
}

#[cfg(test)]
mod tests;
