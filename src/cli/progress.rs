//! A training run on the terminal: the monitor, a progress bar, or plain lines where there is no terminal.

use std::io::{ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use fornax_data::dataset::PrepareProgress;
use fornax_data::hub::HubProgress;
use fornax_train::events::TrainEvent;
pub(crate) use fornax_train::plain::grouped;
use fornax_train::plain::sentence;
use fornax_train::setup::Preparing;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::report::say;
use super::watch;

/// Events waiting for the terminal; more are dropped rather than waited for.
const WAITING: usize = 1024;

/// Time between two step lines where there is no terminal.
pub(crate) const PLAIN_INTERVAL: Duration = Duration::from_secs(2);

/// Time between the end of a run and giving up on a terminal that takes no more frames.
const FRAME_PATIENCE: Duration = Duration::from_secs(5);

/// Shows events on a thread of its own until the sender is gone.
pub(crate) struct Listener {
    done: Receiver<()>,
    patience: Duration,
}

/// A channel for the events of a run.
pub(crate) fn events() -> (SyncSender<TrainEvent>, Receiver<TrainEvent>) {
    sync_channel(WAITING)
}

/// Prints events as lines; `json` prints each as a line of JSON on stdout as well.
pub(crate) fn listen(events: Receiver<TrainEvent>, json: bool) -> Listener {
    // What was printed into a pipe is waited for as long as it takes.
    Listener::start(Duration::MAX, move || print(&events, json))
}

/// Shows the run of this process in the monitor; it must be open and not yet taking steps.
pub(crate) fn on_screen(events: Receiver<TrainEvent>, folder: &Path, hung_up: Arc<AtomicBool>) -> Listener {
    let monitor = watch::of_this_run(folder);
    // These are in the log that was just read.
    while events.try_recv().is_ok() {}
    let folder = folder.to_path_buf();
    Listener::start(FRAME_PATIENCE, move || {
        watch::training(monitor, &folder, &events, &hung_up);
        print(&events, false);
    })
}

impl Listener {
    fn start(patience: Duration, listen: impl FnOnce() + Send + 'static) -> Self {
        let (sender, done) = sync_channel(1);
        std::thread::spawn(move || {
            listen();
            let _ = sender.send(());
        });
        Listener { done, patience }
    }

    /// Waits until everything is shown; the sender must be dropped before.
    pub(crate) fn finish(self) {
        // Closed without a word after a panic, which has had its own.
        let _ = match self.patience {
            Duration::MAX => self.done.recv().ok(),
            patience => self.done.recv_timeout(patience).ok(),
        };
    }
}

fn print(receiver: &Receiver<TrainEvent>, mut json: bool) {
    let mut bar: Option<ProgressBar> = None;
    let mut last_step: Option<Instant> = None;
    for event in receiver {
        if json {
            let line = fornax_train::events::to_line(&event).unwrap_or_default();
            // Stdout that takes no more ends the JSON, not the training; a reader that went away knows that.
            if let Err(error) = std::io::stdout().write_all((line + "\n").as_bytes()) {
                json = false;
                if error.kind() != ErrorKind::BrokenPipe {
                    say(&format!("warning: no more JSON, because stdout cannot be written: {error}\n"));
                }
            }
        }
        if let TrainEvent::Started { step, total_steps, .. } = &event {
            bar = std::io::stderr().is_terminal().then(|| steps_bar(*step, *total_steps));
        }
        // Where nothing can be overwritten, a line for every step would bury everything else.
        let too_soon = last_step.is_some_and(|at| at.elapsed() < PLAIN_INTERVAL);
        if let (TrainEvent::Step { .. }, None, true) = (&event, &bar, too_soon) {
            continue;
        }
        if let TrainEvent::Step { .. } = &event {
            last_step = Some(Instant::now());
        }
        show(&event, bar.as_ref());
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

fn steps_bar(step: u64, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(5));
    let style = ProgressStyle::with_template("step {pos}/{len} [{bar:24}] {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar.set_position(step);
    bar
}

/// One event as the user reads it: steps move the bar, everything else stands above it.
fn show(event: &TrainEvent, bar: Option<&ProgressBar>) {
    match (event, bar) {
        (TrainEvent::Step { step, .. }, Some(bar)) => {
            bar.set_position(*step);
            bar.set_message(sentence(event));
        }
        (TrainEvent::CheckpointSaved { .. }, Some(_)) => {}
        (_, Some(bar)) => {
            let text = sentence(event);
            bar.suspend(|| say(&format!("{text}\n")));
        }
        (_, None) => say(&format!("{}\n", sentence(event))),
    }
}

/// Progress of tokenizer and shards.
pub(crate) fn preparing() -> impl FnMut(Preparing) {
    let terminal = std::io::stderr().is_terminal();
    let bar = if terminal { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    let mut last = None;
    move |part| {
        let text = match part {
            Preparing::Hub(HubProgress::Files { repo, commit, files }) => {
                let named = files.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
                let more = if files.len() > 3 { format!(" and {} more", files.len() - 3) } else { String::new() };
                format!("{repo} at {}: {named}{more}", &commit[..commit.len().min(8)])
            }
            Preparing::Hub(HubProgress::Downloading { file, bytes, total }) => {
                bar.set_message(format!("downloading {file}: {}%", bytes * 100 / total.max(1)));
                format!("downloading {file} ({} bytes)", grouped(total))
            }
            Preparing::Tokenizer => "making the tokenizer".to_string(),
            Preparing::Data(PrepareProgress::Counting { .. }) => "counting documents".to_string(),
            Preparing::Data(PrepareProgress::Encoding { bytes, total_bytes, .. }) => {
                bar.set_message(format!("encoding text: {}%", bytes * 100 / total_bytes.max(1)));
                "encoding text".to_string()
            }
        };
        bar.tick();
        if last.as_ref() != Some(&text) {
            bar.suspend(|| say(&format!("{text}\n")));
            last = Some(text);
        }
    }
}

/// Progress of work that counts documents.
pub(crate) fn counting(what: &'static str) -> impl FnMut(u64) {
    let terminal = std::io::stderr().is_terminal();
    let bar = if terminal { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    move |documents| {
        bar.set_message(format!("{what}: {}", grouped(documents)));
        bar.tick();
    }
}
