//! Jinja's grammar of tags, read and written at once: the operators that can meet text come out as filters.

mod statements;

use super::tags::{Word, words};

/// Expressions inside expressions beyond this depth are refused; the library's own limit is 150, for more brackets.
const MAX_DEPTH: usize = 24;

fn text_of<'a>(word: Word<'a>) -> &'a str {
    match word {
        Word::Name(text) | Word::Number(text) | Word::String(text) | Word::Operator(text) => text,
    }
}

/// Reads the words of one tag, level by level of the grammar, each level writing what it read.
pub(super) struct Parser<'a> {
    words: Vec<Word<'a>>,
    at: usize,
    depth: usize,
}

/// What was read, rewritten, or what is wrong with it.
type Written = Result<String, String>;

impl<'a> Parser<'a> {
    /// A parser of what is inside a tag.
    pub(super) fn new(inside: &'a str) -> Result<Parser<'a>, String> {
        Ok(Parser { words: words(inside)?, at: 0, depth: 0 })
    }

    /// Refuses what is left.
    pub(super) fn end(&self) -> Result<(), String> {
        self.peek().map_or(Ok(()), |word| Err(format!("unexpected {:?}", text_of(word))))
    }

    fn peek(&self) -> Option<Word<'a>> {
        self.words.get(self.at).copied()
    }

