//! Python's methods of strings, on text whose characters keep their source.

use std::ops::Range;

use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{Error, ErrorKind, Value};

use super::json::display;
use super::marks::{TEMPLATE, Text};
use super::operators::{ITEM, invalid, spend};

/// `text.method(arguments)`.
pub(super) fn call(text: &Text, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    if let Some(answer) = predicate(text.plain(), method) {
        let () = from_args(arguments)?;
        return Ok(Value::from(answer));
    }
    let (arguments, keywords): (&[Value], Kwargs) = from_args(arguments)?;
    let arguments = Arguments { positional: arguments, keywords };
    let result = match method {
        "upper" => arguments.none().map(|()| text.map(str::to_uppercase).value())?,
        "lower" | "casefold" => arguments.none().map(|()| text.map(str::to_lowercase).value())?,
        "capitalize" => arguments.none().map(|()| capitalize(text).value())?,
        "title" => arguments.none().map(|()| title(text).value())?,
        "strip" => strip(text, arguments.text(0, "chars")?.as_ref(), true, true).value(),
        "lstrip" => strip(text, arguments.text(0, "chars")?.as_ref(), true, false).value(),
        "rstrip" => strip(text, arguments.text(0, "chars")?.as_ref(), false, true).value(),
        "split" | "rsplit" => {
            let most = arguments.integer(1, "maxsplit")?.and_then(|most| usize::try_from(most).ok());
            let separator = arguments.text(0, "sep")?;
            let parts = match &separator {
                Some(separator) => text.plain().matches(separator.plain()).count(),
                None => text.plain().matches(is_space).count(),
            };
            spend(parts.saturating_mul(4 * ITEM))?;
            let ranges = match separator.as_ref().map(Text::plain) {
                Some("") => return Err(invalid("empty separator")),
                Some(separator) if method == "split" => split(text.plain(), separator, most),
                Some(separator) => rsplit(text.plain(), separator, most),
                None if method == "split" => split_spaces(text.plain(), most),
                None => rsplit_spaces(text.plain(), most),
            };
            list(text, ranges)
        }
        "splitlines" => {
            spend(text.plain().matches(char::is_whitespace).count().saturating_mul(4 * ITEM))?;
            let keep = arguments.get(0, "keepends")?.is_some_and(|keep| keep.is_true());
            list(text, lines(text.plain(), keep))
        }
        "partition" | "rpartition" => partition(text, arguments.needed(0)?.plain(), method == "rpartition")?,
        "replace" => {
            let most = arguments.integer(2, "count")?.and_then(|most| usize::try_from(most).ok());
            replace(text, arguments.needed(0)?.plain(), &arguments.needed(1)?, most)?.value()
        }
        "removeprefix" => {
            let prefix = arguments.needed(0)?;
            let cut = if text.plain().starts_with(prefix.plain()) { prefix.plain().len() } else { 0 };
            text.slice(cut..text.plain().len()).value()
        }
        "removesuffix" => {
            let suffix = arguments.needed(0)?;
            let cut = if text.plain().ends_with(suffix.plain()) { suffix.plain().len() } else { 0 };
            text.slice(0..text.plain().len() - cut).value()
        }
        "startswith" => Value::from(arguments.any(|prefix| text.plain().starts_with(prefix))?),
        "endswith" => Value::from(arguments.any(|suffix| text.plain().ends_with(suffix))?),
        "count" => Value::from(text.plain().matches(arguments.needed(0)?.plain()).count()),
        "find" | "rfind" | "index" | "rindex" => {
            let what = arguments.needed(0)?;
            let what = what.plain();
            let at = if method.starts_with('r') { text.plain().rfind(what) } else { text.plain().find(what) };
            match at {
                Some(at) => Value::from(text.plain()[..at].chars().count()),
                None if method.ends_with("index") => return Err(invalid("substring not found")),
                None => Value::from(-1),
            }
        }
        "join" => {
            let [items] = arguments.positional else {
                return Err(invalid("join takes one list"));
            };
            join(items, text)?.value()
        }
        "ljust" | "rjust" | "center" | "zfill" => pad(text, method, &arguments)?.value(),
        "format" => return format(text, &arguments),
        _ => return Err(Error::from(ErrorKind::UnknownMethod)),
    };
    arguments.keywords.assert_all_used()?;
    Ok(result)
}

