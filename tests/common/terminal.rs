//! The program on a terminal of its own.

use std::fs::File;
use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::LIMIT;

/// Runs `command` with stdin, stdout and stderr on a terminal this wide; gives all it wrote there.
pub(crate) fn on_terminal(command: &mut Command, columns: u16) -> (ExitStatus, String) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
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
