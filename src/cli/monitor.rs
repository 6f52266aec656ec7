//! `fornax monitor`: runs watched and steered from a process of its own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use clap::Args;
use fornax_base::exit::Exit;
use fornax_base::files::{FileError, RealFs, write_atomic_bytes};
use fornax_base::lock::FolderLock;
use fornax_train::events::TrainEvent;
use fornax_train::monitor::elapsed::Elapsed;
use fornax_train::monitor::replay::Replay;
use fornax_train::monitor::summary::Summary;
use fornax_train::monitor::tail::LogTail;
use fornax_train::monitor::{Action, Mode, Monitor as View, picture};
use fornax_train::plain::{duration, sentence};
use fornax_train::run::{EVENTS_FILE, RECIPE_FILE};
use fornax_train::tensorboard;

use super::progress::PLAIN_INTERVAL;
use super::report::{Failure, print, say, stdout_failure};
use super::screen::{self, Screen};
use super::signals;
use super::watch::{Fed, Left, Surface, send, watch};

/// How often it is looked whether a process works on a run.
const PROCESS_LOOK: Duration = Duration::from_secs(1);
/// How long a look at one log may take before the screen is drawn again.
const READING: Duration = Duration::from_millis(60);
/// How often a followed log is looked at.
const FOLLOW_LOOK: Duration = Duration::from_millis(200);

/// Watch and steer runs: loss curves, samples and more on the terminal, as PNG or for TensorBoard
#[derive(Debug, Args)]
pub(crate) struct Monitor {
    /// Run folders, or copies of their events.jsonl
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Play the logs once more instead of following them
    #[arg(long, group = "how")]
    replay: bool,
    /// With --replay: how many times as fast as the training was
    #[arg(long, value_name = "X", requires = "replay", default_value_t = 10.0)]
    speed: f64,
    /// Print events as lines until the runs end, without a screen
    #[arg(long, group = "how")]
    follow: bool,
    /// Print the state of each run as a line of JSON on stdout and end
    #[arg(long, group = "how")]
    json: bool,
    /// Draw the charts into this PNG and end
    #[arg(long, value_name = "FILE", group = "how")]
    png: Option<PathBuf>,
    /// With --png: its size in pixels
    #[arg(long, value_name = "WxH", requires = "png", default_value = "1200x900")]
    size: Size,
    /// Write TensorBoard event files below this folder, one folder for each run, and end
    #[arg(long, value_name = "DIR", group = "how")]
    tensorboard: Option<PathBuf>,
    /// Draw with plain ASCII characters
    #[arg(long)]
    ascii: bool,
}

#[derive(Debug, Clone, Copy)]
struct Size {
    width: u32,
    height: u32,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once(['x', 'X']).and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
        match parsed {
            Some((width, height)) => Ok(Size { width, height }),
            None => Err("width and height in pixels are expected, as in 1200x900".into()),
        }
    }
}

/// A run to watch.
struct Target {
    /// As the user gave it.
    name: String,
    /// Where commands go; none for a log by itself.
    folder: Option<PathBuf>,
    tail: LogTail,
}

impl Target {
    fn of(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        if path.is_file() {
            return Ok(Target { name, folder: None, tail: LogTail::new(path) });
        }
        let log = path.join(EVENTS_FILE);
        if !path.exists() {
            return Err(Failure::input(format_args!("`{name}` does not exist")));
        }
        if !log.exists() && !path.join(RECIPE_FILE).exists() {
            return Err(Failure::input(format_args!(
                "`{name}` is no run folder: it holds neither {RECIPE_FILE} nor {EVENTS_FILE}"
            )));
        }
        Ok(Target { name, folder: Some(path.to_path_buf()), tail: LogTail::new(&log) })
    }

    fn is_alive(&self) -> Option<bool> {
        self.folder.as_ref().map(|folder| FolderLock::holder(folder).is_some())
    }

