//! The environment templates are rendered in: that of transformers, on text with marks.

use std::fmt::Write as _;

use minijinja::filters;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::json::{Style, display, dumps};
use super::marks::Text;
use super::operators::{self, invalid, items, spend, spend_on, spend_on_all};
use super::strings;

/// Instructions that one rendering may execute.
pub(super) const FUEL: u64 = 500_000;

/// What an expression counts for that is written, beside the bytes of its text.
const WRITTEN: usize = 32;
/// What an item counts for that a filter makes a new one of, in bytes.
const FILTERED: usize = 128;
/// Filters whose result is no list in Jinja, and cannot be written as JSON.
const GENERATORS: [&str; 10] =
    ["map", "select", "reject", "selectattr", "rejectattr", "unique", "batch", "slice", "reverse", "items"];
/// Macros inside macros; what they nest the library drops by recursion.
const MAX_CALLS: usize = 100;

/// An environment without templates.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the default delimiters are valid"));
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(MAX_CALLS);
    environment.set_formatter(|out, _, value| {
        let text = value.as_str().map_or_else(|| display(value).write(), str::to_owned);
        spend(WRITTEN + text.len())?;
        out.write_str(&text).map_err(Error::from)
    });
    environment.set_unknown_method_callback(method_of);
    environment.add_function("raise_exception", |message: &Value| -> Result<Value, Error> {
        Err(invalid(Text::read(&message.to_string()).plain().to_owned()))
    });
    operators::add_to(&mut environment);
    add_list_filters(&mut environment);
    add_text_filters(&mut environment);
    environment.add_test("lower", |value: &Value| cased(value, "islower"));
    environment.add_test("upper", |value: &Value| cased(value, "isupper"));
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    for name in ["startingwith", "endingwith", "safe", "escaped"] {
        environment.remove_test(name);
    }
    environment.remove_global("debug");
    environment
}

fn cased(value: &Value, method: &str) -> Result<Value, Error> {
    strings::call(&Text::read(&value.to_string()), method, &[])
}

fn method_of(state: &mut State<'_, '_>, value: &Value, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        spend(text.len())?;
        return strings::call(&Text::read(text), method, arguments);
    }
    spend_on(value)?;
    unknown_method_callback(state, value, method, arguments)
}

/// Filters of the library that go through a list, with their work counted.
fn add_list_filters(environment: &mut Environment<'_>) {
    for (name, filter) in [
        ("dictsort", Value::from_function(filters::dictsort)),
        ("items", Value::from_function(filters::items)),
        ("sum", Value::from_function(filters::sum)),
        ("min", Value::from_function(filters::min)),
        ("max", Value::from_function(filters::max)),
        ("sort", Value::from_function(filters::sort)),
        ("batch", Value::from_function(filters::batch)),
        ("slice", Value::from_function(filters::slice)),
        ("select", Value::from_function(filters::select)),
        ("reject", Value::from_function(filters::reject)),
        ("selectattr", Value::from_function(filters::selectattr)),
        ("rejectattr", Value::from_function(filters::rejectattr)),
        ("map", Value::from_function(filters::map)),
        ("groupby", Value::from_function(filters::groupby)),
        ("unique", Value::from_function(filters::unique)),
        ("chain", Value::from_function(filters::chain)),
        ("zip", Value::from_function(filters::zip)),
        ("list", Value::from_function(filters::list)),
        ("first", Value::from_function(filters::first)),
        ("last", Value::from_function(filters::last)),
        ("reverse", Value::from_function(filters::reverse)),
    ] {
        environment.add_filter(name, move |state: &mut State, value: Value, rest: Rest<Value>, named: Kwargs| {
            let was_text = value.kind() == ValueKind::String;
            let value = if name == "items" { value } else { items(&value)? };
            let compares = ["dictsort", "min", "max", "sort", "groupby", "unique"].contains(&name);
            if compares {
                spend_on_all(&value, true)?;
            }
            spend(value.len().unwrap_or(1).saturating_mul(FILTERED))?;
            let arguments = arguments(value, &rest, named);
            let answer = filter.call(state, &arguments)?;
            if was_text && name == "reverse" {
                return strings::join(&answer, &Text::default()).map(|text| text.value());
            }
            if GENERATORS.contains(&name) && answer.kind() == ValueKind::Seq {
                let items: Vec<Value> = answer.try_iter()?.collect();
                return Ok(Value::make_iterable(move || items.clone().into_iter()));
            }
            Ok(answer)
        });
    }
    for name in ["bool", "pprint", "lines", "split", "attr"] {
        environment.remove_filter(name);
    }
}

/// Arguments to hand on to a filter of the library.
fn arguments(first: Value, rest: &[Value], named: Kwargs) -> Vec<Value> {
    let given = named.args().next().is_some();
    let named = given.then(|| Value::from(named));
    std::iter::once(first).chain(rest.iter().cloned()).chain(named).collect()
}

