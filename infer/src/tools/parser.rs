//! Reading calls out of a text while it comes.
//!
//! The text is taken character by character, so where it was cut into pieces makes no difference. What could still become
//! the beginning of a call is held back; it comes out as text when it does not become one.

use super::call::{ArgumentsReader, CallReader, NotACall, Part};
use super::format::ToolFormat;

/// White space before a call that is held back, at most; it is dropped when the call comes.
const HELD_SPACE: usize = 64;
/// A name that stands by itself, with what stands between it and its arguments, is not longer.
const LONGEST_HEAD: usize = 256;

/// What a text says, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum ToolEvent {
    /// Text for the reader; no part of a call.
    Text(String),
    /// A call begins. Its arguments follow.
    Call {
        /// Its place among the calls of this text, from 0.
        index: usize,
        /// The tool's name.
        name: String,
    },
    /// More of the arguments' JSON.
    Arguments {
        /// The call.
        index: usize,
        /// What comes behind the fragments before.
        fragment: String,
    },
    /// The call is complete; its arguments are a JSON object.
    End {
        /// The call.
        index: usize,
    },
    /// A call that had begun does not go on as one: its arguments are not JSON, or the text ended in it.
    Broken {
        /// The call.
        index: usize,
        /// What is wrong.
        reason: String,
    },
}

/// A complete call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// The tool's name.
    pub name: String,
    /// Its arguments, JSON of an object as the model wrote it.
    pub arguments: String,
}

#[derive(Debug)]
enum State {
    /// Text, until the opening marker comes.
    Text,
    /// Where a call may begin without a marker, or with one that is optional (Llama).
    Start,
    /// All that follows is text.
    Rest,
    /// Inside the object of a call.
    Call(CallReader),
    /// Behind the opening marker of Mistral's forms, and in its list between calls; whether a call was there.
    Mistral(bool),
    /// A name that stands by itself, then its arguments.
    Head(String),
    Arguments(ArgumentsReader),
    /// Behind a call of Hermes' form, before the closing marker.
    Closing,
    /// Inside a call that broke; ends with the closing marker, if there is one.
    Skip,
}

/// Reads one text.
///
/// # Example
/// ```
/// use fornax_infer::tools::{ToolEvent, ToolFormat, ToolParser};
///
/// let mut parser = ToolParser::new(ToolFormat::Hermes, vec!["sum".to_owned()]);
/// let mut events = parser.push("Let me see.\n<tool");
/// assert_eq!(events, [ToolEvent::Text("Let me see.".to_owned())]);
/// events = parser.push("_call>{\"name\": \"sum\", \"arguments\": {\"a\"");
/// assert_eq!(events[0], ToolEvent::Call { index: 0, name: "sum".to_owned() });
/// assert_eq!(events[1], ToolEvent::Arguments { index: 0, fragment: "{\"a\"".to_owned() });
/// events = parser.push(": 1}}</tool_call>");
/// assert_eq!(events[1], ToolEvent::End { index: 0 });
/// assert_eq!(parser.finish(), []);
/// ```
#[derive(Debug)]
pub struct ToolParser {
    format: ToolFormat,
    /// Names of tools; empty where all are taken.
    names: Vec<String>,
    state: State,
    /// What may become a marker.
    held: String,
    /// What came since a call may have begun, while it may still turn out to be text.
    raw: String,
    /// Calls that were given out.
    calls: usize,
    out: Vec<ToolEvent>,
}

impl ToolParser {
    /// A reader of the form `format`. With `names`, only these are tools, and other objects are text.
    pub fn new(format: ToolFormat, names: Vec<String>) -> ToolParser {
        let state = ToolParser::initial(format);
        ToolParser { format, names, state, held: String::new(), raw: String::new(), calls: 0, out: Vec::new() }
    }

    fn initial(format: ToolFormat) -> State {
        if format.opening().is_some() { State::Text } else { State::Start }
    }

    /// Text and calls of a whole text. A call that is broken is left out.
    pub fn read(format: ToolFormat, names: Vec<String>, text: &str) -> (String, Vec<ToolCall>) {
        let mut parser = ToolParser::new(format, names);
        let mut events = parser.push(text);
        events.extend(parser.finish());
        let (mut said, mut open, mut calls) = (String::new(), None, Vec::new());
        for event in events {
            match event {
                ToolEvent::Text(text) => said += &text,
                ToolEvent::Call { name, .. } => open = Some(ToolCall { name, arguments: String::new() }),
                ToolEvent::Arguments { fragment, .. } => {
                    if let Some(call) = &mut open {
                        call.arguments += &fragment;
                    }
                }
                ToolEvent::End { .. } => calls.extend(open.take()),
                ToolEvent::Broken { .. } => open = None,
            }
        }
        (said, calls)
    }

