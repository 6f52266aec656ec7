//! The terminal taken over by the monitor: raw mode and the other screen, and giving both back on every way out.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fornax_train::monitor::chart::Looks;
use fornax_train::monitor::{Monitor, draw};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

/// How long a frame under way is waited for before the terminal is given back regardless.
const FRAME_PATIENCE: Duration = Duration::from_millis(200);

/// Whether the terminal is ours now.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// Held while a frame is written, so that none comes after the terminal was given back.
static DRAWING: Mutex<()> = Mutex::new(());

/// Whether a monitor can be drawn: stdout is a terminal that knows more than lines.
pub(crate) fn is_possible() -> bool {
    io::stdout().is_terminal() && variable("TERM").as_deref() != Some("dumb")
}

/// What the terminal can show, by what its environment says. Without colours braille curves could not be told apart,
/// so monochrome is ASCII.
pub(crate) fn looks(ascii: bool) -> Looks {
    let colour = variable("NO_COLOR").is_none();
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(variable);
    let is_utf8 = locale.is_none_or(|name| {
        let name = name.to_ascii_lowercase();
        name.contains("utf-8") || name.contains("utf8")
    });
    let is_console = variable("TERM").as_deref() == Some("linux");
    Looks { unicode: !ascii && colour && is_utf8 && !is_console, colour }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The terminal, ours until it is dropped or given back.
pub(crate) struct Screen {
    terminal: Terminal<CrosstermBackend<BufWriter<File>>>,
}

impl Screen {
    /// Takes the terminal over.
    pub(crate) fn take() -> io::Result<Self> {
        // A handle of our own: giving back never waits for a lock that a blocked writer holds.
        let mut out = handle()?;
        enable_raw_mode()?;
        TAKEN.store(true, Ordering::SeqCst);
        let entered = execute!(out, EnterAlternateScreen, Hide);
        let terminal = entered.and_then(|()| Terminal::new(CrosstermBackend::new(BufWriter::new(out))));
        match terminal {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Draws a frame; an error when the terminal is gone or no longer ours.
    pub(crate) fn draw(&mut self, monitor: &Monitor) -> io::Result<()> {
        let _drawing = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
        if !TAKEN.load(Ordering::SeqCst) {
            return Err(io::Error::other("the terminal was given back"));
        }
        self.terminal.draw(|frame| draw::draw(monitor, frame)).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn handle() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// Leaves raw mode and the other screen, if the terminal is ours. May be called from any thread, panics included.
pub(crate) fn give_back() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let piece = FRAME_PATIENCE / 20;
    let _drawing = (0..20).find_map(|_| {
        let lock = DRAWING.try_lock().ok();
        if lock.is_none() {
            std::thread::sleep(piece);
        }
        lock
    });
    // Nothing helps where the terminal itself is gone.
    let _ = disable_raw_mode();
    let _ = handle().and_then(|mut out| execute!(out, LeaveAlternateScreen, Show).and_then(|()| out.flush()));
}

/// Gives back before the process ends at once, but does not wait for a terminal that takes nothing.
pub(crate) fn give_back_within(time: Duration) {
    let (done, is_done) = channel();
    std::thread::spawn(move || {
        give_back();
        let _ = done.send(());
    });
    let _ = is_done.recv_timeout(time);
}

/// What the keyboard sends, read on a thread of its own; the channel closes when the terminal is gone.
pub(crate) fn keyboard() -> io::Result<Receiver<Vec<u8>>> {
    let stdin = io::stdin();
    let mut input: Box<dyn io::Read + Send> = match stdin.is_terminal() {
        true => Box::new(stdin),
        false => Box::new(File::open("/dev/tty")?),
    };
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 256];
        loop {
            match input.read(&mut buffer) {
                Ok(read @ 1..) if sender.send(buffer[..read].to_vec()).is_ok() => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    });
    Ok(receiver)
}
