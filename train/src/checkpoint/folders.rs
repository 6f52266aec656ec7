//! The checkpoints of a run: which there are, the newest that can be trusted, and which go

use std::fs;
use std::path::{Path, PathBuf};

use fornax_base::files::{self, FileError, FileSystem};

use super::{Checkpoint, CheckpointError, FOLDER, Manifest};

const PREFIX: &str = "step-";
const NEW: &str = ".new";
/// Valid checkpoints that stay whatever a recipe asks for.
const LEAST_KEPT: usize = 2;

/// A folder named as a checkpoint; not verified.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StepFolder {
    /// Steps done, from the name.
    pub step: u64,
    /// The folder.
    pub path: PathBuf,
}

/// A checkpoint passed over, and why.
#[derive(Debug)]
pub struct Skipped {
    /// The folder.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: CheckpointError,
}

/// What [`prune`] did.
#[derive(Debug, Default)]
pub struct Pruned {
    /// Folders removed, oldest at the front.
    pub removed: Vec<PathBuf>,
    /// Removals that failed; training goes on, and the next pruning tries again.
    pub warnings: Vec<FileError>,
    /// Damaged folders, left in place beside the kept ones.
    pub damaged: Vec<Skipped>,
}

/// Name of the checkpoint folder of a step: `step-00000500`.
pub fn folder_name(step: u64) -> String {
    format!("{PREFIX}{step:08}")
}

/// Checkpoint folder of a step in a run folder.
pub fn folder_of(run_folder: &Path, step: u64) -> PathBuf {
    checkpoints_folder(run_folder).join(folder_name(step))
}

pub(super) fn checkpoints_folder(run_folder: &Path) -> PathBuf {
    run_folder.join(FOLDER)
}

/// Where a checkpoint is built whose name is taken.
pub(super) fn replacement_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(NEW);
    PathBuf::from(name)
}

/// The step of a path whose last component is a checkpoint's name.
pub(super) fn step_of(path: &Path) -> Option<u64> {
    step_of_name(path.file_name()?.to_str()?)
}

fn step_of_name(name: &str) -> Option<u64> {
    let step = name.strip_prefix(PREFIX)?.parse().ok()?;
    (folder_name(step) == name).then_some(step)
}

/// The folders named as checkpoints, ascending by step; none when the run has no `checkpoints` folder.
///
/// # Errors
/// When the folder cannot be listed.
pub fn list(run_folder: &Path) -> Result<Vec<StepFolder>, CheckpointError> {
    let mut found: Vec<StepFolder> = folders_in(&checkpoints_folder(run_folder))?
        .into_iter()
        .filter_map(|path| step_of(&path).map(|step| StepFolder { step, path }))
        .collect();
    found.sort();
    Ok(found)
}

/// The newest checkpoint that passes verification, and the newer ones that did not.
///
/// # Errors
/// When the folder cannot be listed.
pub fn newest_valid(run_folder: &Path) -> Result<(Option<Checkpoint>, Vec<Skipped>), CheckpointError> {
    let mut skipped = Vec::new();
    for folder in list(run_folder)?.into_iter().rev() {
        match Checkpoint::open(&folder.path) {
            Ok(checkpoint) => return Ok((Some(checkpoint), skipped)),
            Err(why) => skipped.push(Skipped { path: folder.path, why }),
        }
    }
    Ok((None, skipped))
}

/// The checkpoint of exactly this step; never another one.
///
/// # Errors
/// [`CheckpointError::NoSuchStep`] with the steps there are, or what verification found.
pub fn open_step(run_folder: &Path, step: u64) -> Result<Checkpoint, CheckpointError> {
    let folders = list(run_folder)?;
    match folders.iter().find(|folder| folder.step == step) {
        Some(folder) => Checkpoint::open(&folder.path),
        None => Err(CheckpointError::NoSuchStep {
            run: run_folder.to_path_buf(),
            step,
            available: folders.iter().map(|folder| folder.step).collect(),
        }),
    }
}

