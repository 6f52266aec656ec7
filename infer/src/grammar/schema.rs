//! What of JSON schema is enforced, and the refusal, by name and place, of what is not.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::error::GrammarError;
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
/// Formats that are enforced.
const FORMATS: [&str; 10] =
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"];

/// The schema, ready for the library.
///
/// # Errors
/// [`GrammarError::Unsupported`], [`GrammarError::TooLarge`], or [`GrammarError::Invalid`].
pub(super) fn checked(schema: &Value, limits: &GrammarLimits) -> Result<Value, GrammarError> {
    let mut walk = Walk { root: schema, limits, schemas: 0, seen: HashSet::new() };
    walk.depth(schema, 0)?;
    walk.schema(schema, "#")?;
    Ok(match schema {
        Value::Bool(true) => Value::Object(Map::new()),
        _ => schema.clone(),
    })
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
                let reason = format!("what stands at {place} is neither an object nor true or false");
                return Err(GrammarError::Invalid { kind: "JSON schema", reason });
            }
        };
        for (key, value) in map {
            self.keyword(key, value, place)?;
        }
        Ok(())
    }

    fn keyword(&mut self, key: &str, value: &'a Value, place: &str) -> Result<(), GrammarError> {
        let inside = |key: &str| format!("{place}/{}", key.replace('~', "~0").replace('/', "~1"));
        let unsupported = |keyword: String| Err(GrammarError::Unsupported { keyword, place: place.to_owned() });
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
                    self.schema(schema, &inside(&format!("{key}/{name}")))?;
                }
                Ok(())
            }
            "items" | "additionalItems" | "additionalProperties" | "anyOf" | "oneOf" | "allOf" | "prefixItems" => {
                match value {
                    Value::Array(schemas) => {
                        for (at, schema) in schemas.iter().enumerate() {
                            self.schema(schema, &inside(&format!("{key}/{at}")))?;
                        }
                        Ok(())
                    }
                    schema => self.schema(schema, &inside(key)),
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
