//! For tests only: a disk that forgets what was not synced when the power goes.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::files::{FileSystem, RealFs, WritableFile};

/// A folder of the real disk, and a memory of what has certainly reached it. Readers look at the real files;
/// [`LossyFs::lose_power`] leaves there what a power failure at that moment might leave.
///
/// The model is what POSIX promises and no more. A file's content is safe once the file was synced. A name in a folder
/// (made, renamed or removed) is safe once the folder was synced, whether or not the file under it was. Of the changes
/// of one folder that are not yet safe a prefix survives, as with a journal; different folders, and the contents of
/// files, survive independently. An unsynced file is found with its old content, with a part of the new one, or with
/// zeros.
///
/// ```
/// use fornax_base::files::{FileSystem, write_atomic_bytes};
/// use fornax_base::testing::LossyFs;
///
/// let folder = tempfile::tempdir().unwrap();
/// let (disk, path) = (LossyFs::new(folder.path()), folder.path().join("note"));
/// write_atomic_bytes(&disk, &path, b"kept").unwrap();
/// disk.create_new(&folder.path().join("draft")).unwrap();
/// disk.lose_power(&mut |_| 0).unwrap();
/// assert_eq!(std::fs::read(&path).unwrap(), b"kept");
/// assert!(!folder.path().join("draft").exists());
/// ```
#[derive(Clone, Debug)]
pub struct LossyFs {
    root: PathBuf,
    disk: Arc<Mutex<Disk>>,
    /// Whether a sync does nothing but say that all is well.
    lies: bool,
}

#[derive(Debug)]
struct Disk {
    nodes: Vec<Node>,
    /// Operations until the process has died; `None` while it lives on.
    left: Option<u64>,
}

#[derive(Debug)]
enum Node {
    File { now: Vec<u8>, safe: Vec<u8> },
    Folder { now: Names, safe: Names, pending: Vec<Change> },
}

type Names = BTreeMap<OsString, usize>;

/// One change of a folder's names that is not safe yet.
#[derive(Debug, Clone)]
enum Change {
    Link(OsString, usize),
    Unlink(OsString),
    Rename(OsString, OsString),
}

const ROOT: usize = 0;

impl LossyFs {
    /// Looks after the empty folder `root`; paths outside it are errors.
    pub fn new(root: &Path) -> Self {
        let disk = Disk { nodes: vec![Node::folder()], left: None };
        Self { root: root.to_path_buf(), disk: Arc::new(Mutex::new(disk)), lies: false }
    }

    /// A disk whose syncs do nothing: what is built on them must be seen to fail.
    pub fn lying(root: &Path) -> Self {
        Self { lies: true, ..Self::new(root) }
    }

    /// The process dies in its `operations`-th operation from now, counted from 1: a write leaves half of its bytes,
    /// another operation changes nothing, and all later ones fail.
    pub fn die_after(&self, operations: u64) {
        self.disk().left = Some(operations);
    }

    /// Cuts the power: the folder holds afterwards what was safe, and of the rest what `choose` says. `choose(n)` must
    /// give a number below n. The next process lives.
    ///
    /// # Errors
    /// When the real folder cannot be rewritten.
    pub fn lose_power(&self, choose: &mut dyn FnMut(u64) -> u64) -> io::Result<()> {
        let mut disk = self.disk();
        let mut survivors = Vec::new();
        disk.survive(ROOT, &mut survivors, choose);
        *disk = Disk { nodes: survivors, left: None };
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
        disk.write_out(ROOT, &self.root)
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn names(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let below = path.strip_prefix(&self.root).map_err(|_| refused("a path outside the lossy disk"))?;
        let name = |part: Component<'_>| match part {
            Component::Normal(name) => Ok(name.to_os_string()),
            _ => Err(refused("a path with dots on the lossy disk")),
        };
        below.components().map(name).collect()
    }

