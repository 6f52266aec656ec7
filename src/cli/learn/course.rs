//! The folder of the exercises, found from the current folder upwards.

use std::path::{Path, PathBuf};

use fornax_base::exit::Exit;
use fornax_base::files::read_text_limited;
use fornax_base::recipe::did_you_mean;
use serde::Serialize;

use super::progress::Progress;
use crate::cli::report::Failure;

/// Longest text of an exercise that is read.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// All exercises.
#[derive(Debug)]
pub(super) struct Course {
    folder: PathBuf,
    exercises: Vec<Exercise>,
}

/// One exercise: a crate in a folder `NN-name`.
#[derive(Debug)]
pub(super) struct Exercise {
    /// `03-rms-norm`.
    pub(super) name: String,
    /// The heading of its page without the number.
    pub(super) title: String,
    folder: PathBuf,
}

/// How far a reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// As shipped.
    Untouched,
    /// Changed, and not passed as it stands.
    Started,
    /// This text passed its last check.
    Passed,
}

impl State {
    pub(super) fn word(self) -> &'static str {
        match self {
            State::Untouched => "untouched",
            State::Started => "started",
            State::Passed => "passed",
        }
    }
}

impl Course {
    /// The course in `dir`, or in the nearest folder from the current one upwards.
    pub(super) fn find(dir: Option<&Path>) -> Result<Self, Failure> {
        let hint = "the exercises come with the source: run this in its folder, or say --dir PATH/docs/learn";
        let folder = match dir {
            Some(dir) => course_in(dir).ok_or_else(|| {
                Failure::input(format_args!("`{}` holds no exercises", dir.display())).hint(hint)
            })?,
            None => {
                let here = std::env::current_dir().map_err(|error| Failure::new(Exit::Failed, error))?;
                here.ancestors().find_map(course_in).ok_or_else(|| {
                    let above = format!("no docs/learn was found in `{}` or above it", here.display());
                    Failure::input(above).hint(hint)
                })?
            }
        };
        let exercises = exercise_folders(&folder).into_iter().map(Exercise::open).collect::<Result<_, _>>()?;
        Ok(Self { folder, exercises })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn exercises(&self) -> &[Exercise] {
        &self.exercises
    }

    /// The exercise of this number (`3`, `03`) or name (`03-rms-norm`, `rms-norm`).
    pub(super) fn pick(&self, word: &str) -> Result<&Exercise, Failure> {
        let number: Option<u32> = word.parse().ok();
        let is_it = |exercise: &&Exercise| match number {
            Some(number) => exercise.number().parse() == Ok(number),
            None => exercise.name == word || exercise.name.split_once('-').is_some_and(|(_, name)| name == word),
        };
        self.exercises.iter().find(is_it).ok_or_else(|| self.unknown(word, number))
    }

    fn unknown(&self, word: &str, number: Option<u32>) -> Failure {
        let numbers: Vec<&str> = self.exercises.iter().map(Exercise::number).collect();
        let (first, last) = (numbers.first().unwrap_or(&""), numbers.last().unwrap_or(&""));
        let shown: String = word.chars().filter(|c| !c.is_control()).take(64).collect();
        let failure = Failure::input(format_args!("`{shown}` is no exercise; there are {first} to {last}"));
        let names = self.exercises.iter().flat_map(|e| [e.name.clone(), e.name[3..].to_owned()]);
        let hint = match number {
            Some(0) => Some(format!("did you mean `{first}`?")),
            Some(_) => Some(format!("did you mean `{last}`?")),
            None => did_you_mean(word, &names.chain(["all".to_owned()]).collect::<Vec<_>>()),
        };
        failure.hint(hint.unwrap_or_else(|| "`fornax learn list` lists them".into()))
    }

    /// How far the reader is with `exercise`.
    pub(super) fn state(&self, exercise: &Exercise) -> Result<State, Failure> {
        if !exercise.source().exists() {
            return Ok(State::Untouched);
        }
        let written = exercise.read("src/lib.rs")?;
        if written == exercise.read("start/lib.rs")? {
            return Ok(State::Untouched);
        }
        match self.progress(exercise).has_passed(&written) {
            true => Ok(State::Passed),
            false => Ok(State::Started),
        }
    }

    /// What earlier checks of `exercise` recorded.
    pub(super) fn progress(&self, exercise: &Exercise) -> Progress {
        Progress::of(&self.target(), &self.folder, &exercise.name)
    }

    /// Where cargo builds: the folder of the whole project, so that nothing is built twice.
    pub(super) fn target(&self) -> PathBuf {
        let named = std::env::var_os("CARGO_TARGET_DIR").filter(|name| !name.is_empty());
        let folder = named.map_or_else(|| self.folder.join("../../target"), PathBuf::from);
        std::path::absolute(&folder).unwrap_or(folder)
    }
}

/// `folder` itself or its docs/learn, where it holds exercises; without links and dots.
fn course_in(folder: &Path) -> Option<PathBuf> {
    let candidates = [folder.to_path_buf(), folder.join("docs/learn")];
    let found =
        candidates.into_iter().find(|f| f.join("Cargo.toml").is_file() && !exercise_folders(f).is_empty())?;
    found.canonicalize().ok()
}

/// Folders named `NN-...` with a text to start from, in order.
fn exercise_folders(course: &Path) -> Vec<PathBuf> {
    let is_exercise = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().as_bytes();
        let numbered = name.len() > 3 && name[..2].iter().all(u8::is_ascii_digit) && name[2] == b'-';
        numbered && name.is_ascii() && path.join("start/lib.rs").is_file()
    };
    let entries = std::fs::read_dir(course).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_exercise).collect();
    folders.sort();
    folders
}

impl Exercise {
    fn open(folder: PathBuf) -> Result<Self, Failure> {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let mut exercise = Self { name, title: String::new(), folder };
        let page = exercise.read("README.md")?;
        let heading = page.lines().next().unwrap_or_default().trim_start_matches(['#', ' ']);
        exercise.title = heading.trim_start_matches(exercise.number()).trim().to_owned();
        Ok(exercise)
    }

    /// `03`.
    pub(super) fn number(&self) -> &str {
        &self.name[..2]
    }

    /// Its package.
    pub(super) fn package(&self) -> String {
        format!("learn-{}", self.name)
    }

    /// What the reader writes.
    pub(super) fn source(&self) -> PathBuf {
        self.folder.join("src/lib.rs")
    }

    /// The text of one of its files.
    pub(super) fn read(&self, name: &str) -> Result<String, Failure> {
        read_text_limited(&self.folder.join(name), MAX_TEXT_BYTES).map_err(|error| {
            Failure::new(Exit::BadInput, error).hint("`git checkout docs/learn` brings back what is missing")
        })
    }

    /// The hint of this level: 1 asks, 2 points, 3 tells.
    pub(super) fn hint(&self, level: u8) -> Result<String, Failure> {
        let page = self.read("hints.md")?;
        let heading = format!("## {level}\n");
        let part = page.split_once(&heading).map_or("", |(_, rest)| rest);
        Ok(part.split("\n## ").next().unwrap_or_default().trim().to_owned())
    }
}
