//! The monitor's loop, and the monitor inside the training process.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use fornax_base::files::RealFs;
use fornax_train::control;
use fornax_train::events::TrainEvent;
use fornax_train::monitor::keys::keys;
use fornax_train::monitor::tail::LogTail;
use fornax_train::monitor::{Action, Mode, Monitor};
use fornax_train::run::EVENTS_FILE;

use super::report::say;
use super::screen::{self, Screen};
use super::signals;

/// How often events are looked for.
const LOOK: Duration = Duration::from_millis(40);
/// Shortest time between two frames.
const FRAME: Duration = Duration::from_millis(100);
/// Longest time between two frames, which is how soon a changed size of the terminal is seen.
const REDRAW: Duration = Duration::from_millis(400);

/// What a look for events found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fed {
    Nothing,
    News,
    /// There is nothing more to come.
    Over,
}

/// Why the monitor was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// By key.
    Quit,
    /// The events are over.
    Over,
    /// `ends` said so.
    Asked,
    /// The terminal takes or gives nothing any more.
    TerminalGone,
}

/// Where keys come from and frames go.
pub(crate) struct Surface<'a> {
    pub(crate) keys: &'a Receiver<Vec<u8>>,
    pub(crate) draw: &'a mut dyn FnMut(&Monitor) -> io::Result<()>,
}

/// Shows `monitor` until it is left: `feed` brings events, `act` does what keys ask for, `ends` is asked all the time.
pub(crate) fn watch(
    monitor: &mut Monitor,
    surface: Surface<'_>,
    feed: &mut dyn FnMut(&mut Monitor) -> Fed,
    act: &mut dyn FnMut(&mut Monitor, Action),
    ends: &dyn Fn() -> bool,
) -> Left {
    let (mut is_new, mut drawn) = (true, None::<Instant>);
    loop {
        if ends() {
            return Left::Asked;
        }
        let fed = feed(monitor);
        is_new |= fed == Fed::News;
        let since = drawn.map_or(REDRAW, |at| at.elapsed());
        if fed == Fed::Over || since >= REDRAW || (is_new && since >= FRAME) {
            if (surface.draw)(monitor).is_err() {
                return Left::TerminalGone;
            }
            (is_new, drawn) = (false, Some(Instant::now()));
        }
        if fed == Fed::Over {
            return Left::Over;
        }
        match surface.keys.recv_timeout(LOOK) {
            Ok(bytes) => {
                for key in keys(&bytes) {
                    match monitor.press(key) {
                        Some(Action::Quit) => return Left::Quit,
                        Some(action) => act(monitor, action),
                        None => {}
                    }
                }
                is_new = true;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Left::TerminalGone,
        }
    }
}

/// Writes a command into the control file of a run and tells how that went.
pub(crate) fn send(monitor: &mut Monitor, folder: &Path, command: control::Command) {
    monitor.note = Some(match control::send(&RealFs, folder, command) {
        Ok(()) => format!("sent `{command}`; it is obeyed before the next step"),
        Err(error) => format!("`{command}` was not sent: {error}"),
    });
}

/// The monitor of the run of this process, before its loop begins: what happened so far is in its log.
pub(crate) fn of_this_run(folder: &Path) -> Monitor {
    let mut monitor = Monitor::new([folder.display().to_string()], Mode::Training, screen::looks(false));
    let mut tail = LogTail::new(&folder.join(EVENTS_FILE));
    // A log that cannot be read costs the past of a resumed run, nothing else.
    while let Ok(news) = tail.poll(Duration::from_secs(1)) {
        news.events.iter().for_each(|event| monitor.absorb(0, event));
        if !news.has_more {
            break;
        }
    }
    monitor
}

/// Shows the run of this process until its events end. Returns early, with the terminal given back, when the terminal
/// is gone or the monitor itself fails; the events that are left are for another listener.
pub(crate) fn training(mut monitor: Monitor, folder: &Path, events: &Receiver<TrainEvent>, hung_up: &AtomicBool) {
    let shown = catch_unwind(AssertUnwindSafe(|| -> io::Result<Left> {
        let keys = screen::keyboard()?;
        let mut screen = Screen::take()?;
        let mut draw = |monitor: &Monitor| {
            // So that a test can see what a fault of the monitor costs; not in a release.
            assert!(!cfg!(debug_assertions) || std::env::var_os("FORNAX_TEST_MONITOR_PANICS").is_none());
            screen.draw(monitor)
        };
        Ok(watch(
            &mut monitor,
            Surface { keys: &keys, draw: &mut draw },
            &mut |monitor| take_in(monitor, events),
            &mut |monitor, action| match action {
                Action::Interrupt => signals::interrupt(),
                Action::Send(_, command) => send(monitor, folder, command),
                _ => {}
            },
            &|| hung_up.load(Ordering::SeqCst),
        ))
    }));
    screen::give_back();
    match shown {
        // How it ended should stay on the screen that the user comes back to.
        Ok(Ok(Left::Over)) => {
            let last = monitor.selected_run().and_then(|run| run.history.messages.back());
            last.iter().for_each(|(_, message)| say(&format!("{message}\n")));
        }
        Ok(Ok(_)) => {}
        Ok(Err(error)) => say(&format!("warning: no monitor on this terminal ({error}); training goes on\n")),
        // The message was printed where the panic began.
        Err(_) => say("warning: the monitor failed; training goes on without it\n"),
    }
}

fn take_in(monitor: &mut Monitor, events: &Receiver<TrainEvent>) -> Fed {
    let mut fed = Fed::Nothing;
    loop {
        match events.try_recv() {
            Ok(event) => {
                monitor.absorb(0, &event);
                fed = Fed::News;
            }
            Err(TryRecvError::Empty) => return fed,
            Err(TryRecvError::Disconnected) => return Fed::Over,
        }
    }
}
