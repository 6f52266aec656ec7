//! A training run on the terminal: a progress bar, or plain lines where there is no terminal.

use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fornax_data::dataset::PrepareProgress;
use fornax_train::events::TrainEvent;
use fornax_train::setup::Preparing;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::report::say;

/// Events waiting for the terminal; more are dropped rather than waited for.
const WAITING: usize = 1024;

/// Time between two step lines where there is no terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(2);

/// Prints events on a thread of its own until the sender is gone.
pub(crate) struct Listener {
    thread: JoinHandle<()>,
}

/// Starts a listener; `json` prints each event as a line on stdout as well.
pub(crate) fn listen(json: bool) -> (SyncSender<TrainEvent>, Listener) {
    let (sender, receiver) = sync_channel(WAITING);
    let thread = std::thread::spawn(move || print(&receiver, json));
    (sender, Listener { thread })
}

impl Listener {
    /// Waits until everything is printed; the sender must be dropped before.
    pub(crate) fn finish(self) {
        let _ = self.thread.join();
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

fn sentence(event: &TrainEvent) -> String {
    match event {
        TrainEvent::Started {
            n_parameters, device, precision, tokens_per_step, total_steps, optimizer, ..
        } => format!(
            "training {} parameters on {device} in {precision}: {total_steps} steps of {} tokens\n{optimizer}",
            grouped(*n_parameters),
            grouped(*tokens_per_step)
        ),
        TrainEvent::Step {
            step, loss, lr, grad_norm, tokens_per_second, matmul_share, mfu, eta_seconds, ..
        } => {
            let share = match (mfu, matmul_share) {
                (Some(mfu), _) => format!(" | mfu {:.0}%", mfu * 100.0),
                (None, Some(share)) => format!(" | {:.0}% of matmul rate", share * 100.0),
                (None, None) => String::new(),
            };
            let eta = eta_seconds.map(|s| format!(" | eta {}", duration(s))).unwrap_or_default();
            format!(
                "step {step:05} | loss {loss:.4} | lr {lr:.2e} | norm {grad_norm:.2} | {} tok/s{share}{eta}",
                grouped(*tokens_per_second as u64)
            )
        }
        TrainEvent::Validation { step, loss, bits_per_byte, .. } => {
            format!("step {step:05} | validation loss {loss:.4} | {bits_per_byte:.3} bits per byte")
        }
        TrainEvent::Sample { step, prompt, text } => {
            format!("step {step:05} | sample: {}«{}»", harmless(prompt), harmless(text))
        }
        TrainEvent::CheckpointSaved { step, path, seconds } => {
            format!("step {step:05} | saved {} in {seconds:.2} s", path.display())
        }
        TrainEvent::Warning { step, message } => format!("step {step:05} | warning: {message}"),
        TrainEvent::Resumed { step, from, skipped, changed } => {
            let mut text = format!("resumed at step {step} from {}", from.display());
            for skipped in skipped {
                text += &format!("\n  passed over {skipped}");
            }
            for changed in changed {
                text += &format!("\n  changed {changed}");
            }
            text
        }
        TrainEvent::Paused { step, paused: true } => format!("step {step:05} | paused"),
        TrainEvent::Paused { step, paused: false } => format!("step {step:05} | going on"),
        TrainEvent::Stopped { step, message, .. } => format!("step {step:05} | {message}"),
        TrainEvent::Finished { seconds, tokens, validation_loss, model, .. } => format!(
            "finished: {} tokens in {}{}; model in {}",
            grouped(*tokens),
            duration(*seconds),
            validation_loss.map(|l| format!(", validation loss {l:.4}")).unwrap_or_default(),
            model.display()
        ),
    }
}

/// The text without characters that steer a terminal, which a young model writes like any others; line breaks stay.
fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Progress of tokenizer and shards.
pub(crate) fn preparing() -> impl FnMut(Preparing) {
    let terminal = std::io::stderr().is_terminal();
    let bar = if terminal { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    let mut last = None;
    move |part| {
        let text = match part {
            Preparing::Tokenizer => "training the tokenizer".to_string(),
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

/// 1234567 as "1,234,567".
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn duration(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} m {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} m", s / 3600, s % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_cannot_steer_the_terminal() {
        assert_eq!(harmless("a\x1b[2J\rb\u{9b}\nc"), "a\u{fffd}[2J\u{fffd}b\u{fffd}\nc");
    }

    #[test]
    fn numbers_are_grouped_and_times_short() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(duration(59.4), "59 s");
        assert_eq!(duration(61.0), "1 m 01 s");
        assert_eq!(duration(3_661.0), "1 h 01 m");
    }
}
