//! A template rewritten so that every operator that can meet text is a filter of ours.
//!
//! The library's own `==`, `in`, `+`, `~`, `*`, subscripts and slices would see the marks around text of the input, and
//! would make strings of any length without using fuel. So `a == b` becomes `((a)|_eq(b))`, and so on; the filters are
//! in `operators`. Blocks of `{% generation %}` become `{% with %}`, which has the same scope and whitespace. Long
//! stretches of literal text get `{{ ""|_spend }}`, so that repeating them is counted.

use super::grammar::Parser;
use super::tags::{Part, parts};

/// Literal text is counted each time this many bytes of it are written.
const STRETCH: usize = 256;
/// What counts them.
const SPEND: &str = "{{ \"\"|_spend }}";
/// A raw block is not counted, and refused beyond this many bytes.
const MAX_RAW: usize = 512;
/// More white space in a row than this is refused: it cannot be counted without changing it.
const MAX_BLANK: usize = 4096;

/// Rewrites a whole template.
///
/// # Errors
/// A sentence about what cannot be parsed, with its line.
pub(super) fn rewrite(source: &str) -> Result<String, String> {
    let mut out = String::with_capacity(source.len() * 2);
    let mut line = 1;
    for part in parts(source)? {
        let lines = |text: &str| text.bytes().filter(|byte| *byte == b'\n').count();
        let at_line = |reason: String| format!("line {line}: {reason}");
        match part {
            Part::Text(text) => {
                counted(text, &mut out).map_err(at_line)?;
                line += lines(text);
            }
            Part::Comment(text) | Part::Raw(text) => {
                if matches!(part, Part::Raw(_)) && text.len() > MAX_RAW {
                    return Err(at_line(format!(
                        "a raw block of {} bytes, at most {MAX_RAW} are allowed",
                        text.len()
                    )));
                }
                out.push_str(text);
                line += lines(text);
            }
            Part::Expression { open, inside, close } => {
                tag(open, inside, close, &mut out, |parser| parser.whole_expression()).map_err(at_line)?;
                line += lines(inside);
            }
            Part::Statement { open, inside, close } => {
                tag(open, inside, close, &mut out, |parser| parser.statement()).map_err(at_line)?;
                line += lines(inside);
            }
        }
    }
    Ok(out)
}

/// Writes a tag with its inside rewritten, on as many lines as before.
fn tag<'a>(
    open: &str,
    inside: &'a str,
    close: &str,
    out: &mut String,
    rewritten: impl FnOnce(&mut Parser<'a>) -> Result<String, String>,
) -> Result<(), String> {
    let mut parser = Parser::new(inside)?;
    let rewritten = rewritten(&mut parser)?;
    parser.end()?;
    let breaks = inside.bytes().filter(|byte| *byte == b'\n').count();
    out.extend([open, " ", &rewritten, " "]);
    out.extend(std::iter::repeat_n('\n', breaks));
    out.push_str(close);
    Ok(())
}

/// Literal text, with something to execute in every stretch of it. It stands between characters of the text that are
/// not white space, where it changes nothing: only white space beside a tag can be trimmed.
fn counted(text: &str, out: &mut String) -> Result<(), String> {
    let solid = |character: char| !character.is_whitespace() && character != '{';
    let last = text.rfind(solid).unwrap_or(0);
    let (mut since, mut blank, mut before) = (0, 0, ' ');
    for (at, character) in text.char_indices() {
        if since >= STRETCH && solid(before) && at <= last {
            out.push_str(SPEND);
            since = 0;
        }
        blank = if solid(character) { 0 } else { blank + 1 };
        if blank > MAX_BLANK {
            return Err(format!("more than {MAX_BLANK} characters of white space in a row"));
        }
        out.push(character);
        since += character.len_utf8();
        before = character;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
