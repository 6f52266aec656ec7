//! Reading the JSON object of one call, character by character.

/// What a call gives out, in this order.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    /// The name.
    Name(String),
    /// A part of the arguments.
    Arguments(String),
}

/// Longest key or name that is kept.
const LONGEST_KEY: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Start,
    /// Before a key; whether the object may end here.
    Key(bool),
    InKey,
    Colon,
    Value,
    InValue,
    AfterValue,
}

/// What the value being read is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Field {
    Name,
    Arguments,
    Other,
}

/// Why text is not a call.
pub(super) type NotACall = &'static str;

/// Reads `{"name": ..., "arguments" or "parameters": {...}, ...}` with its keys in any order.
#[derive(Debug, Clone)]
pub(super) struct CallReader {
    state: State,
    field: Field,
    /// The key, name or text being read.
    text: String,
    scan: Scan,
    name: Option<String>,
    /// The arguments so far.
    arguments: String,
    /// Whether arguments were there at all.
    seen: bool,
    /// Whether the name was given out.
    named: bool,
}

impl CallReader {
    pub(super) fn new() -> CallReader {
        CallReader {
            state: State::Start,
            field: Field::Other,
            text: String::new(),
            scan: Scan::default(),
            name: None,
            arguments: String::new(),
            seen: false,
            named: false,
        }
    }

    /// Whether the name was given out.
    pub(super) fn is_named(&self) -> bool {
        self.named
    }

    /// Takes the next character and appends what it completes to `out`; whether the object is complete. `accepts` says
    /// which names are tools. Arguments are given out as they come when the name is known, else behind it.
    pub(super) fn push(
        &mut self,
        character: char,
        accepts: &dyn Fn(&str) -> bool,
        out: &mut Vec<Part>,
    ) -> Result<bool, NotACall> {
        let space = matches!(character, ' ' | '\t' | '\n' | '\r');
        match (self.state, character) {
            (State::Start | State::Key(_) | State::Colon | State::Value | State::AfterValue, _) if space => {}
            (State::Start, '{') => self.state = State::Key(true),
            (State::Key(_), '"') => {
                self.begin();
                self.text.push(character);
                self.scan.push(character);
                self.state = State::InKey;
            }
            (State::Key(true) | State::AfterValue, '}') => {
                self.finish(accepts, out)?;
                return Ok(true);
            }
            (State::InKey, _) => {
                self.keep(character, "a key is too long")?;
                if self.scan.push(character) == Scanned::Last {
                    self.key()?;
                }
            }
            (State::Colon, ':') => self.state = State::Value,
            (State::Value, _) => {
                self.begin();
                self.state = State::InValue;
                return self.value(character, accepts, out);
            }
            (State::InValue, _) => return self.value(character, accepts, out),
            (State::AfterValue, ',') => self.state = State::Key(false),
            _ => return Err("it is not a JSON object"),
        }
        Ok(false)
    }

    fn begin(&mut self) {
        self.text.clear();
        self.scan = Scan::default();
    }

    fn keep(&mut self, character: char, too_long: NotACall) -> Result<(), NotACall> {
        self.text.push(character);
        if self.text.len() > LONGEST_KEY { Err(too_long) } else { Ok(()) }
    }

    fn key(&mut self) -> Result<(), NotACall> {
        let key: String = serde_json::from_str(&self.text).map_err(|_| "a key is not JSON")?;
        self.field = match key.as_str() {
            "name" if self.name.is_none() => Field::Name,
            "arguments" | "parameters" if !self.seen => Field::Arguments,
            "name" | "arguments" | "parameters" => return Err("a key is there twice"),
            _ => Field::Other,
        };
        self.state = State::Colon;
        Ok(())
    }

    fn value(
        &mut self,
        character: char,
        accepts: &dyn Fn(&str) -> bool,
        out: &mut Vec<Part>,
    ) -> Result<bool, NotACall> {
        let begins = self.scan.is_fresh();
        let scanned = self.scan.push(character);
        if scanned == Scanned::Bad {
            return Err("a value is not JSON");
        }
        if scanned == Scanned::Before {
            self.end_of_value(accepts, out)?;
            return self.push(character, accepts, out);
        }
        match self.field {
            Field::Other => {}
            Field::Name if begins && character != '"' => return Err("the name is not a text"),
            Field::Name => self.keep(character, "the name is too long")?,
            Field::Arguments if begins && !matches!(character, '{' | '"' | 'n') => {
                return Err("the arguments are not an object");
            }
            Field::Arguments if self.scan.is_object() => {
                self.seen = true;
                self.arguments.push(character);
                if self.named {
                    out.push(Part::Arguments(character.to_string()));
                } else if self.name.is_some() {
                    self.announce(accepts, out)?;
                }
            }
            Field::Arguments => self.text.push(character),
        }
        if scanned == Scanned::Last {
            self.end_of_value(accepts, out)?;
        }
        Ok(false)
    }