/// Arguments of a method, by position or by name.
struct Arguments<'a> {
    positional: &'a [Value],
    keywords: Kwargs,
}

impl Arguments<'_> {
    fn none(&self) -> Result<(), Error> {
        if self.positional.is_empty() { Ok(()) } else { Err(Error::from(ErrorKind::TooManyArguments)) }
    }

    fn get(&self, at: usize, name: &str) -> Result<Option<Value>, Error> {
        let value = match self.positional.get(at) {
            Some(value) => Some(value.clone()),
            None => self.keywords.get::<Option<Value>>(name)?,
        };
        Ok(value.filter(|value| !value.is_none()))
    }

    fn text(&self, at: usize, name: &str) -> Result<Option<Text>, Error> {
        self.get(at, name)?.map(|value| text_of(&value)).transpose()
    }

    fn needed(&self, at: usize) -> Result<Text, Error> {
        self.positional.get(at).ok_or_else(|| Error::from(ErrorKind::MissingArgument)).and_then(text_of)
    }

    fn integer(&self, at: usize, name: &str) -> Result<Option<i64>, Error> {
        self.get(at, name)?.map(i64::try_from).transpose()
    }

    /// Whether `check` holds for the first argument, or for any of a tuple.
    fn any(&self, check: impl Fn(&str) -> bool) -> Result<bool, Error> {
        let first = self.positional.first().ok_or_else(|| Error::from(ErrorKind::MissingArgument))?;
        if !matches!(first.kind(), ValueKind::Seq | ValueKind::Iterable) {
            return Ok(check(text_of(first)?.plain()));
        }
        for item in first.try_iter()? {
            if check(text_of(&item)?.plain()) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn text_of(value: &Value) -> Result<Text, Error> {
    let text = value.as_str().ok_or_else(|| invalid(format!("expected a string, found {}", value.kind())))?;
    Ok(Text::read(text))
}

fn predicate(text: &str, method: &str) -> Option<bool> {
    let all = |check: fn(char) -> bool| !text.is_empty() && text.chars().all(check);
    let cased =
        |wanted: fn(char) -> bool, other: fn(char) -> bool| text.chars().any(wanted) && !text.chars().any(other);
    Some(match method {
        "isspace" => all(is_space),
        "isdigit" | "isnumeric" | "isdecimal" => all(char::is_numeric),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "isascii" => text.is_ascii(),
        "islower" => cased(char::is_lowercase, char::is_uppercase),
        "isupper" => cased(char::is_uppercase, char::is_lowercase),
        _ => return None,
    })
}

/// What `str.isspace` holds for: Unicode's white space and four separators of ASCII.
pub(super) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// `strip`, `lstrip`, `rstrip` of white space or of any of `characters`.
pub(super) fn strip(text: &Text, characters: Option<&Text>, left: bool, right: bool) -> Text {
    let plain = text.plain();
    let drop = |character: char| match characters {
        Some(characters) => characters.plain().contains(character),
        None => is_space(character),
    };
    let start = if left { plain.len() - plain.trim_start_matches(drop).len() } else { 0 };
    let end = if right { plain.trim_end_matches(drop).len() } else { plain.len() };
    text.slice(start..end.max(start))
}

/// The first character in upper case, the rest in lower case.
pub(super) fn capitalize(text: &Text) -> Text {
    let first = text.plain().chars().next().map_or(0, char::len_utf8);
    let mut out = text.slice(0..first).map(str::to_uppercase);
    out.push(&text.slice(first..text.plain().len()).map(str::to_lowercase));
    out
}

/// `str.title`: letters behind something that is no letter in upper case, the others in lower case.
fn title(text: &Text) -> Text {
    cased_words(text, |character| !character.is_alphabetic())
}

/// Jinja's filter `title`: words begin behind white space, hyphens and opening brackets.
pub(super) fn title_words(text: &Text) -> Text {
    cased_words(text, |character| is_space(character) || "-({[<".contains(character))
}

fn cased_words(text: &Text, separates: impl Fn(char) -> bool) -> Text {
    let mut out = Text::default();
    let mut opens = true;
    for (at, character) in text.plain().char_indices() {
        let cased =
            if opens { character.to_uppercase().to_string() } else { character.to_lowercase().to_string() };
        out.push_str(&cased, text.source_at(at));
        opens = separates(character);
    }
    out
}

fn list(text: &Text, ranges: Vec<Range<usize>>) -> Value {
    ranges.into_iter().map(|range| text.slice(range).value()).collect::<Vec<_>>().into()
}

fn split(text: &str, separator: &str, most: Option<usize>) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut start = 0;
    for (at, _) in text.match_indices(separator).take(most.unwrap_or(usize::MAX)) {
        ranges.push(start..at);
        start = at + separator.len();
    }
    ranges.push(start..text.len());
    ranges
}

fn rsplit(text: &str, separator: &str, most: Option<usize>) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut end = text.len();
    for (at, _) in text.rmatch_indices(separator).take(most.unwrap_or(usize::MAX)) {
        ranges.push(at + separator.len()..end);
        end = at;
    }
    ranges.push(0..end);
    ranges.reverse();
    ranges
}