    /// Takes more of the text, in which special tokens that belong to calls ([`ToolFormat::special_tokens`]) are written
    /// out and others, such as the one that ends it, are not.
    pub fn push(&mut self, text: &str) -> Vec<ToolEvent> {
        for character in text.chars() {
            self.take(character);
        }
        std::mem::take(&mut self.out)
    }

    /// Ends the text: what was held back comes out.
    pub fn finish(&mut self) -> Vec<ToolEvent> {
        let state = std::mem::replace(&mut self.state, State::Rest);
        let named = match &state {
            State::Call(reader) => reader.is_named(),
            State::Arguments(_) => true,
            _ => false,
        };
        if named {
            self.fail("the text ended inside the call");
        }
        let mut left = std::mem::take(&mut self.raw);
        left += &std::mem::take(&mut self.held);
        let between = matches!(state, State::Text | State::Start) && self.calls > 0;
        let nothing = left.chars().all(|character| character.is_whitespace() || character == ';');
        let dropped =
            named || (between && nothing) || matches!(state, State::Closing | State::Skip | State::Mistral(true));
        if !dropped {
            self.text(&left);
        }
        std::mem::take(&mut self.out)
    }

    fn take(&mut self, character: char) {
        match &mut self.state {
            State::Rest => self.text(character.encode_utf8(&mut [0; 4])),
            State::Text => {
                self.held.push(character);
                self.settle_text();
            }
            State::Start => self.start(character),
            State::Closing => self.closing(character),
            State::Skip => self.skip(character),
            State::Mistral(listed) => {
                let listed = *listed;
                self.mistral(character, listed);
            }
            State::Call(_) => self.call(character),
            State::Head(_) => self.head(character),
            State::Arguments(_) => self.arguments(character),
        }
    }

    /// Gives out of the text held back what cannot begin a call.
    fn settle_text(&mut self) {
        let marker = self.format.opening().unwrap_or_default();
        loop {
            let trimmed = self.held.trim_start();
            if trimmed == marker {
                self.raw = std::mem::take(&mut self.held);
                self.state = match self.format {
                    ToolFormat::Hermes | ToolFormat::Llama3 => State::Call(CallReader::new()),
                    ToolFormat::Mistral | ToolFormat::MistralNamed => State::Mistral(false),
                };
                return;
            }
            let space = self.held.len() - trimmed.len();
            if self.held.is_empty() || (marker.starts_with(trimmed) && space <= HELD_SPACE) {
                return;
            }
            let first = self.held.remove(0);
            self.text(first.encode_utf8(&mut [0; 4]));
        }
    }

    /// Llama: a call stands at the beginning of the text, behind its tag, or behind another call.
    fn start(&mut self, character: char) {
        const TAG: &str = "<|python_tag|>";
        if self.held.is_empty() && character == '{' {
            self.state = State::Call(CallReader::new());
            self.call(character);
            return;
        }
        let after_call = self.calls > 0;
        if self.held.is_empty() && (character.is_whitespace() || (after_call && character == ';')) {
            self.raw.push(character);
            if self.raw.len() <= HELD_SPACE {
                return;
            }
        } else {
            self.held.push(character);
            if self.held == TAG {
                self.raw += &std::mem::take(&mut self.held);
                self.state = State::Call(CallReader::new());
                return;
            }
            if TAG.starts_with(&self.held) {
                return;
            }
        }
        self.give_up();
        self.state = State::Rest;
    }

    /// What was held back as a possible call is text.
    fn give_up(&mut self) {
        let raw = std::mem::take(&mut self.raw) + &std::mem::take(&mut self.held);
        self.text(&raw);
    }

    fn call(&mut self, character: char) {
        let State::Call(reader) = &mut self.state else { return };
        let mut parts = Vec::new();
        let names = &self.names;
        let accepts = |name: &str| names.is_empty() || names.iter().any(|known| known == name);
        let done = reader.push(character, &accepts, &mut parts);
        let named = reader.is_named();
        if !named {
            self.raw.push(character);
        }
        for part in parts {
            self.part(part);
        }
        match done {
            Ok(false) => {}
            Ok(true) => self.end(),
            Err(reason) => self.not_a_call(reason, named),
        }
    }

