//! Reading GBNF.

use std::collections::HashMap;

use super::characters::Set;
use super::{Expr, Rules};
use crate::grammar::error::{GrammarError, plain};
use crate::grammar::limits::GrammarLimits;

/// Repetitions beyond this are refused, as llama.cpp does.
const MOST_REPETITIONS: u32 = 2_000;

/// Reads a grammar. Its root comes out at 0.
pub(super) fn parse(text: &str, limits: &GrammarLimits) -> Result<Rules, GrammarError> {
    let mut reader = Reader {
        text: text.char_indices().collect(),
        at: 0,
        limits,
        names: HashMap::from([("root".to_owned(), 0)]),
        rules: vec![("root".to_owned(), None, 0)],
        depth: 0,
    };
    reader.grammar()?;
    let mut rules = Vec::with_capacity(reader.rules.len());
    for (name, expr, used) in &mut reader.rules {
        let used = *used;
        match expr.take() {
            Some(expr) => rules.push((name.clone(), expr)),
            None if name == "root" => return Err(mistake(text, used, "there is no rule `root`".to_owned())),
            None => return Err(mistake(text, used, format!("there is no rule `{name}`"))),
        }
    }
    Ok(Rules { rules })
}

/// A mistake at a position in characters.
fn mistake(text: &str, at: usize, reason: String) -> GrammarError {
    let before: Vec<char> = text.chars().take(at).collect();
    let line = before.iter().filter(|character| **character == '\n').count() + 1;
    let column = before.iter().rev().take_while(|character| **character != '\n').count() + 1;
    GrammarError::Gbnf { line, column, reason: plain(&reason) }
}

