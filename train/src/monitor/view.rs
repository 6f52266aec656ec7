//! The state of the monitor: its runs, what is shown of them, and what keys do

use std::ops::RangeInclusive;

use crate::control::{Command, LrFactor};
use crate::events::TrainEvent;

use super::chart::{Looks, View};
use super::history::{History, Phase, Weight};
use super::keys::Key;
use super::panels::{self, Panel};

/// Moving averages to choose from: what the past counts at each point.
const SMOOTHINGS: [f64; 5] = [0.9, 0.98, 0.995, 0.0, 0.6];

/// The least number of steps a zoom shows.
const LEAST_STEPS: f64 = 10.0;

/// The longest factor that can be typed.
const LONGEST_INPUT: usize = 12;

/// Where the monitor runs, which decides what leaving it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In a process of its own: leaving leaves the training alone.
    Attached,
    /// In the training process: leaving stops the run after saving.
    Training,
    /// A log played once more: nothing can be told to a run.
    Replay,
}

/// What a key asks the program to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Action {
    /// Leave the monitor.
    Quit,
    /// Stop the run of this process after saving, as a signal does; the second time at once.
    Interrupt,
    /// Send a command to the run at this place of the list.
    Send(usize, Command),
    /// Hold the replay, or let it go on.
    HoldReplay,
    /// Multiply the speed of the replay.
    ReplaySpeed(f64),
}

/// A run on the screen.
#[derive(Debug, Clone)]
pub struct Watched {
    /// Its name on the screen.
    pub name: String,
    /// What its events told.
    pub history: History,
    /// Whether a process works on it; `None` where that is not known.
    pub is_alive: Option<bool>,
}

/// What waits for an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Question {
    /// Stop the selected run?
    Stop,
    /// Leave, which stops the run?
    Leave,
    /// Which factor? With what was typed so far.
    Factor(String),
}

/// A part of the screen that can be hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pane {
    /// The chart with this title.
    Chart(&'static str),
    /// Generated texts.
    Texts,
    /// Messages.
    Messages,
}

/// Steps shown when zoomed.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Window {
    width: f64,
    /// The right edge; `None` follows the newest step.
    end: Option<f64>,
}

/// The monitor.
#[derive(Debug, Clone)]
pub struct Monitor {
    /// The runs, in the order they were given.
    pub runs: Vec<Watched>,
    /// The run whose texts and messages are shown, and which commands go to.
    pub selected: usize,
    /// What the terminal can show.
    pub looks: Looks,
    /// Where the monitor runs.
    pub mode: Mode,
    /// What stands in the last line, once.
    pub note: Option<String>,
    /// What stands in the last line for as long as it holds: how a replay goes.
    pub state: Option<String>,
    /// What waits for an answer.
    pub question: Option<Question>,
    /// Whether the list of keys is shown.
    pub shows_help: bool,
    /// Panes shown against their default, or hidden.
    toggled: Vec<Pane>,
    window: Option<Window>,
    smoothing: usize,
    log: bool,
    /// Messages scrolled away at the bottom.
    pub scrolled: usize,
}

impl Monitor {
    /// A monitor of runs by their names.
    pub fn new(names: impl IntoIterator<Item = String>, mode: Mode, looks: Looks) -> Self {
        let watched = |name| Watched { name, history: History::new(), is_alive: None };
        Monitor {
            runs: names.into_iter().map(watched).collect(),
            selected: 0,
            looks,
            mode,
            note: None,
            state: None,
            question: None,
            shows_help: false,
            toggled: Vec::new(),
            window: None,
            smoothing: 0,
            log: false,
            scrolled: 0,
        }
    }

    /// Takes an event of a run in.
    pub fn absorb(&mut self, run: usize, event: &TrainEvent) {
        if let Some(watched) = self.runs.get_mut(run) {
            watched.history.absorb(event);
        }
    }

    /// Forgets what was read of a run, whose log begins anew.
    pub fn forget(&mut self, run: usize) {
        if let Some(watched) = self.runs.get_mut(run) {
            watched.history = History::new();
        }
    }

    /// Adds a warning of the monitor's own to a run's messages.
    pub fn warn(&mut self, run: usize, message: String) {
        if let Some(watched) = self.runs.get_mut(run) {
            watched.history.say(Weight::Warning, message);
        }
    }

    /// The selected run; `None` without any.
    pub fn selected_run(&self) -> Option<&Watched> {
        self.runs.get(self.selected)
    }

