//! A conversation on a terminal: lines with an editor, answers as they come.
//!
//! The editor has the terminal while a line is typed; during an answer it is as the shell left it, and Ctrl-C is a signal.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fornax_base::exit::Exit;
use fornax_base::files::{RealFs, read_text_limited, write_atomic_bytes};
use fornax_infer::chat::{Answered, ChatError, Input, Refusal, Terminal};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use rustyline::Editor;
use rustyline::config::{BellStyle, Config};
use rustyline::error::ReadlineError;
use rustyline::history::{DefaultHistory, History, SearchDirection};

use super::cost;
use crate::cli::report::{Failure, say};
use crate::cli::signals;

/// Lines that are kept.
const HISTORY_LINES: usize = 1000;
const MAX_HISTORY_BYTES: u64 = 16 << 20;

/// The terminal.
pub(super) struct Prompt {
    editor: Editor<(), DefaultHistory>,
    asked: Arc<AtomicUsize>,
    history: Option<PathBuf>,
    dims: bool,
    /// Whether Ctrl-C was the last that happened: once more leaves.
    warned: bool,
    interrupted: bool,
    at_beginning: bool,
}

impl Prompt {
    pub(super) fn open(asked: Arc<AtomicUsize>, history: Option<PathBuf>) -> Result<Self, Failure> {
        let usual = tcgetattr(io::stdin()).map_err(|error| Failure::new(Exit::Failed, error))?;
        signals::stop_through(Arc::clone(&asked), move || {
            // Nothing helps where the terminal itself is gone.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &usual);
        })?;
        let failure = |error: ReadlineError| Failure::new(Exit::Failed, error);
        let config = Config::builder().max_history_size(HISTORY_LINES).map_err(failure)?;
        let config = config.bell_style(BellStyle::None).build();
        let mut editor = Editor::with_config(config).map_err(failure)?;
        if let Some(path) = history.as_ref().filter(|path| path.exists()) {
            let text = read_text_limited(path, MAX_HISTORY_BYTES);
            for line in text.map_err(|e| Failure::new(Exit::BadInput, e))?.lines() {
                editor.add_history_entry(line).map_err(failure)?;
            }
        }
        let dims = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Ok(Self { editor, asked, history, dims, warned: false, interrupted: false, at_beginning: true })
    }

    /// Keeps the history where it was asked for, and tells how the person left.
    pub(super) fn close(&mut self) -> Result<Exit, Failure> {
        if let Some(path) = &self.history {
            let history = self.editor.history();
            let lines =
                (0..history.len()).filter_map(|at| history.get(at, SearchDirection::Forward).ok().flatten());
            let text: String = lines.map(|line| format!("{}\n", line.entry)).collect();
            write_atomic_bytes(&RealFs, path, text.as_bytes()).map_err(|e| Failure::new(Exit::Failed, e))?;
        }
        Ok(if self.interrupted { Exit::Interrupted } else { Exit::Done })
    }
}

impl Terminal for Prompt {
    fn read(&mut self) -> io::Result<Input> {
        let mut text = String::new();
        loop {
            let prompt = if text.is_empty() { "> " } else { ". " };
            match self.editor.readline(prompt) {
                Ok(line) => {
                    self.warned = false;
                    if !line.trim().is_empty() && !line.contains('\n') {
                        let _ = self.editor.add_history_entry(line.as_str());
                    }
                    match line.strip_suffix('\\') {
                        Some(part) => {
                            text += part;
                            text.push('\n');
                        }
                        None => {
                            self.asked.store(0, Ordering::SeqCst);
                            return Ok(Input::Line(text + &line));
                        }
                    }
                }
                Err(ReadlineError::Interrupted) if self.warned => {
                    self.interrupted = true;
                    return Ok(Input::End);
                }
                Err(ReadlineError::Interrupted) => {
                    self.warned = true;
                    text.clear();
                    self.note("Ctrl-C once more, Ctrl-D or /quit leaves");
                }
                Err(ReadlineError::Eof) => return Ok(Input::End),
                Err(ReadlineError::Io(error)) => return Err(error),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }

    fn piece(&mut self, text: &str) -> io::Result<()> {
        // What a model writes must not steer the terminal.
        let harmless =
            |c: char| if c.is_control() && c != '\n' && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
        let text: String = text.chars().map(harmless).collect();
        self.at_beginning = text.ends_with('\n');
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush())
    }

    fn answered(&mut self, answered: &Answered) -> io::Result<()> {
        if !self.at_beginning || answered.text.is_empty() {
            io::stdout().lock().write_all(b"\n")?;
        }
        self.at_beginning = true;
        // A Ctrl-C that stopped the answer counts: the next one, at the prompt, leaves.
        self.warned = self.is_stopped();
        self.note(&cost(answered));
        Ok(())
    }

    fn note(&mut self, text: &str) {
        match self.dims {
            true => say(&format!("\x1b[2m{text}\x1b[0m\n")),
            false => say(&format!("{text}\n")),
        }
    }

    fn refused(&mut self, refusal: Refusal) -> Result<(), ChatError> {
        let mut text = format!("error: {refusal}\n");
        let mut cause = std::error::Error::source(&refusal);
        while let Some(error) = cause {
            text += &format!("  {error}\n");
            cause = error.source();
        }
        say(&format!("{text}hint: {}\n", refusal.hint()));
        Ok(())
    }

    fn is_stopped(&mut self) -> bool {
        self.asked.load(Ordering::SeqCst) != 0
    }
}
