//! A template cut into text and tags, and the words inside a tag.

/// A part of a template.
#[derive(Debug, PartialEq)]
pub(super) enum Part<'a> {
    /// Text between tags.
    Text(&'a str),
    /// `{# a comment #}`.
    Comment(&'a str),
    /// `{% raw %}text{% endraw %}`.
    Raw(&'a str),
    /// `{{ inside }}` with its delimiters, which may hold `-` or `+`.
    Expression { open: &'a str, inside: &'a str, close: &'a str },
    /// `{% inside %}` with its delimiters.
    Statement { open: &'a str, inside: &'a str, close: &'a str },
}

/// A word of the expression language, as it is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Word<'a> {
    Name(&'a str),
    Number(&'a str),
    /// With its quotes and escapes.
    String(&'a str),
    Operator(&'a str),
}

/// Cuts `source` at its tags.
///
/// # Errors
/// A tag that does not end, with the line it begins on.
pub(super) fn parts(source: &str) -> Result<Vec<Part<'_>>, String> {
    let mut parts = Vec::new();
    let mut at = 0;
    let mut text = 0;
    while let Some(found) = source[at..].find('{').map(|found| at + found) {
        let line = || source[..found].lines().count().max(1);
        let rest = &source[found..];
        if rest.starts_with("{#") {
            let end = rest.find("#}").ok_or_else(|| format!("line {}: the comment does not end", line()))?;
            parts.extend((text < found).then_some(Part::Text(&source[text..found])));
            parts.push(Part::Comment(&rest[..end + 2]));
            (at, text) = (found + end + 2, found + end + 2);
            continue;
        }
        let statement = rest.starts_with("{%");
        if !statement && !rest.starts_with("{{") {
            at = found + 1;
            continue;
        }
        let sign = usize::from(rest[2..].starts_with(['-', '+']));
        let start = found + 2 + sign;
        let close = end_of(&source[start..], statement);
        let (length, close) = close.ok_or_else(|| format!("line {}: the tag does not end", line()))?;
        let end = start + length + close;
        let (open, inside, close) =
            (&source[found..start], &source[start..start + length], &source[start + length..end]);
        parts.extend((text < found).then_some(Part::Text(&source[text..found])));
        if statement && inside.trim() == "raw" {
            let raw = end_of_raw(&source[end..]);
            at = end + raw.ok_or_else(|| format!("line {}: the raw block does not end", line()))?;
            text = at;
            parts.push(Part::Raw(&source[found..at]));
            continue;
        }
        parts.push(match statement {
            true => Part::Statement { open, inside, close },
            false => Part::Expression { open, inside, close },
        });
        (at, text) = (end, end);
    }
    if text < source.len() {
        parts.push(Part::Text(&source[text..]));
    }
    Ok(parts)
}

/// Length of what is inside a tag, and of the delimiter behind it.
fn end_of(source: &str, statement: bool) -> Option<(usize, usize)> {
    let bytes = source.as_bytes();
    let close = if statement { "%}" } else { "}}" };
    let (mut at, mut depth) = (0, 0usize);
    while at < bytes.len() {
        let rest = &source[at..];
        if depth == 0 {
            if rest.starts_with(close) {
                return Some((at, close.len()));
            }
            if rest.starts_with(['-', '+']) && rest[1..].starts_with(close) {
                return Some((at, close.len() + 1));
            }
        }
        match bytes[at] {
            b'"' | b'\'' => at += string_length(rest)?,
            b'(' | b'[' | b'{' => (depth, at) = (depth + 1, at + 1),
            b')' | b']' | b'}' => (depth, at) = (depth.saturating_sub(1), at + 1),
            _ => at += rest.chars().next().map_or(1, char::len_utf8),
        }
    }
    None
}

/// Length of `... {% endraw %}`.
fn end_of_raw(source: &str) -> Option<usize> {
    let mut at = 0;
    while let Some(found) = source[at..].find("{%").map(|found| at + found) {
        let end = source[found..].find("%}").map(|end| found + end)?;
        if source[found + 2..end].trim_matches(['-', '+']).trim() == "endraw" {
            return Some(end + 2);
        }
        at = found + 2;
    }
    None
}

/// Length of the string literal at the start of `source`, quotes included.
fn string_length(source: &str) -> Option<usize> {
    let quote = source.chars().next()?;
    let mut escaped = false;
    source.char_indices().skip(1).find_map(|(at, character)| {
        let ends = character == quote && !escaped;
        escaped = character == '\\' && !escaped;
        ends.then_some(at + 1)
    })
}

/// The words inside a tag.
///
/// # Errors
/// A character that begins no word.
pub(super) fn words<'a>(inside: &'a str) -> Result<Vec<Word<'a>>, String> {
    let mut words = Vec::new();
    let mut rest = inside.trim_start();
    while let Some(first) = rest.chars().next() {
        let run = |belongs: fn(char) -> bool| rest.find(|character| !belongs(character)).unwrap_or(rest.len());
        let (length, word): (usize, fn(&'a str) -> Word<'a>) = if first == '"' || first == '\'' {
            (string_length(rest).ok_or("a string does not end")?, Word::String)
        } else if first.is_ascii_digit() {
            (number_length(rest), Word::Number)
        } else if first == '_' || first.is_alphabetic() {
            (run(|character| character == '_' || character.is_alphanumeric()), Word::Name)
        } else {
            let known = ["==", "!=", "<=", ">=", "//", "**"].iter().any(|two| rest.starts_with(two));
            if !known && !"()[]{},.:|=<>+-*/%~".contains(first) {
                return Err(format!("unexpected {first:?}"));
            }
            (1 + usize::from(known), Word::Operator)
        };
        words.push(word(&rest[..length]));
        rest = rest[length..].trim_start();
    }
    Ok(words)
}

fn number_length(source: &str) -> usize {
    let digits = |from: usize| {
        source[from..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_').map_or(source.len(), |at| from + at)
    };
    let whole = digits(0);
    if source[whole..].starts_with('.') && source[whole + 1..].starts_with(|c: char| c.is_ascii_digit()) {
        let end = digits(whole + 1);
        // 1.5e-3: the sign belongs to the number.
        let exponent = source[..end].ends_with(['e', 'E']) && source[end..].starts_with(['-', '+']);
        return if exponent { digits(end + 1) } else { end };
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_found_past_strings_and_braces() {
        let source = "a{{- {'b': '}}'}['b'] -}}{# {{ #}c{% if x == \"%}\" +%}{% raw %}{{ no }}{% endraw -%}{d";
        let expected = [
            Part::Text("a"),
            Part::Expression { open: "{{-", inside: " {'b': '}}'}['b'] ", close: "-}}" },
            Part::Comment("{# {{ #}"),
            Part::Text("c"),
            Part::Statement { open: "{%", inside: " if x == \"%}\" ", close: "+%}" },
            Part::Raw("{% raw %}{{ no }}{% endraw -%}"),
            Part::Text("{d"),
        ];
        assert_eq!(parts(source).unwrap(), expected);
        assert_eq!(parts("a\nb{% if x"), Err("line 2: the tag does not end".to_owned()));
        assert!(parts("{# x").is_err() && parts("{% raw %}").is_err());
    }

    #[test]
    fn words_are_cut_where_jinja_cuts_them() {
        let shown: Vec<String> = words(r#"a.b_1[-1:] ~ 'it\'s' // 1.5e-3 >= x|f"#)
            .unwrap()
            .iter()
            .map(|word| match word {
                Word::Name(word) | Word::Number(word) | Word::String(word) | Word::Operator(word) => {
                    (*word).to_owned()
                }
            })
            .collect();
        let expected =
            ["a", ".", "b_1", "[", "-", "1", ":", "]", "~", r"'it\'s'", "//", "1.5e-3", ">=", "x", "|", "f"];
        assert_eq!(shown, expected);
        assert!(words("a ? b").is_err() && words("'a").is_err());
    }
}
