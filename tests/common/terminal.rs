//! The program on a terminal of its own.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, fcntl_setfl, open};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::LIMIT;

/// Runs `command` with stdin, stdout and stderr on a terminal this wide; gives all it wrote there.
pub(crate) fn on_terminal(command: &mut Command, columns: u16) -> (ExitStatus, String) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let terminal = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    tcsetwinsize(&terminal, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let copy = || Stdio::from(terminal.try_clone().unwrap());
    command.stdin(copy()).stdout(copy()).stderr(copy()).env("TERM", "xterm");
    let mut child = command.spawn().unwrap();
    let mut reading = File::from(master);
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        let mut piece = [0; 4096];
        // The end of a terminal whose last user left is an error, not an empty read.
        while let Ok(n @ 1..) = reading.read(&mut piece) {
            text.extend_from_slice(&piece[..n]);
        }
        text
    });
    let until = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > until {
            child.kill().unwrap();
            panic!("the program hangs on a terminal");
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    };
    // The copies inside `command` keep the terminal open.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    drop(terminal);
    let text = reader.join().unwrap();
    (status, String::from_utf8_lossy(&text).into_owned())
}

/// The program on a terminal that is its own (closing it sends SIGHUP), with somebody typing and looking.
pub(crate) struct OnTerminal {
    child: Child,
    /// The side of the person; dropped to close the terminal.
    master: Option<File>,
    /// The program's side, kept to see its modes.
    slave: File,
    screen: Arc<Mutex<Emulator>>,
    closing: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl OnTerminal {
    /// Starts `command` on a terminal of this size.
    pub(crate) fn start(command: &Command, columns: u16, rows: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let slave = File::from(slave);
        let copy = || Stdio::from(slave.try_clone().unwrap());
        // The standard library cannot give a child a controlling terminal; util-linux's setsid does.
        let mut own = Command::new("setsid");
        own.arg("--ctty").arg(command.get_program()).args(command.get_args());
        own.env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8").env_remove("NO_COLOR");
        for (key, value) in command.get_envs().filter_map(|(key, value)| Some((key, value?))) {
            own.env(key, value);
        }
        let master = File::from(master);
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&slave, size).unwrap();
        let child = own.stdin(copy()).stdout(copy()).stderr(copy()).spawn().unwrap();
        let screen = Arc::new(Mutex::new(Emulator::new(columns, rows)));
        fcntl_setfl(&master, OFlags::NONBLOCK).unwrap();
        let closing = Arc::new(AtomicBool::new(false));
        let (shown, mut reading, closed) =
            (Arc::clone(&screen), master.try_clone().unwrap(), Arc::clone(&closing));
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while !closed.load(Ordering::SeqCst) {
                match reading.read(&mut piece) {
                    Ok(n @ 1..) => shown.lock().unwrap().take(&piece[..n]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        std::thread::sleep(Duration::from_millis(3));
                    }
                    _ => return,
                }
            }
        });
        OnTerminal { child, master: Some(master), slave, screen, closing, reader: Some(reader) }
    }

    pub(crate) fn types(&mut self, text: &str) {
        self.master.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn resize(&mut self, columns: u16, rows: u16) {
        self.screen.lock().unwrap().resize(columns, rows);
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.slave, size).unwrap();
    }

    /// What stands on the screen.
    pub(crate) fn shown(&self) -> String {
        self.screen.lock().unwrap().text()
    }

    /// Waits until `word` stands on the screen.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, word: &str) {
        let until = Instant::now() + LIMIT;
        while !self.shown().contains(word) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "ended before `{word}`:\n{}", self.shown());
            assert!(Instant::now() < until, "no `{word}` on the screen:\n{}", self.shown());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether the terminal passes keys on one by one and without an echo.
    pub(crate) fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.slave).unwrap().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// Closes the terminal, as a lost connection does.
    pub(crate) fn close(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        self.reader.take().unwrap().join().unwrap();
        // The last handle: the kernel sends SIGHUP, and every read and write fails.
        self.master = None;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id() as i32).unwrap(), signal).unwrap();
    }

    /// Waits for the end; the terminal must be as it was: its modes, the usual screen, a visible cursor.
    #[track_caller]
    pub(crate) fn finish(mut self) -> (ExitStatus, String) {
        let until = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < until, "the program hangs:\n{}", self.shown());
            std::thread::sleep(Duration::from_millis(5));
        };
        if self.master.is_some() {
            assert!(!self.is_raw(), "raw mode is left:\n{}", self.shown());
            // What was written last may still be on its way.
            while !self.screen.lock().unwrap().is_usual() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let text = self.shown();
        (status, text)
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.closing.store(true, Ordering::SeqCst);
    }
}

