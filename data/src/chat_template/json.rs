//! Values as Python writes them: `json.dumps` for the filter `tojson`, `repr` for objects in text.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use super::marks::{TEMPLATE, Text};
use super::operators::{invalid, spend};

/// Objects inside objects beyond this depth are refused; the library's own limit for JSON.
pub(super) const MAX_DEPTH: usize = 128;

/// What a value counts for that is written, beside the bytes of its text.
const NODE: usize = 128;

/// The arguments of `tojson` in transformers' templates.
#[derive(Debug, Clone)]
pub(super) struct Style {
    pub(super) ensure_ascii: bool,
    pub(super) indent: Option<String>,
    pub(super) item: String,
    pub(super) key: String,
    pub(super) sort_keys: bool,
}

impl Default for Style {
    fn default() -> Style {
        Style { ensure_ascii: false, indent: None, item: ", ".into(), key: ": ".into(), sort_keys: false }
    }
}

impl Style {
    /// `tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
    pub(super) fn from_arguments(positional: &[Value], keywords: &Kwargs) -> Result<Style, Error> {
        let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
        if positional.len() > names.len() {
            return Err(Error::from(ErrorKind::TooManyArguments));
        }
        let mut given: Vec<Option<Value>> = positional.iter().cloned().map(Some).collect();
        for name in &names[given.len()..] {
            given.push(keywords.get::<Option<Value>>(name)?);
        }
        keywords.assert_all_used()?;
        let given = |at: usize| given[at].as_ref().filter(|value| !value.is_none());
        let indent = given(1).map(indentation).transpose()?;
        let item = if indent.is_some() { "," } else { ", " };
        let mut style = Style {
            ensure_ascii: given(0).is_some_and(Value::is_true),
            indent,
            item: item.to_owned(),
            sort_keys: given(3).is_some_and(Value::is_true),
            ..Style::default()
        };
        if let Some(pair) = given(2) {
            let [item, key] = &pair.try_iter()?.collect::<Vec<_>>()[..] else {
                return Err(invalid("separators must be two strings"));
            };
            (style.item, style.key) = (item.to_string(), key.to_string());
        }
        Ok(style)
    }
}

fn indentation(value: &Value) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None if value.kind() == ValueKind::Bool => Ok(" ".repeat(usize::from(value.is_true()))),
        None => {
            let width = i64::try_from(value.clone())?;
            Ok(" ".repeat(width.clamp(0, 64) as usize))
        }
    }
}

/// `json.dumps(value)`; strings keep their sources.
pub(super) fn dumps(value: &Value, style: &Style) -> Result<Text, Error> {
    let mut out = Text::default();
    dump(value, style, 0, &mut out)?;
    Ok(out)
}

fn dump(value: &Value, style: &Style, depth: usize, out: &mut Text) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(invalid("objects are nested too deeply"));
    }
    // A string is read, escaped and copied.
    spend(NODE + value.as_str().map_or(0, str::len) * 3)?;
    match value.kind() {
        ValueKind::None => out.push_str("null", TEMPLATE),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }, TEMPLATE),
        ValueKind::Number => out.push_str(&number(value, "Infinity", "NaN"), TEMPLATE),
        ValueKind::String => quote(value.as_str().unwrap_or_default(), style.ensure_ascii, out),
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            if style.sort_keys {
                keys.sort_by_key(|key| Text::read(&key.to_string()).plain().to_owned());
            }
            container(['{', '}'], &keys, style, depth, out, |key, out| {
                match key.kind() {
                    ValueKind::String => quote(key.as_str().unwrap_or_default(), style.ensure_ascii, out),
                    _ => {
                        out.push_str("\"", TEMPLATE);
                        dump(key, style, depth + 1, out)?;
                        out.push_str("\"", TEMPLATE);
                    }
                }
                out.push_str(&style.key, TEMPLATE);
                dump(&value.get_item(key)?, style, depth + 1, out)
            })?;
        }
        // What is iterable and no list is a generator or a view in Python, which has no JSON.
        ValueKind::Seq => {
            let items: Vec<Value> = value.try_iter()?.collect();
            container(['[', ']'], &items, style, depth, out, |item, out| dump(item, style, depth + 1, out))?;
        }
        kind => return Err(invalid(format!("a value of type {kind} cannot be written as JSON"))),
    }
    Ok(())
}

fn container(
    [open, close]: [char; 2],
    items: &[Value],
    style: &Style,
    depth: usize,
    out: &mut Text,
    mut each: impl FnMut(&Value, &mut Text) -> Result<(), Error>,
) -> Result<(), Error> {
    let line = |depth: usize, out: &mut Text| {
        if let Some(indent) = &style.indent {
            out.push_str(&format!("\n{}", indent.repeat(depth)), TEMPLATE);
        }
    };
    out.push_str(open.encode_utf8(&mut [0; 4]), TEMPLATE);
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push_str(&style.item, TEMPLATE);
        }
        line(depth + 1, out);
        each(item, out)?;
    }
    if !items.is_empty() {
        line(depth, out);
    }
    out.push_str(close.encode_utf8(&mut [0; 4]), TEMPLATE);
    Ok(())
}

fn quote(text: &str, ensure_ascii: bool, out: &mut Text) {
    out.push_str("\"", TEMPLATE);
    out.push(&Text::read(text).map(|piece| escaped(piece, ensure_ascii)));
    out.push_str("\"", TEMPLATE);
}