    /// Reads the rest of the log.
    fn read_all(&mut self, take: &mut dyn FnMut(TrainEvent)) -> Result<(), Failure> {
        let mut unreadable = 0;
        loop {
            let news = self.tail.poll(READING).map_err(unreadable_log)?;
            unreadable += news.unreadable;
            news.events.into_iter().for_each(&mut *take);
            if !news.has_more {
                if unreadable > 0 {
                    let log = self.tail.path().display();
                    say(&format!("warning: {unreadable} lines of `{log}` are no events and were passed over\n"));
                }
                return Ok(());
            }
        }
    }
}

fn unreadable_log(error: FileError) -> Failure {
    Failure::new(Exit::BadInput, error)
}

impl Monitor {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        if !(self.speed.is_finite() && self.speed > 0.0) {
            return Err(Failure::input(format_args!(
                "--speed is {}, but a number above 0 is expected",
                self.speed
            )));
        }
        let mut targets: Vec<Target> = self.runs.iter().map(|path| Target::of(path)).collect::<Result<_, _>>()?;
        let mode = if self.replay { Mode::Replay } else { Mode::Attached };
        let mut view =
            View::new(targets.iter().map(|target| target.name.clone()), mode, screen::looks(self.ascii));
        if let Some(folder) = &self.tensorboard {
            return export(targets, folder);
        }
        let has_screen = screen::is_possible() && !self.json && !self.follow && self.png.is_none();
        if !has_screen && self.replay {
            return Err(Failure::input("a replay needs a terminal on stdout")
                .hint("without --replay the state is printed as text"));
        }
        if has_screen {
            return self.on_screen(targets, view);
        }
        for (index, target) in targets.iter_mut().enumerate() {
            target.read_all(&mut |event| view.absorb(index, &event))?;
            view.runs[index].is_alive = target.is_alive();
        }
        match &self.png {
            Some(path) => draw_png(&view, path, self.size)?,
            None => print(&states(&view, self.json))?,
        }
        if self.follow {
            follow(targets, view)?;
        }
        Ok(Exit::Done)
    }

    fn on_screen(&self, targets: Vec<Target>, mut view: View) -> Result<Exit, Failure> {
        let failed = |error: std::io::Error| Failure::new(Exit::Failed, error);
        let asked = Arc::new(AtomicUsize::new(0));
        signals::leave_through(Arc::clone(&asked))?;
        let folders: Vec<Option<PathBuf>> = targets.iter().map(|target| target.folder.clone()).collect();
        let mut player = Player { replays: Vec::new(), speed: self.speed, held: false, before: Instant::now() };
        let mut follower = Follower { targets: Vec::new(), looked: None, troubles: Vec::new() };
        match self.replay {
            true => player.replays = targets.into_iter().map(|target| Replay::new(target.tail)).collect(),
            false => follower.targets = targets,
        }
        let keys = screen::keyboard().map_err(failed)?;
        let left = {
            let mut screen = Screen::take().map_err(failed)?;
            let player = std::cell::RefCell::new(player);
            watch(
                &mut view,
                Surface { keys: &keys, draw: &mut |view| screen.draw(view) },
                &mut |view| match self.replay {
                    true => player.borrow_mut().feed(view),
                    false => follower.feed(view),
                },
                &mut |view, action| match action {
                    Action::Send(run, command) => match folders.get(run).and_then(Option::as_ref) {
                        Some(folder) => send(view, folder, command),
                        None => view.note = Some("this is a log without its run folder".into()),
                    },
                    Action::HoldReplay => player.borrow_mut().held ^= true,
                    Action::ReplaySpeed(factor) => player.borrow_mut().change_speed(factor),
                    Action::Quit | Action::Interrupt => {}
                },
                &|| asked.load(Ordering::SeqCst) != 0,
            )
        };
        Ok(match (left, asked.load(Ordering::SeqCst)) {
            (Left::Asked, 130) => Exit::Interrupted,
            (Left::Asked, 143) => Exit::Terminated,
            _ => Exit::Done,
        })
    }
}

/// Logs that grow.
struct Follower {
    targets: Vec<Target>,
    looked: Option<Instant>,
    /// What was said of a run's log, so that it is said once.
    troubles: Vec<(usize, String)>,
}