    fn part(&mut self, part: Part) {
        match part {
            Part::Name(name) => {
                self.raw.clear();
                self.out.push(ToolEvent::Call { index: self.calls, name });
                self.calls += 1;
            }
            Part::Arguments(fragment) => self.more_arguments(&fragment),
        }
    }

    fn more_arguments(&mut self, more: &str) {
        let index = self.calls - 1;
        match self.out.last_mut() {
            Some(ToolEvent::Arguments { index: last, fragment }) if *last == index => fragment.push_str(more),
            _ => self.out.push(ToolEvent::Arguments { index, fragment: more.to_owned() }),
        }
    }

    /// A call is complete.
    fn end(&mut self) {
        self.out.push(ToolEvent::End { index: self.calls - 1 });
        self.state = match self.format {
            ToolFormat::Hermes => State::Closing,
            ToolFormat::Llama3 => State::Start,
            ToolFormat::Mistral => State::Mistral(true),
            ToolFormat::MistralNamed => State::Text,
        };
    }

    fn fail(&mut self, reason: NotACall) {
        self.out.push(ToolEvent::Broken { index: self.calls - 1, reason: reason.to_owned() });
    }

    fn not_a_call(&mut self, reason: NotACall, named: bool) {
        if named {
            self.fail(reason);
            self.state = State::Skip;
            return;
        }
        self.give_up();
        // Without a marker there is one chance; with one, another may come.
        self.state = if self.format.opening().is_some() { State::Text } else { State::Rest };
    }

    /// Hermes: white space and the closing marker. Anything else is text again.
    fn closing(&mut self, character: char) {
        const MARKER: &str = "</tool_call>";
        self.held.push(character);
        let trimmed = self.held.trim_start();
        if trimmed == MARKER {
            self.held.clear();
            self.state = State::Text;
        } else if !MARKER.starts_with(trimmed) || self.held.len() > HELD_SPACE {
            self.state = State::Text;
            for character in std::mem::take(&mut self.held).chars() {
                self.take(character);
            }
        }
    }

    fn skip(&mut self, character: char) {
        const MARKER: &str = "</tool_call>";
        self.held.push(character);
        while !MARKER.starts_with(&self.held) {
            self.held.remove(0);
        }
        if self.held == MARKER {
            self.held.clear();
            self.state = State::Text;
        }
    }

    /// Mistral: behind the marker comes a list, or a name; in the list come objects.
    fn mistral(&mut self, character: char, listed: bool) {
        if !listed {
            self.raw.push(character);
        }
        match character {
            _ if character.is_whitespace() => {}
            ',' if listed => {}
            ']' if listed => self.state = State::Text,
            '[' if !listed => {
                self.format = ToolFormat::Mistral;
                self.state = State::Mistral(true);
            }
            '{' if listed => {
                self.raw.clear();
                self.state = State::Call(CallReader::new());
                self.call(character);
            }
            _ if !listed && (character.is_ascii_alphanumeric() || character == '_') => {
                self.format = ToolFormat::MistralNamed;
                self.state = State::Head(character.to_string());
            }
            _ => {
                if listed {
                    self.raw.push(character);
                }
                self.give_up();
                self.state = State::Text;
            }
        }
    }

    /// `name`, `name[ARGS]` or `name[CALL_ID]...[ARGS]`, until the arguments begin.
    fn head(&mut self, character: char) {
        let State::Head(head) = &mut self.state else { return };
        if character != '{' {
            head.push(character);
            let long = head.len() > LONGEST_HEAD;
            self.raw.push(character);
            if long {
                self.give_up();
                self.state = State::Text;
            }
            return;
        }
        let name = head.split('[').next().unwrap_or_default().trim().to_owned();
        if self.names.is_empty() || self.names.contains(&name) {
            self.part(Part::Name(name));
            self.state = State::Arguments(ArgumentsReader::default());
            self.arguments(character);
        } else {
            self.raw.push(character);
            self.give_up();
            self.state = State::Text;
        }
    }

    fn arguments(&mut self, character: char) {
        let State::Arguments(reader) = &mut self.state else { return };
        let done = reader.push(character);
        self.more_arguments(character.encode_utf8(&mut [0; 4]));
        match done {
            Ok(false) => {}
            Ok(true) => self.end(),
            Err(reason) => self.not_a_call(reason, true),
        }
    }

    fn text(&mut self, more: &str) {
        match self.out.last_mut() {
            _ if more.is_empty() => {}
            Some(ToolEvent::Text(text)) => text.push_str(more),
            _ => self.out.push(ToolEvent::Text(more.to_owned())),
        }
    }
}
