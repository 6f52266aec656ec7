//! Statements, by their keyword.

use super::{Parser, Word, Written, text_of};

impl Parser<'_> {
    /// A statement, from its keyword.
    pub(in crate::chat_template) fn statement(&mut self) -> Written {
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
}