struct Reader<'a> {
    text: Vec<(usize, char)>,
    at: usize,
    limits: &'a GrammarLimits,
    names: HashMap<String, usize>,
    /// Name, body once it is read, and the position that named it.
    rules: Vec<(String, Option<Expr>, usize)>,
    depth: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at).map(|(_, character)| *character)
    }

    fn next(&mut self) -> Option<char> {
        let character = self.peek();
        self.at += usize::from(character.is_some());
        character
    }

    fn fail<T>(&self, at: usize, reason: impl Into<String>) -> Result<T, GrammarError> {
        let text: String = self.text.iter().map(|(_, character)| *character).collect();
        Err(mistake(&text, at, reason.into()))
    }

    fn found(&self) -> String {
        self.peek().map_or_else(|| "the end".to_owned(), |character| format!("{character:?}"))
    }

    /// Passes over blanks and comments, and over line ends where they mean nothing.
    fn space(&mut self, lines: bool) {
        while let Some(character) = self.peek() {
            match character {
                ' ' | '\t' => self.at += 1,
                '\n' | '\r' if lines => self.at += 1,
                '#' => {
                    while self.peek().is_some_and(|character| character != '\n' && character != '\r') {
                        self.at += 1;
                    }
                }
                _ => break,
            }
        }
    }

    fn eat(&mut self, character: char) -> bool {
        let found = self.peek() == Some(character);
        self.at += usize::from(found);
        found
    }

    fn grammar(&mut self) -> Result<(), GrammarError> {
        self.space(true);
        while self.peek().is_some() {
            let start = self.at;
            let index = self.name()?;
            self.space(false);
            for expected in "::=".chars() {
                if !self.eat(expected) {
                    return self.fail(self.at, format!("expected `::=`, found {}", self.found()));
                }
            }
            self.space(true);
            let expr = self.choice(false)?;
            if self.rules[index].1.replace(expr).is_some() {
                let name = self.rules[index].0.clone();
                return self.fail(start, format!("the rule `{name}` is there twice"));
            }
            if self.peek().is_some_and(|character| character != '\n' && character != '\r') {
                return self.fail(self.at, format!("expected the end of the line, found {}", self.found()));
            }
            self.space(true);
        }
        Ok(())
    }

    /// The index of the rule named here.
    fn name(&mut self) -> Result<usize, GrammarError> {
        let start = self.at;
        let in_name = |character: char| character.is_ascii_alphanumeric() || character == '-' || character == '_';
        while self.peek().is_some_and(in_name) {
            self.at += 1;
        }
        if start == self.at {
            return self.fail(start, format!("expected the name of a rule, found {}", self.found()));
        }
        let name: String = self.text[start..self.at].iter().map(|(_, character)| *character).collect();
        let next = self.rules.len();
        let index = *self.names.entry(name.clone()).or_insert(next);
        if index == next {
            if next >= self.limits.max_rules {
                let limit = self.limits.max_rules;
                return Err(self.too_large("a number of rules", next + 1, limit));
            }
            self.rules.push((name, None, start));
        }
        Ok(index)
    }

    fn too_large(&self, what: &'static str, found: usize, limit: usize) -> GrammarError {
        GrammarError::TooLarge { kind: "GBNF grammar", what, found, limit }
    }

    fn choice(&mut self, nested: bool) -> Result<Expr, GrammarError> {
        self.depth += 1;
        if self.depth > self.limits.max_depth {
            return Err(self.too_large("a depth of brackets", self.depth, self.limits.max_depth));
        }
        let mut options = vec![self.sequence(nested)?];
        while self.eat('|') {
            self.space(true);
            options.push(self.sequence(nested)?);
        }
        self.depth -= 1;
        Ok(if options.len() == 1 { options.swap_remove(0) } else { Expr::Choice(options) })
    }

    fn sequence(&mut self, nested: bool) -> Result<Expr, GrammarError> {
        let mut items: Vec<Expr> = Vec::new();
        while let Some(character) = self.peek() {
            let item = match character {
                '"' => self.literal()?,
                '[' => self.class()?,
                '.' => {
                    self.at += 1;
                    Expr::Class(Set::all())
                }
                '<' | '!' => self.token()?,
                '(' => self.group()?,
                '*' | '+' | '?' | '{' => {
                    let (least, most) = self.repetition()?;
                    let Some(item) = items.pop() else {
                        return self.fail(self.at - 1, "there is nothing before this repetition");
                    };
                    Expr::Repeat(Box::new(item), least, most)
                }
                _ if character.is_ascii_alphanumeric() || character == '-' || character == '_' => {
                    Expr::Rule(self.name()?)
                }
                _ => break,
            };
            items.push(item);
            self.space(nested);
        }
        Ok(if items.len() == 1 { items.swap_remove(0) } else { Expr::Sequence(items) })
    }

    fn group(&mut self) -> Result<Expr, GrammarError> {
        let start = self.at;
        self.at += 1;
        self.space(true);
        let inner = self.choice(true)?;
        if !self.eat(')') {
            return self.fail(start, format!("this bracket is not closed: expected `)`, found {}", self.found()));
        }
        Ok(inner)
    }

    /// `*`, `+`, `?`, `{m}`, `{m,}`, `{m,n}`.
    fn repetition(&mut self) -> Result<(u32, Option<u32>), GrammarError> {
        let start = self.at;
        let (least, most) = match self.next() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            _ => {
                self.space(false);
                let least = self.number()?;
                self.space(false);
                let most = if self.eat(',') {
                    self.space(false);
                    let bounded = self.peek().is_some_and(|character| character.is_ascii_digit());
                    if bounded { Some(self.number()?) } else { None }
                } else {
                    Some(least)
                };
                self.space(false);
                if !self.eat('}') {
                    return self.fail(self.at, format!("expected `}}`, found {}", self.found()));
                }
                (least, most)
            }
        };
        if most.is_some_and(|most| most < least) {
            return self.fail(start, format!("at least {least} and at most {} cannot be", most.unwrap_or(0)));
        }
        if least.max(most.unwrap_or(0)) > MOST_REPETITIONS {
            return self.fail(start, format!("more than {MOST_REPETITIONS} repetitions are not allowed"));
        }
        Ok((least, most))
    }

    fn number(&mut self) -> Result<u32, GrammarError> {
        let start = self.at;
        let mut value: u32 = 0;
        while let Some(digit) = self.peek().and_then(|character| character.to_digit(10)) {
            value = value.saturating_mul(10).saturating_add(digit);
            self.at += 1;
        }
        if start == self.at {
            return self.fail(start, format!("expected a number, found {}", self.found()));
        }
        Ok(value)
    }

    fn literal(&mut self) -> Result<Expr, GrammarError> {
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.peek() {
                Some('"') => break,
                Some(_) => text.push(self.character()?),
                None => return self.fail(start, "this text is not closed: expected `\"`, found the end"),
            }
        }
        self.at += 1;
        Ok(Expr::Literal(text))
    }

    fn class(&mut self) -> Result<Expr, GrammarError> {
        let start = self.at;
        self.at += 1;
        let negated = self.eat('^');
        let mut ranges = Vec::new();
        loop {
            match self.peek() {
                Some(']') => break,
                Some(_) => {}
                None => return self.fail(start, "this class is not closed: expected `]`, found the end"),
            }
            let from = u32::from(self.character()?);
            let range = self.peek() == Some('-') && self.text.get(self.at + 1).is_some_and(|(_, c)| *c != ']');
            let to = if range {
                self.at += 1;
                u32::from(self.character()?)
            } else {
                from
            };
            if to < from {
                return self.fail(start, "a range of this class ends before it begins");
            }
            ranges.push((from, to));
        }
        self.at += 1;
        let set = Set::new(ranges);
        let set = if negated { set.complement() } else { set };
        if set.is_empty() {
            return self.fail(start, "this class has no characters");
        }
        Ok(Expr::Class(set))
    }

    /// A character of a text or a class, with its escape.
    fn character(&mut self) -> Result<char, GrammarError> {
        let start = self.at;
        let digits = match self.next() {
            Some('\\') => match self.next() {
                Some('x') => 2,
                Some('u') => 4,
                Some('U') => 8,
                Some('t') => return Ok('\t'),
                Some('r') => return Ok('\r'),
                Some('n') => return Ok('\n'),
                Some(character @ ('\\' | '"' | '[' | ']')) => return Ok(character),
                // llama.cpp refuses what it does not know; `\-` and `\^` are common, and cannot mean anything else.
                Some(character @ ('-' | '^' | '/' | '\'')) => return Ok(character),
                Some(character) => {
                    return self.fail(start, format!("the escape `\\{}` is not known", character.escape_debug()));
                }
                None => return self.fail(start, "an escape is not finished"),
            },
            Some(character) => return Ok(character),
            None => return self.fail(start, "expected a character, found the end"),
        };
        let mut value: u32 = 0;
        for _ in 0..digits {
            let Some(digit) = self.peek().and_then(|character| character.to_digit(16)) else {
                return self.fail(start, format!("expected {digits} hexadecimal digits, found {}", self.found()));
            };
            value = value.wrapping_shl(4) | digit;
            self.at += 1;
        }
        char::from_u32(value).map_or_else(|| self.fail(start, format!("{value:#x} is no character")), Ok)
    }

    /// `<[123]>`.
    fn token(&mut self) -> Result<Expr, GrammarError> {
        let start = self.at;
        if self.eat('<') && self.eat('[') {
            let id = self.number()?;
            if self.eat(']') && self.eat('>') {
                return Ok(Expr::Token(id));
            }
        }
        self.fail(start, "of tokens only those with an id are supported, as in `<[123]>`")
    }
}