    /// The folder a path lies in, and its name there.
    fn place(&self, disk: &Disk, path: &Path) -> io::Result<(usize, OsString)> {
        let mut names = self.names(path)?;
        let name = names.pop().ok_or_else(|| refused("the root of the lossy disk"))?;
        Ok((disk.find(&names)?, name))
    }

    fn node(&self, disk: &Disk, path: &Path) -> io::Result<usize> {
        disk.find(&self.names(path)?)
    }
}

impl Node {
    fn folder() -> Self {
        Node::Folder { now: Names::new(), safe: Names::new(), pending: Vec::new() }
    }
}

impl Change {
    fn apply(&self, names: &mut Names) {
        match self {
            Change::Link(name, id) => drop(names.insert(name.clone(), *id)),
            Change::Unlink(name) => drop(names.remove(name)),
            Change::Rename(from, to) => {
                if let Some(id) = names.remove(from) {
                    names.insert(to.clone(), id);
                }
            }
        }
    }
}

impl Disk {
    /// Counts an operation. True when the process dies in it, an error when it is dead already.
    fn dies(&mut self) -> io::Result<bool> {
        match &mut self.left {
            None => Ok(false),
            Some(0) => Err(refused("the simulated process is dead")),
            Some(left) => {
                *left -= 1;
                Ok(*left == 0)
            }
        }
    }

    /// [`Disk::dies`] for an operation that happens whole or not at all.
    fn next(&mut self) -> io::Result<()> {
        if self.dies()? { Err(refused("the simulated process dies here")) } else { Ok(()) }
    }

    fn find(&self, names: &[OsString]) -> io::Result<usize> {
        names.iter().try_fold(ROOT, |at, name| self.child(at, name).ok_or_else(|| io::ErrorKind::NotFound.into()))
    }

    fn child(&self, folder: usize, name: &OsStr) -> Option<usize> {
        match &self.nodes[folder] {
            Node::Folder { now, .. } => now.get(name).copied(),
            Node::File { .. } => None,
        }
    }

    fn change(&mut self, folder: usize, change: Change) {
        if let Node::Folder { now, pending, .. } = &mut self.nodes[folder] {
            change.apply(now);
            pending.push(change);
        }
    }

    fn add(&mut self, folder: usize, name: OsString, node: Node) -> usize {
        self.nodes.push(node);
        let id = self.nodes.len() - 1;
        self.change(folder, Change::Link(name, id));
        id
    }

    /// Takes away everything below `folder`, one name after another.
    fn empty(&mut self, folder: usize) {
        let Node::Folder { now, .. } = &self.nodes[folder] else { return };
        for (name, id) in now.clone() {
            self.empty(id);
            self.change(folder, Change::Unlink(name));
        }
    }