fn escaped(text: &str, ensure_ascii: bool) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            control if control < ' ' => push_unit(&mut out, control as u16),
            other if ensure_ascii && !other.is_ascii() => {
                other.encode_utf16(&mut [0; 2]).iter().for_each(|unit| push_unit(&mut out, *unit));
            }
            other => out.push(other),
        }
    }
    out
}

fn push_unit(out: &mut String, unit: u16) {
    // Writing to a string cannot fail.
    let _ = write!(out, "\\u{unit:04x}");
}

/// A number as Python writes it.
fn number(value: &Value, infinity: &str, nan: &str) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    f64::try_from(value.clone()).map_or_else(|_| value.to_string(), |number| float(number, infinity, nan))
}

/// `repr` of a float: the fewest digits that read back the same, with an exponent outside 1e-4 .. 1e16.
fn float(number: f64, infinity: &str, nan: &str) -> String {
    if number.is_nan() {
        return nan.to_owned();
    }
    if number.is_infinite() {
        return format!("{}{infinity}", if number < 0.0 { "-" } else { "" });
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if number != 0.0 && !(-4..16).contains(&exponent) {
        return format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
    let plain = format!("{number}");
    if plain.contains('.') { plain } else { format!("{plain}.0") }
}

/// `repr(value)`, as Python shows what lies in a list or dict.
pub(super) fn repr(value: &Value) -> Text {
    let mut out = Text::default();
    represent(value, 0, &mut out);
    out
}

/// `str(value)`: strings as they are, everything else as `repr`.
pub(super) fn display(value: &Value) -> Text {
    match value.as_str() {
        Some(text) => Text::read(text),
        None if value.is_undefined() => Text::default(),
        None => repr(value),
    }
}

fn represent(value: &Value, depth: usize, out: &mut Text) {
    // A budget that is used up is reported by whoever writes the text.
    if depth > MAX_DEPTH || spend(NODE + value.as_str().map_or(0, str::len) * 3).is_err() {
        return out.push_str("...", TEMPLATE);
    }
    match value.kind() {
        ValueKind::Number => out.push_str(&number(value, "inf", "nan"), TEMPLATE),
        ValueKind::String => represent_string(value.as_str().unwrap_or_default(), out),
        ValueKind::Map => {
            out.push_str("{", TEMPLATE);
            for (at, key) in value.try_iter().into_iter().flatten().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" }, TEMPLATE);
                represent(&key, depth + 1, out);
                out.push_str(": ", TEMPLATE);
                represent(&value.get_item(&key).unwrap_or_default(), depth + 1, out);
            }
            out.push_str("}", TEMPLATE);
        }
        ValueKind::Seq | ValueKind::Iterable if value.len().is_some() => {
            let [open, close] = if value.is_tuple() { ["(", ")"] } else { ["[", "]"] };
            out.push_str(open, TEMPLATE);
            for (at, item) in value.try_iter().into_iter().flatten().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" }, TEMPLATE);
                represent(&item, depth + 1, out);
            }
            out.push_str(if value.is_tuple() && value.len() == Some(1) { "," } else { "" }, TEMPLATE);
            out.push_str(close, TEMPLATE);
        }
        _ => out.push_str(&value.to_string(), TEMPLATE),
    }
}

fn represent_string(text: &str, out: &mut Text) {
    let text = Text::read(text);
    let quote = if text.plain().contains('\'') && !text.plain().contains('"') { '"' } else { '\'' };
    let quoted = quote.to_string();
    out.push_str(&quoted, TEMPLATE);
    out.push(&text.map(|piece| {
        let mut escaped = String::with_capacity(piece.len());
        for character in piece.chars() {
            match character {
                '\\' => escaped.push_str("\\\\"),
                '\n' => escaped.push_str("\\n"),
                '\r' => escaped.push_str("\\r"),
                '\t' => escaped.push_str("\\t"),
                same if same == quote => escaped.extend(['\\', same]),
                control if control < ' ' || ('\u{7f}'..'\u{a0}').contains(&control) || control == '\u{ad}' => {
                    let _ = write!(escaped, "\\x{:02x}", u32::from(control));
                }
                other => escaped.push(other),
            }
        }
        escaped
    }));
    out.push_str(&quoted, TEMPLATE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_does() {
        for (number, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (123456.789, "123456.789"),
            (1e100, "1e+100"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(float(number, "Infinity", "NaN"), expected);
        }
    }

    #[test]
    fn strings_are_quoted_as_python_does() {
        for (text, expected) in [
            ("a", "'a'"),
            ("it's", "\"it's\""),
            ("'\"", "'\\'\"'"),
            ("é\n\u{1b}", "'é\\n\\x1b'"),
            ("\\", "'\\\\'"),
        ] {
            assert_eq!(repr(&Value::from(text)).plain(), expected);
        }
        let nested: Value = serde_json::from_str(r#"{"a": [1, 2.5, null, true, "x"], "b": {}}"#).unwrap();
        assert_eq!(repr(&nested).plain(), "{'a': [1, 2.5, None, True, 'x'], 'b': {}}");
        let text = dumps(&nested, &Style { ensure_ascii: true, ..Style::default() }).unwrap();
        assert_eq!(text.plain(), r#"{"a": [1, 2.5, null, true, "x"], "b": {}}"#);
        assert_eq!(escaped("é🙂\u{7f}\u{1}\u{c}", true), "\\u00e9\\ud83d\\ude42\u{7f}\\u0001\\f");
    }
}
