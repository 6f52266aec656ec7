//! A command of the user's judges each completion.
//!
//! It runs with the rights of this process and sees what it sees: a limit of time and of output, and the end of its
//! whole process group, keep a run going, they are no sandbox.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use fornax_base::files::{RealFs, create_folder, remove_folder_atomic, write_atomic_bytes};
use fornax_data::chat::Json;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use serde::{Deserialize, Serialize};

use super::{RewardError, Verdict, default_weight};

/// Stands for the path of the completion's file in an argument.
const FILE: &str = "{file}";
/// How often a running command is looked at.
const POLL: Duration = Duration::from_millis(2);

/// A reward of kind `command`: the program named here is executed once for every completion, as this user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandRecipe {
    /// Name in the metrics; default `command`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is multiplied with; default 1.
    #[serde(default = "default_weight")]
    pub weight: f64,
    /// The program and its arguments; exit code 0 is a reward of 1, anything else 0. No shell reads them, unless
    /// `["sh", "-c", ...]` asks for one.
    pub command: Vec<String>,
    /// How it gets the completion; default `stdin`.
    #[serde(default)]
    pub input: Input,
    /// Name of the file for `input = "file"`; default `completion.txt`. `{file}` in an argument becomes its path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
    /// Seconds until it is killed, with a reward of 0; default 10.
    #[serde(default = "default_timeout")]
    pub timeout_seconds: f64,
    /// Bytes of output, of stdout and stderr together, after which it is killed, with a reward of 0; default 1 MiB.
    /// What it writes is not kept.
    #[serde(default = "default_output")]
    pub output_bytes: u64,
}

/// How a command gets a completion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// Its text on stdin.
    #[default]
    Stdin,
    /// `{"completion": "...", "row": {...}}` on stdin.
    Json,
    /// A file, removed afterwards; stdin is empty.
    File,
}

fn default_timeout() -> f64 {
    10.0
}

fn default_output() -> u64 {
    1 << 20
}

/// The rule.
#[derive(Debug)]
pub struct UnitCommand {
    recipe: CommandRecipe,
    name: String,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Exited { success: bool },
    TooLong,
    TooMuch,
}

impl UnitCommand {
    pub(super) fn new(recipe: &CommandRecipe, name: &str) -> Result<UnitCommand, String> {
        let has_file = recipe.command.iter().skip(1).any(|argument| argument.contains(FILE));
        if recipe.command.first().is_none_or(String::is_empty) {
            return Err("`command` is empty, but a program is needed".into());
        }
        if !(recipe.timeout_seconds > 0.0 && recipe.timeout_seconds <= 86_400.0) {
            let found = recipe.timeout_seconds;
            return Err(format!(
                "`timeout_seconds` is {found}, but a number above 0 and at most 86400 is expected"
            ));
        }
        match (recipe.input, has_file) {
            (Input::File, false) => return Err("`input` is `file`, but no argument has `{file}`".into()),
            (Input::Stdin | Input::Json, true) => {
                return Err("`{file}` is given, but `input` is not `file`".into());
            }
            _ => {}
        }
        match &recipe.file_name {
            Some(_) if recipe.input != Input::File => {
                return Err("`file_name` is given, but `input` is not `file`".into());
            }
            Some(name) if Path::new(name).file_name() != Some(name.as_ref()) => {
                return Err(format!("`file_name` is `{name}`, but a name without a folder is expected"));
            }
            _ => {}
        }
        Ok(UnitCommand { recipe: recipe.clone(), name: name.to_owned() })
    }