/// As much of a terminal as the monitor needs: cursor moves, clearing, and the other screen.
struct Emulator {
    columns: usize,
    rows: usize,
    cells: Vec<char>,
    at: (usize, usize),
    pending: Vec<u8>,
    other_screen: bool,
    hidden_cursor: bool,
}

impl Emulator {
    fn new(columns: u16, rows: u16) -> Self {
        let (columns, rows) = (usize::from(columns), usize::from(rows));
        let cells = vec![' '; columns * rows];
        Emulator {
            columns,
            rows,
            cells,
            at: (0, 0),
            pending: Vec::new(),
            other_screen: false,
            hidden_cursor: false,
        }
    }

    fn resize(&mut self, columns: u16, rows: u16) {
        let (other_screen, hidden_cursor) = (self.other_screen, self.hidden_cursor);
        *self = Emulator { other_screen, hidden_cursor, ..Emulator::new(columns, rows) };
    }

    fn is_usual(&self) -> bool {
        !self.other_screen && !self.hidden_cursor
    }

    fn text(&self) -> String {
        self.cells
            .chunks(self.columns)
            .map(|row| row.iter().collect::<String>().trim_end().to_owned() + "\n")
            .collect()
    }

    fn take(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        let pending = std::mem::take(&mut self.pending);
        let whole = match std::str::from_utf8(&pending) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let (text, mut rest) = pending.split_at(whole);
        let text = std::str::from_utf8(text).unwrap();
        let mut left = text;
        while let Some(c) = left.chars().next() {
            left = &left[c.len_utf8()..];
            match c {
                '\x1b' => match escape(left) {
                    Some((parameters, command, after)) => {
                        self.obey(parameters, command);
                        left = after;
                    }
                    None => {
                        // Its end is still to come.
                        rest = &pending[text.len() - left.len() - 1..];
                        break;
                    }
                },
                '\r' => self.at.0 = 0,
                '\n' => self.line_break(),
                c if c.is_control() => {}
                c => {
                    if self.at.0 >= self.columns {
                        self.at.0 = 0;
                        self.line_break();
                    }
                    let index = self.at.1 * self.columns + self.at.0;
                    if let Some(cell) = self.cells.get_mut(index) {
                        *cell = c;
                    }
                    self.at.0 += 1;
                }
            }
        }
        self.pending = rest.to_vec();
    }

    fn line_break(&mut self) {
        if self.at.1 + 1 < self.rows {
            self.at.1 += 1;
        } else {
            self.cells.drain(..self.columns);
            self.cells.extend(std::iter::repeat_n(' ', self.columns));
        }
    }

    fn obey(&mut self, parameters: &str, command: char) {
        let numbers: Vec<usize> = parameters.split(';').map(|number| number.parse().unwrap_or(0)).collect();
        match (parameters, command) {
            (_, 'H') => {
                let (row, column) = (numbers[0].max(1), numbers.get(1).copied().unwrap_or(1).max(1));
                self.at = ((column - 1).min(self.columns), (row - 1).min(self.rows.saturating_sub(1)));
            }
            (_, 'J') => self.cells.fill(' '),
            (_, 'K') => {
                let start = self.at.1 * self.columns;
                self.cells[start + self.at.0.min(self.columns)..start + self.columns].fill(' ');
            }
            ("?1049", 'h') => {
                self.cells.fill(' ');
                self.other_screen = true;
            }
            ("?1049", 'l') => {
                self.cells.fill(' ');
                self.at = (0, 0);
                self.other_screen = false;
            }
            ("?25", 'h') => self.hidden_cursor = false,
            ("?25", 'l') => self.hidden_cursor = true,
            _ => {}
        }
    }
}

/// Parameters, command and rest of a control sequence behind its escape; `None` when it is not whole.
fn escape(text: &str) -> Option<(&str, char, &str)> {
    let Some(inner) = text.strip_prefix('[') else {
        let command = text.chars().next()?;
        return Some(("", ' ', &text[command.len_utf8()..]));
    };
    let end = inner.find(|c: char| c.is_ascii_alphabetic() || c == '~')?;
    Some((&inner[..end], inner[end..].chars().next()?, &inner[end + 1..]))
}
