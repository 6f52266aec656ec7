//! What the program's exit code tells its caller.

/// The exit codes users and schedulers may rely on; only the binary turns one into a real exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The work is done (or a server drained after SIGTERM).
    Done = 0,
    /// It failed at run time.
    Failed = 1,
    /// The user's input is wrong: flags, recipe, a missing file. Nothing was started.
    BadInput = 2,
    /// Stopped because numbers were not finite; the last good checkpoint is named.
    NotFinite = 3,
    /// Data or a checkpoint is damaged.
    Damaged = 4,
    /// A gate was not met.
    GateNotMet = 5,
    /// Stopped by Ctrl-C (SIGINT) after saving.
    Interrupted = 130,
    /// Stopped by SIGTERM after saving.
    Terminated = 143,
}

impl Exit {
    /// The number given to the operating system.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;

    #[test]
    fn codes_are_those_of_the_contract() {
        let all = [
            (Exit::Done, 0),
            (Exit::Failed, 1),
            (Exit::BadInput, 2),
            (Exit::NotFinite, 3),
            (Exit::Damaged, 4),
            (Exit::GateNotMet, 5),
            (Exit::Interrupted, 130),
            (Exit::Terminated, 143),
        ];
        for (exit, code) in all {
            assert_eq!(exit.code(), code);
        }
    }
}