    fn content(&mut self, file: usize) -> io::Result<&mut Vec<u8>> {
        match &mut self.nodes[file] {
            Node::File { now, .. } => Ok(now),
            Node::Folder { .. } => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn sync(&mut self, node: usize) {
        match &mut self.nodes[node] {
            Node::File { now, safe } => safe.clone_from(now),
            Node::Folder { now, safe, pending } => {
                safe.clone_from(now);
                pending.clear();
            }
        }
    }

    /// Copies what is left of `node` after a power failure into `survivors`; its number there.
    fn survive(&self, node: usize, survivors: &mut Vec<Node>, choose: &mut dyn FnMut(u64) -> u64) -> usize {
        let id = survivors.len();
        match &self.nodes[node] {
            Node::File { now, safe } => {
                let content = match choose(if now == safe { 1 } else { 3 }) {
                    0 => safe.clone(),
                    1 => now[..choose(now.len() as u64 + 1) as usize].to_vec(),
                    _ => vec![0; now.len()],
                };
                survivors.push(Node::File { now: content.clone(), safe: content });
            }
            Node::Folder { safe, pending, .. } => {
                let mut names = safe.clone();
                let kept = choose(pending.len() as u64 + 1) as usize;
                pending[..kept].iter().for_each(|change| change.apply(&mut names));
                survivors.push(Node::folder());
                let names: Names =
                    names.into_iter().map(|(name, id)| (name, self.survive(id, survivors, choose))).collect();
                survivors[id] = Node::Folder { now: names.clone(), safe: names, pending: Vec::new() };
            }
        }
        id
    }

    fn write_out(&self, folder: usize, path: &Path) -> io::Result<()> {
        let Node::Folder { now, .. } = &self.nodes[folder] else { return Ok(()) };
        for (name, &id) in now {
            let path = path.join(name);
            match &self.nodes[id] {
                Node::File { now, .. } => fs::write(path, now)?,
                Node::Folder { .. } => {
                    fs::create_dir(&path)?;
                    self.write_out(id, &path)?;
                }
            }
        }
        Ok(())
    }
}

struct LossyFile {
    real: Box<dyn WritableFile>,
    node: usize,
    fs: LossyFs,
}

impl Write for LossyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut disk = self.fs.disk();
        let dies = disk.dies()?;
        let bytes = if dies { &bytes[..bytes.len() / 2] } else { bytes };
        self.real.write_all(bytes)?;
        disk.content(self.node)?.extend_from_slice(bytes);
        if dies { Err(refused("the simulated process dies in a write")) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.real.flush()
    }
}

impl WritableFile for LossyFile {
    fn sync(&mut self) -> io::Result<()> {
        let mut disk = self.fs.disk();
        disk.next()?;
        if !self.fs.lies {
            disk.sync(self.node);
        }
        Ok(())
    }
}

impl FileSystem for LossyFs {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn WritableFile>> {
        let mut disk = self.disk();
        disk.next()?;
        let (folder, name) = self.place(&disk, path)?;
        let real = RealFs.create_new(path)?;
        let node = disk.add(folder, name, Node::File { now: Vec::new(), safe: Vec::new() });
        Ok(Box::new(LossyFile { real, node, fs: self.clone() }))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WritableFile>> {
        let mut disk = self.disk();
        disk.next()?;
        let (folder, name) = self.place(&disk, path)?;
        let real = RealFs.open_append(path)?;
        let node = match disk.child(folder, &name) {
            Some(node) => node,
            None => disk.add(folder, name, Node::File { now: Vec::new(), safe: Vec::new() }),
        };
        Ok(Box::new(LossyFile { real, node, fs: self.clone() }))
    }

    fn set_len(&self, path: &Path, len: u64) -> io::Result<()> {
        let mut disk = self.disk();
        disk.next()?;
        let node = self.node(&disk, path)?;
        RealFs.set_len(path, len)?;
        disk.content(node)?.resize(len as usize, 0);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.next()?;
        let ((from_folder, old), (to_folder, new)) = (self.place(&disk, from)?, self.place(&disk, to)?);
        if from_folder != to_folder {
            return Err(refused("a rename from folder to folder on the lossy disk"));
        }
        RealFs.rename(from, to)?;
        disk.change(from_folder, Change::Rename(old, new));
        Ok(())
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.next()?;
        let node = self.node(&disk, path)?;
        if !self.lies {
            disk.sync(node);
        }
        Ok(())
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.next()?;
        RealFs.create_folder(path)?;
        let mut at = ROOT;
        for name in self.names(path)? {
            at = match disk.child(at, &name) {
                Some(child) => child,
                None => disk.add(at, name, Node::folder()),
            };
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.next()?;
        let (folder, name) = self.place(&disk, path)?;
        RealFs.remove_file(path)?;
        disk.change(folder, Change::Unlink(name));
        Ok(())
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.next()?;
        let (folder, name) = self.place(&disk, path)?;
        RealFs.remove_folder(path)?;
        if let Some(node) = disk.child(folder, &name) {
            disk.empty(node);
        }
        disk.change(folder, Change::Unlink(name));
        Ok(())
    }
}

fn refused(why: &str) -> io::Error {
    io::Error::other(why)
}