fn add_text_filters(environment: &mut Environment<'_>) {
    let text = |value: &Value| -> Result<Text, Error> {
        spend_on(value)?;
        Ok(display(value))
    };
    environment.add_filter("trim", move |value: &Value, characters: Option<&Value>| {
        Ok::<_, Error>(strings::strip(&text(value)?, characters.map(display).as_ref(), true, true).value())
    });
    environment
        .add_filter("upper", move |value: &Value| text(value).map(|text| text.map(str::to_uppercase).value()));
    environment
        .add_filter("lower", move |value: &Value| text(value).map(|text| text.map(str::to_lowercase).value()));
    environment
        .add_filter("capitalize", move |value: &Value| text(value).map(|text| strings::capitalize(&text).value()));
    environment
        .add_filter("title", move |value: &Value| text(value).map(|text| strings::title_words(&text).value()));
    environment.add_filter("string", move |value: &Value| match value.as_str() {
        Some(_) => Ok(value.clone()),
        None => text(value).map(|text| text.value()),
    });
    environment
        .add_filter("safe", move |value: &Value| text(value).map(|text| Value::from_safe_string(text.write())));
    environment.add_filter("replace", move |value: &Value, old: &Value, new: &Value, most: Option<usize>| {
        let (old, new) = (text(old)?, text(new)?);
        strings::replace(&text(value)?, old.plain(), &new, most).map(|text| text.value())
    });
    for name in ["length", "count"] {
        environment.add_filter(name, |value: &Value| match value.as_str() {
            Some(text) => spend(text.len()).map(|()| Text::read(text).plain().chars().count()),
            None if value.is_undefined() => Ok(0),
            None => value.len().ok_or_else(|| invalid(format!("a value of type {} has no length", value.kind()))),
        });
    }
    environment.add_filter("join", join);
    environment.add_filter("indent", indent);
    environment.add_filter("tojson", |value: &Value, rest: Rest<Value>, keywords: Kwargs| {
        let json = dumps(value, &Style::from_arguments(&rest, &keywords)?)?;
        Ok::<_, Error>(json.value())
    });
    for name in ["escape", "e"] {
        environment.add_filter(name, move |value: &Value| {
            text(value).map(|text| Value::from_safe_string(text.map(escaped).write()))
        });
    }
    for (name, filter) in
        [("int", Value::from_function(filters::int)), ("float", Value::from_function(filters::float))]
    {
        environment.add_filter(name, move |state: &mut State, value: &Value, rest: Rest<Value>, named: Kwargs| {
            filter.call(state, &arguments(operators::bare(value), &rest, named))
        });
    }
    environment.add_filter("wordcount", move |value: &Value| {
        text(value).map(|text| text.plain().split(strings::is_space).filter(|word| !word.is_empty()).count())
    });
    environment.remove_filter("format");
}

/// `join(value, d='', attribute=None)`.
fn join(value: &Value, separator: Option<&Value>, keywords: Kwargs) -> Result<Value, Error> {
    let separator = match keywords.get::<Option<Value>>("d")? {
        Some(given) => display(&given),
        None => separator.map(display).unwrap_or_default(),
    };
    let attribute = keywords.get::<Option<String>>("attribute")?;
    keywords.assert_all_used()?;
    let value = items(value)?;
    spend_on(&value)?;
    let value = match attribute {
        None => value,
        Some(attribute) => {
            value.try_iter()?.map(|item| item.get_attr(&attribute)).collect::<Result<Vec<_>, _>>()?.into()
        }
    };
    strings::join(&value, &separator).map(|text| text.value())
}

/// Jinja's `indent(width=4, first=False, blank=False)`.
fn indent(
    value: &Value,
    width: Option<Value>,
    first: Option<bool>,
    blank: Option<bool>,
    keywords: Kwargs,
) -> Result<Value, Error> {
    let width = width.or(keywords.get::<Option<Value>>("width")?);
    let first = first.or(keywords.get::<Option<bool>>("first")?).unwrap_or(false);
    let blank = blank.or(keywords.get::<Option<bool>>("blank")?).unwrap_or(false);
    keywords.assert_all_used()?;
    spend_on(value)?;
    let margin = match &width {
        None => Text::read("    "),
        Some(width) if width.as_str().is_some() => display(width),
        Some(width) => {
            let width = usize::try_from(i64::try_from(width.clone())?).unwrap_or(0);
            spend(width)?;
            Text::read(&" ".repeat(width))
        }
    };
    let text = display(value);
    let mut out = Text::default();
    let mut start = 0;
    for (number, line) in text.plain().split('\n').enumerate() {
        if number > 0 {
            out.push_str("\n", text.source_at(start - 1));
        }
        if (number > 0 || first) && (blank || !line.is_empty() || (number == 0 && first)) {
            spend(margin.plain().len())?;
            out.push(&margin);
        }
        out.push(&text.slice(start..start + line.len()));
        start += line.len() + 1;
    }
    Ok(out.value())
}

/// HTML with what markupsafe escapes.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// A sentence about what the library says, without what only concerns its own names.
pub(super) fn explain(error: &Error) -> String {
    let mut sentence = match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => format!("it executes more than {FUEL} instructions"),
        (_, Some(detail)) => detail.to_owned(),
        (kind, None) => kind.to_string(),
    };
    if let Some(line) = error.line() {
        // Writing to a string cannot fail.
        let _ = write!(sentence, " (line {line})");
    }
    Text::read(&sentence).plain().to_owned()
}
