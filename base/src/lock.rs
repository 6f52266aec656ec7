//! One process at a time in a folder.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::files::{open_lock_file, open_regular};
use crate::process::is_alive;

/// Why a folder could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process works in the folder.
    #[error("`{}` is in use by process {pid}, and this is process {}", folder.display(), std::process::id())]
    Taken {
        /// The folder as given.
        folder: PathBuf,
        /// The process that holds the lock.
        pid: u32,
    },
    /// Another process works in the folder and has not written its id.
    #[error("`{}` is in use by another process than this one, {}", folder.display(), std::process::id())]
    TakenByUnknown {
        /// The folder as given.
        folder: PathBuf,
    },
    /// The lock file cannot be opened, locked or written; a read-only folder shows here.
    #[error("cannot lock `{}`", folder.display())]
    Io {
        /// The folder as given.
        folder: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// The sole right to write in a folder, held until dropped or until the process ends in any way.
///
/// The right itself is an advisory lock of the operating system on the file `lock`, which a dead process cannot keep;
/// the process id in that file is there to be named to the next who comes. The file stays when the lock is released,
/// emptied: removing it would let two processes lock two files of the same name.
#[derive(Debug)]
pub struct FolderLock {
    file: File,
    dead_holder: Option<u32>,
}

impl FolderLock {
    /// Locks an existing folder without waiting; the lock of a dead process is taken over.
    ///
    /// # Errors
    /// [`LockError::Taken`] naming the process that holds it, or the operating system's refusal.
    pub fn acquire(folder: &Path) -> Result<Self, LockError> {
        let io_error = |source| LockError::Io { folder: folder.to_path_buf(), source };
        let mut file = open_lock_file(&folder.join("lock")).map_err(io_error)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(taken(folder, &mut file).unwrap_or_else(io_error)),
            Err(errno) => return Err(io_error(errno.into())),
        }
        let dead_holder = read_pid(&mut file).map_err(io_error)?;
        write_pid(&mut file).map_err(io_error)?;
        Ok(Self { file, dead_holder })
    }

    /// The living process of this machine that works in the folder, as its lock file names it; `None` when there is
    /// none. A look without a promise: it takes no lock.
    pub fn holder(folder: &Path) -> Option<u32> {
        let (mut file, _) = open_regular(&folder.join("lock")).ok()?;
        read_pid(&mut file).ok()?.filter(|&pid| is_alive(pid))
    }

    /// The process that died holding the lock, when this one took it over.
    pub fn dead_holder(&self) -> Option<u32> {
        self.dead_holder
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Best effort: the lock itself goes with the file handle, and a leftover id only changes a message.
        let _ = self.file.set_len(0);
    }
}

fn taken(folder: &Path, file: &mut File) -> io::Result<LockError> {
    // The holder writes its id just after it has the lock; an id read before that is absent or of the dead.
    for _ in 0..10 {
        if let Some(pid) = read_pid(file)?.filter(|&pid| is_alive(pid)) {
            return Ok(LockError::Taken { folder: folder.to_path_buf(), pid });
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(LockError::TakenByUnknown { folder: folder.to_path_buf() })
}

fn read_pid(file: &mut File) -> io::Result<Option<u32>> {
    let mut text = Vec::new();
    file.rewind()?;
    file.take(32).read_to_end(&mut text)?;
    Ok(std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok()))
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::path::Path;
    use std::process::{Child, Command, Stdio};
    use std::{env, fs, io};

    use super::{FolderLock, LockError};

    const CHILD_FOLDER: &str = "FORNAX_BASE_LOCK_TEST_FOLDER";

    /// Does nothing by itself; [`start_child`] runs it in a second process.
    #[test]
    fn child_holds_the_lock_until_its_stdin_closes() {
        let Some(folder) = env::var_os(CHILD_FOLDER) else {
            return;
        };
        let _lock = FolderLock::acquire(Path::new(&folder)).unwrap();
        io::stdout().write_all(b"\nheld\n").unwrap();
        io::stdin().read_to_end(&mut Vec::new()).unwrap();
    }

    fn start_child(folder: &Path) -> Child {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "lock::tests::child_holds_the_lock_until_its_stdin_closes", "--nocapture"])
            .env(CHILD_FOLDER, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.map(Result::unwrap).any(|line| line == "held"), "the child did not get the lock");
        child
    }

    #[test]
    fn a_second_process_is_named_and_a_dead_one_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = start_child(folder.path());
        match FolderLock::acquire(folder.path()).unwrap_err() {
            LockError::Taken { pid, .. } => assert_eq!(pid, child.id()),
            error => panic!("{error}"),
        }
        assert_eq!(FolderLock::holder(folder.path()), Some(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        let lock = FolderLock::acquire(folder.path()).unwrap();
        assert_eq!(lock.dead_holder(), Some(child.id()));
        let written = fs::read_to_string(folder.path().join("lock")).unwrap();
        assert_eq!(written, format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_second_opening_is_refused_until_the_drop() {
        let folder = tempfile::tempdir().unwrap();
        let lock = FolderLock::acquire(folder.path()).unwrap();
        assert_eq!(lock.dead_holder(), None);
        let error = FolderLock::acquire(folder.path()).unwrap_err();
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(lock);
        assert_eq!(FolderLock::acquire(folder.path()).unwrap().dead_holder(), None);
    }

    #[test]
    fn an_absent_folder_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = FolderLock::acquire(&folder.path().join("absent")).unwrap_err();
        assert!(matches!(error, LockError::Io { .. }), "{error}");
    }
}
