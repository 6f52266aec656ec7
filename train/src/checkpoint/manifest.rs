//! The list of a checkpoint's files with length and sha-256, written last

use std::path::{Path, PathBuf};

use fornax_base::files::read_limited;
use fornax_base::paths::join_inside;
use serde::{Deserialize, Serialize};

use super::{CheckpointError, MANIFEST_FILE};

const FORMAT: &str = "fornax-checkpoint";
const VERSION: u64 = 1;
const GREATEST_BYTES: u64 = 1 << 20;

/// `manifest.json` of a checkpoint folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always `fornax-checkpoint`.
    pub format: String,
    /// Version of the checkpoint format.
    pub version: u64,
    /// The files, in ascending order of names.
    pub files: Vec<ManifestFile>,
}

/// One file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// Path relative to the checkpoint folder.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Checksum in 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// What a manifest of any version says of itself.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u64,
}

impl Manifest {
    /// A manifest of these files, sorted.
    pub(super) fn new(mut files: Vec<ManifestFile>) -> Self {
        files.sort_by(|one, other| one.name.cmp(&other.name));
        Manifest { format: FORMAT.to_owned(), version: VERSION, files }
    }

    /// Reads the manifest of a checkpoint folder.
    ///
    /// # Errors
    /// [`CheckpointError::NoManifest`], or those of [`Manifest::parse`].
    pub fn read(folder: &Path) -> Result<Self, CheckpointError> {
        let path = folder.join(MANIFEST_FILE);
        match read_limited(&path, GREATEST_BYTES) {
            Ok(bytes) => Self::parse(folder, &bytes),
            Err(error) if error.is_not_found() => Err(CheckpointError::NoManifest { path: folder.to_path_buf() }),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a manifest from bytes. Every name of the result leads to a place inside `folder`.
    ///
    /// # Errors
    /// Bytes that are not a manifest as this program writes it, another version, a name outside, names out of order
    /// or twice, a checksum that is none.
    pub fn parse(folder: &Path, bytes: &[u8]) -> Result<Self, CheckpointError> {
        let path = folder.join(MANIFEST_FILE);
        let bad = |what| CheckpointError::BadManifest { path: path.clone(), what };
        let not_json = |error: serde_json::Error| bad(format!("{} bytes, {error}", bytes.len()));
        let head: Head = serde_json::from_slice(bytes).map_err(not_json)?;
        if head.format != FORMAT {
            let found: String = head.format.chars().take(40).collect();
            return Err(bad(format!("its format is {found:?}, not {FORMAT:?}")));
        }
        if head.version != VERSION {
            return Err(CheckpointError::UnknownVersion { path, found: head.version, supported: VERSION });
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(not_json)?;
        manifest.paths(folder)?;
        manifest.check_files().map_err(bad)?;
        // No checksum covers the manifest itself, so every byte has to be as it was written.
        let written = manifest.to_bytes().map_err(not_json)?;
        if written == bytes {
            return Ok(manifest);
        }
        let (found, expected) = (bytes.len(), written.len());
        Err(bad(format!("its {found} bytes are not the {expected} bytes that this program writes for it")))
    }

    fn check_files(&self) -> Result<(), String> {
        let unsorted = |pair: &&[ManifestFile]| pair[0].name >= pair[1].name;
        if let Some(pair) = self.files.windows(2).find(unsorted) {
            return Err(format!("{:?} stands before {:?}", pair[0].name, pair[1].name));
        }
        match self.files.iter().find(|file| !is_sha256(&file.sha256)) {
            Some(file) => Err(format!("the sha-256 of {:?} is none", file.name)),
            None => Ok(()),
        }
    }

    /// The text of the file, the same for equal manifests.
    pub(super) fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Where each listed file lies; all inside `folder`.
    ///
    /// # Errors
    /// [`CheckpointError::Outside`].
    pub fn paths(&self, folder: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
        let join = |file: &ManifestFile| {
            join_inside(folder, &file.name)
                .map_err(|source| CheckpointError::Outside { path: folder.join(MANIFEST_FILE), source })
        };
        self.files.iter().map(join).collect()
    }

    pub(super) fn locate(&self, folder: &Path, name: &str) -> Result<(PathBuf, &ManifestFile), CheckpointError> {
        let place = self.files.iter().zip(self.paths(folder)?);
        let found = place.into_iter().find(|(file, _)| file.name == name);
        let (file, path) = found.ok_or_else(|| CheckpointError::Unlisted {
            path: folder.join(MANIFEST_FILE),
            name: name.to_owned(),
            found: self.files.len(),
        })?;
        Ok((path, file))
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
