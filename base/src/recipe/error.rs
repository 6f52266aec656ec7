//! What can be wrong with a recipe, made from what serde says.

use serde_path_to_error::{Path, Segment};
use toml::Value;

/// A recipe that cannot be used, with the key concerned as a user would write it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecipeError {
    /// The text is not TOML.
    #[error("recipe `{origin}` is not TOML at line {line}, column {column}: {what}")]
    Syntax {
        /// The recipe.
        origin: String,
        /// Line, counted from 1.
        line: usize,
        /// Column in characters, counted from 1.
        column: usize,
        /// What the parser found or expected there.
        what: String,
    },
    /// A key that the recipe's struct does not have.
    #[error("recipe `{origin}` has an unknown key `{key}`")]
    UnknownKey {
        /// The recipe.
        origin: String,
        /// The dotted key.
        key: String,
        /// The keys known in its place.
        known: Vec<String>,
    },
    /// A name that is not among the choices of a key.
    #[error("key `{key}` of recipe `{origin}` is `{found}`, but one of {} is expected", listed(known))]
    UnknownChoice {
        /// The recipe.
        origin: String,
        /// The dotted key.
        key: String,
        /// The name found.
        found: String,
        /// The choices.
        known: Vec<String>,
    },
    /// A value of a wrong type or out of range.
    #[error("key `{key}` of recipe `{origin}` is {found}, but {expected} is expected")]
    WrongType {
        /// The recipe.
        origin: String,
        /// The dotted key.
        key: String,
        /// The value found, in words.
        found: String,
        /// The value expected, in words.
        expected: String,
    },
    /// A key without a default is absent.
    #[error("recipe `{origin}` lacks the key `{key}`")]
    MissingKey {
        /// The recipe.
        origin: String,
        /// The dotted key.
        key: String,
    },
    /// A value that its type's own check refuses.
    #[error("key `{key}` of recipe `{origin}` is refused: {what}")]
    Refused {
        /// The recipe.
        origin: String,
        /// The dotted key, or `.` for the recipe as a whole.
        key: String,
        /// What the check says.
        what: String,
    },
    /// An override that is not of the form `a.b=c` or does not fit the recipe's tables.
    #[error("the override `{set}` cannot be applied: {what}")]
    BadOverride {
        /// The override as given.
        set: String,
        /// Why.
        what: String,
    },
    /// A recipe that TOML cannot express.
    #[error("the recipe cannot be written as TOML: {what}")]
    NotToml {
        /// What the writer says.
        what: String,
    },
}

impl RecipeError {
    /// One action that is likely to help, without its `hint:`.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownKey { key, known, .. } => {
                let typed = key.rsplit('.').next().unwrap_or(key);
                Some(did_you_mean(typed, known).unwrap_or_else(|| match known.as_slice() {
                    [] => format!("remove `{key}`: no keys are known there"),
                    known => format!("the keys known there are {}", listed(known)),
                }))
            }
            Self::UnknownChoice { found, known, .. } => did_you_mean(found, known),
            Self::MissingKey { key, .. } => Some(format!("add `{key}`, or give it with `--set {key}=...`")),
            Self::BadOverride { .. } => Some("write an override as `table.key=value`".to_owned()),
            Self::Syntax { .. } | Self::WrongType { .. } | Self::Refused { .. } | Self::NotToml { .. } => None,
        }
    }
}

/// Sorts serde's message into a kind. Serde gives nothing but text here; its forms are fixed in `serde::de::Error`,
/// and one that is not recognized is kept whole in [`RecipeError::Refused`].
pub(super) fn from_serde(origin: &str, path: &Path, message: &str, recipe: &Value) -> RecipeError {
    let origin = origin.to_owned();
    let key = dotted(path, None);
    if let Some((field, known)) = name_and_known(message, "unknown field ") {
        let key = if path_ends_with(path, &field) { key } else { dotted(path, Some(&field)) };
        return RecipeError::UnknownKey { origin, key, known };
    }
    if let Some((found, known)) = name_and_known(message, "unknown variant ") {
        return RecipeError::UnknownChoice { origin, key, found, known };
    }
    if let Some(rest) = message.strip_prefix("missing field ") {
        return RecipeError::MissingKey { origin, key: dotted(path, Some(rest.trim().trim_matches('`'))) };
    }
    for form in ["invalid type: ", "invalid value: ", "invalid length "] {
        if let Some((found, expected)) =
            message.strip_prefix(form).and_then(|rest| rest.rsplit_once(", expected "))
        {
            // Inside a tagged or flattened struct the path ends early, and the value there is not the one meant.
            let value = value_at(recipe, path).filter(|value| found.starts_with(serde_word(value)));
            let found = value.map_or_else(|| found.to_owned(), value_words);
            let expected = expected_words(expected.trim());
            return RecipeError::WrongType { origin, key, found, expected };
        }
    }
    RecipeError::Refused { origin, key, what: message.trim().to_owned() }
}