    /// The charts there are.
    pub fn panels(&self) -> Vec<Panel> {
        panels::panels(self.runs.iter().map(|run| &run.history))
    }

    /// All panes in the order of the digits that toggle them.
    pub fn panes(&self) -> Vec<Pane> {
        let mut panes: Vec<Pane> = self.panels().iter().map(|panel| Pane::Chart(panel.title)).collect();
        let at = panes.len().min(5);
        panes.splice(at..at, [Pane::Texts, Pane::Messages]);
        panes
    }

    /// Whether a pane is to be shown where there is room.
    pub fn is_shown(&self, pane: Pane) -> bool {
        let by_default = match pane {
            Pane::Chart(title) => self.panels().iter().any(|panel| panel.title == title && panel.is_shown),
            Pane::Texts | Pane::Messages => true,
        };
        by_default != self.toggled.contains(&pane)
    }

    /// What the charts show.
    pub fn view(&self) -> View {
        View { steps: self.steps(), smoothing: SMOOTHINGS[self.smoothing], log: self.log, selected: self.selected }
    }

    fn whole(&self) -> (f64, f64) {
        let end = self.runs.iter().map(|run| run.history.end()).max().unwrap_or(0);
        (0.0, (end as f64).max(LEAST_STEPS))
    }

    fn steps(&self) -> RangeInclusive<f64> {
        let (start, newest) = self.whole();
        match self.window {
            None => start..=newest,
            Some(Window { width, end }) => {
                let end = end.unwrap_or(newest).max(width);
                end - width..=end
            }
        }
    }

    /// Does what a key asks for; gives what the program must do.
    pub fn press(&mut self, key: Key) -> Option<Action> {
        self.note = None;
        if key == Key::Interrupt {
            self.question = None;
            return Some(self.leave_at_once());
        }
        if let Some(question) = self.question.take() {
            return self.answer(question, key);
        }
        if self.shows_help {
            self.shows_help = false;
            return None;
        }
        match key {
            Key::Char('?' | 'h') => self.shows_help = true,
            Key::Char('q') if self.mode != Mode::Training => return Some(Action::Quit),
            Key::Char('q') => self.question = Some(Question::Leave),
            Key::Char('+' | '=') => self.zoom(0.5),
            Key::Char('-') => self.zoom(2.0),
            Key::Char('0') | Key::Home => self.window = None,
            Key::Left => self.pan(-0.25),
            Key::Right => self.pan(0.25),
            Key::End => self.window = self.window.map(|window| Window { end: None, ..window }),
            Key::Up => self.scrolled += 1,
            Key::Down => self.scrolled = self.scrolled.saturating_sub(1),
            Key::Char('s') => {
                self.smoothing = (self.smoothing + 1) % SMOOTHINGS.len();
                self.note = Some(match SMOOTHINGS[self.smoothing] {
                    0.0 => "no smoothing".into(),
                    weight => format!("smoothing: the past counts {weight}"),
                });
            }
            Key::Char('g') => self.log = !self.log,
            Key::Tab => self.select(1),
            Key::BackTab => self.select(self.runs.len().saturating_sub(1)),
            Key::Char(digit @ '1'..='9') => self.toggle(digit as usize - '1' as usize),
            Key::Char(' ' | 'p') if self.mode == Mode::Replay => return Some(Action::HoldReplay),
            Key::Char('>' | '.') if self.mode == Mode::Replay => return Some(Action::ReplaySpeed(2.0)),
            Key::Char('<' | ',') if self.mode == Mode::Replay => return Some(Action::ReplaySpeed(0.5)),
            Key::Char(command @ ('p' | 'w' | 'x' | 'l')) => return self.command(command),
            _ => {}
        }
        None
    }

    fn leave_at_once(&mut self) -> Action {
        if self.mode != Mode::Training {
            return Action::Quit;
        }
        self.state = Some("stopping after saving; Ctrl-C again ends at once".into());
        Action::Interrupt
    }

