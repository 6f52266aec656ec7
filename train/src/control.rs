//! Commands to a running training: the file `control` of its run folder, and signals
//!
//! The monitor, `fornax` commands and people write lines into `runs/<name>/control`; the loop takes the whole file
//! away once a step. A signal handler, set up by the binary, stores its exit code in a shared number.

use std::fmt;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fornax_base::exit::Exit;
use fornax_base::files::{self, FileError, FileSystem};
use serde::{Deserialize, Serialize};

const FILE_NAME: &str = "control";
const TAKEN_NAME: &str = "control.taken";
const GREATEST_BYTES: u64 = 4096;

/// What a running training can be told to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Command {
    /// Wait before the next step.
    Pause,
    /// Go on after a pause.
    Resume,
    /// Save a checkpoint after this step.
    Save,
    /// Save a checkpoint after this step and end the run.
    Stop,
    /// Multiply the schedule's learning rate by this factor from the next step on; 1 gives the schedule back.
    Lr(LrFactor),
}

impl Command {
    /// The command of a line of the control file, in any case and with spaces around it.
    ///
    /// # Errors
    /// A sentence with what was found and what is expected.
    pub fn parse(line: &str) -> Result<Self, String> {
        let shown: String = line.trim().chars().take(40).collect();
        let lower = line.trim().to_ascii_lowercase();
        let mut words = lower.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("pause"), None, None) => Ok(Self::Pause),
            (Some("resume"), None, None) => Ok(Self::Resume),
            (Some("save"), None, None) => Ok(Self::Save),
            (Some("stop"), None, None) => Ok(Self::Stop),
            (Some("lr"), Some(factor), None) => factor
                .parse()
                .map(Self::Lr)
                .map_err(|what| format!("the control file holds {shown:?}, but {what}")),
            _ => Err(format!(
                "the control file holds {shown:?}, but `pause`, `resume`, `save`, `stop` or `lr FACTOR` is expected"
            )),
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pause => f.write_str("pause"),
            Self::Resume => f.write_str("resume"),
            Self::Save => f.write_str("save"),
            Self::Stop => f.write_str("stop"),
            Self::Lr(factor) => write!(f, "lr {factor}"),
        }
    }
}

/// What the schedule's learning rate is multiplied by: above 0 and at most [`LrFactor::GREATEST`]; 1 by default.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct LrFactor(f64);

impl LrFactor {
    /// The greatest factor: more is a slip of the finger.
    pub const GREATEST: f64 = 100.0;

    /// The factor as a number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Default for LrFactor {
    fn default() -> Self {
        Self(1.0)
    }
}

impl TryFrom<f64> for LrFactor {
    type Error = String;

    fn try_from(factor: f64) -> Result<Self, String> {
        match factor > 0.0 && factor <= Self::GREATEST {
            true => Ok(Self(factor)),
            false => Err(format!("a factor above 0 and at most {} is expected, not {factor}", Self::GREATEST)),
        }
    }
}

impl From<LrFactor> for f64 {
    fn from(factor: LrFactor) -> f64 {
        factor.0
    }
}

impl FromStr for LrFactor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number: f64 = text.trim().parse().map_err(|_| {
            format!("a factor above 0 and at most {} is expected, not {:?}", Self::GREATEST, text.trim())
        })?;
        number.try_into()
    }
}

impl fmt::Display for LrFactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The signal that asked the run to end. [`Signal::flag`] goes to the handler: it stores 130 (SIGINT) or 143
/// (SIGTERM), and 0 means none came.
#[derive(Debug, Clone, Default)]
pub struct Signal {
    flag: Arc<AtomicUsize>,
}

impl Signal {
    /// The number a handler stores the exit code in.
    pub fn flag(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.flag)
    }

    /// The exit the signal asks for after saving; any number but 130 counts as SIGTERM.
    pub fn exit(&self) -> Option<Exit> {
        match self.flag.load(Ordering::SeqCst) {
            0 => None,
            130 => Some(Exit::Interrupted),
            _ => Some(Exit::Terminated),
        }
    }
}

/// Why a run is to end after this step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// `stop` was read from the control file; the run exits with 0.
    Command,
    /// A signal came; the run exits with its code.
    Signal(Exit),
}

/// What one look at the control file and the signal asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Orders {
    /// Save a checkpoint after this step.
    pub save: bool,
    /// Save a checkpoint and end.
    pub ending: Option<Ending>,
    /// Multiply the schedule's learning rate by this from the next step on; the last of several.
    pub lr_factor: Option<LrFactor>,
    /// True when the pause state changed; read it with [`Control::is_paused`].
    pub pause_changed: bool,
    /// Sentences for warning events: lines that are no commands, a file that cannot be taken.
    pub warnings: Vec<String>,
}

