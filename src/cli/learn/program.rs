//! Building the check programs with cargo, and running one.
//!
//! They are built in the profile of this program, in the project's own target folder: everything below the exercises,
//! Burn above all, is compiled there already.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fornax_base::exit::Exit;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::course::{Course, Exercise};
use crate::cli::report::{Failure, say};

/// Which text of an exercise is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    /// The reader's, `src/lib.rs`.
    Mine,
    /// The shipped one with its holes.
    Start,
    /// The shipped answer.
    Solution,
}

/// What cargo made of an exercise.
#[derive(Debug)]
pub(super) enum Built {
    Program(PathBuf),
    /// It does not compile: rustc's errors.
    Broken(String),
}

/// One comparison of a check program.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Comparison {
    pub(super) name: String,
    /// `passed`, `failed` or `unwritten`.
    pub(super) outcome: String,
    pub(super) message: String,
}

/// The last line of a check program.
#[derive(Deserialize)]
struct Line {
    checks: Vec<Comparison>,
}

/// Builds the check programs of `exercises`; each by its name.
///
/// # Errors
/// When cargo is missing, or fails for another reason than a text of an exercise.
pub(super) fn build(
    course: &Course,
    exercises: &[&Exercise],
    text: Text,
) -> Result<BTreeMap<String, Built>, Failure> {
    let mut child = cargo(course, exercises, text).spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::input("cargo was not found; a check builds what you wrote")
            .hint("install Rust as https://rustup.rs says, or put cargo into PATH"),
        _ => Failure::new(Exit::Failed, anyhow::Error::new(error).context("cargo cannot be started")),
    })?;
    let mut built = BTreeMap::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Ok(message) = serde_json::from_str(&line) {
                note(&message, exercises, &mut built);
            }
        }
    }
    child.wait().map_err(|error| Failure::new(Exit::Failed, error))?;
    match exercises.iter().find(|exercise| !built.contains_key(&exercise.name)) {
        None => Ok(built),
        Some(exercise) => {
            let sentence = format!("cargo could not build what `{}` stands on", exercise.name);
            Err(Failure::new(Exit::Failed, anyhow::anyhow!(sentence))
                .hint("the reason stands above, in cargo's words"))
        }
    }
}

fn cargo(course: &Course, exercises: &[&Exercise], text: Text) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--locked", "--keep-going", "--message-format=json"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    for exercise in exercises {
        let package = exercise.package();
        match text {
            Text::Mine => {}
            Text::Start => drop(command.arg(format!("--features={package}/start"))),
            Text::Solution => drop(command.arg(format!("--features={package}/solution"))),
        }
        command.args(["--package", &package]);
    }
    // Where this program runs under `cargo run` or `cargo test`, cargo has told it about its package. Some build scripts
    // ask for the same names, and would run anew for each change of hands.
    let told =
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_", "CARGO_TARGET_TMPDIR"];
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in names.filter(|name| told.iter().any(|start| name.starts_with(start))) {
        command.env_remove(name);
    }
    command.current_dir(course.folder()).env("CARGO_TARGET_DIR", course.target());
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Takes up one of cargo's messages: a program that was made, or an error in an exercise.
fn note(message: &Value, exercises: &[&Exercise], built: &mut BTreeMap<String, Built>) {
    let Some(target) = message["target"]["name"].as_str() else { return };
    let Some(exercise) = exercises.iter().find(|exercise| exercise.package() == target) else { return };
    match message["reason"].as_str() {
        Some("compiler-artifact") => {
            if let Some(program) = message["executable"].as_str() {
                built.insert(exercise.name.clone(), Built::Program(program.into()));
            }
        }
        Some("compiler-message") if message["message"]["level"] == "error" => {
            let rendered = message["message"]["rendered"].as_str().unwrap_or_default();
            let entry = built.entry(exercise.name.clone()).or_insert_with(|| Built::Broken(String::new()));
            if let Built::Broken(text) = entry {
                *text += rendered;
            }
        }
        _ => {}
    }
}

/// Runs a check program. What the reader's code prints is passed on to stderr.
pub(super) fn run(program: &Path) -> Result<Vec<Comparison>, Failure> {
    let output = Command::new(program).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| {
        Failure::new(
            Exit::Failed,
            anyhow::Error::new(error).context(format!("`{}` cannot be run", program.display())),
        )
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (before, last) = text.trim_end().rsplit_once('\n').unwrap_or(("", &text));
    if let Some(line) = serde_json::from_str::<Line>(last).ok().filter(|_| last.starts_with("{\"fornax_learn\":"))
    {
        say(before.strip_suffix('\n').unwrap_or(before));
        return Ok(line.checks);
    }
    say(&text);
    // Out of memory, or a stack that ran over: nothing that can be caught.
    let message = format!("the check program ended before its end ({})", output.status);
    Ok(vec![Comparison { name: "all comparisons".into(), outcome: "failed".into(), message }])
}