    fn answer(&mut self, question: Question, key: Key) -> Option<Action> {
        match (question, key) {
            (Question::Stop, Key::Char('y' | 'Y')) => Some(Action::Send(self.selected, Command::Stop)),
            (Question::Leave, Key::Char('y' | 'Y')) => Some(self.leave_at_once()),
            (Question::Factor(text), Key::Enter) => match text.parse::<LrFactor>() {
                Ok(factor) => Some(Action::Send(self.selected, Command::Lr(factor))),
                Err(what) => {
                    self.note = Some(what);
                    None
                }
            },
            (Question::Factor(mut text), key) => {
                match key {
                    Key::Char(c) if text.len() < LONGEST_INPUT && !c.is_control() => text.push(c),
                    Key::Backspace => drop(text.pop()),
                    Key::Escape => return None,
                    _ => {}
                }
                self.question = Some(Question::Factor(text));
                None
            }
            _ => None,
        }
    }

    /// Keys that tell the selected run something.
    fn command(&mut self, key: char) -> Option<Action> {
        let run = self.runs.get(self.selected)?;
        let refusal = match (self.mode, run.history.phase, run.is_alive) {
            (Mode::Replay, ..) => Some("this is a replay: there is nobody to tell"),
            (_, phase, _) if phase.is_over() => Some("this run is over"),
            (_, _, Some(false)) => Some("no process of this machine works on this run"),
            _ => None,
        };
        if let Some(refusal) = refusal {
            self.note = Some(refusal.into());
            return None;
        }
        let command = match key {
            'w' => Command::Save,
            'p' if run.history.phase == Phase::Paused => Command::Resume,
            'p' => Command::Pause,
            'x' => {
                self.question = Some(Question::Stop);
                return None;
            }
            _ => {
                self.question = Some(Question::Factor(String::new()));
                return None;
            }
        };
        Some(Action::Send(self.selected, command))
    }

    fn select(&mut self, by: usize) {
        self.selected = (self.selected + by) % self.runs.len().max(1);
        self.scrolled = 0;
    }

    fn toggle(&mut self, index: usize) {
        let Some(&pane) = self.panes().get(index) else { return };
        match self.toggled.iter().position(|toggled| *toggled == pane) {
            Some(at) => drop(self.toggled.remove(at)),
            None => self.toggled.push(pane),
        }
    }

    /// Shows `factor` times as many steps, around the middle, or up to the newest where it is followed.
    fn zoom(&mut self, factor: f64) {
        let (start, newest) = self.whole();
        let shown = self.steps();
        let width = (shown.end() - shown.start()) * factor;
        if width >= newest - start {
            self.window = None;
            return;
        }
        let follows = self.window.is_none_or(|window| window.end.is_none());
        let middle = (shown.start() + shown.end()) / 2.0;
        let width = width.max(LEAST_STEPS.min(newest - start));
        let end = (!follows).then(|| (middle + width / 2.0).clamp(width, newest));
        self.window = Some(Window { width, end });
    }

