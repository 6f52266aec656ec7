//! What a text shall look like, as callers state it.

use std::path::Path;

use fornax_base::files::read_limited;
use llguidance::api::GrammarWithLexer;
use serde_json::{Value, json};

use super::error::GrammarError;
use super::limits::GrammarLimits;
use super::{gbnf, lark, schema};

/// White space between the parts of JSON: enough for any indentation a reader wants, and an end to it, for models that
/// would go on with spaces forever.
const WHITE_SPACE: &str = r"[\x20\x0A\x0D\x09]{1,40}";

/// The form of a text.
#[derive(Debug, Clone, PartialEq)]
pub enum GrammarSpec {
    /// Any JSON object.
    JsonObject,
    /// JSON that is valid under this schema (2020-12, or the draft it names). Properties come in the order in which the
    /// schema has them.
    JsonSchema(Value),
    /// Text that a regular expression matches as a whole, in the syntax of Rust's `regex` crate without look-around and
    /// anchors inside.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// A grammar in llguidance's variant of Lark.
    Lark(String),
    /// A grammar in llama.cpp's GBNF.
    Gbnf(String),
    /// A Lark grammar that refers to schemas as `@name`, each the root of its own references.
    LarkWithSchemas(String, Vec<NamedSchema>),
}

/// A schema that a grammar refers to.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedSchema {
    /// Letters, digits, `-` and `_`.
    pub name: String,
    /// The schema.
    pub schema: Value,
}

impl GrammarSpec {
    /// The grammar in a file, by its name: `.json` is a JSON schema, `.gbnf`, `.lark` and `.regex` are what they say (the
    /// last line end of a `.regex` file does not count).
    ///
    /// # Errors
    /// When it cannot be read, is too long, is not JSON, or has another name.
    pub fn from_file(path: &Path, limits: &GrammarLimits) -> Result<GrammarSpec, GrammarError> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if !["json", "gbnf", "lark", "regex"].contains(&extension) {
            return Err(GrammarError::Kind { path: path.to_owned() });
        }
        let bytes = read_limited(path, limits.max_bytes as u64)?;
        let invalid = |reason: String| GrammarError::File { reason: format!("`{}` {reason}", path.display()) };
        let text = String::from_utf8(bytes).map_err(|error| invalid(format!("is not UTF-8: {error}")))?;
        Ok(match extension {
            "json" => GrammarSpec::JsonSchema(
                serde_json::from_str(&text).map_err(|error| invalid(format!("is not JSON: {error}")))?,
            ),
            "gbnf" => GrammarSpec::Gbnf(text),
            "lark" => GrammarSpec::Lark(text),
            _ => GrammarSpec::Regex(text.strip_suffix('\n').map_or(text.clone(), str::to_owned)),
        })
    }

    /// What messages call it.
    pub fn kind(&self) -> &'static str {
        match self {
            GrammarSpec::JsonObject => "JSON grammar",
            GrammarSpec::JsonSchema(_) => "JSON schema",
            GrammarSpec::Regex(_) => "regular expression",
            GrammarSpec::Choice(_) => "choice",
            GrammarSpec::Lark(_) => "Lark grammar",
            GrammarSpec::Gbnf(_) => "GBNF grammar",
            GrammarSpec::LarkWithSchemas(..) => "grammar with schemas",
        }
    }

    /// The whole of it as one text, the same for equal ones only.
    ///
    /// # Errors
    /// When it is too long.
    pub(super) fn check_size(&self, limits: &GrammarLimits) -> Result<String, GrammarError> {
        let key = match self {
            GrammarSpec::JsonObject => "object".to_owned(),
            // The order of properties matters, and is kept.
            GrammarSpec::JsonSchema(schema) => format!("schema {schema}"),
            GrammarSpec::Regex(text) => format!("regex {text}"),
            GrammarSpec::Choice(texts) => format!("choice {}", json!(texts)),
            GrammarSpec::Lark(text) => format!("lark {text}"),
            GrammarSpec::Gbnf(text) => format!("gbnf {text}"),
            GrammarSpec::LarkWithSchemas(text, schemas) => {
                let parts: Vec<Value> = schemas.iter().map(|part| json!([part.name, part.schema])).collect();
                format!("parts {}", json!([text, parts]))
            }
        };
        if key.len() > limits.max_bytes {
            let (found, limit) = (key.len(), limits.max_bytes);
            return Err(GrammarError::TooLarge { kind: self.kind(), what: "a length in bytes", found, limit });
        }
        Ok(key)
    }

    /// The grammars as the library takes them, the root being the first.
    ///
    /// # Errors
    /// What can be told to be wrong without compiling.
    pub(super) fn to_library(&self, limits: &GrammarLimits) -> Result<Vec<GrammarWithLexer>, GrammarError> {
        let lark_grammar = |text: String| vec![GrammarWithLexer::from_lark(text)];
        Ok(match self {
            GrammarSpec::JsonObject => {
                vec![GrammarWithLexer::from_json_schema(with_options(json!({"type": "object"})))]
            }
            GrammarSpec::JsonSchema(schema) => vec![json_schema(schema, limits)?],
            GrammarSpec::Regex(text) => lark_grammar(lark::of_regex(text)?),
            GrammarSpec::Choice(texts) => lark_grammar(lark::of_choice(texts)?),
            GrammarSpec::Lark(text) => {
                lark::check(text, limits)?;
                lark_grammar(text.clone())
            }
            GrammarSpec::Gbnf(text) => lark_grammar(gbnf::to_lark(text, limits)?),
            GrammarSpec::LarkWithSchemas(text, schemas) => {
                lark::check(text, limits)?;
                let mut all = lark_grammar(text.clone());
                for part in schemas {
                    all.push(GrammarWithLexer {
                        name: Some(part.name.clone()),
                        ..json_schema(&part.schema, limits)?
                    });
                }
                all
            }
        })
    }
}

fn json_schema(schema: &Value, limits: &GrammarLimits) -> Result<GrammarWithLexer, GrammarError> {
    let checked = schema::checked(schema, limits)?;
    Ok(GrammarWithLexer::from_json_schema(with_options(checked)))
}

/// Adds how the library shall write JSON, which it reads from the schema.
fn with_options(mut schema: Value) -> Value {
    if let Some(object) = schema.as_object_mut() {
        object.insert(
            "x-guidance".to_owned(),
            json!({"whitespace_pattern": WHITE_SPACE, "json_allow_general_unicode_escapes": true}),
        );
    }
    schema
}