/// A TOML type in words.
pub(super) fn type_words(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "an array",
        Value::Table(_) => "a table",
    }
}

/// How serde's messages begin to name a value of this type.
fn serde_word(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "string",
        Value::Integer(_) => "integer",
        Value::Float(_) => "floating point",
        Value::Boolean(_) => "boolean",
        Value::Array(_) => "sequence",
        Value::Datetime(_) | Value::Table(_) => "map",
    }
}

fn value_words(value: &Value) -> String {
    match value {
        Value::String(text) if text.chars().count() > 60 => {
            format!("a string of {} characters", text.chars().count())
        }
        Value::Array(items) => format!("an array of {} elements", items.len()),
        Value::Table(_) => "a table".to_owned(),
        Value::String(text) => format!("the string {text:?}"),
        Value::Integer(_) => format!("the whole number {value}"),
        Value::Float(_) => format!("the number {value}"),
        Value::Boolean(_) | Value::Datetime(_) => value.to_string(),
    }
}

fn expected_words(expected: &str) -> String {
    let below = |end: u64| format!("a whole number from 0 to {end}");
    let signed = |end: i64| format!("a whole number from -{} to {end}", end + 1);
    match expected {
        "u8" => below(u64::from(u8::MAX)),
        "u16" => below(u64::from(u16::MAX)),
        "u32" => below(u64::from(u32::MAX)),
        "u64" | "u128" | "usize" => "a whole number of at least 0".to_owned(),
        "i8" => signed(i64::from(i8::MAX)),
        "i16" => signed(i64::from(i16::MAX)),
        "i32" => signed(i64::from(i32::MAX)),
        "i64" | "i128" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "an array".to_owned(),
        "a map" => "a table".to_owned(),
        struct_name if struct_name.starts_with("struct ") => "a table".to_owned(),
        other => other.to_owned(),
    }
}

/// Splits ``unknown field `x`, expected one of `a`, `b` `` into the name and the list.
fn name_and_known(message: &str, form: &str) -> Option<(String, Vec<String>)> {
    let (name, rest) = message.strip_prefix(form)?.strip_prefix('`')?.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Some((name.to_owned(), known))
}

/// "did you mean" for a word that is not among the `known`; `None` when none is near.
pub fn did_you_mean(typed: &str, known: &[String]) -> Option<String> {
    let distance = |name: &&String| strsim::osa_distance(&typed.to_lowercase(), &name.to_lowercase());
    let name = known.iter().min_by_key(distance)?;
    let bound = 2.max(typed.chars().count() / 3);
    if distance(&name) <= bound { Some(format!("did you mean `{name}`?")) } else { None }
}

fn listed(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn dotted(path: &Path, last: Option<&str>) -> String {
    let parts = path.iter().filter_map(part_of).chain(last.map(str::to_owned)).collect::<Vec<_>>();
    if parts.is_empty() { ".".to_owned() } else { parts.join(".") }
}

/// Enum variants are no keys of the text, so they are left out.
fn part_of(segment: &Segment) -> Option<String> {
    match segment {
        Segment::Map { key } => Some(key.clone()),
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Enum { .. } | Segment::Unknown => None,
    }
}

fn path_ends_with(path: &Path, field: &str) -> bool {
    matches!(path.iter().next_back(), Some(Segment::Map { key }) if key == field)
}

fn value_at<'a>(recipe: &'a Value, path: &Path) -> Option<&'a Value> {
    path.iter().try_fold(recipe, |value, segment| match segment {
        Segment::Map { key } => value.get(key),
        Segment::Seq { index } => value.get(index),
        Segment::Enum { .. } => Some(value),
        Segment::Unknown => None,
    })
}
