//! What a line means: something to say, or a command behind a slash.

use std::path::PathBuf;

use fornax_base::recipe::did_you_mean;

use super::Refusal;

/// All commands.
pub const HELP: &str = "\
/regen          write the last answer anew
/save FILE      save the conversation, one message a line, as JSON
/load FILE      go on with a saved conversation
/system [TEXT]  tell the model something before everything else; without text, show it
/clear          forget what was said
/help           this
/quit           leave (also Ctrl-D)
//TEXT          send a text that begins with a slash
A line that ends with \\ goes on in the next one. Ctrl-C stops an answer.";

const NAMES: [&str; 7] = ["regen", "save", "load", "system", "clear", "help", "quit"];

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// Say this.
    Say(String),
    /// Answer once more.
    Again,
    Save(PathBuf),
    Load(PathBuf),
    /// Set the system prompt, or show it.
    System(Option<String>),
    Clear,
    Help,
    Quit,
}

impl Command {
    /// Reads a line; `None` where it is blank.
    pub(super) fn read(line: &str) -> Result<Option<Command>, Refusal> {
        let trimmed = line.trim();
        if trimmed.is_empty() {
            return Ok(None);
        }
        let Some(rest) = trimmed.strip_prefix('/') else { return Ok(Some(Command::Say(line.to_owned()))) };
        if rest.starts_with('/') {
            return Ok(Some(Command::Say(rest.to_owned())));
        }
        let (word, given) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let given = given.trim();
        let alone =
            |command: Command, usage| if given.is_empty() { Ok(command) } else { Err(Refusal::Usage(usage)) };
        let file = |command: fn(PathBuf) -> Command, usage| match given {
            "" => Err(Refusal::Usage(usage)),
            path => Ok(command(PathBuf::from(path))),
        };
        let command = match word {
            "regen" => alone(Command::Again, "`/regen` takes nothing behind it"),
            "save" => file(Command::Save, "`/save` needs a file"),
            "load" => file(Command::Load, "`/load` needs a file"),
            "system" => Ok(Command::System((!given.is_empty()).then(|| given.to_owned()))),
            "clear" => alone(Command::Clear, "`/clear` takes nothing behind it"),
            "help" => alone(Command::Help, "`/help` takes nothing behind it"),
            "quit" | "exit" => alone(Command::Quit, "`/quit` takes nothing behind it"),
            _ => {
                let word: String = word.chars().filter(|c| !c.is_control()).take(32).collect();
                let hint = did_you_mean(&format!("/{word}"), &NAMES.map(|name| format!("/{name}")));
                Err(Refusal::Unknown { word, hint })
            }
        };
        command.map(Some)
    }
}
