//! What the fuzz targets share: a folder that lasts as long as the process.

use std::path::Path;
use std::sync::OnceLock;

use tempfile::TempDir;

/// A folder of this process. Targets that need a file write it here, over the one of the input before.
///
/// # Panics
/// When no temporary folder can be made.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| tempfile::tempdir().expect("a temporary folder")).path()
}
