//! `fornax learn check`: builds what the reader wrote, compares, and gives the hint that is due.

use clap::Args;
use fornax_base::exit::Exit;
use serde::Serialize;

use super::course::{Course, Exercise};
use super::program::{self, Built, Comparison, Text};
use super::{Place, json};
use crate::cli::report::{Failure, print, say};

/// Build an exercise and compare its functions with Fornax's
#[derive(Debug, Args)]
pub(super) struct Check {
    /// Number or name of the exercise, for example 03, or all
    #[arg(value_name = "EXERCISE|all")]
    exercise: String,
    /// Compare the shipped answer instead of what you wrote
    #[arg(long)]
    solution: bool,
    /// Compare the shipped text with its holes instead of what you wrote
    #[arg(long, conflicts_with = "solution")]
    start: bool,
    #[command(flatten)]
    place: Place,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What became of an exercise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Passed,
    Failed,
    /// A hole is left.
    Unwritten,
    /// It does not compile.
    Broken,
}

#[derive(Serialize)]
struct Finding<'a> {
    number: &'a str,
    name: &'a str,
    title: &'a str,
    state: Verdict,
    checks: Vec<Comparison>,
    /// rustc's errors, where it does not compile.
    compiler: Option<String>,
    hint: Option<Hint>,
}

#[derive(Serialize)]
struct Hint {
    level: u8,
    text: String,
}

#[derive(Serialize)]
struct Report<'a> {
    passed: bool,
    exercises: Vec<Finding<'a>>,
}

impl Check {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let course = self.place.open()?;
        let exercises: Vec<&Exercise> = match self.exercise.as_str() {
            "all" => course.exercises().iter().collect(),
            word => vec![course.pick(word)?],
        };
        let text = match (self.solution, self.start) {
            (true, _) => Text::Solution,
            (_, true) => Text::Start,
            _ => Text::Mine,
        };
        // Read before the build: what is recorded is the text that was compared.
        let written = written(&exercises, text)?;
        let mut built = program::build(&course, &exercises, text)?;
        let mut findings = Vec::new();
        for (exercise, written) in exercises.iter().zip(written) {
            let mut finding = find(exercise, built.remove(&exercise.name))?;
            if let Some(written) = written {
                finding.hint = record(&course, exercise, finding.state, &written)?;
            }
            findings.push(finding);
        }
        let passed = findings.iter().all(|finding| finding.state == Verdict::Passed);
        let report = Report { passed, exercises: findings };
        match (self.json, report.exercises.as_slice()) {
            (true, _) => print(&(json(&report)? + "\n"))?,
            (false, [finding]) => print(&one(finding))?,
            (false, all) => print(&all.iter().map(short).collect::<String>())?,
        }
        if passed { Ok(Exit::Done) } else { Err(not_passed(&report)) }
    }
}

/// What the reader wrote in each exercise; nothing where a shipped text is compared.
fn written(exercises: &[&Exercise], text: Text) -> Result<Vec<Option<String>>, Failure> {
    let read = |exercise: &&Exercise| match text {
        Text::Mine => exercise.read("src/lib.rs").map(Some),
        Text::Start | Text::Solution => Ok(None),
    };
    exercises.iter().map(read).collect()
}

fn find<'a>(exercise: &'a Exercise, built: Option<Built>) -> Result<Finding<'a>, Failure> {
    let (checks, compiler) = match built {
        Some(Built::Program(program)) => (program::run(&program)?, None),
        Some(Built::Broken(errors)) => (Vec::new(), Some(errors)),
        None => (Vec::new(), Some(String::new())),
    };
    let any = |outcome: &str| checks.iter().any(|check| check.outcome == outcome);
    let state = match &compiler {
        Some(_) => Verdict::Broken,
        None if any("failed") || checks.is_empty() => Verdict::Failed,
        None if any("unwritten") => Verdict::Unwritten,
        None => Verdict::Passed,
    };
    let (number, name, title) = (exercise.number(), exercise.name.as_str(), exercise.title.as_str());
    Ok(Finding { number, name, title, state, checks, compiler, hint: None })
}

/// Records the outcome and gives the hint that is due. Errors of the compiler explain themselves.
fn record(course: &Course, exercise: &Exercise, state: Verdict, written: &str) -> Result<Option<Hint>, Failure> {
    let progress = course.progress(exercise);
    let level = match state {
        Verdict::Passed => return progress.pass(written).map(|()| None),
        Verdict::Broken => return Ok(None),
        Verdict::Unwritten => 1,
        Verdict::Failed => progress.fail(written)?,
    };
    Ok(Some(Hint { level, text: exercise.hint(level)? }))
}

/// All comparisons of one exercise.
fn one(finding: &Finding<'_>) -> String {
    let mut text = format!("{} {}\n\n", finding.number, finding.title);
    for check in &finding.checks {
        text += &format!("  {:<9}  {}\n             {}\n", check.outcome, check.name, check.message);
    }
    if let Some(errors) = &finding.compiler {
        say(errors);
        text += "  broken     it does not compile\n";
    }
    text
}

/// One line, and the first comparison that did not pass.
fn short(finding: &Finding<'_>) -> String {
    let word = match finding.state {
        Verdict::Passed => "passed",
        Verdict::Failed => "failed",
        Verdict::Unwritten => "unwritten",
        Verdict::Broken => "broken",
    };
    let mut text = format!("{}  {word:<9}  {}\n", finding.number, finding.title);
    if let (Verdict::Failed, Some(check)) = (finding.state, finding.checks.iter().find(|c| c.outcome == "failed"))
    {
        text += &format!("               {}: {}\n", check.name, check.message);
    }
    text
}

fn not_passed(report: &Report<'_>) -> Failure {
    let failure = |sentence: String| Failure::new(Exit::GateNotMet, anyhow::anyhow!(sentence));
    let [finding] = report.exercises.as_slice() else {
        let all = report.exercises.len();
        let open: Vec<&Finding<'_>> = report.exercises.iter().filter(|f| f.state != Verdict::Passed).collect();
        let next = open.first().map_or("01", |finding| finding.number);
        return failure(format!("{} of {all} exercises are not passed", open.len()))
            .hint(format!("`fornax learn check {next}` tells more"));
    };
    let (number, all) = (finding.number, finding.checks.len());
    let open = finding.checks.iter().filter(|check| check.outcome != "passed").count();
    let failure = match finding.state {
        Verdict::Broken => failure(format!("exercise {number} does not compile")),
        Verdict::Unwritten => {
            failure(format!("exercise {number} has a hole left; {open} of {all} comparisons wait"))
        }
        _ => failure(format!("exercise {number} is not passed: {open} of {all} comparisons differ")),
    };
    match &finding.hint {
        Some(Hint { level, text }) if *level < 3 => {
            failure.hint(format!("{text}\n\n(`fornax learn show {number} --hint {}` tells more)", level + 1))
        }
        Some(Hint { text, .. }) => {
            failure.hint(format!("{text}\n\n(`fornax learn show {number} --solution` is the answer)"))
        }
        None => failure,
    }
}