/// Cleans up after a crash: removes what was half built or half removed, and completes a replacement. Call it at
/// start, under the run folder's lock. Returns what was removed.
///
/// # Errors
/// When a folder cannot be listed, renamed or removed.
pub fn tidy(fs: &dyn FileSystem, run_folder: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let parent = checkpoints_folder(run_folder);
    if !parent.is_dir() {
        return Ok(Vec::new());
    }
    let mut removed = Vec::new();
    for new in folders_in(&parent)? {
        let name = new.file_name().and_then(|name| name.to_str());
        let Some(step) = name.and_then(|name| step_of_name(name.strip_suffix(NEW)?)) else {
            continue;
        };
        let path = folder_of(run_folder, step);
        if path.exists() {
            files::remove_folder_atomic(fs, &new)?;
            removed.push(new);
        } else {
            let op = "complete the replacement of";
            let failed = |source| FileError::Io { op, path: path.clone(), source };
            fs.rename(&new, &path).map_err(failed)?;
            fs.sync_folder(&parent).map_err(failed)?;
        }
    }
    removed.extend(files::remove_stale_temps(fs, &parent)?);
    Ok(removed)
}

/// Renames the checkpoints after `step` to `<name>.aside`, so that a run continued from `step` on purpose is not
/// mixed with what came after it, and nothing is lost. Returns the new names.
///
/// # Errors
/// When the folder cannot be listed or a checkpoint not be renamed.
pub fn set_aside_after(
    fs: &dyn FileSystem,
    run_folder: &Path,
    step: u64,
) -> Result<Vec<PathBuf>, CheckpointError> {
    let mut aside = Vec::new();
    for folder in list(run_folder)?.into_iter().filter(|folder| folder.step > step) {
        let name = |n: u32| match n {
            1 => format!("{}.aside", folder_name(folder.step)),
            _ => format!("{}.aside-{n}", folder_name(folder.step)),
        };
        let parent = checkpoints_folder(run_folder);
        let mut candidates = (1..=u32::MAX).map(|n| parent.join(name(n)));
        let Some(free) = candidates.find(|path| !path.exists()) else { continue };
        let failed = |source| FileError::Io { op: "set aside", path: folder.path.clone(), source };
        fs.rename(&folder.path, &free).map_err(failed)?;
        fs.sync_folder(&parent).map_err(failed)?;
        aside.push(free);
    }
    Ok(aside)
}

/// Removes old checkpoints, oldest at the front, each by rename so that none is ever half there.
///
/// Kept are the newest `keep_last` valid ones (at least 2, whatever is asked), and the one of `best_step`. The two
/// newest are verified by checksum, since nothing may go unless two others can be loaded; the rest by length. Damaged
/// folders newer than the oldest kept one stay in place and do not count.
///
/// # Errors
/// When the folder cannot be listed; a removal that fails is a warning in the result.
pub fn prune(
    fs: &dyn FileSystem,
    run_folder: &Path,
    keep_last: usize,
    best_step: Option<u64>,
) -> Result<Pruned, CheckpointError> {
    let keep = keep_last.max(LEAST_KEPT);
    let folders = list(run_folder)?;
    let mut pruned = Pruned::default();
    if folders.len() <= keep {
        return Ok(pruned);
    }
    let mut kept = 0;
    let mut old = Vec::new();
    for StepFolder { step, path } in folders.into_iter().rev() {
        if kept == keep {
            if best_step != Some(step) {
                old.push(path);
            }
            continue;
        }
        let verified = if kept < LEAST_KEPT { Checkpoint::open(&path).map(drop) } else { verify_lengths(&path) };
        match verified {
            Ok(()) => kept += 1,
            Err(why) => pruned.damaged.push(Skipped { path, why }),
        }
    }
    for path in old.into_iter().rev() {
        match files::remove_folder_atomic(fs, &path) {
            Ok(()) => pruned.removed.push(path),
            Err(error) => pruned.warnings.push(error),
        }
    }
    Ok(pruned)
}

fn verify_lengths(folder: &Path) -> Result<(), CheckpointError> {
    let manifest = Manifest::read(folder)?;
    for (file, path) in manifest.files.iter().zip(manifest.paths(folder)?) {
        match fs::metadata(&path) {
            Ok(about) if about.len() == file.bytes => {}
            Ok(about) => {
                return Err(CheckpointError::LengthDiffers { path, found: about.len(), expected: file.bytes });
            }
            Err(_) => return Err(CheckpointError::MissingFile { path }),
        }
    }
    Ok(())
}

/// The folders in `parent`, links not followed; none when `parent` does not exist.
fn folders_in(parent: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let failed = |source| FileError::Io { op: "list", path: parent.to_path_buf(), source };
    let entries = match fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error).into()),
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            folders.push(entry.path());
        }
    }
    folders.sort();
    Ok(folders)
}