    pub(super) fn score(&self, columns: &Json, completion: &str) -> Result<Verdict, RewardError> {
        let file = match self.recipe.input {
            Input::File => Some(CompletionFile::write(self.recipe.file_name.as_deref(), completion)),
            Input::Stdin | Input::Json => None,
        };
        let file = file.transpose().map_err(|what| self.failed(what))?;
        let input = match self.recipe.input {
            Input::Stdin => completion.as_bytes().to_vec(),
            Input::Json => serde_json::json!({"completion": completion, "row": columns}).to_string().into_bytes(),
            Input::File => Vec::new(),
        };
        let path = file.as_ref().map(|file| file.path.display().to_string());
        let end = self.run(input, path.as_deref()).map_err(|error| self.failed(error.to_string()));
        if let Some(file) = file {
            file.remove().map_err(|what| self.failed(what))?;
        }
        Ok(match end? {
            End::Exited { success } => Verdict::of(success),
            End::TooLong | End::TooMuch => Verdict::gave_up(),
        })
    }

    fn failed(&self, what: String) -> RewardError {
        RewardError::Command { name: self.name.clone(), command: self.recipe.command.join(" "), what }
    }

    fn run(&self, input: Vec<u8>, file: Option<&str>) -> std::io::Result<End> {
        let argument = |argument: &String| match file {
            Some(file) => argument.replace(FILE, file),
            None => argument.clone(),
        };
        let mut child = Command::new(&self.recipe.command[0])
            .args(self.recipe.command[1..].iter().map(argument))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command need not read what it is given: a closed pipe is no failure.
            std::thread::spawn(move || drop(stdin.write_all(&input)));
        }
        let output = read_all([
            child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
            child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
        ]);
        self.watch(&mut child, &output)
    }

    /// Waits until the command ends or meets a limit, then ends its whole group.
    fn watch(&self, child: &mut Child, output: &Receiver<usize>) -> std::io::Result<End> {
        let deadline = Instant::now() + Duration::from_secs_f64(self.recipe.timeout_seconds);
        let (mut written, mut is_open) = (0u64, true);
        let early = loop {
            match if is_open { output.recv_timeout(POLL) } else { Err(RecvTimeoutError::Timeout) } {
                Ok(n) => written += n as u64,
                Err(RecvTimeoutError::Timeout) if !is_open => std::thread::sleep(POLL),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => is_open = false,
            }
            if written > self.recipe.output_bytes {
                break Some(End::TooMuch);
            }
            if Instant::now() >= deadline {
                break Some(End::TooLong);
            }
            if has_exited(child)? {
                break None;
            }
        };
        // Before its exit code is taken: until then its id, which is the group's too, is given to no one else.
        if let Some(group) = pid(child) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let status = child.wait()?;
        Ok(early.unwrap_or(End::Exited { success: status.success() }))
    }
}

fn pid(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// Whether the process has ended; its exit code stays to be taken.
fn has_exited(child: &Child) -> std::io::Result<bool> {
    let Some(pid) = pid(child) else { return Ok(true) };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Ok(waitid(WaitId::Pid(pid), options)?.is_some())
}

/// Counts what comes out of each pipe, in threads that end with it.
fn read_all(pipes: [Option<Box<dyn Read + Send>>; 2]) -> Receiver<usize> {
    let (sender, receiver) = channel();
    for mut pipe in pipes.into_iter().flatten() {
        let sender = sender.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                if sender.send(n).is_err() {
                    return; // judged already
                }
            }
        });
    }
    receiver
}

/// A completion in a folder of its own.
struct CompletionFile {
    folder: PathBuf,
    path: PathBuf,
}

impl CompletionFile {
    fn write(name: Option<&str>, completion: &str) -> Result<CompletionFile, String> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("fornax-reward-{}-{n}", std::process::id()));
        if folder.symlink_metadata().is_ok() {
            return Err(format!("{} is there already", folder.display()));
        }
        let path = folder.join(name.unwrap_or("completion.txt"));
        create_folder(&RealFs, &folder).map_err(|error| error.to_string())?;
        write_atomic_bytes(&RealFs, &path, completion.as_bytes()).map_err(|error| error.to_string())?;
        Ok(CompletionFile { folder, path })
    }

    fn remove(&self) -> Result<(), String> {
        remove_folder_atomic(&RealFs, &self.folder).map_err(|error| error.to_string())
    }
}
