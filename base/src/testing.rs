//! For tests only, here and in every crate that writes files: a file system whose k-th operation fails, and one that
//! forgets what was not synced.

pub mod gguf;
mod lossy;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::files::{FileSystem, RealFs, WritableFile};

pub use lossy::LossyFs;

/// How the chosen operation of a [`FailingFs`] fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailKind {
    /// This one operation fails with EIO.
    DiskError,
    /// This one operation fails with ENOSPC.
    DiskFull,
    /// This operation and every later one fail and change nothing more, as if the process had died here. Drop
    /// everything afterwards and read the folder as the next process would.
    Abort,
}

impl FailKind {
    /// Every kind, for tests that loop over them.
    pub const ALL: [Self; 3] = [Self::DiskError, Self::DiskFull, Self::Abort];

    fn error(self) -> io::Error {
        match self {
            Self::DiskError => Errno::IO.into(),
            Self::DiskFull => Errno::NOSPC.into(),
            Self::Abort => io::Error::other("the simulated process is dead"),
        }
    }
}

/// The real disk, counting every change asked of it (create, open for append, each write call, sync, set length,
/// rename, sync of a folder, create folder, remove) and failing the k-th. A failing write leaves half of its bytes.
///
/// ```
/// use fornax_base::files::write_atomic_bytes;
/// use fornax_base::testing::{FailKind, FailingFs};
///
/// let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("note");
/// let counting = FailingFs::counting();
/// write_atomic_bytes(&counting, &path, b"old").unwrap();
/// for k in 1..=counting.ops_used() {
///     let failing = FailingFs::new(k, FailKind::Abort);
///     write_atomic_bytes(&failing, &path, b"new").unwrap_err();
///     let found = std::fs::read(&path).unwrap();
///     assert!(found == b"old" || found == b"new");
/// }
/// ```
#[derive(Clone, Debug)]
pub struct FailingFs {
    real: RealFs,
    plan: Arc<Plan>,
}

#[derive(Debug)]
struct Plan {
    fail_at: u64,
    kind: FailKind,
    asked: Mutex<Vec<(&'static str, PathBuf)>>,
    healed: AtomicBool,
}

impl FailingFs {
    /// Fails operation `fail_at`, counted from 1; 0 never fails.
    pub fn new(fail_at: u64, kind: FailKind) -> Self {
        let plan = Plan { fail_at, kind, asked: Mutex::default(), healed: AtomicBool::new(false) };
        Self { real: RealFs, plan: Arc::new(plan) }
    }

    /// Only counts: run the work once with it to learn how many values of k there are.
    pub fn counting() -> Self {
        Self::new(0, FailKind::DiskError)
    }

    /// How many operations were asked for so far, failed ones included.
    pub fn ops_used(&self) -> u64 {
        self.plan.asked().len() as u64
    }

    /// The operations asked for so far in order, failed ones included: `create`, `open_append`, `write`, `sync`,
    /// `set_len`, `rename` (with its source), `sync_folder`, `create_folder`, `remove_file`, `remove_folder`.
    pub fn operations(&self) -> Vec<(&'static str, PathBuf)> {
        self.plan.asked().clone()
    }

    /// Nothing fails from here on: the disk has room again.
    pub fn heal(&self) {
        self.plan.healed.store(true, Ordering::SeqCst);
    }
}

impl Plan {
    fn asked(&self) -> MutexGuard<'_, Vec<(&'static str, PathBuf)>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an operation and fails it if it is its turn.
    fn next(&self, operation: &'static str, path: &Path) -> io::Result<()> {
        let now = {
            let mut asked = self.asked();
            asked.push((operation, path.to_path_buf()));
            asked.len() as u64
        };
        let hit = match self.kind {
            FailKind::Abort => self.fail_at != 0 && now >= self.fail_at,
            FailKind::DiskError | FailKind::DiskFull => now == self.fail_at,
        };
        if hit && !self.healed.load(Ordering::SeqCst) { Err(self.kind.error()) } else { Ok(()) }
    }

    /// True when the failing operation is the latest one counted, as opposed to one after a death.
    fn just_hit(&self) -> bool {
        self.asked().len() as u64 == self.fail_at
    }
}

struct FailingFile {
    real: Box<dyn WritableFile>,
    path: PathBuf,
    plan: Arc<Plan>,
}

impl Write for FailingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.plan.next("write", &self.path) {
            if self.plan.just_hit() {
                self.real.write_all(&bytes[..bytes.len() / 2])?;
            }
            return Err(error);
        }
        self.real.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.real.flush()
    }
}

impl WritableFile for FailingFile {
    fn sync(&mut self) -> io::Result<()> {
        self.plan.next("sync", &self.path)?;
        self.real.sync()
    }
}

impl FileSystem for FailingFs {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn WritableFile>> {
        self.plan.next("create", path)?;
        let real = self.real.create_new(path)?;
        Ok(Box::new(FailingFile { real, path: path.to_path_buf(), plan: Arc::clone(&self.plan) }))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WritableFile>> {
        self.plan.next("open_append", path)?;
        let real = self.real.open_append(path)?;
        Ok(Box::new(FailingFile { real, path: path.to_path_buf(), plan: Arc::clone(&self.plan) }))
    }

    fn set_len(&self, path: &Path, len: u64) -> io::Result<()> {
        self.plan.next("set_len", path)?;
        self.real.set_len(path, len)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.plan.next("rename", from)?;
        self.real.rename(from, to)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.plan.next("sync_folder", path)?;
        self.real.sync_folder(path)
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.plan.next("create_folder", path)?;
        self.real.create_folder(path)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.plan.next("remove_file", path)?;
        self.real.remove_file(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.plan.next("remove_folder", path)?;
        self.real.remove_folder(path)
    }
}
