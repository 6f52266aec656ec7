//! A conversation without a terminal: a message a line on stdin, answers on stdout, everything else on stderr.

use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fornax_infer::chat::{Answered, ChatError, Input, Refusal, Terminal};

use super::{JsonAnswer, cost};
use crate::cli::report::say;

/// Longest line.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// stdin and stdout.
pub(super) struct Lines {
    asked: Arc<AtomicUsize>,
    json: bool,
    /// Whether the answer stands at the beginning of a line.
    at_beginning: bool,
}

impl Lines {
    pub(super) fn new(asked: Arc<AtomicUsize>, json: bool) -> Self {
        Self { asked, json, at_beginning: true }
    }

    fn line(&self) -> io::Result<Option<String>> {
        let mut bytes = Vec::new();
        io::stdin().lock().take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut bytes)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let invalid = |sentence: String| io::Error::new(io::ErrorKind::InvalidData, sentence);
        if bytes.len() as u64 > MAX_LINE_BYTES {
            return Err(invalid(format!("a line of stdin is longer than {MAX_LINE_BYTES} bytes")));
        }
        let text = String::from_utf8(bytes).map_err(|_| invalid("a line of stdin is not UTF-8 text".into()))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        Ok(Some(text.strip_suffix('\r').unwrap_or(text).to_owned()))
    }
}

impl Terminal for Lines {
    fn read(&mut self) -> io::Result<Input> {
        let mut text = String::new();
        while self.asked.load(Ordering::SeqCst) == 0 {
            let Some(line) = self.line()? else { break };
            match line.strip_suffix('\\') {
                Some(part) => {
                    text += part;
                    text.push('\n');
                }
                None => return Ok(Input::Line(text + &line)),
            }
        }
        // What was begun is said, although its end is missing.
        match text.trim().is_empty() {
            true => Ok(Input::End),
            false => Ok(Input::Line(text)),
        }
    }

    fn piece(&mut self, text: &str) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        self.at_beginning = text.ends_with('\n');
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush())
    }

    fn answered(&mut self, answered: &Answered) -> io::Result<()> {
        let text = match self.json {
            true => serde_json::to_string(&JsonAnswer::from(answered))? + "\n",
            false if self.at_beginning && !answered.text.is_empty() => String::new(),
            false => "\n".into(),
        };
        self.at_beginning = true;
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush())?;
        self.note(&cost(answered));
        Ok(())
    }

    fn note(&mut self, text: &str) {
        say(&format!("{text}\n"));
    }

    fn refused(&mut self, refusal: Refusal) -> Result<(), ChatError> {
        Err(refusal.into())
    }

    fn is_stopped(&mut self) -> bool {
        self.asked.load(Ordering::SeqCst) != 0
    }
}