    fn next(&mut self) -> Result<Word<'a>, String> {
        let word = self.peek().ok_or("the tag ends too early")?;
        self.at += 1;
        Ok(word)
    }

    fn is(&self, operator: &str) -> bool {
        self.peek() == Some(Word::Operator(operator))
    }

    fn skip(&mut self, operator: &str) -> bool {
        let found = self.is(operator);
        self.at += usize::from(found);
        found
    }

    fn skip_name(&mut self, name: &str) -> bool {
        let found = self.peek() == Some(Word::Name(name));
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, operator: &str) -> Result<(), String> {
        if self.skip(operator) { Ok(()) } else { Err(format!("expected {operator:?}, found {}", self.found())) }
    }

    fn found(&self) -> String {
        self.peek().map_or("the end of the tag".to_owned(), |word| format!("{:?}", text_of(word)))
    }

    fn name(&mut self) -> Result<&'a str, String> {
        match self.peek() {
            Some(Word::Name(name)) => {
                self.at += 1;
                Ok(name)
            }
            _ => Err(format!("expected a name, found {}", self.found())),
        }
    }

    fn filter_chain(&mut self) -> Written {
        let mut chain = Vec::new();
        loop {
            let name = self.dotted_name()?;
            let arguments = if self.is("(") { self.arguments()? } else { String::new() };
            chain.push(name + &arguments);
            if !self.skip("|") {
                return Ok(chain.join("|"));
            }
        }
    }

    fn dotted_name(&mut self) -> Written {
        let mut name = self.name()?.to_owned();
        while self.skip(".") {
            name += ".";
            name += self.name()?;
        }
        Ok(name)
    }

    /// An expression, or a tuple without brackets.
    pub(super) fn whole_expression(&mut self) -> Written {
        let first = self.expression()?;
        if self.skip(",") { self.tuple(first) } else { Ok(first) }
    }

    /// The items behind the first and its comma.
    fn tuple(&mut self, first: String) -> Written {
        let mut written = format!("({first}, ");
        while self.peek().is_some() && !self.is(")") {
            written += &self.expression()?;
            written += ", ";
            if !self.skip(",") {
                break;
            }
        }
        Ok(written + ")")
    }

    fn expression(&mut self) -> Written {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("an expression is nested deeper than {MAX_DEPTH}"));
        }
        let mut written = self.or()?;
        while self.skip_name("if") {
            let condition = self.or()?;
            written = if self.skip_name("else") {
                format!("({written} if {condition} else {})", self.expression()?)
            } else {
                format!("({written} if {condition})")
            };
        }
        self.depth -= 1;
        Ok(written)
    }

    fn or(&mut self) -> Written {
        let mut terms = vec![self.and()?];
        while self.skip_name("or") {
            terms.push(self.and()?);
        }
        Ok(joined(terms, " or "))
    }

    fn and(&mut self) -> Written {
        let mut terms = vec![self.not()?];
        while self.skip_name("and") {
            terms.push(self.not()?);
        }
        Ok(joined(terms, " and "))
    }

    fn not(&mut self) -> Written {
        let mut negations = 0;
        while self.skip_name("not") {
            negations += 1;
        }
        let written = self.comparison()?;
        Ok(match negations {
            0 => written,
            odd if odd % 2 == 1 => format!("(not {written})"),
            _ => format!("(not (not {written}))"),
        })
    }

    fn comparison(&mut self) -> Written {
        let mut left = self.sum()?;
        let mut comparisons = Vec::new();
        while let Some(filter) = self.comparison_operator() {
            let right = self.sum()?;
            comparisons.push(format!("({left}|{filter}({right}))"));
            left = right;
        }
        Ok(if comparisons.is_empty() { left } else { joined(comparisons, " and ") })
    }

    fn comparison_operator(&mut self) -> Option<&'static str> {
        let (filter, words) = match self.peek()? {
            Word::Operator("==") => ("_eq", 1),
            Word::Operator("!=") => ("_ne", 1),
            Word::Operator("<") => ("_lt", 1),
            Word::Operator("<=") => ("_le", 1),
            Word::Operator(">") => ("_gt", 1),
            Word::Operator(">=") => ("_ge", 1),
            Word::Name("in") => ("_in", 1),
            Word::Name("not") if self.words.get(self.at + 1) == Some(&Word::Name("in")) => ("_not_in", 2),
            _ => return None,
        };
        self.at += words;
        Some(filter)
    }

    fn sum(&mut self) -> Written {
        let mut written = self.concatenation()?;
        loop {
            if self.skip("+") {
                // Chains of one operator take a single filter, so that they do not nest.
                let mut terms = vec![self.concatenation()?];
                while self.skip("+") {
                    terms.push(self.concatenation()?);
                }
                written = format!("({written}|_add({}))", terms.join(", "));
            } else if self.skip("-") {
                written = format!("({written} - {})", self.concatenation()?);
            } else {
                return Ok(written);
            }
        }
    }

    fn concatenation(&mut self) -> Written {
        let first = self.product()?;
        let mut rest = Vec::new();
        while self.skip("~") {
            rest.push(self.product()?);
        }
        Ok(if rest.is_empty() { first } else { format!("({first}|_cat({}))", rest.join(", ")) })
    }

    fn product(&mut self) -> Written {
        let mut written = self.power()?;
        loop {
            let operator = match self.peek() {
                Some(Word::Operator(operator @ ("*" | "/" | "//" | "%"))) => operator,
                _ => return Ok(written),
            };
            self.at += 1;
            let right = self.power()?;
            written = match operator {
                "*" => format!("({written}|_mul({right}))"),
                _ => format!("({written} {operator} {right})"),
            };
        }
    }

    fn power(&mut self) -> Written {
        let mut written = self.unary()?;
        while self.skip("**") {
            written = format!("({written} ** {})", self.unary()?);
        }
        Ok(written)
    }

    fn unary(&mut self) -> Written {
        let mut written = self.signed()?;
        loop {
            if self.skip("|") {
                let name = self.dotted_name()?;
                let arguments = if self.is("(") { self.arguments()? } else { String::new() };
                written = format!("{written}|{name}{arguments}");
            } else if self.skip_name("is") {
                written = self.test(written)?;
            } else {
                return Ok(written);
            }
        }
    }

    fn test(&mut self, subject: String) -> Written {
        let negation = if self.skip_name("not") { "not " } else { "" };
        let name = self.dotted_name()?;
        let argument = match self.peek() {
            Some(Word::Operator("(")) => self.arguments()?,
            Some(Word::Name("and" | "or" | "else" | "is" | "if" | "not" | "in" | "recursive")) | None => {
                String::new()
            }
            Some(Word::Operator("[" | "{" | "-")) | Some(Word::Name(_) | Word::Number(_) | Word::String(_)) => {
                format!("({})", self.signed()?)
            }
            Some(Word::Operator(_)) => String::new(),
        };
        Ok(format!("({subject} is {negation}{name}{argument})"))
    }

    fn signed(&mut self) -> Written {
        if !self.skip("-") {
            let primary = self.primary()?;
            return self.postfix(primary);
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("an expression is nested deeper than {MAX_DEPTH}"));
        }
        let operand = self.signed()?;
        self.depth -= 1;
        Ok(format!("(-{operand})"))
    }

    fn primary(&mut self) -> Written {
        match self.next()? {
            Word::Name(name) | Word::Number(name) => Ok(name.to_owned()),
            Word::String(text) => {
                let mut written = text.to_owned();
                while let Some(Word::String(more)) = self.peek() {
                    self.at += 1;
                    written += " ";
                    written += more;
                }
                Ok(written)
            }
            Word::Operator("(") => {
                if self.skip(")") {
                    return Ok("()".to_owned());
                }
                let inner = self.whole_expression()?;
                self.expect(")")?;
                Ok(if is_bracketed(&inner) { inner } else { format!("({inner})") })
            }
            Word::Operator("[") => Ok(format!("[{}]", self.items("]")?)),
            Word::Operator("{") => {
                let mut entries = Vec::new();
                while !self.skip("}") {
                    let key = self.expression()?;
                    self.expect(":")?;
                    // Any other key than a literal is looked at when it is known.
                    let key = if key.starts_with(['"', '\'']) { key } else { format!("({key}|_key)") };
                    entries.push(format!("{key}: {}", self.expression()?));
                    if !self.is("}") {
                        self.expect(",")?;
                    }
                }
                Ok(format!("{{{}}}", entries.join(", ")))
            }
            Word::Operator(operator) => Err(format!("unexpected {operator:?}")),
        }
    }

    fn items(&mut self, close: &str) -> Written {
        let mut items = Vec::new();
        while !self.skip(close) {
            items.push(self.expression()?);
            if !self.is(close) {
                self.expect(",")?;
            }
        }
        Ok(items.join(", "))
    }

    /// `(a, b=c, *d, **e)` with its brackets.
    fn arguments(&mut self) -> Written {
        self.expect("(")?;
        let mut arguments = Vec::new();
        while !self.skip(")") {
            let stars = ["**", "*"].into_iter().find(|stars| self.skip(stars)).unwrap_or("");
            let named = self.words.get(self.at + 1) == Some(&Word::Operator("="));
            let name = if named { format!("{}=", self.name()?) } else { String::new() };
            self.at += usize::from(named);
            arguments.push(format!("{stars}{name}{}", self.expression()?));
            if !self.is(")") {
                self.expect(",")?;
            }
        }
        Ok(format!("({})", arguments.join(", ")))
    }

    fn postfix(&mut self, mut written: String) -> Written {
        loop {
            if self.skip(".") {
                written = match self.next()? {
                    Word::Name(name) => format!("{written}.{name}"),
                    Word::Number(index) => format!("({written}|_item({index}))"),
                    other => return Err(format!("unexpected {:?}", text_of(other))),
                };
            } else if self.is("(") {
                written += &self.arguments()?;
            } else if self.skip("[") {
                written = self.subscript(written)?;
            } else {
                return Ok(written);
            }
        }
    }

    fn subscript(&mut self, subject: String) -> Written {
        // What stands in a dict under a name needs no care; it is the most frequent subscript.
        if let [Some(Word::String(key)), Some(Word::Operator("]"))] =
            [self.peek(), self.words.get(self.at + 1).copied()]
        {
            self.at += 2;
            return Ok(format!("{subject}[{key}]"));
        }
        let mut bounds = vec![String::new()];
        while !self.skip("]") {
            if self.skip(":") {
                bounds.push(String::new());
            } else if let Some(bound) = bounds.last_mut().filter(|bound| bound.is_empty()) {
                *bound = self.expression()?;
            } else {
                return Err(format!("unexpected {}", self.found()));
            }
        }
        match &bounds[..] {
            [index] if index.is_empty() => Err("an empty subscript".to_owned()),
            [index] => Ok(format!("({subject}|_item({index}))")),
            [_, _] | [_, _, _] => {
                let bounds = bounds.iter().map(|bound| if bound.is_empty() { "none" } else { bound });
                Ok(format!("({subject}|_slice({}))", bounds.collect::<Vec<_>>().join(", ")))
            }
            _ => Err("a slice has three bounds at most".to_owned()),
        }
    }
}

fn joined(mut terms: Vec<String>, operator: &str) -> String {
    if terms.len() == 1 { terms.remove(0) } else { format!("({})", terms.join(operator)) }
}

/// Whether one pair of round brackets encloses all of `written`.
fn is_bracketed(written: &str) -> bool {
    let mut depth = 0;
    let mut quote = None;
    let mut escaped = false;
    for (at, character) in written.char_indices() {
        match (quote, character) {
            (Some(open), close) if open == close && !escaped => quote = None,
            (Some(_), _) => {
                escaped = character == '\\' && !escaped;
                continue;
            }
            (None, '"' | '\'') => quote = Some(character),
            (None, '(') => depth += 1,
            (None, ')') => depth -= 1,
            _ => {}
        }
        escaped = false;
        if depth == 0 {
            return at + 1 == written.len() && written.starts_with('(');
        }
    }
    false
}