/// The reading end, owned by the loop.
#[derive(Debug)]
pub struct Control {
    run_folder: PathBuf,
    signal: Signal,
    is_paused: bool,
    /// The last failure to take the file, so that it is told once and not at each step.
    last_failure: Option<String>,
}

impl Control {
    /// Looks after the control file of `run_folder` and after `signal`.
    pub fn new(run_folder: &Path, signal: Signal) -> Self {
        Control { run_folder: run_folder.to_path_buf(), signal, is_paused: false, last_failure: None }
    }

    /// Whether the run is to wait. A signal or `stop` ends the waiting through [`Orders::ending`].
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Takes the control file away, if there is one, and tells what it and the signal ask for. Never fails: what goes
    /// wrong is a warning, and training goes on.
    pub fn poll(&mut self, fs: &dyn FileSystem) -> Orders {
        let mut orders = Orders::default();
        let was_paused = self.is_paused;
        match take(fs, &self.run_folder) {
            Ok(lines) => {
                self.last_failure = None;
                lines.iter().for_each(|line| self.obey(line, &mut orders));
            }
            Err(error) => {
                let said = Some(error.to_string());
                if said != self.last_failure {
                    orders.warnings.extend(said.clone());
                    self.last_failure = said;
                }
            }
        }
        orders.pause_changed = was_paused != self.is_paused;
        if let Some(exit) = self.signal.exit() {
            orders.ending = Some(Ending::Signal(exit));
        }
        orders
    }

    /// Throws away commands meant for an earlier process; call it at start. Tells how many lines there were.
    ///
    /// # Errors
    /// When the file cannot be taken.
    pub fn discard_stale(&self, fs: &dyn FileSystem) -> Result<usize, FileError> {
        Ok(take(fs, &self.run_folder)?.len())
    }

    fn obey(&mut self, line: &str, orders: &mut Orders) {
        match Command::parse(line) {
            Ok(Command::Pause) => self.is_paused = true,
            Ok(Command::Resume) => self.is_paused = false,
            Ok(Command::Save) => orders.save = true,
            Ok(Command::Stop) => orders.ending = Some(Ending::Command),
            Ok(Command::Lr(factor)) => orders.lr_factor = Some(factor),
            Err(warning) => orders.warnings.push(warning),
        }
    }
}

/// Adds a command to the control file of a run, after those not yet taken.
///
/// # Errors
/// When the run folder does not exist or cannot be written.
pub fn send(fs: &dyn FileSystem, run_folder: &Path, command: Command) -> Result<(), FileError> {
    let path = run_folder.join(FILE_NAME);
    let mut bytes = match files::read_limited(&path, GREATEST_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => return Err(error),
    };
    if bytes.last().is_some_and(|&last| last != b'\n') {
        bytes.push(b'\n');
    }
    bytes.extend_from_slice(format!("{command}\n").as_bytes());
    files::write_atomic_bytes(fs, &path, &bytes)
}