fn split_spaces(text: &str, most: Option<usize>) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut rest = 0..text.len();
    loop {
        rest.start += text[rest.clone()].len() - text[rest.clone()].trim_start_matches(is_space).len();
        if rest.is_empty() {
            return ranges;
        }
        let word =
            if most.is_some_and(|most| ranges.len() >= most) { None } else { text[rest.clone()].find(is_space) };
        let Some(length) = word else {
            let end = if most.is_some() {
                rest.start + text[rest.clone()].trim_end_matches(is_space).len()
            } else {
                rest.end
            };
            // What is left when the splits are used up keeps its end, as in Python.
            let whole = most.is_some_and(|most| ranges.len() >= most);
            ranges.push(rest.start..if whole { rest.end } else { end });
            return ranges;
        };
        ranges.push(rest.start..rest.start + length);
        rest.start += length;
    }
}

fn rsplit_spaces(text: &str, most: Option<usize>) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut rest = text.trim_end_matches(is_space);
    while !rest.is_empty() {
        let space = if most.is_some_and(|most| ranges.len() >= most) {
            None
        } else {
            rest.char_indices().rev().find(|(_, character)| is_space(*character))
        };
        let start = space.map_or(0, |(at, character)| at + character.len_utf8());
        ranges.push(start..rest.len());
        let Some((at, _)) = space else {
            break;
        };
        rest = text[..at].trim_end_matches(is_space);
    }
    ranges.reverse();
    ranges
}

