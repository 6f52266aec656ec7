//! What of JSON schema is enforced, and the refusal, by name and place, of what is not.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::error::{GrammarError, plain};
use super::limits::GrammarLimits;

/// Keywords of the drafts that would have to be enforced and are not.
const UNSUPPORTED: [&str; 22] = [
    "not",
    "if",
    "then",
    "else",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "contains",
    "minContains",
    "maxContains",
    "uniqueItems",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contentSchema",
    "$dynamicRef",
    "$dynamicAnchor",
    "$recursiveRef",
    "$recursiveAnchor",
    "$vocabulary",
    "disallow",
    "extends",
];
/// A day: the 29th of February where the year has one.
macro_rules! date {
    () => {
        concat!(
            r"([0-9]{4}-(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|[0-9]{4}-(0[469]|11)-(0[1-9]|[12][0-9]|30)|",
            r"[0-9]{4}-02-(0[1-9]|1[0-9]|2[0-8])|([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)",
            r"-02-29)"
        )
    };
}

/// A time with its offset.
macro_rules! time {
    () => {
        concat!(
            r"(([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?([zZ]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])|",
            r"23:59:60(\.[0-9]+)?([zZ]|[+-]00:00))"
        )
    };
}

/// What may stand between the dots of a local part.
macro_rules! atom {
    () => {
        "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+"
    };
}

/// A part of a host name.
macro_rules! label {
    () => {
        concat!(
            "([a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-][a-zA-Z0-9]|",
            "[a-zA-Z0-9][a-zA-Z0-9-]([a-zA-Z0-9][a-zA-Z0-9-]|-[a-zA-Z0-9])([a-zA-Z0-9-]{0,58}[a-zA-Z0-9])|",
            "[a-zA-Z0-9][a-zA-Z0-9-][a-zA-Z0-9-][a-zA-Z0-9])"
        )
    };
}

/// Formats that are enforced.
const FORMATS: [&str; 10] =
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"];

/// Formats for which the library's expressions are too wide, with those that take their place. They are narrower than the
/// formats where no expression of this kind can be exact: leap seconds are those of UTC alone, and host names have no
/// internationalised labels (`xn--`).
const NARROWED: [(&str, &str); 3] = [
    ("date", concat!("^", date!(), "$")),
    ("time", concat!("^", time!(), "$")),
    ("date-time", concat!("^", date!(), "[tT]", time!(), "$")),
];
/// Host names are cut into labels of 1 to 63 letters, digits and inner hyphens, of which no two stand third and fourth.
const HOST_NAME: &str = concat!("^", label!(), r"(\.", label!(), ")*$");
const HOST_NAME_LENGTH: u64 = 253;
/// Addresses without quotes, at a host or at `[192.0.2.1]`; RFC 5321 limits both sides.
const EMAIL: &str = concat!(
    "^",
    atom!(),
    r"(\.",
    atom!(),
    ")*@(",
    label!(),
    r"(\.",
    label!(),
    r")*|\[((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\])$"
);
const LOCAL_PART: &str = "^[^@]{1,64}@";
/// Keywords that take a whole number, which JSON may write as 2.0.
const WHOLE: [&str; 6] = ["minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"];

/// The schema, ready for the library.
///
/// # Errors
/// [`GrammarError::Unsupported`], [`GrammarError::TooLarge`], or [`GrammarError::Invalid`].
pub(super) fn checked(schema: &Value, limits: &GrammarLimits) -> Result<Value, GrammarError> {
    let mut walk = Walk { root: schema, limits, schemas: 0, seen: HashSet::new() };
    walk.depth(schema, 0)?;
    walk.schema(schema, "#")?;
    let mut schema = schema.clone();
    rewrite(&mut schema);
    Ok(match schema {
        Value::Bool(true) => Value::Object(Map::new()),
        _ => schema,
    })
}

/// What takes the place of a format.
fn narrowed(format: &str) -> Option<Value> {
    match format {
        "hostname" => Some(json!({"pattern": HOST_NAME, "maxLength": HOST_NAME_LENGTH})),
        "email" => Some(json!({"pattern": EMAIL, "maxLength": 254, "allOf": [{"pattern": LOCAL_PART}]})),
        _ => NARROWED.iter().find(|(name, _)| *name == format).map(|(_, pattern)| json!({"pattern": pattern})),
    }
}