    fn end_of_value(&mut self, accepts: &dyn Fn(&str) -> bool, out: &mut Vec<Part>) -> Result<(), NotACall> {
        self.state = State::AfterValue;
        match self.field {
            Field::Other => Ok(()),
            Field::Name => {
                self.name = Some(serde_json::from_str(&self.text).map_err(|_| "the name is not JSON")?);
                if self.seen { self.announce(accepts, out) } else { Ok(()) }
            }
            Field::Arguments if self.seen => {
                if is_object(&self.arguments) {
                    Ok(())
                } else {
                    Err("the arguments are not JSON")
                }
            }
            // Written as a text that holds JSON, or as nothing.
            Field::Arguments => {
                let null = self.text == "null";
                let inner = if null { Ok("{}".to_owned()) } else { serde_json::from_str::<String>(&self.text) };
                self.arguments =
                    inner.ok().filter(|inner| is_object(inner)).ok_or("the arguments are not an object")?;
                self.seen = true;
                if self.name.is_some() { self.announce(accepts, out) } else { Ok(()) }
            }
        }
    }

    /// Gives out the name with the arguments so far.
    fn announce(&mut self, accepts: &dyn Fn(&str) -> bool, out: &mut Vec<Part>) -> Result<(), NotACall> {
        let name = self.name.clone().filter(|name| accepts(name)).ok_or("there is no such tool")?;
        self.named = true;
        out.extend([Part::Name(name), Part::Arguments(self.arguments.clone())]);
        Ok(())
    }

    /// At the end of the object: a call that names no arguments has none.
    fn finish(&mut self, accepts: &dyn Fn(&str) -> bool, out: &mut Vec<Part>) -> Result<(), NotACall> {
        if self.named {
            return Ok(());
        }
        if self.name.is_none() {
            return Err("it has no name");
        }
        self.arguments = "{}".to_owned();
        self.announce(accepts, out)
    }
}

/// Reads arguments that stand by themselves, behind a name.
#[derive(Debug, Clone, Default)]
pub(super) struct ArgumentsReader {
    scan: Scan,
    text: String,
}

impl ArgumentsReader {
    /// Takes the next character, which is part of the arguments; whether they are complete.
    pub(super) fn push(&mut self, character: char) -> Result<bool, NotACall> {
        let scanned = self.scan.push(character);
        if !self.scan.is_object() {
            return Err("the arguments are not an object");
        }
        self.text.push(character);
        match scanned {
            Scanned::Last if is_object(&self.text) => Ok(true),
            Scanned::Last | Scanned::Bad => Err("the arguments are not JSON"),
            Scanned::Inside | Scanned::Before => Ok(false),
        }
    }
}

fn is_object(text: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(text).is_ok_and(|value| value.is_object())
}

/// Where a JSON value ends.
#[derive(Debug, Clone, Copy, Default)]
struct Scan {
    kind: Option<char>,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Scanned {
    Inside,
    /// The character ends the value.
    Last,
    /// The value ended before this character.
    Before,
    Bad,
}

impl Scan {
    fn is_fresh(&self) -> bool {
        self.kind.is_none()
    }

    fn is_object(&self) -> bool {
        self.kind == Some('{')
    }

    fn push(&mut self, character: char) -> Scanned {
        let Some(kind) = self.kind else {
            self.kind = Some(character);
            return match character {
                '{' | '[' => {
                    self.depth = 1;
                    Scanned::Inside
                }
                '"' => {
                    self.in_string = true;
                    Scanned::Inside
                }
                '-' | '0'..='9' | 't' | 'f' | 'n' => Scanned::Inside,
                _ => Scanned::Bad,
            };
        };
        if self.in_string {
            match character {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                '"' => {
                    self.in_string = false;
                    return if self.depth == 0 { Scanned::Last } else { Scanned::Inside };
                }
                _ => {}
            }
            return Scanned::Inside;
        }
        if !matches!(kind, '{' | '[') {
            let ends = matches!(character, ',' | '}' | ']' | ' ' | '\t' | '\n' | '\r');
            return if ends { Scanned::Before } else { Scanned::Inside };
        }
        match character {
            '"' => self.in_string = true,
            '{' | '[' => self.depth += 1,
            '}' | ']' => {
                self.depth -= 1;
                if self.depth == 0 {
                    return Scanned::Last;
                }
            }
            _ => {}
        }
        Scanned::Inside
    }
}