/// `splitlines`, at every line boundary Python knows.
fn lines(text: &str, keep: bool) -> Vec<Range<usize>> {
    let ends = |character: char| matches!(character, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut ranges = Vec::new();
    let mut start = 0;
    while let Some(at) = text[start..].find(ends).map(|at| start + at) {
        let width =
            if text[at..].starts_with("\r\n") { 2 } else { text[at..].chars().next().map_or(1, char::len_utf8) };
        ranges.push(start..if keep { at + width } else { at });
        start = at + width;
    }
    if start < text.len() {
        ranges.push(start..text.len());
    }
    ranges
}

fn partition(text: &Text, separator: &str, last: bool) -> Result<Value, Error> {
    if separator.is_empty() {
        return Err(invalid("empty separator"));
    }
    let plain = text.plain();
    let at = if last { plain.rfind(separator) } else { plain.find(separator) };
    let parts = match at {
        Some(at) => vec![0..at, at..at + separator.len(), at + separator.len()..plain.len()],
        None if last => vec![0..0, 0..0, 0..plain.len()],
        None => vec![0..plain.len(), 0..0, 0..0],
    };
    Ok(list(text, parts))
}

/// `replace(old, new)`, at most `most` times from the left.
pub(super) fn replace(text: &Text, old: &str, new: &Text, most: Option<usize>) -> Result<Text, Error> {
    let mut out = Text::default();
    let mut start = 0;
    spend(text.plain().len())?;
    for (at, _) in text.plain().match_indices(old).take(most.unwrap_or(usize::MAX)) {
        out.push(&text.slice(start..at));
        out.push(new);
        start = at + old.len();
        spend(new.plain().len() + ITEM)?;
    }
    out.push(&text.slice(start..text.plain().len()));
    Ok(out)
}

/// `separator.join(items)`, each item as `str` shows it.
pub(super) fn join(items: &Value, separator: &Text) -> Result<Text, Error> {
    let mut out = Text::default();
    for (at, item) in items.try_iter()?.enumerate() {
        if at > 0 {
            spend(separator.plain().len())?;
            out.push(separator);
        }
        let item = display(&item);
        spend(item.plain().len() + ITEM)?;
        out.push(&item);
    }
    Ok(out)
}

fn pad(text: &Text, method: &str, arguments: &Arguments) -> Result<Text, Error> {
    let width = arguments.integer(0, "width")?.ok_or_else(|| Error::from(ErrorKind::MissingArgument))?;
    let fill = arguments.text(1, "fillchar")?.filter(|fill| !fill.is_empty());
    let fill = if method == "zfill" { "0" } else { fill.as_ref().map_or(" ", Text::plain) };
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(text.plain().chars().count());
    spend(missing.saturating_mul(fill.len()))?;
    let left = match method {
        "ljust" => 0,
        "rjust" => missing,
        // As CPython rounds.
        "center" => missing / 2 + (missing & width as usize & 1),
        _ => missing,
    };
    let sign = usize::from(method == "zfill" && text.plain().starts_with(['+', '-']));
    let mut out = text.slice(0..sign);
    out.push_str(&fill.repeat(left), TEMPLATE);
    out.push(&text.slice(sign..text.plain().len()));
    out.push_str(&fill.repeat(missing - left), TEMPLATE);
    Ok(out)
}

/// `str.format` with plain fields: `{}`, `{0}`, `{name}`.
fn format(text: &Text, arguments: &Arguments) -> Result<Value, Error> {
    let plain = text.plain();
    let mut out = Text::default();
    let (mut start, mut next) = (0, 0);
    while let Some(at) = plain[start..].find(['{', '}']).map(|at| start + at) {
        out.push(&text.slice(start..at));
        let doubled = plain[at..].starts_with("{{") || plain[at..].starts_with("}}");
        if doubled {
            out.push(&text.slice(at..at + 1));
            start = at + 2;
            continue;
        }
        let field =
            plain[at + 1..].split_once('}').map(|(field, _)| field).filter(|_| plain[at..].starts_with('{'));
        let field = field.ok_or_else(|| invalid("a single brace in a format string"))?;
        if field.contains(['!', ':', '.', '[', '{']) {
            return Err(invalid(format!("the format field {field:?} is not supported")));
        }
        let value = match field.parse::<usize>() {
            Ok(position) => arguments.positional.get(position).cloned(),
            Err(_) if field.is_empty() => {
                next += 1;
                arguments.positional.get(next - 1).cloned()
            }
            Err(_) => arguments.keywords.get::<Option<Value>>(field)?,
        };
        let value = display(&value.ok_or_else(|| invalid(format!("nothing is given for the field {field:?}")))?);
        spend(value.plain().len())?;
        out.push(&value);
        start = at + field.len() + 2;
    }
    out.push(&text.slice(start..plain.len()));
    Ok(out.value())
}

#[cfg(test)]
mod tests;