/// The rename takes the file in one step: a command written meanwhile lands in a new file and is read next time.
fn take(fs: &dyn FileSystem, run_folder: &Path) -> Result<Vec<String>, FileError> {
    let (path, taken) = (run_folder.join(FILE_NAME), run_folder.join(TAKEN_NAME));
    let failed = |op| {
        let path = path.clone();
        move |source| FileError::Io { op, path, source }
    };
    if !fs::symlink_metadata(&path).is_ok_and(|about: Metadata| !about.is_dir()) {
        return Ok(Vec::new());
    }
    fs.rename(&path, &taken).map_err(failed("take"))?;
    let bytes = files::read_limited(&taken, GREATEST_BYTES);
    fs.remove_file(&taken).map_err(failed("remove"))?;
    let text = String::from_utf8_lossy(&bytes?).into_owned();
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    Ok(lines.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use fornax_base::files::RealFs;
    use fornax_base::testing::{FailKind, FailingFs};

    use super::*;

    fn control() -> (tempfile::TempDir, Control) {
        let folder = tempfile::tempdir().unwrap();
        let control = Control::new(folder.path(), Signal::default());
        (folder, control)
    }

    #[test]
    fn commands_are_taken_once_in_order() {
        let (folder, mut control) = control();
        assert_eq!(control.poll(&RealFs), Orders::default());
        for command in [Command::Pause, Command::Save] {
            send(&RealFs, folder.path(), command).unwrap();
        }
        let orders = control.poll(&RealFs);
        assert!(orders.save && orders.pause_changed && control.is_paused());
        assert_eq!(orders.ending, None);
        assert_eq!(control.poll(&RealFs), Orders::default());
        assert!(control.is_paused(), "a pause lasts");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        for command in [Command::Resume, Command::Stop] {
            send(&RealFs, folder.path(), command).unwrap();
        }
        let orders = control.poll(&RealFs);
        assert_eq!(orders.ending, Some(Ending::Command));
        assert!(!control.is_paused());
    }

    #[test]
    fn a_line_by_hand_may_lack_its_end_and_use_capitals() {
        let (folder, mut control) = control();
        fs::write(folder.path().join("control"), "\n  SAVE ").unwrap();
        send(&RealFs, folder.path(), Command::Pause).unwrap();
        let orders = control.poll(&RealFs);
        assert!(orders.save && control.is_paused() && orders.warnings.is_empty());
    }

    #[test]
    fn a_factor_is_above_0_and_at_most_100() {
        let (folder, mut control) = control();
        let half = Command::parse(" LR  5e-1 ").unwrap();
        assert_eq!(half, Command::Lr("0.5".parse().unwrap()));
        for command in [Command::parse("lr 2").unwrap(), half] {
            assert_eq!(Command::parse(&command.to_string()).unwrap(), command);
            send(&RealFs, folder.path(), command).unwrap();
        }
        assert_eq!(control.poll(&RealFs).lr_factor.map(LrFactor::get), Some(0.5), "the last one counts");
        assert_eq!(control.poll(&RealFs).lr_factor, None);
        assert_eq!("100".parse::<LrFactor>().unwrap().get(), 100.0);
        for wrong in ["0", "-1", "100.1", "inf", "NaN", "half", ""] {
            assert!(wrong.parse::<LrFactor>().unwrap_err().contains("above 0 and at most 100"), "{wrong}");
        }
        fs::write(folder.path().join("control"), "lr 0\nlr\nlr 1 2\n").unwrap();
        let orders = control.poll(&RealFs);
        assert_eq!((orders.lr_factor, orders.warnings.len()), (None, 3));
        assert_eq!(
            orders.warnings[0],
            "the control file holds \"lr 0\", but a factor above 0 and at most 100 is expected, not 0"
        );
        assert!(serde_json::from_str::<LrFactor>("0.0").is_err(), "a damaged state is refused");
    }

    #[test]
    fn what_is_no_command_is_a_warning() {
        let (folder, mut control) = control();
        let path = folder.path().join("control");
        fs::write(&path, b"sav\n\xff\xfe\nsave\n").unwrap();
        let orders = control.poll(&RealFs);
        assert!(orders.save);
        assert_eq!(orders.warnings.len(), 2);
        assert_eq!(
            orders.warnings[0],
            "the control file holds \"sav\", but `pause`, `resume`, `save`, `stop` or `lr FACTOR` is expected"
        );
        fs::write(&path, vec![b'x'; 5000]).unwrap();
        let orders = control.poll(&RealFs);
        assert!(orders.warnings[0].contains("5000 bytes long"), "{orders:?}");
        assert!(!path.exists(), "a file that is too long is not met again");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        assert!(control.poll(&RealFs).warnings[0].contains("a pipe"));
    }

    #[test]
    fn a_failing_disk_is_told_once_and_loses_no_command() {
        let (folder, mut control) = control();
        send(&RealFs, folder.path(), Command::Save).unwrap();
        let dead = FailingFs::new(1, FailKind::Abort);
        assert_eq!(control.poll(&dead).warnings.len(), 1);
        assert_eq!(control.poll(&dead).warnings.len(), 0);
        assert!(control.poll(&RealFs).save);
    }

    #[test]
    fn a_signal_counts_above_a_stop_and_stays() {
        let (folder, mut control) = control();
        send(&RealFs, folder.path(), Command::Stop).unwrap();
        control.signal.flag().store(143, Ordering::SeqCst);
        let expected = Some(Ending::Signal(Exit::Terminated));
        assert_eq!(control.poll(&RealFs).ending, expected);
        assert_eq!(control.poll(&RealFs).ending, expected);
        control.signal.flag().store(130, Ordering::SeqCst);
        assert_eq!(control.poll(&RealFs).ending, Some(Ending::Signal(Exit::Interrupted)));
    }

    #[test]
    fn stale_commands_are_thrown_away() {
        let (folder, mut control) = control();
        send(&RealFs, folder.path(), Command::Stop).unwrap();
        assert_eq!(control.discard_stale(&RealFs).unwrap(), 1);
        assert_eq!(control.poll(&RealFs), Orders::default());
    }
}
