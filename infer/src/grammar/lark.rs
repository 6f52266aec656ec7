//! Writing and checking Lark grammars.

use std::fmt::Write as _;

use llguidance::regex_to_lark;

use super::error::GrammarError;
use super::limits::GrammarLimits;

/// Checks what the library would follow on its stack: nesting, and chains of rules.
pub(super) fn check(text: &str, limits: &GrammarLimits) -> Result<(), GrammarError> {
    let kind = "Lark grammar";
    let lines = text.lines().count();
    if lines > limits.max_rules {
        return Err(GrammarError::TooLarge {
            kind,
            what: "a number of lines",
            found: lines,
            limit: limits.max_rules,
        });
    }
    // Brackets in strings count too: a grammar that trips over it has a string of many of them.
    let (mut depth, mut deepest) = (0_usize, 0);
    for character in text.chars() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    if deepest > limits.max_depth {
        let limit = limits.max_depth;
        return Err(GrammarError::TooLarge { kind, what: "a depth of brackets", found: deepest, limit });
    }
    Ok(())
}

/// A grammar of one regular expression.
pub(super) fn of_regex(text: &str) -> Result<String, GrammarError> {
    let kind = "regular expression";
    let slashes = text.len() - text.trim_end_matches('\\').len();
    if slashes % 2 == 1 {
        return Err(GrammarError::Invalid { kind, reason: "it ends in an unfinished escape".to_owned() });
    }
    let inner = without_anchors(text);
    if inner.is_empty() {
        return Ok("start: \"\"\n".to_owned());
    }
    Ok(format!("start: TEXT\nTEXT: /{}/\n", regex_to_lark(inner, "")))
}

/// `^...$` without its ends where they stand around the whole: the whole text is matched anyway.
fn without_anchors(text: &str) -> &str {
    let (mut depth, mut escaped, mut in_class) = (0_usize, false, false);
    for character in text.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => in_class = true,
            ']' => in_class = false,
            '(' if !in_class => depth += 1,
            ')' if !in_class => depth = depth.saturating_sub(1),
            // An anchor of one alternative is not one of the whole.
            '|' if !in_class && depth == 0 => return text,
            _ => {}
        }
    }
    let inner = text.strip_prefix('^').unwrap_or(text);
    let slashes = inner.strip_suffix('$').map_or(1, |rest| rest.len() - rest.trim_end_matches('\\').len());
    if slashes.is_multiple_of(2) { &inner[..inner.len() - 1] } else { inner }
}

/// A grammar of several texts.
pub(super) fn of_choice(texts: &[String]) -> Result<String, GrammarError> {
    if texts.is_empty() {
        let reason = "it has 0 texts, at least 1 is needed".to_owned();
        return Err(GrammarError::Invalid { kind: "choice", reason });
    }
    let quoted: Vec<String> = texts.iter().filter(|text| !text.is_empty()).map(|text| string(text)).collect();
    let empty = quoted.len() < texts.len();
    Ok(match (quoted.is_empty(), empty) {
        (true, _) => "start: \"\"\n".to_owned(),
        (false, true) => format!("start: TEXT |\nTEXT: {}\n", quoted.join(" | ")),
        (false, false) => format!("start: TEXT\nTEXT: {}\n", quoted.join(" | ")),
    })
}

/// A text as a string of Lark.
pub(crate) fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\0'..='\u{1f}' | '\u{7f}' => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
    out
}
