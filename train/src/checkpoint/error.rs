//! What can go wrong with a checkpoint

use std::path::PathBuf;

use fornax_base::exit::Exit;
use fornax_base::files::FileError;
use fornax_base::paths::PathError;

/// A checkpoint that cannot be saved, found or trusted.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A tensor to be saved holds a number that is not finite; nothing was written.
    #[error("tensor `{tensor}` holds a number that is not finite at element {at} of {len}")]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// Index of the element met.
        at: usize,
        /// Number of elements.
        len: usize,
    },
    /// A tensor to be saved has a name that is taken or reserved.
    #[error("two tensors of a checkpoint are named `{tensor}`, or the name is reserved")]
    BadName {
        /// The name.
        tensor: String,
    },
    /// A tensor to be saved has bytes that do not fill its shape.
    #[error("tensor `{tensor}` has {found} bytes, but its shape {shape:?} needs {expected}")]
    BytesDiffer {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Length of its bytes.
        found: usize,
        /// Length needed; the greatest number when it overflows.
        expected: usize,
    },
    /// The state to be saved, or the one found, belongs to another step.
    #[error("`{}` holds the state of step {found}, but step {expected} is expected", path.display())]
    StepDiffers {
        /// The checkpoint folder.
        path: PathBuf,
        /// Step in the state.
        found: u64,
        /// Step of the folder.
        expected: u64,
    },
    /// The folder was never finished, or lost its manifest.
    #[error("`{}` is not a checkpoint: its manifest.json is missing", path.display())]
    NoManifest {
        /// The checkpoint folder.
        path: PathBuf,
    },
    /// The manifest is not what this program writes.
    #[error("manifest `{}` is damaged: {what}", path.display())]
    BadManifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The manifest is of another format version.
    #[error("manifest `{}` has format version {found}, but this program reads version {supported}", path.display())]
    UnknownVersion {
        /// The manifest.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The version read.
        supported: u64,
    },
    /// The manifest names a file outside its folder.
    #[error("manifest `{}` names a file outside its folder", path.display())]
    Outside {
        /// The manifest.
        path: PathBuf,
        /// The name and what is wrong with it.
        source: PathError,
    },
    /// The manifest does not list a file that every checkpoint has.
    #[error("manifest `{}` lists {found} files, but not `{name}`, which is expected", path.display())]
    Unlisted {
        /// The manifest.
        path: PathBuf,
        /// The file.
        name: String,
        /// Number of files listed.
        found: usize,
    },
    /// A listed file is not there.
    #[error("checkpoint file `{}` is missing", path.display())]
    MissingFile {
        /// The file.
        path: PathBuf,
    },
    /// A listed file has another length.
    #[error("checkpoint file `{}` is {found} bytes long, but its manifest says {expected}", path.display())]
    LengthDiffers {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        found: u64,
        /// The length in the manifest.
        expected: u64,
    },
    /// A listed file has other content.
    #[error("checkpoint file `{}` has sha-256 {found}, but its manifest says {expected}", path.display())]
    ChecksumDiffers {
        /// The file.
        path: PathBuf,
        /// Its checksum.
        found: String,
        /// The checksum in the manifest.
        expected: String,
    },
    /// A tensor file has the right checksum but no valid header.
    #[error("checkpoint file `{}` is not a safetensors file: {what}", path.display())]
    BadTensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The state has the right checksum but cannot be read.
    #[error("checkpoint file `{}` is not a state: {what}", path.display())]
    BadState {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The step asked for has no folder.
    #[error("run `{}` has no checkpoint of step {step}; it has {}", run.display(), steps_in_words(available))]
    NoSuchStep {
        /// The run folder.
        run: PathBuf,
        /// The step asked for.
        step: u64,
        /// The steps there are, ascending.
        available: Vec<u64>,
    },
}

impl CheckpointError {
    /// Whether a checkpoint on disk is not as it was written.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::File(_)
            | Self::NotFinite { .. }
            | Self::BadName { .. }
            | Self::BytesDiffer { .. }
            | Self::UnknownVersion { .. }
            | Self::NoSuchStep { .. } => false,
            Self::StepDiffers { .. }
            | Self::NoManifest { .. }
            | Self::BadManifest { .. }
            | Self::Outside { .. }
            | Self::Unlisted { .. }
            | Self::MissingFile { .. }
            | Self::LengthDiffers { .. }
            | Self::ChecksumDiffers { .. }
            | Self::BadTensors { .. }
            | Self::BadState { .. } => true,
        }
    }

    /// The exit code that tells this fault to the caller of the program.
    pub fn exit(&self) -> Exit {
        match self {
            Self::NotFinite { .. } => Exit::NotFinite,
            Self::NoSuchStep { .. } | Self::UnknownVersion { .. } => Exit::BadInput,
            damage if damage.is_damage() => Exit::Damaged,
            _ => Exit::Failed,
        }
    }
}

fn steps_in_words(steps: &[u64]) -> String {
    if steps.is_empty() {
        return "none".to_owned();
    }
    let words: Vec<String> = steps.iter().map(u64::to_string).collect();
    words.join(", ")
}
