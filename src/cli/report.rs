//! What the user sees when something fails: one `error:` sentence, its causes indented, one `hint:`.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use fornax_base::exit::Exit;
use fornax_train::TrainError;

/// A failure with its exit code and perhaps a hint.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    error: anyhow::Error,
    hint: Option<String>,
}

impl Failure {
    /// A failure of this kind.
    pub(crate) fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into(), hint: None }
    }

    /// The user's input is wrong: a sentence of our own.
    pub(crate) fn input(sentence: impl fmt::Display) -> Self {
        Self::new(Exit::BadInput, anyhow::anyhow!("{sentence}"))
    }

    /// The same failure, met after work began: wrong input can no longer be the reason.
    pub(crate) fn while_running(mut self) -> Self {
        if self.exit == Exit::BadInput {
            self.exit = Exit::Failed;
        }
        self
    }

    /// Adds one action that helps.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Self {
        let (exit, hint) = (error.exit(), error.hint());
        Self { exit, error: error.into(), hint }
    }
}

/// Prints the failure on stderr and gives its exit code. A reader that went away is no failure.
pub(crate) fn failure(failure: &Failure) -> ExitCode {
    if is_broken_pipe(&failure.error) {
        return Exit::Done.into();
    }
    let mut text = format!("error: {}\n", failure.error);
    for cause in failure.error.chain().skip(1) {
        text += &format!("  {cause}\n");
    }
    if let Some(hint) = &failure.hint {
        text += &format!("\nhint: {hint}\n");
    }
    say(&text);
    failure.exit.into()
}

/// Prints what clap says: help and version on stdout, what is wrong with the command line on stderr.
pub(crate) fn usage(message: &clap::Error) -> ExitCode {
    match (message.print(), message.use_stderr()) {
        (Err(error), false) => failure(&stdout_failure(error)),
        (_, true) => Exit::BadInput.into(),
        (Ok(()), false) => Exit::Done.into(),
    }
}

/// Writes data to stdout.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(stdout_failure)
}

/// What cannot be written to stdout is a failure, unless the reader went away.
pub(crate) fn stdout_failure(error: io::Error) -> Failure {
    Failure::new(Exit::Failed, anyhow::Error::new(error).context("cannot write to stdout"))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Writes talk to stderr; when nobody can read it any more, work goes on.
pub(crate) fn say(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// A panic is a bug of ours and says so.
pub(crate) fn install_panic_message() {
    std::panic::set_hook(Box::new(|panic| {
        // A library's panic on a hostile tokenizer is caught and told as an error of the file.
        if fornax_data::tokenizer::catches_panics() {
            return;
        }
        // On the monitor's screen the message would be lost, and the terminal would stay as it is.
        super::screen::give_back();
        let command: Vec<String> = std::env::args().collect();
        say(&format!(
            "error: this is a bug in fornax {}: {panic}\n\nhint: please report it with the command `{}`\n",
            env!("CARGO_PKG_VERSION"),
            command.join(" ")
        ));
    }));
}