    /// Moves by a share of what is shown; at the newest step it is followed again.
    fn pan(&mut self, share: f64) {
        let (_, newest) = self.whole();
        let shown = self.steps();
        let Some(window) = &mut self.window else {
            self.note = Some("zoom in to move".into());
            return;
        };
        let end = (shown.end() + share * window.width).max(window.width);
        window.end = (end < newest).then_some(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::testing::run;

    fn monitor(mode: Mode) -> Monitor {
        let looks = Looks { unicode: true, colour: true };
        let mut monitor = Monitor::new(["a".to_owned(), "b".to_owned()], mode, looks);
        run("a", 1000, 2000, 0.0).iter().for_each(|event| monitor.absorb(0, event));
        run("b", 500, 2000, 0.3).iter().for_each(|event| monitor.absorb(1, event));
        monitor
    }

    /// Presses keys and gives the last action.
    fn press(monitor: &mut Monitor, keys: &str) -> Option<Action> {
        super::super::keys::keys(keys.as_bytes()).into_iter().map(|key| monitor.press(key)).last().flatten()
    }

    #[test]
    fn commands_go_to_the_selected_run() {
        let mut monitor = monitor(Mode::Attached);
        assert_eq!(press(&mut monitor, "w"), Some(Action::Send(0, Command::Save)));
        assert_eq!(press(&mut monitor, "p"), Some(Action::Send(0, Command::Pause)));
        assert_eq!(press(&mut monitor, "\tw"), Some(Action::Send(1, Command::Save)));
        monitor.absorb(1, &TrainEvent::Paused { step: 500, paused: true });
        assert_eq!(press(&mut monitor, "p"), Some(Action::Send(1, Command::Resume)));
        // A run is stopped after a question alone.
        assert_eq!(press(&mut monitor, "x"), None);
        assert_eq!(monitor.question, Some(Question::Stop));
        assert_eq!((press(&mut monitor, "n"), monitor.question.clone()), (None, None));
        assert_eq!(press(&mut monitor, "xy"), Some(Action::Send(1, Command::Stop)));
        let half = Command::Lr("0.5".parse().unwrap());
        assert_eq!(press(&mut monitor, "l0.57\x7f\r"), Some(Action::Send(1, half)));
        assert_eq!(press(&mut monitor, "l0\r"), None);
        assert!(monitor.note.as_ref().unwrap().contains("above 0"), "{:?}", monitor.note);
        assert_eq!((press(&mut monitor, "l2\x1b"), monitor.question.clone()), (None, None));
        // Nobody there to be told.
        monitor.runs[1].is_alive = Some(false);
        assert_eq!(press(&mut monitor, "w"), None);
        assert!(monitor.note.as_ref().unwrap().contains("no process"));
        assert_eq!(press(&mut monitor, "\x1b[Zw"), Some(Action::Send(0, Command::Save)));
    }

    #[test]
    fn leaving_depends_on_where_the_monitor_runs() {
        for mode in [Mode::Attached, Mode::Replay] {
            for keys in ["q", "\x03", "x\x03"] {
                assert_eq!(press(&mut monitor(mode), keys), Some(Action::Quit), "{mode:?} {keys:?}");
            }
        }
        let mut training = monitor(Mode::Training);
        assert_eq!(press(&mut training, "q"), None);
        assert_eq!((press(&mut training, "n"), training.question.clone()), (None, None));
        assert_eq!(press(&mut training, "qy"), Some(Action::Interrupt));
        assert_eq!(press(&mut training, "\x03"), Some(Action::Interrupt));
        assert!(training.state.unwrap().contains("Ctrl-C again"));
    }

    #[test]
    fn a_replay_is_steered_and_tells_nobody() {
        let mut replay = monitor(Mode::Replay);
        assert_eq!(press(&mut replay, " "), Some(Action::HoldReplay));
        assert_eq!(press(&mut replay, ">"), Some(Action::ReplaySpeed(2.0)));
        assert_eq!(press(&mut replay, "<"), Some(Action::ReplaySpeed(0.5)));
        assert_eq!((press(&mut replay, "w"), replay.note.is_some()), (None, true));
    }

    #[test]
    fn zoom_follows_the_newest_step_until_it_is_moved() {
        let mut monitor = monitor(Mode::Attached);
        assert_eq!(monitor.steps(), 0.0..=1000.0);
        press(&mut monitor, "+");
        assert_eq!(monitor.steps(), 500.0..=1000.0);
        press(&mut monitor, "\x1b[D\x1b[D");
        assert_eq!(monitor.steps(), 250.0..=750.0);
        press(&mut monitor, "+");
        assert_eq!(monitor.steps(), 375.0..=625.0);
        monitor.absorb(0, &crate::monitor::testing::step(1200, 2.0));
        assert_eq!(monitor.steps(), 375.0..=625.0, "a moved window stays");
        press(&mut monitor, "\x1b[F");
        assert_eq!(monitor.steps(), 950.0..=1200.0);
        press(&mut monitor, "++++++++++++");
        assert_eq!(monitor.steps(), 1190.0..=1200.0);
        press(&mut monitor, "\x1b[D\x1b[C\x1b[C");
        assert_eq!(monitor.window.unwrap().end, None, "moved to the newest, it is followed");
        press(&mut monitor, "----------------");
        assert_eq!(monitor.steps(), 0.0..=1200.0);
        press(&mut monitor, "+0");
        assert_eq!(monitor.window, None);
    }

    #[test]
    fn panes_are_toggled_by_their_digits() {
        let mut monitor = monitor(Mode::Attached);
        assert_eq!(
            monitor.panes()[5..],
            [Pane::Texts, Pane::Messages, Pane::Chart("bits per byte"), Pane::Chart("of matmul rate")]
        );
        for (digit, pane) in [("1", Pane::Chart("loss")), ("6", Pane::Texts), ("8", Pane::Chart("bits per byte"))]
        {
            let was = monitor.is_shown(pane);
            press(&mut monitor, digit);
            assert_ne!(monitor.is_shown(pane), was, "{digit}");
            press(&mut monitor, digit);
            assert_eq!(monitor.is_shown(pane), was, "{digit}");
        }
    }
}
