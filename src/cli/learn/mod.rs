//! `fornax learn`: the exercises of docs/learn, each compared with the module it explains.

mod check;
mod course;
mod page;
mod program;
mod progress;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use fornax_base::exit::Exit;
use fornax_base::files::{FileError, RealFs, write_atomic_bytes};
use serde::Serialize;

use super::report::{Failure, print, say};
use course::{Course, Exercise, State};

/// Write the parts of a language model yourself and compare them with Fornax's own
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Learn {
    #[command(subcommand)]
    command: LearnCommand,
}

#[derive(Debug, Subcommand)]
enum LearnCommand {
    /// List the exercises and how far you are
    List(List),
    /// Print the page of an exercise, a hint, or the answer
    Show(Show),
    /// Build an exercise and compare its functions with Fornax's
    Check(check::Check),
    /// Put an exercise back as it was; what you wrote is kept beside it
    Reset(Reset),
}

impl Learn {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        match self.command {
            LearnCommand::List(command) => command.run(),
            LearnCommand::Show(command) => command.run(),
            LearnCommand::Check(command) => command.run(),
            LearnCommand::Reset(command) => command.run(),
        }
    }
}

/// Where the exercises are, the same for every command of the group.
#[derive(Debug, Args)]
struct Place {
    /// The folder docs/learn or the source folder above it; default: looked for from here upwards
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Place {
    fn open(&self) -> Result<Course, Failure> {
        Course::find(self.dir.as_deref())
    }
}

/// List the exercises and how far you are
#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    place: Place,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listed<'a> {
    folder: String,
    exercises: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    number: &'a str,
    name: &'a str,
    title: &'a str,
    state: State,
}

impl List {
    fn run(self) -> Result<Exit, Failure> {
        let course = self.place.open()?;
        let line = |exercise: &'_ Exercise| -> Result<State, Failure> { course.state(exercise) };
        let states = course.exercises().iter().map(line).collect::<Result<Vec<_>, Failure>>()?;
        let lines = course.exercises().iter().zip(states).map(|(e, state)| Line {
            number: e.number(),
            name: &e.name,
            title: &e.title,
            state,
        });
        let listed = Listed { folder: course.folder().display().to_string(), exercises: lines.collect() };
        if self.json {
            print(&(json(&listed)? + "\n"))?;
            return Ok(Exit::Done);
        }
        let mut text = format!("{}\n\n", listed.folder);
        for line in &listed.exercises {
            text += &format!("{}  {:<9}  {}\n", line.number, line.state.word(), line.title);
        }
        print(&text)?;
        say("\n`fornax learn show 01` prints a page; write in its src/lib.rs; `fornax learn check 01` compares\n");
        Ok(Exit::Done)
    }
}

/// Print the page of an exercise, a hint, or the answer
#[derive(Debug, Args)]
struct Show {
    /// Number or name of the exercise, for example 03
    #[arg(value_name = "EXERCISE")]
    exercise: String,
    /// Print this hint instead: 1 asks, 2 points, 3 tells
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=3))]
    hint: Option<u8>,
    /// Print the answer instead
    #[arg(long, conflicts_with = "hint")]
    solution: bool,
    #[command(flatten)]
    place: Place,
}

impl Show {
    fn run(self) -> Result<Exit, Failure> {
        let course = self.place.open()?;
        let exercise = course.pick(&self.exercise)?;
        let text = match self.hint {
            Some(level) => exercise.hint(level)? + "\n",
            None if self.solution => exercise.read("solution/lib.rs")?,
            None => {
                let number = exercise.number();
                page::plain(&exercise.read("README.md")?)
                    + &format!("\nwrite here:  {}\n", exercise.source().display())
                    + &format!("compare:     fornax learn check {number}\n")
                    + &format!("hints:       fornax learn show {number} --hint 1, then 2, then 3\n")
                    + &format!("answer:      fornax learn show {number} --solution\n")
            }
        };
        print(&text)?;
        Ok(Exit::Done)
    }
}

/// Put an exercise back as it was; what you wrote is kept beside it
#[derive(Debug, Args)]
struct Reset {
    /// Number or name of the exercise, for example 03
    #[arg(value_name = "EXERCISE")]
    exercise: String,
    #[command(flatten)]
    place: Place,
}

impl Reset {
    fn run(self) -> Result<Exit, Failure> {
        let course = self.place.open()?;
        let exercise = course.pick(&self.exercise)?;
        let (source, start) = (exercise.source(), exercise.read("start/lib.rs")?);
        let failed = |error: FileError| Failure::new(Exit::Failed, error);
        course.progress(exercise).forget_failures()?;
        if source.exists() {
            let written = exercise.read("src/lib.rs")?;
            if written == start {
                say(&format!("`{}` is as it was shipped\n", source.display()));
                return Ok(Exit::Done);
            }
            let backup = unused(&source);
            write_atomic_bytes(&RealFs, &backup, written.as_bytes()).map_err(failed)?;
            say(&format!("what you wrote is in `{}`\n", backup.display()));
        }
        write_atomic_bytes(&RealFs, &source, start.as_bytes()).map_err(failed)?;
        say(&format!("`{}` is as it was shipped\n", source.display()));
        Ok(Exit::Done)
    }
}

/// `lib.rs.bak`, or with a number behind it where that is taken: no backup is written over.
fn unused(source: &std::path::Path) -> PathBuf {
    let plain = source.with_extension("rs.bak");
    let numbered = (2..).map(|n| source.with_extension(format!("rs.bak{n}")));
    std::iter::once(plain).chain(numbered).find(|path| !path.exists()).unwrap_or_default()
}

fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::new(Exit::Failed, error))
}