/// Writes a schema, and those inside it, as the library understands them.
fn rewrite(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else {
        return;
    };
    // Only false gets here, which says nothing.
    map.remove("uniqueItems");
    for key in WHOLE {
        if let Some(value) = map.get_mut(key)
            && let Some(number) =
                value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..1e15).contains(number))
        {
            *value = json!(number as u64);
        }
    }
    let format = map.get("format").and_then(Value::as_str);
    if let Some(narrowed) = format.and_then(narrowed) {
        map.remove("format");
        let all = map.entry("allOf").or_insert_with(|| json!([]));
        if let Some(all) = all.as_array_mut() {
            all.push(narrowed);
        }
    }
    for (key, value) in map {
        match (key.as_str(), value) {
            ("properties" | "patternProperties" | "$defs" | "definitions", Value::Object(schemas)) => {
                schemas.values_mut().for_each(rewrite);
            }
            ("anyOf" | "oneOf" | "allOf" | "prefixItems" | "items", Value::Array(schemas)) => {
                schemas.iter_mut().for_each(rewrite);
            }
            ("items" | "additionalItems" | "additionalProperties", schema) => rewrite(schema),
            _ => {}
        }
    }
}

struct Walk<'a> {
    root: &'a Value,
    limits: &'a GrammarLimits,
    schemas: usize,
    /// References that were followed.
    seen: HashSet<String>,
}

impl<'a> Walk<'a> {
    fn too_large(what: &'static str, found: usize, limit: usize) -> GrammarError {
        GrammarError::TooLarge { kind: "JSON schema", what, found, limit }
    }

    /// Values may nest as deep as the limit says, wherever they stand. The recursion ends there.
    fn depth(&self, value: &Value, depth: usize) -> Result<(), GrammarError> {
        if depth > self.limits.max_depth {
            return Err(Walk::too_large("a depth", depth, self.limits.max_depth));
        }
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| self.depth(item, depth + 1)),
            Value::Object(map) => map.values().try_for_each(|item| self.depth(item, depth + 1)),
            _ => Ok(()),
        }
    }

    fn schema(&mut self, schema: &'a Value, place: &str) -> Result<(), GrammarError> {
        self.schemas += 1;
        if self.schemas > self.limits.max_rules {
            return Err(Walk::too_large("a number of subschemas", self.schemas, self.limits.max_rules));
        }
        let map = match schema {
            Value::Bool(_) => return Ok(()),
            Value::Object(map) => map,
            _ => {
                let reason = format!("what stands at {} is neither an object nor true or false", plain(place));
                return Err(GrammarError::Invalid { kind: "JSON schema", reason });
            }
        };
        for (key, value) in map {
            self.keyword(key, value, place)?;
        }
        Ok(())
    }

    fn keyword(&mut self, key: &str, value: &'a Value, place: &str) -> Result<(), GrammarError> {
        let inside = |name: &str| format!("{place}/{key}/{}", name.replace('~', "~0").replace('/', "~1"));
        let unsupported =
            |keyword: String| Err(GrammarError::Unsupported { keyword: plain(&keyword), place: plain(place) });
        match key {
            // Saying that items need not differ says nothing.
            "uniqueItems" if value == &Value::Bool(false) => Ok(()),
            "x-guidance" => unsupported(key.to_owned()),
            _ if UNSUPPORTED.contains(&key) => unsupported(key.to_owned()),
            "format" => match value.as_str() {
                Some(format) if !FORMATS.contains(&format) => unsupported(format!("format: {format}")),
                _ => Ok(()),
            },
            "properties" | "patternProperties" => {
                for (name, schema) in value.as_object().into_iter().flatten() {
                    self.schema(schema, &inside(name))?;
                }
                Ok(())
            }
            "items" | "additionalItems" | "additionalProperties" | "anyOf" | "oneOf" | "allOf" | "prefixItems" => {
                match value {
                    Value::Array(schemas) => {
                        for (at, schema) in schemas.iter().enumerate() {
                            self.schema(schema, &inside(&at.to_string()))?;
                        }
                        Ok(())
                    }
                    schema => self.schema(schema, &format!("{place}/{key}")),
                }
            }
            "$ref" => self.reference(value),
            _ => Ok(()),
        }
    }

    /// Follows a reference within the schema; others are left to the library, which knows ids and fetches nothing.
    fn reference(&mut self, value: &Value) -> Result<(), GrammarError> {
        let Some(pointer) = value.as_str().and_then(|reference| reference.strip_prefix('#')) else {
            return Ok(());
        };
        let Some(target) = self.root.pointer(pointer).filter(|_| self.seen.insert(pointer.to_owned())) else {
            return Ok(());
        };
        self.schema(target, &format!("#{pointer}"))
    }
}
