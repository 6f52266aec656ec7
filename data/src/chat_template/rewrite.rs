//! A template rewritten so that every operator that can meet text is a filter of ours.
//!
//! The library's own `==`, `in`, `+`, `~`, `*`, subscripts and slices would see the marks around text of the input, and
//! would make strings of any length without using fuel. So `a == b` becomes `((a)|_eq(b))`, and so on; the filters are
//! in `operators`. Blocks of `{% generation %}` become `{% with %}`, which has the same scope and whitespace. Long
//! stretches of literal text get `{{ ""|_spend }}`, so that repeating them is counted.

use super::tags::{Part, Word, parts, words};

/// Literal text is counted each time this many bytes of it are written.
const STRETCH: usize = 256;
/// What counts them.
const SPEND: &str = "{{ \"\"|_spend }}";
/// A raw block is not counted, and refused beyond this many bytes.
const MAX_RAW: usize = 512;
/// More white space in a row than this is refused: it cannot be counted without changing it.
const MAX_BLANK: usize = 4096;
/// Expressions inside expressions beyond this depth are refused; the library's own limit is 150, for more brackets.
const MAX_DEPTH: usize = 24;

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
    let mut parser = Parser { words: words(inside)?, at: 0, depth: 0 };
    let rewritten = rewritten(&mut parser)?;
    if let Some(word) = parser.peek() {
        return Err(format!("unexpected {:?}", text_of(word)));
    }
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

fn text_of<'a>(word: Word<'a>) -> &'a str {
    match word {
        Word::Name(text) | Word::Number(text) | Word::String(text) | Word::Operator(text) => text,
    }
}

/// Jinja's grammar of expressions, level by level, each level writing what it read.
struct Parser<'a> {
    words: Vec<Word<'a>>,
    at: usize,
    depth: usize,
}

type Written = Result<String, String>;

impl<'a> Parser<'a> {
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

    fn statement(&mut self) -> Written {
        let keyword = self.name()?;
        match keyword {
            "if" | "elif" => Ok(format!("{keyword} {}", self.whole_expression()?)),
            "for" => self.for_statement(),
            "set" => self.set_statement(),
            "do" => Ok(format!("do {}", self.expression()?)),
            "macro" => Ok(format!("macro {}{}", self.name()?, self.arguments()?)),
            "call" => {
                let arguments = if self.is("(") { self.arguments()? } else { String::new() };
                Ok(format!("call{arguments} {}", self.expression()?))
            }
            "filter" => Ok(format!("filter {}", self.filter_chain()?)),
            "with" => {
                let mut assignments = Vec::new();
                while self.peek().is_some() {
                    let target = self.target()?;
                    self.expect("=")?;
                    assignments.push(format!("{target} = ({})|_store", self.expression()?));
                    self.skip(",");
                }
                Ok(format!("with {}", assignments.join(", ")))
            }
            "generation" => Ok("with".to_owned()),
            "endgeneration" => Ok("endwith".to_owned()),
            "else" | "endif" | "endfor" | "endset" | "endmacro" | "endcall" | "endfilter" | "endwith"
            | "break" | "continue" => {
                // A block may be closed with its name.
                let rest: Vec<&str> = self.words[self.at..].iter().map(|word| text_of(*word)).collect();
                self.at = self.words.len();
                Ok([&[keyword], &rest[..]].concat().join(" "))
            }
            "include" | "import" | "from" | "extends" | "block" => {
                Err(format!("`{keyword}` needs other templates, which a chat template cannot have"))
            }
            other => Err(format!("the tag `{other}` is unknown")),
        }
    }

    fn for_statement(&mut self) -> Written {
        let target = self.target()?;
        if !self.skip_name("in") {
            return Err(format!("expected `in`, found {}", self.found()));
        }
        let mut items = self.or()?;
        if self.skip(",") {
            items = self.tuple(items)?;
        }
        let mut written = format!("for {target} in ({items})|_iter");
        if self.skip_name("if") {
            written += &format!(" if {}", self.expression()?);
        }
        if self.skip_name("recursive") {
            written += " recursive";
        }
        Ok(written)
    }

    fn set_statement(&mut self) -> Written {
        let target = self.target()?;
        if self.skip("|") {
            return Ok(format!("set {target} | {}", self.filter_chain()?));
        }
        if self.peek().is_none() {
            return Ok(format!("set {target}"));
        }
        self.expect("=")?;
        Ok(format!("set {target} = ({})|_store", self.whole_expression()?))
    }

