//! Read-only memory maps of regular files.

use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::files::{FileError, open_regular};

/// A whole regular file mapped into memory for reading; its pages are loaded when touched.
///
/// The file must not be cut while it is mapped: the operating system then ends the process at the touch of a missing
/// page. Fornax itself replaces files by rename and never changes one in place.
#[derive(Debug)]
pub struct Mapped {
    path: PathBuf,
    map: Mmap,
}

impl Mapped {
    /// Maps a file.
    ///
    /// # Errors
    /// [`FileError::NotAFile`] for a folder, pipe or device, [`FileError::Empty`] for 0 bytes, or the operating
    /// system's refusal; none of them waits or maps anything.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let (file, len) = open_regular(path)?;
        if len == 0 {
            return Err(FileError::Empty { path: path.to_path_buf() });
        }
        // SAFETY: the map is private to this value and only read. Nobody in this project changes a file in place
        // (`files` replaces by rename), so its bytes stay as they are for as long as the map lives.
        let map = unsafe { Mmap::map(&file) }.map_err(FileError::io("map", path))?;
        Ok(Self { path: path.to_path_buf(), map })
    }

    /// All bytes of the file.
    pub fn as_bytes(&self) -> &[u8] {
        &self.map
    }

    /// The path as given to [`Mapped::open`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length in bytes, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "an empty file is refused at opening")]
    pub fn len(&self) -> usize {
        self.map.len()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::Mapped;
    use crate::files::FileError;

    #[test]
    fn maps_the_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, b"seven by").unwrap();
        let mapped = Mapped::open(&path).unwrap();
        assert_eq!(mapped.as_bytes(), b"seven by");
        assert_eq!(mapped.len(), 8);
        assert_eq!(mapped.path(), path);
    }

    #[test]
    fn refuses_what_is_not_a_file_with_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let empty = folder.path().join("empty");
        fs::write(&empty, b"").unwrap();

        let begin = Instant::now();
        let kind_of = |path: &Path| match Mapped::open(path).unwrap_err() {
            FileError::NotAFile { found, .. } => found,
            error => panic!("{error}"),
        };
        assert_eq!(kind_of(folder.path()), "a folder");
        assert_eq!(kind_of(&pipe), "a pipe");
        assert_eq!(kind_of(Path::new("/dev/null")), "a device");
        let error = Mapped::open(&empty).unwrap_err();
        assert!(error.to_string().contains("is 0 bytes long"), "{error}");
        assert!(Mapped::open(&folder.path().join("absent")).unwrap_err().is_not_found());
        assert!(begin.elapsed() < Duration::from_secs(2), "none of these may wait");
    }
}
