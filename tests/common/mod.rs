//! The real program as a child process, with a tiny recipe that trains in about a second.

#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::print_stdout, reason = "a test that is passed over says so")]

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub(crate) mod terminal;

/// Longer than anything here takes, on a busy machine too: what passes it hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// A model of 40 thousand parameters, checkpoints every 5 steps, validation and samples.
pub(crate) const TINY: &str = r#"# fornax train tiny.toml
[model]
n_layers = 2
n_heads = 2
width = 32

[tokenizer]
kind = "bpe"
vocab_size = 400

[data]
source = "corpus"
corpus_bytes = 200_000
packing = "documents"

[train]
steps = 60
context = 32
batch = 4

[optimizer]
lr = 3e-3

[schedule]
kind = "cosine"
warmup_steps = 5

[eval]
every = 20
tokens = 1024
sample_every = 30
sample_tokens = 8
prompts = ["One day, "]

[checkpoint]
every = 5
"#;

/// The figure of a pull request, or of a night with `FORNAX_TEST_SCALE=nightly`.
pub(crate) fn scale(pull_request: u32, nightly: u32) -> u32 {
    match std::env::var("FORNAX_TEST_SCALE").as_deref() {
        Ok("nightly") => nightly,
        _ => pull_request,
    }
}

/// The program with these arguments, nothing on stdin.
pub(crate) fn fornax<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fornax"));
    command.args(arguments).stdin(Stdio::null());
    for variable in ["NO_COLOR", "CLICOLOR_FORCE", "COLUMNS", "RUST_BACKTRACE"] {
        command.env_remove(variable);
    }
    command
}

/// What a finished child left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// The exit code; `None` when a signal ended it.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Whether the end was this signal itself.
    pub(crate) fn was_ended_by(&self, signal: Signal) -> bool {
        self.status.signal() == Some(signal.as_raw())
    }

    /// Asserts the exit code, showing everything when it is another.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Ran {
        assert_eq!(self.code(), Some(code), "{self:#?}");
        self
    }

    /// Asserts that stderr holds each of `words`.
    #[track_caller]
    pub(crate) fn says(self, words: &[&str]) -> Ran {
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is not in {self:#?}");
        }
        self
    }

    /// Asserts what the contract promises of every wrong input: exit 2, an `error:` sentence, nothing on stdout.
    #[track_caller]
    pub(crate) fn refuses(self, words: &[&str]) -> Ran {
        let ran = self.exits(2).says(words);
        assert!(ran.stderr.lines().any(|line| line.starts_with("error: ")), "{ran:#?}");
        assert_eq!(ran.stdout, "", "{ran:#?}");
        ran
    }
}

/// Runs to the end. No output may hold an escape code or speak of a panic.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Ran {
    Live::start(command).finish()
}

/// A running child whose output is read on threads, so that it never waits for us.
pub(crate) struct Live {
    child: Child,
    lines: Receiver<String>,
    seen: String,
    stdout: Option<JoinHandle<Vec<u8>>>,
    generates: bool,
}

impl Live {
    pub(crate) fn start(command: &mut Command) -> Live {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        });
        let stdout = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stdout.read_to_end(&mut bytes);
            bytes
        });
        let generates = command.get_args().any(|argument| argument == "generate");
        Live { child, lines, seen: String::new(), stdout: Some(stdout), generates }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of stderr that holds `word`.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, word: &str) -> String {
        match self.wait_for_or_end(word) {
            Some(line) => line,
            None => panic!("the program ended before `{word}`:\n{}", self.seen),
        }
    }

    /// The same; `None` when the program ends before.
    #[track_caller]
    pub(crate) fn wait_for_or_end(&mut self, word: &str) -> Option<String> {
        let until = Instant::now() + LIMIT;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen += &line;
                    self.seen.push('\n');
                    if line.contains(word) {
                        return Some(line);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => panic!("no `{word}` within {LIMIT:?}:\n{}", self.seen),
            }
        }
    }

    /// Sends a signal; false when the child had already ended.
    pub(crate) fn signal(&mut self, signal: Signal) -> bool {
        if self.child.try_wait().unwrap().is_some() {
            return false;
        }
        let pid = Pid::from_raw(self.child.id() as i32).unwrap();
        kill_process(pid, signal).is_ok()
    }

    /// Whether the child ends within `time`.
    pub(crate) fn ends_within(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while self.child.try_wait().unwrap().is_none() {
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    #[track_caller]
    pub(crate) fn finish(mut self) -> Ran {
        if !self.ends_within(LIMIT) {
            while let Ok(line) = self.lines.try_recv() {
                self.seen += &(line + "\n");
            }
            panic!("the program hangs after:\n{}", self.seen);
        }
        let status = self.child.wait().unwrap();
        let bytes = self.stdout.take().unwrap().join().unwrap();
        let stdout = String::from_utf8(bytes).expect("stdout is UTF-8");
        while let Ok(line) = self.lines.recv() {
            self.seen += &(line + "\n");
        }
        let ran = Ran { status, stdout, stderr: std::mem::take(&mut self.seen) };
        for text in [&ran.stdout, &ran.stderr] {
            // What a model generates is data, whatever it holds.
            let is_data = self.generates && std::ptr::eq(text, &ran.stdout);
            assert!(is_data || !text.contains('\x1b'), "an escape code outside a terminal: {ran:#?}");
            assert!(!text.contains("panicked") && !text.contains("this is a bug"), "{ran:#?}");
        }
        ran
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder of the test, removed at its end.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Writes [`TINY`] into `folder`.
pub(crate) fn tiny_recipe(folder: &Path) -> PathBuf {
    let path = folder.join("tiny.toml");
    fs::write(&path, TINY).unwrap();
    path
}

/// `fornax train RECIPE --run RUN --set ...`.
pub(crate) fn train(recipe: &Path, run: &Path, sets: &[&str]) -> Command {
    let mut command = fornax([OsStr::new("train"), recipe.as_os_str(), OsStr::new("--run"), run.as_os_str()]);
    for set in sets {
        command.args(["--set", set]);
    }
    command
}

/// `fornax train --resume RUN --set ...`.
pub(crate) fn resume(run: &Path, sets: &[&str]) -> Command {
    let mut command = fornax([OsStr::new("train"), OsStr::new("--resume"), run.as_os_str()]);
    for set in sets {
        command.args(["--set", set]);
    }
    command
}

/// `fornax generate --model MODEL ARGUMENTS`.
pub(crate) fn generate(model: &Path, arguments: &[&str]) -> Command {
    let mut command = fornax([OsStr::new("generate"), OsStr::new("--model"), model.as_os_str()]);
    command.args(arguments);
    command
}

/// Copies a folder.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Changes one bit of a file.
pub(crate) fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Every path below `folder`, relative, sorted; folders that vanish meanwhile are empty.
pub(crate) fn paths_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for path in fs::read_dir(next).into_iter().flatten().flatten().map(|entry| entry.path()) {
            found.push(path.strip_prefix(folder).unwrap().display().to_string());
            if path.is_dir() {
                open.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Data shared with the repository; `None` (said, or fatal where data is required) when it is absent.
pub(crate) fn shared_data(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    if path.exists() {
        return Some(path);
    }
    assert_ne!(std::env::var("FORNAX_REQUIRE_DATA").as_deref(), Ok("1"), "{name} is absent");
    println!("passed over: {name} is absent");
    None
}