impl Follower {
    fn feed(&mut self, view: &mut View) -> Fed {
        let mut fed = Fed::Nothing;
        let look = self.looked.is_none_or(|at| at.elapsed() >= PROCESS_LOOK);
        for index in 0..self.targets.len() {
            let target = &mut self.targets[index];
            if look {
                let is_alive = target.is_alive();
                if is_alive != view.runs[index].is_alive {
                    view.runs[index].is_alive = is_alive;
                    fed = Fed::News;
                }
            }
            let trouble = match target.tail.poll(READING) {
                Err(error) => Some(error.to_string()),
                Ok(news) => {
                    if news.begins_anew {
                        view.forget(index);
                        self.troubles.retain(|(of, _)| *of != index);
                    }
                    if !news.events.is_empty() || news.begins_anew {
                        fed = Fed::News;
                    }
                    news.events.iter().for_each(|event| view.absorb(index, event));
                    match (news.is_absent, news.unreadable) {
                        (true, _) => Some("the log is not there; what was read of it is shown".to_owned()),
                        (_, 0) => None,
                        _ => Some("the log holds lines that are no events of this version".to_owned()),
                    }
                }
            };
            if let Some(trouble) = trouble.filter(|text| !self.troubles.contains(&(index, text.clone()))) {
                view.warn(index, trouble.clone());
                self.troubles.push((index, trouble));
                fed = Fed::News;
            }
        }
        if look {
            self.looked = Some(Instant::now());
        }
        fed
    }
}

/// Logs being replayed.
struct Player {
    replays: Vec<Replay>,
    speed: f64,
    held: bool,
    before: Instant,
}

impl Player {
    fn feed(&mut self, view: &mut View) -> Fed {
        let passed = self.before.elapsed().as_secs_f64();
        self.before = Instant::now();
        let seconds = if self.held { 0.0 } else { passed * self.speed };
        let mut fed = Fed::Nothing;
        for (index, replay) in self.replays.iter_mut().enumerate() {
            match replay.advance(seconds) {
                Ok(events) => {
                    events.iter().for_each(|event| view.absorb(index, event));
                    if !events.is_empty() {
                        fed = Fed::News;
                    }
                }
                Err(error) => view.note = Some(error.to_string()),
            }
        }
        let now = self.replays.iter().map(Replay::now).fold(0.0, f64::max);
        let how = match (self.replays.iter().all(Replay::is_over), self.held) {
            (true, _) => "over",
            (_, true) => "held",
            _ => "playing",
        };
        view.state = Some(format!(
            "replay x{}, {how} at {}   (space holds, < > change the speed, q leaves)",
            self.speed,
            duration(now)
        ));
        fed
    }

    fn change_speed(&mut self, factor: f64) {
        self.speed = (self.speed * factor).clamp(1.0 / 1024.0, 1_048_576.0);
    }
}

/// The state of each run, a line each.
fn states(view: &View, json: bool) -> String {
    let line = |run| {
        let summary = Summary::of(run);
        // Strings and finite numbers always serialize.
        if json { serde_json::to_string(&summary).unwrap_or_default() } else { summary.line() }
    };
    view.runs.iter().map(|run| line(run) + "\n").collect()
}

/// Prints events as lines until every run is over or has no process.
fn follow(mut targets: Vec<Target>, mut view: View) -> Result<(), Failure> {
    let is_alone = targets.len() == 1;
    let mut out = std::io::stdout();
    let mut step_said = vec![None::<Instant>; targets.len()];
    loop {
        let is_over = |(target, run): (&Target, &fornax_train::monitor::view::Watched)| {
            run.history.phase.is_over() || target.is_alive() != Some(true)
        };
        // Asked before the last look, so that nothing written at the end is missed.
        let over = targets.iter().zip(&view.runs).all(is_over);
        for (index, target) in targets.iter_mut().enumerate() {
            let name = if is_alone { String::new() } else { format!("{}: ", target.name) };
            let news = target.tail.poll(READING).map_err(unreadable_log)?;
            if news.begins_anew {
                // A resume: what it kept was said before.
                let kept = view.runs[index].history.step;
                view.forget(index);
                news.events.iter().for_each(|event| view.absorb(index, event));
                writeln!(out, "{name}the log was cut back at or before step {kept}").map_err(stdout_failure)?;
                continue;
            }
            for event in news.events {
                view.absorb(index, &event);
                if let TrainEvent::Step { .. } = event {
                    if step_said[index].is_some_and(|at| at.elapsed() < PLAIN_INTERVAL) {
                        continue;
                    }
                    step_said[index] = Some(Instant::now());
                }
                writeln!(out, "{name}{}", sentence(&event)).map_err(stdout_failure)?;
            }
        }
        out.flush().map_err(stdout_failure)?;
        if over {
            return print(&states(&view, false));
        }
        std::thread::sleep(FOLLOW_LOOK);
    }
}