    /// `a`, `a.b`, `a, b` or `(a, b)`.
    fn target(&mut self) -> Written {
        let mut written = String::new();
        loop {
            match self.peek() {
                Some(Word::Name("in")) => break,
                Some(Word::Name(name)) => written += name,
                Some(Word::Operator(operator @ ("." | "(" | ")" | ","))) => written += operator,
                _ => break,
            }
            self.at += 1;
        }
        if written.is_empty() { Err(format!("expected a name, found {}", self.found())) } else { Ok(written) }
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
    fn whole_expression(&mut self) -> Written {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_on_text_become_filters() {
        for (source, expected) in [
            ("a == 'b' and not c", "((a|_eq('b')) and (not c))"),
            ("a.b[-1] + c[1:] + d", "((a.b|_item((-1)))|_add((c|_slice(1, none)), d))"),
            ("a ~ b|trim ~ 'c'", "(a|_cat(b|trim, 'c'))"),
            ("x['role'] not in ['a', 'b']", "(x['role']|_not_in(['a', 'b']))"),
            ("a if b == c else d", "(a if (b|_eq(c)) else d)"),
            ("f(a, b=c * 2)", "f(a, b=(c|_mul(2)))"),
            ("a is defined and a is not none", "((a is defined) and (a is not none))"),
            ("a is in [1] or b is divisibleby 3", "((a is in([1])) or (b is divisibleby(3)))"),
            ("(a + b) | f(1)", "(a|_add(b))|f(1)"),
            ("1 < a <= 3", "((1|_lt(a)) and (a|_le(3)))"),
            ("a[::-1]", "(a|_slice(none, none, (-1)))"),
            ("{'a': b ~ c}.items()", "{'a': (b|_cat(c))}.items()"),
            ("a - b + c", "((a - b)|_add(c))"),
            ("(1, 2)", "(1, 2, )"),
            ("not not a", "(not (not a))"),
        ] {
            assert_eq!(
                rewrite(&format!("{{{{{source}}}}}")).unwrap(),
                format!("{{{{ {expected} }}}}"),
                "{source}"
            );
        }
    }

    #[test]
    fn statements_keep_their_form() {
        for (source, expected) in [
            ("for a, b in c.items() if b recursive", "for a,b in (c.items())|_iter if b recursive"),
            ("set ns.a = b + [c]", "set ns.a = ((b|_add([c])))|_store"),
            ("set x", "set x"),
            ("set a, b = c, d", "set a,b = ((c, d, ))|_store"),
            ("macro m(a, b=1 ~ 2)", "macro m(a, b=(1|_cat(2)))"),
            ("call(x) f(y)", "call(x) f(y)"),
            ("filter indent(2)|trim", "filter indent(2)|trim"),
            ("generation", "with"),
            ("endgeneration", "endwith"),
            ("with a = b, c = d", "with a = (b)|_store, c = (d)|_store"),
            ("endif", "endif"),
        ] {
            assert_eq!(
                rewrite(&format!("{{%- {source} -%}}")).unwrap(),
                format!("{{%- {expected} -%}}"),
                "{source}"
            );
        }
        let error = rewrite("a\n{{ b }}\n{% include 'c' %}").unwrap_err();
        assert!(error.starts_with("line 3: `include` needs other templates"), "{error}");
        for wrong in
            ["{{ a b }}", "{{ a[ }}", "{{ }}", "{% for x %}", "{% what %}", "{{ a[1:2:3:4] }}", "{{ (a }}"]
        {
            assert!(rewrite(wrong).is_err(), "{wrong}");
        }
        assert_eq!(rewrite("{{\n a\n}}").unwrap(), "{{ a \n\n}}");
    }

    #[test]
    fn long_text_is_counted() {
        for text in ["word ".repeat(200), "a ".repeat(500)] {
            let counted = rewrite(&text).unwrap();
            assert_eq!(counted.replace(SPEND, ""), text);
            assert_eq!(counted.matches("_spend").count(), 3);
        }
        assert!(rewrite(&" ".repeat(5000)).is_err());
        let deep = format!("{{{{ {}1{} }}}}", "(".repeat(100), ")".repeat(100));
        assert!(rewrite(&deep).unwrap_err().contains("nested deeper than 24"));
    }
}