fn draw_png(view: &View, path: &Path, size: Size) -> Result<(), Failure> {
    let runs: Vec<_> = view.runs.iter().map(|run| (run.name.as_str(), &run.history)).collect();
    let bytes = picture::png(&runs, &view.view(), size.width, size.height).map_err(|error| {
        let exit = if matches!(error, picture::PictureError::Size { .. }) { Exit::BadInput } else { Exit::Failed };
        Failure::new(exit, error)
    })?;
    write_atomic_bytes(&RealFs, path, &bytes).map_err(|error| Failure::new(Exit::BadInput, error))?;
    say(&format!("wrote {}\n", path.display()));
    Ok(())
}

/// Writes the event files of each run into a folder of its name.
fn export(targets: Vec<Target>, folder: &Path) -> Result<Exit, Failure> {
    let mut taken: Vec<String> = Vec::new();
    for target in targets {
        let log = target.tail.path().to_path_buf();
        let place = target.folder.as_deref().unwrap_or(&log);
        // `.` has no name of its own.
        let full = std::path::absolute(place).unwrap_or_else(|_| place.to_path_buf());
        let base = full.file_stem().map_or("run".into(), |name| name.to_string_lossy().into_owned());
        let mut name = base.clone();
        for number in 2.. {
            if !taken.contains(&name) {
                break;
            }
            name = format!("{base}-{number}");
        }
        let into = folder.join(&name);
        taken.push(name);
        export_one(target, &into)?;
    }
    Ok(Exit::Done)
}

fn export_one(mut target: Target, into: &Path) -> Result<(), Failure> {
    let log = target.tail.path().to_path_buf();
    // The log carries no clock: its last change is the end, and the rates tell how long it took.
    let mut whole = Elapsed::default();
    let mut seconds = 0.0;
    target.read_all(&mut |event| seconds = whole.after(&event))?;
    let changed = std::fs::metadata(&log).and_then(|about| about.modified()).ok();
    let end = changed.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map_or(0.0, |since| since.as_secs_f64());
    let mut elapsed = Elapsed::default();
    let mut events = LogEvents { tail: LogTail::new(&log), waiting: Vec::new().into_iter(), is_read: false };
    let mut timed = events.by_ref().map(|event| {
        let event = event.map_err(std::io::Error::other)?;
        Ok::<_, std::io::Error>((end - seconds + elapsed.after(&event), event))
    });
    let path =
        tensorboard::export(&RealFs, into, &mut timed).map_err(|error| Failure::new(Exit::BadInput, error))?;
    say(&format!("wrote {}\n", path.display()));
    Ok(())
}

/// The events of a log one by one, read in parts.
struct LogEvents {
    tail: LogTail,
    waiting: std::vec::IntoIter<TrainEvent>,
    is_read: bool,
}

impl Iterator for LogEvents {
    type Item = Result<TrainEvent, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(event) = self.waiting.next() {
                return Some(Ok(event));
            }
            if self.is_read {
                return None;
            }
            match self.tail.poll(READING) {
                Ok(news) => (self.waiting, self.is_read) = (news.events.into_iter(), !news.has_more),
                Err(error) => {
                    self.is_read = true;
                    return Some(Err(error));
                }
            }
        }
    }
}
